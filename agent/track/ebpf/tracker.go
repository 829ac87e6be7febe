package ebpf

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	cilium "github.com/cilium/ebpf"

	"github.com/lifeboat-dr/lifeboat/agent/track"
	"github.com/lifeboat-dr/lifeboat/agent/track/bitmap"
	"github.com/lifeboat-dr/lifeboat/agent/track/epochs"
	"github.com/lifeboat-dr/lifeboat/agent/track/sysblock"
	"github.com/lifeboat-dr/lifeboat/replicator/block"
)

// Tracker tracks one disk. It is used by one goroutine; several trackers may be sealed at once.
type Tracker struct {
	m     *Machine
	slot  int
	state *diskState
	dev   *sysblock.Disk

	sides [2]side
	kept  []uint64 // bits of what is sealed and not released, and of late

	book   *epochs.Book
	first  []block.Extent // what an earlier process left behind, until the first Seal
	passed bool           // commands passed through in the epoch sealed last
	echo   bool           // and may not have ended with it
	stats  Stats
}

var _ track.Tracker = (*Tracker)(nil)

// Epoch implements track.Tracker.
func (t *Tracker) Epoch() int64 { return t.book.Epoch() }

// Size returns the disk's size in bytes as of the last Seal, or Track.
func (t *Tracker) Size() int64 { return t.state.sectors * sector }

// Seal implements track.Tracker. When it returns, every write of the sealed epochs is visible to O_DIRECT reads of the device, or
// will be reported again; it may have to wait for those in flight. It writes to no filesystem, runs no program and logs nothing. A disk that grew reports its new part as
// written, one that shrank nothing beyond its end; Size says so. After any error but track.ErrLost the epoch goes on.
func (t *Tracker) Seal(ctx context.Context) ([]block.Extent, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if t.kept == nil {
		return nil, fmt.Errorf("seal: %w", os.ErrClosed)
	}
	start := time.Now()
	before := t.state.sectors
	es, err := t.collect()
	if err != nil {
		return nil, err
	}
	lost := t.doubt(t.state.sectors > before)
	idle := t.idle()
	if (!idle || lost != nil) && t.state.drains == 1 {
		if err := t.dev.Drain(); err == nil {
			t.stats.Drained++
			idle = true
		}
	}
	if t.echo {
		lost = errors.Join(lost, errors.New("commands passed through before were still under way"))
	}
	t.echo = t.passed && t.state.drains == 0
	es = track.Union(es, t.first)
	t.first = nil
	if t.state.lost == 1 && t.book.Epoch() == 1 {
		lost = errors.Join(lost, errors.New("the process before this one had lost an epoch"))
	}
	if lost != nil {
		t.state.lost = 1
	}
	t.stats.Sealed++
	t.stats.Marked += track.Bytes(es)
	if !idle {
		t.stats.Lingered++
	}
	es = t.book.Seal(es, idle, lost)
	t.stats.Took = time.Since(start)
	if lost != nil {
		return nil, fmt.Errorf("%w on disk %s: %w", track.ErrLost, t.dev.Name(), lost)
	}
	return clip(es, t.Size()), nil
}

// collect flips the sides and takes the marks of the one that is not active any more, into kept, too.
func (t *Tracker) collect() ([]block.Extent, error) {
	size, err := t.dev.Sectors()
	if err != nil {
		return nil, err
	}
	if size != t.state.sectors {
		return t.resize(size)
	}
	old, err := t.flip()
	if err != nil {
		return nil, err
	}
	return t.sides[old].harvest(t.kept, t.Size()), nil
}

// flip makes the other side the active one and returns the one that was, to which nobody writes any more.
func (t *Tracker) flip() (old uint32, err error) {
	old = t.state.active.Load()
	t.state.active.Store(1 - old)
	return old, t.m.settle(t.slot)
}

// doubt tells why marks of the sealed epoch may be missing. Those beyond the end of a disk that grew are not: the new part is
// reported as a whole.
func (t *Tracker) doubt(grown bool) error {
	if !t.dev.Is(t.state.disk) {
		return errors.New("it was removed, or replaced by another one")
	}
	s := t.m.sum(t.slot)
	passed, outside := s.unknown-t.state.unknown, s.outside-t.state.outside
	t.state.unknown, t.state.outside = s.unknown, s.outside
	t.passed = passed > 0
	var errs []error
	if passed > 0 {
		errs = append(errs, fmt.Errorf("%d commands passed through that may have written anywhere", passed))
	}
	if outside > 0 && !grown {
		errs = append(errs, fmt.Errorf("%d marks fell outside the disk", outside))
	}
	return errors.Join(errs...)
}

