package tracktest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/lifeboat-dr/lifeboat/agent/track"
	"github.com/lifeboat-dr/lifeboat/replicator/block"
)

// Hypervisors other than QEMU do not hand out bitmaps: Hyper-V keeps reference points, vSphere ids of changes, and both tell what was
// written between two of them. TestReferencePoints shows that such a host is a track.Machine like any other.
func TestReferencePoints(t *testing.T) {
	t.Parallel()
	RunMachine(t, func(*testing.T) Host {
		h := &refHost{points: map[string]int{}}
		for _, size := range []int{5 << 20, 2<<20 + 512} {
			h.disks = append(h.disks, &refDisk{h: h, data: make([]byte, size)})
		}
		return h
	})
}

// refHost keeps a log of writes, and named places in it.
type refHost struct {
	mu     sync.Mutex // guards all, of the disks too
	disks  []*refDisk
	log    []refWrite
	points map[string]int // places in the log
	life   int            // processes of the hypervisor so far
}

type refWrite struct {
	disk *refDisk
	e    block.Extent
}

type refDisk struct {
	h    *refHost
	data []byte
}

func (d *refDisk) Size() int64 { return int64(len(d.data)) }

func (d *refDisk) WriteAt(p []byte, off int64) (int, error) {
	d.h.mu.Lock()
	defer d.h.mu.Unlock()
	d.h.log = append(d.h.log, refWrite{d, block.Extent{Offset: off, Length: int64(len(p))}})
	return copy(d.data[off:], p), nil
}

func (d *refDisk) ReadAt(p []byte, off int64) (int, error) {
	d.h.mu.Lock()
	defer d.h.mu.Unlock()
	return copy(p, d.data[off:]), nil
}

func (h *refHost) Disks() (out []Disk) {
	for _, d := range h.disks {
		out = append(out, d)
	}
	return out
}

func (h *refHost) Open(*testing.T) track.Machine {
	h.mu.Lock()
	defer h.mu.Unlock()
	m := &refMachine{h: h, life: h.life}
	for i := range h.disks {
		r := &refTracker{m: m, i: i, running: 1}
		for name := range h.points {
			var disk, n int
			if _, err := fmt.Sscanf(name, "disk %d point %d", &disk, &n); err == nil && disk == i {
				r.top = max(r.top, n)
				if r.base == 0 || n < r.base {
					r.base = n // the newest that was released is the oldest that was kept
				}
			}
		}
		m.trackers = append(m.trackers, r)
	}
	return m
}

func (h *refHost) Kill(_ *testing.T, m track.Machine) { m.(*refMachine).snap = nil }
func (h *refHost) Reset(*testing.T)                   {}

func (h *refHost) Restart(*testing.T) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.log, h.points = nil, map[string]int{}
	h.life++
}

type refMachine struct {
	h        *refHost
	life     int
	trackers []*refTracker
	snap     *refSnapshot
}

func (m *refMachine) Disks() (out []track.HostDisk) {
	for i, d := range m.h.disks {
		out = append(out, track.HostDisk{ID: fmt.Sprint("disk", i), Size: d.Size()})
	}
	return out
}

func (m *refMachine) Tracker(i int) track.Tracker { return m.trackers[i] }
func (m *refMachine) Close() error                { return nil }

var errGone = errors.New("the hypervisor's process has ended")

func (m *refMachine) Snapshot(context.Context) (track.Snapshot, error) {
	m.h.mu.Lock()
	defer m.h.mu.Unlock()
	if m.life != m.h.life {
		return nil, errGone
	}
	if m.snap != nil {
		return nil, errors.New("a snapshot is open")
	}
	m.snap = &refSnapshot{m: m, instant: time.Now()}
	for i, d := range m.h.disks {
		m.trackers[i].mark()
		m.snap.views = append(m.snap.views, &refView{s: m.snap, data: slices.Clone(d.data)})
	}
	return m.snap, nil
}

type refSnapshot struct {
	m       *refMachine
	instant time.Time
	views   []*refView
	closed  bool
}

func (s *refSnapshot) Instant() time.Time          { return s.instant }
func (s *refSnapshot) View(i int) track.View       { return s.views[i] }
func (v *refView) NextData(o int64) (int64, error) { return o, nil }
func (v *refView) Buffer(size int) []byte          { return make([]byte, size) }
func (v *refView) Size() int64                     { return int64(len(v.data)) }

func (s *refSnapshot) Close() error {
	if s.closed {
		return errors.New("closed twice")
	}
	s.closed, s.m.snap = true, nil
	return nil
}

type refView struct {
	s    *refSnapshot
	data []byte
}

func (v *refView) ReadAt(p []byte, off int64) (int, error) {
	if v.s.closed {
		return 0, track.ErrBroken
	}
	return copy(p, v.data[off:]), nil
}

// refTracker makes a point at the end of each epoch. What is pending lies between base and top.
type refTracker struct {
	m       *refMachine
	i       int
	running int64
	base    int // point of the newest released epoch, 0 when there is none
	top     int
	ends    []refEnd // of epochs that were not released
}

type refEnd struct {
	epoch int64
	point int
}

func (r *refTracker) name(n int) string { return fmt.Sprintf("disk %d point %d", r.i, n) }

// mark ends the running epoch; the host's lock is held.
func (r *refTracker) mark() {
	r.top++
	r.m.h.points[r.name(r.top)] = len(r.m.h.log)
	r.ends = append(r.ends, refEnd{r.running, r.top})
	r.running++
}

// between returns what was written between two points.
func (r *refTracker) between(from, to int) ([]block.Extent, error) {
	a, ok := r.m.h.points[r.name(from)]
	b, ok2 := r.m.h.points[r.name(to)]
	if !ok || !ok2 {
		return nil, fmt.Errorf("%w: there is no such reference point", track.ErrLost)
	}
	var out []block.Extent
	for _, w := range r.m.h.log[a:b] {
		if w.disk == r.m.h.disks[r.i] {
			out = track.Union(out, []block.Extent{w.e})
		}
	}
	return out, nil
}

func (r *refTracker) Epoch() int64 { return r.running }

func (r *refTracker) Seal(context.Context) ([]block.Extent, error) {
	r.m.h.mu.Lock()
	defer r.m.h.mu.Unlock()
	if r.m.life != r.m.h.life {
		return nil, errGone
	}
	before := r.top
	r.mark()
	return r.between(before, r.top)
}

func (r *refTracker) Pending(context.Context) ([]block.Extent, error) {
	r.m.h.mu.Lock()
	defer r.m.h.mu.Unlock()
	if r.base == r.top && r.base > 0 {
		return nil, nil
	}
	return r.between(r.base, r.top)
}

func (r *refTracker) Release(epoch int64) error {
	r.m.h.mu.Lock()
	defer r.m.h.mu.Unlock()
	if epoch >= r.running || epoch < 0 {
		return fmt.Errorf("release epoch %d while epoch %d is running", epoch, r.running)
	}
	for len(r.ends) > 0 && r.ends[0].epoch <= epoch {
		point := r.ends[0].point
		for n := r.base; n < point; n++ {
			delete(r.m.h.points, r.name(n))
		}
		r.base, r.ends = point, r.ends[1:]
	}
	return nil
}

func (r *refTracker) Close() error { return nil }
