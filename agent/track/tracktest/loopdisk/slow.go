package loopdisk

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Numbers of the kernel's FUSE protocol (uapi/linux/fuse.h), version 7.31.
const (
	opForget, opGetattr, opSetattr, opOpen, opRead, opWrite, opStatfs, opRelease = 2, 3, 4, 14, 15, 16, 17, 18
	opFsync, opFlush, opInit, opInterrupt, opDestroy, opBatchForget, opFallocate = 20, 25, 26, 36, 38, 42, 43

	inHeader, outHeader = 40, 16
	maxWrite            = 1 << 20

	initFlags = 1<<0 | 1<<5 | 1<<15 | 1<<22 // async reads, big writes, async direct I/O, a request's size is negotiated
	openFlags = 1<<0 | 1<<6                 // direct I/O, with writes in parallel
)

// server answers the kernel for a filesystem that is a single file.
type server struct {
	fd    int
	image *os.File
	delay time.Duration
	wg    sync.WaitGroup
	end   atomic.Bool
}

// slow returns the path of a file with the bytes of another one, whose writes land late and in any order.
func slow(t testing.TB, image string, delay time.Duration) string {
	t.Helper()
	s := &server{delay: delay}
	var err error
	if s.image, err = os.OpenFile(image, os.O_RDWR, 0); err != nil {
		t.Fatal(err)
	}
	if s.fd, err = unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0); err != nil {
		t.Fatalf("open /dev/fuse: %v", err)
	}
	at := filepath.Join(t.TempDir(), "slow")
	if err := os.WriteFile(at, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	opts := fmt.Sprintf("fd=%d,rootmode=100600,user_id=0,group_id=0", s.fd)
	if err := unix.Mount("slow", at, "fuse", unix.MS_NOSUID|unix.MS_NODEV, opts); err != nil {
		t.Fatalf("mount a slow file: %v", err)
	}
	s.wg.Go(func() {
		if err := s.serve(); err != nil {
			t.Errorf("serve a slow file: %v", err)
		}
	})
	t.Cleanup(func() {
		if err := unix.Unmount(at, unix.MNT_DETACH); err != nil {
			t.Errorf("unmount a slow file: %v", err)
		}
		s.end.Store(true)
		s.wg.Wait()
		if err := errors.Join(unix.Close(s.fd), s.image.Close()); err != nil {
			t.Error(err)
		}
	})
	return at
}

// serve answers until the filesystem is unmounted, or was here: a mount namespace that somebody made meanwhile has it still. Every request is answered on its own, so a later one may be the first.
func (s *server) serve() error {
	pool := sync.Pool{New: func() any { return new([maxWrite + 4096]byte) }}
	b := pool.Get().(*[maxWrite + 4096]byte)
	for !s.end.Load() {
		if _, err := unix.Poll([]unix.PollFd{{Fd: int32(s.fd), Events: unix.POLLIN}}, 100); err != nil && !errors.Is(err, unix.EINTR) {
			return err
		}
		n, err := unix.Read(s.fd, b[:])
		switch {
		case errors.Is(err, unix.ENODEV):
			return nil
		case errors.Is(err, unix.EINTR), errors.Is(err, unix.EAGAIN), errors.Is(err, unix.ENOENT):
			continue
		case err != nil:
			return err
		case n < inHeader:
			return fmt.Errorf("a request of %d bytes", n)
		}
		req := b
		b = pool.Get().(*[maxWrite + 4096]byte)
		s.wg.Go(func() {
			defer pool.Put(req)
			s.handle(req[:n])
		})
	}
	return nil
}

func (s *server) handle(req []byte) {
	le := binary.LittleEndian
	op, body := le.Uint32(req[4:]), req[inHeader:]
	out := make([]byte, outHeader, outHeader+128)
	var err error
	switch op {
	case opForget, opBatchForget, opInterrupt:
		return
	case opInit:
		out = le.AppendUint32(out, 7)
		out = le.AppendUint32(out, 31)
		out = le.AppendUint32(out, 0) // no read-ahead
		out = le.AppendUint32(out, initFlags&le.Uint32(body[12:]))
		out = le.AppendUint16(out, 64)
		out = le.AppendUint16(out, 48)
		out = le.AppendUint32(out, maxWrite)
		out = le.AppendUint32(out, 1)
		out = le.AppendUint16(out, maxWrite/4096)
		out = append(out, make([]byte, 34)...)
	case opGetattr, opSetattr:
		out, err = s.attr(out)
	case opOpen:
		out = append(out, make([]byte, 8)...)
		out = le.AppendUint32(out, openFlags)
		out = le.AppendUint32(out, 0)
	case opRead:
		p := make([]byte, le.Uint32(body[16:]))
		n, _ := s.image.ReadAt(p, int64(le.Uint64(body[8:])))
		out = append(out, p[:n]...)
	case opWrite:
		s.wait()
		size := le.Uint32(body[16:])
		_, err = s.image.WriteAt(body[40:40+size], int64(le.Uint64(body[8:])))
		out = le.AppendUint32(out, size)
		out = le.AppendUint32(out, 0)
	case opFallocate:
		s.wait()
		err = unix.Fallocate(int(s.image.Fd()), le.Uint32(body[24:]), int64(le.Uint64(body[8:])), int64(le.Uint64(body[16:])))
	case opFsync, opFlush, opRelease, opDestroy:
	case opStatfs:
		out = append(out, make([]byte, 80)...)
	default:
		err = unix.ENOSYS
	}
	if err != nil {
		errno, ok := errors.AsType[unix.Errno](err)
		if !ok {
			errno = unix.EIO
		}
		out = out[:outHeader]
		le.PutUint32(out[4:], uint32(-int32(errno)))
	}
	le.PutUint32(out, uint32(len(out)))
	copy(out[8:16], req[8:16])
	_, _ = unix.Write(s.fd, out) // who asked may be gone
}

func (s *server) wait() {
	if s.delay > 0 {
		time.Sleep(rand.N(s.delay))
	}
}

// attr appends a struct fuse_attr_out.
func (s *server) attr(out []byte) ([]byte, error) {
	st, err := s.image.Stat()
	if err != nil {
		return out, err
	}
	le := binary.LittleEndian
	out = append(out, make([]byte, 16)...) // valid for no time
	out = le.AppendUint64(out, 1)          // inode
	out = le.AppendUint64(out, uint64(st.Size()))
	out = le.AppendUint64(out, uint64(st.Size()/512))
	out = append(out, make([]byte, 36)...) // times
	out = le.AppendUint32(out, unix.S_IFREG|0o600)
	out = le.AppendUint32(out, 1)          // links
	out = append(out, make([]byte, 12)...) // owner, device
	out = le.AppendUint32(out, 4096)
	return append(out, make([]byte, 4)...), nil
}