// Pending implements track.Tracker.
func (t *Tracker) Pending(context.Context) ([]block.Extent, error) {
	es, err := t.book.Pending()
	if err != nil {
		return nil, fmt.Errorf("disk %s: %w", t.dev.Name(), err)
	}
	return clip(es, t.Size()), nil
}

// Release implements track.Tracker.
func (t *Tracker) Release(epoch int64) error {
	if t.kept == nil {
		return fmt.Errorf("release: %w", os.ErrClosed)
	}
	if err := t.book.Release(epoch); err != nil {
		return fmt.Errorf("disk %s: %w", t.dev.Name(), err)
	}
	left, lost := t.book.Kept()
	bitmap.Set(t.kept, track.Union(left, t.first), t.sides[0].shift)
	switch {
	case lost:
		t.state.lost = 1
	case t.book.Epoch() > 1: // what an earlier process lost is said by the first Seal
		t.state.lost = 0
	}
	return nil
}

// Close implements track.Tracker: it lets the disk go, which is marked on for whoever tracks it next. Forget ends that.
func (t *Tracker) Close() error {
	t.m.mu.Lock()
	defer t.m.mu.Unlock()
	if t.m.trackers[t.slot] != t {
		return nil
	}
	delete(t.m.trackers, t.slot)
	return t.let()
}

func (t *Tracker) let() error {
	errs := []error{unmap(t.sides[0].mem), unmap(t.sides[1].mem), unmap(t.kept), t.dev.Close()}
	t.sides, t.kept = [2]side{}, nil
	return errors.Join(errs...)
}

// clip cuts off what lies beyond the size.
func clip(es []block.Extent, size int64) []block.Extent {
	for n := len(es); n > 0 && es[n-1].End() > size; n = len(es) {
		if es[n-1].Offset < size {
			es[n-1].Length = size - es[n-1].Offset
			break
		}
		es = es[:n-1]
	}
	return es
}

// place returns the entry of the map sides.
func (t *Tracker) place(which int) uint32 { return uint32(t.slot*perSlot + which) }

// resize makes the bitmaps anew for a disk of another size and returns what the old ones held, with the part that is new.
func (t *Tracker) resize(sectors int64) (es []block.Extent, err error) {
	before, after := t.Size(), sectors*sector
	words, shift := bitmap.Layout(sectors)
	var made [pending + 1]*cilium.Map
	for which := range made { // before anything is changed
		n := length(words)
		if which == pending {
			n = words
		}
		if made[which], err = newSide(n); err != nil {
			return nil, err
		}
		defer func() { _ = made[which].Close() }()
	}
	held := bitmap.Extents(t.kept, t.sides[0].shift, before)
	for range 2 { // the side that is not active, then the other one after a flip
		idle := 1 - t.state.active.Load()
		es = track.Union(es, t.sides[idle].harvest(t.kept, before))
		mem, err := t.put(int(idle), made[idle])
		if err != nil {
			return nil, err
		}
		old := t.sides[idle].mem
		t.state.shift[idle], t.state.words[idle] = shift, uint32(words)
		t.sides[idle] = side{mem, words, shift}
		if _, err := t.flip(); err != nil {
			return nil, err
		}
		if err := unmap(old); err != nil {
			return nil, err
		}
	}
	if after > before {
		from := before / block.Size * block.Size
		es = track.Union(es, []block.Extent{{Offset: from, Length: after - from}})
	}
	es = clip(es, after)
	old := t.kept
	if t.kept, err = t.put(pending, made[pending]); err != nil {
		return nil, err
	}
	bitmap.Set(t.kept, clip(track.Union(held, es), after), shift)
	t.state.sectors = sectors
	t.stats.Resized++
	return es, unmap(old)
}

// put puts a bitmap in a place and returns its memory.
func (t *Tracker) put(which int, made *cilium.Map) ([]uint64, error) {
	mem, err := mapped[uint64](made)
	if err != nil {
		return nil, err
	}
	if err := t.m.sides.Put(t.place(which), made); err != nil {
		return nil, errors.Join(fmt.Errorf("place a bitmap: %w", err), unmap(mem))
	}
	return mem, nil
}

// found returns the memory of the bitmap in a place.
func (t *Tracker) found(which int) ([]uint64, error) {
	var m *cilium.Map
	if err := t.m.sides.Lookup(t.place(which), &m); err != nil {
		return nil, fmt.Errorf("find bitmap %d of disk %s: %w", which, t.dev.Name(), err)
	}
	defer func() { _ = m.Close() }()
	return mapped[uint64](m)
}
