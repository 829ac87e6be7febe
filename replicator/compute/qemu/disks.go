package qemu

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/lifeboat-dr/lifeboat/replicator/block"
	"github.com/lifeboat-dr/lifeboat/replicator/compute"
	"github.com/lifeboat-dr/lifeboat/replicator/restore"
	"github.com/lifeboat-dr/lifeboat/replicator/restore/nbd"
	"github.com/lifeboat-dr/lifeboat/replicator/restore/process"
)

const (
	readerName   = "reader" // a qemu-storage-daemon that opens disks of a machine that is off
	readerSocket = "reader.sock"
	readerLog    = "reader.log"
)

func overlayFile(n int) string { return fmt.Sprintf("disk-%d.qcow2", n) }
func rawFile(n int) string     { return fmt.Sprintf("disk-%d.raw", n) }
func diskNode(n int) string    { return fmt.Sprintf("disk-%d", n) }
func baseNode(n int) string    { return fmt.Sprintf("base-%d", n) }

// makeDisks makes what is missing of the instance's disks. A file under its final name is complete.
func (d *Driver) makeDisks(ctx context.Context, i instance, r *record, spec compute.Spec) error {
	if !r.Copied {
		for n, disk := range r.Disks {
			if err := d.makeOverlay(ctx, i, n, disk); err != nil {
				return err
			}
		}
		return syncDir(i.dir)
	}
	if spec.Open == nil {
		return errors.New("copied disks need the recovery point opened")
	}
	disks, err := spec.Open(ctx)
	if err != nil {
		return fmt.Errorf("open recovery point: %w", err)
	}
	defer func() { _ = disks.Close() }()
	var before, total int64
	for _, disk := range r.Disks {
		total += disk.Size
	}
	for n, disk := range r.Disks {
		path := filepath.Join(i.dir, rawFile(n))
		if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
			src, err := disks.Disk(disk.ID)
			if err != nil {
				return fmt.Errorf("open disk %s: %w", disk.ID, err)
			}
			if src.Size() != disk.Size {
				return fmt.Errorf("disk %s: %w: %d bytes in the point, %d asked for", disk.ID, restore.ErrSize, src.Size(), disk.Size)
			}
			opt := restore.ImageOptions{}
			if spec.Progress != nil {
				opt.Progress = func(done, _ int64) { spec.Progress(before+done, total) }
			}
			if err := restore.WriteImage(ctx, src, path, opt); err != nil {
				return fmt.Errorf("copy disk %s: %w", disk.ID, err)
			}
		}
		before += disk.Size
	}
	return nil
}

func (d *Driver) makeOverlay(ctx context.Context, i instance, n int, disk compute.Disk) error {
	name := overlayFile(n)
	if _, err := os.Stat(filepath.Join(i.dir, name)); err == nil {
		return nil
	}
	backing, err := json.Marshal(map[string]any{"driver": "raw", "file": exportNode(disk.ID)})
	if err != nil {
		return fmt.Errorf("encode backing of disk %s: %w", disk.ID, err)
	}
	// A name of its own: a qemu-img whose starter was killed may still write to the one that it got.
	f, err := os.CreateTemp(i.dir, name+".*.tmp")
	if err != nil {
		return fmt.Errorf("make overlay of disk %s: %w", disk.ID, err)
	}
	defer func() { _ = f.Close() }() // synced below
	// -u: the backing is not opened, its size is known.
	if err := d.qemuImg(ctx, i.dir, "create", "-q", "-f", "qcow2", "-u", "-b", "json:"+string(backing), "-F", "raw", filepath.Base(f.Name()), fmt.Sprint(disk.Size)); err != nil {
		return fmt.Errorf("make overlay of disk %s: %w", disk.ID, err)
	}
	if err := f.Sync(); err != nil {
		return fmt.Errorf("make overlay of disk %s: %w", disk.ID, err)
	}
	return os.Rename(f.Name(), filepath.Join(i.dir, name))
}

