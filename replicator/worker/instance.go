package worker

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"time"

	"github.com/lifeboat-dr/lifeboat/replicator/compute"
	"github.com/lifeboat-dr/lifeboat/replicator/repo"
	"github.com/lifeboat-dr/lifeboat/replicator/restore"
	"github.com/lifeboat-dr/lifeboat/service/job"
)

const (
	maxArtifact     = 8 << 20
	artifactTimeout = 30 * time.Second
)

// ServerSource describes a point of the vault to a disk server.
func (v *Vault) ServerSource(machine string, p job.PointRef) (json.RawMessage, error) {
	s := v.Source
	s.Machine, s.Point = machine, p
	return json.Marshal(s)
}

// point describes a recovery point.
func (v *Vault) point(ctx context.Context, machine string, p job.PointRef) (repo.Point, error) {
	s, err := v.Repository.OpenPoint(ctx, machine, ref(p))
	if err != nil {
		return repo.Point{}, fmt.Errorf("open point %d/%d of machine %s: %w", p.Generation, p.Sequence, machine, err)
	}
	return s.Point(), s.Close()
}

func (t *Tasks) instanceStart(ctx context.Context, task *Task) (any, error) {
	var p job.InstanceStart
	v, err := t.open(ctx, task, &p, &p.Machine)
	if err != nil {
		return nil, err
	}
	if p.Deadline > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, p.Deadline)
		defer cancel()
	}
	disks, err := t.disksFor(ctx, v, p)
	if err != nil {
		return nil, err
	}
	source, err := v.ServerSource(p.MachineID, p.Point)
	if err != nil {
		return nil, err
	}
	p.Hardware.Disks = nil
	for _, d := range disks {
		p.Hardware.Disks = append(p.Hardware.Disks, d.ID)
	}
	started, err := t.Compute.Start(ctx, compute.Spec{
		ID: p.InstanceID, Machine: p.MachineID, Point: p.Point, Hardware: p.Hardware, Disks: disks, Server: source,
		Copied: p.Copied, Hydrate: p.Hydrate, Probe: p.Probe,
		Open: func(ctx context.Context) (restore.Disks, error) {
			return restore.OpenPoint(ctx, v.Repository, p.MachineID, ref(p.Point))
		},
		Progress: func(done, total int64) { task.Progress(done, total, "copying disks") },
	})
	out := job.InstanceStarted{InstanceID: p.InstanceID, Accelerator: started.Accelerator, StartTook: started.StartTook, ProbeTook: started.ProbeTook,
		Address: started.Address, Disks: p.Hardware.Disks, RepoRequests: started.Requests, RepoBytes: started.Bytes}
	if err == nil || errors.Is(err, compute.ErrProbe) {
		out.SerialLog, out.Screenshot = t.keepConsole(ctx, task, p.InstanceID)
	}
	if err != nil {
		return nil, fmt.Errorf("start instance %s: %w", p.InstanceID, err)
	}
	return out, nil
}

// disksFor returns the instance's disks in the guest's order: those it has, or else the point's. An instance that exists may
// outlive its point once it is hydrated.
func (t *Tasks) disksFor(ctx context.Context, v *Vault, p job.InstanceStart) ([]compute.Disk, error) {
	inst, err := t.Compute.Inspect(ctx, p.InstanceID)
	if err == nil && len(inst.Disks) > 0 {
		return inst.Disks, nil
	}
	if err != nil && !errors.Is(err, compute.ErrNotFound) {
		return nil, fmt.Errorf("look for instance %s: %w", p.InstanceID, err)
	}
	point, err := v.point(ctx, p.MachineID, p.Point)
	if err != nil {
		return nil, err
	}
	return disksOf(point.Disks, p.Hardware)
}

// disksOf returns the disks of a point in the order that the hardware has. Disks that were added to the machine after the point are
// not among them; those that were taken away since are, and come last.
func disksOf(point []repo.DiskInfo, hw job.Hardware) ([]compute.Disk, error) {
	rest := map[string]int64{}
	for _, d := range point {
		rest[d.ID] = d.Size
	}
	if _, ok := rest[hw.OSDisk]; !ok && hw.OSDisk != "" {
		return nil, &Fault{Code: codeNotFound, Message: fmt.Sprintf("The recovery point does not have disk %s, which the machine boots from.", hw.OSDisk),
			PossibleCauses: "The disk was added to the machine after that point.", RecommendedAction: "Choose a newer recovery point."}
	}
	var out []compute.Disk
	for _, id := range hw.Disks {
		if size, ok := rest[id]; ok {
			out = append(out, compute.Disk{ID: id, Size: size})
			delete(rest, id)
		}
	}
	for _, d := range point {
		if _, ok := rest[d.ID]; ok {
			out = append(out, compute.Disk{ID: d.ID, Size: d.Size})
		}
	}
	if len(out) == 0 {
		return nil, &Fault{Code: codeInvalid, Message: "The machine has no disks to start from."}
	}
	return out, nil
}

