package source

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// unable names why a device cannot be protected, whatever is on it.
func unable(sys string) string {
	name := filepath.Base(sys)
	switch {
	case strings.HasPrefix(name, "zram"), strings.HasPrefix(name, "ram"):
		return "its content is in memory, and gone with the machine; leave it out"
	case readString(sys, "queue/dax") == "1":
		return "it is memory that programs may write to past the block layer (DAX), where no write can be seen"
	}
	return ""
}

// builtOn names device types whose members cannot be read as they are.
func builtOn(sys string) string {
	name := filepath.Base(sys)
	switch uuid := readString(sys, "dm/uuid"); {
	case strings.HasPrefix(uuid, "mpath-"):
		return "it is a path of the multipath device " + cmp.Or(readString(sys, "dm/name"), name) + "; name that device in the agent's configuration"
	case strings.HasPrefix(name, "bcache"):
		return "it belongs to the cache device " + name
	case strings.HasPrefix(name, "drbd"):
		return "it belongs to the replicated device " + name
	}
	return ""
}

// linked returns the devices that a device's directory names in holders or slaves, as directories of sysfs.
func linked(sys, which string) (out []string) {
	entries, _ := os.ReadDir(filepath.Join(sys, which))
	for _, e := range entries {
		if target, err := filepath.EvalSymlinks(filepath.Join(sys, which, e.Name())); err == nil {
			out = append(out, target)
		}
	}
	return out
}

// parts returns a device and its partitions.
func parts(sys string) []string {
	out := []string{sys}
	entries, _ := os.ReadDir(sys)
	for _, e := range entries {
		if at := filepath.Join(sys, e.Name()); readString(at, "partition") != "" {
			out = append(out, at)
		}
	}
	return out
}

// Together tells why disks cannot be protected as they were chosen, although each of them could be: what is built on them also needs
// disks that are not among them, or one of them is a file on another.
func Together(chosen []Disk) error {
	var among []string
	for _, d := range chosen {
		if !d.File {
			among = append(among, d.sys)
		}
	}
	for _, d := range chosen {
		if d.File {
			continue
		}
		for _, p := range parts(d.sys) {
			for _, h := range linked(p, "holders") {
				if missing := beneath(h, among); missing != "" {
					return fmt.Errorf("%s is built on disk %s and on %s, which is not protected: protect both, or neither",
						cmp.Or(readString(h, "dm/name"), filepath.Base(h)), d.Id, filepath.Base(missing))
				}
			}
		}
		file := readString(d.sys, "loop/backing_file")
		var st unix.Stat_t
		if file == "" || unix.Stat(file, &st) != nil {
			continue
		}
		at := fmt.Sprintf("%d:%d", unix.Major(st.Dev), unix.Minor(st.Dev))
		for _, other := range chosen {
			if slices.ContainsFunc(other.Filesystems, func(f Filesystem) bool { return f.Device == at }) {
				return fmt.Errorf("disk %s is the file %s on disk %s: every write to it would be sent twice; protect only one of them", d.Id, file, other.Id)
			}
		}
	}
	return nil
}

// beneath returns a disk below a device, or below what that is built on, that is not among the given ones.
func beneath(sys string, among []string) string {
	if slices.Contains(among, sys) {
		return ""
	}
	below := linked(sys, "slaves")
	if len(below) == 0 {
		disk := sys
		if readString(sys, "partition") != "" {
			disk = filepath.Dir(sys)
		}
		if slices.Contains(among, disk) {
			return ""
		}
		return disk
	}
	for _, s := range below {
		if missing := beneath(s, among); missing != "" {
			return missing
		}
	}
	return ""
}
