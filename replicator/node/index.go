package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/lifeboat-dr/lifeboat/replicator/repo"
	"github.com/lifeboat-dr/lifeboat/replicator/worker"
	"github.com/lifeboat-dr/lifeboat/sdk/fleet"
)

const (
	reconcileEvery = 5 * time.Minute
	// maxPending bounds the point reports that wait for lifeboatd. Beyond it the newest are left to the next complete list.
	maxPending = 10_000
)

// index posts recovery points to lifeboatd, one report after the other: a complete list that was read before a point was
// committed must not arrive after that point's own report.
type index struct {
	client *fleet.ClientWithResponses
	log    *slog.Logger

	mu      sync.Mutex
	pending []report
	wake    chan struct{}
}

// report is one point, or, when point is nil, the complete list of a machine.
type report struct {
	vaultID string
	point   *repo.Point
	vault   *worker.Vault
	machine string
	done    chan<- error // nil: nobody waits
}

func newIndex(client *fleet.ClientWithResponses, log *slog.Logger) *index {
	return &index{client: client, log: log, wake: make(chan struct{}, 1)}
}

var _ worker.Index = (*index)(nil)

// ReportPoint implements worker.Index. It never blocks.
func (x *index) ReportPoint(vaultID string, p repo.Point) {
	if !x.add(report{vaultID: vaultID, point: &p}) {
		x.log.Warn("too many points wait for lifeboatd; the next complete list will tell this one", "vault", vaultID, "item", p.Machine)
	}
}

// ReportMachine implements worker.Index.
func (x *index) ReportMachine(ctx context.Context, v *worker.Vault, machine string) error {
	done := make(chan error, 1)
	if !x.add(report{vaultID: v.ID, vault: v, machine: machine, done: done}) {
		return &worker.Fault{Code: "unavailable", Message: "Too many reports wait for lifeboatd."}
	}
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (x *index) add(r report) bool {
	x.mu.Lock()
	full := len(x.pending) >= maxPending
	if !full {
		x.pending = append(x.pending, r)
	}
	x.mu.Unlock()
	select {
	case x.wake <- struct{}{}:
	default: // run has yet to look
	}
	return !full
}

// reconcile queues the complete list of every machine of a vault.
func (x *index) reconcile(ctx context.Context, v *worker.Vault) {
	machines, err := v.Repository.Machines(ctx)
	if err != nil {
		if ctx.Err() == nil {
			x.log.Warn("machines of a vault could not be listed", "vault", v.ID, "err", err)
		}
		return
	}
	for _, m := range machines {
		x.add(report{vaultID: v.ID, vault: v, machine: m})
	}
}

// run posts reports until ctx ends. What lifeboatd refuses for good is dropped, for the next complete list to tell; what did
// not reach it is tried again.
func (x *index) run(ctx context.Context) {
	backoff := backoffLow
	for {
		next, ok := x.head()
		if !ok {
			select {
			case <-x.wake:
				continue
			case <-ctx.Done():
				x.endWaiting(ctx.Err())
				return
			}
		}
		err := x.post(ctx, next)
		if ctx.Err() != nil {
			x.endWaiting(ctx.Err())
			return
		}
		if again(err) && next.done == nil {
			x.log.Warn("points could not be reported yet", "vault", next.vaultID, "err", err)
			pause(ctx, backoff)
			backoff = min(2*backoff, backoffHigh)
			continue
		}
		backoff = backoffLow
		if next.done != nil {
			next.done <- err
		} else if err != nil {
			x.log.Warn("points were not taken by lifeboatd", "vault", next.vaultID, "err", err)
		}
		x.mu.Lock()
		x.pending[0] = report{}
		x.pending = x.pending[1:]
		x.mu.Unlock()
	}
}

func (x *index) head() (report, bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if len(x.pending) == 0 {
		return report{}, false
	}
	return x.pending[0], true
}

// endWaiting answers those who wait for reports that will not be posted any more.
func (x *index) endWaiting(err error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, r := range x.pending {
		if r.done != nil {
			r.done <- err
		}
	}
	x.pending = nil
}

// again tells whether a report that failed may be taken later.
func again(err error) bool {
	if err == nil {
		return false
	}
	if r, ok := errors.AsType[*RefusedError](err); ok {
		return r.Status >= http.StatusInternalServerError || r.Status == http.StatusTooManyRequests
	}
	if errors.Is(err, errUnreadable) {
		return false
	}
	return true
}

// errUnreadable means that the bucket, not lifeboatd, is what failed.
var errUnreadable = errors.New("node: points cannot be listed")

func (x *index) post(ctx context.Context, r report) error {
	body := fleet.PointReport{VaultId: r.vaultID, Points: []fleet.Point{}}
	if r.point != nil {
		body.Points = append(body.Points, pointToWire(*r.point))
	} else {
		points, damaged, err := r.vault.Repository.PointsAndDamage(ctx, r.machine)
		if err != nil {
			return fmt.Errorf("%w: machine %s: %w", errUnreadable, r.machine, err)
		}
		body.Complete, body.MachineId = true, r.machine
		for _, p := range points {
			body.Points = append(body.Points, pointToWire(p))
		}
		for _, d := range damaged {
			body.Damaged = append(body.Damaged, fleet.PointPlace{Generation: d.Generation, Sequence: d.Sequence})
		}
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	resp, err := x.client.ReportPointsWithResponse(ctx, body)
	if err != nil {
		return fmt.Errorf("report points: %w", err)
	}
	if resp.StatusCode() != http.StatusNoContent {
		return fmt.Errorf("report points: %w", refused(resp.StatusCode(), resp.JSONDefault))
	}
	return nil
}

func pointToWire(p repo.Point) fleet.Point {
	out := fleet.Point{MachineId: p.Machine, Generation: p.Generation, Sequence: p.Sequence, Time: p.Time.UTC(), Consistency: fleet.PointConsistency(p.Consistency),
		ChangedBytes: p.ChangedBytes, StoredBytes: p.StoredBytes, GroupId: p.GroupID}
	for _, d := range p.Disks {
		out.Disks = append(out.Disks, fleet.GrantDisk{Id: d.ID, SizeBytes: d.Size})
	}
	return out
}

// reconcile reports complete lists again and again: the index in SQL follows the bucket, whatever was missed.
func (n *Node) reconcile(ctx context.Context) error {
	tick := time.NewTicker(reconcileEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			for _, v := range n.vaults.all() {
				n.index.reconcile(ctx, v)
			}
		}
	}
}
