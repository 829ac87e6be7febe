package guest

import (
	"context"
	_ "embed"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

//go:embed initrd.sh
var initrdScript []byte

//go:embed rcS.sh
var startScript []byte

//go:embed service.sh
var serviceScript []byte

// diskModules bring up the disk, from the initrd; machineModules the network card, the power button and what hears it.
var (
	diskModules    = []string{"virtio_pci", "virtio_blk"}
	machineModules = []string{"virtio_net", "button", "evdev"}
)

// stageRoot lays the guest's root filesystem out in the directory root, boot files included.
func stageRoot(ctx context.Context, root string, kern kernel, spec Spec) error {
	for _, dir := range []string{"bin", "boot", "data", "dev", "etc/acpi/PWRF", "etc/init.d", "lib/modules", "proc", "root", "run", "sbin", "sys", "tmp", "usr/sbin", "var/lib", "var/log"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			return err
		}
	}
	if err := stageBusybox(ctx, root); err != nil {
		return err
	}
	modules, err := kern.resolve(ctx, append(append([]string{}, diskModules...), machineModules...)...)
	if err != nil {
		return err
	}
	early, err := kern.resolve(ctx, diskModules...)
	if err != nil {
		return err
	}
	initrd, err := makeInitrd(early)
	if err != nil {
		return err
	}
	files := []File{
		{Path: "/boot/vmlinuz", Mode: 0o644, Source: kern.image},
		{Path: "/boot/initrd.gz", Mode: 0o644, Data: initrd},
		{Path: "/boot/extlinux.conf", Mode: 0o644, Data: bootConfig(spec)},
		{Path: "/etc/hostname", Mode: 0o644, Data: []byte(spec.Hostname + "\n")},
		{Path: "/etc/hosts", Mode: 0o644, Data: []byte("127.0.0.1 localhost " + spec.Hostname + "\n")},
		{Path: "/etc/resolv.conf", Mode: 0o644, Data: []byte("nameserver 10.0.2.3\n")},
		{Path: "/etc/passwd", Mode: 0o644, Data: []byte("root:x:0:0:root:/root:/bin/sh\n")},
		{Path: "/etc/group", Mode: 0o644, Data: []byte("root:x:0:\n")},
		{Path: "/etc/os-release", Mode: 0o644, Data: []byte("ID=debian\nPRETTY_NAME=\"Debian GNU/Linux (Lifeboat scenario guest)\"\n")},
		{Path: "/etc/fstab", Mode: 0o644, Data: []byte("/dev/vda / ext4 defaults 0 1\n")},
		{Path: "/etc/inittab", Mode: 0o644, Data: initTable(spec)},
		{Path: "/etc/init.d/rcS", Mode: 0o755, Data: startScript},
		{Path: "/etc/init.d/service", Mode: 0o755, Data: serviceScript},
		{Path: "/etc/acpi/PWRF/00000080", Mode: 0o755, Data: []byte("#!/bin/sh\nexec poweroff\n")},
	}
	for i, m := range modules[len(early):] {
		files = append(files, File{Path: fmt.Sprintf("/lib/modules/%02d-%s.ko", i, m.name), Mode: 0o644, Data: m.data})
	}
	daemon := filepath.Join(root, "usr/sbin/guestd")
	if _, err := run(ctx, "", "env", "CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64", goTool(), "build", "-trimpath", "-ldflags=-s -w", "-o", daemon,
		"github.com/lifeboat-dr/lifeboat/sdk/scenario/cmd/guestd"); err != nil {
		return err
	}
	for _, f := range append(files, spec.Files...) {
		if err := f.stage(root); err != nil {
			return fmt.Errorf("guest file %s: %w", f.Path, err)
		}
	}
	return nil
}

func goTool() string {
	path, err := look("go")
	if err != nil {
		return "go"
	}
	return path
}

func (f File) stage(root string) error {
	data := f.Data
	if f.Source != "" {
		var err error
		if data, err = os.ReadFile(f.Source); err != nil {
			return err
		}
	}
	path := filepath.Join(root, f.Path)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	mode := f.Mode.Perm()
	if mode == 0 {
		mode = 0o644
	}
	if err := os.WriteFile(path, data, mode); err != nil {
		return err
	}
	return os.Chmod(path, mode)
}

// stageBusybox copies busybox and links all its applets now: making 300 links at boot takes an emulated guest a second.
func stageBusybox(ctx context.Context, root string) error {
	path, err := look("busybox")
	if err != nil {
		return err
	}
	list, err := run(ctx, "", "busybox", "--list")
	if err != nil {
		return err
	}
	if err := (File{Path: "/bin/busybox", Mode: 0o755, Source: path}).stage(root); err != nil {
		return err
	}
	for _, applet := range strings.Fields(list) {
		if applet == "busybox" {
			continue
		}
		if err := os.Symlink("busybox", filepath.Join(root, "bin", applet)); err != nil {
			return err
		}
	}
	return os.Symlink("../bin/busybox", filepath.Join(root, "sbin/init"))
}

// makeInitrd packs what the kernel needs to reach the root filesystem: the disk's modules and a script.
func makeInitrd(modules []module) ([]byte, error) {
	path, err := look("busybox")
	if err != nil {
		return nil, err
	}
	busybox, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var w cpioWriter
	for _, dir := range []string{"bin", "dev", "lib", "proc", "sys", "root"} {
		w.dir(dir)
	}
	w.file("bin/busybox", 0o755, busybox)
	w.file("init", 0o755, initrdScript)
	for i, m := range modules {
		w.file(fmt.Sprintf("lib/%02d-%s.ko", i, m.name), 0o644, m.data)
	}
	return w.finish()
}

// bootConfig is extlinux's. The last console is /dev/console: the first serial port, where the records are shown.
func bootConfig(spec Spec) []byte {
	args := "root=/dev/vda console=tty0 console=ttyS0,115200 quiet panic=10 random.trust_cpu=on " + spec.KernelArgs
	return fmt.Appendf(nil, "DEFAULT lifeboat\nLABEL lifeboat\n LINUX /boot/vmlinuz\n INITRD /boot/initrd.gz\n APPEND %s\n", strings.TrimSpace(args))
}

// initTable is busybox init's. The record service comes before the network and everything else: its first line tells that
// userspace is up.
func initTable(spec Spec) []byte {
	var b strings.Builder
	b.WriteString("::sysinit:/etc/init.d/rcS\n")
	fmt.Fprintf(&b, "::respawn:/usr/sbin/guestd %s %s\n", Records, spec.RecordEvery)
	b.WriteString("::respawn:/etc/init.d/service acpid /bin/acpid -f -c /etc/acpi -l /dev/null -p /run/acpid.pid\n")
	for _, s := range spec.Services {
		fmt.Fprintf(&b, "::respawn:/etc/init.d/service %s %s\n", s.Name, strings.Join(s.Command, " "))
	}
	b.WriteString("::ctrlaltdel:/bin/reboot\n::shutdown:/bin/sync\n::shutdown:/bin/mount -o remount,ro /\n")
	return []byte(b.String())
}
