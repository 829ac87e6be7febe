package bench

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/lifeboat-dr/lifeboat/sdk/scenario/guest"
	"github.com/lifeboat-dr/lifeboat/sdk/scenario/rig"
)

// Drill is one test failover of a machine.
type Drill struct {
	FirstLine       time.Duration // from the API call to the guest's first userspace line
	Requests, Bytes int64         // of the bucket until the machine counted as up
}

// Drills is a running Lifeboat with one protected guest for each disk size; its image is a file that stands still.
type Drills struct {
	rig    *rig.Rig
	byName map[string]*rig.Item
}

// NewDrills builds the same guest on a disk of each size and protects them all.
func NewDrills(ctx context.Context, bin, dir string, sizes map[string]int64) (*Drills, error) {
	r, err := rig.New(rig.Options{Dir: dir, Bin: bin})
	if err != nil {
		return nil, err
	}
	d := &Drills{rig: r, byName: map[string]*rig.Item{}}
	if err := d.prepare(ctx, sizes); err != nil {
		return nil, errors.Join(fmt.Errorf("%w\n%s", err, r.Logs(20)), r.Close())
	}
	return d, nil
}

func (d *Drills) prepare(ctx context.Context, sizes map[string]int64) (err error) {
	ctx, watch := newWatch(ctx)
	defer func() { err = watch.end(err) }()
	plane, err := d.rig.StartEmbedded(ctx)
	if err != nil {
		return err
	}
	watch.process(d.rig.Process("lifeboatd"))
	vault, err := plane.CreateVault(ctx, "bench", rig.Policies{CrashConsistentMinutes: 60})
	if err != nil {
		return err
	}
	for name, size := range sizes {
		if err := d.protect(ctx, watch, plane, vault, name, size); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

func (d *Drills) protect(ctx context.Context, watch *watch, plane *rig.Plane, vault *rig.Vault, name string, size int64) error {
	image := d.rig.Path(name + ".raw")
	if err := guest.Build(ctx, image, guest.Spec{DiskBytes: size, Hostname: name}); err != nil {
		return err
	}
	uuid := fmt.Sprintf("0a1b2c3d-0000-4000-8000-%012x", size)
	agent, err := d.rig.StartAgent(ctx, plane, vault, rig.AgentSpec{Hostname: name, UUID: uuid, Disk: "disk0", Image: image, Stopped: true})
	if err != nil {
		return err
	}
	watch.process(agent)
	protectable, err := vault.WaitProtectable(ctx, name)
	if err != nil {
		return err
	}
	item, err := vault.Protect(ctx, name, protectable)
	if err != nil {
		return err
	}
	d.byName[name] = item
	return item.WaitState(ctx, nil, rig.StateProtected)
}

// Run drills one machine and cleans up after it.
func (d *Drills) Run(ctx context.Context, name string) (out Drill, err error) {
	ctx, watch := newWatch(ctx)
	defer func() { err = watch.end(err) }()
	for _, p := range d.rig.Lifeboat() {
		watch.process(p)
	}
	item := d.byName[name]
	before, err := d.serials()
	if err != nil {
		return out, err
	}
	asked := time.Now()
	job, err := item.BeginTestFailover(ctx, "")
	if err != nil {
		return out, err
	}
	var path string
	if err := rig.Until(ctx, "a machine was started from the point", func() (bool, error) {
		now, err := d.serials()
		for s := range now {
			if !before[s] {
				path = s
			}
		}
		return path != "", err
	}); err != nil {
		return out, err
	}
	console := rig.Follow(path)
	defer console.Close()
	up, _, _, err := console.WaitUp(ctx, 0)
	if err != nil {
		return out, err
	}
	out.FirstLine = up.Time.Sub(asked)
	ended, err := item.Vault.Wait(ctx, job)
	if err != nil {
		return out, err
	}
	if out.Requests, err = told(ended, "RepositoryRequests"); err != nil {
		return out, err
	}
	if out.Bytes, err = told(ended, "RepositoryBytes"); err != nil {
		return out, err
	}
	return out, item.Cleanup(ctx)
}

// told reads a number from what the job says of the objects it affected.
func told(j rig.Job, name string) (int64, error) {
	n, err := strconv.ParseInt(j.Told(name), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("job %s does not tell %s: %w", j.Name, name, err)
	}
	return n, nil
}

// serials lists the serial logs of machines that Lifeboat started.
func (d *Drills) serials() (map[string]bool, error) {
	found := map[string]bool{}
	err := filepath.WalkDir(d.rig.Dir, func(path string, entry os.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // went away while we looked
		}
		if err == nil && entry.Name() == "serial.log" && strings.Contains(path, "/instances/") {
			found[path] = true
		}
		return err
	})
	return found, err
}

// Close ends everything.
func (d *Drills) Close() error { return d.rig.Close() }
