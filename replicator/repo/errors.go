package repo

import (
	"errors"
	"fmt"

	"github.com/lifeboat-dr/lifeboat/replicator/block"
)

// Errors a caller may tell apart with errors.Is.
var (
	// ErrFenced means that this writer may not commit any more: its generation was closed, or another writer took over or
	// committed first. Nothing it wrote since its last point is visible. Not retryable; a new Writer tells how things stand.
	ErrFenced = errors.New("repo: fenced")
	// ErrCorrupt means that stored bytes did not verify. The data was not returned.
	ErrCorrupt = errors.New("repo: corrupt")
	// ErrNotFound means that the machine, generation, point or disk is not there, or was pruned.
	ErrNotFound = errors.New("repo: not found")
	// ErrRecoveryKey means that a recovery key is mistyped or belongs to another vault.
	ErrRecoveryKey = errors.New("repo: wrong recovery key")
	// ErrConflict means that the request contradicts what the bucket holds, such as opening a generation while the one
	// before is open.
	ErrConflict = errors.New("repo: conflict")
	// ErrInvalid means that an argument breaks a rule of the call. Nothing was changed.
	ErrInvalid = errors.New("repo: invalid")
)

// CorruptError names what did not verify. It matches ErrCorrupt. Disk and Extent are empty when no disk data was being read.
type CorruptError struct {
	Machine string
	Disk    string
	Extent  block.Extent
	Object  string // name of the bucket object, below the vault's prefix
	Err     error  // what was wrong with it
}

func (e *CorruptError) Error() string {
	s := "repo: corrupt object " + e.Object
	if e.Disk != "" {
		s += fmt.Sprintf(" (machine %s, disk %s, bytes %d to %d)", e.Machine, e.Disk, e.Extent.Offset, e.Extent.End())
	}
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

// Is reports true for ErrCorrupt.
func (e *CorruptError) Is(target error) bool { return target == ErrCorrupt }

// Unwrap returns the cause.
func (e *CorruptError) Unwrap() error { return e.Err }
