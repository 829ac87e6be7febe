package qemu

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/lifeboat-dr/lifeboat/replicator/compute"
	"github.com/lifeboat-dr/lifeboat/replicator/restore"
)

func hydrateJob(n int) string { return fmt.Sprintf("hydrate-%d", n) }

// Hydrate implements compute.Driver. QEMU fills the overlays by itself (a block job a disk, which lives and dies with QEMU);
// this looks after the jobs and records what they finished.
func (d *Driver) Hydrate(ctx context.Context, id string) (compute.Hydration, error) {
	i, r, l, err := d.open(ctx, id)
	if err != nil {
		return compute.Hydration{}, err
	}
	defer l.unlock()
	h, err := d.hydrate(ctx, i, r)
	if err != nil {
		return h, fmt.Errorf("hydrate instance %s: %w", id, err)
	}
	return h, nil
}

func (d *Driver) hydrate(ctx context.Context, i instance, r *record) (h compute.Hydration, err error) {
	for _, disk := range r.Disks {
		h.Total += disk.Size
	}
	if r.standsAlone() {
		h.Done, h.Complete = h.Total, r.Made
		return h, restore.StopServer(ctx, i.dir)
	}
	p, err := i.power(ctx)
	if err != nil {
		return h, err
	}
	if p != on {
		return h, compute.ErrNotRunning
	}
	m, err := dialMonitor(ctx, i.dir, qmpSocket)
	if err != nil {
		return h, err
	}
	defer m.close()
	var jobs []struct {
		ID, Status, Error string
	}
	if err := m.do("query-jobs", nil, &jobs); err != nil {
		return h, err
	}
	var blockJobs []struct {
		Device      string
		Offset, Len int64
	}
	if err := m.do("query-block-jobs", nil, &blockJobs); err != nil {
		return h, err
	}
	for n, disk := range r.Disks {
		if r.Hydrated[n] {
			h.Done += disk.Size
			continue
		}
		status, failure := "", ""
		for _, j := range jobs {
			if j.ID == hydrateJob(n) {
				status, failure = j.Status, j.Error
			}
		}
		switch {
		case status == "concluded":
			if err := m.do("job-dismiss", map[string]any{"id": hydrateJob(n)}, nil); err != nil {
				return h, err
			}
			if failure != "" {
				h.Err = errors.Join(h.Err, fmt.Errorf("hydrate disk %s: %s", disk.ID, failure), i.corruption(ctx))
				continue
			}
			if err := d.settle(m, i, r, n); err != nil {
				return h, err
			}
			h.Done += disk.Size
		case status == "":
			err := m.do("block-stream", map[string]any{
				"job-id": hydrateJob(n), "device": diskNode(n), "auto-dismiss": false, "on-error": "report",
			}, nil)
			if err != nil {
				return h, err
			}
		default:
			for _, b := range blockJobs {
				if b.Device == hydrateJob(n) && b.Len > 0 {
					h.Done += min(b.Offset, disk.Size)
				}
			}
		}
	}
	if !r.standsAlone() {
		return h, nil
	}
	h.Complete = true
	d.log.Info("instance hydrated", "instance", i.id, "bytes", h.Total)
	return h, restore.StopServer(ctx, i.dir)
}

// settle makes a filled overlay durable, records that it stands alone and lets go of the disk server's export.
func (d *Driver) settle(m *monitor, i instance, r *record, n int) error {
	// QEMU holds table entries in memory: only after they are written may the overlay be opened without its backing.
	var out string
	if err := m.do("human-monitor-command", map[string]any{"command-line": "qemu-io " + diskNode(n) + " flush"}, &out); err != nil {
		return err
	}
	if out != "" {
		return fmt.Errorf("flush overlay of disk %s: %s", r.Disks[n].ID, out)
	}
	f, err := os.Open(filepath.Join(i.dir, overlayFile(n)))
	if err != nil {
		return fmt.Errorf("sync overlay: %w", err)
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("sync overlay: %w", err)
	}
	r.Hydrated[n] = true
	if err := i.save(r); err != nil {
		return err
	}
	var refused *qmpError
	if err := m.do("blockdev-del", map[string]any{"node-name": baseNode(n)}, nil); err != nil && !errors.As(err, &refused) {
		return err
	}
	return nil
}
