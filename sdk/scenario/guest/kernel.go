package guest

import (
	"bytes"
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
)

// kernel is an unpacked Debian kernel package.
type kernel struct {
	image   string            // vmlinuz
	modules map[string]string // module name to file
}

// kernelPackage is Debian's kernel for virtual machines: ext4, PCI and serial ports are built in, virtio is modular.
const kernelPackage = "linux-image-cloud-amd64"

// fetchKernel unpacks the kernel package into the cache, once for all builds. A cached kernel is used as it is: builds
// must work without a network.
func fetchKernel(ctx context.Context, cache string) (kernel, error) {
	unlock, err := lockDir(cache)
	if err != nil {
		return kernel{}, err
	}
	defer unlock()
	tree := filepath.Join(cache, "kernel")
	if _, err := os.Stat(tree); errors.Is(err, fs.ErrNotExist) {
		if err := downloadKernel(ctx, cache, tree); err != nil {
			return kernel{}, err
		}
	}
	return openKernel(tree)
}

// lockDir waits for an exclusive lock on dir. It goes with the process.
func lockDir(dir string) (unlock func(), err error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s: %w", dir, err), f.Close())
	}
	return func() { _ = f.Close() }, nil
}

var dependsOnImage = regexp.MustCompile(`(?m)^\s*Depends: (linux-image-\S+)`)

func downloadKernel(ctx context.Context, cache, tree string) error {
	work, err := os.MkdirTemp(cache, "download-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(work) }()
	// The name of the real package changes with every kernel update, and an outdated list names one that is gone.
	var failed error
	for _, refresh := range []bool{false, true} {
		if refresh {
			if _, err := run(ctx, work, "apt-get", "update", "-qq"); err != nil {
				return errors.Join(failed, err)
			}
		}
		var out string
		if out, failed = run(ctx, work, "apt-cache", "depends", kernelPackage); failed != nil {
			continue
		}
		m := dependsOnImage.FindStringSubmatch(out)
		if m == nil {
			failed = fmt.Errorf("package %s is unknown to apt", kernelPackage)
			continue
		}
		if _, failed = run(ctx, work, "apt-get", "download", "-qq", m[1]); failed == nil {
			break
		}
	}
	if failed != nil {
		return failed
	}
	debs, err := filepath.Glob(filepath.Join(work, "*.deb"))
	if err != nil || len(debs) != 1 {
		return fmt.Errorf("apt-get download left %d packages, want 1", len(debs))
	}
	unpacked := filepath.Join(work, "tree")
	if _, err := run(ctx, work, "dpkg", "-x", debs[0], unpacked); err != nil {
		return err
	}
	return os.Rename(unpacked, tree)
}

func openKernel(tree string) (kernel, error) {
	k := kernel{modules: map[string]string{}}
	images, err := filepath.Glob(filepath.Join(tree, "boot", "vmlinuz-*"))
	if err != nil || len(images) != 1 {
		return k, fmt.Errorf("found %d kernel images in %s, want 1; remove the directory to download it again", len(images), tree)
	}
	k.image = images[0]
	err = filepath.WalkDir(filepath.Join(tree, "lib", "modules"), func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			if name, _, ok := strings.Cut(d.Name(), ".ko"); ok {
				k.modules[strings.ReplaceAll(name, "-", "_")] = path
			}
		}
		return err
	})
	return k, err
}

// load returns the contents of a module, unpacked when Debian compressed it.
func (k kernel) load(ctx context.Context, name string) ([]byte, error) {
	path, ok := k.modules[name]
	if !ok {
		return nil, fmt.Errorf("kernel module %s is not in %s", name, k.image)
	}
	if filepath.Ext(path) == ".xz" {
		out, err := run(ctx, "", "busybox", "xzcat", path)
		return []byte(out), err
	}
	return os.ReadFile(path)
}

// module is a kernel module ready to be loaded.
type module struct {
	name string
	data []byte
}

// resolve returns the modules with all they depend on, each after those it needs.
func (k kernel) resolve(ctx context.Context, names ...string) ([]module, error) {
	var list []module
	var add func(name string) error
	add = func(name string) error {
		if slices.ContainsFunc(list, func(m module) bool { return m.name == name }) {
			return nil
		}
		data, err := k.load(ctx, name)
		if err != nil {
			return err
		}
		depends, err := moduleDepends(data)
		if err != nil {
			return fmt.Errorf("kernel module %s: %w", name, err)
		}
		for _, d := range depends {
			if err := add(d); err != nil {
				return err
			}
		}
		list = append(list, module{name, data})
		return nil
	}
	for _, name := range names {
		if err := add(name); err != nil {
			return nil, err
		}
	}
	return list, nil
}

// moduleDepends reads the "depends" entry of a module's .modinfo section: NUL-terminated key=value pairs.
func moduleDepends(data []byte) ([]string, error) {
	f, err := elf.NewFile(bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	section := f.Section(".modinfo")
	if section == nil {
		return nil, errors.New("no .modinfo section")
	}
	info, err := section.Data()
	if err != nil {
		return nil, err
	}
	for pair := range bytes.SplitSeq(info, []byte{0}) {
		if value, ok := bytes.CutPrefix(pair, []byte("depends=")); ok && len(value) > 0 {
			return strings.Split(strings.ReplaceAll(string(value), "-", "_"), ","), nil
		}
	}
	return nil, nil
}
