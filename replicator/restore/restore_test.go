package restore

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/lifeboat-dr/lifeboat/replicator/block"
	"github.com/lifeboat-dr/lifeboat/replicator/localbucket"
)

// TestMain makes the test binary its own disk server: of files (a JSON object of paths by disk id) or of a recovery point.
func TestMain(m *testing.M) {
	if len(os.Args) == 2 && strings.HasPrefix(os.Args[1], "serve-") {
		open := PointOpener(localbucket.OpenURL)
		if os.Args[1] == "serve-files" {
			open = openFiles
		}
		if err := ServeDisks(context.Background(), os.Stdin, open); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

type files map[string]*FileSource

func openFiles(_ context.Context, source json.RawMessage, _ *slog.Logger) (Disks, error) {
	var paths map[string]string
	if err := json.Unmarshal(source, &paths); err != nil {
		return nil, err
	}
	out := files{}
	for id, path := range paths {
		if path == "corrupt" {
			return nil, fmt.Errorf("%w: manifest", ErrCorrupt)
		}
		f, err := OpenFile(path)
		if err != nil {
			return nil, err
		}
		out[id] = f
	}
	return out, nil
}

func (f files) Disk(id string) (Source, error) {
	if s, ok := f[id]; ok {
		return s, nil
	}
	return nil, os.ErrNotExist
}
func (f files) Traffic() (requests, bytes int64) { return int64(len(f)), 0 }
func (f files) Close() error                     { return nil }

// randomDisk makes an image with data, zero blocks that are stored and holes.
func randomDisk(t testing.TB, size int64, seed uint64) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "disk.raw")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	r, fill := rand.New(rand.NewPCG(seed, 1)), rand.NewChaCha8([32]byte{byte(seed)})
	for off := int64(0); off < size; off += 1 << 20 {
		b := make([]byte, min(1<<20, size-off))
		switch r.IntN(4) {
		case 0:
			continue
		case 1: // zeros on disk
		case 2:
			_, _ = fill.Read(b[:r.IntN(len(b))])
		case 3:
			_, _ = fill.Read(b)
		}
		if _, err := f.WriteAt(b, off); err != nil {
			t.Fatal(err)
		}
	}
	return path
}

func openSource(t testing.TB, path string) *FileSource {
	t.Helper()
	s, err := OpenFile(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func read(t testing.TB, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func stored(t testing.TB, path string) int64 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	return st.Blocks * 512
}

// failing wraps a source that cannot read an extent.
type failing struct {
	Source
	bad block.Extent
	err error
}

func (f failing) ReadAt(ctx context.Context, p []byte, off int64) error {
	if f.bad.Overlaps(block.Extent{Offset: off, Length: int64(len(p))}) {
		return f.err
	}
	return f.Source.ReadAt(ctx, p, off)
}

func TestWriteImage(t *testing.T) {
	for _, size := range []int64{0, 512, 4096, 4096 + 1536, 4 << 20, 33<<20 + 512} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			in := randomDisk(t, size, uint64(size)+3)
			out := filepath.Join(t.TempDir(), "out.raw")
			var last atomic.Int64
			err := WriteImage(t.Context(), openSource(t, in), out, ImageOptions{Progress: func(done, total int64) {
				if done < last.Swap(done) || total != size {
					t.Errorf("progress %d of %d went back", done, total)
				}
			}})
			if err != nil {
				t.Fatal(err)
			}
			if last.Load() != size {
				t.Errorf("progress ended at %d of %d", last.Load(), size)
			}
			if !bytes.Equal(read(t, in), read(t, out)) {
				t.Error("image differs")
			}
			if got, max := stored(t, out), stored(t, in); got > max {
				t.Errorf("image takes %d bytes, the original %d", got, max)
			}
		})
	}
}

