package qemu

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"time"

	"github.com/lifeboat-dr/lifeboat/replicator/compute"
	"github.com/lifeboat-dr/lifeboat/service/job"
)

// record is instance.json.
type record struct {
	Version  int            `json:"version"`
	ID       string         `json:"id"`
	Machine  string         `json:"machine"`
	Point    job.PointRef   `json:"point"`
	Hardware job.Hardware   `json:"hardware"`
	Disks    []compute.Disk `json:"disks"`
	Copied   bool           `json:"copied"`
	Hydrate  bool           `json:"hydrate"`
	Created  time.Time      `json:"created"`

	Made     bool   `json:"made"`     // every disk is there
	Hydrated []bool `json:"hydrated"` // by disk: its overlay stands alone and is on stable storage
	Stopped  bool   `json:"stopped"`  // off, and the disks are complete
	Boot     *boot  `json:"boot,omitempty"`
}

const (
	recordFile    = "instance.json"
	recordVersion = 1
	locksDir      = ".locks"
)

// standsAlone tells whether nothing is read from the recovery point any more.
func (r *record) standsAlone() bool { return r.Copied || !slices.Contains(r.Hydrated, false) }

// instance is an instance's directory.
type instance struct {
	machine
	id string
}

var validID = regexp.MustCompile(`^[A-Za-z0-9_-][A-Za-z0-9_.-]{0,127}$`)

func (d *Driver) instance(id string) (instance, error) {
	if !validID.MatchString(id) {
		return instance{}, fmt.Errorf("instance id %q is not valid", id)
	}
	return instance{machine{filepath.Join(d.cfg.Dir, id)}, id}, nil
}

func (i instance) load() (*record, error) {
	r := new(record)
	err := readRecord(filepath.Join(i.dir, recordFile), r)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("instance %s: %w", i.id, compute.ErrNotFound)
	}
	if err != nil {
		return nil, err
	}
	if r.Version != recordVersion {
		return nil, fmt.Errorf("instance %s: record version %d is not known", i.id, r.Version)
	}
	return r, nil
}

func (i instance) save(r *record) error { return writeRecord(filepath.Join(i.dir, recordFile), r) }

// open locks an instance that is there and reads its record. The caller unlocks.
func (d *Driver) open(ctx context.Context, id string) (instance, *record, *fileLock, error) {
	i, err := d.instance(id)
	if err != nil {
		return i, nil, nil, err
	}
	l, err := d.lock(ctx, id)
	if err != nil {
		return i, nil, nil, err
	}
	r, err := i.load()
	if err != nil {
		l.unlock()
		return i, nil, nil, err
	}
	return i, r, l, nil
}

func (d *Driver) lock(ctx context.Context, id string) (*fileLock, error) {
	return lockFile(ctx, filepath.Join(d.cfg.Dir, locksDir, id))
}

// claim finds the instance's record, or makes it.
func (d *Driver) claim(i instance, spec compute.Spec) (*record, error) {
	r, err := i.load()
	if err == nil {
		if r.Machine != spec.Machine || r.Point != spec.Point {
			return nil, fmt.Errorf("%w: machine %s, point %d/%d", compute.ErrConflict, r.Machine, r.Point.Generation, r.Point.Sequence)
		}
		return r, nil
	}
	if !errors.Is(err, compute.ErrNotFound) {
		return nil, err
	}
	if len(spec.Disks) == 0 {
		return nil, errors.New("the machine has no disks")
	}
	for _, disk := range spec.Disks {
		if disk.Size <= 0 || disk.Size%512 != 0 {
			return nil, fmt.Errorf("disk %s: size %d is not a positive multiple of 512", disk.ID, disk.Size)
		}
	}
	if err := os.MkdirAll(i.dir, 0o700); err != nil {
		return nil, fmt.Errorf("make instance directory: %w", err)
	}
	if err := syncDir(d.cfg.Dir); err != nil {
		return nil, fmt.Errorf("make instance directory: %w", err)
	}
	r = &record{
		Version: recordVersion, ID: i.id, Machine: spec.Machine, Point: spec.Point, Hardware: spec.Hardware, Disks: spec.Disks,
		Copied: spec.Copied, Hydrate: spec.Hydrate, Created: time.Now().UTC(),
	}
	if !r.Copied {
		r.Hydrated = make([]bool, len(r.Disks))
	}
	return r, i.save(r)
}
