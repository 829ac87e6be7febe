package source

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ErrSizeChanged is what a Reader returns whose disk is not as large any more as when it was found.
var ErrSizeChanged = errors.New("source: the disk's size changed")

// Reader reads a disk past all caches, or an image file through them. Safe for concurrent use, but for Refresh and Close.
type Reader struct {
	disk Disk
	f    *os.File
}

// Open opens a disk for reading.
func Open(d Disk) (*Reader, error) {
	r := &Reader{disk: d}
	if err := r.open(); err != nil {
		return nil, err
	}
	return r, nil
}

func (r *Reader) open() error {
	flags := os.O_RDONLY
	if !r.disk.File {
		flags |= unix.O_DIRECT
	}
	f, err := os.OpenFile(r.disk.Path, flags, 0)
	if err != nil {
		return fmt.Errorf("open disk %s: %w", r.disk.Id, err)
	}
	size, err := f.Seek(0, io.SeekEnd)
	if err == nil && size != r.disk.SizeBytes {
		err = fmt.Errorf("%w: disk %s had %d bytes, now %d", ErrSizeChanged, r.disk.Id, r.disk.SizeBytes, size)
	}
	if err != nil {
		return errors.Join(err, f.Close())
	}
	old := r.f
	r.f = f
	if old != nil {
		return old.Close()
	}
	return nil
}

// Refresh makes an image file be read that was put in the place of the one opened before. Block devices stay as they are.
func (r *Reader) Refresh() error {
	if !r.disk.File {
		return nil
	}
	return r.open()
}

// ReadAt fills p from off. For block devices both are multiples of the sector and p comes from Buffer.
func (r *Reader) ReadAt(p []byte, off int64) (int, error) { return r.f.ReadAt(p, off) }

// NextData returns the first offset at or after off that may not read as zeros, or the size.
func (r *Reader) NextData(off int64) (int64, error) {
	if !r.disk.File {
		return off, nil
	}
	at, err := unix.Seek(int(r.f.Fd()), off, unix.SEEK_DATA)
	switch {
	case errors.Is(err, unix.ENXIO):
		return r.disk.SizeBytes, nil
	case errors.Is(err, unix.EINVAL): // the filesystem cannot tell
		return off, nil
	case err != nil:
		return 0, fmt.Errorf("seek data of disk %s: %w", r.disk.Id, err)
	}
	return at, nil
}

// Size returns the disk's size in bytes.
func (r *Reader) Size() int64 { return r.disk.SizeBytes }

// Buffer returns memory aligned for direct reads.
func (r *Reader) Buffer(size int) []byte {
	const align = 4096
	b := make([]byte, size+align)
	skip := -int(uintptr(unsafe.Pointer(unsafe.SliceData(b)))) & (align - 1)
	return b[skip : skip+size : skip+size]
}

// Close closes the disk.
func (r *Reader) Close() error { return r.f.Close() }

// Writes is how far the kernel's count of a disk's writes is, without those of swap.
type Writes struct {
	Known    bool  // false where the count says nothing, as for image files
	Sectors  int64 // written and discarded
	InFlight int64 // writes, or requests of any kind where the kernel does not tell them apart
}

// Writes reads the counters. Two equal results with none in flight mean that nothing was written in between.
func (d *Disk) Writes() (Writes, error) {
	if d.File || d.opaque {
		return Writes{}, nil
	}
	w, err := readStat(d.sys)
	if err != nil {
		return Writes{}, fmt.Errorf("read counters of disk %s: %w", d.Id, err)
	}
	for _, s := range d.swaps {
		x, err := readStat(s)
		if err != nil {
			return Writes{}, fmt.Errorf("read counters of swap on disk %s: %w", d.Id, err)
		}
		w.Sectors -= x.Sectors
	}
	return w, nil
}

// readStat reads a stat file (Documentation/block/stat.rst of the kernel).
func readStat(sys string) (Writes, error) {
	f := strings.Fields(readString(sys, "stat"))
	if len(f) < 11 {
		return Writes{}, fmt.Errorf("%s/stat has %d fields", sys, len(f))
	}
	n := func(i int) int64 {
		if i >= len(f) {
			return 0
		}
		v, _ := strconv.ParseInt(f[i], 10, 64)
		return v
	}
	w := Writes{Known: true, Sectors: n(6) + n(13), InFlight: n(8)}
	if in := strings.Fields(readString(sys, "inflight")); len(in) == 2 { // of them, reads and writes
		if v, err := strconv.ParseInt(in[1], 10, 64); err == nil {
			w.InFlight = v
		}
	}
	return w, nil
}
