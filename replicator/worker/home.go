package worker

import (
	"context"
	"errors"
	"fmt"

	"github.com/lifeboat-dr/lifeboat/replicator/repo"
	"github.com/lifeboat-dr/lifeboat/replicator/restore"
	"github.com/lifeboat-dr/lifeboat/service/job"
)

func (t *Tasks) homeStop(ctx context.Context, task *Task) (any, error) {
	var p job.HomeMachine
	if err := task.Decode(&p); err != nil {
		return nil, err
	}
	// By force only to undo a failback: when a guest does not shut down, the failover fails and the source stays active.
	if err := t.Home.StopHome(ctx, p.Datastore, p.UUID, p.Timeout, p.Force); err != nil {
		return nil, fmt.Errorf("stop home machine %s: %w", p.UUID, err)
	}
	return job.Empty{}, nil
}

func (t *Tasks) homeStart(ctx context.Context, task *Task) (any, error) {
	var p job.HomeMachine
	if err := task.Decode(&p); err != nil {
		return nil, err
	}
	started, err := t.Home.StartHome(ctx, p.Datastore, p.UUID, p.Probe)
	if err != nil {
		return nil, fmt.Errorf("start home machine %s: %w", p.UUID, err)
	}
	return job.InstanceStarted{Accelerator: started.Accelerator, StartTook: started.StartTook, ProbeTook: started.ProbeTook, Address: started.Address}, nil
}

func (t *Tasks) homeWriteback(ctx context.Context, task *Task) (any, error) {
	var p job.HomeWriteback
	v, err := t.open(ctx, task, &p, &p.Machine)
	if err != nil {
		return nil, err
	}
	point, err := v.point(ctx, p.MachineID, p.Point)
	if err != nil {
		return nil, err
	}
	disks, err := restore.OpenPoint(ctx, v.Repository, p.MachineID, ref(p.Point))
	if err != nil {
		return nil, err
	}
	out, err := t.writeBack(ctx, task, point, disks, p)
	if err := errors.Join(err, disks.Close()); err != nil {
		return nil, fmt.Errorf("write back to home machine %s: %w", p.UUID, err)
	}
	return out, nil
}

func (t *Tasks) writeBack(ctx context.Context, task *Task, point repo.Point, disks restore.Disks, p job.HomeWriteback) (job.WrittenBack, error) {
	home, err := t.Home.OpenHome(ctx, p.Datastore, p.UUID)
	if err != nil {
		return job.WrittenBack{}, err
	}
	var total, before int64
	for _, d := range point.Disks {
		total += d.Size
	}
	var out job.WrittenBack
	for _, d := range point.Disks {
		if err != nil {
			break
		}
		var src restore.Source
		if src, err = disks.Disk(d.ID); err != nil {
			break
		}
		var dst restore.Target
		if dst, err = home.Disk(d.ID); err != nil {
			err = fmt.Errorf("disk %s of the home machine: %w", d.ID, err)
			break
		}
		var res restore.WriteBackResult
		res, err = restore.WriteBack(ctx, src, dst, restore.ImageOptions{Progress: func(done, _ int64) {
			task.Progress(before+done, total, "comparing and writing disk "+d.ID)
		}})
		out.ComparedBytes += res.Compared
		out.WrittenBytes += res.Written
		before += d.Size
	}
	return out, errors.Join(err, home.Close())
}
