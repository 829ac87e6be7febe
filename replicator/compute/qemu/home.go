package qemu

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/lifeboat-dr/lifeboat/replicator/compute"
	"github.com/lifeboat-dr/lifeboat/replicator/restore"
	"github.com/lifeboat-dr/lifeboat/replicator/restore/nbd"
	"github.com/lifeboat-dr/lifeboat/service/job"
)

// A home machine is a folder of a datastore: vm.json, which people or their tools write, disk images, and the folder run,
// which is ours and laid out like an instance's directory.
const (
	homeFile   = "vm.json"
	homeRun    = "run"
	homeRecord = "home.json"
	homeLock   = "lock"
)

// home is what run/home.json holds.
type home struct {
	Stopped bool  `json:"stopped"`
	Boot    *boot `json:"boot,omitempty"`
}

// homeMachine is a home machine that was found.
type homeMachine struct {
	compute.HomeMachine
	machine
}

// FindHome implements compute.Home.
func (d *Driver) FindHome(ctx context.Context, datastore, uuid string) (compute.HomeMachine, error) {
	h, err := d.findHome(datastore, uuid)
	if err != nil {
		return compute.HomeMachine{}, err
	}
	p, err := h.power(ctx)
	if err != nil {
		return compute.HomeMachine{}, err
	}
	rec, err := h.load()
	if err != nil {
		return compute.HomeMachine{}, err
	}
	switch {
	case p == on:
		h.State = compute.StateRunning
	case rec.Boot == nil || rec.Stopped || p == halted:
		h.State = compute.StateStopped
	default:
		h.State = compute.StateCrashed
	}
	if p == off && h.inUse() != nil {
		h.State = compute.StateRunning // by a hypervisor that we did not start
	}
	return h.HomeMachine, nil
}

func (d *Driver) findHome(datastore, uuid string) (*homeMachine, error) {
	var names []string
	for name := range d.cfg.Datastores {
		if datastore == "" || datastore == name {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return nil, fmt.Errorf("datastore %q: %w", datastore, compute.ErrNotFound)
	}
	slices.Sort(names)
	var broken error
	for _, name := range names {
		files, err := filepath.Glob(filepath.Join(globQuote(d.cfg.Datastores[name]), "*", homeFile))
		if err != nil {
			return nil, fmt.Errorf("search datastore %s: %w", name, err)
		}
		for _, file := range files {
			h, err := readHome(name, file)
			if err != nil {
				broken = errors.Join(broken, err) // told only when the machine is not found: it may be this one
				continue
			}
			if strings.EqualFold(h.UUID, uuid) {
				return h, nil
			}
		}
	}
	return nil, errors.Join(fmt.Errorf("machine with UUID %s in datastore %q: %w", uuid, datastore, compute.ErrNotFound), broken)
}

func globQuote(dir string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(dir)
}

func readHome(datastore, file string) (*homeMachine, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read home machine: %w", err)
	}
	h := new(homeMachine)
	if err := json.Unmarshal(b, &h.HomeMachine); err != nil {
		return nil, fmt.Errorf("read home machine %s: %w", file, err)
	}
	h.Datastore, h.Path = datastore, filepath.Dir(file)
	h.dir = filepath.Join(h.Path, homeRun)
	for i := range h.Disks {
		disk := &h.Disks[i]
		if !filepath.IsAbs(disk.Path) {
			disk.Path = filepath.Join(h.Path, disk.Path)
		}
		switch disk.Format {
		case "":
			disk.Format = "raw"
		case "raw", "qcow2":
		default:
			return nil, fmt.Errorf("read home machine %s: disk %s: %w: format %q", file, disk.ID, compute.ErrUnsupported, disk.Format)
		}
	}
	return h, nil
}

func (h *homeMachine) load() (home, error) {
	var rec home
	err := readRecord(filepath.Join(h.dir, homeRecord), &rec)
	if errors.Is(err, os.ErrNotExist) {
		return home{}, nil
	}
	return rec, err
}

func (h *homeMachine) save(rec home) error { return writeRecord(filepath.Join(h.dir, homeRecord), rec) }

