// Package store owns the contract of the one truth: documents with versions, saved together in transactions. Resources, jobs,
// tasks and events are documents; their packages own kinds and shapes. sqlstore implements it on SQLite and PostgreSQL; the
// suite in storetest is run by both.
package store

import (
	"context"
	"errors"
)

// ErrNotFound means that no document has that key.
var ErrNotFound = errors.New("store: not found")

// ErrConflict means that the document's version is not the expected one, or that it exists although it must not. Nothing of
// the transaction was saved. The caller loads again and decides anew.
var ErrConflict = errors.New("store: conflict")

// ErrUnavailable means that the engine could not be reached for longer than a transaction is tried. Nothing was saved, unless
// the engine was lost during the commit and has not come back to tell.
var ErrUnavailable = errors.New("store: unavailable")

// Kind is a family of documents.
type Kind string

// Store is safe for concurrent use.
type Store interface {
	// View runs fn on one consistent state. fn may run more than once, when the connection to the engine is lost.
	View(ctx context.Context, fn func(Tx) error) error
	// Update runs fn and saves all it put, or nothing. fn may run more than once (serialization failures and lost
	// connections are tried again, and what was saved is never saved twice), so it must have no effect but through tx. An error of fn is returned as it is.
	Update(ctx context.Context, fn func(Tx) error) error
	// Subscribe returns a channel that gets a value after any document of the kinds was saved (values coalesce), and a function
	// that ends the subscription. Saves of other processes on the same PostgreSQL are heard of too, at once as a rule, but a
	// process may die between its save and the word of it: poll as well, seldom.
	Subscribe(kinds ...Kind) (<-chan struct{}, func())
	// Note returns a context under which views note what they read, and what they noted.
	Note(ctx context.Context) (context.Context, Basis)
	Close() error
}

// Basis is what the views under one context have read, whether they found it or not: what was made of it is as good as new while
// the Basis holds. Views under the context have to have ended before it is asked; then it is safe for concurrent use.
type Basis interface {
	// Holds tells that views beginning now would read the same. It is false as soon as any view anywhere may have seen one of the
	// documents changed, made or removed, and so at the latest before the Update that did it returns; it never becomes true
	// again. It may be false although nothing changed, and is when the engine does not answer.
	Holds(ctx context.Context) bool
}

// Tx is one transaction; it must not outlive its function.
type Tx interface {
	// Get decodes the document into dst (a pointer, JSON) and returns its version, or ErrNotFound.
	Get(kind Kind, key string, dst any) (version int64, err error)
	// Put saves the document and returns its new version (old + 1). expect 0: it must not exist. expect -1: whatever it was.
	Put(kind Kind, key string, expect int64, doc any) (version int64, err error)
	// Delete removes the document; expect as in Put, but 0 is refused. ErrNotFound when there is none.
	Delete(kind Kind, key string, expect int64) error
	// List calls fn for documents whose key starts with prefix, in ascending key order (bytewise), beginning after the key
	// after ("" for the first), at most limit (0: no limit). fn decodes with the given function.
	List(kind Kind, prefix, after string, limit int, fn func(key string, version int64, decode func(dst any) error) error) error
	// Count tells how many documents have a key that starts with prefix, at most limit (0: no limit). It reads no document.
	Count(kind Kind, prefix string, limit int) (int, error)
}
