package tracefs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/lifeboat-dr/lifeboat/agent/track"
	"github.com/lifeboat-dr/lifeboat/agent/track/bitmap"
	"github.com/lifeboat-dr/lifeboat/agent/track/epochs"
	"github.com/lifeboat-dr/lifeboat/agent/track/sysblock"
	"github.com/lifeboat-dr/lifeboat/replicator/block"
)

// ErrUnchecked is what Verify returns when the accounting could not be done: requests were in flight all the time, or the kernel
// does not count for this disk. Nothing is known to be missing.
var ErrUnchecked = errors.New("tracefs: the marks were not checked")

// Tracker tracks one disk. It is used by one goroutine; several trackers may be sealed at once.
type Tracker struct {
	m       *Machine
	dev     *sysblock.Disk
	book    *epochs.Book
	sectors int64
	shift   uint32
	ranges  bool // a discard may be of many ranges, and an event tells one

	// Guarded by m.mu.
	words     []uint64
	unknown   int   // events since the last Seal that may have changed anything
	outside   int   // or sectors beyond the end
	issued    int64 // bytes
	completed int64
	missed    uint64

	based   bool
	debt    int64 // issued and not completed, as far as events tell, when the disk was without requests; a request may be issued twice
	at      int64 // completed, when the disk was without requests
	counted int64 // bytes, by the kernel then
}

var _ track.Tracker = (*Tracker)(nil)

// Track begins to track the whole disk at a device path. Nothing is known of the time before: the caller compares the disk as a
// whole. A disk has one Tracker at a time.
func (m *Machine) Track(ctx context.Context, path string) (_ *Tracker, err error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	number, err := sysblock.Find(path)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnsupported, err)
	}
	d, err := sysblock.Open(number)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnsupported, err)
	}
	t := &Tracker{m: m, dev: d, book: epochs.New()}
	defer func() {
		if err != nil {
			err = errors.Join(err, d.Close())
		}
	}()
	if !d.Requests {
		return nil, fmt.Errorf("%w: disk %s has no request queue", ErrUnsupported, d.Name())
	}
	if t.sectors, err = d.Sectors(); err != nil {
		return nil, err
	}
	most, _ := os.ReadFile(filepath.Join(d.Dir, "queue/max_discard_segments"))
	t.ranges = strings.TrimSpace(string(most)) != "1"
	if !d.Counting() {
		m.log.Warn("the kernel did not count what is written to a disk; it does now", "disk", d.Name(), "attribute", "queue/iostats")
		if err := d.Count(); err != nil {
			return nil, err
		}
	}
	words, shift := bitmap.Layout(t.sectors)
	t.words, t.shift = make([]uint64, words), shift
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.disks[number] != nil {
		return nil, fmt.Errorf("tracefs: disk %s is tracked already", d.Name())
	}
	t.missed = m.missed
	m.disks[number] = t
	if err := m.filter(m.numbers()); err != nil {
		delete(m.disks, number)
		return nil, err
	}
	m.log.Info("began to track a disk by trace events", "disk", path, "granule", sysblock.Sector<<shift)
	return t, nil
}

// numbers returns the tracked disks. m.mu is held.
func (m *Machine) numbers() (out []sysblock.Number) {
	for n := range m.disks {
		out = append(out, n)
	}
	return out
}

// take marks what an event did. m.mu is held.
func (t *Tracker) take(e *event, complete bool) {
	switch e.effect() {
	case nothing:
		return
	case unknown:
		t.unknown++
		return
	case discard:
		if t.ranges {
			t.unknown++
		}
	}
	if complete {
		t.completed += e.count * sysblock.Sector
	} else {
		t.issued += e.count * sysblock.Sector
	}
	if !bitmap.Mark(t.words, t.shift, e.sector, e.count) {
		t.outside++
	}
}

// Epoch implements track.Tracker.
func (t *Tracker) Epoch() int64 { return t.book.Epoch() }

// Size returns the disk's size in bytes as of the last Seal, or Track.
func (t *Tracker) Size() int64 { return t.sectors * sysblock.Sector }

// Seal implements track.Tracker, as its namesake of package ebpf does. After a change of the disk's size the epoch is lost.
func (t *Tracker) Seal(ctx context.Context) ([]block.Extent, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if t.words == nil {
		return nil, fmt.Errorf("seal: %w", os.ErrClosed)
	}
	size, err := t.dev.Sectors()
	if err != nil {
		return nil, err
	}
	fresh := make([]uint64, len(t.words))
	t.m.catchUp()
	t.m.mu.Lock()
	old := t.words
	lost := t.doubt()
	t.words = fresh
	done := t.based && t.issued-t.completed == t.debt // some kernels count a request a moment after it is issued
	t.m.mu.Unlock()
	if !t.dev.Is(t.dev.Identity) {
		lost = errors.Join(lost, errors.New("it was removed, or replaced by another one"))
	}
	c, err := t.dev.Counters()
	idle := err == nil && done && t.dev.Counting() && c.InFlight == 0
	es := bitmap.Extents(old, t.shift, t.Size())
	if size != t.sectors {
		lost = errors.Join(lost, fmt.Errorf("its size changed from %d to %d sectors", t.sectors, size))
		t.resize(size)
	}
	es = t.book.Seal(es, idle, lost)
	if lost != nil {
		return nil, fmt.Errorf("%w on disk %s: %w", track.ErrLost, t.dev.Name(), lost)
	}
	return t.clip(es), nil
}

