// Package qemu runs instances and home machines on QEMU. It owns the directories of instances and the processes in them:
// QEMU itself and, for lazily served disks, a disk server. Both outlive every other process of Lifeboat and are found again
// by pid and socket.
//
// It must never start a second QEMU on the same disks, never write to a recovery point (guests write to overlays), and never
// touch a home machine's disks while it runs.
//
// An instance's directory holds:
//
//	instance.json   what it was made from and how its last boot went; replaced atomically; without it the directory is half made
//	disk-N.qcow2    overlay of disk N over the disk server's export; or disk-N.raw, a full image
//	qemu.pid, qmp.sock, qemu.log, serial.log
//	disk-server.pid, disk-server.sock, disks.sock, disk-server.log
package qemu

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/lifeboat-dr/lifeboat/replicator/compute"
	"github.com/lifeboat-dr/lifeboat/replicator/restore"
	"github.com/lifeboat-dr/lifeboat/replicator/restore/process"
	"github.com/lifeboat-dr/lifeboat/service/job"
)

// Config of a Driver. Only Dir is required; DiskServer is needed for lazily served disks.
type Config struct {
	Dir string // holds the instances, one directory each; made when absent

	// DiskServer is the command, program and arguments, that ends up in restore.ServeDisks.
	DiskServer []string

	// Datastores of home machines, by name: a directory that holds one directory a machine, with a vm.json in it.
	Datastores map[string]string

	// ForwardPort is a TCP port of guests on the production network that is made reachable on a free loopback port, which
	// becomes the instance's address. Zero: none.
	ForwardPort int

	// Accelerator is kvm or tcg. Empty: found out by trying.
	Accelerator string

	QEMU, QEMUImg, StorageDaemon string // programs; default qemu-system-x86_64, qemu-img, qemu-storage-daemon

	Logger *slog.Logger
}

// Driver is a compute.Driver and compute.Home. Safe for concurrent use, also by several processes on one Dir.
type Driver struct {
	cfg Config
	log *slog.Logger
}

var (
	_ compute.Driver = (*Driver)(nil)
	_ compute.Home   = (*Driver)(nil)
)

// New makes a driver. It fails when a program that it needs is not installed.
func New(cfg Config) (*Driver, error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	dir, err := filepath.Abs(cfg.Dir)
	if err != nil || cfg.Dir == "" {
		return nil, fmt.Errorf("instance directory %q: %w", cfg.Dir, errors.Join(err))
	}
	cfg.Dir = dir
	for _, p := range []struct {
		path *string
		name string
	}{{&cfg.QEMU, "qemu-system-x86_64"}, {&cfg.QEMUImg, "qemu-img"}, {&cfg.StorageDaemon, "qemu-storage-daemon"}} {
		if *p.path == "" {
			*p.path = p.name
		}
		full, err := exec.LookPath(*p.path)
		if err != nil {
			return nil, fmt.Errorf("%w: %w; install the packages qemu-system-x86 and qemu-utils", compute.ErrUnsupported, err)
		}
		*p.path = full
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("make instance directory: %w", err)
	}
	return &Driver{cfg: cfg, log: cfg.Logger}, nil
}

// Start implements compute.Driver. Starting holds the instance's lock; waiting for the probe does not, so that a machine that
// does not come up can be looked at, stopped and destroyed meanwhile.
func (d *Driver) Start(ctx context.Context, spec compute.Spec) (compute.Started, error) {
	began := time.Now()
	i, err := d.instance(spec.ID)
	if err != nil {
		return compute.Started{}, err
	}
	if spec.Probe.Timeout == 0 {
		spec.Probe.Timeout = compute.DefaultProbeTimeout
	}
	r, adopted, err := d.run(ctx, i, spec, began)
	if err != nil {
		return compute.Started{}, fmt.Errorf("start instance %s: %w", spec.ID, err)
	}
	if r.Boot.ProbeHeld.IsZero() {
		if err := d.probe(ctx, i, r, spec.Probe); err != nil {
			return compute.Started{}, fmt.Errorf("start instance %s: %w", spec.ID, err)
		}
	}
	if spec.Hydrate {
		if _, err := d.Hydrate(ctx, i.id); err != nil {
			return compute.Started{}, fmt.Errorf("start instance %s: %w", spec.ID, err)
		}
	}
	return r.Boot.started(adopted), nil
}

