package qemu

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/lifeboat-dr/lifeboat/agent/track"
	"github.com/lifeboat-dr/lifeboat/agent/track/tracktest"
	"github.com/lifeboat-dr/lifeboat/replicator/block"
)

const (
	testUUID  = "9b1f1f5e-6c5c-4a51-9d6e-3d0c9d0e7a11"
	testOwner = "0a1b2c3d"
	testLimit = 2 * time.Minute
)

// host is a QEMU with a machine that never runs: its disks are written to through its devices, by a second monitor.
type host struct {
	dir   string
	paths []string
	cmd   *exec.Cmd
	uid   uint32     // that QEMU runs as; 0 is ours
	mu    sync.Mutex // guards io
	io    *Monitor
	disks []tracktest.Disk
}

func newHost(t *testing.T) *host { return newHostAs(t, 0) }

func newHostAs(t *testing.T, uid uint32) *host {
	t.Helper()
	h := &host{dir: t.TempDir(), uid: uid}
	for i, size := range []int64{6 << 20, 3<<20 + 512} {
		path := filepath.Join(h.dir, fmt.Sprintf("disk-%d.raw", i))
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(path, size); err != nil {
			t.Fatal(err)
		}
		h.paths = append(h.paths, path)
		h.disks = append(h.disks, &disk{h: h, path: path, dev: fmt.Sprintf("/machine/peripheral/drive-%d/virtio-backend", i), size: size})
	}
	if uid != 0 {
		for _, path := range append([]string{h.dir}, h.paths...) {
			if err := os.Chown(path, int(uid), int(uid)); err != nil {
				t.Fatal(err)
			}
		}
		for dir := filepath.Dir(h.dir); dir != os.TempDir(); dir = filepath.Dir(dir) {
			if err := os.Chmod(dir, 0o711); err != nil {
				t.Fatal(err)
			}
		}
	}
	t.Cleanup(h.end)
	h.start(t)
	return h
}

func (h *host) start(t *testing.T) {
	t.Helper()
	args := []string{"-nodefaults", "-machine", "q35,accel=tcg", "-m", "64", "-display", "none", "-S", "-no-shutdown", "-uuid", testUUID, "-name", "guest=web1"}
	for _, name := range []string{"qmp", "io"} {
		_ = os.Remove(filepath.Join(h.dir, name))
		args = append(args, "-chardev", "socket,id="+name+",path="+name+",server=on,wait=off", "-mon", "chardev="+name+",mode=control")
	}
	for i, path := range h.paths {
		node, _ := json.Marshal(map[string]any{"driver": "raw", "node-name": fmt.Sprintf("disk-%d", i), "discard": "unmap", "file": map[string]any{"driver": "file", "filename": path, "discard": "unmap"}})
		device, _ := json.Marshal(map[string]any{"driver": "virtio-blk-pci", "id": fmt.Sprintf("drive-%d", i), "drive": fmt.Sprintf("disk-%d", i), "serial": fmt.Sprintf("SER%d", i)})
		args = append(args, "-blockdev", string(node), "-device", string(device))
	}
	h.cmd = exec.Command("qemu-system-x86_64", args...)
	if h.uid != 0 {
		h.cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: h.uid, Gid: h.uid}}
	}
	h.cmd.Dir, h.cmd.Stderr = h.dir, os.Stderr
	if err := h.cmd.Start(); err != nil {
		t.Fatalf("%v; install the package qemu-system-x86", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), testLimit)
	defer cancel()
	for {
		var err error
		if h.io, err = Dial(ctx, filepath.Join(h.dir, "io")); err == nil {
			return
		}
		if ctx.Err() != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Millisecond)
	}
}

func (h *host) end() {
	if h.io != nil {
		_ = h.io.Close()
	}
	_ = h.cmd.Process.Kill()
	_ = h.cmd.Wait()
}

func (h *host) config() Config {
	return Config{Socket: filepath.Join(h.dir, "qmp"), UUID: testUUID, Owner: testOwner, Dir: filepath.Join(h.dir, "scratch"), Reserve: 1 << 20}
}

