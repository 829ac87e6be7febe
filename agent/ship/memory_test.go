package ship_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"

	"github.com/lifeboat-dr/lifeboat/replicator/block"
	"github.com/lifeboat-dr/lifeboat/replicator/ingest"
	"github.com/lifeboat-dr/lifeboat/replicator/repo"
)

// memory is a repository that keeps whole images: slow and plain, to compare with.
type memory struct {
	mu     sync.Mutex // guards the rest
	points []memoryPoint
	closed map[int64]bool
	open   *memoryWriter    // the newest writer, whose work its successor resumes
	put    map[string]int64 // bytes put, by disk
	asked  int              // requests for sums
	opened int              // writers, one a session
}

type memoryPoint struct {
	ingest.Point
	images map[string][]byte
}

func newMemory() *memory { return &memory{closed: map[int64]bool{}, put: map[string]int64{}} }

func (m *memory) SumKey(machine, disk string) block.SumKey {
	var k block.SumKey
	copy(k[:], machine+"/"+disk)
	return k
}

func (m *memory) NewWriter(_ context.Context, machine string, gen int64, disks []ingest.DiskInfo, _ string) (ingest.Writer, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed[gen] {
		return nil, repo.ErrFenced
	}
	w := &memoryWriter{m: m, machine: machine, gen: gen, disks: disks, images: map[string][]byte{}}
	for _, d := range disks {
		w.images[d.ID] = make([]byte, d.Size)
	}
	if n := len(m.points); n > 0 {
		for id, b := range m.points[n-1].images {
			copy(w.images[id], b)
		}
	}
	if old := m.open; old != nil && old.gen == gen && old.dirty > 0 {
		for id, b := range old.images {
			copy(w.images[id], b)
		}
		w.dirty = old.dirty
	}
	m.open = w
	m.opened++
	return w, nil
}

// Point returns the n-th point from 1.
func (m *memory) point(t *testing.T, n int) memoryPoint {
	t.Helper()
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.points) < n {
		t.Fatalf("got %d points, want %d", len(m.points), n)
	}
	return m.points[n-1]
}

func (m *memory) sessions() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.opened
}

func (m *memory) requests() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.asked
}

func (m *memory) putBytes(disk string) int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.put[disk]
}

type memoryWriter struct {
	m       *memory
	machine string
	gen     int64
	disks   []ingest.DiskInfo
	images  map[string][]byte
	dirty   int64
}

func (w *memoryWriter) Resumed() int64 { return w.dirty }

func (w *memoryWriter) Base() *ingest.PointRef {
	w.m.mu.Lock()
	defer w.m.mu.Unlock()
	if n := len(w.m.points); n > 0 {
		return &ingest.PointRef{Generation: w.m.points[n-1].Generation, Sequence: w.m.points[n-1].Sequence}
	}
	return nil
}

func (w *memoryWriter) Sums(_ context.Context, disk string, first int64, dst []block.Sum) error {
	w.m.mu.Lock()
	w.m.asked++
	w.m.mu.Unlock()
	summer := block.NewSummer(w.m.SumKey(w.machine, disk))
	for i := range dst {
		off := (first + int64(i)) * block.Size
		dst[i] = summer.Of(w.images[disk][off:min(off+block.Size, int64(len(w.images[disk])))])
	}
	return nil
}

func (w *memoryWriter) Put(_ context.Context, disk string, es []block.Extent, sums []block.Sum, data []byte) error {
	summer := block.NewSummer(w.m.SumKey(w.machine, disk))
	for _, e := range es {
		for off := int64(0); off < e.Length; off += block.Size {
			if summer.Of(data[off:min(off+block.Size, e.Length)]) != sums[0] {
				return errors.New("a sum is not that of its block")
			}
			sums = sums[1:]
		}
		copy(w.images[disk][e.Offset:e.End()], data[:e.Length])
		data = data[e.Length:]
		w.m.mu.Lock()
		w.m.put[disk] += e.Length
		w.dirty += e.Length
		w.m.mu.Unlock()
	}
	return nil
}

func (w *memoryWriter) Zero(_ context.Context, disk string, e block.Extent) error {
	clear(w.images[disk][e.Offset:e.End()])
	w.m.mu.Lock()
	w.dirty += e.Length
	w.m.mu.Unlock()
	return nil
}

func (w *memoryWriter) Sync(context.Context) error       { return nil }
func (w *memoryWriter) Checkpoint(context.Context) error { return nil }
func (w *memoryWriter) Close() error                     { return nil }

func (w *memoryWriter) Commit(_ context.Context, c ingest.Commit) (ingest.Point, error) {
	w.m.mu.Lock()
	defer w.m.mu.Unlock()
	if w.m.closed[w.gen] {
		return ingest.Point{}, repo.ErrFenced
	}
	p := memoryPoint{images: map[string][]byte{}}
	p.Machine, p.Generation, p.Sequence = w.machine, w.gen, int64(len(w.m.points)+1)
	p.Time, p.Consistency, p.Disks, p.Hardware = c.Time, c.Consistency, w.disks, c.Hardware
	for id, b := range w.images {
		p.images[id] = slices.Clone(b)
	}
	w.m.points = append(w.m.points, p)
	w.dirty = 0
	return p.Point, nil
}
