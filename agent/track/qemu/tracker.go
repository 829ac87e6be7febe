package qemu

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/lifeboat-dr/lifeboat/agent/track"
	"github.com/lifeboat-dr/lifeboat/replicator/block"
)

// maxSealed bounds the bitmaps of sealed epochs: QEMU holds each of them in memory.
const maxSealed = 4

// tracker counts what is written to one disk. Of its bitmaps in QEMU exactly one records; those of sealed epochs stand still
// until they are released. Together they hold every write since the newest released epoch, of this process or of one before it.
type tracker struct {
	m    *Machine
	disk Disk

	running int64 // epoch
	number  int64 // of the bitmap that records; 0 when none does
	top     int64 // the highest number that a bitmap may have
	lost    bool  // the bitmap does not hold all of the running epoch
	grown   []block.Extent
	old     []epochs // sealed and not released, in order
}

// epochs is what was written in some epochs.
type epochs struct {
	last   int64 // the newest of them; 0 for those of a process before this one
	number int64 // of the bitmap; 0 when there is none
	lost   bool
	read   bool
	set    []block.Extent
}

var _ track.Tracker = (*tracker)(nil)

// adopt goes on with the bitmaps that are there, if they are complete, else removes them.
func (t *tracker) adopt(ctx context.Context, mon *Monitor, bitmaps []bitmap) error {
	var ours []epochs
	recording := int64(0)
	complete := true
	for _, b := range bitmaps {
		n, ok := t.m.bitmapNumber(b.Name)
		if !ok {
			continue
		}
		t.top = max(t.top, n)
		complete = complete && !b.Inconsistent && !b.Persistent && !b.Busy
		if !b.Recording {
			ours = append(ours, epochs{number: n})
			continue
		}
		complete = complete && recording == 0
		recording = n
	}
	slices.SortFunc(ours, func(a, b epochs) int { return int(a.number - b.number) })
	complete = complete && recording > 0 && recording == t.top
	if complete {
		t.number, t.lost, t.old = recording, false, ours
		return nil
	}
	if recording > 0 || len(ours) > 0 {
		t.m.log.Warn("bitmaps of a disk are incomplete and were removed", "disk", t.disk.ID)
	}
	return t.m.removeBitmaps(ctx, mon, t.disk.Node, bitmaps)
}

// take takes over what the disk is like now.
func (t *tracker) take(d Disk) {
	if d.Node != t.disk.Node {
		t.m.log.Warn("a disk lies on another block node now; what was written to it is not known", "disk", d.ID, "node", d.Node, "before", t.disk.Node)
		t.forget()
	}
	if d.Size > t.disk.Size {
		t.grown = track.Union(t.grown, []block.Extent{{Offset: t.disk.Size, Length: d.Size - t.disk.Size}})
	}
	t.disk = d
}

// forget is for when nobody knows what counts. What was read before stays known.
func (t *tracker) forget() {
	t.lost, t.number = true, 0
	for i, e := range t.old {
		t.old[i].number, t.old[i].lost, t.old[i].read = 0, e.lost || !e.read, true
	}
}

// sealing returns the actions that end the running epoch.
func (t *tracker) sealing() []action {
	out := []action{{"block-dirty-bitmap-add", map[string]any{"node": t.disk.Node, "name": t.m.bitmapName(t.top + 1), "granularity": granularity}}}
	if t.number > 0 {
		out = append(out, action{"block-dirty-bitmap-disable", map[string]any{"node": t.disk.Node, "name": t.m.bitmapName(t.number)}})
	}
	return out
}

// sealed records that the actions were run.
func (t *tracker) sealed() {
	t.top++
	t.old = append(t.old, epochs{last: t.running, number: t.number, lost: t.lost, read: t.number == 0, set: t.grown})
	t.number, t.lost, t.grown = t.top, false, nil
	t.running++
}

// Epoch implements track.Tracker.
func (t *tracker) Epoch() int64 { return t.running }