func (d *Driver) qemuImg(ctx context.Context, dir string, args ...string) error {
	cmd := exec.CommandContext(ctx, d.cfg.QEMUImg, args...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("qemu-img %s: %w: %s", args[0], err, strings.TrimSpace(string(out)))
	}
	return nil
}

// exportNode is the block node of an export of the disk server, as seen from the instance's directory. Requests wait for a
// disk server that died until the next one is there.
func exportNode(disk string) map[string]any {
	return map[string]any{
		"driver": "nbd", "export": disk, "reconnect-delay": 3600, "open-timeout": 10,
		"server": map[string]any{"type": "unix", "path": restore.DiskSocket},
	}
}

// drives returns the instance's disks as QEMU is to open them. Until a disk is recorded as hydrated its overlay is opened with
// the backing, whatever the overlay says itself: a crash of the host may have kept the note and lost the data.
func (i instance) drives(r *record) ([]drive, error) {
	var out []drive
	for n, disk := range r.Disks {
		dr := drive{id: disk.ID, boot: disk.ID == r.Hardware.OSDisk || r.Hardware.OSDisk == "" && n == 0}
		switch {
		case r.Copied:
			dr.nodes = []map[string]any{imageNode(n, "raw", rawFile(n))}
		case r.Hydrated[n]:
			node := imageNode(n, "qcow2", overlayFile(n))
			node["backing"] = nil
			dr.nodes = []map[string]any{node}
		default:
			base := map[string]any{"driver": "raw", "node-name": baseNode(n), "read-only": true, "file": exportNode(disk.ID)}
			node := imageNode(n, "qcow2", overlayFile(n))
			node["backing"] = baseNode(n)
			dr.nodes = []map[string]any{base, node}
		}
		out = append(out, dr)
	}
	return out, nil
}

func imageNode(n int, format, path string) map[string]any {
	return map[string]any{
		"driver": format, "node-name": diskNode(n), "discard": "unmap", "detect-zeroes": "unmap",
		"file": map[string]any{"driver": "file", "filename": path, "discard": "unmap"},
	}
}

// OpenDisks implements compute.Driver.
func (d *Driver) OpenDisks(ctx context.Context, id string, server json.RawMessage) (_ restore.Disks, err error) {
	i, err := d.instance(id)
	if err != nil {
		return nil, err
	}
	l, err := d.lock(ctx, id)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			l.unlock()
			err = fmt.Errorf("open disks of instance %s: %w", id, err)
		}
	}()
	r, err := i.load()
	if err != nil {
		return nil, err
	}
	p, err := i.power(ctx)
	if err != nil {
		return nil, err
	}
	switch {
	case p == on:
		return nil, compute.ErrRunning
	case p == halted:
		if err := i.quit(ctx); err != nil {
			return nil, err
		}
		r.Stopped = true
		if err := i.save(r); err != nil {
			return nil, err
		}
	}
	if !r.Made {
		return nil, fmt.Errorf("%w: its disks were never made", compute.ErrNotRunning)
	}
	if !r.standsAlone() {
		if err := d.serveDisks(ctx, i, r, server); err != nil {
			return nil, err
		}
	}
	drives, err := i.drives(r)
	if err != nil {
		return nil, err
	}
	reader, err := d.openReader(ctx, i.machine, drives, false)
	if err != nil {
		return nil, err
	}
	return &instanceDisks{reader: reader, lock: l}, nil
}

// reader is a qemu-storage-daemon that exports the disks of a machine that is off, and the connections to it.
type reader struct {
	m       machine
	clients map[string]*nbd.Client
}