// doubt tells why marks of the running epoch may be missing, and starts the count anew. m.mu is held.
func (t *Tracker) doubt() error {
	errs := []error{t.m.broken}
	if t.m.missed != t.missed {
		errs = append(errs, errors.New("trace buffers overran"))
	}
	if t.unknown > 0 {
		errs = append(errs, fmt.Errorf("%d commands may have written anywhere", t.unknown))
	}
	if t.outside > 0 {
		errs = append(errs, fmt.Errorf("%d writes were beyond its end", t.outside))
	}
	t.missed, t.unknown, t.outside = t.m.missed, 0, 0
	return errors.Join(errs...)
}

// resize begins a bitmap for another size; the marks of the old one are lost, and that is said.
func (t *Tracker) resize(sectors int64) {
	words, shift := bitmap.Layout(sectors)
	t.m.mu.Lock()
	t.sectors, t.words, t.shift = sectors, make([]uint64, words), shift
	t.unknown++ // what the dropped bitmap held of the running epoch
	t.m.mu.Unlock()
}

func (t *Tracker) clip(es []block.Extent) (out []block.Extent) {
	for _, e := range es {
		if e.Offset < t.Size() {
			e.Length = min(e.End(), t.Size()) - e.Offset
			out = append(out, e)
		}
	}
	return out
}

// Pending implements track.Tracker.
func (t *Tracker) Pending(context.Context) ([]block.Extent, error) {
	es, err := t.book.Pending()
	if err != nil {
		return nil, fmt.Errorf("disk %s: %w", t.dev.Name(), err)
	}
	return t.clip(es), nil
}

// Release implements track.Tracker.
func (t *Tracker) Release(epoch int64) error {
	if err := t.book.Release(epoch); err != nil {
		return fmt.Errorf("disk %s: %w", t.dev.Name(), err)
	}
	return nil
}

// Verify compares the bytes whose completion was traced with those that the kernel counted, at an instant without requests in
// flight. It means what its namesake of package ebpf means.
func (t *Tracker) Verify(frozen bool) error {
	if t.words == nil {
		return fmt.Errorf("verify: %w", os.ErrClosed)
	}
	var limit time.Duration
	if frozen {
		limit = 50 * time.Millisecond
	}
	start := time.Now()
	for tries := 0; tries < 5 || time.Since(start) < limit; tries++ {
		before, _ := t.traced()
		c, err := t.dev.Counters()
		if err != nil {
			return err
		}
		after, debt := t.traced()
		if c.InFlight != 0 || before != after || !t.dev.Counting() {
			time.Sleep(200 * time.Microsecond)
			continue
		}
		if debt != t.debt { // a request may have been issued that is not counted yet
			time.Sleep(2 * time.Millisecond)
			if a, d := t.traced(); a != after || d != debt {
				continue
			}
		}
		off := (after - t.at) - (c.Bytes - t.counted)
		known := t.based
		t.based, t.at, t.counted, t.debt = true, after, c.Bytes, debt
		switch {
		case !known:
			return fmt.Errorf("%w: this is the first instant without requests on disk %s", ErrUnchecked, t.dev.Name())
		case off != 0:
			why := fmt.Errorf("the bytes that were traced and those that the kernel counted differ by %d", off)
			t.book.Lose(why)
			return fmt.Errorf("%w on disk %s: %w", track.ErrLost, t.dev.Name(), why)
		}
		return nil
	}
	return fmt.Errorf("%w: disk %s was not without requests for an instant", ErrUnchecked, t.dev.Name())
}

// traced returns the bytes whose completion was traced, and how many more whose issue was.
func (t *Tracker) traced() (completed, owed int64) {
	t.m.catchUp()
	t.m.mu.Lock()
	defer t.m.mu.Unlock()
	return t.completed, t.issued - t.completed
}

// Close implements track.Tracker: the disk is not tracked any more.
func (t *Tracker) Close() error {
	if t.words == nil {
		return nil
	}
	t.m.mu.Lock()
	t.words = nil
	delete(t.m.disks, t.dev.Number)
	err := t.m.filter(t.m.numbers())
	t.m.mu.Unlock()
	return errors.Join(err, t.dev.Close())
}
