package soak_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lifeboat-dr/lifeboat/agent/track/tracktest/loopdisk"
)

// place is where a load writes: a disk as it is, or a filesystem on it.
type place struct {
	t     *testing.T
	d     *loopdisk.Disk
	mount string // empty: none

	trimming sync.Mutex // btrfs discards even while it is frozen
}

func run(name string, args ...string) error {
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s %v: %w: %s", name, args, err, bytes.TrimSpace(out))
	}
	return nil
}

// format makes a filesystem on the disk or its partition and mounts it.
func (p *place) format(fs string, partition bool) {
	p.t.Helper()
	device := p.d.Path
	if partition {
		device = p.d.Partition(p.t, 1, 1<<20, p.d.Size()-2<<20)
	}
	mkfs := map[string][]string{
		"ext4":  {"mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0", device},
		"xfs":   {"mkfs.xfs", "-q", "-f", device},
		"btrfs": {"mkfs.btrfs", "-q", "-f", device},
	}[fs]
	if err := run(mkfs[0], mkfs[1:]...); err != nil {
		p.t.Fatal(err)
	}
	var err error
	if p.mount, err = os.MkdirTemp("", "lifeboat-soak"); err != nil { // not TempDir: fio ends a name at the test's number
		p.t.Fatal(err)
	}
	options := ""
	if fs == "btrfs" {
		options = "nodiscard" // it would discard at its leisure, even while it is frozen
	}
	if err := unix.Mount(device, p.mount, fs, 0, options); err != nil {
		p.t.Fatalf("mount %s: %v", fs, err)
	}
	p.t.Cleanup(func() {
		for range 100 { // a load that was stopped may take a moment to let go
			if err := unix.Unmount(p.mount, 0); err == nil {
				if err := os.Remove(p.mount); err != nil {
					p.t.Error(err)
				}
				return
			}
			time.Sleep(50 * time.Millisecond)
		}
		p.t.Errorf("%s stays mounted", p.mount)
	})
}

// fill makes the files that the loads write to.
func (p *place) fill(rng *rand.Rand) {
	p.t.Helper()
	for i := range files {
		b := make([]byte, fileSize)
		for at := 0; at < len(b); at += 8 {
			binary.LittleEndian.PutUint64(b[at:], rng.Uint64())
		}
		if err := os.WriteFile(p.file(i), b, 0o600); err != nil {
			p.t.Fatal(err)
		}
	}
	unix.Sync()
}

func (p *place) file(i int) string { return filepath.Join(p.mount, fmt.Sprintf("data%d", i)) }

const (
	files    = 3
	fileSize = 32 << 20
)

const fiFreeze, fiThaw = 0xC0045877, 0xC0045878

// freeze stops writes to the filesystem until the returned function is called. A disk as it is stands still by itself.
func (p *place) freeze() (thaw func()) {
	p.t.Helper()
	if p.mount == "" {
		return func() {}
	}
	p.trimming.Lock()
	f, err := os.Open(p.mount)
	if err != nil {
		p.t.Fatal(err)
	}
	if err := unix.IoctlSetInt(int(f.Fd()), fiFreeze, 0); err != nil {
		p.t.Fatalf("freeze: %v", err)
	}
	thawed := false
	thaw = func() {
		if thawed {
			return
		}
		thawed = true
		p.trimming.Unlock()
		if err := unix.IoctlSetInt(int(f.Fd()), fiThaw, 0); err != nil {
			p.t.Errorf("thaw: %v", err)
		}
		_ = f.Close()
	}
	p.t.Cleanup(thaw) // before the filesystem is unmounted
	return thaw
}

// load writes for about so long, and returns.
func (p *place) load(rng *rand.Rand, long time.Duration) error {
	if p.mount == "" {
		return p.raw(rng, long)
	}
	err := p.files(rng, long)
	if full(err) { // btrfs needs room for what it overwrites
		for i := range files {
			if err := os.Remove(p.file(i)); err != nil && !errors.Is(err, os.ErrNotExist) {
				return err
			}
		}
		return nil
	}
	return err
}

