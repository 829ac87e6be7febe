package restore

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/lifeboat-dr/lifeboat/replicator/block"
	"github.com/lifeboat-dr/lifeboat/replicator/localbucket"
	"github.com/lifeboat-dr/lifeboat/replicator/repo"
	"github.com/lifeboat-dr/lifeboat/replicator/restore/nbd"
	"github.com/lifeboat-dr/lifeboat/service/job"
)

// storePoint stores an image as the first point of a machine in a bucket of its own, and returns where.
func storePoint(t *testing.T, image string) (*repo.Repository, Point) {
	t.Helper()
	ctx := t.Context()
	dir := t.TempDir()
	p := Point{Bucket: "file://" + dir, Vault: "vault-1", DataKey: bytes.Repeat([]byte{7}, 32), Machine: "machine-1", Point: job.PointRef{Generation: 1, Sequence: 1}}
	b, err := localbucket.OpenURL(ctx, p.Bucket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	r, err := repo.Open(ctx, b, p.Vault, repo.Key(p.DataKey), nil, repo.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := r.OpenGeneration(ctx, p.Machine, 1, nil); err != nil {
		t.Fatal(err)
	}
	src := openSource(t, image)
	w, err := r.NewWriter(ctx, p.Machine, 1, []repo.DiskInfo{{ID: "d", Size: src.Size()}}, repo.WriterOptions{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	summer := block.NewSummer(r.SumKey(p.Machine, "d"))
	for off := int64(0); off < src.Size(); off += 1 << 20 {
		data := make([]byte, min(1<<20, src.Size()-off))
		if err := src.ReadAt(ctx, data, off); err != nil {
			t.Fatal(err)
		}
		if block.IsZero(data) {
			continue
		}
		var sums []block.Sum
		for i := 0; i < len(data); i += block.Size {
			sums = append(sums, summer.Of(data[i:min(i+block.Size, len(data))]))
		}
		if err := w.Put(ctx, "d", []block.Extent{{Offset: off, Length: int64(len(data))}}, sums, data); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := w.Commit(ctx, repo.Commit{Time: time.Now(), Consistency: "crash"}); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return r, p
}

func serverConfig(t *testing.T, p Point) ServerConfig {
	t.Helper()
	source, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	return ServerConfig{Disks: []string{"d"}, Source: source}
}

func dialServer(t *testing.T, dir string) *nbd.Client {
	t.Helper()
	conn, err := Dial(t.Context(), dir, DiskSocket)
	if err != nil {
		t.Fatal(err)
	}
	c, err := nbd.NewClient(t.Context(), conn, "d")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func TestPointIsServedImagedAndWrittenBack(t *testing.T) {
	image := randomDisk(t, 24<<20+1536, 21)
	want := read(t, image)
	r, p := storePoint(t, image)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()

	dir := t.TempDir()
	t.Cleanup(func() { _ = StopServer(context.Background(), dir) })
	if err := StartServer(ctx, dir, serverCommand(t, "serve-point"), serverConfig(t, p)); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(want))
	if err := dialServer(t, dir).Read(ctx, got, 0); err != nil || !bytes.Equal(got, want) {
		t.Errorf("served disk: %v, equal %v", err, bytes.Equal(got, want))
	}
	if st, err := Status(ctx, dir); err != nil || st.Requests == 0 || st.Bytes == 0 {
		t.Errorf("status: %+v, %v", st, err)
	}
	// The key is nowhere in the directory, nor in what the host shows of the process.
	_ = filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() && bytes.Contains(read(t, path), []byte("BwcHBw")) {
			t.Errorf("%s holds the data key", path)
		}
		return err
	})

	disks, err := OpenPoint(ctx, r, p.Machine, repo.PointRef(p.Point))
	if err != nil {
		t.Fatal(err)
	}
	defer disks.Close()
	src, err := disks.Disk("d")
	if err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(t.TempDir(), "out.raw")
	if err := WriteImage(ctx, src, out, ImageOptions{}); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(read(t, out), want) {
		t.Error("image differs from what was stored")
	}
	if err := os.Truncate(out, 1<<20); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(out, int64(len(want))); err != nil {
		t.Fatal(err)
	}
	dst, err := OpenTarget(out)
	if err != nil {
		t.Fatal(err)
	}
	defer dst.Close()
	if _, ok := src.(Summed); !ok {
		t.Error("a point's disk knows no sums")
	}
	if res, err := WriteBack(ctx, src, dst, ImageOptions{}); err != nil || res.Written == 0 || res.Written > int64(len(want))-1<<20 {
		t.Errorf("write back: %+v, %v", res, err)
	}
	if !bytes.Equal(read(t, out), want) {
		t.Error("written-back disk differs from what was stored")
	}
}

func TestFlippedBitInTheBucketIsAnErrorThatNamesIt(t *testing.T) {
	r, p := storePoint(t, randomDisk(t, 24<<20, 22))
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var packs []string
	_ = filepath.WalkDir(strings.TrimPrefix(p.Bucket, "file://"), func(path string, e fs.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() && strings.Contains(path, "pack") {
			packs = append(packs, path)
		}
		return err
	})
	if len(packs) == 0 {
		t.Fatal("no packs in the bucket")
	}
	for _, pack := range packs {
		b := read(t, pack)
		b[len(b)/2] ^= 1
		if err := os.WriteFile(pack, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}

	disks, err := OpenPoint(ctx, r, p.Machine, repo.PointRef(p.Point))
	if err != nil {
		t.Fatal(err)
	}
	defer disks.Close()
	src, err := disks.Disk("d")
	if err != nil {
		t.Fatal(err)
	}
	err = WriteImage(ctx, src, filepath.Join(t.TempDir(), "out.raw"), ImageOptions{})
	if _, ok := errors.AsType[*ReadError](err); !ok || !errors.Is(err, ErrCorrupt) {
		t.Errorf("image: %v, want a ReadError of ErrCorrupt", err)
	}

	dir := t.TempDir()
	t.Cleanup(func() { _ = StopServer(context.Background(), dir) })
	if err := StartServer(ctx, dir, serverCommand(t, "serve-point"), serverConfig(t, p)); err != nil {
		t.Fatal(err)
	}
	if err := dialServer(t, dir).Read(ctx, make([]byte, src.Size()), 0); !errors.Is(err, nbd.ErrIO) {
		t.Errorf("served read: %v, want ErrIO", err)
	}
	if st, err := Status(ctx, dir); err != nil || st.FailedReads == 0 || !strings.Contains(st.Corrupt, "disk d at") {
		t.Errorf("status: %+v, %v", st, err)
	}
}
