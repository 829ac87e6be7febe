package restore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"github.com/lifeboat-dr/lifeboat/replicator/block"
)

// FileSource reads a raw image file or a block device as a Source.
type FileSource struct {
	f    *os.File
	size int64
}

// OpenFile opens an image file or block device for reading. Whoever opens it makes sure that nobody writes to it.
func OpenFile(path string) (*FileSource, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open disk image: %w", err)
	}
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("measure disk image %s: %w", path, err)
	}
	return &FileSource{f: f, size: size}, nil
}

// Size implements Source.
func (s *FileSource) Size() int64 { return s.size }

// Close closes the file.
func (s *FileSource) Close() error { return s.f.Close() }

// ReadAt implements Source.
func (s *FileSource) ReadAt(ctx context.Context, p []byte, off int64) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if _, err := s.f.ReadAt(p, off); err != nil {
		return fmt.Errorf("read %s at %d: %w", s.f.Name(), off, err)
	}
	return nil
}

// Next implements Source. Where the filesystem knows no holes, all is data.
func (s *FileSource) Next(ctx context.Context, off int64) (block.Extent, bool, error) {
	if err := ctx.Err(); err != nil {
		return block.Extent{}, false, err
	}
	if off >= s.size {
		return block.Extent{}, false, nil
	}
	// pread leaves the file's position alone, so that seeking it here disturbs nobody but another Next, which sets it anew.
	start, err := unix.Seek(int(s.f.Fd()), off, unix.SEEK_DATA)
	switch {
	case errors.Is(err, unix.ENXIO):
		return block.Extent{}, false, nil
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.EOPNOTSUPP):
		return block.Extent{Offset: off, Length: s.size - off}, true, nil
	case err != nil:
		return block.Extent{}, false, fmt.Errorf("find data of %s after %d: %w", s.f.Name(), off, err)
	}
	end, err := unix.Seek(int(s.f.Fd()), start, unix.SEEK_HOLE)
	if err != nil {
		return block.Extent{}, false, fmt.Errorf("find hole of %s after %d: %w", s.f.Name(), start, err)
	}
	return block.Extent{Offset: start, Length: min(end, s.size) - start}, true, nil
}

// FileTarget writes a raw image file or a block device as a Target, held so that no QEMU can open it meanwhile.
type FileTarget struct {
	f    *os.File
	size int64
}

// ErrInUse says that another program holds the target open, such as the hypervisor of a machine that still runs.
var ErrInUse = errors.New("target is in use")

// OpenTarget opens an existing image file or block device for writing back. ErrInUse when a hypervisor has it open or it is a
// device that is mounted.
func OpenTarget(path string) (*FileTarget, error) {
	st, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("open target: %w", targetError(err))
	}
	flags := os.O_RDWR
	if st.Mode()&os.ModeDevice != 0 {
		flags |= os.O_EXCL // refused by the kernel when the device is mounted or part of an array
	}
	f, err := os.OpenFile(path, flags, 0)
	if err != nil {
		if errors.Is(err, unix.EBUSY) {
			return nil, fmt.Errorf("open target %s: %w", path, ErrInUse)
		}
		return nil, fmt.Errorf("open target: %w", targetError(err))
	}
	t := &FileTarget{f: f}
	// QEMU marks what it does with an image by locks on these bytes (block/file-posix.c, RAW_LOCK_PERM_BASE and
	// RAW_LOCK_SHARED_BASE). Holding all of them keeps every QEMU out, and fails while one is in.
	lock := unix.Flock_t{Type: unix.F_WRLCK, Whence: io.SeekStart, Start: 100, Len: 200}
	if err := unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &lock); err != nil {
		_ = f.Close()
		if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EACCES) {
			return nil, fmt.Errorf("open target %s: %w", path, ErrInUse)
		}
		return nil, fmt.Errorf("lock target %s: %w", path, err)
	}
	if t.size, err = f.Seek(0, io.SeekEnd); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("measure target %s: %w", path, targetError(err))
	}
	return t, nil
}

// Size implements Target.
func (t *FileTarget) Size() int64 { return t.size }

// ReadAt implements Target.
func (t *FileTarget) ReadAt(p []byte, off int64) (int, error) {
	n, err := t.f.ReadAt(p, off)
	return n, targetError(err)
}

// WriteAt implements Target.
func (t *FileTarget) WriteAt(p []byte, off int64) (int, error) {
	n, err := t.f.WriteAt(p, off)
	return n, targetError(err)
}

// Zero implements Target.
func (t *FileTarget) Zero(off, length int64) error {
	err := unix.Fallocate(int(t.f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off, length)
	if !errors.Is(err, unix.EOPNOTSUPP) && !errors.Is(err, unix.ENOSYS) {
		return targetError(err)
	}
	var zeros [64 << 10]byte
	for length > 0 {
		n := min(length, int64(len(zeros)))
		if _, err := t.WriteAt(zeros[:n], off); err != nil {
			return err
		}
		off, length = off+n, length-n
	}
	return nil
}

// Sync implements Target.
func (t *FileTarget) Sync() error { return targetError(t.f.Sync()) }

// Close releases the target. What was not synced may be lost in a power cut.
func (t *FileTarget) Close() error {
	// Closing alone would not do: a child that this process is just forking has the file open until it executes its program.
	unlock := unix.Flock_t{Type: unix.F_UNLCK, Whence: io.SeekStart}
	return errors.Join(unix.FcntlFlock(t.f.Fd(), unix.F_OFD_SETLK, &unlock), t.f.Close())
}

// targetError makes errors of files and devices tell what happened to the target.
func targetError(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT), errors.Is(err, unix.EFBIG):
		return fmt.Errorf("%w: %w", ErrFull, err)
	case errors.Is(err, unix.EIO), errors.Is(err, unix.ENXIO), errors.Is(err, unix.ENODEV), errors.Is(err, unix.ENOENT),
		errors.Is(err, unix.ESTALE), errors.Is(err, unix.ENOMEDIUM), errors.Is(err, io.EOF), errors.Is(err, unix.ETIMEDOUT):
		return fmt.Errorf("%w: %w", ErrGone, err)
	}
	return err
}
