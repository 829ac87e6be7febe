// Package volume makes a disk image with an ext4 filesystem that is written to at random, for tests that compare recovery
// points with the truth: its pre and post scripts, run by an agent around the instant of a capture, freeze the filesystem and
// copy the image, so that for every point there is a snapshot of the very same instant. It needs root.
package volume

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/lifeboat-dr/lifeboat/sdk/scenario/record"
)

// RecordsFile is the record file's path in the filesystem; it is where a guest (package guest) that boots from the image looks.
const RecordsFile = "/data/records.log"

// Volume is a mounted image under random writes. Make it with New, end it with Close.
type Volume struct {
	Image string // path of the raw image
	Pre   string // path of the script to run before the instant of a capture
	Post  string // and after it

	dir    string
	mount  string
	rng    *rand.Rand
	cancel context.CancelFunc
	done   chan struct{}
	err    error // of the writer; read after done

	// Operations counts what the writer did, by any goroutine's leave.
	Operations atomic.Int64
	written    atomic.Int64
}

// New makes an image of size bytes in dir and mounts it. The writes depend on seed alone, their interleaving with captures does
// not.
func New(ctx context.Context, dir string, size int64, seed uint64) (*Volume, error) {
	image := filepath.Join(dir, "disk.raw")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	f, err := os.Create(image)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(f.Truncate(size), f.Close()); err != nil {
		return nil, err
	}
	if err := run(ctx, "mkfs.ext4", "-q", "-F", "-b", "4096", "-E", "lazy_itable_init=0,lazy_journal_init=0", image); err != nil {
		return nil, err
	}
	return Open(ctx, dir, seed)
}

// Open is New for an image that is there already, as disk.raw in dir: that of a guest, for one, whose machine is off.
func Open(ctx context.Context, dir string, seed uint64) (*Volume, error) {
	v := &Volume{dir: dir, Image: filepath.Join(dir, "disk.raw"), Pre: filepath.Join(dir, "pre.sh"), Post: filepath.Join(dir, "post.sh"),
		mount: filepath.Join(dir, "mnt"), rng: rand.New(rand.NewPCG(seed, 1))}
	for _, d := range []string{v.mount, v.snapshots()} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return nil, err
		}
	}
	// The name of a snapshot is the instant before the copy began; the post script adds the instant after the agent was done.
	// The pre script outlives an agent that is killed meanwhile: its copy counts only while the window it opened is open.
	pre := fmt.Sprintf(`#!/bin/sh
set -e
cd %[2]s
fsfreeze -f %[1]s
n=$(date +%%s%%N)
echo $n > frozen
cp --sparse=always %[3]s $n.copying
[ "$(cat frozen)" = $n ]
mv $n.copying $n.raw
`, v.mount, v.snapshots(), v.Image)
	post := fmt.Sprintf(`#!/bin/sh
cd %[2]s
n=$(cat frozen)
rm -f frozen
[ -e $n.raw ] && date +%%s%%N > $n.tmp && mv $n.tmp $n.until
fsfreeze -u %[1]s
`, v.mount, v.snapshots())
	for path, script := range map[string]string{v.Pre: pre, v.Post: post} {
		if err := os.WriteFile(path, []byte(script), 0o755); err != nil {
			return nil, err
		}
	}
	if err := run(ctx, "mount", "-o", "loop,noatime", v.Image, v.mount); err != nil {
		return nil, err
	}
	return v, os.MkdirAll(filepath.Join(v.mount, "data"), 0o755)
}

func (v *Volume) snapshots() string { return filepath.Join(v.dir, "snapshots") }

// FrozenMark is a file that exists while a capture's window is open.
func (v *Volume) FrozenMark() string { return filepath.Join(v.snapshots(), "frozen") }

func run(ctx context.Context, program string, args ...string) error {
	for _, dir := range []string{"", "/usr/sbin", "/sbin"} {
		if path, err := exec.LookPath(filepath.Join(dir, program)); err == nil {
			out, err := exec.CommandContext(ctx, path, args...).CombinedOutput()
			if err != nil {
				return fmt.Errorf("%s %s: %w: %s", program, strings.Join(args, " "), err, out)
			}
			return nil
		}
	}
	return fmt.Errorf("%s is not installed", program)
}

// Write starts to write at random, about rate bytes a second, until Stop.
func (v *Volume) Write(rate int64) {
	ctx, cancel := context.WithCancel(context.Background())
	v.cancel, v.done = cancel, make(chan struct{})
	go func() {
		defer close(v.done)
		v.err = v.write(ctx, rate)
	}()
}

// Stop ends the writer and returns its error.
func (v *Volume) Stop() error {
	if v.cancel == nil {
		return nil
	}
	v.cancel()
	<-v.done
	v.cancel = nil
	return v.err
}

// Close stops the writer and unmounts. A filesystem that somebody left frozen is thawed first: the writer could not end.
func (v *Volume) Close() error {
	ctx := context.Background()
	_ = run(ctx, "fsfreeze", "-u", v.mount) // fails when it is not frozen, as it should be
	return errors.Join(v.Stop(), run(ctx, "umount", v.mount))
}

