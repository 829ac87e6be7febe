// Package scan finds changes by reading: every block of the disk is hashed and compared with what the replicator holds. It owns
// the scan tracker, the file of known sums and the comparing pass that all trackers' extents go through, so that only what
// differs is shipped. It never keeps more in memory than a few windows of one MiB, whatever the disk's size.
package scan

import (
	"context"
	"fmt"

	"github.com/lifeboat-dr/lifeboat/agent/track"
	"github.com/lifeboat-dr/lifeboat/replicator/block"
)

// Tracker takes every byte of a disk for written in every epoch. It works on any disk and never loses anything.
type Tracker struct {
	size     int64
	running  int64
	released int64
}

var _ track.Tracker = (*Tracker)(nil)

// NewTracker returns a tracker of a disk of size bytes.
func NewTracker(size int64) *Tracker { return &Tracker{size: size, running: 1} }

// Epoch implements track.Tracker.
func (t *Tracker) Epoch() int64 { return t.running }

// Seal implements track.Tracker.
func (t *Tracker) Seal(context.Context) ([]block.Extent, error) {
	t.running++
	return t.whole(), nil
}

// Pending implements track.Tracker.
func (t *Tracker) Pending(context.Context) ([]block.Extent, error) {
	if t.released == t.running-1 {
		return nil, nil
	}
	return t.whole(), nil
}

// Release implements track.Tracker.
func (t *Tracker) Release(epoch int64) error {
	if epoch >= t.running || epoch < 0 {
		return fmt.Errorf("release epoch %d while epoch %d is running", epoch, t.running)
	}
	t.released = max(t.released, epoch)
	return nil
}

// Close implements track.Tracker.
func (t *Tracker) Close() error { return nil }

func (t *Tracker) whole() []block.Extent { return []block.Extent{{Offset: 0, Length: t.size}} }