// run makes the instance run, whatever is there of it already.
func (d *Driver) run(ctx context.Context, i instance, spec compute.Spec, began time.Time) (r *record, adopted bool, err error) {
	l, err := d.lock(ctx, i.id)
	if err != nil {
		return nil, false, err
	}
	defer l.unlock()
	if err := d.sweep(i.id); err != nil {
		return nil, false, err
	}
	if r, err = d.claim(i, spec); err != nil {
		return nil, false, err
	}
	p, err := i.power(ctx)
	if err != nil {
		return nil, false, err
	}
	if p == halted {
		if err := i.quit(ctx); err != nil {
			return nil, false, err
		}
		p = off
	}
	if p == on && (r.Boot == nil || !r.Boot.Up) {
		// Whoever started this QEMU was killed before it saw the guest run: it may not have got that far.
		if err := i.kill(ctx); err != nil {
			return nil, false, err
		}
		p = off
	}
	if err := d.endReaders(ctx, i.machine); err != nil {
		return nil, false, err
	}
	if !r.standsAlone() {
		if err := d.serveDisks(ctx, i, r, spec.Server); err != nil {
			return nil, false, err
		}
	}
	if p == on {
		return r, true, i.resume(ctx)
	}
	if !r.Made {
		if err := d.makeDisks(ctx, i, r, spec); err != nil {
			return nil, false, err
		}
		r.Made = true
	}
	drives, err := i.drives(r)
	if err != nil {
		return nil, false, err
	}
	accelerator, _ := d.Accelerator(ctx)
	r.Stopped = false
	r.Boot = &boot{Accelerator: accelerator, Serial: i.serialSize()}
	if err := i.save(r); err != nil {
		return nil, false, err
	}
	if err := d.launch(ctx, i.machine, r.Hardware, drives, r.Boot); err != nil {
		return nil, false, errors.Join(err, i.corruption(ctx))
	}
	r.Boot.StartTook = time.Since(began)
	if err := i.save(r); err != nil {
		return nil, false, err
	}
	d.log.Info("instance started", "instance", i.id, "accelerator", r.Boot.Accelerator, "dur", r.Boot.StartTook)
	return r, false, nil
}

// serveDisks makes sure that the disk server runs.
func (d *Driver) serveDisks(ctx context.Context, i instance, r *record, source []byte) error {
	if _, err := restore.Status(ctx, i.dir); err == nil {
		return nil
	}
	if len(source) == 0 || len(d.cfg.DiskServer) == 0 {
		return fmt.Errorf("%w: lazily served disks need a disk server", compute.ErrUnsupported)
	}
	cfg := restore.ServerConfig{Source: source}
	for _, disk := range r.Disks {
		cfg.Disks = append(cfg.Disks, disk.ID)
	}
	return restore.StartServer(ctx, i.dir, d.cfg.DiskServer, cfg)
}

// probe waits until the machine is up and records it.
func (d *Driver) probe(ctx context.Context, i instance, r *record, probe job.Probe) error {
	err := i.awaitProbe(ctx, i.id, r.Boot, probe, i.corruption)
	if errors.Is(err, restore.ErrCorrupt) {
		// The guest has met a disk error where the source had none: nothing that it does from here on is worth keeping.
		return errors.Join(err, i.kill(context.WithoutCancel(ctx)))
	}
	if err != nil {
		return err
	}
	if st, err := restore.Status(ctx, i.dir); err == nil {
		r.Boot.Requests, r.Boot.Bytes = st.Requests, st.Bytes
		if st.Corrupt != "" {
			return errors.Join(i.corruption(ctx), i.kill(context.WithoutCancel(ctx)))
		}
	}
	return d.update(ctx, i, func(now *record) bool {
		same := now.Boot != nil && now.Boot.Serial == r.Boot.Serial
		if same {
			now.Boot = r.Boot
		}
		return same
	})
}

// update changes the record under the lock; change returns false to leave it as it is.
func (d *Driver) update(ctx context.Context, i instance, change func(*record) bool) error {
	l, err := d.lock(ctx, i.id)
	if err != nil {
		return err
	}
	defer l.unlock()
	r, err := i.load()
	if err != nil {
		return err
	}
	if !change(r) {
		return nil
	}
	return i.save(r)
}

// Stop implements compute.Driver.
func (d *Driver) Stop(ctx context.Context, id string, timeout time.Duration, force bool) error {
	i, r, l, err := d.open(ctx, id)
	if err != nil {
		return err
	}
	defer l.unlock()
	p, err := i.power(ctx)
	if err != nil {
		return err
	}
	clean, err := i.shutdown(ctx, timeout, force)
	if err != nil {
		return fmt.Errorf("stop instance %s: %w", id, err)
	}
	if p != off {
		r.Stopped = true
		d.log.Info("instance stopped", "instance", id, "clean", clean)
	}
	return i.save(r)
}

