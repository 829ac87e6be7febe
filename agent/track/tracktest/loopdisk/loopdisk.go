// Package loopdisk makes disks for tests: loop devices over files, some of which complete their writes late and in any order. It
// needs root, and takes away what it made when the test ends. It belongs in no program.
package loopdisk

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Disk is a loop device, open for direct I/O.
type Disk struct {
	Path    string // of the device
	f       *os.File
	backing string // the file that is resized
	size    int64
}

// New makes a disk of size bytes that reads as zeros. It writes in the order in which it is asked to.
func New(t testing.TB, size int64) *Disk {
	t.Helper()
	file := file(t, size)
	return attach(t, file, file, size, false)
}

// NewReordering makes a disk that lets a write wait for a random time up to delay before it lands. Reads wait for nothing.
func NewReordering(t testing.TB, size int64, delay time.Duration) *Disk {
	t.Helper()
	file := file(t, size)
	return attach(t, slow(t, file, delay), file, size, true)
}

func file(t testing.TB, size int64) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "image")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(file, size); err != nil {
		t.Fatal(err)
	}
	return file
}

func attach(t testing.TB, file, backing string, size int64, direct bool) *Disk {
	t.Helper()
	flags := unix.O_RDWR | unix.O_CLOEXEC
	cfg := unix.LoopConfig{Size: 512}
	if direct { // only then several writes are on their way at once
		flags |= unix.O_DIRECT
		cfg.Info.Flags = unix.LO_FLAGS_DIRECT_IO
	}
	f, err := unix.Open(file, flags, 0) // package os would ask this process whether its slow file can be polled, and wait for itself
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Close(f) }() // the device has its own reference
	cfg.Fd = uint32(f)
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		t.Fatalf("%v: loop devices need root and the loop driver", err)
	}
	defer func() { _ = control.Close() }()
	d := &Disk{size: size, backing: backing}
	for { // another test may take the same free device
		n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			t.Fatalf("find a free loop device: %v", err)
		}
		d.Path = fmt.Sprintf("/dev/loop%d", n)
		if d.f, err = os.OpenFile(d.Path, os.O_RDWR|unix.O_DIRECT, 0); err != nil {
			t.Fatal(err)
		}
		if err = unix.IoctlLoopConfigure(int(d.f.Fd()), &cfg); err == nil {
			break
		}
		_ = d.f.Close()
		if !errors.Is(err, unix.EBUSY) {
			t.Fatalf("attach %s: %v", d.Path, err)
		}
	}
	t.Cleanup(func() {
		if err := errors.Join(unix.IoctlSetInt(int(d.f.Fd()), unix.LOOP_CLR_FD, 0), d.f.Close()); err != nil {
			t.Errorf("detach %s: %v", d.Path, err)
		}
	})
	return d
}

// Size returns the disk's size in bytes.
func (d *Disk) Size() int64 { return d.size }

// Buffer returns memory fit for direct I/O.
func Buffer(n int) []byte {
	const align = 4096
	b := make([]byte, n+align)
	skip := -int(uintptr(unsafe.Pointer(unsafe.SliceData(b)))) & (align - 1)
	return b[skip : skip+n : skip+n]
}

// WriteAt writes past all caches whole sectors from any memory.
func (d *Disk) WriteAt(p []byte, off int64) (int, error) {
	b := Buffer(len(p))
	copy(b, p)
	return d.f.WriteAt(b, off)
}

// ReadAt reads past all caches whole sectors to any memory.
func (d *Disk) ReadAt(p []byte, off int64) (int, error) {
	b := Buffer(len(p))
	n, err := d.f.ReadAt(b, off)
	copy(p, b[:n])
	return n, err
}

// Discard gives sectors back: they read as zeros.
func (d *Disk) Discard(off, length int64) error { return d.rangeCall(unix.BLKDISCARD, off, length) }

// WriteZeroes lets the disk write zeros.
func (d *Disk) WriteZeroes(off, length int64) error { return d.rangeCall(unix.BLKZEROOUT, off, length) }

func (d *Disk) rangeCall(request uintptr, off, length int64) error {
	r := [2]uint64{uint64(off), uint64(length)}
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, d.f.Fd(), request, uintptr(unsafe.Pointer(&r))); errno != 0 {
		return fmt.Errorf("ioctl %#x of %s at %d, %d bytes: %w", request, d.Path, off, length, errno)
	}
	return nil
}

// Resize makes the disk larger or smaller.
func (d *Disk) Resize(size int64) error {
	if err := os.Truncate(d.backing, size); err != nil {
		return err
	}
	if err := unix.IoctlSetInt(int(d.f.Fd()), unix.LOOP_SET_CAPACITY, 0); err != nil {
		return fmt.Errorf("resize %s: %w", d.Path, err)
	}
	d.size = size
	return nil
}

// Partition makes partition n of a range of the disk and returns its device, until the test ends.
func (d *Disk) Partition(t testing.TB, n int, off, length int64) string {
	t.Helper()
	if out, err := exec.Command("addpart", d.Path, fmt.Sprint(n), fmt.Sprint(off/512), fmt.Sprint(length/512)).CombinedOutput(); err != nil {
		t.Fatalf("addpart %s: %v: %s", d.Path, err, out)
	}
	t.Cleanup(func() {
		if out, err := exec.Command("delpart", d.Path, fmt.Sprint(n)).CombinedOutput(); err != nil {
			t.Errorf("delpart %s: %v: %s", d.Path, err, out)
		}
	})
	return fmt.Sprintf("%sp%d", d.Path, n)
}
