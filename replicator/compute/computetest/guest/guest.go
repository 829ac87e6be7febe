// Package guest builds the smallest Linux machine that boots from its own disk, for tests of compute drivers: a Debian kernel,
// busybox as its only program, ext4 straight on the disk with a boot loader in front. It is built once a user and kept in the
// cache directory; it must never be used outside tests.
package guest

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	_ "embed"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
)

//go:embed init.sh
var initScript []byte

//go:embed poweroff.sh
var poweroffScript []byte

// Size of the disk in bytes.
const Size = 128 << 20

// version changes when the build does and the scripts do not.
const version = "2"

// modules in the order in which they are loaded.
var modules = []string{
	"virtio/virtio_ring", "virtio/virtio", "virtio/virtio_pci_modern_dev", "virtio/virtio_pci_legacy_dev", "virtio/virtio_pci",
	"block/virtio_blk", "input/evdev", "acpi/button",
}

// Disk returns the path of the guest's disk, a raw image that must not be changed. It builds it when it is not there, which
// needs root (a loop mount), Debian's package archive and the packages busybox-static, cpio, e2fsprogs and extlinux.
//
// The guest prints "GUEST boot=N uuid=... cpus=... nics=... serials=...", then "GUEST payload=..." (the MD5 of a 16 MiB file
// on its disk), then "GUEST record=N" a few times a second, N continuing over boots. It powers off on the ACPI button.
func Disk(ctx context.Context) (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("find cache directory: %w", err)
	}
	sum := sha256.New()
	sum.Write([]byte(version))
	sum.Write(initScript)
	sum.Write(poweroffScript)
	dir := filepath.Join(cache, "lifeboat-test", fmt.Sprintf("compute-guest-%x", sum.Sum(nil)[:6]))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("make cache directory: %w", err)
	}
	lock, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return "", fmt.Errorf("lock cache directory: %w", err)
	}
	defer func() { _ = lock.Close() }()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return "", fmt.Errorf("lock cache directory: %w", err)
	}
	disk := filepath.Join(dir, "disk.raw")
	if _, err := os.Stat(disk); err == nil {
		return disk, nil
	}
	b := &builder{ctx: ctx}
	b.dir, err = os.MkdirTemp("", "guest")
	if err != nil {
		return "", fmt.Errorf("make build directory: %w", err)
	}
	defer func() { _ = os.RemoveAll(b.dir) }()
	built, err := b.build()
	if err != nil {
		return "", fmt.Errorf("build test guest: %w", err)
	}
	if err := b.run("cp", "--sparse=always", built, disk+".tmp"); err != nil {
		return "", fmt.Errorf("build test guest: %w", err)
	}
	return disk, os.Rename(disk+".tmp", disk)
}

type builder struct {
	ctx context.Context
	dir string
}

func (b *builder) run(name string, args ...string) error {
	_, err := b.output(name, args...)
	return err
}

func (b *builder) output(name string, args ...string) (string, error) {
	cmd := exec.CommandContext(b.ctx, name, args...)
	cmd.Dir = b.dir
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, strings.TrimSpace(stderr.String()))
	}
	return string(out), nil
}

func (b *builder) build() (string, error) {
	kernel, modules, err := b.kernel()
	if err != nil {
		return "", err
	}
	initrd, err := b.initrd(modules)
	if err != nil {
		return "", err
	}
	return b.disk(kernel, initrd)
}

// kernel unpacks Debian's newest kernel for virtual machines and returns it and its driver directory.
func (b *builder) kernel() (kernel, drivers string, err error) {
	name, err := b.kernelPackage()
	if err != nil || name == "" {
		if err := b.run("apt-get", "update", "-q"); err != nil {
			return "", "", err
		}
		if name, err = b.kernelPackage(); err != nil {
			return "", "", err
		}
	}
	if name == "" {
		return "", "", errors.New("the package archive has no linux-image-cloud-amd64")
	}
	if err := b.run("apt-get", "download", "-q", name); err != nil {
		return "", "", err
	}
	debs, _ := filepath.Glob(filepath.Join(b.dir, name+"_*.deb"))
	if len(debs) != 1 {
		return "", "", fmt.Errorf("download of %s left %d files", name, len(debs))
	}
	if err := b.run("dpkg", "-x", debs[0], "kernel"); err != nil {
		return "", "", err
	}
	release := strings.TrimPrefix(name, "linux-image-")
	return filepath.Join(b.dir, "kernel/boot/vmlinuz-"+release), filepath.Join(b.dir, "kernel/lib/modules", release, "kernel/drivers"), nil
}

