package source

import (
	"bufio"
	"cmp"
	"fmt"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

type mount struct {
	device, path, fstype, source string
}

// readMounts parses mountinfo (proc(5)), in mount order.
func readMounts(path string) ([]mount, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	var out []mount
	sc := bufio.NewScanner(f)
	sc.Buffer(nil, 1<<20)
	for sc.Scan() {
		left, right, ok := strings.Cut(sc.Text(), " - ")
		l, r := strings.Fields(left), strings.Fields(right)
		if !ok || len(l) < 6 || len(r) < 2 {
			continue
		}
		out = append(out, mount{device: l[2], path: unescape(l[4]), fstype: r[0], source: unescape(r[1])})
	}
	return out, sc.Err()
}

// unescape undoes the octal escapes of mountinfo.
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}

// readSwaps returns the names of what is swapped to; none when it cannot be read.
func readSwaps(path string) (out []string) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil
	}
	for i, line := range strings.Split(string(b), "\n") {
		if f := strings.Fields(line); i > 0 && len(f) > 1 {
			out = append(out, unescape(f[0]))
		}
	}
	return out
}

func deviceNumber(path string) (string, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return "", &os.PathError{Op: "stat", Path: path, Err: err}
	}
	return fmt.Sprintf("%d:%d", unix.Major(st.Rdev), unix.Minor(st.Rdev)), nil
}

// Filesystems without a way to be frozen, which are written so seldom that the disk's counters can vouch for them.
var unfreezable = []string{"vfat", "msdos", "iso9660", "udf", "squashfs", "erofs"}

// Filesystems that span disks or have pools of their own, where freezing what is mounted says nothing of a single disk.
var unsupported = map[string]string{
	"zfs": "its filesystem is ZFS, which cannot be frozen", "bcachefs": "its filesystem is bcachefs, which may span disks",
	"exfat": "its filesystem is exFAT, which cannot be frozen", "ntfs3": "its filesystem is NTFS, which cannot be frozen here",
	"fuseblk": "its filesystem runs in user space and cannot be frozen", "ocfs2": "its filesystem is shared by several machines",
	"gfs2": "its filesystem is shared by several machines",
}

// look finds what is on a block device.
func (c Config) look(d *Disk, mounts []mount, swaps []string) {
	devices := map[string]string{} // major:minor to sysfs directory
	d.UnsupportedReason = cmp.Or(unable(d.sys), c.walk(d.sys, devices))
	root := false
	seen := map[string]bool{}
	for _, m := range mounts {
		device := m.device
		if _, ok := devices[device]; !ok && strings.HasPrefix(device, "0:") && strings.HasPrefix(m.source, "/dev/") {
			if n, err := deviceNumber(c.path(m.source)); err == nil { // btrfs has numbers of its own
				device = n
			}
		}
		if _, ok := devices[device]; !ok {
			continue
		}
		d.Mounts = append(d.Mounts, m.path)
		root = root || m.path == "/"
		if why, ok := unsupported[m.fstype]; ok && d.UnsupportedReason == "" {
			d.UnsupportedReason = why
		}
		if seen[m.device] || slices.Contains(unfreezable, m.fstype) {
			continue
		}
		seen[m.device] = true
		d.Filesystems = append(d.Filesystems, Filesystem{Path: m.path, Device: m.device, Type: m.fstype})
	}
	d.IsOsDisk = d.IsOsDisk || root
	// Later mounts first: a mount is made after the one it lies in.
	slices.Reverse(d.Filesystems)
	for _, s := range swaps {
		n, err := deviceNumber(c.path(s))
		if err != nil {
			continue
		}
		if n == "0:0" { // a swap file: which disk it moves cannot be told
			d.opaque = true
			continue
		}
		if sys, ok := devices[n]; ok {
			d.swaps = append(d.swaps, sys)
		}
	}
}

// walk collects the device, its partitions and what is built on them. It returns why the disk cannot be protected.
func (c Config) walk(sys string, devices map[string]string) (reason string) {
	dev := readString(sys, "dev")
	if dev == "" || devices[dev] != "" {
		return ""
	}
	devices[dev] = sys
	for _, p := range parts(sys)[1:] {
		reason = cmp.Or(reason, c.walk(p, devices))
	}
	for _, h := range linked(sys, "holders") {
		reason = cmp.Or(reason, builtOn(h), c.walk(h, devices))
	}
	return reason
}
