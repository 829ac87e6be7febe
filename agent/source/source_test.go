package source

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/lifeboat-dr/lifeboat/sdk/fleet"
)

// tree makes files below a root; a value that starts with -> is a link.
func tree(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for path, text := range files {
		path = filepath.Join(root, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		var err error
		if to, ok := strings.CutPrefix(text, "->"); ok {
			err = os.Symlink(to, path)
		} else {
			err = os.WriteFile(path, []byte(text), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return root
}

const pci = "sys/devices/pci0000:00/0000:00:05.0/virtio1/block/"

// server is a machine with an OS disk of three partitions (one of them LVM), a data disk, and things that are no disks.
func server(extra map[string]string) map[string]string {
	files := map[string]string{
		"sys/block/vda": "->../devices/pci0000:00/0000:00:05.0/virtio1/block/vda", "sys/block/sdb": "->../devices/pci0000:00/0000:00:1f.2/ata2/host1/target1:0:0/1:0:0:0/block/sdb",
		"sys/block/dm-0": "->../devices/virtual/block/dm-0", "sys/block/loop0": "->../devices/virtual/block/loop0", "sys/block/sr0": "->../devices/virtual/block/sr0",
		pci + "vda/dev": "253:0", pci + "vda/size": "2097152", pci + "vda/ro": "0", pci + "vda/removable": "0", pci + "vda/queue/logical_block_size": "512",
		pci + "vda/vda1/dev": "253:1", pci + "vda/vda1/partition": "1",
		pci + "vda/vda2/dev": "253:2", pci + "vda/vda2/partition": "2", pci + "vda/vda2/holders/dm-0": "->../../../../../../../virtual/block/dm-0",
		pci + "vda/vda3/dev": "253:3", pci + "vda/vda3/partition": "3",
		"sys/devices/virtual/block/dm-0/dev": "254:0", "sys/devices/virtual/block/dm-0/size": "1000", "sys/devices/virtual/block/dm-0/dm/uuid": "LVM-abc",
		"sys/devices/virtual/block/loop0/dev": "7:0", "sys/devices/virtual/block/loop0/size": "100", "sys/devices/virtual/block/sr0/dev": "11:0", "sys/devices/virtual/block/sr0/size": "100",
		sata + "dev": "8:16", sata + "size": "4194304", sata + "ro": "0", sata + "removable": "0", sata + "queue/logical_block_size": "4096", sata + "device/wwid": "t10.ATA     QEMU HARDDISK                           QM00003             ",
		"proc/self/mountinfo": "22 1 254:0 / / rw - ext4 /dev/mapper/vg-root rw\n23 22 0:20 / /proc rw - proc proc rw\n24 22 253:1 / /boot rw - vfat /dev/vda1 rw\n" +
			"25 22 8:16 / /srv/my\\040data rw - xfs /dev/sdb rw\n26 25 8:16 /sub /mnt rw - xfs /dev/sdb rw\n27 22 0:30 / /tmp rw - tmpfs tmpfs rw\n",
		"proc/swaps":                        "Filename Type Size Used Priority\n",
		"sys/class/dmi/id/product_uuid":     "4C4C4544-0043-4B10-8056-B4C04F395931\n",
		"sys/class/dmi/id/sys_vendor":       "Dell Inc.\n",
		"proc/cpuinfo":                      "processor : 0\nflags : fpu vme\n",
		"etc/os-release":                    "NAME=x\nPRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\n",
		"proc/sys/kernel/random/boot_id":    "b-1\n",
		"proc/meminfo":                      "MemTotal:        1010340 kB\n",
		"sys/firmware/efi/fw_platform_size": "64",
	}
	for k, v := range extra {
		if v == "" {
			delete(files, k)
		} else {
			files[k] = v
		}
	}
	return files
}

const sata = "sys/devices/pci0000:00/0000:00:1f.2/ata2/host1/target1:0:0/1:0:0:0/block/sdb/"

func disks(t *testing.T, c Config) []Disk {
	t.Helper()
	d, err := Disks(c)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestWholeDisksOfAMachine(t *testing.T) {
	t.Parallel()
	d := disks(t, Config{Root: tree(t, server(nil))})
	if len(d) != 2 {
		t.Fatalf("got %d disks: %+v", len(d), d)
	}
	sys, data := d[0], d[1]
	if sys.Id != "pci-0000_00_05.0" || !sys.IsOsDisk || sys.Path != "/dev/vda" || sys.SizeBytes != 1<<30 || sys.SectorSize != 512 {
		t.Errorf("got OS disk %+v", sys.Disk)
	}
	if got, want := sys.Mounts, []string{"/", "/boot"}; !slices.Equal(got, want) {
		t.Errorf("got mounts %v, want %v", got, want)
	}
	if got, want := sys.Filesystems, []Filesystem{{"/", "254:0", "ext4"}}; !slices.Equal(got, want) { // vfat cannot be frozen
		t.Errorf("got filesystems %v, want %v", got, want)
	}
	if data.IsOsDisk || data.SizeBytes != 2<<30 || data.SectorSize != 4096 || len(data.Id) > maxID {
		t.Errorf("got data disk %+v", data.Disk)
	}
	if got, want := data.Filesystems, []Filesystem{{"/srv/my data", "8:16", "xfs"}}; !slices.Equal(got, want) { // once, though mounted twice
		t.Errorf("got filesystems %v, want %v", got, want)
	}
	again := disks(t, Config{Root: tree(t, server(nil))})
	if again[1].Id != data.Id {
		t.Errorf("the disk's id was %s, now %s", data.Id, again[1].Id)
	}
}

func TestDisksThatAreLeftOutOrRefused(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		extra  map[string]string
		disks  int
		reason string
	}{
		"a removable disk is left out":                          {map[string]string{sata + "removable": "1"}, 1, ""},
		"a read-only disk is left out":                          {map[string]string{sata + "ro": "1"}, 1, ""},
		"an empty drive is left out":                            {map[string]string{sata + "size": "0"}, 1, ""},
		"a multipath member is refused":                         {map[string]string{sata + "holders/dm-0": "->../../../../../../../../../virtual/block/dm-0", "sys/devices/virtual/block/dm-0/dm/uuid": "mpath-1"}, 2, "multipath"},
		"a disk that is memory past the block layer is refused": {map[string]string{sata + "queue/dax": "1"}, 2, "DAX"},
		"exFAT is refused":                                      {map[string]string{"proc/self/mountinfo": "25 22 8:16 / /srv rw - exfat /dev/sdb rw\n"}, 2, "exFAT"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := disks(t, Config{Root: tree(t, server(tc.extra))})
			reason := ""
			for _, x := range d {
				reason += x.UnsupportedReason
			}
			if len(d) != tc.disks || !strings.Contains(reason, tc.reason) || tc.reason == "" && reason != "" {
				t.Errorf("got %d disks and reason %q, want %d and %q", len(d), reason, tc.disks, tc.reason)
			}
		})
	}
}

func TestIDs(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"QM00001":              "QM00001",
		"  spaced serial  ":    "spaced_serial",
		"":                     "",
		"0000":                 "",
		"../../etc":            "etc",
		"naa.600508b1001c4f3b": "naa.600508b1001c4f3b",
	} {
		if got := fit(in); got != want {
			t.Errorf("id of %q is %q, want %q", in, got, want)
		}
	}
	long := fit("nvme.144d-533435454e58304e-53616d73756e67")
	if len(long) > maxID || !validID.MatchString(long) || long == fit("nvme.144d-533435454e58304e-53616d73756e68") {
		t.Errorf("got %q for a long serial number", long)
	}
	if got := fit(long); got != long { // a replica's disk has the id as its serial number
		t.Errorf("the id %s became %s", long, got)
	}
}

func TestSharedSerialNumberNamesNeither(t *testing.T) {
	t.Parallel()
	d := disks(t, Config{Root: tree(t, server(map[string]string{pci + "vda/serial": "SAME", sata + "serial": "SAME"}))})
	if d[0].Id != "vda" || d[1].Id != "sdb" {
		t.Errorf("got ids %s and %s", d[0].Id, d[1].Id)
	}
}

func TestNamedImageFile(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "a.img")
	if err := os.WriteFile(path, make([]byte, 3*512), 0o600); err != nil {
		t.Fatal(err)
	}
	d := disks(t, Config{Disks: []Named{{ID: "a", Path: path, Stopped: true}}})
	if len(d) != 1 || !d[0].File || !d[0].Stopped || d[0].SizeBytes != 3*512 || !d[0].IsOsDisk {
		t.Errorf("got %+v", d)
	}
	for name, n := range map[string]Named{
		"a bad id":         {ID: "a b", Path: path},
		"a missing file":   {ID: "a", Path: path + "x"},
		"a directory":      {ID: "a", Path: filepath.Dir(path)},
		"a character disk": {ID: "a", Path: "/dev/null"},
	} {
		if _, err := Disks(Config{Disks: []Named{n}}); err == nil {
			t.Errorf("%s was taken", name)
		}
	}
	if _, err := Disks(Config{Disks: []Named{{ID: "a", Path: path}, {ID: "a", Path: path}}}); err == nil {
		t.Error("two disks with one id were taken")
	}
	if err := os.Truncate(path, 700); err != nil {
		t.Fatal(err)
	}
	if _, err := Disks(Config{Disks: []Named{{ID: "a", Path: path}}}); err == nil {
		t.Error("an image of 700 bytes was taken")
	}
	if _, err := Open(d[0]); !errors.Is(err, ErrSizeChanged) {
		t.Errorf("got %v for an image that shrank, want ErrSizeChanged", err)
	}
}

func TestMachineAsItSeesItself(t *testing.T) {
	t.Parallel()
	c := Config{Root: tree(t, server(nil)), Hostname: "web1"}
	m := Machine(c, disks(t, c))
	m.Nics, m.IpAddresses, m.KernelVersion, m.CpuCount = nil, nil, "", 0
	if m.Hostname != "web1" || m.ProductUuid != "4c4c4544-0043-4b10-8056-b4c04f395931" || m.Platform != fleet.Physical || m.Firmware != fleet.Uefi ||
		m.OsName != "Debian GNU/Linux 12 (bookworm)" || m.BootId != "b-1" || m.MemoryBytes != 1<<30 || m.Manufacturer != "Dell Inc." || len(m.Disks) != 2 {
		t.Errorf("got %+v", m)
	}
	if got := (Config{Root: tree(t, server(map[string]string{"proc/cpuinfo": "flags : fpu hypervisor vme\n"}))}).platform(); got != fleet.Vm {
		t.Errorf("got %s for a machine whose processor tells of a hypervisor", got)
	}
	if got := (Config{Platform: "physical", Root: "/"}).platform(); got != fleet.Physical {
		t.Errorf("got %s against the configuration", got)
	}
	if got := (Config{ProductUUID: "ABC"}).productUUID(); got != "abc" {
		t.Errorf("got %s", got)
	}
	none := Config{Root: tree(t, map[string]string{"etc/machine-id": "77\n"})}
	if a, b := none.productUUID(), none.productUUID(); a != b || len(a) != 36 {
		t.Errorf("got %q and %q for a machine without a firmware UUID", a, b)
	}
}

func TestReaderOfALoopDevice(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "img")
	want := make([]byte, 1<<20+512)
	for i := range want {
		want[i] = byte(i * 31 >> 4)
	}
	if err := os.WriteFile(path, want, 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("losetup", "--find", "--show", path).CombinedOutput()
	if err != nil {
		t.Fatalf("losetup: %v %s", err, out)
	}
	loop := strings.TrimSpace(string(out))
	t.Cleanup(func() { _ = exec.Command("losetup", "-d", loop).Run() })
	d := disks(t, Config{Disks: []Named{{ID: "l", Path: loop}}})
	if d[0].File || d[0].SizeBytes != int64(len(want)) {
		t.Fatalf("got %+v", d[0])
	}
	r, err := Open(d[0])
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	b := r.Buffer(len(want))
	if n, err := r.ReadAt(b, 0); err != nil && !errors.Is(err, io.EOF) || n != len(want) || string(b) != string(want) {
		t.Errorf("got %d bytes and %v", n, err)
	}
	before, err := d[0].Writes()
	if err != nil || !before.Known {
		t.Fatalf("got %+v and %v", before, err)
	}
	f, err := os.OpenFile(loop, os.O_WRONLY|os.O_SYNC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.Write(make([]byte, 4096)); err != nil {
		t.Fatal(err)
	}
	after, err := d[0].Writes()
	if err != nil || after.Sectors-before.Sectors < 8 {
		t.Errorf("a write of 4096 bytes moved the counters from %+v to %+v (%v)", before, after, err)
	}
}

func TestHolesOfAnImageAreSkipped(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "sparse")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	const size, at = 64 << 20, 32 << 20
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte("x"), at); err != nil {
		t.Fatal(err)
	}
	r, err := Open(disks(t, Config{Disks: []Named{{ID: "s", Path: path}}})[0])
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	first, err := r.NextData(0)
	if err != nil || first > at || first < at-1<<20 {
		t.Errorf("got data at %d and %v, want about %d", first, err, at)
	}
	if end, err := r.NextData(at + 1<<20); err != nil || end != size {
		t.Errorf("got data at %d and %v, want none before %d", end, err, size)
	}
}

func FuzzMountinfo(f *testing.F) {
	f.Add("22 1 254:0 / / rw shared:1 - ext4 /dev/x rw\n")
	f.Add("25 22 8:16 / /srv/my\\040data rw - xfs")
	f.Fuzz(func(t *testing.T, s string) {
		path := filepath.Join(t.TempDir(), "m")
		if err := os.WriteFile(path, []byte(s), 0o600); err != nil {
			t.Fatal(err)
		}
		mounts, err := readMounts(path)
		if err == nil && len(mounts) > strings.Count(s, "\n")+1 {
			t.Error(fmt.Sprint("more mounts than lines: ", len(mounts)))
		}
	})
}
