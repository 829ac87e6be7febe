// Package tracktest is the suite that every track.Tracker passes.
package tracktest

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"testing"

	"github.com/lifeboat-dr/lifeboat/agent/track"
	"github.com/lifeboat-dr/lifeboat/replicator/block"
)

// Disk is a disk under a tracker, as a test writes to it.
type Disk interface {
	// WriteAt writes so that the tracker must have seen it when it returns.
	WriteAt(p []byte, off int64) (int, error)
	// ReadAt reads what is on the disk now.
	ReadAt(p []byte, off int64) (int, error)
	Size() int64
}

// Harness makes a tracker on a fresh disk.
type Harness func(t *testing.T) (track.Tracker, Disk)

// Run holds trackers to the contract of track.Tracker.
func Run(t *testing.T, h Harness) {
	t.Run("epochs are dense and start at 1", func(t *testing.T) { testEpochs(t, h) })
	t.Run("extents are sorted, apart and inside the disk", func(t *testing.T) { testShape(t, h) })
	t.Run("no change is left out", func(t *testing.T) { testModel(t, h) })
	t.Run("pending lasts until release", func(t *testing.T) { testPending(t, h) })
	t.Run("a running epoch is not released", func(t *testing.T) { testRelease(t, h) })
}

func seal(t *testing.T, tr track.Tracker) []block.Extent {
	t.Helper()
	es, err := tr.Seal(context.Background())
	if errors.Is(err, track.ErrLost) {
		t.Log("the tracker lost an epoch and said so")
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	return es
}

func testEpochs(t *testing.T, h Harness) {
	tr, _ := h(t)
	for want := int64(1); want < 5; want++ {
		if got := tr.Epoch(); got != want {
			t.Fatalf("got epoch %d, want %d", got, want)
		}
		seal(t, tr)
	}
}

func checkShape(t *testing.T, es []block.Extent, size int64) {
	t.Helper()
	end := int64(-1)
	for _, e := range es {
		if e.Offset <= end || e.Length <= 0 || e.Offset < 0 || e.End() > size {
			t.Fatalf("extent %+v after %d on a disk of %d bytes", e, end, size)
		}
		end = e.End()
	}
}

func testShape(t *testing.T, h Harness) {
	tr, d := h(t)
	for _, off := range []int64{0, d.Size() - block.Sector, d.Size() / 2 / block.Size * block.Size} {
		if _, err := d.WriteAt(make([]byte, block.Sector), off); err != nil {
			t.Fatal(err)
		}
	}
	checkShape(t, seal(t, tr), d.Size())
}

// testModel writes at random and keeps a copy up to date by nothing but what the tracker says.
func testModel(t *testing.T, h Harness) {
	tr, d := h(t)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	replica := make([]byte, d.Size())
	if _, err := d.ReadAt(replica, 0); err != nil {
		t.Fatal(err)
	}
	seal(t, tr)
	for round := range 20 {
		for range rng.IntN(30) {
			p := make([]byte, block.Sector*(1+rng.IntN(64)))
			for i := range p {
				p[i] = byte(rng.Uint32())
			}
			if _, err := d.WriteAt(p, rng.Int64N((d.Size()-int64(len(p)))/block.Sector)*block.Sector); err != nil {
				t.Fatal(err)
			}
		}
		es, err := tr.Seal(context.Background())
		if errors.Is(err, track.ErrLost) {
			es = []block.Extent{{Offset: 0, Length: d.Size()}}
		} else if err != nil {
			t.Fatal(err)
		}
		checkShape(t, es, d.Size())
		for _, e := range es {
			if _, err := d.ReadAt(replica[e.Offset:e.End()], e.Offset); err != nil {
				t.Fatal(err)
			}
		}
		now := make([]byte, d.Size())
		if _, err := d.ReadAt(now, 0); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(replica, now) {
			t.Fatalf("round %d: a changed extent was left out", round)
		}
		if err := tr.Release(tr.Epoch() - 1); err != nil {
			t.Fatal(err)
		}
	}
}

func testPending(t *testing.T, h Harness) {
	ctx := context.Background()
	tr, d := h(t)
	seal(t, tr)
	if err := tr.Release(tr.Epoch() - 1); err != nil {
		t.Fatal(err)
	}
	at := func(n int64) block.Extent { return block.Extent{Offset: n * 8 * block.Size, Length: block.Size} }
	for n := range int64(2) { // two epochs with one write each
		if _, err := d.WriteAt(bytes.Repeat([]byte{1}, block.Size), at(n).Offset); err != nil {
			t.Fatal(err)
		}
		seal(t, tr)
	}
	last := tr.Epoch() - 1
	for released, want := range [][]block.Extent{{at(0), at(1)}, {at(1)}} {
		if err := tr.Release(last - 2 + int64(released)); err != nil {
			t.Fatal(err)
		}
		got, err := tr.Pending(ctx)
		if errors.Is(err, track.ErrLost) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		checkShape(t, got, d.Size())
		for _, w := range want {
			if !covers(got, w) {
				t.Errorf("with epochs up to %d released: %+v is not pending in %+v", last-2+int64(released), w, got)
			}
		}
	}
	if err := tr.Release(last); err != nil {
		t.Fatal(err)
	}
	if got, err := tr.Pending(ctx); err != nil || len(got) != 0 {
		t.Errorf("got %+v and %v with everything released, want nothing", got, err)
	}
}

func covers(es []block.Extent, w block.Extent) bool {
	for _, e := range es {
		if e.Offset <= w.Offset && e.End() >= w.End() {
			return true
		}
	}
	return false
}

func testRelease(t *testing.T, h Harness) {
	tr, _ := h(t)
	seal(t, tr)
	for _, epoch := range []int64{tr.Epoch(), tr.Epoch() + 1} {
		if err := tr.Release(epoch); err == nil {
			t.Errorf("epoch %d was released while %d is running", epoch, tr.Epoch())
		}
	}
	if err := tr.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
}