// full tells whether a filesystem has no room, by this process or by fio.
func full(err error) bool {
	return err != nil && (errors.Is(err, unix.ENOSPC) || strings.Contains(err.Error(), "No space left on device"))
}

func fio(rng *rand.Rand, long time.Duration, args ...string) error {
	sizes := [...]string{"4k/100", "4k/100", "4k/90:512/10", "512/20:4k/40:60k/20:512k/10:1m/10"}
	depth := 1 << rng.IntN(7)
	return run("fio", append([]string{"--name=soak", "--rw=randwrite", "--ioengine=libaio", fmt.Sprintf("--iodepth=%d", depth), "--refill_buffers",
		"--bssplit=" + sizes[rng.IntN(len(sizes))], fmt.Sprintf("--randseed=%d", rng.Uint32()), "--norandommap", "--allow_file_create=1",
		"--time_based", fmt.Sprintf("--runtime=%dms", long.Milliseconds())}, args...)...)
}

// burst writes blocks at random from this process, which begins at once where fio takes its time.
func burst(rng *rand.Rand, path string, size int64) error {
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_DIRECT, 0)
	if err != nil {
		return err
	}
	errs := make([]error, 8)
	var writers sync.WaitGroup
	for i := range errs {
		rng := rand.New(rand.NewPCG(rng.Uint64(), 0))
		writers.Go(func() {
			p := loopdisk.Buffer(4096)
			for range 500 {
				for at := 0; at < len(p); at += 512 {
					binary.LittleEndian.PutUint64(p[at:], rng.Uint64())
				}
				if _, err := f.WriteAt(p, rng.Int64N(size/4096)*4096); err != nil {
					errs[i] = err
					return
				}
			}
		})
	}
	writers.Wait()
	return errors.Join(append(errs, f.Close())...)
}

// raw writes to the disk, gives some of it back, writes zeros.
func (p *place) raw(rng *rand.Rand, long time.Duration) error {
	for range rng.IntN(6) {
		n := 512 << rng.IntN(14)
		off := rng.Int64N((p.d.Size()-int64(n))/512) * 512
		call := p.d.Discard
		if rng.IntN(2) == 0 {
			call = p.d.WriteZeroes
		}
		if err := call(off, int64(n)); err != nil {
			return err
		}
	}
	if err := burst(rng, p.d.Path, p.d.Size()); err != nil {
		return err
	}
	return fio(rng, long, "--filename="+p.d.Path, "--direct=1", fmt.Sprintf("--size=%d", p.d.Size()>>20<<20))
}

// files writes files with and without the cache, and does what people do with files.
func (p *place) files(rng *rand.Rand, long time.Duration) error {
	name := p.file(rng.IntN(files))
	switch rng.IntN(10) {
	case 0:
		p.trimming.Lock()
		err := run("fstrim", p.mount)
		p.trimming.Unlock()
		if err != nil {
			return err
		}
	case 1:
		if err := os.RemoveAll(name); err != nil {
			return err
		}
	case 2: // punch a hole, truncate
		f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			return err
		}
		_ = unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, rng.Int64N(8<<20), 1+rng.Int64N(4<<20))
		if err := f.Truncate(rng.Int64N(16 << 20)); err != nil {
			return err
		}
		if err := f.Close(); err != nil {
			return err
		}
	case 3: // many small files
		dir := filepath.Join(p.mount, "small")
		if err := os.RemoveAll(dir); err != nil {
			return err
		}
		if err := os.Mkdir(dir, 0o700); err != nil {
			return err
		}
		for i := range 200 {
			if err := os.WriteFile(filepath.Join(dir, fmt.Sprint(i)), bytes.Repeat([]byte{byte(rng.Uint32())}, rng.IntN(20000)), 0o600); err != nil {
				return err
			}
		}
	}
	if busy := p.file(rng.IntN(files)); busy != name {
		if err := burst(rng, busy, fileSize); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	args := []string{"--filename=" + name, fmt.Sprintf("--size=%d", fileSize)}
	if rng.IntN(3) == 0 {
		args = append(args, "--direct=0", "--fsync=64", "--ioengine=psync")
	} else {
		args = append(args, "--direct=1", "--bssplit=4k/100")
	}
	return fio(rng, long, args...)
}
