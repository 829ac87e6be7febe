// Package track says what may have changed on a disk. It owns the interface that every way of tracking changes implements, and
// the errors their callers tell apart. A tracker may over-report and never under-report; one that cannot be sure says so.
package track

import (
	"cmp"
	"context"
	"errors"
	"slices"

	"github.com/lifeboat-dr/lifeboat/replicator/block"
)

// ErrLost is what a tracker returns that cannot vouch for an epoch. The disk must be compared as a whole with what the replicator
// holds; the tracker goes on with the next epoch.
var ErrLost = errors.New("track: changes were lost")

// Tracker knows what was written to one disk, in epochs numbered densely from 1 for as long as the Tracker lives:
//
//	released <= sealed < running
//
// A Tracker is used by one goroutine. Seal must be fit for the time in which the machine's filesystems are frozen: it writes to
// no disk, runs no program and takes milliseconds.
type Tracker interface {
	// Epoch returns the number of the running epoch.
	Epoch() int64
	// Seal ends the running epoch and returns the extents written in it, sorted, apart and inside the disk. A write that
	// starts after Seal returns is in the next epoch; one that was complete when Seal was called is in this one or an earlier.
	// An unchanged extent may be reported; a changed one is never left out. The extents stay pending until Release. After
	// ErrLost the epoch is sealed all the same, and stays lost until it is released.
	Seal(ctx context.Context) ([]block.Extent, error)
	// Pending returns what was written in all epochs sealed and not released, for a caller that does not know any more what
	// Seal said. ErrLost when one of them was lost.
	Pending(ctx context.Context) ([]block.Extent, error)
	// Release forgets the epochs up to the given one: what was read after it was sealed is durable elsewhere. An epoch that
	// is running or not begun is refused.
	Release(epoch int64) error
	Close() error
}

// Union returns the extents covered by a or b, sorted and coalesced. Both must be sorted.
func Union(a, b []block.Extent) []block.Extent {
	all := slices.Concat(a, b)
	slices.SortFunc(all, func(x, y block.Extent) int { return cmp.Compare(x.Offset, y.Offset) })
	out := all[:0]
	for _, e := range all {
		if n := len(out); n > 0 && e.Offset <= out[n-1].End() {
			out[n-1].Length = max(out[n-1].End(), e.End()) - out[n-1].Offset
			continue
		}
		out = append(out, e)
	}
	return out
}

// Bytes returns how many bytes the extents hold.
func Bytes(es []block.Extent) (n int64) {
	for _, e := range es {
		n += e.Length
	}
	return n
}