// keepConsole keeps the serial log (its end, when it is long) and a screenshot with the job. It is for people to look at:
// when it does not work, the task goes on without.
func (t *Tasks) keepConsole(ctx context.Context, task *Task, id string) (serial, screen string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), artifactTimeout)
	defer cancel()
	put := func(name string, read func() ([]byte, error)) string {
		content, err := read()
		if err == nil {
			err = t.Artifacts.PutArtifact(ctx, task.JobID, name, content)
		}
		if err != nil {
			task.Log.Warn("console could not be kept with the job", "artifact", name, "err", err)
			return ""
		}
		return name
	}
	serial = put("serial-"+id+".log", func() ([]byte, error) {
		r, err := t.Compute.SerialLog(ctx, id)
		if err != nil {
			return nil, err
		}
		content, err := tail(r, maxArtifact)
		return content, errors.Join(err, r.Close())
	})
	screen = put("screen-"+id+".png", func() ([]byte, error) {
		var b bytes.Buffer
		err := t.Compute.Screenshot(ctx, id, &b)
		return b.Bytes(), err
	})
	return serial, screen
}

// tail reads r to its end and returns the last n bytes at most.
func tail(r io.Reader, n int) ([]byte, error) {
	var b []byte
	buf := make([]byte, 64<<10)
	for {
		k, err := r.Read(buf)
		b = append(b, buf[:k]...)
		if len(b) > 2*n {
			b = append(b[:0:0], b[len(b)-n:]...)
		}
		if err == io.EOF {
			return b[max(0, len(b)-n):], nil
		}
		if err != nil {
			return nil, err
		}
	}
}

func (t *Tasks) instanceStop(ctx context.Context, task *Task) (any, error) {
	var p job.InstanceStop
	if err := task.Decode(&p); err != nil {
		return nil, err
	}
	if err := t.Compute.Stop(ctx, p.InstanceID, p.Timeout, p.Force); err != nil {
		return nil, fmt.Errorf("stop instance %s: %w", p.InstanceID, err)
	}
	return job.Empty{}, nil
}

func (t *Tasks) instanceDestroy(ctx context.Context, task *Task) (any, error) {
	var p job.InstanceDestroy
	if err := task.Decode(&p); err != nil {
		return nil, err
	}
	if err := t.Compute.Destroy(ctx, p.InstanceID); err != nil {
		return nil, fmt.Errorf("destroy instance %s: %w", p.InstanceID, err)
	}
	return job.Empty{}, nil
}

func (t *Tasks) instanceCapture(ctx context.Context, task *Task) (any, error) {
	var p job.InstanceCapture
	v, err := t.open(ctx, task, &p, &p.Machine)
	if err != nil {
		return nil, err
	}
	inst, err := t.Compute.Inspect(ctx, p.InstanceID)
	if err != nil {
		return nil, fmt.Errorf("look for instance %s: %w", p.InstanceID, err)
	}
	source, err := v.ServerSource(p.MachineID, inst.Point)
	if err != nil {
		return nil, err
	}
	disks, err := t.Compute.OpenDisks(ctx, p.InstanceID, source)
	if err != nil {
		return nil, fmt.Errorf("open disks of instance %s: %w", p.InstanceID, err)
	}
	c := capture{repository: v.Repository, machine: p.MachineID, generation: p.Generation, disks: disks,
		dir: filepath.Join(t.SpoolDir, "capture"), progress: func(done, total int64) { task.Progress(done, total, "comparing disks") }}
	for _, d := range inst.Disks {
		if len(p.Disks) > 0 && !slices.Contains(p.Disks, d.ID) {
			continue
		}
		c.infos = append(c.infos, repo.DiskInfo{ID: d.ID, Size: d.Size, OS: d.ID == inst.Hardware.OSDisk})
	}
	point, err := c.run(ctx)
	if err := errors.Join(err, disks.Close()); err != nil {
		return nil, fmt.Errorf("capture instance %s: %w", p.InstanceID, err)
	}
	t.Index.ReportPoint(v.ID, point)
	return job.Captured{Point: *jobRef(&point.PointRef), Time: point.Time, ChangedBytes: point.ChangedBytes}, nil
}
