package bench

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Disk is a loop device of this machine, for an agent to protect while it is written to.
type Disk struct {
	Device string
	mount  string // empty without a filesystem
	size   int64
}

// NewDisk makes a disk in a directory, with ext4 on it when formatted. It needs root.
func NewDisk(ctx context.Context, dir, name string, size int64, formatted bool) (_ *Disk, err error) {
	image := filepath.Join(dir, name+".raw")
	f, err := os.Create(image)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(f.Truncate(size), f.Close()); err != nil {
		return nil, err
	}
	out, err := command(ctx, "losetup", "--find", "--show", image)
	if err != nil {
		return nil, err
	}
	d := &Disk{Device: out, size: size}
	if !formatted {
		return d, nil
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, d.Close())
		}
	}()
	if _, err := command(ctx, "mkfs.ext4", "-q", "-E", "lazy_itable_init=0,lazy_journal_init=0", d.Device); err != nil {
		return nil, err
	}
	mount := filepath.Join(dir, name)
	if err := os.MkdirAll(mount, 0o755); err != nil {
		return nil, err
	}
	if _, err := command(ctx, "mount", d.Device, mount); err != nil {
		return nil, err
	}
	d.mount = mount
	return d, nil
}

// Close gives the device back.
func (d *Disk) Close() error {
	if d.mount != "" {
		if err := syscall.Unmount(d.mount, 0); err != nil {
			return fmt.Errorf("unmount %s: %w", d.mount, err)
		}
	}
	_, err := command(context.Background(), "losetup", "-d", d.Device)
	return err
}

// Churn writes pieces of 64 KiB at random places of a file of half the disk, so many bytes a second, and a record synced to a log
// twenty times a second, until it is stopped.
func (d *Disk) Churn(bytesPerSecond int64, seed uint64) (stop func() error, err error) {
	const piece, tick = 64 << 10, 10 * time.Millisecond
	data, err := os.Create(filepath.Join(d.mount, "data"))
	if err != nil {
		return nil, err
	}
	log, err := os.Create(filepath.Join(d.mount, "log"))
	if err != nil {
		return nil, errors.Join(err, data.Close())
	}
	quit := make(chan struct{})
	var wg sync.WaitGroup
	var failed [2]error
	wg.Go(func() {
		rng := rand.NewChaCha8([32]byte{byte(seed), 1})
		b := make([]byte, piece)
		t := time.NewTicker(tick)
		defer t.Stop()
		start, written := time.Now(), int64(0)
		for failed[0] == nil {
			select {
			case <-quit:
				return
			case <-t.C:
			}
			for due := int64(time.Since(start).Seconds() * float64(bytesPerSecond)); written+piece <= due && failed[0] == nil; written += piece {
				_, _ = rng.Read(b)
				_, failed[0] = data.WriteAt(b, int64(rng.Uint64()%uint64(d.size/2/piece))*piece)
			}
		}
	})
	wg.Go(func() {
		t := time.NewTicker(50 * time.Millisecond)
		defer t.Stop()
		for n := 0; failed[1] == nil; n++ {
			select {
			case <-quit:
				return
			case <-t.C:
			}
			_, failed[1] = fmt.Fprintf(log, "record %d\n", n)
			failed[1] = errors.Join(failed[1], log.Sync())
		}
	})
	return func() error {
		close(quit)
		wg.Wait()
		return errors.Join(failed[0], failed[1], data.Close(), log.Close())
	}, nil
}

// Scatter writes n pieces of 64 KiB at random places past all caches.
func (d *Disk) Scatter(n int, seed uint64) (err error) {
	const piece = 64 << 10
	f, err := os.OpenFile(d.Device, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	rng := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), 2})
	b := make([]byte, piece)
	seen := map[int64]bool{}
	for len(seen) < n {
		at := int64(rng.Uint64() % uint64(d.size/piece))
		if seen[at] {
			continue
		}
		seen[at] = true
		_, _ = rng.Read(b)
		if _, err := f.WriteAt(b, at*piece); err != nil {
			return err
		}
	}
	return f.Sync()
}

// The ioctls of linux/fs.h.
const (
	fiFreeze = 0xC0045877
	fiThaw   = 0xC0045878
)

// ErrFrozen is that somebody else holds the filesystem frozen.
var ErrFrozen = errors.New("bench: the filesystem is frozen already")

// BareFreeze freezes the filesystem and thaws it at once, after it was synced as an agent does, and tells how long writers stood.
func (d *Disk) BareFreeze() (took time.Duration, err error) {
	f, err := os.Open(d.mount)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := unix.Syncfs(int(f.Fd())); err != nil {
		return 0, fmt.Errorf("sync %s: %w", d.mount, err)
	}
	start := time.Now()
	if _, _, e := syscall.Syscall(syscall.SYS_IOCTL, f.Fd(), fiFreeze, 0); e == syscall.EBUSY {
		return 0, ErrFrozen
	} else if e != 0 {
		return 0, fmt.Errorf("freeze %s: %w", d.mount, e)
	}
	if _, _, e := syscall.Syscall(syscall.SYS_IOCTL, f.Fd(), fiThaw, 0); e != 0 {
		return 0, fmt.Errorf("thaw %s: %w", d.mount, e)
	}
	return time.Since(start), nil
}

func command(ctx context.Context, name string, args ...string) (string, error) {
	out, err := exec.CommandContext(ctx, name, args...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out)), nil
}