// Destroy implements compute.Driver.
func (d *Driver) Destroy(ctx context.Context, id string) error {
	i, err := d.instance(id)
	if err != nil {
		return err
	}
	l, err := d.lock(ctx, id)
	if err != nil {
		return err
	}
	defer l.unlock()
	if _, err := os.Stat(i.dir); errors.Is(err, os.ErrNotExist) {
		if err := d.sweep(id); err != nil {
			return fmt.Errorf("destroy instance %s: %w", id, err)
		}
		return l.remove()
	}
	// The processes first: what cannot be ended keeps its directory, so that the next Destroy finds it again.
	if err := errors.Join(i.kill(ctx), d.endReaders(ctx, i.machine), restore.StopServer(ctx, i.dir)); err != nil {
		return fmt.Errorf("destroy instance %s: %w", id, err)
	}
	// Then all of it at once, so that no Start ever meets an instance that lacks a part.
	err = d.sweep(id)
	if err == nil {
		err = os.Rename(i.dir, d.doomed(id))
	}
	if err := errors.Join(err, d.sweep(id), syncDir(d.cfg.Dir)); err != nil {
		return fmt.Errorf("destroy instance %s: %w", id, err)
	}
	d.log.Info("instance destroyed", "instance", id)
	return l.remove()
}

// doomed is where the directory of a destroyed instance goes before it is removed.
func (d *Driver) doomed(id string) string { return filepath.Join(d.cfg.Dir, ".destroyed-"+id) }

// sweep removes what a killed Destroy left.
func (d *Driver) sweep(id string) error { return os.RemoveAll(d.doomed(id)) }

// Inspect implements compute.Driver.
func (d *Driver) Inspect(ctx context.Context, id string) (compute.Instance, error) {
	i, err := d.instance(id)
	if err != nil {
		return compute.Instance{}, err
	}
	r, err := i.load()
	if err != nil {
		if _, serr := os.Stat(i.dir); serr == nil && errors.Is(err, compute.ErrNotFound) {
			return compute.Instance{ID: id, State: compute.StateStarting}, nil
		}
		return compute.Instance{}, err
	}
	out := compute.Instance{
		ID: id, Machine: r.Machine, Point: r.Point, Hardware: r.Hardware, Disks: r.Disks, Hydrate: r.Hydrate, Hydrated: r.standsAlone(), Created: r.Created,
	}
	if b := r.Boot; b != nil {
		out.Accelerator, out.Address, out.ProbeHeld = b.Accelerator, b.Address, b.ProbeHeld
	}
	p, err := i.power(ctx)
	if err != nil {
		return compute.Instance{}, err
	}
	out.State = state(p, r.Boot, r.Stopped)
	if p == on {
		if status, err := i.status(ctx); err == nil && status == statusIOError {
			out.DiskErrors = append(out.DiskErrors, "the machine is paused: its disks could not be written; make room on "+d.cfg.Dir+" and start it again")
		}
	}
	if st, err := restore.Status(ctx, i.dir); err == nil {
		out.Requests, out.Bytes, out.DiskErrors = st.Requests, st.Bytes, append(out.DiskErrors, st.Errors...)
	}
	return out, nil
}

func state(p power, b *boot, stopped bool) compute.State {
	switch {
	case b == nil || !b.Up:
		return compute.StateStarting
	case p == on:
		return compute.StateRunning
	case p == halted || stopped:
		return compute.StateStopped
	}
	return compute.StateCrashed
}

// List implements compute.Driver.
func (d *Driver) List(ctx context.Context) ([]compute.Instance, error) {
	entries, err := os.ReadDir(d.cfg.Dir)
	if err != nil {
		return nil, fmt.Errorf("list instances: %w", err)
	}
	var out []compute.Instance
	for _, e := range entries {
		if !e.IsDir() || strings.HasPrefix(e.Name(), ".") {
			continue
		}
		inst, err := d.Inspect(ctx, e.Name())
		if errors.Is(err, compute.ErrNotFound) {
			continue // destroyed meanwhile
		}
		if err != nil {
			return nil, err
		}
		out = append(out, inst)
	}
	return out, nil
}

// endReaders ends what a killed OpenDisks left.
func (d *Driver) endReaders(ctx context.Context, m machine) error {
	p, err := process.Find(m.dir, readerName)
	if err != nil {
		return err
	}
	if err := p.Kill(ctx); err != nil {
		return err
	}
	return process.Forget(m.dir, readerName)
}