// Fill adds a file of random bytes.
func (v *Volume) Fill(n int64) (err error) {
	f, err := os.Create(filepath.Join(v.mount, "data", "ballast"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	for off := int64(0); off < n; off += 1 << 20 {
		p := make([]byte, 1<<20)
		v.random(p)
		if _, err := f.Write(p); err != nil {
			return err
		}
	}
	return f.Sync()
}

func (v *Volume) random(p []byte) {
	for i := 0; i+8 <= len(p); i += 8 {
		binary.LittleEndian.PutUint64(p[i:], v.rng.Uint64())
	}
}

// write does random operations on a few files: whole rewrites, scattered overwrites, appends, truncations, renames and
// removals, with a record between them.
func (v *Volume) write(ctx context.Context, rate int64) error {
	records, err := os.OpenFile(v.mount+RecordsFile, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	defer func() { _ = records.Close() }()
	// A machine that was away may have added some of its own.
	content, err := os.Open(records.Name())
	if err != nil {
		return err
	}
	found, err := record.Verify(content)
	if err := errors.Join(err, content.Close()); err != nil {
		return err
	}
	last := found.Last
	began := time.Now()
	for ctx.Err() == nil {
		if err := v.operate(); err != nil {
			return fmt.Errorf("random write: %w", err)
		}
		last = record.Next(last, time.Now(), "volume")
		if _, err := records.WriteString(last.Line()); err != nil {
			return err
		}
		if err := records.Sync(); err != nil {
			return err
		}
		v.Operations.Add(1)
		ahead := time.Duration(v.written.Load()*int64(time.Second)/rate) - time.Since(began)
		if ahead > 0 {
			select {
			case <-ctx.Done():
			case <-time.After(ahead):
			}
		}
	}
	return nil
}

func (v *Volume) file() string {
	return filepath.Join(v.mount, "data", fmt.Sprintf("file%02d", v.rng.IntN(24)))
}

func (v *Volume) operate() (err error) {
	name := v.file()
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	switch k := v.rng.IntN(10); {
	case k < 5: // scattered overwrites
		for range 1 + v.rng.IntN(8) {
			if err := v.put(f, v.rng.Int64N(st.Size()+1), 512*(1+v.rng.IntN(32))); err != nil {
				return err
			}
		}
	case k < 7: // append
		return v.put(f, st.Size(), v.rng.IntN(256<<10))
	case k < 8: // rewrite
		if err := f.Truncate(0); err != nil {
			return err
		}
		return v.put(f, 0, v.rng.IntN(512<<10))
	case k < 9:
		return os.Rename(name, v.file())
	default:
		return os.Remove(name)
	}
	if st.Size() > 2<<20 {
		return f.Truncate(v.rng.Int64N(1 << 20))
	}
	return nil
}

// put writes n bytes: random ones, zeros, or text, so that all kinds of data are there.
func (v *Volume) put(f *os.File, off int64, n int) error {
	p := make([]byte, n)
	switch v.rng.IntN(4) {
	case 0:
	case 1:
		copy(p, strings.Repeat("all work and no play ", n/21+1))
	default:
		v.random(p)
	}
	_, err := f.WriteAt(p, off)
	v.written.Add(int64(n))
	return err
}

// Snapshot is a copy of the image at the instant of a capture.
type Snapshot struct {
	Path        string
	From, Until time.Time // the instant of the capture lies between them
}

// Snapshots returns the snapshots whose capture's window is closed.
func (v *Volume) Snapshots() ([]Snapshot, error) {
	paths, err := filepath.Glob(filepath.Join(v.snapshots(), "*.raw"))
	if err != nil {
		return nil, err
	}
	var list []Snapshot
	for _, p := range paths {
		s := Snapshot{Path: p}
		from, err := strconv.ParseInt(strings.TrimSuffix(filepath.Base(p), ".raw"), 10, 64)
		if err != nil {
			return nil, err
		}
		b, err := os.ReadFile(strings.TrimSuffix(p, ".raw") + ".until")
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		until, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
		if err != nil {
			return nil, err
		}
		s.From, s.Until = time.Unix(0, from), time.Unix(0, until)
		list = append(list, s)
	}
	return list, nil
}

// Forget removes the snapshots whose window closed before t.
func (v *Volume) Forget(t time.Time) error {
	list, err := v.Snapshots()
	for _, s := range list {
		if s.Until.Before(t) {
			err = errors.Join(err, os.Remove(s.Path), os.Remove(strings.TrimSuffix(s.Path, ".raw")+".until"))
		}
	}
	return err
}

// At returns the snapshot whose window holds t; ok is false when there is none.
func At(snapshots []Snapshot, t time.Time) (Snapshot, bool) {
	for _, s := range snapshots {
		if !t.Before(s.From.Add(-time.Millisecond)) && !t.After(s.Until.Add(time.Millisecond)) {
			return s, true
		}
	}
	return Snapshot{}, false
}
