package export

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lifeboat-dr/lifeboat/replicator/block"
	"github.com/lifeboat-dr/lifeboat/replicator/restore"
	"github.com/lifeboat-dr/lifeboat/service/job"
)

// image makes a disk with data, holes and an odd length, and returns its path.
func image(t *testing.T, size int64) string {
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
	fill := rand.NewChaCha8([32]byte{byte(size)})
	b := make([]byte, 700<<10)
	for off := int64(0); off < size; off += 2 << 20 {
		_, _ = fill.Read(b)
		if _, err := f.WriteAt(b[:min(int64(len(b)), size-off)], off); err != nil {
			t.Fatal(err)
		}
	}
	return path
}

func source(t *testing.T, path string) *restore.FileSource {
	t.Helper()
	s, err := restore.OpenFile(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func qemuImg(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "qemu-img", args...).CombinedOutput()
	if err != nil {
		t.Fatalf("qemu-img %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

func TestEveryFormatHoldsTheDisk(t *testing.T) {
	qemuName := map[string]string{job.FormatRaw: "raw", job.FormatVHDFixed: "vpc", job.FormatQCOW2: "qcow2", job.FormatVHDX: "vhdx", job.FormatVMDK: "vmdk"}
	for _, format := range Formats() {
		for _, size := range []int64{16 << 20, 9<<20 + 1536} {
			t.Run(fmt.Sprint(format, size), func(t *testing.T) {
				in := image(t, size)
				out := filepath.Join(t.TempDir(), "out."+format)
				var last int64
				err := Disk(t.Context(), source(t, in), format, out, Options{Progress: func(done, total int64) {
					if done < last || total != size {
						t.Errorf("progress %d of %d after %d", done, total, last)
					}
					last = done
				}})
				if err != nil {
					t.Fatal(err)
				}
				if last != size {
					t.Errorf("progress ended at %d of %d", last, size)
				}
				var info struct {
					Format      string
					VirtualSize int64 `json:"virtual-size"`
				}
				if err := json.Unmarshal([]byte(qemuImg(t, "info", "--output=json", "-f", qemuName[format], out)), &info); err != nil {
					t.Fatal(err)
				}
				want := size
				if format == job.FormatVHDFixed {
					want = (size + 1<<20 - 1) >> 20 << 20
				}
				if info.VirtualSize < want || info.VirtualSize > want+1<<20 || format == job.FormatVHDFixed && info.VirtualSize != want {
					t.Errorf("virtual size %d, want %d", info.VirtualSize, want)
				}
				back := filepath.Join(t.TempDir(), "back.raw")
				qemuImg(t, "convert", "-f", qemuName[format], "-O", "raw", out, back)
				got, err := os.ReadFile(back)
				if err != nil {
					t.Fatal(err)
				}
				original, err := os.ReadFile(in)
				if err != nil {
					t.Fatal(err)
				}
				if !bytes.Equal(got[:size], original) || !block.IsZero(got[size:]) {
					t.Error("the image differs from the disk")
				}
			})
		}
	}
}

func TestVHDFooter(t *testing.T) {
	const size = 5 << 30
	b := fixedFooter(size, [16]byte{1, 2}, time.Date(2000, 1, 1, 0, 1, 0, 0, time.UTC))
	be := binary.BigEndian
	var sum uint32
	for i, v := range b {
		if i < 64 || i >= 68 {
			sum += uint32(v)
		}
	}
	for name, tc := range map[string]struct{ got, want uint64 }{
		"checksum":      {uint64(be.Uint32(b[64:])), uint64(^sum)},
		"time stamp":    {uint64(be.Uint32(b[24:])), 60},
		"original size": {be.Uint64(b[40:]), size},
		"current size":  {be.Uint64(b[48:]), size},
		"type":          {uint64(be.Uint32(b[60:])), 2},
		"data offset":   {be.Uint64(b[16:]), ^uint64(0)},
	} {
		if tc.got != tc.want {
			t.Errorf("%s %#x, want %#x", name, tc.got, tc.want)
		}
	}
}

func TestGeometryIsThatOfQemu(t *testing.T) {
	for _, size := range []int64{1 << 20, 32 << 20, 127 << 20, 504 << 20, 1 << 30, 9 << 30, 127 << 30, 200 << 30, 3 << 40} {
		path := filepath.Join(t.TempDir(), "q.vhd")
		if size > 2040<<30 { // qemu-img makes no larger ones
			if c, h, s := geometry(size / 512); c != 65535 || h != 16 || s != 255 {
				t.Errorf("%d: %d %d %d, want the largest geometry", size, c, h, s)
			}
			continue
		}
		qemuImg(t, "create", "-q", "-f", "vpc", "-o", "subformat=dynamic,force_size=off", path, fmt.Sprint(size))
		f, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		// qemu-img rounds the size up to the geometry; ours rounds the geometry down to the size.
		c, h, s := geometry(size / 512)
		ours, theirs := int64(c)*int64(h)*int64(s)*512, int64(binary.BigEndian.Uint16(f[56:]))*int64(f[58])*int64(f[59])*512
		if ours > size || min(size, 65535*16*255*512)-ours > 16*255*512 || theirs < ours || theirs-ours > 2*16*255*512 {
			t.Errorf("%d: geometry %d/%d/%d holds %d, qemu's holds %d", size, c, h, s, ours, theirs)
		}
	}
}

type disks map[string]restore.Source

func (d disks) Disk(id string) (restore.Source, error) {
	if s, ok := d[id]; ok {
		return s, nil
	}
	return nil, os.ErrNotExist
}
func (d disks) Traffic() (requests, bytes int64) { return 0, 0 }
func (d disks) Close() error                     { return nil }

// failing cannot read an extent.
type failing struct {
	restore.Source
	bad block.Extent
}

func (f failing) ReadAt(ctx context.Context, p []byte, off int64) error {
	if f.bad.Overlaps(block.Extent{Offset: off, Length: int64(len(p))}) {
		return fmt.Errorf("%w: pack", restore.ErrCorrupt)
	}
	return f.Source.ReadAt(ctx, p, off)
}

func TestNoFileIsLeftAfterAnError(t *testing.T) {
	good := source(t, image(t, 12<<20))
	bad := failing{good, block.Extent{Offset: 6 << 20, Length: 4096}}
	full := t.TempDir()
	if err := unix.Mount("tmpfs", full, "tmpfs", 0, "size=6m"); err != nil {
		t.Fatalf("mount tmpfs: %v; run the tests as root", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(full, 0); err != nil {
			t.Error(err)
		}
	})
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	big := source(t, func() string {
		path := filepath.Join(t.TempDir(), "full.raw")
		b := make([]byte, 12<<20)
		_, _ = rand.NewChaCha8([32]byte{1}).Read(b)
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}())
	for _, format := range Formats() {
		for name, tc := range map[string]struct {
			ctx  context.Context
			src  restore.Source
			dir  string
			want error
		}{
			"corrupt":   {t.Context(), bad, t.TempDir(), restore.ErrCorrupt},
			"full":      {t.Context(), big, full, restore.ErrFull},
			"cancelled": {canceled, good, t.TempDir(), context.Canceled},
		} {
			t.Run(format+" "+name, func(t *testing.T) {
				files, err := Disks(tc.ctx, disks{"first": source(t, image(t, 1<<20)), "second/disk": tc.src}, []string{"first", "second/disk"}, format, tc.dir, Options{})
				if !errors.Is(err, tc.want) || files != nil {
					t.Errorf("got %v, %v, want %v", files, err, tc.want)
				}
				if left, _ := os.ReadDir(tc.dir); len(left) != 0 {
					t.Errorf("left behind: %v", left)
				}
			})
		}
	}
}

func TestDisks(t *testing.T) {
	in := image(t, 3<<20)
	dir := filepath.Join(t.TempDir(), "new")
	d := disks{"a:b": source(t, in), "a/b": source(t, in), "c": source(t, in)}
	files, err := Disks(t.Context(), d, []string{"a:b", "c"}, job.FormatRaw, dir, Options{})
	if err != nil || files["a:b"] != filepath.Join(dir, "a_b.raw") || files["c"] != filepath.Join(dir, "c.raw") {
		t.Errorf("files %v, %v", files, err)
	}
	if _, err := Disks(t.Context(), d, []string{"a:b", "a/b"}, job.FormatRaw, dir, Options{}); err == nil {
		t.Error("two disks were written to one file")
	}
	if _, err := Disks(t.Context(), d, []string{"c"}, "vdi", dir, Options{}); !errors.Is(err, ErrFormat) {
		t.Errorf("unknown format: %v", err)
	}
	if err := Disk(t.Context(), d["c"], job.FormatQCOW2, filepath.Join(dir, "x"), Options{QEMUImg: "/no/such/program"}); !errors.Is(err, ErrTool) {
		t.Errorf("no qemu-img: %v", err)
	}
}
