package repo_test

import (
	"context"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/lifeboat-dr/lifeboat/replicator/block"
	"github.com/lifeboat-dr/lifeboat/replicator/repo"
)

// Lent memory is used again, for other bytes, as soon as it was given back, while another goroutine syncs all the time. What was
// written, in which order, shows in the point, and in what the next writer finds after a crash.
func TestLentMemoryIsCopiedBeforeItIsGivenBack(t *testing.T) {
	t.Parallel()
	const size = 12 << 20
	v := newVault(t, repo.Options{})
	g := newGuest("vm-1", repo.DiskInfo{ID: "sda", Size: size})
	mustOpen(t, v, g.machine, 1, nil)
	dir := t.TempDir()
	w, err := v.NewWriter(t.Context(), g.machine, 1, g.disks, repo.WriterOptions{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(7, 7))
	summer := block.NewSummer(v.SumKey(g.machine, "sda"))
	free := make(chan []byte, 6)
	for range cap(free) {
		free <- make([]byte, repo.MaxPut)
	}
	take := func() {
		n := int64(block.Size) * (1 + rng.Int64N(repo.MaxPut/block.Size))
		if rng.IntN(2) == 0 {
			n = repo.MaxPut - int64(block.Size)*rng.Int64N(3)
		}
		off := block.Size * rng.Int64N((size-n)/block.Size+1)
		lent := <-free
		data := lent[:n]
		scribble(rng, data)
		if rng.IntN(4) == 0 {
			clear(data[:block.Size])
		}
		copy(g.bytes["sda"][off:], data)
		var sums []block.Sum
		for at := int64(0); at < n; at += block.Size {
			sums = append(sums, summer.Of(data[at:at+block.Size]))
		}
		err := w.Take(t.Context(), "sda", []block.Extent{{Offset: off, Length: n}}, sums, data, func() {
			clear(lent)
			free <- lent
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	round := func() {
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() {
			for ctx.Err() == nil {
				if err := w.Sync(t.Context()); err != nil {
					t.Errorf("sync beside take: %v", err)
					return
				}
			}
		})
		for range 25 {
			take()
		}
		cancel()
		wg.Wait()
	}
	round()
	requireEqual(t, v, mustCommit(t, w, repo.Commit{}).PointRef, g)
	round()
	if err := w.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if len(free) != cap(free) {
		t.Errorf("lent memory given back: got %d of %d", len(free), cap(free))
	}
	w = mustWriter(t, v, g, 1, dir)
	requireEqual(t, v, mustCommit(t, w, repo.Commit{}).PointRef, g)
}

// A read of a whole frame leaves the cache alone; smaller ones in it are served from the cache.
func TestWholeFramesDoNotGoThroughTheCache(t *testing.T) {
	t.Parallel()
	v := newVault(t, repo.Options{})
	g := newGuest("vm-1", repo.DiskInfo{ID: "sda", Size: 4 << 20})
	scribble(rand.New(rand.NewPCG(3, 4)), g.bytes["sda"])
	mustOpen(t, v, g.machine, 1, nil)
	w := mustWriter(t, v, g, 1, t.TempDir())
	putAll(t, v, w, g, "sda")
	s, err := v.OpenPoint(t.Context(), g.machine, mustCommit(t, w, repo.Commit{}).PointRef)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	d, err := s.Disk("sda")
	if err != nil {
		t.Fatal(err)
	}
	requests := func(off, n int64) int64 {
		before, _ := s.Requests()
		p := make([]byte, n)
		if err := d.ReadAt(t.Context(), p, off); err != nil {
			t.Fatal(err)
		}
		if i := firstDifference(p, g.bytes["sda"][off:off+n]); i >= 0 {
			t.Fatalf("read of %d bytes at %d differs at byte %d", n, off, i)
		}
		after, _ := s.Requests()
		return after - before
	}
	requests(0, 4<<20) // brings the map's pages, too
	for _, tc := range []struct {
		name         string
		off, n, want int64
	}{
		{"a whole frame again", 0, 1 << 20, 1},
		{"a part of it", 4096, 4096, 1},
		{"another part", 512 << 10, 512, 0},
		{"the whole, which the cache has now", 0, 1 << 20, 0},
		{"a large part of the next", 1 << 20, 900 << 10, 1},
		{"the rest of that", 1<<20 + 900<<10, 124 << 10, 0},
	} {
		if got := requests(tc.off, tc.n); got != tc.want {
			t.Errorf("%s: got %d requests, want %d", tc.name, got, tc.want)
		}
	}
}
