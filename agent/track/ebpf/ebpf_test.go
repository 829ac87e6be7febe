package ebpf_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/lifeboat-dr/lifeboat/agent/track"
	"github.com/lifeboat-dr/lifeboat/agent/track/ebpf"
	"github.com/lifeboat-dr/lifeboat/agent/track/tracktest"
)

// machine opens a Machine in a directory of the test's own.
func machine(t *testing.T, dir string) *ebpf.Machine {
	t.Helper()
	m, err := ebpf.Open(ebpf.Config{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Destroy(); err != nil {
			t.Error(err)
		}
	})
	return m
}

// loop is a loop device over a file.
type loop struct {
	f, backing *os.File
	path       string
	size       int64
}

// attach makes a loop device of a file and opens it for direct I/O.
func attach(t *testing.T, file string, direct bool) *loop {
	t.Helper()
	backing, err := os.OpenFile(file, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = control.Close() }()
	l := &loop{backing: backing}
	for {
		n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			t.Fatal(err)
		}
		l.path = fmt.Sprintf("/dev/loop%d", n)
		if l.f, err = os.OpenFile(l.path, os.O_RDWR|unix.O_DIRECT, 0); err != nil {
			t.Fatal(err)
		}
		cfg := unix.LoopConfig{Fd: uint32(backing.Fd()), Size: 4096}
		cfg.Size = 512
		if direct {
			cfg.Size = 4096
			cfg.Info.Flags = unix.LO_FLAGS_DIRECT_IO
		}
		err = unix.IoctlLoopConfigure(int(l.f.Fd()), &cfg)
		if err == nil {
			break
		}
		if err := l.f.Close(); err != nil {
			t.Error(err)
		}
		if !errors.Is(err, unix.EBUSY) {
			t.Fatal(err)
		}
	}
	if l.size, err = l.f.Seek(0, 2); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.IoctlSetInt(int(l.f.Fd()), unix.LOOP_CLR_FD, 0); err != nil {
			t.Errorf("detach %s: %v", l.path, err)
		}
		_, _ = l.f.Close(), backing.Close()
	})
	return l
}

// disk makes a loop device over a sparse file of so many bytes.
func disk(t *testing.T, size int64) *loop {
	t.Helper()
	file := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(file, size); err != nil {
		t.Fatal(err)
	}
	return attach(t, file, false)
}

func buffer(n int64) []byte {
	b := make([]byte, n+4096)
	skip := -int64(uintptr(unsafe.Pointer(unsafe.SliceData(b)))) & 4095
	return b[skip : skip+n : skip+n]
}

// WriteAt and ReadAt go past all caches.
func (l *loop) WriteAt(p []byte, off int64) (int, error) {
	b := buffer(int64(len(p)))
	copy(b, p)
	return l.f.WriteAt(b, off)
}

func (l *loop) ReadAt(p []byte, off int64) (int, error) {
	b := buffer(int64(len(p)))
	n, err := l.f.ReadAt(b, off)
	copy(p, b)
	return n, err
}

func (l *loop) Size() int64 { return l.size }

func TestContract(t *testing.T) {
	m := machine(t, t.TempDir())
	tracktest.Run(t, func(t *testing.T) (track.Tracker, tracktest.Disk) {
		d := disk(t, 8<<20)
		tr, resumed, err := m.Track(t.Context(), d.path)
		if err != nil || resumed {
			t.Fatalf("got %v and resumed %v", err, resumed)
		}
		t.Cleanup(func() {
			if err := tr.Verify(true); err != nil && !errors.Is(err, os.ErrClosed) {
				t.Error(err)
			}
			t.Logf("%+v", tr.Stats())
			if err := m.Forget(d.path); err != nil {
				t.Error(err)
			}
		})
		return tr, d
	})
}
