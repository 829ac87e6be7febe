package repo_test

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"gocloud.dev/blob"
	"gocloud.dev/blob/memblob"

	"github.com/lifeboat-dr/lifeboat/replicator/block"
	"github.com/lifeboat-dr/lifeboat/replicator/repo"
)

const vaultID = "vault-1"

var t0 = time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)

// vault is a repository on a bucket of a test.
type vault struct {
	*repo.Repository
	bucket *blob.Bucket
	key    repo.Key
}

func newVault(t testing.TB, opt repo.Options) *vault {
	t.Helper()
	b := memblob.OpenBucket(nil)
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Errorf("close bucket: %v", err)
		}
	})
	return openVault(t, b, opt)
}

func openVault(t testing.TB, b *blob.Bucket, opt repo.Options) *vault {
	t.Helper()
	key := repo.Key{1, 2, 3}
	r, err := repo.Open(t.Context(), b, vaultID, key, nil, opt)
	if err != nil {
		t.Fatalf("open repository: %v", err)
	}
	return &vault{Repository: r, bucket: b, key: key}
}

// guest is a machine's disks as plain bytes: what the repository has to give back.
type guest struct {
	machine string
	disks   []repo.DiskInfo
	bytes   map[string][]byte
}

func newGuest(machine string, disks ...repo.DiskInfo) *guest {
	g := &guest{machine: machine, disks: disks, bytes: make(map[string][]byte)}
	for _, d := range disks {
		g.bytes[d.ID] = make([]byte, d.Size)
	}
	return g
}

func (g *guest) clone() *guest {
	c := newGuest(g.machine, slices.Clone(g.disks)...)
	for id, b := range g.bytes {
		copy(c.bytes[id], b)
	}
	return c
}

// put writes the guest's current bytes of whole blocks to w.
func put(ctx context.Context, v *vault, w *repo.Writer, g *guest, disk string, extents ...block.Extent) error {
	summer := block.NewSummer(v.SumKey(g.machine, disk))
	var sums []block.Sum
	var data []byte
	for _, e := range extents {
		p := g.bytes[disk][e.Offset:e.End()]
		data = append(data, p...)
		for len(p) > 0 {
			n := min(len(p), block.Size)
			sums = append(sums, summer.Of(p[:n]))
			p = p[n:]
		}
	}
	return w.Put(ctx, disk, extents, sums, data)
}

// putAll writes everything of a disk.
func putAll(t testing.TB, v *vault, w *repo.Writer, g *guest, disk string) {
	t.Helper()
	size := int64(len(g.bytes[disk]))
	for off := int64(0); off < size; off += repo.MaxPut {
		if err := put(t.Context(), v, w, g, disk, block.Extent{Offset: off, Length: min(repo.MaxPut, size-off)}); err != nil {
			t.Fatalf("put disk %s at %d: %v", disk, off, err)
		}
	}
}

// requireEqual reads every byte of a point and compares it with the guest's.
func requireEqual(t tester, v *vault, ref repo.PointRef, g *guest) {
	t.Helper()
	s, err := v.OpenPoint(t.Context(), g.machine, ref)
	if err != nil {
		t.Fatalf("open point %v: %v", ref, err)
	}
	defer s.Close()
	for _, info := range g.disks {
		d, err := s.Disk(info.ID)
		if err != nil {
			t.Fatalf("point %v: %v", ref, err)
		}
		if got := d.Info(); got.Size != info.Size {
			t.Fatalf("point %v disk %s: got %d bytes, want %d", ref, info.ID, got.Size, info.Size)
		}
		want := g.bytes[info.ID]
		got := make([]byte, len(want))
		if err := d.ReadAt(t.Context(), got, 0); err != nil {
			t.Fatalf("read point %v: %v", ref, err)
		}
		if i := firstDifference(got, want); i >= 0 {
			t.Fatalf("point %v disk %s differs at byte %d (block %d): got %x, want %x", ref, info.ID, i, i/block.Size, got[i], want[i])
		}
		requireSums(t, v, d, g, info.ID)
		requireExtents(t, d, want)
	}
}

func requireSums(t tester, v *vault, d *repo.Disk, g *guest, disk string) {
	t.Helper()
	summer := block.NewSummer(v.SumKey(g.machine, disk))
	want := g.bytes[disk]
	sums := make([]block.Sum, block.Count(int64(len(want))))
	if err := d.Sums(t.Context(), 0, sums); err != nil {
		t.Fatalf("sums of disk %s: %v", disk, err)
	}
	for i, s := range sums {
		off := i * block.Size
		if s != summer.Of(want[off:min(off+block.Size, len(want))]) {
			t.Fatalf("disk %s block %d has a wrong sum", disk, i)
		}
	}
}