func (h *host) Open(t *testing.T) track.Machine {
	t.Helper()
	m, err := Open(t.Context(), h.config())
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func (h *host) Disks() []tracktest.Disk { return h.disks }

func (h *host) Kill(_ *testing.T, m track.Machine) {
	s := m.(*Machine).snap
	if s == nil {
		return
	}
	s.stop()
	<-s.done
	for _, v := range s.views {
		for range readers {
			if c := <-v.pool; c != nil {
				_ = c.conn.Close()
			}
		}
	}
	_ = s.mon.Close()
	m.(*Machine).snap = nil
}

func (h *host) Reset(t *testing.T) { h.do(t, "system_reset", nil) }

func (h *host) Restart(t *testing.T) {
	h.end()
	h.start(t)
}

func (h *host) do(t *testing.T, command string, arguments any) {
	t.Helper()
	if err := h.io.Do(t.Context(), command, arguments, nil); err != nil {
		t.Fatal(err)
	}
}

// disk writes as the guest does: through the device.
type disk struct {
	h    *host
	path string
	dev  string
	size int64
}

func (d *disk) Size() int64 { return d.size }

func (d *disk) ReadAt(p []byte, off int64) (int, error) {
	f, err := os.Open(d.path)
	if err != nil {
		return 0, err
	}
	defer func() { _ = f.Close() }()
	return f.ReadAt(p, off)
}

func (d *disk) WriteAt(p []byte, off int64) (int, error) {
	d.h.mu.Lock()
	defer d.h.mu.Unlock()
	if bytes.Equal(p, make([]byte, len(p))) && off%block.Size == 0 && len(p)%block.Size == 0 {
		return len(p), d.h.run(d.dev, fmt.Sprintf("write -z -u %d %d", off, len(p)))
	}
	pattern := filepath.Join(d.h.dir, "pattern")
	if err := os.WriteFile(pattern, p, 0o600); err != nil {
		return 0, err
	}
	return len(p), d.h.run(d.dev, fmt.Sprintf("write -s %s %d %d", pattern, off, len(p)))
}

func (h *host) run(dev, command string) error {
	var out string
	err := h.io.Do(context.Background(), "human-monitor-command", map[string]string{"command-line": "qemu-io -d " + dev + " \"" + command + "\""}, &out)
	if err == nil && out != "" {
		err = errors.New(out)
	}
	return err
}

func TestMachine(t *testing.T) {
	t.Parallel()
	tracktest.RunMachine(t, func(t *testing.T) tracktest.Host { return newHost(t) })
}

func TestDescribe(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	mon, err := Dial(t.Context(), filepath.Join(h.dir, "qmp"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = mon.Close() }()
	in, err := Describe(t.Context(), mon)
	if err != nil {
		t.Fatal(err)
	}
	if in.Name != "web1" || in.UUID != testUUID || in.CPUs != 1 || in.MemoryBytes != 64<<20 || in.UEFI || in.On() || len(in.Disks) != 2 {
		t.Errorf("got %+v", in)
	}
	for i, d := range in.Disks {
		if d.ID != fmt.Sprintf("SER%d", i) || d.Size != h.disks[i].Size() || d.Node != fmt.Sprintf("disk-%d", i) {
			t.Errorf("got disk %+v", d)
		}
	}
}

// TestNothingIsLeft looks at what is in QEMU after a life.
func TestNothingIsLeft(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	m := h.Open(t).(*Machine)
	for range 2 * maxSealed { // none is released
		s, err := m.Snapshot(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	nodes, err := blockNodes(t.Context(), h.io)
	if err != nil {
		t.Fatal(err)
	}
	for name, bitmaps := range nodes {
		if strings.HasPrefix(name, prefix) || len(bitmaps) > maxSealed+1 {
			t.Errorf("block node %s with bitmaps %+v is left", name, bitmaps)
		}
	}
	if err := m.Discard(t.Context()); err != nil {
		t.Fatal(err)
	}
	nodes, err = blockNodes(t.Context(), h.io)
	for name, bitmaps := range nodes {
		if len(bitmaps) > 0 {
			t.Errorf("block node %s has bitmaps %+v", name, bitmaps)
		}
	}
	var exports, jobs []any
	err = errors.Join(err, h.io.Do(t.Context(), "query-block-exports", nil, &exports), h.io.Do(t.Context(), "query-jobs", nil, &jobs))
	if left, gerr := filepath.Glob(filepath.Join(h.dir, "scratch", "*.qcow2")); err != nil || gerr != nil || len(exports)+len(jobs)+len(left) > 0 {
		t.Errorf("left: %v %v %v (%v)", exports, jobs, left, err)
	}
	h.do(t, "nbd-server-start", map[string]any{"addr": map[string]any{"type": "unix", "data": map[string]string{"path": "mine"}}}) // free for others
}

func TestSomebodyElsesServerIsLeftAlone(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.do(t, "nbd-server-start", map[string]any{"addr": map[string]any{"type": "unix", "data": map[string]string{"path": "mine"}}})
	m := h.Open(t)
	if s, err := m.Snapshot(t.Context()); err == nil {
		t.Error("a view was opened through it")
		_ = s.Close()
	}
	c, err := dialUnix(t.Context(), filepath.Join(h.dir, "mine"))
	if err != nil {
		t.Fatal(err)
	}
	_ = c.Close()
	h.do(t, "nbd-server-stop", nil)
	s, err := m.Snapshot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestViewThatLostItsJob is of somebody who ends the job under a view: the guest's writes are not kept any more.
func TestViewThatLostItsJob(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	m := h.Open(t).(*Machine)
	s, err := m.Snapshot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := m.cancelJobs(t.Context(), m.snap.mon); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); !errors.Is(err, track.ErrBroken) {
		t.Errorf("got %v, want ErrBroken", err)
	}
	if s, err = m.Snapshot(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// TestFullScratch is of a host whose disk fills up: the view goes, the guest does not notice.
func TestFullScratch(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	cfg := h.config()
	m, err := Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	s, err := m.Snapshot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	v := s.View(0)
	m.snap.stop() // and watch again, with a reserve that cannot be had
	<-m.snap.done
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	m.snap.done, m.snap.stop = make(chan struct{}), cancel
	m.cfg.Reserve = 1 << 60
	go m.snap.watch(ctx)
	<-m.snap.done
	if _, err := h.disks[0].WriteAt(bytes.Repeat([]byte{1}, 1<<20), 0); err != nil {
		t.Errorf("the guest's write failed: %v", err)
	}
	var space *SpaceError
	if _, err := v.ReadAt(v.Buffer(block.Size), 0); !errors.Is(err, track.ErrBroken) || !errors.As(err, &space) {
		t.Errorf("got %v, want ErrBroken for want of space", err)
	}
	if err := s.Close(); !errors.Is(err, track.ErrBroken) {
		t.Errorf("got %v, want ErrBroken", err)
	}
	if _, err := m.Snapshot(t.Context()); !errors.As(err, &space) {
		t.Errorf("got %v, want that space is short", err)
	}
}

func TestDiskThatGrows(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	m := h.Open(t)
	next := func() []block.Extent {
		t.Helper()
		s, err := m.Snapshot(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		es, err := m.Tracker(0).Pending(t.Context())
		if err := errors.Join(err, s.Close(), m.Tracker(0).Release(m.Tracker(0).Epoch()-1)); err != nil && !errors.Is(err, track.ErrLost) {
			t.Fatal(err)
		}
		return es
	}
	next()
	h.do(t, "block_resize", map[string]any{"node-name": "disk-0", "size": 8 << 20})
	want := block.Extent{Offset: 6 << 20, Length: 2 << 20}
	if es := next(); m.Disks()[0].Size != 8<<20 || len(es) != 1 || es[0] != want {
		t.Errorf("got %+v on a disk of %d bytes, want %+v", es, m.Disks()[0].Size, want)
	}
}

// TestDiskOnAnotherNode is of somebody who takes a snapshot of the image: writes go to another block node, where nobody counts.
func TestDiskOnAnotherNode(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	m := h.Open(t)
	for round := range 3 {
		if round == 1 {
			h.do(t, "blockdev-snapshot-sync", map[string]any{"node-name": "disk-0", "snapshot-file": filepath.Join(h.dir, "top.qcow2"), "snapshot-node-name": "top"})
		}
		s, err := m.Snapshot(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		_, err = m.Tracker(0).Pending(t.Context())
		if lost := errors.Is(err, track.ErrLost); lost != (round < 2) {
			t.Errorf("round %d: got %v", round, err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		for i := range m.Disks() {
			if err := m.Tracker(i).Release(m.Tracker(i).Epoch() - 1); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// TestQEMUOfAnotherUser is of a QEMU that may open nothing of ours, as under libvirt.
func TestQEMUOfAnotherUser(t *testing.T) {
	t.Parallel()
	h := newHostAs(t, 65534)
	cfg := h.config()
	cfg.Dir = filepath.Join(t.TempDir(), "ours", "alone")
	m, err := Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		s, err := m.Snapshot(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.View(1).ReadAt(s.View(1).Buffer(block.Size), 0); err != nil {
			t.Error(err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	var sets []fdset
	if err := h.io.Do(t.Context(), "query-fdsets", nil, &sets); err != nil || len(sets) != 2 {
		t.Errorf("files that are lent: %+v %v, want one for each disk, however many views there were", sets, err)
	}
	if err := m.Discard(t.Context()); err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(cfg.Dir); err != nil || len(left) != 0 {
		t.Errorf("left: %v %v", left, err)
	}
}

func TestOtherMachineAtTheSocket(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	cfg := h.config()
	cfg.UUID = "00000000-0000-0000-0000-000000000001"
	if _, err := Open(t.Context(), cfg); err == nil {
		t.Error("another machine was opened")
	}
	cfg = h.config()
	cfg.Disks = []string{"SER0", "SER9"}
	var missing *MissingError
	if _, err := Open(t.Context(), cfg); !errors.As(err, &missing) || missing.Disk != "SER9" {
		t.Errorf("got %v", err)
	}
}
