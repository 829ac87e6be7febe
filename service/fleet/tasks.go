package fleet

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/lifeboat-dr/lifeboat/service/dr"
	"github.com/lifeboat-dr/lifeboat/service/queue"
)

// Route is the queue's own, as is all that crosses the lease endpoint: it is the queue, for those who cannot reach it.
type Route = queue.Route

// Delivery is a leased task.
type Delivery = queue.Delivery

// Progress is how far a task is.
type Progress = queue.Progress

// Result is how a task ended.
type Result = queue.Result

// Failure is why a task did not succeed.
type Failure = queue.Failure

// Lease leases one task for one of the routes to the caller; nil when none came within wait. A replicator gets only tasks of
// its own site and of capabilities that it reported.
func (s *Service) Lease(ctx context.Context, c Caller, routes []Route, wait time.Duration) (*Delivery, error) {
	if err := c.allow(RoleReplicator); err != nil {
		return nil, err
	}
	if len(routes) == 0 {
		return nil, &dr.Error{Code: dr.CodeInvalid, Message: "At least one route is needed."}
	}
	rep, err := s.control.Replicator(ctx, c.ID)
	if err != nil {
		return nil, err
	}
	for _, r := range routes {
		if r.Site != rep.Site || !rep.Serves(r.Capability) {
			return nil, &dr.Error{Code: dr.CodeForbidden, Message: fmt.Sprintf("Tasks of site %q, capability %q are not this replicator's.", r.Site, r.Capability),
				PossibleCauses: "It has not reported the capability yet, or is at another site."}
		}
	}
	ctx, stop := s.untilDrained(ctx)
	defer stop()
	d, err := s.workers.Lease(ctx, c.ID, routes, wait)
	if errors.Is(err, context.Canceled) {
		return nil, nil
	}
	return d, leaseError(err)
}

// untilDrained returns a context that ends when the service drains.
func (s *Service) untilDrained(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		select {
		case <-s.draining:
			cancel()
		case <-ctx.Done():
		}
	}()
	return ctx, func() { cancel(); <-done }
}

// RenewTask keeps a lease and stores progress. cancelled tells that the task should stop; CodeFenced that the lease is lost.
func (s *Service) RenewTask(ctx context.Context, c Caller, taskID string, token int64, p Progress) (cancelled bool, err error) {
	if err := c.allow(RoleReplicator); err != nil {
		return false, err
	}
	cancelled, err = s.workers.Renew(ctx, &Delivery{Message: queue.Message{TaskID: taskID}, Token: token}, p)
	return cancelled, leaseError(err)
}

// FinishTask takes a task's result with the live token; CodeFenced when the lease is lost.
func (s *Service) FinishTask(ctx context.Context, c Caller, taskID string, token int64, r Result) error {
	if err := c.allow(RoleReplicator); err != nil {
		return err
	}
	return leaseError(s.workers.Finish(ctx, &Delivery{Message: queue.Message{TaskID: taskID}, Token: token}, r))
}

func leaseError(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, queue.ErrLeaseLost):
		return &dr.Error{Code: dr.CodeFenced, Message: "The lease of this task is lost.", PossibleCauses: "It was not renewed in time and another worker took it over, or the job moved on.",
			RecommendedAction: "Stop working on it.", Err: err}
	default:
		return &dr.Error{Code: dr.CodeUnavailable, Message: "The task queue cannot be reached.", RecommendedAction: "Try again.", Err: err}
	}
}