func TestWriteImageLeavesNothingAfterAnError(t *testing.T) {
	src := openSource(t, randomDisk(t, 32<<20, 5))
	bad := errors.New("bad object")
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	full := smallFilesystem(t, 8<<20)
	for name, tc := range map[string]struct {
		ctx  context.Context
		src  Source
		dir  string
		want error
	}{
		"unreadable extent": {t.Context(), failing{src, block.Extent{Offset: 9 << 20, Length: 16 << 20}, bad}, t.TempDir(), bad},
		"cancelled":         {canceled, src, t.TempDir(), context.Canceled},
		"disk full":         {t.Context(), src, full, ErrFull},
		"no directory":      {t.Context(), src, filepath.Join(t.TempDir(), "none"), ErrGone},
	} {
		t.Run(name, func(t *testing.T) {
			err := WriteImage(tc.ctx, tc.src, filepath.Join(tc.dir, "out.raw"), ImageOptions{})
			if !errors.Is(err, tc.want) {
				t.Errorf("got %v, want %v", err, tc.want)
			}
			if re, ok := errors.AsType[*ReadError](err); (tc.want == bad) != ok || ok && re.Extent.Length == 0 {
				t.Errorf("error names no extent: %v", err)
			}
			if left, _ := os.ReadDir(tc.dir); len(left) != 0 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
}

// smallFilesystem mounts a tmpfs of the given size, in a mount of this test alone.
func smallFilesystem(t *testing.T, size int64) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%d", size)); err != nil {
		t.Fatalf("mount tmpfs: %v; run the tests as root", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// summed is a source that knows its sums and counts what is read from it.
type summed struct {
	*FileSource
	summer *block.Summer
	read   atomic.Int64
}

func (s *summed) ReadAt(ctx context.Context, p []byte, off int64) error {
	s.read.Add(int64(len(p)))
	return s.FileSource.ReadAt(ctx, p, off)
}

func (s *summed) SumOf(p []byte) block.Sum { return s.summer.Of(p) }

func (s *summed) Sums(ctx context.Context, first int64, dst []block.Sum) error {
	for i := range dst {
		off := (first + int64(i)) * block.Size
		p := make([]byte, min(block.Size, s.Size()-off))
		if err := s.FileSource.ReadAt(ctx, p, off); err != nil {
			return err
		}
		dst[i] = s.summer.Of(p)
	}
	return nil
}

func TestWriteBack(t *testing.T) {
	const size = 21<<20 + 1536
	for _, bySums := range []bool{false, true} {
		t.Run(fmt.Sprintf("by sums %v", bySums), func(t *testing.T) {
			point := openSource(t, randomDisk(t, size, 8))
			home := filepath.Join(t.TempDir(), "home.raw")
			if err := WriteImage(t.Context(), point, home, ImageOptions{}); err != nil {
				t.Fatal(err)
			}
			want := read(t, home)

			// What happened at home since: data over data, over holes, zeros over data, a tail.
			f, err := os.OpenFile(home, os.O_RDWR, 0)
			if err != nil {
				t.Fatal(err)
			}
			r := rand.New(rand.NewPCG(1, 2))
			dirty := map[int64]bool{}
			for range 300 {
				b := r.Int64N(size / block.Size)
				p := make([]byte, block.Size)
				if r.IntN(3) > 0 {
					_, _ = rand.NewChaCha8([32]byte{byte(b)}).Read(p)
				}
				_, _ = f.WriteAt(p, b*block.Size)
				if !bytes.Equal(p, want[b*block.Size:][:block.Size]) {
					dirty[b] = true
				}
			}
			_, _ = f.WriteAt([]byte("tail"), size-4)
			f.Close()
			diff := int64(len(dirty))*block.Size + size%block.Size

			var src Source = point
			sum := &summed{FileSource: point, summer: block.NewSummer(block.SumKey{9})}
			if bySums {
				src = sum
			}
			dst, err := OpenTarget(home)
			if err != nil {
				t.Fatal(err)
			}
			defer dst.Close()
			// Stopped half way, then run again.
			ctx, cancel := context.WithCancel(t.Context())
			if _, err := WriteBack(ctx, src, dst, ImageOptions{Workers: 1, Progress: func(done, _ int64) {
				if done > size/2 {
					cancel()
				}
			}}); !errors.Is(err, context.Canceled) {
				t.Fatalf("cancelled write-back: %v", err)
			}
			half := sum.read.Load()
			var last int64
			res, err := WriteBack(t.Context(), src, dst, ImageOptions{Progress: func(done, _ int64) { last = done }})
			if err != nil {
				t.Fatal(err)
			}
			if last != size || res.Compared != size || res.Written == 0 || res.Written >= diff {
				t.Errorf("progress %d, result %+v, %d bytes differed", last, res, diff)
			}
			if !bytes.Equal(read(t, home), want) {
				t.Error("home disk differs from the point")
			}
			if bySums && (sum.read.Load() > diff || half == 0) {
				t.Errorf("read %d bytes of the source for %d that differed", sum.read.Load(), diff)
			}
			if res, err := WriteBack(t.Context(), src, dst, ImageOptions{}); err != nil || res.Written != 0 {
				t.Errorf("third run: %+v, %v", res, err)
			}
		})
	}
}

// target is a target that fails.
type target struct {
	Target
	size     int64
	writeErr error
}

func (f target) Size() int64                              { return f.size }
func (f target) WriteAt(p []byte, off int64) (int, error) { return 0, f.writeErr }

func TestWriteBackErrors(t *testing.T) {
	src := openSource(t, randomDisk(t, 6<<20, 3))
	newTarget := func() *FileTarget {
		path := filepath.Join(t.TempDir(), "t.raw")
		if err := os.WriteFile(path, make([]byte, src.Size()), 0o600); err != nil {
			t.Fatal(err)
		}
		dst, err := OpenTarget(path)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { dst.Close() })
		return dst
	}
	bad := fmt.Errorf("%w: pack", ErrCorrupt)
	for name, tc := range map[string]struct {
		src  Source
		dst  Target
		want error
	}{
		"target too small":  {src, target{newTarget(), src.Size() - 512, nil}, ErrSize},
		"target too large":  {src, target{newTarget(), src.Size() + 512, nil}, ErrSize},
		"target full":       {src, target{newTarget(), src.Size(), targetError(unix.ENOSPC)}, ErrFull},
		"target vanished":   {src, target{newTarget(), src.Size(), targetError(unix.ENXIO)}, ErrGone},
		"unreadable extent": {failing{src, block.Extent{Offset: 0, Length: src.Size()}, bad}, newTarget(), ErrCorrupt},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := WriteBack(t.Context(), tc.src, tc.dst, ImageOptions{}); !errors.Is(err, tc.want) {
				t.Errorf("got %v, want %v", err, tc.want)
			}
		})
	}
	t.Run("open what is not there", func(t *testing.T) {
		if _, err := OpenTarget("/no/such/disk"); !errors.Is(err, ErrGone) {
			t.Errorf("got %v, want ErrGone", err)
		}
	})
	t.Run("open twice", func(t *testing.T) {
		if _, err := OpenTarget(newTarget().f.Name()); !errors.Is(err, ErrInUse) {
			t.Errorf("got %v, want ErrInUse", err)
		}
	})
}

func TestWriteBackOntoABlockDevice(t *testing.T) {
	src := openSource(t, randomDisk(t, 12<<20, 4))
	file := filepath.Join(t.TempDir(), "dev.raw")
	if err := os.WriteFile(file, bytes.Repeat([]byte("x"), 12<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("losetup", "-f", "--show", file).CombinedOutput()
	if err != nil {
		t.Fatalf("losetup: %v: %s; run the tests as root", err, out)
	}
	dev := strings.TrimSpace(string(out))
	defer func() { _ = exec.Command("losetup", "-d", dev).Run() }()
	dst, err := OpenTarget(dev)
	if err != nil {
		t.Fatal(err)
	}
	defer dst.Close()
	if _, err := WriteBack(t.Context(), src, dst, ImageOptions{}); err != nil {
		t.Fatal(err)
	}
	dst.Close()
	if !bytes.Equal(read(t, dev), read(t, src.f.Name())) {
		t.Error("device differs from the point")
	}
}

// BenchmarkWriteImage compares with qemu-img convert on the same disk.
func BenchmarkWriteImage(b *testing.B) {
	const size = 1 << 30
	in := randomDisk(b, size, 1)
	src := openSource(b, in)
	out := filepath.Join(b.TempDir(), "out.raw")
	b.Run("ours", func(b *testing.B) {
		b.SetBytes(size)
		for b.Loop() {
			if err := WriteImage(b.Context(), src, out, ImageOptions{}); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("qemu-img", func(b *testing.B) {
		b.SetBytes(size)
		for b.Loop() {
			if o, err := exec.Command("sh", "-c", "qemu-img convert -O raw "+in+" "+out+" && sync "+out).CombinedOutput(); err != nil {
				b.Fatal(err, string(o))
			}
		}
	})
	if sha256.Sum256(read(b, in)) != sha256.Sum256(read(b, out)) {
		b.Error("differs")
	}
}
