package restore

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"gocloud.dev/blob"
	"gocloud.dev/blob/memblob"

	"github.com/lifeboat-dr/lifeboat/replicator/block"
	"github.com/lifeboat-dr/lifeboat/replicator/faultbucket/faulttest"
	"github.com/lifeboat-dr/lifeboat/replicator/repo"
	"github.com/lifeboat-dr/lifeboat/replicator/restore/nbd"
	"github.com/lifeboat-dr/lifeboat/service/job"
)

const faultDisk = 200<<10 + block.Sector

var faultPoint = Point{Vault: "vault-1", DataKey: bytes.Repeat([]byte{7}, 32), Machine: "machine-1", Point: job.PointRef{Generation: 1, Sequence: 2}}

// faultyPoint is the second point of a machine, with layers over each other and holes, in a bucket with faults.
type faultyPoint struct {
	t    *testing.T
	run  *faulttest.Run
	b    *blob.Bucket     // without faults
	repo *repo.Repository // with a cache that has seen nothing
	want []byte
}

func newFaultyPoint(t *testing.T, run *faulttest.Run) *faultyPoint {
	t.Helper()
	ctx := t.Context()
	f := &faultyPoint{t: t, run: run, b: memblob.OpenBucket(nil), want: make([]byte, faultDisk)}
	t.Cleanup(func() { f.b.Close() })
	fill := rand.NewChaCha8([32]byte{3})
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	file, err := repo.NewVaultFile(faultPoint.Vault, repo.Key(faultPoint.DataKey), repo.NewRecoveryKey())
	check(err)
	open := func() *repo.Repository {
		r, err := repo.Open(ctx, run.Bucket(f.b), faultPoint.Vault, repo.Key(faultPoint.DataKey), file, repo.Options{})
		check(err)
		return r
	}
	r := open()
	check(r.OpenGeneration(ctx, faultPoint.Machine, 1, nil))
	w, err := r.NewWriter(ctx, faultPoint.Machine, 1, []repo.DiskInfo{{ID: "d", Size: faultDisk, OS: true}}, repo.WriterOptions{Workers: 1})
	check(err)
	summer := block.NewSummer(r.SumKey(faultPoint.Machine, "d"))
	for _, extents := range [][]block.Extent{
		{{Offset: 0, Length: 40 << 10}, {Offset: 100 << 10, Length: faultDisk - 100<<10}},
		{{Offset: 8 << 10, Length: 12 << 10}, {Offset: 120 << 10, Length: 4 << 10}},
	} {
		for _, e := range extents {
			p := f.want[e.Offset:e.End()]
			_, _ = fill.Read(p)
			var sums []block.Sum
			for i := 0; i < len(p); i += block.Size {
				sums = append(sums, summer.Of(p[i:min(i+block.Size, len(p))]))
			}
			check(w.Put(ctx, "d", []block.Extent{e}, sums, p))
		}
		_, err := w.Commit(ctx, repo.Commit{Time: time.Now(), Consistency: "CrashConsistent"})
		check(err)
	}
	check(w.Close())
	f.repo = open()
	return f
}

// clean wants an error to be of the bucket, and one of flipped bits to be ErrCorrupt and to say where: machine, object and,
// once the disk is read, disk and extent. The vault's own file is of no machine.
func (f *faultyPoint) clean(err error, reading bool) {
	f.t.Helper()
	switch {
	case err == nil:
	case f.run.Counts() || !f.run.Lasts() && !f.run.Flips():
		f.t.Errorf("got %v, want it tried again", err)
	case errors.Is(err, ErrCorrupt) != f.run.Flips():
		f.t.Errorf("got %v, want it corrupt: %v", err, f.run.Flips())
	case f.run.Flips():
		c, ok := errors.AsType[*repo.CorruptError](err)
		if !ok || c.Object == "" || c.Machine != faultPoint.Machine && c.Object != "vault.json" || reading && (c.Disk != "d" || c.Extent.Length == 0) {
			f.t.Errorf("got %v, want machine, disk, extent and object named", err)
		}
	}
}

// disk opens the point in this process.
func (f *faultyPoint) disk() (Source, error) {
	disks, err := OpenPoint(f.t.Context(), f.repo, faultPoint.Machine, repo.PointRef(faultPoint.Point))
	if err != nil {
		f.clean(err, false)
		return nil, err
	}
	f.t.Cleanup(func() { disks.Close() })
	return disks.Disk("d")
}

// TestEveryBucketCallOfAnImageMayFail writes the point to an image file: it is there and right, or it is not there.
func TestEveryBucketCallOfAnImageMayFail(t *testing.T) {
	t.Parallel()
	faulttest.EveryCall(t, 5, func(t *testing.T, run *faulttest.Run) {
		f := newFaultyPoint(t, run)
		path := filepath.Join(t.TempDir(), "disk.raw")
		write := func() error {
			src, err := f.disk()
			if err != nil {
				return err
			}
			err = WriteImage(t.Context(), src, path, ImageOptions{Workers: 1})
			f.clean(err, true)
			return err
		}
		run.Arm()
		err := write()
		run.Disarm()
		if err != nil {
			if _, there := os.Stat(path); !errors.Is(there, fs.ErrNotExist) {
				t.Errorf("after %v an image is there", err)
			}
			if again := write(); again != nil {
				t.Fatalf("after %v, again: %v", err, again)
			}
		}
		if !bytes.Equal(read(t, path), f.want) {
			t.Errorf("after %v the image differs from the point", err)
		}
	})
}

