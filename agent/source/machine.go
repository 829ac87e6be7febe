package source

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/lifeboat-dr/lifeboat/sdk/fleet"
)

// Machine describes this machine with the given disks.
func Machine(c Config, disks []Disk) fleet.Machine {
	m := fleet.Machine{
		Hostname:      c.Hostname,
		ProductUuid:   c.productUUID(),
		Platform:      c.platform(),
		Manufacturer:  c.dmi("sys_vendor"),
		OsType:        fleet.Linux,
		OsName:        c.osName(),
		KernelVersion: kernel(),
		CpuCount:      runtime.NumCPU(),
		MemoryBytes:   c.memory(),
		Firmware:      fleet.Bios,
		BootId:        readString(c.path("/proc/sys/kernel/random"), "boot_id"),
		Disks:         make([]fleet.Disk, 0, len(disks)),
	}
	if c.CPUs > 0 {
		m.CpuCount = c.CPUs
	}
	if c.MemoryBytes > 0 {
		m.MemoryBytes = c.MemoryBytes
	}
	if m.Hostname == "" {
		m.Hostname, _ = os.Hostname()
	}
	if _, err := os.Stat(c.path("/sys/firmware/efi")); err == nil {
		m.Firmware = fleet.Uefi
	}
	if c.Firmware != "" {
		m.Firmware = fleet.MachineFirmware(c.Firmware)
	}
	for _, d := range disks {
		m.Disks = append(m.Disks, d.Disk)
	}
	m.Nics, m.IpAddresses = nics()
	return m
}

func (c Config) dmi(name string) string { return readString(c.path("/sys/class/dmi/id"), name) }

// productUUID is the firmware's. A machine without one is told apart by what its installation has instead.
func (c Config) productUUID() string {
	if c.ProductUUID != "" {
		return strings.ToLower(c.ProductUUID)
	}
	if u := strings.ToLower(c.dmi("product_uuid")); u != "" {
		return u
	}
	id := readString(c.path("/etc"), "machine-id")
	if id == "" {
		id, _ = os.Hostname()
	}
	h := sha256.Sum256([]byte("lifeboat machine\x00" + id))
	x := hex.EncodeToString(h[:16])
	return x[:8] + "-" + x[8:12] + "-8" + x[13:16] + "-8" + x[17:20] + "-" + x[20:]
}

func (c Config) platform() fleet.MachinePlatform {
	if c.Platform != "" {
		return fleet.MachinePlatform(c.Platform)
	}
	f, err := os.Open(c.path("/proc/cpuinfo"))
	if err == nil {
		defer func() { _ = f.Close() }()
		for sc := bufio.NewScanner(f); sc.Scan(); {
			if k, v, ok := strings.Cut(sc.Text(), ":"); ok && strings.TrimSpace(k) == "flags" {
				if strings.Contains(" "+v+" ", " hypervisor ") {
					return fleet.Vm
				}
				break
			}
		}
	}
	vendor := strings.ToLower(c.dmi("sys_vendor") + " " + c.dmi("product_name"))
	for _, v := range []string{"qemu", "kvm", "vmware", "virtualbox", "xen", "microsoft corporation virtual", "bochs", "openstack", "amazon ec2", "google compute"} {
		if strings.Contains(vendor, v) {
			return fleet.Vm
		}
	}
	return fleet.Physical
}

func (c Config) osName() string {
	b, err := os.ReadFile(c.path("/etc/os-release"))
	if err != nil {
		return "Linux"
	}
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(strings.TrimSpace(line), "PRETTY_NAME="); ok {
			return strings.Trim(v, `"'`)
		}
	}
	return "Linux"
}

func kernel() string {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return ""
	}
	return unix.ByteSliceToString(u.Release[:])
}

// memory returns the bytes of the memory blocks that are online; where the kernel does not tell, its own count, rounded up to what
// a machine may be built with.
func (c Config) memory() int64 {
	dir := c.path("/sys/devices/system/memory")
	size, err := strconv.ParseInt(readString(dir, "block_size_bytes"), 16, 64)
	if err == nil {
		blocks, _ := filepath.Glob(dir + "/memory[0-9]*/online")
		var n int64
		for _, b := range blocks {
			if readString(filepath.Dir(b), "online") == "1" {
				n += size
			}
		}
		if n > 0 {
			return n
		}
	}
	b, _ := os.ReadFile(c.path("/proc/meminfo"))
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == "MemTotal:" {
			kib, _ := strconv.ParseInt(f[1], 10, 64)
			const step = 64 << 20
			return (kib<<10 + step - 1) / step * step
		}
	}
	return 0
}

func nics() (out []fleet.Nic, all []string) {
	ifs, err := net.Interfaces()
	if err != nil {
		return nil, nil
	}
	for _, i := range ifs {
		if i.Flags&net.FlagLoopback != 0 || len(i.HardwareAddr) == 0 {
			continue
		}
		n := fleet.Nic{Name: i.Name, Mac: i.HardwareAddr.String()}
		addrs, _ := i.Addrs()
		for _, a := range addrs {
			if ip, ok := a.(*net.IPNet); ok && ip.IP.IsGlobalUnicast() {
				n.IpAddresses = append(n.IpAddresses, ip.IP.String())
			}
		}
		out, all = append(out, n), append(all, n.IpAddresses...)
	}
	return out, all
}
