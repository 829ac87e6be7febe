package repo_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"gocloud.dev/blob"
	"gocloud.dev/blob/memblob"

	"github.com/lifeboat-dr/lifeboat/replicator/block"
	"github.com/lifeboat-dr/lifeboat/replicator/faultbucket/faulttest"
	"github.com/lifeboat-dr/lifeboat/replicator/repo"
)

// story is a short life of a machine: points, a checkpoint and a resume, a failover, a pin, pruning. It stops at the first
// error and returns what it was told is durable.
type story struct {
	v      *vault
	dir    string
	g      *guest
	acked  map[repo.PointRef]*guest
	closed int64 // the newest generation that was closed for sure
	err    error
}

func (s *story) do(step string, f func() error) {
	if s.err == nil {
		if err := f(); err != nil {
			s.err = fmt.Errorf("%s: %w", step, err)
		}
	}
}

func (s *story) commit(w *repo.Writer) {
	s.do("commit", func() error {
		p, err := w.Commit(context.Background(), repo.Commit{Time: t0})
		if err == nil {
			s.acked[p.PointRef] = s.g.clone()
		}
		return err
	})
}

func (s *story) write(w *repo.Writer, rng *rand.Rand) {
	s.do("put", func() error {
		e := block.Extent{Offset: rng.Int64N(16) * block.Size, Length: 8 * block.Size}
		scribble(rng, s.g.bytes["a"][e.Offset:e.End()])
		return put(context.Background(), s.v, w, s.g, "a", e)
	})
}