// Seal implements track.Tracker for this disk alone. It asks QEMU, so it is not for a time in which something is frozen; nothing
// has to be.
func (t *tracker) Seal(ctx context.Context) ([]block.Extent, error) {
	if t.m.snap != nil {
		return nil, errOpen
	}
	err := t.m.with(ctx, func(mon *Monitor) error {
		if err := t.m.survey(ctx, mon); err != nil {
			return err
		}
		if err := t.m.seal(ctx, mon, []*tracker{t}, nil); err != nil {
			return err
		}
		return t.load(ctx, mon)
	})
	if err != nil {
		return nil, err
	}
	e := t.old[len(t.old)-1]
	if e.lost {
		return nil, fmt.Errorf("%w: nobody counted the writes to disk %s before epoch %d", track.ErrLost, t.disk.ID, t.running)
	}
	return inside(slices.Clone(e.set), t.disk.Size), nil
}

// Pending implements track.Tracker.
func (t *tracker) Pending(ctx context.Context) ([]block.Extent, error) {
	if t.lost && t.running == 1 { // nobody knows what was written before this process
		return nil, fmt.Errorf("%w: disk %s", track.ErrLost, t.disk.ID)
	}
	if slices.ContainsFunc(t.old, func(e epochs) bool { return !e.read }) {
		if err := t.m.with(ctx, func(mon *Monitor) error { return t.load(ctx, mon) }); err != nil {
			return nil, err
		}
	}
	var out []block.Extent
	for _, e := range t.old {
		if e.lost {
			return nil, fmt.Errorf("%w: disk %s", track.ErrLost, t.disk.ID)
		}
		out = track.Union(out, e.set)
	}
	return inside(out, t.disk.Size), nil
}

// load reads the bitmaps of sealed epochs that were not read yet, and makes one of too many.
func (t *tracker) load(ctx context.Context, mon *Monitor) error {
	for i := range t.old {
		e := &t.old[i]
		if e.read {
			continue
		}
		es, err := t.m.readBitmap(ctx, mon, t.disk.Node, t.m.bitmapName(e.number))
		if err != nil {
			return fmt.Errorf("read what was written to disk %s: %w", t.disk.ID, err)
		}
		e.set, e.read = track.Union(e.set, es), true
	}
	for len(t.old) > maxSealed {
		if err := t.merge(ctx, mon); err != nil {
			return fmt.Errorf("merge bitmaps of disk %s: %w", t.disk.ID, err)
		}
	}
	return nil
}

// merge puts the oldest sealed epochs into those after them.
func (t *tracker) merge(ctx context.Context, mon *Monitor) error {
	a, b := t.old[0], &t.old[1]
	if a.number > 0 && b.number > 0 {
		err := mon.Do(ctx, "block-dirty-bitmap-merge", map[string]any{"node": t.disk.Node, "target": t.m.bitmapName(b.number), "bitmaps": []string{t.m.bitmapName(a.number)}}, nil)
		if err == nil {
			err = removeBitmap(ctx, mon, t.disk.Node, t.m.bitmapName(a.number))
		}
		if err != nil {
			return err
		}
	} else {
		b.number = max(a.number, b.number)
	}
	b.lost = b.lost || a.lost
	b.set = track.Union(a.set, b.set)
	t.old = t.old[1:]
	return nil
}

// Release implements track.Tracker.
func (t *tracker) Release(epoch int64) error {
	if epoch >= t.running || epoch < 0 {
		return fmt.Errorf("release epoch %d while epoch %d is running", epoch, t.running)
	}
	if len(t.old) == 0 || t.old[0].last > epoch {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), commandLimit)
	defer cancel()
	return t.m.with(ctx, func(mon *Monitor) error {
		for len(t.old) > 0 && t.old[0].last <= epoch {
			if n := t.old[0].number; n > 0 {
				err := removeBitmap(ctx, mon, t.disk.Node, t.m.bitmapName(n))
				if r, ok := errors.AsType[*RefusedError](err); ok && r.Class == "GenericError" {
					t.m.log.Warn("a bitmap was not removed", "disk", t.disk.ID, "err", err)
				} else if err != nil {
					return err
				}
			}
			t.old = t.old[1:]
		}
		return nil
	})
}

// Close implements track.Tracker. The bitmaps stay, for whoever opens the machine next.
func (t *tracker) Close() error { return nil }