// inUse returns an error when a hypervisor holds one of the disks open.
func (h *homeMachine) inUse() error {
	for _, disk := range h.Disks {
		t, err := restore.OpenTarget(disk.Path)
		if errors.Is(err, restore.ErrInUse) {
			return fmt.Errorf("%w: disk %s: %w", compute.ErrRunning, disk.ID, err)
		}
		if err == nil {
			_ = t.Close()
		}
	}
	return nil
}

// hold finds the machine and takes its lock.
func (d *Driver) hold(ctx context.Context, datastore, uuid string) (*homeMachine, *fileLock, error) {
	h, err := d.findHome(datastore, uuid)
	if err != nil {
		return nil, nil, err
	}
	if err := os.MkdirAll(h.dir, 0o700); err != nil {
		return nil, nil, fmt.Errorf("home machine %s: %w", h.Name, err)
	}
	l, err := lockFile(ctx, filepath.Join(h.dir, homeLock))
	if err != nil {
		return nil, nil, fmt.Errorf("home machine %s: %w", h.Name, err)
	}
	return h, l, nil
}

// StartHome implements compute.Home.
func (d *Driver) StartHome(ctx context.Context, datastore, uuid string, probe job.Probe) (compute.Started, error) {
	began := time.Now()
	h, rec, adopted, err := d.runHome(ctx, datastore, uuid, began)
	if err != nil {
		return compute.Started{}, fmt.Errorf("start home machine %s: %w", uuid, err)
	}
	if !rec.Boot.ProbeHeld.IsZero() || probe.Timeout == 0 {
		return rec.Boot.started(adopted), nil
	}
	if err := h.awaitProbe(ctx, h.Name, rec.Boot, probe, func(context.Context) error { return nil }); err != nil {
		return compute.Started{}, fmt.Errorf("start home machine %s: %w", h.Name, err)
	}
	_, l, err := d.hold(ctx, datastore, uuid)
	if err != nil {
		return compute.Started{}, err
	}
	defer l.unlock()
	if now, err := h.load(); err == nil && now.Boot != nil && now.Boot.Serial == rec.Boot.Serial {
		now.Boot = rec.Boot
		if err := h.save(now); err != nil {
			return compute.Started{}, err
		}
	}
	return rec.Boot.started(adopted), nil
}

func (d *Driver) runHome(ctx context.Context, datastore, uuid string, began time.Time) (h *homeMachine, rec home, adopted bool, err error) {
	h, l, err := d.hold(ctx, datastore, uuid)
	if err != nil {
		return nil, home{}, false, err
	}
	defer l.unlock()
	if rec, err = h.load(); err != nil {
		return nil, home{}, false, err
	}
	p, err := h.power(ctx)
	if err != nil {
		return nil, home{}, false, err
	}
	switch {
	case p == on && rec.Boot != nil && rec.Boot.Up:
		return h, rec, true, h.resume(ctx)
	case p != off:
		if err := h.quit(ctx); err != nil {
			return nil, home{}, false, err
		}
	}
	if err := d.endReaders(ctx, h.machine); err != nil {
		return nil, home{}, false, err
	}
	if len(h.Disks) == 0 {
		return nil, home{}, false, errors.New("the machine has no disks")
	}
	if err := h.inUse(); err != nil {
		return nil, home{}, false, err
	}
	hw := job.Hardware{
		Name: h.Name, UUID: h.UUID, CPUs: h.CPUs, MemoryBytes: h.MemoryBytes, Firmware: h.Firmware, MACs: h.MACs, Network: job.Network(h.Network),
	}
	if hw.Network == "" {
		hw.Network = job.NetworkProduction
	}
	accelerator, _ := d.Accelerator(ctx)
	rec = home{Boot: &boot{Accelerator: accelerator, Serial: h.serialSize()}}
	if err := h.save(rec); err != nil {
		return nil, home{}, false, err
	}
	if err := d.launch(ctx, h.machine, hw, h.drives(), rec.Boot); err != nil {
		return nil, home{}, false, err
	}
	rec.Boot.StartTook = time.Since(began)
	d.log.Info("home machine started", "machine", h.Name, "dur", rec.Boot.StartTook)
	return h, rec, false, h.save(rec)
}

