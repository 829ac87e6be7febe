// Package guest builds the small Debian machine that tests, benchmarks and the demo protect: a disk that boots from its own
// boot sector, with a stock Debian kernel, busybox as userland, its root filesystem on that same disk, and one service that
// writes numbered, checksummed records (package record). Everything comes from Debian packages that are unpacked, not
// installed. It needs root (a loop mount to install the boot loader) and never starts a machine.
package guest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// Records is where the guest's record file lives.
const Records = "/data/records.log"

// MinDisk is the smallest disk a guest fits on, in bytes.
const MinDisk = 128 << 20

// Spec says what to build. The zero value is a 256 MiB disk with the record service and nothing else.
type Spec struct {
	// DiskBytes is the size of the disk; a multiple of 1 MiB. The image is sparse. Default 256 MiB.
	DiskBytes int64
	// Hostname of the machine. Default "lifeboat-guest".
	Hostname string
	// Files to put onto the root filesystem.
	Files []File
	// Services run beside the record service and are started again when they end. Their output goes to the second serial
	// port when the machine has one, else to /run/<name>.log, in memory: a service that freezes the filesystem must not
	// have its log on it.
	Services []Service
	// RecordEvery is the time between two records. Default 200 ms.
	RecordEvery time.Duration
	// KernelArgs are added to the kernel's command line.
	KernelArgs string
	// CacheDir keeps unpacked packages between builds. Default: "lifeboat/guest" in the user's cache directory.
	CacheDir string
}

// File is one file of the guest: a copy of Source, or Data when Source is empty.
type File struct {
	Path   string // absolute, in the guest
	Mode   os.FileMode
	Source string
	Data   []byte
}

// Service is a program that the guest's init keeps running. Names are unique and made of letters, digits and dashes.
type Service struct {
	Name    string
	Command []string // the program's absolute path first; no shell, no quoting: words must hold no white space
}

// needs lists the programs a build runs and the Debian packages that bring them.
var needs = map[string]string{
	"apt-get": "apt", "dpkg": "dpkg", "busybox": "busybox-static", "mkfs.ext4": "e2fsprogs", "extlinux": "extlinux",
	"losetup": "mount", "mount": "mount", "umount": "mount", "go": "golang-go",
}

// CheckTools tells which programs of a build are missing and what to install for them.
func CheckTools() error {
	var packages []string
	for program, pkg := range needs {
		if _, err := look(program); err != nil {
			packages = append(packages, pkg)
		}
	}
	if len(packages) > 0 {
		return fmt.Errorf("building a guest needs programs that are not here: apt-get install -y --no-install-recommends %s", strings.Join(packages, " "))
	}
	return nil
}

// look finds a program also where a plain user's PATH does not reach.
func look(program string) (string, error) {
	if path, err := exec.LookPath(program); err == nil {
		return path, nil
	}
	for _, dir := range []string{"/usr/local/go/bin", "/usr/sbin", "/sbin"} {
		if path, err := exec.LookPath(filepath.Join(dir, program)); err == nil {
			return path, nil
		}
	}
	return "", exec.ErrNotFound
}

// Build writes a disk image to path, replacing what is there. The first build downloads the kernel package (27 MB) and takes
// a few seconds; later ones take less than two. Safe for concurrent use, also by several processes. On an error nothing
// is left at path.
func Build(ctx context.Context, path string, spec Spec) (err error) {
	if err := CheckTools(); err != nil {
		return err
	}
	spec, err = spec.withDefaults()
	if err != nil {
		return err
	}
	work, err := os.MkdirTemp("", "lifeboat-guest-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(work)) }()

	kern, err := fetchKernel(ctx, spec.CacheDir)
	if err != nil {
		return fmt.Errorf("get the guest's kernel: %w", err)
	}
	root := filepath.Join(work, "root")
	if err := stageRoot(ctx, root, kern, spec); err != nil {
		return fmt.Errorf("stage the guest's root filesystem: %w", err)
	}
	image := path + ".building"
	defer func() { _ = os.Remove(image) }()
	if err := makeDisk(ctx, image, root, work, spec); err != nil {
		return fmt.Errorf("make the guest's disk: %w", err)
	}
	return os.Rename(image, path)
}

func (s Spec) withDefaults() (Spec, error) {
	if s.DiskBytes == 0 {
		s.DiskBytes = 256 << 20
	}
	if s.DiskBytes < MinDisk || s.DiskBytes%(1<<20) != 0 {
		return s, fmt.Errorf("guest disk of %d bytes: want a multiple of 1 MiB from %d", s.DiskBytes, int64(MinDisk))
	}
	if s.Hostname == "" {
		s.Hostname = "lifeboat-guest"
	}
	if s.RecordEvery == 0 {
		s.RecordEvery = 200 * time.Millisecond
	}
	if s.CacheDir == "" {
		dir, err := os.UserCacheDir()
		if err != nil {
			return s, err
		}
		s.CacheDir = filepath.Join(dir, "lifeboat", "guest")
	}
	for _, f := range s.Files {
		if !filepath.IsAbs(f.Path) {
			return s, fmt.Errorf("guest file %q: not an absolute path", f.Path)
		}
	}
	for _, svc := range s.Services {
		if svc.Name == "" || len(svc.Command) == 0 || strings.ContainsAny(svc.Name+strings.Join(svc.Command, ""), " \t\n") {
			return s, fmt.Errorf("guest service %q: name and command must be given and hold no white space", svc.Name)
		}
	}
	return s, os.MkdirAll(s.CacheDir, 0o755)
}

// run runs a program and returns what it printed; its output is part of the error when it fails.
func run(ctx context.Context, dir, program string, args ...string) (string, error) {
	path, err := look(program)
	if err != nil {
		return "", fmt.Errorf("%s: %w", program, err)
	}
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	cmd.WaitDelay = 5 * time.Second
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w: %s", program, strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return string(out), nil
}

func exitedWith(err error, code int) bool {
	exit, ok := errors.AsType[*exec.ExitError](err)
	return ok && exit.ExitCode() == code
}
