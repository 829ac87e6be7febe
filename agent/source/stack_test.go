package source

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

func TestDisksThatMustBeProtectedTogether(t *testing.T) {
	t.Parallel()
	const dm = "sys/devices/virtual/block/dm-0/"
	all := map[string]string{
		sata + "holders/dm-0": "->../../../../../../../../../virtual/block/dm-0", dm + "dm/name": "vg-root",
		dm + "slaves/vda2": "->../../../../pci0000:00/0000:00:05.0/virtio1/block/vda/vda2", dm + "slaves/sdb": "->../../../../pci0000:00/0000:00:1f.2/ata2/host1/target1:0:0/1:0:0:0/block/sdb",
	}
	d := disks(t, Config{Root: tree(t, server(all))})
	if len(d) != 2 || d[0].UnsupportedReason+d[1].UnsupportedReason != "" {
		t.Fatalf("got %+v", d)
	}
	if err := Together(d); err != nil {
		t.Errorf("both disks of a volume group: %v", err)
	}
	missing := map[string]string{"/dev/vda": "sdb", "/dev/sdb": "vda"}
	for i := range d {
		if err := Together(d[i : i+1]); err == nil || !strings.Contains(err.Error(), "on "+missing[d[i].Path]) || !strings.Contains(err.Error(), "vg-root") {
			t.Errorf("%s alone: got %v", d[i].Path, err)
		}
	}
	for _, alone := range disks(t, Config{Root: tree(t, server(map[string]string{dm + "slaves/vda2": all[dm+"slaves/vda2"]}))}) {
		if err := Together([]Disk{alone}); err != nil {
			t.Errorf("%s, whose volume group lies on one disk: %v", alone.Path, err)
		}
	}
}

func TestMultipathDeviceIsADisk(t *testing.T) {
	t.Parallel()
	const dm = "sys/devices/virtual/block/dm-0/"
	root := tree(t, server(map[string]string{dm + "dm/uuid": "mpath-1", dm + "dm/name": "mpatha"}))
	c := Config{Root: root}
	d := Disk{sys: filepath.Join(root, dm)}
	c.look(&d, nil, nil)
	if d.UnsupportedReason != "" {
		t.Errorf("got %q", d.UnsupportedReason)
	}
}

func TestDevicesInMemoryAreRefused(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"zram0", "ram3"} {
		root := tree(t, map[string]string{"sys/devices/virtual/block/" + name + "/dev": "1:1"})
		d := Disk{sys: filepath.Join(root, "sys/devices/virtual/block", name)}
		if (Config{Root: root}).look(&d, nil, nil); !strings.Contains(d.UnsupportedReason, "in memory") {
			t.Errorf("%s: got %q", name, d.UnsupportedReason)
		}
	}
}

func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s\ninstall e2fsprogs, util-linux and mount (Debian)", name, strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

// loop returns a loop device on a new file.
func loop(t *testing.T, path string, size int64) string {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	dev := run(t, "losetup", "--find", "--show", path)
	t.Cleanup(func() { run(t, "losetup", "-d", dev) })
	return dev
}

func TestLoopDeviceOnAProtectedDiskIsRefused(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	outer := loop(t, filepath.Join(dir, "outer.img"), 32<<20)
	mnt := filepath.Join(dir, "mnt")
	if err := os.Mkdir(mnt, 0o700); err != nil {
		t.Fatal(err)
	}
	run(t, "mkfs.ext4", "-q", outer)
	run(t, "mount", outer, mnt)
	t.Cleanup(func() {
		if err := syscall.Unmount(mnt, 0); err != nil {
			t.Error(err)
		}
	})
	inner := loop(t, filepath.Join(mnt, "inner.img"), 8<<20)
	d := disks(t, Config{Disks: []Named{{ID: "outer", Path: outer}, {ID: "inner", Path: inner}}})
	if err := Together(d); err == nil || !strings.Contains(err.Error(), "inner.img") || !strings.Contains(err.Error(), "sent twice") {
		t.Errorf("got %v", err)
	}
	for i := range d {
		if err := Together(d[i : i+1]); err != nil {
			t.Errorf("disk %s alone: %v", d[i].Id, err)
		}
	}
}

func TestDiskThatIsSwappedTo(t *testing.T) {
	t.Parallel()
	dev := loop(t, filepath.Join(t.TempDir(), "swap.img"), 16<<20)
	run(t, "mkswap", dev)
	run(t, "swapon", "--priority", "0", dev)
	t.Cleanup(func() { run(t, "swapoff", dev) })
	d := disks(t, Config{Disks: []Named{{ID: "swap", Path: dev}}})
	if len(d[0].swaps) != 1 || d[0].UnsupportedReason != "" {
		t.Fatalf("got swaps %v, reason %q", d[0].swaps, d[0].UnsupportedReason)
	}
	if w, err := d[0].Writes(); err != nil || !w.Known || w.Sectors != 0 {
		t.Errorf("got %+v and %v: what is swapped out would disturb captures", w, err)
	}
}

func TestLooks(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	dev := loop(t, filepath.Join(dir, "disk.img"), 32<<20)
	c := Config{Disks: []Named{{ID: "d", Path: dev}}}
	look := func() Look {
		t.Helper()
		l, err := c.Look(disks(t, c)[0])
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	empty := look()
	if empty.Boot == "" || empty.Number == "" || !strings.Contains(empty.Hardware, "disk.img") || empty.Size != 32<<20 || empty.Stamps == "" {
		t.Errorf("got %+v", empty)
	}
	if again := look(); again != empty {
		t.Errorf("nothing happened: got %+v, was %+v", again, empty)
	}
	run(t, "mkfs.ext4", "-q", "-E", "lazy_itable_init=0,lazy_journal_init=0", dev)
	made := look()
	if made.Sectors <= empty.Sectors || made.Stamps == empty.Stamps {
		t.Errorf("a filesystem was made: got %+v, was %+v", made, empty)
	}
	mnt := filepath.Join(dir, "mnt")
	if err := os.Mkdir(mnt, 0o700); err != nil {
		t.Fatal(err)
	}
	run(t, "mount", dev, mnt)
	if err := syscall.Unmount(mnt, 0); err != nil {
		t.Fatal(err)
	}
	if l := look(); l.Stamps == made.Stamps {
		t.Error("a mount left no stamp")
	}
	f, err := os.OpenFile(dev, unix.O_WRONLY|unix.O_SYNC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, at := range []int64{1024 + 0x38, 0} { // an unknown content
		if _, err := f.WriteAt([]byte{1, 2}, at); err != nil {
			t.Fatal(err)
		}
	}
	if l := look(); l.Stamps != "" {
		t.Errorf("got stamps %q of what nobody knows", l.Stamps)
	}
	path := filepath.Join(dir, "run", "looks.json")
	if err := SaveLooks(c, path); err != nil {
		t.Fatal(err)
	}
	if got, err := EarlyLook(path, look()); err != nil || got != look() {
		t.Errorf("got %+v and %v, want %+v", got, err, look())
	}
	other := look()
	other.Number = "0"
	if _, err := EarlyLook(path, other); err == nil {
		t.Error("the look at another disk was found")
	}
	if _, err := EarlyLook(filepath.Join(dir, "none"), look()); err == nil {
		t.Error("a look was found where nobody looked")
	}
}
