// Package leasequeue is the workers' side of the task queue for a replicator that cannot reach Redis: every call goes to
// lifeboatd's lease endpoint over the fleet protocol. The server takes the caller's certificate for the worker's name.
package leasequeue

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/lifeboat-dr/lifeboat/sdk/fleet"
	"github.com/lifeboat-dr/lifeboat/service/queue"
)

// longestWait bounds one long poll, well below what proxies and idle timers allow.
const longestWait = 25 * time.Second

// callTimeout bounds a call beside what it waits for.
const callTimeout = 15 * time.Second

// Queue implements queue.Workers. Safe for concurrent use.
type Queue struct {
	client fleet.ClientWithResponsesInterface
}

// New returns a Queue on a client whose HTTP client shows the replicator's certificate.
func New(client fleet.ClientWithResponsesInterface) *Queue { return &Queue{client: client} }

// RefusedError is a refusal of the lease endpoint other than a lost lease.
type RefusedError struct {
	Status  int
	Code    string
	Message string
}

func (e *RefusedError) Error() string {
	return fmt.Sprintf("lifeboatd refused (%d %s): %s", e.Status, e.Code, e.Message)
}

// Lease implements queue.Workers. The protocol counts seconds, so wait is rounded to them.
func (q *Queue) Lease(ctx context.Context, _ string, routes []queue.Route, wait time.Duration) (*queue.Delivery, error) {
	body := fleet.LeaseRequest{}
	for _, r := range routes {
		body.Routes = append(body.Routes, fleet.Route{Site: r.Site, Capability: r.Capability})
	}
	end := time.Now().Add(wait)
	for {
		left := min(time.Until(end), longestWait)
		d, err := q.leaseOnce(ctx, body, max(left, 0).Round(time.Second))
		if d != nil || err != nil || time.Until(end) < time.Second {
			return d, err
		}
	}
}

func (q *Queue) leaseOnce(ctx context.Context, body fleet.LeaseRequest, wait time.Duration) (*queue.Delivery, error) {
	ctx, cancel := context.WithTimeout(ctx, wait+callTimeout)
	defer cancel()
	resp, err := q.client.LeaseTaskWithResponse(ctx, &fleet.LeaseTaskParams{WaitSeconds: int(wait / time.Second)}, body)
	if err != nil {
		return nil, fmt.Errorf("lease a task: %w", err)
	}
	switch {
	case resp.StatusCode() == http.StatusNoContent:
		return nil, nil
	case resp.JSON200 == nil:
		return nil, fmt.Errorf("lease a task: %w", refused(resp.StatusCode(), resp.JSONDefault))
	}
	t := resp.JSON200
	lease := time.Duration(t.LeaseMillis) * time.Millisecond
	if lease <= 0 {
		return nil, fmt.Errorf("lease a task: task %s has a lease of %d ms", t.TaskId, t.LeaseMillis)
	}
	return &queue.Delivery{
		Message: queue.Message{TaskID: t.TaskId, JobID: t.JobId, Kind: t.Kind, Attempt: t.Attempt, Payload: t.Payload,
			Route: queue.Route{Site: t.Route.Site, Capability: t.Route.Capability}},
		Token: t.Token, Cancelled: t.Cancelled, Lease: lease,
	}, nil
}

// Renew implements queue.Workers.
func (q *Queue) Renew(ctx context.Context, d *queue.Delivery, p queue.Progress) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	resp, err := q.client.RenewTaskWithResponse(ctx, d.TaskID, fleet.TaskRenewal{Token: d.Token,
		Progress: fleet.Progress{DoneBytes: p.DoneBytes, TotalBytes: p.TotalBytes, Note: p.Note}})
	if err != nil {
		return false, fmt.Errorf("renew task %s: %w", d.TaskID, err)
	}
	if resp.JSON200 == nil {
		return false, fmt.Errorf("renew task %s: %w", d.TaskID, refused(resp.StatusCode(), resp.JSONDefault))
	}
	return resp.JSON200.Cancelled, nil
}

// Finish implements queue.Workers.
func (q *Queue) Finish(ctx context.Context, d *queue.Delivery, r queue.Result) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	body := fleet.TaskResult{Token: d.Token}
	if f := r.Failure; f != nil {
		body.Error = fleet.Error{Code: f.Code, Message: f.Message, PossibleCauses: f.PossibleCauses, RecommendedAction: f.RecommendedAction}
	} else if len(r.Output) > 0 {
		body.Result = r.Output
	}
	resp, err := q.client.FinishTaskWithResponse(ctx, d.TaskID, body)
	if err != nil {
		return fmt.Errorf("finish task %s: %w", d.TaskID, err)
	}
	if resp.StatusCode() != http.StatusNoContent {
		return fmt.Errorf("finish task %s: %w", d.TaskID, refused(resp.StatusCode(), resp.JSONDefault))
	}
	return nil
}

// fenced is the protocol's code for a lost lease.
const fenced = "fenced"

func refused(status int, body *fleet.Refused) error {
	if body == nil {
		return &RefusedError{Status: status, Code: "internal", Message: "the answer is not one of the protocol's"}
	}
	if status == http.StatusConflict && body.Error.Code == fenced {
		return queue.ErrLeaseLost
	}
	return &RefusedError{Status: status, Code: body.Error.Code, Message: body.Error.Message}
}
