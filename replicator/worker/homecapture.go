package worker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"

	"github.com/lifeboat-dr/lifeboat/replicator/block"
	"github.com/lifeboat-dr/lifeboat/replicator/compute"
	"github.com/lifeboat-dr/lifeboat/replicator/repo"
	"github.com/lifeboat-dr/lifeboat/replicator/restore"
	"github.com/lifeboat-dr/lifeboat/service/job"
)

// homeCapture makes a point of the production machine's own disks. The machine is off; while its disks are open nobody can start
// it.
func (t *Tasks) homeCapture(ctx context.Context, task *Task) (any, error) {
	var p job.HomeCapture
	v, err := t.open(ctx, task, &p, &p.Machine)
	if err != nil {
		return nil, err
	}
	if len(p.Disks) == 0 {
		return nil, &Fault{Code: codeInvalid, Message: "The machine has no disks to capture."}
	}
	home, err := t.Home.OpenHome(ctx, p.Datastore, p.UUID)
	if err != nil {
		return nil, fmt.Errorf("open disks of home machine %s: %w", p.UUID, err)
	}
	c := capture{repository: v.Repository, machine: p.MachineID, generation: p.Generation, disks: homeDisks{home},
		dir: filepath.Join(t.SpoolDir, "capture"), progress: func(done, total int64) { task.Progress(done, total, "comparing disks") }}
	for _, d := range p.Disks {
		c.infos = append(c.infos, repo.DiskInfo{ID: d.ID, Size: d.SizeBytes, OS: d.OS})
	}
	point, err := c.run(ctx)
	if err := errors.Join(err, home.Close()); err != nil {
		return nil, fmt.Errorf("capture home machine %s: %w", p.UUID, err)
	}
	t.Index.ReportPoint(v.ID, point)
	return job.Captured{Point: *jobRef(&point.PointRef), Time: point.Time, ChangedBytes: point.ChangedBytes}, nil
}

// homeDisks shows the disks of a home machine to a capture, which only reads.
type homeDisks struct{ compute.HomeDisks }

func (h homeDisks) Disk(id string) (restore.Source, error) {
	t, err := h.HomeDisks.Disk(id)
	if err != nil {
		return nil, err
	}
	return homeDisk{t}, nil
}

func (homeDisks) Traffic() (requests, bytes int64) { return 0, 0 }

type homeDisk struct{ target restore.Target }

func (d homeDisk) Size() int64 { return d.target.Size() }

func (d homeDisk) ReadAt(ctx context.Context, p []byte, off int64) error {
	if err := context.Cause(ctx); err != nil {
		return err
	}
	n, err := d.target.ReadAt(p, off)
	if n == len(p) && errors.Is(err, io.EOF) {
		err = nil
	}
	return err
}

// Next takes all of the disk for data: which parts of it are holes is not told.
func (d homeDisk) Next(_ context.Context, off int64) (data block.Extent, ok bool, err error) {
	size := d.target.Size()
	return block.Extent{Length: size}, off < size, nil
}
