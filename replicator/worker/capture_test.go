package worker

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/lifeboat-dr/lifeboat/replicator/block"
	"github.com/lifeboat-dr/lifeboat/replicator/localbucket"
	"github.com/lifeboat-dr/lifeboat/replicator/repo"
	"github.com/lifeboat-dr/lifeboat/replicator/restore"
)

// stoppedDisks are disks of a machine that is off, in memory; blocks of zeros are holes.
type stoppedDisks map[string][]byte

func (d stoppedDisks) Disk(id string) (restore.Source, error) { return memorySource(d[id]), nil }
func (stoppedDisks) Traffic() (int64, int64)                  { return 0, 0 }
func (stoppedDisks) Close() error                             { return nil }

type memorySource []byte

func (m memorySource) Size() int64 { return int64(len(m)) }

func (m memorySource) ReadAt(_ context.Context, p []byte, off int64) error {
	copy(p, m[off:])
	return nil
}

func (m memorySource) Next(_ context.Context, off int64) (block.Extent, bool, error) {
	at := func(i int64) bool { return block.IsZero(m[i*block.Size : min((i+1)*block.Size, int64(len(m)))]) }
	n := block.Count(int64(len(m)))
	first := off / block.Size
	for first < n && at(first) {
		first++
	}
	if first == n {
		return block.Extent{}, false, nil
	}
	last := first
	for last < n && !at(last) {
		last++
	}
	return block.Extent{Offset: first * block.Size, Length: min(last*block.Size, int64(len(m))) - first*block.Size}, true, nil
}

// TestCapturesAreTheBytesOfTheDisks captures random disks after random changes and reads every point back.
func TestCapturesAreTheBytesOfTheDisks(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	b, err := localbucket.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = b.Close() }()
	r, err := repo.Open(ctx, b, "v", repo.Key(sha256.Sum256([]byte("k"))), nil, repo.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := r.OpenGeneration(ctx, "m", 1, nil); err != nil {
		t.Fatal(err)
	}
	infos := []repo.DiskInfo{{ID: "a", Size: 3<<20 + 5*block.Sector, OS: true}, {ID: "b", Size: 1 << 20}}
	disks := stoppedDisks{}
	for _, d := range infos {
		disks[d.ID] = make([]byte, d.Size)
	}
	scribble(rng, disks, 40)
	var before *repo.Point
	for round := range 6 {
		c := capture{repository: r, machine: "m", generation: 1, infos: infos, disks: disks, dir: t.TempDir(), progress: func(int64, int64) {}}
		if round == 0 { // the first point is where the machine's description comes from
			w, err := r.NewWriter(ctx, "m", 1, infos, repo.WriterOptions{})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := w.Commit(ctx, repo.Commit{Time: time.Now(), Consistency: captureConsistency, Hardware: json.RawMessage(`{"hostname":"m"}`)}); err != nil {
				t.Fatal(err)
			}
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
		}
		p, err := c.run(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if string(p.Hardware) != `{"hostname":"m"}` || p.Consistency != "CrashConsistent" {
			t.Fatalf("point: got hardware %s, %s", p.Hardware, p.Consistency)
		}
		for id, want := range disks {
			got, err := readPoint(ctx, r, p.PointRef, id, len(want))
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, want) {
				t.Fatalf("round %d, disk %s: the point differs from the disk", round, id)
			}
		}
		if round == 3 && p.ChangedBytes != 0 {
			t.Fatalf("nothing had changed, and %d bytes were captured", p.ChangedBytes)
		}
		before = &p
		if round != 2 {
			scribble(rng, disks, 8)
		}
	}
	if _, err := r.CloseGeneration(ctx, "m", 1, "failover"); err != nil {
		t.Fatal(err)
	}
	late := capture{repository: r, machine: "m", generation: 1, infos: infos, disks: disks, dir: t.TempDir(), progress: func(int64, int64) {}}
	if _, err := late.run(ctx); FailureOf(err).Code != codeFenced {
		t.Fatalf("capture into a closed generation after point %v: got %v, want it fenced", before.PointRef, err)
	}
}

// scribble writes data and zeros at random places.
func scribble(rng *rand.Rand, disks stoppedDisks, times int) {
	for range times {
		for _, id := range []string{"a", "b"} {
			d := disks[id]
			off := rng.IntN(len(d)/block.Sector) * block.Sector
			n := min((1+rng.IntN(64))*block.Sector, len(d)-off)
			if rng.IntN(3) == 0 {
				clear(d[off : off+n])
				continue
			}
			for i := range n {
				d[off+i] = byte(rng.Uint32())
			}
		}
	}
}

func readPoint(ctx context.Context, r *repo.Repository, p repo.PointRef, disk string, size int) ([]byte, error) {
	s, err := restore.OpenPoint(ctx, r, "m", p)
	if err != nil {
		return nil, err
	}
	defer func() { _ = s.Close() }()
	src, err := s.Disk(disk)
	if err != nil {
		return nil, err
	}
	if src.Size() != int64(size) {
		return nil, fmt.Errorf("disk %s has %d bytes", disk, src.Size())
	}
	got := make([]byte, size)
	return got, src.ReadAt(ctx, got, 0)
}