func (b *builder) kernelPackage() (string, error) {
	out, err := b.output("apt-cache", "depends", "linux-image-cloud-amd64")
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(out) {
		if name, ok := strings.CutPrefix(strings.TrimSpace(line), "Depends: "); ok && strings.HasPrefix(name, "linux-image-") {
			return name, nil
		}
	}
	return "", nil
}

func (b *builder) initrd(drivers string) (string, error) {
	root := filepath.Join(b.dir, "root")
	for _, d := range []string{"bin", "modules", "mnt", "proc", "sys", "dev", "tmp", "etc/acpi/PWRF"} {
		if err := os.MkdirAll(filepath.Join(root, d), 0o755); err != nil {
			return "", err
		}
	}
	files := map[string]string{"/bin/busybox": "bin/busybox"}
	for _, m := range modules {
		files[filepath.Join(drivers, m+".ko")] = "modules/" + filepath.Base(m) + ".ko"
	}
	for from, to := range files {
		content, err := os.ReadFile(from)
		if err != nil {
			return "", fmt.Errorf("%w; install the package busybox-static", err)
		}
		if err := os.WriteFile(filepath.Join(root, to), content, 0o755); err != nil {
			return "", err
		}
	}
	if err := os.WriteFile(filepath.Join(root, "init"), initScript, 0o755); err != nil {
		return "", err
	}
	if err := os.WriteFile(filepath.Join(root, "etc/acpi/PWRF/00000080"), poweroffScript, 0o755); err != nil {
		return "", err
	}
	archive, err := b.output("sh", "-c", "cd root && find . | cpio -o -H newc --quiet")
	if err != nil {
		return "", err
	}
	path := filepath.Join(b.dir, "initrd.gz")
	f, err := os.Create(path)
	if err != nil {
		return "", err
	}
	z := gzip.NewWriter(f)
	_, err = z.Write([]byte(archive))
	return path, errors.Join(err, z.Close(), f.Close())
}

func (b *builder) disk(kernel, initrd string) (_ string, err error) {
	disk, mnt := filepath.Join(b.dir, "disk.raw"), filepath.Join(b.dir, "mnt")
	boot := filepath.Join(mnt, "boot")
	if err := os.WriteFile(disk, nil, 0o600); err != nil {
		return "", err
	}
	if err := os.Truncate(disk, Size); err != nil {
		return "", err
	}
	// The boot loader reads none of the features that are switched off.
	if err := b.run("mkfs.ext4", "-q", "-F", "-O", "^64bit,^metadata_csum,^orphan_file", "-E", "lazy_itable_init=0,lazy_journal_init=0", disk); err != nil {
		return "", err
	}
	if err := os.Mkdir(mnt, 0o755); err != nil {
		return "", err
	}
	if err := b.run("mount", "-o", "loop", disk, mnt); err != nil {
		return "", err
	}
	defer func() {
		if uerr := exec.Command("umount", mnt).Run(); uerr != nil {
			err = errors.Join(err, fmt.Errorf("umount %s: %w", mnt, uerr))
		}
	}()
	if err := os.Mkdir(boot, 0o755); err != nil {
		return "", err
	}
	payload := make([]byte, 16<<20)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(payload)
	for name, content := range map[string][]byte{
		"boots": []byte("0\n"), "records": nil, "payload": payload,
		"boot/extlinux.conf": []byte("SERIAL 0 115200\nDEFAULT l\nLABEL l\n LINUX /boot/vmlinuz\n INITRD /boot/initrd.gz\n APPEND console=tty0 console=ttyS0 quiet panic=-1\n"),
	} {
		if err := os.WriteFile(filepath.Join(mnt, name), content, 0o644); err != nil {
			return "", err
		}
	}
	if err := b.run("cp", kernel, filepath.Join(boot, "vmlinuz")); err != nil {
		return "", err
	}
	if err := b.run("cp", initrd, filepath.Join(boot, "initrd.gz")); err != nil {
		return "", err
	}
	return disk, b.run("extlinux", "--install", boot)
}
