// Package epochs keeps the books of a tracker: which epochs are sealed and not released, what was written in them, which are lost,
// and what must be reported once more because it may have been read too early. It knows nothing of where marks come from.
package epochs

import (
	"fmt"
	"slices"
	"time"

	"github.com/lifeboat-dr/lifeboat/agent/track"
	"github.com/lifeboat-dr/lifeboat/replicator/block"
)

// slowest is the longest that a request is thought to be under way on a disk that cannot be drained and is never idle. The
// kernel's own limit is 30 seconds, times a few tries.
const slowest = 5 * time.Minute

// Book is used by one goroutine.
type Book struct {
	running int64
	sealed  []sealed
	late    []late
}

// sealed is an epoch that is not released.
type sealed struct {
	epoch int64
	es    []block.Extent
	lost  error
}

// late is what was marked in an epoch that ended with requests in flight which could not be waited for.
type late struct {
	at time.Time
	es []block.Extent
}

// New returns a book whose running epoch is 1.
func New() *Book { return &Book{running: 1} }

// Epoch returns the running epoch.
func (b *Book) Epoch() int64 { return b.running }

// Seal ends the running epoch, with what was marked in it, and returns what is to be read: that, and what was marked before when
// the disk had requests in flight. settled says that all that was marked is done by now, so that nothing of it is reported again.
// lost is nil, or why marks may be missing.
func (b *Book) Seal(marked []block.Extent, settled bool, lost error) []block.Extent {
	es := marked
	for _, l := range b.late {
		es = track.Union(es, l.es)
	}
	if settled {
		b.late = nil
	} else {
		now := time.Now()
		if n := len(b.late); n > 1 { // the newest one stays, however long ago it was
			old := slices.DeleteFunc(b.late[:n-1:n-1], func(l late) bool { return now.Sub(l.at) > slowest })
			b.late = append(old, b.late[n-1])
		}
		b.late = append(b.late, late{now, marked})
	}
	b.sealed = append(b.sealed, sealed{b.running, es, lost})
	b.running++
	return slices.Clone(es)
}

// Lose says that the epoch sealed last is lost.
func (b *Book) Lose(why error) {
	if n := len(b.sealed); n > 0 {
		b.sealed[n-1].lost = why
	}
}

// Pending returns what is sealed and not released, or track.ErrLost.
func (b *Book) Pending() (es []block.Extent, err error) {
	for _, s := range b.sealed {
		if s.lost != nil {
			return nil, fmt.Errorf("%w in epoch %d: %w", track.ErrLost, s.epoch, s.lost)
		}
		es = track.Union(es, s.es)
	}
	return es, nil
}

// Release forgets the epochs up to the given one, which is sealed.
func (b *Book) Release(epoch int64) error {
	if epoch >= b.running || epoch < 0 {
		return fmt.Errorf("release epoch %d while epoch %d is running", epoch, b.running)
	}
	b.sealed = slices.DeleteFunc(b.sealed, func(s sealed) bool { return s.epoch <= epoch })
	return nil
}

// Kept returns what a successor must report: all that is not released, and all that is to be reported once more. lost tells whether
// an epoch of it is lost.
func (b *Book) Kept() (es []block.Extent, lost bool) {
	for _, s := range b.sealed {
		es = track.Union(es, s.es)
		lost = lost || s.lost != nil
	}
	for _, l := range b.late {
		es = track.Union(es, l.es)
	}
	return es, lost
}
