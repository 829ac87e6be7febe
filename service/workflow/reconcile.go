package workflow

import (
	"context"
	"fmt"

	"github.com/lifeboat-dr/lifeboat/service/control"
	"github.com/lifeboat-dr/lifeboat/service/dr"
	"github.com/lifeboat-dr/lifeboat/service/job"
	"github.com/lifeboat-dr/lifeboat/service/queue"
	"github.com/lifeboat-dr/lifeboat/service/store"
)

// reconcile puts tasks out again that the queue has forgotten, gives up on those that may not take so long, and repeats
// cancellations. It runs on the goroutine that enqueues, so that a task cannot be between the store and the queue.
func (e *Engine) reconcile(ctx context.Context) {
	running, err := e.runningTasks(ctx)
	if err != nil {
		e.complain(ctx, "running tasks were not read", err)
		return
	}
	if len(running) == 0 {
		return
	}
	ids := make([]string, 0, len(running))
	for id := range running {
		ids = append(ids, id)
	}
	known, err := e.queue.Known(ctx, ids)
	if err != nil {
		e.complain(ctx, "queue was not asked", err)
		return
	}
	for id, t := range running {
		if err := e.reconcileTask(ctx, id, t, known[id]); err != nil {
			e.complain(ctx, "task was not reconciled", err, "task", id)
		}
	}
}

// runningTask is a worker's task as it was read.
type runningTask struct {
	job     string
	attempt int64
}

func (e *Engine) runningTasks(ctx context.Context) (map[string]runningTask, error) {
	out := map[string]runningTask{}
	err := e.store.View(ctx, func(tx store.Tx) error {
		ids, err := control.OpenJobs(tx)
		if err != nil {
			return err
		}
		for _, id := range ids {
			j, ok, err := control.LoadOpenJob(tx, id)
			if err != nil {
				return err
			}
			if t := j.Current(); ok && t != nil && t.Kind != "" && t.State == job.InProgress && t.RetryAt.IsZero() {
				out[control.TaskID(id, t.ID)] = runningTask{id, t.Attempt}
			}
		}
		return nil
	})
	return out, err
}

func (e *Engine) reconcileTask(ctx context.Context, id string, was runningTask, known bool) error {
	idle := false
	if err := e.store.View(ctx, func(tx store.Tx) error {
		p := &probe{Tx: tx}
		o, err := e.reconsider(p, id, was, known)
		idle = err == nil && !p.saves && o == (finding{})
		return nil
	}); err != nil || idle {
		return err
	}
	var o finding
	if err := e.update(ctx, func(tx store.Tx) (err error) {
		o, err = e.reconsider(tx, id, was, known)
		return err
	}); err != nil {
		return err
	}
	if o.drop {
		return e.queue.Cancel(ctx, id)
	}
	if o.message != nil {
		e.log.WarnContext(ctx, "lost task put out again", "job", was.job, "task", id, "attempt", o.message.Attempt)
		return e.queue.Enqueue(ctx, *o.message)
	}
	return nil
}

// finding is what is to be done with a running task after a transaction.
type finding struct {
	message *queue.Message // to be put out again
	drop    bool           // its worker is to stop
}

// reconsider decides about a task that was running.
func (e *Engine) reconsider(tx store.Tx, id string, was runningTask, known bool) (finding, error) {
	r, err := e.load(tx, was.job)
	if err != nil || r == nil || r.task == nil || control.TaskID(was.job, r.task.ID) != id || r.task.Attempt != was.attempt || r.task.State != job.InProgress || !r.task.RetryAt.IsZero() {
		return finding{}, err // its result came meanwhile
	}
	s, _ := r.step()
	if s.patience != nil && r.waited() > s.patience(e.opt) && r.item != nil {
		s.excuse(r, job.Error{Code: string(dr.CodeUnavailable), Message: "it took too long"})
		r.succeed(true)
		return finding{drop: known}, r.save()
	}
	if s.limit != nil && r.waited() > s.limit(r) {
		return finding{drop: known}, r.fail(job.Error{Code: string(dr.CodeUnavailable), Message: fmt.Sprintf("%s did not end within %s", r.task.FriendlyName, s.limit(r)),
			PossibleCauses: "nobody who can do it is connected, or it hangs", RecommendedAction: "look at who should have done it, then restart the job"})
	}
	switch {
	case known:
		return finding{}, nil
	case r.job.Cancelling():
		return finding{}, r.cancelled()
	case r.itemMissing():
		return finding{}, r.itemGone()
	}
	p, err := s.payload(r)
	if err != nil {
		return finding{}, err
	}
	if p == nil {
		r.succeed(true)
		return finding{}, r.save()
	}
	m, err := e.message(r, s, p)
	if err != nil {
		return finding{}, err
	}
	r.task.Attempt, r.task.Site, r.task.Capability = m.Attempt, m.Route.Site, m.Route.Capability
	return finding{message: m}, r.save()
}
