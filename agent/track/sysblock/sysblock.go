// Package sysblock knows a whole disk by its files in sysfs: what the kernel counts, how large it is, whether it is still the same
// disk. It drains a disk's queue, which changes nothing. It never reads or writes the disk.
package sysblock

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// ErrPartition is why Open refuses a partition: what is written to it is counted for the whole disk.
var ErrPartition = errors.New("sysblock: a partition is tracked with its disk")

// ErrNoDisk is why Find refuses a path that is no block device.
var ErrNoDisk = errors.New("sysblock: no block device")

// Number is a disk's device number as the kernel's tracing has it: major << 20 | minor.
type Number uint32

func (n Number) String() string { return fmt.Sprintf("%d:%d", uint32(n)>>20, uint32(n)&(1<<20-1)) }

// Identity tells a disk from any other one of the same boot, also from one that got its device number later.
type Identity struct {
	Sequence uint64 // the kernel's number of the disk, 0 before Linux 5.15
	Node     uint64 // inode of its directory in sysfs
}

// Counters are those of a stat file (Documentation/block/stat.rst of the kernel).
type Counters struct {
	Bytes    int64 // written and discarded, counted at completion
	InFlight int64 // requests of any kind
}

// Disk is a whole disk in sysfs. Its files are kept open, so that a disk that went away is not taken for another one that came,
// and reading them at a capture looks nothing up on a filesystem. Safe for concurrent use, but for Close.
type Disk struct {
	Number   Number
	Requests bool // it has a request queue; without one, writes show when they are submitted only
	Dir      string
	Identity Identity

	stat, size, seq, iostats *os.File // seq is nil before Linux 5.15
}

// Sector is the unit of the kernel's counters, in bytes.
const Sector = 512

// Find returns the number of the block device at path.
func Find(path string) (Number, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return 0, fmt.Errorf("find disk %s: %w", path, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFBLK {
		return 0, fmt.Errorf("%w: %s", ErrNoDisk, path)
	}
	return Number(unix.Major(st.Rdev)<<20 | unix.Minor(st.Rdev)), nil
}

// Open opens the disk of a number.
func Open(number Number) (_ *Disk, err error) {
	d := &Disk{Number: number}
	if d.Dir, err = filepath.EvalSymlinks("/sys/dev/block/" + number.String()); err != nil {
		return nil, fmt.Errorf("find disk %s in sysfs: %w", number, err)
	}
	if _, err := os.Stat(filepath.Join(d.Dir, "partition")); err == nil {
		return nil, fmt.Errorf("%w: %s is on %s", ErrPartition, filepath.Base(d.Dir), filepath.Base(filepath.Dir(d.Dir)))
	}
	if _, err := os.Stat(filepath.Join(d.Dir, "mq")); err == nil {
		d.Requests = true
	}
	var st unix.Stat_t
	if err := unix.Stat(d.Dir, &st); err != nil {
		return nil, fmt.Errorf("find disk %s in sysfs: %w", number, err)
	}
	d.Identity.Node = st.Ino
	defer func() {
		if err != nil {
			err = errors.Join(err, d.Close())
		}
	}()
	for name, f := range map[string]**os.File{"stat": &d.stat, "size": &d.size, "queue/iostats": &d.iostats, "diskseq": &d.seq} {
		flags := os.O_RDONLY
		if f == &d.iostats {
			flags = os.O_RDWR
		}
		if *f, err = os.OpenFile(filepath.Join(d.Dir, name), flags, 0); err != nil {
			if f == &d.seq && errors.Is(err, os.ErrNotExist) {
				err = nil
				continue
			}
			return nil, fmt.Errorf("open disk %s in sysfs: %w", number, err)
		}
	}
	if d.Identity.Sequence, err = d.sequence(); err != nil {
		return nil, err
	}
	return d, nil
}

// Close closes the files.
func (d *Disk) Close() error {
	var errs []error
	for _, f := range []*os.File{d.stat, d.size, d.seq, d.iostats} {
		if f != nil {
			errs = append(errs, f.Close())
		}
	}
	return errors.Join(errs...)
}

// Name returns the kernel's name of the disk.
func (d *Disk) Name() string { return filepath.Base(d.Dir) }

func readNumber(f *os.File) (int64, error) {
	var b [32]byte
	n, err := f.ReadAt(b[:], 0)
	if n == 0 {
		return 0, err
	}
	return strconv.ParseInt(string(bytes.TrimSpace(b[:n])), 10, 64)
}

func (d *Disk) sequence() (uint64, error) {
	if d.seq == nil {
		return 0, nil
	}
	n, err := readNumber(d.seq)
	if err != nil {
		return 0, fmt.Errorf("read the number of disk %s: %w", d.Name(), err)
	}
	return uint64(n), nil
}

// Is tells whether the disk is there, and the one of an identity.
func (d *Disk) Is(id Identity) bool {
	n, err := d.sequence()
	return err == nil && n == id.Sequence && d.Identity.Node == id.Node
}

// Sectors returns the disk's size in sectors.
func (d *Disk) Sectors() (int64, error) {
	n, err := readNumber(d.size)
	if err != nil {
		return 0, fmt.Errorf("read the size of disk %s: %w", d.Name(), err)
	}
	return n, nil
}

// Counters reads what the kernel counted.
func (d *Disk) Counters() (c Counters, err error) {
	var b [512]byte
	n, err := d.stat.ReadAt(b[:], 0)
	if n == 0 {
		return c, fmt.Errorf("read the counters of disk %s: %w", d.Name(), err)
	}
	f := strings.Fields(string(b[:n]))
	if len(f) < 11 {
		return c, fmt.Errorf("read the counters of disk %s: %d fields", d.Name(), len(f))
	}
	at := func(i int) (v int64) {
		if i < len(f) && err == nil {
			v, err = strconv.ParseInt(f[i], 10, 64)
		}
		return v
	}
	err = nil
	c = Counters{Bytes: (at(6) + at(13)) * Sector, InFlight: at(8)}
	if err != nil {
		return c, fmt.Errorf("read the counters of disk %s: %w", d.Name(), err)
	}
	return c, nil
}

// Counting tells whether the kernel counts what is written to the disk.
func (d *Disk) Counting() bool {
	n, err := readNumber(d.iostats)
	return err == nil && n != 0
}

// Count makes the kernel count what is written to the disk, which is its default.
func (d *Disk) Count() error {
	if _, err := d.iostats.WriteAt([]byte("1"), 0); err != nil {
		return fmt.Errorf("make the kernel count writes to disk %s: %w", d.Name(), err)
	}
	return nil
}

// Drain makes the kernel wait for the requests in flight, where storing a queue attribute does that. The attribute keeps its value.
func (d *Disk) Drain() error {
	var b [8]byte
	n, err := d.iostats.ReadAt(b[:], 0)
	if n > 0 {
		_, err = d.iostats.WriteAt(b[:n], 0)
	}
	if err != nil {
		return fmt.Errorf("drain disk %s: %w", d.Name(), err)
	}
	return nil
}
