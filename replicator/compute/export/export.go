// Package export writes the disks of a recovery point as image files for other hypervisors and clouds. Raw and fixed VHD are
// written here; qcow2, VHDX and VMDK by qemu-img, which reads the disk over NBD.
//
// A file under its final name is complete and on stable storage; after an error there is none.
package export

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/lifeboat-dr/lifeboat/replicator/block"
	"github.com/lifeboat-dr/lifeboat/replicator/restore"
	"github.com/lifeboat-dr/lifeboat/replicator/restore/nbd"
	"github.com/lifeboat-dr/lifeboat/service/job"
)

// Options has a useful zero value.
type Options struct {
	QEMUImg  string                  // program; default qemu-img
	Progress func(done, total int64) // bytes of disk; calls do not overlap
}

// ErrFormat says that a format is not known.
var ErrFormat = errors.New("unknown image format")

// ErrTool says that a format needs qemu-img and it is not installed.
var ErrTool = errors.New("qemu-img is not installed; install the package qemu-utils")

// qemuOptions are the formats that qemu-img writes.
var qemuOptions = map[string][]string{
	job.FormatQCOW2: {"-O", "qcow2", "-o", "compat=1.1"},
	job.FormatVHDX:  {"-O", "vhdx", "-o", "subformat=dynamic"},
	job.FormatVMDK:  {"-O", "vmdk", "-o", "subformat=streamOptimized"}, // what OVF import takes
}

// Formats lists what can be written.
func Formats() []string {
	return []string{job.FormatRaw, job.FormatVHDFixed, job.FormatQCOW2, job.FormatVHDX, job.FormatVMDK}
}

// Disks writes every named disk of the point into dir, which is made when absent, and returns the files by disk id. Files of
// the same name are replaced. After an error no file of this call is left. Errors are those of Disk.
func Disks(ctx context.Context, disks restore.Disks, ids []string, format, dir string, opt Options) (files map[string]string, err error) {
	if !slices.Contains(Formats(), format) {
		return nil, fmt.Errorf("%w: %q", ErrFormat, format)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("make export directory: %w", err)
	}
	files = map[string]string{}
	defer func() {
		if err != nil {
			for _, f := range files {
				_ = os.Remove(f)
			}
			files = nil
		}
	}()
	sources, total := make([]restore.Source, len(ids)), int64(0)
	for i, id := range ids {
		if sources[i], err = disks.Disk(id); err != nil {
			return files, fmt.Errorf("export disk %s: %w", id, err)
		}
		total += sources[i].Size()
	}
	var before int64
	for i, id := range ids {
		path := filepath.Join(dir, fileName(id)+"."+format)
		for _, taken := range files {
			if taken == path {
				return files, fmt.Errorf("export disk %s: another disk has the file name %s", id, path)
			}
		}
		one := opt
		if opt.Progress != nil {
			one.Progress = func(done, _ int64) { opt.Progress(before+done, total) }
		}
		if err := Disk(ctx, sources[i], format, path, one); err != nil {
			return files, fmt.Errorf("export disk %s: %w", id, err)
		}
		files[id] = path
		before += sources[i].Size()
	}
	return files, nil
}

// fileName makes a file name of a disk id.
func fileName(id string) string {
	name := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_' {
			return r
		}
		return '_'
	}, id)
	if len(name) > 100 {
		name = name[:100]
	}
	return name
}

// Disk writes one disk as an image file.
//
// Errors: ErrFormat, ErrTool; restore.ErrFull; a *restore.ReadError that names the extent that could not be read.
func Disk(ctx context.Context, src restore.Source, format, path string, opt Options) error {
	switch format {
	case job.FormatRaw:
		return restore.WriteImage(ctx, src, path, restore.ImageOptions{Progress: opt.Progress})
	case job.FormatVHDFixed:
		return writeFile(path, func(part string) error { return writeVHD(ctx, src, part, opt) })
	}
	args, ok := qemuOptions[format]
	if !ok {
		return fmt.Errorf("%w: %q", ErrFormat, format)
	}
	return writeFile(path, func(part string) error { return convert(ctx, src, args, part, opt) })
}

// writeFile has write make a file beside path, and names it path once it is on stable storage. After an error it is gone.
func writeFile(path string, write func(part string) error) (err error) {
	part := path + ".part"
	_ = os.Remove(part) // of a killed export
	defer func() {
		if err != nil {
			_ = os.Remove(part)
			err = fmt.Errorf("write %s: %w", path, err)
		}
	}()
	if err := write(part); err != nil {
		// What wrote the file may only have said that it failed. A full filesystem stays full until the file is removed.
		var st unix.Statfs_t
		if !errors.Is(err, restore.ErrFull) && unix.Statfs(filepath.Dir(path), &st) == nil && int64(st.Bavail)*st.Bsize < 256<<10 {
			return fmt.Errorf("%w: %w", restore.ErrFull, err)
		}
		return err
	}
	f, err := os.Open(part)
	if err != nil {
		return err
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(part, path); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// convert has qemu-img read the disk over NBD and write it in its format.
func convert(ctx context.Context, src restore.Source, format []string, part string, opt Options) (err error) {
	program := opt.QEMUImg
	if program == "" {
		program = "qemu-img"
	}
	if program, err = exec.LookPath(program); err != nil {
		return fmt.Errorf("%w: %w", ErrTool, err)
	}
	dir, err := os.MkdirTemp("", "lifeboat-export-") // short: a socket's address holds 107 bytes
	if err != nil {
		return fmt.Errorf("make socket directory: %w", err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	socket := filepath.Join(dir, "disk.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		return fmt.Errorf("serve disk: %w", err)
	}
	var failed readFailure
	ctx, cancel := context.WithCancel(ctx)
	served := make(chan error, 1)
	server := nbd.NewServer(map[string]nbd.Source{"disk": src}, nbd.Options{OnError: failed.note})
	go func() { served <- server.Serve(ctx, l) }()
	defer func() {
		cancel()
		err = errors.Join(err, <-served)
	}()

	args := append([]string{"convert", "-p", "-f", "raw"}, format...)
	cmd := exec.CommandContext(ctx, program, append(args, "nbd+unix:///disk?socket="+socket, part)...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	cmd.Stdout = &percent{total: src.Size(), report: opt.Progress}
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return errors.Join(failed.get(), fmt.Errorf("qemu-img: %w: %s", err, strings.TrimSpace(stderr.String())))
	}
	// It may have gone on after a read error; then the image is not the disk.
	return failed.get()
}

// readFailure keeps the first read that failed.
type readFailure struct {
	mu  sync.Mutex // guards err
	err error
}

func (f *readFailure) note(_ string, e block.Extent, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err == nil {
		f.err = &restore.ReadError{Extent: e, Err: err}
	}
}

func (f *readFailure) get() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.err
}

// percent reads the progress that qemu-img prints: "    (12.34/100%)\r".
type percent struct {
	total  int64
	report func(done, total int64)
	line   []byte
	last   int64
}

func (p *percent) Write(b []byte) (int, error) {
	if p.report == nil {
		return len(b), nil
	}
	for _, c := range b {
		if c != '\r' && c != '\n' {
			if len(p.line) < 64 {
				p.line = append(p.line, c)
			}
			continue
		}
		text, _, ok := strings.Cut(strings.TrimLeft(string(p.line), " ("), "/100%")
		p.line = p.line[:0]
		if v, err := strconv.ParseFloat(text, 64); ok && err == nil && v >= 0 && v <= 100 {
			if done := int64(v / 100 * float64(p.total)); done > p.last {
				p.last = done
				p.report(done, p.total)
			}
		}
	}
	return len(b), nil
}