// requireExtents checks that everything outside the extents of Next is zero.
func requireExtents(t tester, d *repo.Disk, want []byte) {
	t.Helper()
	off := int64(0)
	for {
		e, ok, err := d.Next(t.Context(), off)
		if err != nil {
			t.Fatalf("next extent at %d: %v", off, err)
		}
		if !ok {
			break
		}
		if e.Offset < off || e.Length <= 0 || e.End() > int64(len(want)) {
			t.Fatalf("next extent at %d: got %+v of a disk of %d bytes", off, e, len(want))
		}
		if !block.IsZero(want[off:e.Offset]) {
			t.Fatalf("data before extent %+v is in no extent", e)
		}
		off = e.End()
	}
	if !block.IsZero(want[off:]) {
		t.Fatalf("data behind %d is in no extent", off)
	}
}

func firstDifference(a, b []byte) int {
	if bytes.Equal(a, b) {
		return -1
	}
	for i := range a {
		if a[i] != b[i] {
			return i
		}
	}
	return len(a)
}

// scribble fills p with bytes that compress a little.
func scribble(rng *rand.Rand, p []byte) {
	for i := range p {
		p[i] = byte(rng.Uint32() & 0x3f)
	}
}

func mustCommit(t testing.TB, w *repo.Writer, c repo.Commit) repo.Point {
	t.Helper()
	if c.Time.IsZero() {
		c.Time = t0
	}
	p, err := w.Commit(t.Context(), c)
	if err != nil {
		t.Fatalf("commit: %v", err)
	}
	return p
}

func mustWriter(t testing.TB, v *vault, g *guest, gen int64, dir string) *repo.Writer {
	t.Helper()
	w, err := v.NewWriter(t.Context(), g.machine, gen, g.disks, repo.WriterOptions{Dir: dir})
	if err != nil {
		t.Fatalf("new writer: %v", err)
	}
	t.Cleanup(func() {
		if err := w.Close(); err != nil {
			t.Errorf("close writer: %v", err)
		}
	})
	return w
}

func mustOpen(t testing.TB, v *vault, machine string, gen int64, base *repo.PointRef) {
	t.Helper()
	if err := v.OpenGeneration(t.Context(), machine, gen, base); err != nil {
		t.Fatalf("open generation %d: %v", gen, err)
	}
}

func TestPointGivesBackWhatWasPut(t *testing.T) {
	t.Parallel()
	v := newVault(t, repo.Options{})
	g := newGuest("vm-1", repo.DiskInfo{ID: "sda", Size: 10<<20 + 512, OS: true}, repo.DiskInfo{ID: "sdb", Size: 3 << 20})
	rng := rand.New(rand.NewPCG(1, 2))
	scribble(rng, g.bytes["sda"][1<<20:5<<20])
	scribble(rng, g.bytes["sda"][10<<20:])
	scribble(rng, g.bytes["sdb"][4096:8192])
	mustOpen(t, v, g.machine, 1, nil)
	w := mustWriter(t, v, g, 1, t.TempDir())
	putAll(t, v, w, g, "sda")
	putAll(t, v, w, g, "sdb")
	p1 := mustCommit(t, w, repo.Commit{Consistency: "crashConsistent", Hardware: []byte(`{"cpus":2}`)})
	if want := (repo.PointRef{Generation: 1, Sequence: 1}); p1.PointRef != want {
		t.Errorf("point: got %v, want %v", p1.PointRef, want)
	}
	requireEqual(t, v, p1.PointRef, g)

	first := g.clone()
	scribble(rng, g.bytes["sda"][8192:16384])
	clear(g.bytes["sda"][2<<20 : 4<<20])
	if err := put(t.Context(), v, w, g, "sda", block.Extent{Offset: 8192, Length: 8192}); err != nil {
		t.Fatal(err)
	}
	if err := w.Zero(t.Context(), "sda", block.Extent{Offset: 2 << 20, Length: 2 << 20}); err != nil {
		t.Fatal(err)
	}
	p2 := mustCommit(t, w, repo.Commit{})
	requireEqual(t, v, p2.PointRef, g)
	requireEqual(t, v, p1.PointRef, first)
	for _, ref := range []repo.PointRef{p1.PointRef, p2.PointRef} {
		if _, err := v.Verify(t.Context(), g.machine, ref); err != nil {
			t.Errorf("verify %v: %v", ref, err)
		}
	}
	points, err := v.Points(t.Context(), g.machine)
	if err != nil || len(points) != 2 || points[1].Base != p1.PointRef || string(points[0].Hardware) != `{"cpus":2}` {
		t.Errorf("points: got %+v, %v", points, err)
	}
	if _, err := v.OpenPoint(t.Context(), g.machine, repo.PointRef{Generation: 1, Sequence: 3}); !errors.Is(err, repo.ErrNotFound) {
		t.Errorf("open a point that is not there: got %v, want ErrNotFound", err)
	}
}

// tester is what testing.TB and rapid.T share.
type tester interface {
	Helper()
	Fatalf(format string, args ...any)
	Context() context.Context
}