// TestEveryBucketCallOfAWriteBackMayFail writes the point onto another disk. What is written is right, and the same write-back
// again finishes what was begun.
func TestEveryBucketCallOfAWriteBackMayFail(t *testing.T) {
	t.Parallel()
	faulttest.EveryCall(t, 5, func(t *testing.T, run *faulttest.Run) {
		f := newFaultyPoint(t, run)
		path := filepath.Join(t.TempDir(), "home.raw")
		old := make([]byte, faultDisk)
		copy(old[16<<10:], f.want[16<<10:110<<10])
		_, _ = rand.NewChaCha8([32]byte{9}).Read(old[60<<10 : 70<<10]) // where the point has a hole
		if err := os.WriteFile(path, old, 0o600); err != nil {
			t.Fatal(err)
		}
		dst, err := OpenTarget(path)
		if err != nil {
			t.Fatal(err)
		}
		defer dst.Close()
		write := func() error {
			src, err := f.disk()
			if err != nil {
				return err
			}
			_, err = WriteBack(t.Context(), src, dst, ImageOptions{Workers: 1})
			f.clean(err, true)
			return err
		}
		run.Arm()
		err = write()
		run.Disarm()
		if err != nil {
			for i, b := range read(t, path) {
				if b != old[i] && b != f.want[i] {
					t.Fatalf("after %v byte %d is neither the old one nor the point's", err, i)
				}
			}
			if again := write(); again != nil {
				t.Fatalf("after %v, again: %v", err, again)
			}
		}
		if !bytes.Equal(read(t, path), f.want) {
			t.Errorf("after %v the target differs from the point", err)
		}
	})
}

// TestEveryBucketCallOfADiskServerMayFail serves the point as a disk server does, to a client that walks it and reads it as a
// guest and a hydration do.
func TestEveryBucketCallOfADiskServerMayFail(t *testing.T) {
	t.Parallel()
	faulttest.EveryCall(t, 5, func(t *testing.T, run *faulttest.Run) {
		f := newFaultyPoint(t, run)
		source, err := json.Marshal(faultPoint)
		if err != nil {
			t.Fatal(err)
		}
		run.Arm()
		log := slog.New(slog.DiscardHandler)
		disks, err := PointOpener(func(context.Context, string) (*blob.Bucket, error) { return run.Bucket(f.b), nil })(t.Context(), source, log)
		if err != nil {
			f.clean(err, false)
			run.Disarm()
			return
		}
		defer disks.Close()
		src, err := disks.Disk("d")
		if err != nil {
			t.Fatal(err)
		}
		s := &diskServer{log: log, disks: disks}
		exports := map[string]nbd.Source{"d": &patient{src: src, log: log, disk: "d"}}
		client, server := net.Pipe()
		var wg sync.WaitGroup
		defer wg.Wait()
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		wg.Go(func() { _ = nbd.NewServer(exports, nbd.Options{OnError: s.onError}).ServeConn(ctx, server) })
		c, err := nbd.NewClient(t.Context(), client, "d")
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		failed := f.serve(c)
		run.Disarm()
		if run.Counts() && failed > 0 || failed > 0 && !run.Lasts() && !run.Flips() {
			t.Errorf("%d reads failed, %q, want them tried again", failed, s.errors)
		}
		if failed > 0 && (s.failed == 0 || len(s.errors) == 0 || (s.corrupt != "") != run.Flips()) {
			t.Errorf("%d reads failed; the server counted %d, corrupt %q", failed, s.failed, s.corrupt)
		}
		if s.corrupt != "" && (!strings.Contains(s.corrupt, "read disk d at ") || !strings.Contains(s.corrupt, "(machine machine-1, disk d, bytes ")) {
			t.Errorf("got %q, want machine, disk, extent and object named", s.corrupt)
		}
		if failed := f.serve(c); failed > 0 {
			t.Errorf("when the bucket is well again %d reads fail: %q", failed, s.errors)
		}
	})
}

// serve walks the disk and reads it in pieces. It returns how many requests failed; bytes that came are right.
func (f *faultyPoint) serve(c *nbd.Client) (failed int) {
	f.t.Helper()
	for off := int64(0); off < faultDisk; {
		e, ok, err := c.Next(f.t.Context(), off)
		if err != nil {
			failed++
			break
		}
		if !ok {
			e = block.Extent{Offset: faultDisk}
		}
		if hole := f.want[off:max(e.Offset, off)]; !block.IsZero(hole) {
			f.t.Errorf("data at %d was passed as a hole of %d bytes", off, len(hole))
		}
		off = e.End()
	}
	const piece = 32 << 10
	for off := int64(0); off < faultDisk; off += piece {
		p := make([]byte, min(piece, faultDisk-off))
		switch err := c.Read(f.t.Context(), p, off); {
		case err != nil:
			if !errors.Is(err, nbd.ErrIO) {
				f.t.Errorf("read at %d: %v, want ErrIO", off, err)
			}
			failed++
		case !bytes.Equal(p, f.want[off:off+int64(len(p))]):
			f.t.Errorf("read at %d: wrong bytes", off)
		}
	}
	return failed
}