func (h *homeMachine) drives() []drive {
	var out []drive
	for n, disk := range h.Disks {
		out = append(out, drive{id: disk.ID, boot: n == 0, nodes: []map[string]any{imageNode(n, disk.Format, disk.Path)}})
	}
	return out
}

// StopHome implements compute.Home.
func (d *Driver) StopHome(ctx context.Context, datastore, uuid string, timeout time.Duration, force bool) error {
	h, l, err := d.hold(ctx, datastore, uuid)
	if err != nil {
		return err
	}
	defer l.unlock()
	rec, err := h.load()
	if err != nil {
		return err
	}
	p, err := h.power(ctx)
	if err != nil {
		return err
	}
	if _, err := h.shutdown(ctx, timeout, force); err != nil {
		return fmt.Errorf("stop home machine %s: %w", h.Name, err)
	}
	if err := h.inUse(); err != nil {
		return fmt.Errorf("stop home machine %s: not started by Lifeboat: %w", h.Name, err)
	}
	if p != off {
		rec.Stopped = true
		d.log.Info("home machine stopped", "machine", h.Name)
	}
	return h.save(rec)
}

// OpenHome implements compute.Home.
func (d *Driver) OpenHome(ctx context.Context, datastore, uuid string) (_ compute.HomeDisks, err error) {
	h, l, err := d.hold(ctx, datastore, uuid)
	if err != nil {
		return nil, err
	}
	out := &homeDisks{lock: l, targets: map[string]restore.Target{}}
	defer func() {
		if err != nil {
			err = fmt.Errorf("open disks of home machine %s: %w", h.Name, errors.Join(err, out.Close()))
		}
	}()
	p, err := h.power(ctx)
	if err != nil {
		return nil, err
	}
	if p == on {
		return nil, compute.ErrRunning
	}
	if err := errors.Join(h.quit(ctx), d.endReaders(ctx, h.machine), h.inUse()); err != nil {
		return nil, err
	}
	var images []drive
	for n, disk := range h.Disks {
		if disk.Format != "raw" {
			images = append(images, h.drives()[n])
			continue
		}
		t, err := restore.OpenTarget(disk.Path)
		if err != nil {
			return nil, err
		}
		out.targets[disk.ID] = t
		out.close = append(out.close, t.Close)
	}
	if len(images) > 0 {
		rd, err := d.openReader(ctx, h.machine, images, true)
		if err != nil {
			return nil, err
		}
		out.close = append(out.close, rd.Close)
		for id, c := range rd.clients {
			out.targets[id] = exportTarget{c}
		}
	}
	return out, nil
}

// homeDisks implements compute.HomeDisks.
type homeDisks struct {
	lock    *fileLock
	targets map[string]restore.Target
	close   []func() error
}

func (s *homeDisks) Disk(id string) (restore.Target, error) {
	t, ok := s.targets[id]
	if !ok {
		return nil, fmt.Errorf("disk %s: %w", id, compute.ErrNotFound)
	}
	return t, nil
}

func (s *homeDisks) Close() error {
	var err error
	for _, f := range s.close {
		err = errors.Join(err, f())
	}
	s.lock.unlock()
	return err
}

// exportTarget writes a disk over NBD.
type exportTarget struct{ c *nbd.Client }

func (t exportTarget) Size() int64 { return t.c.Size() }

func (t exportTarget) ReadAt(p []byte, off int64) (int, error) {
	if err := t.c.Read(context.Background(), p, off); err != nil {
		return 0, exportError(err)
	}
	return len(p), nil
}

func (t exportTarget) WriteAt(p []byte, off int64) (int, error) {
	if err := t.c.Write(context.Background(), p, off); err != nil {
		return 0, exportError(err)
	}
	return len(p), nil
}

func (t exportTarget) Zero(off, length int64) error {
	return exportError(t.c.WriteZeroes(context.Background(), off, length))
}

func (t exportTarget) Sync() error { return exportError(t.c.Flush(context.Background())) }

func exportError(err error) error {
	switch {
	case errors.Is(err, nbd.ErrNoSpace):
		return fmt.Errorf("%w: %w", restore.ErrFull, err)
	case errors.Is(err, nbd.ErrIO), errors.Is(err, nbd.ErrClosed):
		return fmt.Errorf("%w: %w", restore.ErrGone, err)
	}
	return err
}
