package storetest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/lifeboat-dr/lifeboat/service/store"
)

// note runs fn in a view and returns what it rests on.
func note(t *testing.T, s store.Store, fn func(store.Tx) error) store.Basis {
	t.Helper()
	ctx, b := s.Note(t.Context())
	if err := s.View(ctx, fn); err != nil {
		t.Error(err)
	}
	return b
}

func basis(t *testing.T, s store.Store) {
	look := func(key string) func(store.Tx) error {
		return func(tx store.Tx) error {
			if _, err := tx.Get(kindA, key, nil); err != nil && !errors.Is(err, store.ErrNotFound) {
				return err
			}
			return nil
		}
	}
	under := func(prefix, after string, limit int) func(store.Tx) error {
		return func(tx store.Tx) error {
			return tx.List(kindA, prefix, after, limit, func(string, int64, func(any) error) error { return nil })
		}
	}
	count := func(prefix string) func(store.Tx) error {
		return func(tx store.Tx) error { _, err := tx.Count(kindA, prefix, 0); return err }
	}
	save := func(kind store.Kind, key string) func(store.Tx) error {
		return func(tx store.Tx) error { _, err := tx.Put(kind, key, -1, doc{}); return err }
	}
	remove := func(key string) func(store.Tx) error {
		return func(tx store.Tx) error { return tx.Delete(kindA, key, -1) }
	}
	for _, c := range []struct {
		name         string
		read, change func(store.Tx) error
		want         bool
	}{
		{"the document is saved", look("x/1"), save(kindA, "x/1"), false},
		{"the document is removed", look("x/1"), remove("x/1"), false},
		{"what was not there is made", look("x/none"), save(kindA, "x/none"), false},
		{"another document is saved", look("x/1"), save(kindA, "x/2"), true},
		{"a document of another kind is saved", look("x/1"), save(kindB, "x/1"), true},
		{"one of a list is saved", under("x/", "", 0), save(kindA, "x/1"), false},
		{"one is added to a list", under("x/", "", 0), save(kindA, "x/new"), false},
		{"one is added below a list", under("x/", "", 0), save(kindA, "x/1/deep"), false},
		{"one is removed from a list", under("x/", "", 1), remove("x/1"), false},
		{"one is added to the list of all", under("", "x/1", 5), save(kindA, "z"), false},
		{"one is added to a list by a part of a name", under("x/ne", "", 0), save(kindA, "x/new"), false},
		{"one is added to an empty list", under("empty/", "", 0), save(kindA, "empty/1"), false},
		{"one is added to another list", under("x/", "", 0), save(kindA, "y/new"), true},
		{"one is added to what was counted", count("x/"), save(kindA, "x/new"), false},
		{"one is removed from what was counted", count(""), remove("x/1"), false},
		{"one is added to what was not counted", count("x/"), save(kindA, "y/new"), true},
	} {
		if err := s.Update(t.Context(), func(tx store.Tx) error {
			for _, k := range []string{"x/none", "x/new", "x/1/deep", "z", "empty/1", "y/new"} {
				if err := tx.Delete(kindA, k, -1); err != nil && !errors.Is(err, store.ErrNotFound) {
					return err
				}
			}
			return errors.Join(save(kindA, "x/1")(tx), save(kindA, "x/2")(tx))
		}); err != nil {
			t.Fatal(err)
		}
		first := note(t, s, c.read)
		first.Holds(t.Context()) // a store that others write to may only now learn of what was saved above
		b := note(t, s, c.read)
		if !b.Holds(t.Context()) {
			t.Errorf("%s: the basis does not hold before", c.name)
		}
		if err := s.Update(t.Context(), c.change); err != nil {
			t.Fatal(err)
		}
		if got := b.Holds(t.Context()); got != c.want {
			t.Errorf("%s: got %v, want %v", c.name, got, c.want)
		}
		if b.Holds(t.Context()) && !c.want {
			t.Errorf("%s: the basis holds again", c.name)
		}
	}

	// A view that began before a save and read after it has seen the state of before.
	ctx, late := s.Note(t.Context())
	if err := s.View(ctx, func(tx store.Tx) error {
		if err := look("x/2")(tx); err != nil {
			return err
		}
		if err := s.Update(t.Context(), save(kindA, "x/1")); err != nil {
			return err
		}
		return look("x/1")(tx)
	}); err != nil {
		t.Fatal(err)
	}
	if late.Holds(t.Context()) {
		t.Error("a basis holds of which a part changed before it was read")
	}

	ctx, own := s.Note(t.Context())
	if err := s.Update(ctx, look("x/1")); err != nil {
		t.Fatal(err)
	}
	if own.Holds(t.Context()) {
		t.Error("a basis holds of what an update read")
	}
}

func basisIsCurrent(t *testing.T, s store.Store) { CurrentBasis(t, s, s) }

// CurrentBasis saves at one store and reads at another on the same database, keeping what was read for as long as its basis holds,
// and fails when a reader sees less than what was saved, or what somebody has seen, before it looked.
func CurrentBasis(t *testing.T, writer, reader store.Store) {
	t.Helper()
	const documents, saves = 3, 150
	key := func(d int) string { return fmt.Sprintf("v/%d", d) }
	for d := range documents {
		put(t, writer, kindA, key(d), 0, doc{})
	}
	var known [documents]atomic.Int64 // what was saved or seen at least
	learn := func(d int, n int64) {
		for was := known[d].Load(); n > was && !known[d].CompareAndSwap(was, n); was = known[d].Load() {
		}
	}
	ctx, stop := context.WithCancel(t.Context())
	var parts, writers sync.WaitGroup
	defer parts.Wait()
	defer stop()
	for d := range documents {
		writers.Go(func() {
			for n := range int64(saves) {
				if err := writer.Update(t.Context(), func(tx store.Tx) error { _, err := tx.Put(kindA, key(d), -1, doc{N: int(n + 1)}); return err }); err != nil {
					t.Error(err)
					return
				}
				learn(d, n+1)
			}
		})
	}
	parts.Go(func() { // looks every time
		for ctx.Err() == nil {
			for d := range documents {
				got, _, err := get(t, reader, kindA, key(d))
				if err != nil {
					t.Error(err)
					return
				}
				learn(d, int64(got.N))
			}
		}
	})
	var kept, read atomic.Int64
	for d := range documents {
		for range 2 {
			parts.Go(func() {
				var b store.Basis
				var one, all int64
				for ctx.Err() == nil && !t.Failed() {
					want := known[d].Load()
					if b != nil && b.Holds(t.Context()) {
						kept.Add(1)
					} else {
						read.Add(1)
						b = note(t, reader, func(tx store.Tx) error {
							var x doc
							if _, err := tx.Get(kindA, key(d), &x); err != nil {
								return err
							}
							one, all = int64(x.N), 0
							return tx.List(kindA, "v/", "", 0, func(_ string, _ int64, decode func(any) error) error {
								err := decode(&x)
								all += int64(x.N)
								return err
							})
						})
					}
					learn(d, one)
					if one < want || all < one {
						t.Errorf("got %d of document %d and %d of all, want at least %d", one, d, all, want)
						return
					}
				}
			})
		}
	}
	writers.Wait()
	stop()
	parts.Wait()
	if kept.Load() == 0 || read.Load() == 0 {
		t.Errorf("%d looks were spared and %d made, want both", kept.Load(), read.Load())
	}
}
