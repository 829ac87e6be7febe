package repo_test

import (
	"errors"
	"math/rand/v2"
	"testing"
	"time"

	"gocloud.dev/blob"

	"github.com/lifeboat-dr/lifeboat/replicator/block"
	"github.com/lifeboat-dr/lifeboat/replicator/repo"
)

// sizeOf returns how many objects and bytes lie below a prefix.
func sizeOf(t *testing.T, b *blob.Bucket, prefix string) (n int, bytes int64) {
	t.Helper()
	it := b.List(&blob.ListOptions{Prefix: "vaults/" + vaultID + "/" + prefix})
	for {
		o, err := it.Next(t.Context())
		if err != nil {
			return n, bytes
		}
		n, bytes = n+1, bytes+o.Size
	}
}

// series commits n points an interval apart, each with a block that the next overwrites, and returns the guest at each.
func series(t *testing.T, v *vault, w *repo.Writer, g *guest, n int, start time.Time, every time.Duration) (refs []repo.PointRef, guests []*guest) {
	t.Helper()
	rng := rand.New(rand.NewPCG(3, uint64(n)))
	for i := range n {
		e := block.Extent{Offset: int64(i%3) * block.Size, Length: block.Size}
		scribble(rng, g.bytes["a"][e.Offset:e.End()])
		if err := put(t.Context(), v, w, g, "a", e); err != nil {
			t.Fatal(err)
		}
		p := mustCommit(t, w, repo.Commit{Time: start.Add(time.Duration(i) * every)})
		refs, guests = append(refs, p.PointRef), append(guests, g.clone())
	}
	return refs, guests
}

