package worker

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/lifeboat-dr/lifeboat/replicator/compute"
	"github.com/lifeboat-dr/lifeboat/replicator/repo"
	"github.com/lifeboat-dr/lifeboat/replicator/restore"
	"github.com/lifeboat-dr/lifeboat/service/job"
)

// Vault is a vault that this replicator serves.
type Vault struct {
	ID         string
	Repository *repo.Repository
	// Source describes the vault's points to a disk server: all of it but machine and point.
	Source restore.Point
}

// Vaults finds the vaults that are served here.
type Vaults interface {
	// Vault returns an open vault. When it is not served (yet), a Fault with the code unavailable.
	Vault(ctx context.Context, id string) (*Vault, error)
}

// Index tells the control plane which points there are.
type Index interface {
	// ReportPoint tells a new point; it is delivered later if need be.
	ReportPoint(vaultID string, p repo.Point)
	// ReportMachine tells all points of a machine and returns when they were taken.
	ReportMachine(ctx context.Context, v *Vault, machine string) error
}

// Artifacts keeps files with a job.
type Artifacts interface {
	PutArtifact(ctx context.Context, jobID, name string, content []byte) error
}

// Tasks does every kind of task of service/job. Compute and Home may be nil where there is no hypervisor, and Scripts where no
// scripts are run: such tasks are then refused as unimplemented.
type Tasks struct {
	Vaults    Vaults
	Index     Index
	Artifacts Artifacts
	Compute   compute.Driver
	Home      compute.Home
	SpoolDir  string // captures of instances spool below it
	Scripts   *Scripts
}

// Handlers returns the handler of each kind that can be done here.
func (t *Tasks) Handlers() map[string]Handler {
	h := map[string]Handler{
		job.KindGenerationOpen:   t.generationOpen,
		job.KindGenerationClose:  t.generationClose,
		job.KindPointPin:         t.pointPin,
		job.KindPointUnpin:       t.pointUnpin,
		job.KindPointVerify:      t.pointVerify,
		job.KindRepositoryPrune:  t.prune,
		job.KindMachineDelete:    t.machineDelete,
		job.KindRepositoryReport: t.report,
		job.KindPointExport:      t.export,
		job.KindWebhookCall:      t.webhookCall,
		job.KindVaultFileWrite:   t.vaultFileWrite,
	}
	if t.Scripts != nil {
		h[job.KindScriptRun] = t.scriptRun
	}
	if t.Compute != nil {
		h[job.KindInstanceStart] = t.instanceStart
		h[job.KindInstanceStop] = t.instanceStop
		h[job.KindInstanceDestroy] = t.instanceDestroy
		h[job.KindInstanceCapture] = t.instanceCapture
	}
	if t.Home != nil {
		h[job.KindHomeStop] = t.homeStop
		h[job.KindHomeStart] = t.homeStart
		h[job.KindHomeWriteback] = t.homeWriteback
		h[job.KindHomeCapture] = t.homeCapture
	}
	return h
}

func ref(p job.PointRef) repo.PointRef {
	return repo.PointRef{Generation: p.Generation, Sequence: p.Sequence}
}

func jobRef(p *repo.PointRef) *job.PointRef {
	if p == nil {
		return nil
	}
	return &job.PointRef{Generation: p.Generation, Sequence: p.Sequence}
}

// open reads the payload and opens the vault that m, a part of it, names.
func (t *Tasks) open(ctx context.Context, task *Task, payload any, m *job.Machine) (*Vault, error) {
	if err := task.Decode(payload); err != nil {
		return nil, err
	}
	if m.VaultID == "" || m.MachineID == "" {
		return nil, &Fault{Code: codeInvalid, Message: fmt.Sprintf("The payload of %s names no vault or no machine.", task.Kind)}
	}
	return t.Vaults.Vault(ctx, m.VaultID)
}

func (t *Tasks) vaultFileWrite(ctx context.Context, task *Task) (any, error) {
	var p job.VaultFileWrite
	if err := task.Decode(&p); err != nil {
		return nil, err
	}
	v, err := t.Vaults.Vault(ctx, p.VaultID)
	if err != nil {
		return nil, err
	}
	if err := v.Repository.ReplaceVaultFile(ctx, p.File); err != nil {
		return nil, fmt.Errorf("replace the vault file of vault %s: %w", p.VaultID, err)
	}
	return job.Empty{}, nil
}

func (t *Tasks) generationOpen(ctx context.Context, task *Task) (any, error) {
	var p job.GenerationOpen
	v, err := t.open(ctx, task, &p, &p.Machine)
	if err != nil {
		return nil, err
	}
	var base *repo.PointRef
	if p.Base != nil {
		base = &repo.PointRef{Generation: p.Base.Generation, Sequence: p.Base.Sequence}
	}
	if err := v.Repository.OpenGeneration(ctx, p.MachineID, p.Generation, base); err != nil {
		return nil, fmt.Errorf("open generation %d of machine %s: %w", p.Generation, p.MachineID, err)
	}
	return job.Empty{}, nil
}