// resync puts what differs by the compare sums, as an agent does that meets a new writer.
func (s *story) resync(w *repo.Writer) {
	s.do("resync", func() error {
		sums := make([]block.Sum, block.Count(s.g.disks[0].Size))
		if err := w.Sums(context.Background(), "a", 0, sums); err != nil {
			return err
		}
		summer := block.NewSummer(s.v.SumKey("vm", "a"))
		for i, sum := range sums {
			e := block.Extent{Offset: int64(i) * block.Size, Length: block.Size}
			if sum != summer.Of(s.g.bytes["a"][e.Offset:e.End()]) {
				if err := put(context.Background(), s.v, w, s.g, "a", e); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

func (s *story) writer(gen int64) (w *repo.Writer) {
	s.do("new writer", func() (err error) {
		w, err = s.v.NewWriter(context.Background(), "vm", gen, s.g.disks, repo.WriterOptions{Dir: s.dir, Workers: 1})
		return err
	})
	return w
}

func (s *story) close(w *repo.Writer) {
	if w == nil {
		return
	}
	if err := w.Close(); err != nil && s.err == nil {
		s.err = err
	}
}

func (s *story) run() {
	ctx := context.Background()
	rng := rand.New(rand.NewPCG(5, 5))
	s.do("open generation", func() error { return s.v.OpenGeneration(ctx, "vm", 1, nil) })
	w := s.writer(1)
	s.write(w, rng)
	s.commit(w)
	s.write(w, rng)
	s.do("checkpoint", func() error { return w.Checkpoint(ctx) })
	s.write(w, rng)
	s.do("sync", func() error { return w.Sync(ctx) })
	s.close(w)
	w = s.writer(1)
	s.resync(w)
	s.commit(w)
	s.close(w)
	var last *repo.PointRef
	s.do("close generation", func() (err error) {
		if last, err = s.v.CloseGeneration(ctx, "vm", 1, "failover"); err == nil {
			s.closed = 1
		}
		return err
	})
	s.do("pin", func() error { return s.v.Pin(ctx, "vm", *last, "job") })
	s.do("open generation", func() error { return s.v.OpenGeneration(ctx, "vm", 2, last) })
	w = s.writer(2)
	s.write(w, rng)
	s.commit(w)
	s.close(w)
	s.do("unpin", func() error { return s.v.Unpin(ctx, "vm", *last, "job") })
	for _, later := range []time.Duration{0, 2 * time.Hour} {
		s.do("prune", func() error {
			_, err := s.v.Prune(ctx, "vm", repo.Retention{All: 1000 * 24 * time.Hour}, t0.Add(later))
			return err
		})
	}
	s.do("read", func() error { return s.readAll(ctx, s.v, false) })
}

// readAll reads every acknowledged point: its bytes are right or the error is clean.
func (s *story) readAll(ctx context.Context, v *vault, must bool) error {
	for ref, g := range s.acked {
		got := make([]byte, len(g.bytes["a"]))
		snap, err := v.OpenPoint(ctx, "vm", ref)
		if err == nil {
			var d *repo.Disk
			if d, err = snap.Disk("a"); err == nil {
				err = d.ReadAt(ctx, got, 0)
			}
		}
		if err != nil {
			if must {
				return fmt.Errorf("acknowledged point %v: %w", ref, err)
			}
			return err
		}
		if i := firstDifference(got, g.bytes["a"]); i >= 0 {
			return fmt.Errorf("%w: point %v differs at byte %d", errWrongBytes, ref, i)
		}
	}
	return nil
}

var errWrongBytes = errors.New("wrong bytes")

// TestEveryCallSiteMayFail meets every call of the story with every kind of fault, once and for good.
func TestEveryCallSiteMayFail(t *testing.T) {
	t.Parallel()
	faulttest.EveryCall(t, 40, runStory)
}

// runStory runs the story on a bucket with faults, then looks at what is left without them.
func runStory(t *testing.T, run *faulttest.Run) {
	ctx := t.Context()
	inner := memblob.OpenBucket(nil)
	defer inner.Close()
	s := &story{dir: t.TempDir(), g: newGuest("vm", repo.DiskInfo{ID: "a", Size: 96 << 10}), acked: make(map[repo.PointRef]*guest)}
	file, err := repo.NewVaultFile(vaultID, repo.Key{1, 2, 3}, repo.NewRecoveryKey())
	if err != nil {
		t.Fatal(err)
	}
	b := run.Bucket(inner)
	run.Arm()
	r, err := repo.Open(ctx, b, vaultID, repo.Key{1, 2, 3}, file, repo.Options{})
	if err == nil {
		if got, err := repo.VaultFile(ctx, inner, vaultID); err != nil || string(got) != string(file) {
			t.Errorf("the vault was opened although its file is not in the bucket as it was given: %v", err)
		}
		s.v = &vault{Repository: r, bucket: b}
		s.run()
		err = s.err
	}
	run.Disarm()
	if run.Counts() && err != nil || errors.Is(err, errWrongBytes) {
		t.Fatal(err)
	}
	if _, err := repo.Open(ctx, inner, vaultID, repo.Key{1, 2, 3}, file, repo.Options{}); s.v == nil && run.Damages() && errors.Is(err, repo.ErrCorrupt) {
		return // told when it was opened first, and still
	}
	after := openVault(t, inner, repo.Options{})
	if err := s.readAll(ctx, after, !run.Damages()); errors.Is(err, errWrongBytes) || err != nil && (!run.Damages() || !errors.Is(err, repo.ErrCorrupt)) {
		t.Errorf("after %v: %v", s.err, err)
	}
	if run.Damages() {
		return
	}
	// Whatever happened, the generation that was closed stays closed, and the newest one can be written.
	gens, err := after.Generations(ctx, "vm")
	if err != nil {
		t.Fatalf("after %v: generations: %v", s.err, err)
	}
	for _, g := range gens {
		if g.Number <= s.closed && !g.Closed {
			t.Errorf("after %v: closed generation %d is open", s.err, g.Number)
		}
	}
	if n := len(gens); n > 0 && !gens[n-1].Closed {
		w, err := after.NewWriter(ctx, "vm", gens[n-1].Number, s.g.disks, repo.WriterOptions{Dir: s.dir})
		if err != nil {
			t.Fatalf("after %v: new writer: %v", s.err, err)
		}
		defer w.Close()
		if _, err := w.Commit(ctx, repo.Commit{Time: t0}); err != nil {
			t.Errorf("after %v: commit: %v", s.err, err)
		}
	}
}

// TestFlippedByteIsNeverReturned flips bytes of every object at rest and reads every point.
func TestFlippedByteIsNeverReturned(t *testing.T) {
	t.Parallel()
	inner := memblob.OpenBucket(nil)
	defer inner.Close()
	v := openVault(t, inner, repo.Options{})
	s := &story{v: v, dir: t.TempDir(), g: newGuest("vm", repo.DiskInfo{ID: "a", Size: 96 << 10}), acked: make(map[repo.PointRef]*guest)}
	s.run()
	if s.err != nil {
		t.Fatal(s.err)
	}
	rng := rand.New(rand.NewPCG(8, 8))
	it := inner.List(nil)
	named := 0
	for {
		o, err := it.Next(t.Context())
		if err != nil {
			break
		}
		good, err := inner.ReadAll(t.Context(), o.Key)
		if err != nil {
			t.Fatal(err)
		}
		for range 60 {
			bad := append([]byte(nil), good...)
			bad[rng.IntN(len(bad))] ^= 1 << rng.IntN(8)
			if err := inner.WriteAll(t.Context(), o.Key, bad, &blob.WriterOptions{ContentType: "x"}); err != nil {
				t.Fatal(err)
			}
			named += readFlipped(t, inner, s, o.Key)
		}
		if err := inner.WriteAll(t.Context(), o.Key, good, &blob.WriterOptions{ContentType: "x"}); err != nil {
			t.Fatal(err)
		}
	}
	if named == 0 {
		t.Error("no flipped byte was ever met")
	}
}

// readFlipped reads everything with a fresh cache and returns how many errors named the object.
func readFlipped(t *testing.T, b *blob.Bucket, s *story, object string) (named int) {
	t.Helper()
	r, err := repo.Open(t.Context(), b, vaultID, repo.Key{1, 2, 3}, nil, repo.Options{})
	if err != nil {
		if !errors.Is(err, repo.ErrCorrupt) && !errors.Is(err, repo.ErrConflict) {
			t.Errorf("flip in %s: open: %v", object, err)
		}
		return 0
	}
	err = s.readAll(t.Context(), &vault{Repository: r}, false)
	if err == nil {
		return 0
	}
	var c *repo.CorruptError
	if !errors.As(err, &c) {
		t.Errorf("flip in %s: got %v, want a CorruptError", object, err)
		return 0
	}
	if want := "vaults/" + vaultID + "/" + c.Object; want != object {
		t.Errorf("flip in %s: the error names %s", object, c.Object)
	}
	return 1
}
