package repo

import (
	"errors"
	"sync"
	"testing"
	"time"

	"gocloud.dev/blob/memblob"

	"github.com/lifeboat-dr/lifeboat/replicator/block"
)

// lateWriters opens n writers of one generation. Each takes the session over from the one before; to leave the decision to the
// log alone, all of them are told the session of the last.
func lateWriters(t *testing.T, r *Repository, n int) []*Writer {
	t.Helper()
	var ws []*Writer
	for range n {
		w, err := r.NewWriter(t.Context(), "vm", 1, []DiskInfo{{ID: "a", Size: 1 << 20}}, WriterOptions{Dir: t.TempDir()})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := w.Close(); err != nil {
				t.Errorf("close writer: %v", err)
			}
		})
		ws = append(ws, w)
	}
	for _, w := range ws {
		w.session = ws[n-1].session
	}
	return ws
}

func memRepository(t *testing.T) *Repository {
	t.Helper()
	b := memblob.OpenBucket(nil)
	t.Cleanup(func() { b.Close() })
	r, err := Open(t.Context(), b, "v", Key{1}, nil, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := r.OpenGeneration(t.Context(), "vm", 1, nil); err != nil {
		t.Fatal(err)
	}
	return r
}

// commitAll commits one block with the writer's number from all writers at once, while also runs.
func commitAll(t *testing.T, r *Repository, ws []*Writer, also func()) []error {
	t.Helper()
	errs := make([]error, len(ws))
	start := make(chan struct{})
	var wg sync.WaitGroup
	for i, w := range ws {
		data := make([]byte, block.Size)
		data[0] = byte(i + 1)
		summer := block.NewSummer(r.SumKey("vm", "a"))
		if err := w.Put(t.Context(), "a", []block.Extent{{Length: block.Size}}, []block.Sum{summer.Of(data)}, data); err != nil {
			t.Fatal(err)
		}
		wg.Go(func() {
			<-start
			_, errs[i] = w.Commit(t.Context(), Commit{Time: time.Unix(int64(i), 0)})
		})
	}
	close(start)
	also()
	wg.Wait()
	return errs
}

func TestOneOfEightLateWritersMakesThePoint(t *testing.T) {
	t.Parallel()
	r := memRepository(t)
	errs := commitAll(t, r, lateWriters(t, r, 8), func() {})
	won := -1
	for i, err := range errs {
		switch {
		case err == nil && won >= 0:
			t.Errorf("writers %d and %d both made the point", won, i)
		case err == nil:
			won = i
		case !errors.Is(err, ErrFenced):
			t.Errorf("writer %d: got %v, want ErrFenced", i, err)
		}
	}
	if won < 0 {
		t.Fatal("no writer made the point")
	}
	s, err := r.OpenPoint(t.Context(), "vm", PointRef{1, 1})
	if err != nil {
		t.Fatal(err)
	}
	d, err := s.Disk("a")
	if err != nil {
		t.Fatal(err)
	}
	p := make([]byte, 1)
	if err := d.ReadAt(t.Context(), p, 0); err != nil || p[0] != byte(won+1) {
		t.Errorf("point: got byte %d, %v, want that of writer %d", p[0], err, won)
	}
}

func TestNothingFollowsAClosedEntryWithEightLateWriters(t *testing.T) {
	t.Parallel()
	for range 20 {
		r := memRepository(t)
		ws := lateWriters(t, r, 8)
		var last *PointRef
		var closeErr error
		errs := commitAll(t, r, ws, func() { last, closeErr = r.CloseGeneration(t.Context(), "vm", 1, "failover") })
		if closeErr != nil {
			t.Fatal(closeErr)
		}
		won := 0
		for i, err := range errs {
			if err == nil {
				won++
			} else if !errors.Is(err, ErrFenced) {
				t.Errorf("writer %d: got %v, want ErrFenced", i, err)
			}
		}
		points, err := r.Points(t.Context(), "vm")
		if err != nil || len(points) != won || won > 1 {
			t.Errorf("got %d points, %v, while %d commits succeeded", len(points), err, won)
		}
		if (last != nil) != (won == 1) {
			t.Errorf("close returned %v while %d commits succeeded", last, won)
		}
		g, err := r.Generations(t.Context(), "vm")
		if err != nil || len(g) != 1 || !g[0].Closed || g[0].Head != int64(won+1) || g[0].Reason != "failover" {
			t.Errorf("generations: got %+v, %v", g, err)
		}
		if _, err := r.NewWriter(t.Context(), "vm", 1, []DiskInfo{{ID: "a", Size: 1 << 20}}, WriterOptions{}); !errors.Is(err, ErrFenced) {
			t.Errorf("new writer on a closed generation: got %v, want ErrFenced", err)
		}
	}
}

func TestWriterBelowTheFloorIsFenced(t *testing.T) {
	t.Parallel()
	r := memRepository(t)
	ws := lateWriters(t, r, 2)
	for i := range 5 {
		if _, err := ws[1].Commit(t.Context(), Commit{Time: time.Unix(int64(i), 0)}); err != nil {
			t.Fatal(err)
		}
	}
	// Everything but the newest point is dropped, then cut off: the place where the late writer commits is empty again.
	for _, later := range []time.Duration{0, 2 * time.Hour} {
		if _, err := r.Prune(t.Context(), "vm", Retention{}, time.Now().Add(later)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := ws[0].Commit(t.Context(), Commit{Time: time.Unix(9, 0)}); !errors.Is(err, ErrFenced) {
		t.Errorf("commit below the floor: got %v, want ErrFenced", err)
	}
	points, err := r.Points(t.Context(), "vm")
	if err != nil || len(points) != 1 || points[0].Sequence != 5 {
		t.Errorf("points: got %+v, %v, want only the fifth", points, err)
	}
	if _, err := r.OpenPoint(t.Context(), "vm", PointRef{1, 1}); !errors.Is(err, ErrNotFound) {
		t.Errorf("open a point below the floor: got %v, want ErrNotFound", err)
	}
}

func TestANewWriterFencesTheOldOne(t *testing.T) {
	t.Parallel()
	r := memRepository(t)
	disks := []DiskInfo{{ID: "a", Size: 1 << 20}}
	old, err := r.NewWriter(t.Context(), "vm", 1, disks, WriterOptions{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer old.Close()
	w, err := r.NewWriter(t.Context(), "vm", 1, disks, WriterOptions{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if _, err := old.Commit(t.Context(), Commit{Time: time.Unix(1, 0)}); !errors.Is(err, ErrFenced) {
		t.Errorf("commit of the old writer: got %v, want ErrFenced", err)
	}
	if _, err := w.Commit(t.Context(), Commit{Time: time.Unix(1, 0)}); err != nil {
		t.Errorf("commit of the new writer: %v", err)
	}
}

func TestGenerationsOpenInOrder(t *testing.T) {
	t.Parallel()
	r := memRepository(t)
	ctx := t.Context()
	ref := &PointRef{1, 1}
	for _, c := range []struct {
		name string
		do   func() error
		want error
	}{
		{"the same generation may be opened again", func() error { return r.OpenGeneration(ctx, "vm", 1, nil) }, nil},
		{"the first builds on nothing", func() error { return r.OpenGeneration(ctx, "vm", 1, ref) }, ErrInvalid},
		{"the next waits for the one before to be closed", func() error { return r.OpenGeneration(ctx, "vm", 2, nil) }, ErrConflict},
		{"a generation cannot be skipped", func() error { return r.OpenGeneration(ctx, "vm", 3, nil) }, ErrConflict},
		{"a generation that was never opened cannot be closed", func() error { _, err := r.CloseGeneration(ctx, "vm", 2, ""); return err }, ErrNotFound},
		{"the first is closed", func() error { _, err := r.CloseGeneration(ctx, "vm", 1, "one"); return err }, nil},
		{"and closed again", func() error { _, err := r.CloseGeneration(ctx, "vm", 1, "two"); return err }, nil},
		{"a base has to be a point", func() error { return r.OpenGeneration(ctx, "vm", 2, ref) }, ErrNotFound},
		{"a base has to be earlier", func() error { return r.OpenGeneration(ctx, "vm", 2, &PointRef{2, 1}) }, ErrInvalid},
		{"the second is opened", func() error { return r.OpenGeneration(ctx, "vm", 2, nil) }, nil},
		{"a generation cannot be opened again with another base", func() error { return r.OpenGeneration(ctx, "vm", 2, ref) }, ErrConflict},
		{"a machine id has to be a name", func() error { return r.OpenGeneration(ctx, "../vm", 1, nil) }, ErrInvalid},
	} {
		if err := c.do(); !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, want %v", c.name, err, c.want)
		}
	}
	g, err := r.Generations(ctx, "vm")
	if err != nil || len(g) != 2 || g[0].Reason != "one" || g[1].Closed {
		t.Errorf("generations: got %+v, %v", g, err)
	}
}