func (t *Tasks) generationClose(ctx context.Context, task *Task) (any, error) {
	var p job.GenerationClose
	v, err := t.open(ctx, task, &p, &p.Machine)
	if err != nil {
		return nil, err
	}
	last, err := v.Repository.CloseGeneration(ctx, p.MachineID, p.Generation, p.Reason)
	if err != nil {
		return nil, fmt.Errorf("close generation %d of machine %s: %w", p.Generation, p.MachineID, err)
	}
	return job.GenerationClosed{Last: jobRef(last)}, nil
}

func (t *Tasks) pointPin(ctx context.Context, task *Task) (any, error) {
	var p job.PointPin
	v, err := t.open(ctx, task, &p, &p.Machine)
	if err != nil {
		return nil, err
	}
	if err := v.Repository.Pin(ctx, p.MachineID, ref(p.Point), p.Owner); err != nil {
		return nil, fmt.Errorf("pin point %d/%d of machine %s: %w", p.Point.Generation, p.Point.Sequence, p.MachineID, err)
	}
	return job.Empty{}, nil
}

func (t *Tasks) pointUnpin(ctx context.Context, task *Task) (any, error) {
	var p job.PointPin
	v, err := t.open(ctx, task, &p, &p.Machine)
	if err != nil {
		return nil, err
	}
	err = v.Repository.Unpin(ctx, p.MachineID, ref(p.Point), p.Owner)
	if err != nil && !errors.Is(err, repo.ErrNotFound) { // a pin that is gone is what was asked for
		return nil, fmt.Errorf("unpin point %d/%d of machine %s: %w", p.Point.Generation, p.Point.Sequence, p.MachineID, err)
	}
	return job.Empty{}, nil
}

// pointVerify succeeds with the bad extent in its output: that the bytes are bad is what was asked. A point whose log entry does
// not verify has no extents, so it is a failure: an output without one says that all is well.
func (t *Tasks) pointVerify(ctx context.Context, task *Task) (any, error) {
	var p job.PointVerify
	v, err := t.open(ctx, task, &p, &p.Machine)
	if err != nil {
		return nil, err
	}
	bytes, err := v.Repository.Verify(ctx, p.MachineID, ref(p.Point))
	if bad, ok := errors.AsType[*repo.CorruptError](err); ok && bad.Disk != "" {
		task.Log.Error("recovery point is damaged", "point", p.Point, "disk", bad.Disk, "extent", bad.Extent, "err", err)
		return job.PointVerified{Bytes: bytes, BadDisk: bad.Disk, BadStart: bad.Extent.Offset, BadBytes: bad.Extent.Length}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("verify point %d/%d of machine %s: %w", p.Point.Generation, p.Point.Sequence, p.MachineID, err)
	}
	return job.PointVerified{Bytes: bytes}, nil
}

func (t *Tasks) prune(ctx context.Context, task *Task) (any, error) {
	var p job.Prune
	v, err := t.open(ctx, task, &p, &p.Machine)
	if err != nil {
		return nil, err
	}
	stats, err := v.Repository.Prune(ctx, p.MachineID, retention(p.Retention), p.Now)
	if err != nil {
		return nil, err
	}
	if stats.Pruned > 0 {
		if err := t.Index.ReportMachine(ctx, v, p.MachineID); err != nil {
			return nil, err
		}
	}
	return job.Pruned{Points: stats.Pruned, Bytes: stats.BytesDeleted}, nil
}

// retention thins a policy's span with age: every point for two hours, one an hour for a day, one a day up to the span's end.
func retention(span time.Duration) repo.Retention {
	const all, hourly = 2 * time.Hour, 24 * time.Hour
	if span <= 0 {
		span = hourly
	}
	r := repo.Retention{All: min(all, span), Hourly: min(hourly, span)}
	if span > hourly {
		r.Daily = span
	}
	return r
}

func (t *Tasks) machineDelete(ctx context.Context, task *Task) (any, error) {
	var p job.MachineDelete
	v, err := t.open(ctx, task, &p, &p.Machine)
	if err != nil {
		return nil, err
	}
	if err := v.Repository.DeleteMachine(ctx, p.MachineID); err != nil {
		return nil, err
	}
	return job.Empty{}, nil
}

func (t *Tasks) report(ctx context.Context, task *Task) (any, error) {
	var p job.RepositoryReport
	v, err := t.open(ctx, task, &p, &p.Machine)
	if err != nil {
		return nil, err
	}
	if err := t.Index.ReportMachine(ctx, v, p.MachineID); err != nil {
		return nil, err
	}
	return job.Empty{}, nil
}
