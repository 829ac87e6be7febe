package worker

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/lifeboat-dr/lifeboat/replicator/compute/export"
	"github.com/lifeboat-dr/lifeboat/replicator/restore"
	"github.com/lifeboat-dr/lifeboat/service/job"
)

func (t *Tasks) export(ctx context.Context, task *Task) (any, error) {
	var p job.PointExport
	v, err := t.open(ctx, task, &p, &p.Machine)
	if err != nil {
		return nil, err
	}
	if !filepath.IsAbs(p.Directory) {
		return nil, &Fault{Code: codeInvalid, Message: fmt.Sprintf("The directory %q is not an absolute path on the replicator's host.", p.Directory)}
	}
	point, err := v.point(ctx, p.MachineID, p.Point)
	if err != nil {
		return nil, err
	}
	disks, err := restore.OpenPoint(ctx, v.Repository, p.MachineID, ref(p.Point))
	if err != nil {
		return nil, err
	}
	var ids []string
	for _, d := range point.Disks {
		ids = append(ids, d.ID)
	}
	files, err := export.Disks(ctx, disks, ids, p.Format, p.Directory, export.Options{Progress: func(done, total int64) { task.Progress(done, total, "writing images") }})
	if err := errors.Join(err, disks.Close()); err != nil {
		return nil, fmt.Errorf("export point %d/%d of machine %s: %w", p.Point.Generation, p.Point.Sequence, p.MachineID, err)
	}
	return job.Exported{Files: files}, nil
}
