package ebpf

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	cilium "github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/lifeboat-dr/lifeboat/agent/track"
	"github.com/lifeboat-dr/lifeboat/agent/track/bitmap"
	"github.com/lifeboat-dr/lifeboat/agent/track/epochs"
	"github.com/lifeboat-dr/lifeboat/agent/track/sysblock"
)

// ErrFull is why Track refuses one disk more.
var ErrFull = fmt.Errorf("ebpf: %d disks are tracked already", maxDisks)

// Track begins to track the disk at a device path, or goes on: resumed says that its marks are unbroken since the newest epoch that
// an earlier process released, all of which the first Seal reports. When resumed is false, nothing is known of the time before the
// call, and the caller compares the disk as a whole. A disk has one Tracker at a time. It returns ErrFull, or
// ErrUnsupported when the path is no whole disk. It may take a second, and writes nothing to the disk.
func (m *Machine) Track(ctx context.Context, path string) (_ *Tracker, resumed bool, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	number, err := sysblock.Find(path)
	if err != nil {
		return nil, false, unsupported(err)
	}
	d, err := sysblock.Open(number)
	if err != nil {
		return nil, false, unsupported(err)
	}
	t := &Tracker{m: m, dev: d, book: epochs.New()}
	defer func() {
		if err != nil {
			err = errors.Join(err, t.let())
		}
	}()
	if resumed, err = m.resume(t); err != nil {
		return nil, false, err
	} else if resumed {
		m.log.Info("goes on tracking a disk", "disk", path, "bytes", track.Bytes(t.first))
		return t, true, nil
	}
	if err := m.begin(ctx, t, path); err != nil {
		if t.state != nil {
			err = errors.Join(err, m.free(t.slot))
		}
		return nil, false, err
	}
	m.trackers[t.slot] = t
	m.log.Info("began to track a disk", "disk", path, "granule", sector<<t.state.shift[0], "drains", t.state.drains == 1,
		"requests", d.Requests, "checked", t.state.based == 1)
	return t, false, nil
}

// unsupported adds ErrUnsupported to what will not change.
func unsupported(err error) error {
	if errors.Is(err, sysblock.ErrNoDisk) || errors.Is(err, sysblock.ErrPartition) {
		return fmt.Errorf("%w: %w", ErrUnsupported, err)
	}
	return err
}

// resume finds the slot that already has the disk.
func (m *Machine) resume(t *Tracker) (bool, error) {
	for slot := range m.disks {
		s := &m.disks[slot]
		if s.dev != t.dev.Number || s.used.Load() != 1 {
			continue
		}
		if m.trackers[slot] != nil {
			return false, fmt.Errorf("ebpf: disk %s is tracked already", t.dev.Name())
		}
		t.slot, t.state = slot, s
		if t.dev.Is(s.disk) && t.restore() == nil {
			m.trackers[slot] = t
			return true, nil
		}
		m.log.Warn("what was marked on a disk cannot be vouched for", "disk", t.dev.Name())
		err := errors.Join(unmap(t.sides[0].mem), unmap(t.sides[1].mem), unmap(t.kept), m.free(slot))
		t.state, t.sides, t.kept = nil, [2]side{}, nil
		return false, err
	}
	return false, nil
}

// restore maps the bitmaps that another process filled. What is left in the side that is not active is in kept as well.
func (t *Tracker) restore() (err error) {
	for i := range t.sides {
		t.sides[i] = side{words: int(t.state.words[i]), shift: t.state.shift[i]}
		if t.sides[i].mem, err = t.found(i); err != nil {
			return err
		}
	}
	if t.kept, err = t.found(pending); err != nil {
		return err
	}
	a, b := &t.sides[0], &t.sides[1]
	if a.shift != b.shift || a.words != b.words || len(a.mem) != length(a.words) || len(b.mem) != len(a.mem) || len(t.kept) != a.words {
		return errors.New("the bitmaps were being made anew")
	}
	t.sides[1-t.state.active.Load()].harvest(t.kept, t.Size())
	t.first = bitmap.Extents(t.kept, a.shift, t.Size())
	return nil
}