func TestPruneKeepsWhatRetentionPinsAndBasesNeed(t *testing.T) {
	t.Parallel()
	clock := time.Now()
	v := newVault(t, repo.Options{Now: func() time.Time { return clock }})
	g := newGuest("vm", repo.DiskInfo{ID: "a", Size: 64 << 10})
	mustOpen(t, v, "vm", 1, nil)
	w := mustWriter(t, v, g, 1, t.TempDir())
	refs, guests := series(t, v, w, g, 40, clock.Add(-40*time.Hour), time.Hour)
	if err := v.Pin(t.Context(), "vm", refs[3], "job/1"); err != nil {
		t.Fatal(err)
	}
	packsBefore, _ := sizeOf(t, v.bucket, "packs/")

	prune := func(ahead time.Duration) repo.PruneStats {
		t.Helper()
		clock = time.Now().Add(ahead)
		s, err := v.Prune(t.Context(), "vm", repo.Retention{}, clock)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	if s := prune(0); s.Pruned == 0 || s.PacksDeleted != 0 {
		t.Errorf("first prune: got %+v, want points dropped and no data deleted yet", s)
	}
	points, err := v.Points(t.Context(), "vm")
	if err != nil {
		t.Fatal(err)
	}
	if n := len(points); n < 23 || n > 26 || points[0].PointRef != refs[3] || points[n-1].PointRef != refs[39] {
		t.Errorf("after prune %d points are left, from %v to %v", n, points[0].PointRef, points[n-1].PointRef)
	}
	if _, err := v.OpenPoint(t.Context(), "vm", refs[2]); !errors.Is(err, repo.ErrNotFound) {
		t.Errorf("open a pruned point: got %v, want ErrNotFound", err)
	}
	if err := v.Pin(t.Context(), "vm", refs[2], "x"); !errors.Is(err, repo.ErrNotFound) {
		t.Errorf("pin a pruned point: got %v, want ErrNotFound", err)
	}
	if s := prune(2 * time.Hour); s.PacksDeleted == 0 || s.BytesDeleted == 0 {
		t.Errorf("second prune, after the grace: got %+v, want data deleted", s)
	}
	requireEqual(t, v, refs[3], guests[3])
	requireEqual(t, v, refs[39], guests[39])

	if err := v.Unpin(t.Context(), "vm", refs[3], "job/1"); err != nil {
		t.Fatal(err)
	}
	prune(90 * time.Hour)
	prune(92 * time.Hour)
	// A layer keeps the packs of blocks that newer layers hide, until it is merged: at most 16 here, one a layer.
	if packs, _ := sizeOf(t, v.bucket, "packs/"); packs > 16 {
		t.Errorf("%d of %d packs are left for one point of three blocks", packs, packsBefore)
	}
	if entries, _ := sizeOf(t, v.bucket, "points/"); entries != 2 {
		t.Errorf("%d log entries are left, want the open one and the newest", entries)
	}
	requireEqual(t, v, refs[39], guests[39])

	// Writing goes on above the floor, and the base of an open generation stays.
	more, _ := series(t, v, w, g, 1, clock, time.Hour)
	if _, err := v.CloseGeneration(t.Context(), "vm", 1, "failover"); err != nil {
		t.Fatal(err)
	}
	mustOpen(t, v, "vm", 2, &more[0])
	prune(900 * time.Hour)
	prune(902 * time.Hour)
	requireEqual(t, v, more[0], g)
	w2 := mustWriter(t, v, g, 2, t.TempDir())
	again, _ := series(t, v, w2, g, 2, clock, time.Hour)
	prune(1800 * time.Hour)
	prune(1802 * time.Hour)
	requireEqual(t, v, again[1], g)
	if points, err := v.Points(t.Context(), "vm"); err != nil || len(points) != 1 {
		t.Errorf("points: got %+v, %v, want the newest alone", points, err)
	}
	if _, err := v.CloseGeneration(t.Context(), "vm", 1, "again"); err != nil {
		t.Errorf("close a generation whose points are gone: %v", err)
	}
}

func TestPruneKeepsTheNewestAppConsistentPoint(t *testing.T) {
	t.Parallel()
	v := newVault(t, repo.Options{})
	g := newGuest("vm", repo.DiskInfo{ID: "a", Size: 64 << 10})
	mustOpen(t, v, "vm", 1, nil)
	w := mustWriter(t, v, g, 1, t.TempDir())
	app := mustCommit(t, w, repo.Commit{Time: time.Now().Add(-500 * time.Hour), Consistency: "applicationConsistent"})
	series(t, v, w, g, 4, time.Now().Add(-400*time.Hour), time.Hour)
	if _, err := v.Prune(t.Context(), "vm", repo.Retention{}, time.Now()); err != nil {
		t.Fatal(err)
	}
	points, err := v.Points(t.Context(), "vm")
	if err != nil || len(points) != 2 || points[0].PointRef != app.PointRef {
		t.Errorf("points: got %+v, %v, want the app-consistent one and the newest", points, err)
	}
}

func TestPruneSparesCheckpointedSessions(t *testing.T) {
	t.Parallel()
	clock := time.Now()
	v := newVault(t, repo.Options{Now: func() time.Time { return clock }})
	g := newGuest("vm", repo.DiskInfo{ID: "a", Size: 4 << 20})
	scribble(rand.New(rand.NewPCG(1, 1)), g.bytes["a"])
	mustOpen(t, v, "vm", 1, nil)
	w := mustWriter(t, v, g, 1, t.TempDir())
	putAll(t, v, w, g, "a")
	if err := w.Checkpoint(t.Context()); err != nil {
		t.Fatal(err)
	}
	clock = clock.Add(1000 * time.Hour)
	if s, err := v.Prune(t.Context(), "vm", repo.Retention{}, clock); err != nil || s.PacksDeleted != 0 {
		t.Fatalf("prune: got %+v, %v", s, err)
	}
	requireEqual(t, v, mustCommit(t, w, repo.Commit{}).PointRef, g)
}

func TestDeletedMachineLeavesNothing(t *testing.T) {
	t.Parallel()
	v := newVault(t, repo.Options{})
	for _, m := range []string{"vm", "vm2"} {
		g := newGuest(m, repo.DiskInfo{ID: "a", Size: 64 << 10})
		mustOpen(t, v, m, 1, nil)
		w := mustWriter(t, v, g, 1, t.TempDir())
		refs, _ := series(t, v, w, g, 2, t0, time.Hour)
		if err := v.Pin(t.Context(), m, refs[0], "x"); err != nil {
			t.Fatal(err)
		}
	}
	before, _ := sizeOf(t, v.bucket, "")
	for range 2 {
		if err := v.DeleteMachine(t.Context(), "vm"); err != nil {
			t.Fatal(err)
		}
	}
	if left, _ := sizeOf(t, v.bucket, ""); left != before/2 {
		t.Errorf("%d objects are left of %d of two equal machines", left, before)
	}
	if ms, err := v.Machines(t.Context()); err != nil || len(ms) != 1 || ms[0] != "vm2" {
		t.Errorf("machines: got %v, %v", ms, err)
	}
}

func TestLayersStayFewHoweverManyPoints(t *testing.T) {
	t.Parallel()
	v := newVault(t, repo.Options{CacheBytes: 1 << 20})
	g := newGuest("vm", repo.DiskInfo{ID: "a", Size: 2 << 20}, repo.DiskInfo{ID: "b", Size: 64 << 10})
	mustOpen(t, v, "vm", 1, nil)
	w := mustWriter(t, v, g, 1, t.TempDir())
	rng := rand.New(rand.NewPCG(6, 6))
	scribble(rng, g.bytes["a"])
	putAll(t, v, w, g, "a")
	var refs []repo.PointRef
	var guests []*guest
	for i := range 120 {
		e := block.Extent{Offset: rng.Int64N(500) * block.Size, Length: 12 * block.Size}
		if i%5 == 0 {
			clear(g.bytes["a"][e.Offset:e.End()])
			if err := w.Zero(t.Context(), "a", e); err != nil {
				t.Fatal(err)
			}
		} else {
			scribble(rng, g.bytes["a"][e.Offset:e.End()])
			if err := put(t.Context(), v, w, g, "a", e); err != nil {
				t.Fatal(err)
			}
		}
		if i%7 == 0 {
			if err := w.Checkpoint(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		refs, guests = append(refs, mustCommit(t, w, repo.Commit{}).PointRef), append(guests, g.clone())
	}
	for i, ref := range refs {
		requireEqual(t, v, ref, guests[i])
	}
	s, err := v.OpenPoint(t.Context(), "vm", refs[len(refs)-1])
	if err != nil {
		t.Fatal(err)
	}
	d, err := s.Disk("a")
	if err != nil {
		t.Fatal(err)
	}
	if err := d.ReadAt(t.Context(), make([]byte, block.Size), 0); err != nil {
		t.Fatal(err)
	}
	if n, bytes := s.Requests(); n > 2+16+1 || bytes > 1<<20 {
		t.Errorf("the first block of the 120th point cost %d requests and %d bytes", n, bytes)
	}
}

func TestReaderOfAPointThatIsSweptIsToldSo(t *testing.T) {
	t.Parallel()
	v := newVault(t, repo.Options{CacheBytes: 1})
	g := newGuest("vm", repo.DiskInfo{ID: "a", Size: 64 << 10})
	mustOpen(t, v, "vm", 1, nil)
	w := mustWriter(t, v, g, 1, t.TempDir())
	refs, guests := series(t, v, w, g, 30, t0, time.Minute)
	s, err := v.OpenPoint(t.Context(), "vm", refs[0])
	if err != nil {
		t.Fatal(err)
	}
	d, err := s.Disk("a")
	if err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 64<<10)
	for _, c := range []struct {
		ahead time.Duration
		want  error
	}{{0, nil}, {2 * time.Hour, repo.ErrNotFound}} {
		if _, err := v.Prune(t.Context(), "vm", repo.Retention{}, time.Now().Add(c.ahead)); err != nil {
			t.Fatal(err)
		}
		err := d.ReadAt(t.Context(), got, 0)
		if !errors.Is(err, c.want) || errors.Is(err, repo.ErrCorrupt) {
			t.Errorf("read %v after the point was pruned: got %v, want %v", c.ahead, err, c.want)
		}
		if err == nil && firstDifference(got, guests[0].bytes["a"]) >= 0 {
			t.Error("the point shows other bytes")
		}
	}
}