func (d *Driver) openReader(ctx context.Context, m machine, drives []drive, writable bool) (_ *reader, err error) {
	if err := d.endReaders(ctx, m); err != nil {
		return nil, err
	}
	args := []string{"--nbd-server", "addr.type=unix,addr.path=" + readerSocket}
	for _, dr := range drives {
		for k, node := range dr.nodes {
			if !writable && k == len(dr.nodes)-1 {
				node["read-only"] = true
			}
			j, err := json.Marshal(node)
			if err != nil {
				return nil, fmt.Errorf("encode block node: %w", err)
			}
			args = append(args, "--blockdev", string(j))
		}
		name := dr.nodes[len(dr.nodes)-1]["node-name"]
		j, err := json.Marshal(map[string]any{"type": "nbd", "id": "export-" + name.(string), "node-name": name, "name": dr.id, "writable": writable})
		if err != nil {
			return nil, fmt.Errorf("encode export: %w", err)
		}
		args = append(args, "--export", string(j))
	}
	_ = os.Remove(filepath.Join(m.dir, readerSocket))
	child, err := process.Start(process.Command{
		Name: readerName, Path: d.cfg.StorageDaemon, Args: args, Dir: m.dir, Log: readerLog,
		Env: []string{"PATH=" + os.Getenv("PATH"), "HOME=" + m.dir, "LC_ALL=C"},
	})
	if err != nil {
		return nil, err
	}
	rd := &reader{m: m, clients: map[string]*nbd.Client{}}
	defer func() {
		if err != nil {
			err = errors.Join(err, rd.Close())
		}
	}()
	for _, dr := range drives {
		for {
			c, err := dialExport(ctx, m.dir, readerSocket, dr.id)
			if err == nil {
				rd.clients[dr.id] = c
				break
			}
			select {
			case <-child.Done():
				return nil, fmt.Errorf("open disk images: %s", process.LogTail(filepath.Join(m.dir, readerLog), 2048))
			case <-ctx.Done():
				return nil, fmt.Errorf("open disk images: %w", context.Cause(ctx))
			case <-time.After(5 * time.Millisecond):
			}
		}
	}
	return rd, nil
}

func dialExport(ctx context.Context, dir, socket, export string) (*nbd.Client, error) {
	conn, err := restore.Dial(ctx, dir, socket)
	if err != nil {
		return nil, err
	}
	return nbd.NewClient(ctx, conn, export)
}

// Close ends the connections and the daemon, which flushes what was written.
func (r *reader) Close() error {
	for _, c := range r.clients {
		_ = c.Close()
	}
	ctx, cancel := context.WithTimeout(context.Background(), process.StopDeadline)
	defer cancel()
	p, err := process.Find(r.m.dir, readerName)
	if err != nil {
		return err
	}
	if err := p.Terminate(ctx, 10*time.Second); err != nil {
		return err
	}
	_ = os.Remove(filepath.Join(r.m.dir, readerSocket))
	_ = os.Remove(filepath.Join(r.m.dir, readerLog))
	return process.Forget(r.m.dir, readerName)
}

// instanceDisks are the disks of an instance that is off; the lock keeps it off.
type instanceDisks struct {
	*reader
	lock *fileLock
}

// Disk implements restore.Disks.
func (s *instanceDisks) Disk(id string) (restore.Source, error) {
	c, ok := s.clients[id]
	if !ok {
		return nil, fmt.Errorf("disk %s: %w", id, compute.ErrNotFound)
	}
	return exportSource{c}, nil
}

// Traffic implements restore.Disks.
func (s *instanceDisks) Traffic() (requests, bytes int64) {
	if st, err := restore.Status(context.Background(), s.m.dir); err == nil {
		return st.Requests, st.Bytes
	}
	return 0, 0
}

// Close implements restore.Disks.
func (s *instanceDisks) Close() error {
	defer s.lock.unlock()
	return s.reader.Close()
}

// exportSource reads a disk over NBD.
type exportSource struct{ c *nbd.Client }

func (s exportSource) Size() int64 { return s.c.Size() }
func (s exportSource) ReadAt(ctx context.Context, p []byte, off int64) error {
	return s.c.Read(ctx, p, off)
}
func (s exportSource) Next(ctx context.Context, off int64) (block.Extent, bool, error) {
	return s.c.Next(ctx, off)
}
