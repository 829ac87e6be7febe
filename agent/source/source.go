// Package source knows the machine the agent runs on: its disks, what is mounted on them, and what it looks like from outside.
// It reads disks and never writes to one.
package source

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"github.com/lifeboat-dr/lifeboat/sdk/fleet"
)

// Named is a disk that configuration points at: a block device or an image file.
type Named struct {
	ID   string
	Path string
	OS   bool
	// Stopped declares that nothing writes to the image while the agent runs, such as that of a machine that is off.
	Stopped bool
}

// Config has a useful zero value: all disks of this machine, as it sees itself.
type Config struct {
	Disks       []Named // when not empty, these and no others
	Platform    string  // vm or physical, instead of what is found
	ProductUUID string  // instead of the firmware's
	Hostname    string  // instead of the kernel's
	CPUs        int     // instead of this host's: an image file is a disk of some other machine
	MemoryBytes int64   // the same
	Firmware    string  // bios or uefi, the same
	Root        string  // of sys, proc, dev and etc; empty for the machine's own
}

// Disk is a disk that can be protected, or that says why not.
type Disk struct {
	fleet.Disk
	File      bool // an image file
	Stopped   bool
	Partition bool // a part of a disk, named by configuration
	// Filesystems are those mounted on the disk, on its partitions or on what is built on them, each once, children before
	// parents.
	Filesystems []Filesystem

	sys    string   // its directory in sysfs
	swaps  []string // sysfs directories of partitions that are swapped to
	opaque bool     // its write counters move for harmless reasons too
}

// Filesystem is a mounted filesystem.
type Filesystem struct {
	Path   string // a place where it is mounted
	Device string // major:minor
	Type   string
}

var validID = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$`)

// Disks returns the disks of the machine, the one with the root filesystem first.
func Disks(c Config) ([]Disk, error) {
	mounts, err := readMounts(c.path("/proc/self/mountinfo"))
	if err != nil {
		return nil, fmt.Errorf("read mounts: %w", err)
	}
	swaps := readSwaps(c.path("/proc/swaps"))
	var disks []Disk
	if len(c.Disks) > 0 {
		disks, err = c.named()
	} else {
		disks, err = c.whole()
	}
	if err != nil {
		return nil, err
	}
	seen := map[string]bool{}
	for i := range disks {
		d := &disks[i]
		if seen[d.Id] {
			return nil, fmt.Errorf("two disks have the id %q", d.Id)
		}
		seen[d.Id] = true
		if !d.File {
			c.look(d, mounts, swaps)
		}
	}
	return osFirst(disks), nil
}

func osFirst(disks []Disk) []Disk {
	at := 0 // without a root filesystem on any of them, the first one
	for i := range disks {
		if disks[i].IsOsDisk {
			at = i
			break
		}
	}
	for i := range disks {
		disks[i].IsOsDisk = i == at
	}
	if at > 0 {
		d := disks[at]
		copy(disks[1:at+1], disks[:at])
		disks[0] = d
	}
	return disks
}

func (c Config) path(p string) string { return c.Root + p }

// named finds the disks that configuration names.
func (c Config) named() ([]Disk, error) {
	var out []Disk
	for _, n := range c.Disks {
		if !validID.MatchString(n.ID) {
			return nil, fmt.Errorf("disk id %q: use up to 64 letters, digits, dots, dashes and underscores", n.ID)
		}
		st, err := os.Stat(n.Path)
		if err != nil {
			return nil, fmt.Errorf("disk %s: %w", n.ID, err)
		}
		d := Disk{Disk: fleet.Disk{Id: n.ID, Path: n.Path, SectorSize: 512, IsOsDisk: n.OS}, Stopped: n.Stopped}
		switch {
		case st.Mode().IsRegular():
			d.File, d.SizeBytes = true, st.Size()
			if d.SizeBytes == 0 || d.SizeBytes%512 != 0 {
				return nil, fmt.Errorf("disk %s: image %s has %d bytes, which is no whole number of sectors", n.ID, n.Path, d.SizeBytes)
			}
		case st.Mode()&os.ModeDevice != 0 && st.Mode()&os.ModeCharDevice == 0:
			dev, err := deviceNumber(n.Path)
			if err != nil {
				return nil, fmt.Errorf("disk %s: %w", n.ID, err)
			}
			if d.sys, err = filepath.EvalSymlinks(c.path("/sys/dev/block/" + dev)); err != nil {
				return nil, fmt.Errorf("disk %s: %w", n.ID, err)
			}
			if err := c.measure(&d); err != nil {
				return nil, fmt.Errorf("disk %s: %w", n.ID, err)
			}
		default:
			return nil, fmt.Errorf("disk %s: %s is neither a block device nor an image file", n.ID, n.Path)
		}
		out = append(out, d)
	}
	return out, nil
}

// Devices that are no disks of a machine, or are built on others.
var skipped = regexp.MustCompile(`^(loop|ram|zram|sr|fd|dm-|md|nbd|drbd|mtdblock|bcache|rbd)`)

// whole finds the machine's whole disks.
func (c Config) whole() ([]Disk, error) {
	entries, err := os.ReadDir(c.path("/sys/block"))
	if err != nil {
		return nil, fmt.Errorf("list disks: %w", err)
	}
	var out []Disk
	ids := map[string]int{}
	for _, e := range entries {
		if skipped.MatchString(e.Name()) {
			continue
		}
		sys, err := filepath.EvalSymlinks(c.path("/sys/block/" + e.Name()))
		if err != nil || readString(sys, "removable") == "1" || readString(sys, "ro") == "1" || readString(sys, "hidden") == "1" {
			continue
		}
		d := Disk{Disk: fleet.Disk{Id: stableID(sys, e.Name()), Path: "/dev/" + e.Name()}, sys: sys}
		if err := c.measure(&d); err != nil || d.SizeBytes == 0 {
			continue
		}
		ids[d.Id]++
		out = append(out, d)
	}
	for i := range out { // a serial number shared by two disks names neither
		if ids[out[i].Id] > 1 {
			out[i].Id = filepath.Base(out[i].Path)
		}
	}
	return out, nil
}

func (c Config) measure(d *Disk) error {
	sectors, err := strconv.ParseInt(readString(d.sys, "size"), 10, 64)
	if err != nil {
		return fmt.Errorf("size of %s: %w", d.Path, err)
	}
	d.SizeBytes = sectors * 512
	q := d.sys
	if _, err := os.Stat(filepath.Join(q, "queue")); err != nil {
		q, d.Partition = filepath.Dir(q), true
	}
	if d.SectorSize, err = strconv.Atoi(readString(q, "queue/logical_block_size")); err != nil {
		d.SectorSize = 512
	}
	return nil
}

func readString(dir, name string) string {
	b, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(strings.Trim(string(b), "\x00"))
}
