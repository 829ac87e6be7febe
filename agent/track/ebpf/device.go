package ebpf

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

// ErrPartition is why Track refuses a partition: what is written to it is tracked with the whole disk.
var ErrPartition = errors.New("ebpf: a partition is tracked with its disk")

// device is a whole disk in sysfs. Its files are kept open, so that a disk that went away is not taken for another one that came,
// and reading them at a capture looks nothing up on a filesystem.
type device struct {
	dev  uint32 // as the programs name it
	dir  string
	mq   bool // it has a request queue
	node uint64

	stat, size, seq, iostats *os.File // seq is nil before Linux 5.15
}

func deviceName(dev uint32) string { return fmt.Sprintf("%d:%d", dev>>20, dev&(1<<20-1)) }

// resolve returns the number of the block device at path.
func resolve(path string) (uint32, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return 0, fmt.Errorf("find disk %s: %w", path, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFBLK {
		return 0, fmt.Errorf("%w: %s is no block device", ErrUnsupported, path)
	}
	return unix.Major(st.Rdev)<<20 | unix.Minor(st.Rdev), nil
}

func openDevice(dev uint32) (_ *device, err error) {
	d := &device{dev: dev}
	if d.dir, err = filepath.EvalSymlinks("/sys/dev/block/" + deviceName(dev)); err != nil {
		return nil, fmt.Errorf("find disk %s in sysfs: %w", deviceName(dev), err)
	}
	if _, err := os.Stat(filepath.Join(d.dir, "partition")); err == nil {
		return nil, fmt.Errorf("%w: %s is on %s", ErrPartition, filepath.Base(d.dir), filepath.Base(filepath.Dir(d.dir)))
	}
	if _, err := os.Stat(filepath.Join(d.dir, "mq")); err == nil {
		d.mq = true
	}
	var st unix.Stat_t
	if err := unix.Stat(d.dir, &st); err != nil {
		return nil, fmt.Errorf("find disk %s in sysfs: %w", deviceName(dev), err)
	}
	d.node = st.Ino
	defer func() {
		if err != nil {
			err = errors.Join(err, d.close())
		}
	}()
	for name, f := range map[string]**os.File{"stat": &d.stat, "size": &d.size, "queue/iostats": &d.iostats, "diskseq": &d.seq} {
		flags := os.O_RDONLY
		if f == &d.iostats {
			flags = os.O_RDWR
		}
		if *f, err = os.OpenFile(filepath.Join(d.dir, name), flags, 0); err != nil {
			if f == &d.seq && errors.Is(err, os.ErrNotExist) {
				err = nil
				continue
			}
			return nil, fmt.Errorf("open disk %s in sysfs: %w", deviceName(dev), err)
		}
	}
	return d, nil
}

func (d *device) close() error {
	var errs []error
	for _, f := range []*os.File{d.stat, d.size, d.seq, d.iostats} {
		if f != nil {
			errs = append(errs, f.Close())
		}
	}
	return errors.Join(errs...)
}

func (d *device) name() string { return filepath.Base(d.dir) }

func readNumber(f *os.File) (int64, error) {
	var b [32]byte
	n, err := f.ReadAt(b[:], 0)
	if n == 0 {
		return 0, err
	}
	return strconv.ParseInt(string(bytes.TrimSpace(b[:n])), 10, 64)
}

// number returns the kernel's number of the disk, 0 when it gives none.
func (d *device) number() (uint64, error) {
	if d.seq == nil {
		return 0, nil
	}
	n, err := readNumber(d.seq)
	if err != nil {
		return 0, fmt.Errorf("read the number of disk %s: %w", d.name(), err)
	}
	return uint64(n), nil
}

// is tells whether the disk is the one of a slot, and not another one under its device number.
func (d *device) is(s *diskState) bool {
	n, err := d.number()
	return err == nil && n == s.seq && d.node == s.node
}

// sectors returns the disk's size.
func (d *device) sectors() (int64, error) {
	n, err := readNumber(d.size)
	if err != nil {
		return 0, fmt.Errorf("read the size of disk %s: %w", d.name(), err)
	}
	return n, nil
}

// counters are those of a stat file (Documentation/block/stat.rst of the kernel).
type counters struct {
	bytes    int64 // written and discarded, counted at completion
	inFlight int64 // requests of any kind
}

func (d *device) counters() (c counters, err error) {
	var b [512]byte
	n, err := d.stat.ReadAt(b[:], 0)
	if n == 0 {
		return c, fmt.Errorf("read the counters of disk %s: %w", d.name(), err)
	}
	f := strings.Fields(string(b[:n]))
	if len(f) < 11 {
		return c, fmt.Errorf("read the counters of disk %s: %d fields", d.name(), len(f))
	}
	at := func(i int) (v int64) {
		if i < len(f) && err == nil {
			v, err = strconv.ParseInt(f[i], 10, 64)
		}
		return v
	}
	err = nil
	c = counters{bytes: (at(6) + at(13)) * sector, inFlight: at(8)}
	if err != nil {
		return c, fmt.Errorf("read the counters of disk %s: %w", d.name(), err)
	}
	return c, nil
}

// counting tells whether the kernel counts what is written to the disk.
func (d *device) counting() bool {
	n, err := readNumber(d.iostats)
	return err == nil && n != 0
}

// drain makes the kernel wait for the requests in flight, where storing a queue attribute does that. The attribute keeps its value.
func (d *device) drain() error {
	var b [8]byte
	n, err := d.iostats.ReadAt(b[:], 0)
	if n > 0 {
		_, err = d.iostats.WriteAt(b[:n], 0)
	}
	if err != nil {
		return fmt.Errorf("drain disk %s: %w", d.name(), err)
	}
	return nil
}