// begin takes a slot for a disk that has none. Whatever stops it, the slot is not in use until all of it is there.
func (m *Machine) begin(ctx context.Context, t *Tracker, path string) (err error) {
	t.slot = m.vacant()
	if t.slot < 0 {
		return ErrFull
	}
	sectors, err := t.dev.Sectors()
	if err != nil {
		return err
	}
	if sectors == 0 {
		return fmt.Errorf("%w: disk %s has no size", ErrUnsupported, t.dev.Name())
	}
	words, shift := bitmap.Layout(sectors)
	s := &m.disks[t.slot]
	t.state = s
	s.dev, s.disk, s.sectors = t.dev.Number, t.dev.Identity, sectors
	s.shift, s.words = [2]uint32{shift, shift}, [2]uint32{uint32(words), uint32(words)}
	if !t.dev.Requests {
		s.bios = 1
		if err := m.watchBios(); err != nil {
			return err
		}
	}
	for which := range pending + 1 {
		n := length(words)
		if which == pending {
			n = words
		}
		made, err := newSide(n)
		if err != nil {
			return err
		}
		mem, err := t.put(which, made)
		if err = errors.Join(err, made.Close()); err != nil {
			return err
		}
		if which == pending {
			t.kept = mem
		} else {
			t.sides[which] = side{mem, words, shift}
		}
	}
	if !t.dev.Counting() {
		m.log.Warn("the kernel did not count what is written to a disk; it does now", "disk", t.dev.Name(), "attribute", "queue/iostats")
		if err := t.dev.Count(); err != nil {
			return err
		}
	}
	if err := m.show(s.dev, t.slot); err != nil {
		return err
	}
	if t.dev.Requests {
		if err := t.try(ctx, path); err != nil {
			return err
		}
	}
	sum := m.sum(t.slot)
	s.unknown, s.outside = sum.unknown, sum.outside
	_, _ = t.balance(200 * time.Millisecond) // on a busy disk the first Verify does it
	s.used.Store(1)
	return nil
}

// vacant returns the first slot that no disk has, or -1.
func (m *Machine) vacant() int {
	for i := range m.disks {
		if m.disks[i].dev == 0 {
			return i
		}
	}
	return -1
}

// watchBios attaches the program for disks without a request queue.
func (m *Machine) watchBios() error {
	if m.links["queue"] != nil {
		return nil
	}
	return m.link("queue", m.queue)
}

// free gives a slot back.
func (m *Machine) free(slot int) error {
	s := &m.disks[slot]
	s.used.Store(0)
	var errs []error
	if m.hide(s.dev, slot) {
		errs = append(errs, m.grace()) // also for programs that found the slot and have not entered
	}
	for which := range pending + 1 {
		if err := m.sides.Delete(uint32(slot*perSlot + which)); err != nil && !errors.Is(err, cilium.ErrKeyNotExist) {
			errs = append(errs, fmt.Errorf("take a bitmap away: %w", err))
		}
	}
	clear(unsafe.Slice((*byte)(unsafe.Pointer(s)), unsafe.Sizeof(*s)))
	clear(m.tallies[slot*m.cpus : (slot+1)*m.cpus])
	return errors.Join(errs...)
}

// Forget stops tracking a disk, for good: what was marked is gone. It has no Tracker any more, or loses it.
func (m *Machine) Forget(path string) error {
	dev, err := sysblock.Find(path)
	if err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for slot := range m.disks {
		if m.disks[slot].dev != dev {
			continue
		}
		var errs []error
		if t := m.trackers[slot]; t != nil {
			delete(m.trackers, slot)
			errs = append(errs, t.let())
		}
		return errors.Join(append(errs, m.free(slot))...)
	}
	return nil
}

// try finds out whether storing a queue attribute waits for the requests in flight, as it does on most kernels: it reads from the
// disk and looks whether requests complete while the queue is being drained.
func (t *Tracker) try(ctx context.Context, path string) error {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_DIRECT, 0)
	if err != nil {
		return fmt.Errorf("read disk %s: %w", t.dev.Name(), err)
	}
	var stop atomic.Bool
	var readers sync.WaitGroup
	for i := range int64(4) {
		readers.Go(func() {
			b := aligned(64 << 10)
			span := max(t.Size()/int64(len(b)), 1)
			for at := i; !stop.Load(); at += 4 {
				if _, err := f.ReadAt(b, at%span*int64(len(b))); err != nil && t.Size() > int64(len(b)) {
					return
				}
			}
		})
	}
	seen := t.m.sum(t.slot).freezing
	for start := time.Now(); time.Since(start) < time.Second; {
		if err = t.dev.Drain(); err != nil || ctx.Err() != nil {
			break
		}
		if t.m.sum(t.slot).freezing != seen {
			t.state.drains = 1
			break
		}
	}
	stop.Store(true)
	readers.Wait()
	return errors.Join(err, ctx.Err(), f.Close())
}

func aligned(n int) []byte {
	const align = 4096
	b := make([]byte, n+align)
	skip := -int(uintptr(unsafe.Pointer(unsafe.SliceData(b)))) & (align - 1)
	return b[skip : skip+n : skip+n]
}
