package ship_test

import (
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"github.com/lifeboat-dr/lifeboat/agent/ship"
	"github.com/lifeboat-dr/lifeboat/agent/source"
	"github.com/lifeboat-dr/lifeboat/replicator/ingest"
	"github.com/lifeboat-dr/lifeboat/replicator/repo"
	"github.com/lifeboat-dr/lifeboat/sdk/fleet"
)

// disksOfPoint are the ids of the disks that a point has, in its order.
func disksOfPoint(t *testing.T, r *repo.Repository, seq int64) (ids []string) {
	t.Helper()
	points, err := r.Points(t.Context(), machineID)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range points {
		if p.Sequence == seq {
			for _, d := range p.Disks {
				ids = append(ids, d.ID)
			}
		}
	}
	return ids
}

func TestDisksComeAndGoInsideAGeneration(t *testing.T) {
	t.Parallel()
	const size, more = 12 << 20, 8<<20 + 512
	first, second := noise(t, size), noise(t, more)
	src := source.Config{Disks: []source.Named{{ID: "disk0", Path: first, Stopped: true}, {ID: "disk1", Path: second, Stopped: true}}}
	both := disksOf(t, src)
	r := openTestRepository(t, t.TempDir())
	s := newSite(t, ingest.FromRepo(r))
	var mu sync.Mutex
	var phases []fleet.ProtectionStatusPhase
	var running *ship.Protector
	cfg := s.config(src)
	cfg.Changed = func() {
		if running != nil {
			mu.Lock()
			defer mu.Unlock()
			phases = append(phases, running.Status().Phase)
		}
	}
	a := s.run(cfg, s.want(both[:1]), func(p *ship.Protector) { running = p })
	a.first()
	write := func(path, text string, off int64) {
		t.Helper()
		f := must(os.OpenFile(path, os.O_RDWR, 0))
		defer f.Close()
		must(f.WriteAt([]byte(text), off))
	}
	// protect makes these the protected disks and returns what was shipped until the next point.
	protect := func(disks []source.Disk, seq int64) int64 {
		t.Helper()
		before := s.server.Stats().TotalBytes
		want := s.want(disks)
		want.CaptureId = a.want.CaptureId
		a.want = want
		a.Set(want)
		if len(disks) == 1 {
			a.capture() // nobody waits for a point without the disk
		}
		a.await("point", func(st fleet.ProtectionStatus) bool { return st.LastPoint.Sequence == seq && st.Phase == fleet.Delta })
		return s.server.Stats().TotalBytes - before
	}
	same := func(seq int64, disk string, size int64, want []byte) {
		t.Helper()
		sameImage(t, disk, restore(t, r, seq, disk, size), want)
	}

	write(first, "before the second disk", 4<<20)
	if n := protect(both, 2); n != more+4096 {
		t.Errorf("adding a disk of %d bytes beside one with a changed block shipped %d bytes", more, n)
	}
	if got := disksOfPoint(t, r, 2); !slices.Equal(got, []string{"disk0", "disk1"}) {
		t.Fatalf("got disks %v in the point after the second was added", got)
	}
	same(2, "disk0", size, read(t, first))
	same(2, "disk1", more, read(t, second))
	mu.Lock()
	if !slices.Contains(phases, fleet.InitialReplication) || slices.Contains(phases, fleet.Resync) {
		t.Errorf("got phases %v while a disk was added, want its first copy and no resynchronisation", phases)
	}
	mu.Unlock()

	old := read(t, second)
	write(second, "unseen", 1<<20)
	write(first, "seen", 2<<20)
	if n := protect(both[:1], 3); n != 4096 {
		t.Errorf("without the second disk %d bytes were shipped for one block of the first", n)
	}
	if got := disksOfPoint(t, r, 3); !slices.Equal(got, []string{"disk0"}) {
		t.Fatalf("got disks %v in the point after the second was taken away", got)
	}
	if _, err := os.Stat(filepath.Join(s.dir, "agent", machineID, "disk1.sums")); !os.IsNotExist(err) {
		t.Errorf("the agent kept what it knew of the disk: %v", err)
	}
	same(2, "disk1", more, old) // the older point still has it

	if n := protect(both, 4); n != more {
		t.Errorf("a disk of %d bytes that came back shipped %d bytes: its first copy has to be anew", more, n)
	}
	same(4, "disk1", more, read(t, second))
	same(4, "disk0", size, read(t, first))
	same(3, "disk0", size, read(t, first))
}
