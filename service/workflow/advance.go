package workflow

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/lifeboat-dr/lifeboat/service/control"
	"github.com/lifeboat-dr/lifeboat/service/dr"
	"github.com/lifeboat-dr/lifeboat/service/job"
	"github.com/lifeboat-dr/lifeboat/service/queue"
	"github.com/lifeboat-dr/lifeboat/service/store"
)

// itemGone is why a job fails whose item vanished without a job that says so.
var itemGone = job.Error{Code: string(dr.CodeNotFound), Message: "the protected item is gone", PossibleCauses: "it was removed while the job ran", RecommendedAction: "nothing needs to be done"}

// next tells what is to be done after a transaction.
type next struct {
	again   bool           // look at the job again at once
	message *queue.Message // to be put into the queue
	cancel  string         // task to be cancelled in the queue
}

// advance moves one job as far as it goes now.
func (e *Engine) advance(ctx context.Context, id string) error {
	for {
		var n next
		err := e.update(ctx, func(tx store.Tx) error {
			n = next{}
			r, err := e.load(tx, id)
			if err != nil || r == nil {
				return err
			}
			n, err = e.move(r)
			return err
		})
		if err != nil {
			return err
		}
		if n.cancel != "" {
			return e.queue.Cancel(ctx, n.cancel)
		}
		if n.message != nil {
			// When this fails the queue does not know the task, and reconcile puts it out again.
			return e.queue.Enqueue(ctx, *n.message)
		}
		if !n.again {
			return nil
		}
	}
}

// load reads a job that has not ended with all it needs; nil when there is none.
func (e *Engine) load(tx store.Tx, id string) (*run, error) {
	j, ok, err := control.LoadOpenJob(tx, id)
	if err != nil || !ok {
		return nil, err
	}
	r := &run{tx: tx, now: e.now(), opt: e.opt, job: &j}
	if r.req, err = control.DecodeRequest(&j); err != nil {
		return nil, fmt.Errorf("decode request of job %s: %w", id, err)
	}
	if len(j.Work) > 0 {
		if err := json.Unmarshal(j.Work, &r.work); err != nil {
			return nil, fmt.Errorf("decode work of job %s: %w", id, err)
		}
	}
	if r.work.Tried == nil {
		r.work.Tried = map[string]bool{}
	}
	if j.Item != "" {
		it, err := control.LoadItem(tx, dr.ItemID(j.Item))
		switch {
		case err == nil:
			r.item = &it
		case dr.CodeOf(err) != dr.CodeNotFound:
			return nil, err
		default:
			r.item, r.gone = r.work.Item, true
		}
	}
	r.task = j.Current()
	return r, nil
}

// save writes what changed. The item goes first: ending the job reads it.
func (r *run) save() error {
	if err := r.saveItem(); err != nil {
		return err
	}
	if err := r.saveWork(); err != nil {
		return err
	}
	return control.SaveJob(r.tx, r.job)
}

func (r *run) saveItem() error {
	if !r.dirtyItem || r.item == nil {
		return nil
	}
	r.dirtyItem = false
	if r.gone {
		r.work.Item = r.item
		return nil
	}
	return control.SaveItem(r.tx, r.item, r.now)
}

func (r *run) saveWork() error {
	w, err := json.Marshal(r.work)
	r.job.Work = w
	return err
}

// end ends the job.
func (r *run) end(state job.State) error {
	if err := r.saveItem(); err != nil {
		return err
	}
	if err := r.saveWork(); err != nil {
		return err
	}
	return control.EndJob(r.tx, r.job, state, r.now)
}

// move does one thing for the job.
func (e *Engine) move(r *run) (next, error) {
	switch {
	case r.job.State == job.Suspended:
		return next{}, nil
	case r.task == nil:
		return next{}, r.finish()
	case r.job.Cancelling():
		if r.task.State == job.InProgress && r.task.Kind != "" && r.task.RetryAt.IsZero() {
			return next{cancel: control.TaskID(r.job.ID, r.task.ID)}, nil
		}
		return next{}, r.cancelled()
	case r.itemMissing():
		return next{}, r.itemGone()
	}
	s, ok := r.step()
	if !ok {
		return next{}, r.fail(job.Error{Code: string(dr.CodeInternal), Message: fmt.Sprintf("there is no code for task %s of plan %s", r.task.ID, r.job.Plan)})
	}
	running := r.task.State == job.InProgress
	if r.job.Gate == r.task.ID && r.task.State == job.NotStarted {
		return next{}, nil // until the job of the recovery plan opens the gate
	}
	if s.control != nil {
		return e.moveControl(r, s, running)
	}
	if running && (r.task.RetryAt.IsZero() || r.now.Before(r.task.RetryAt)) {
		return next{}, nil
	}
	return e.enqueue(r, s)
}

func (e *Engine) moveControl(r *run, s step, running bool) (next, error) {
	if !running {
		r.task.State, r.task.Started = job.InProgress, r.now
	}
	out, err := s.control(r)
	switch {
	case err != nil:
		return next{}, err
	case out.err != nil:
		return next{}, r.fail(jobError(out.err))
	case out.wait:
		if running && !r.dirtyItem && !r.dirtyJob {
			return next{}, nil // nothing to save: saving would wake us again
		}
		return next{}, r.save()
	case out.passed:
		r.task.State, r.task.Ended, r.task.Passed = job.Failed, r.now, true
	default:
		r.succeed(out.skipped)
	}
	return next{again: true}, r.save()
}

// enqueue puts the worker's task out, or skips it when there is nothing to do.
func (e *Engine) enqueue(r *run, s step) (next, error) {
	p, err := s.payload(r)
	if err != nil {
		return next{}, err
	}
	if r.task.Started.IsZero() {
		r.task.Started = r.now
	}
	if p == nil {
		r.succeed(true)
		return next{again: true}, r.save()
	}
	m, err := e.message(r, s, p)
	if err != nil {
		return next{}, err
	}
	r.task.State, r.task.RetryAt = job.InProgress, time.Time{}
	r.task.Attempt = m.Attempt
	r.task.Site, r.task.Capability = m.Route.Site, m.Route.Capability
	r.work.Tried[r.task.ID] = true
	return next{message: m}, r.save()
}

func (e *Engine) message(r *run, s step, payload any) (*queue.Message, error) {
	body, err := json.Marshal(payload)
	if err != nil {
		return nil, err
	}
	route := s.route
	if route == nil {
		route = repositoryRoute
	}
	site, capability, err := route(r)
	if err != nil {
		return nil, err
	}
	return &queue.Message{Term: e.number, TaskID: control.TaskID(r.job.ID, r.task.ID), JobID: r.job.ID, Kind: r.task.Kind, Route: queue.Route{Site: site, Capability: capability},
		Attempt: r.task.Attempt + 1, Payload: body}, nil
}

// succeed marks the running task.
func (r *run) succeed(skipped bool) {
	r.task.State, r.task.Ended, r.task.RetryAt, r.task.Skipped = job.Succeeded, r.now, time.Time{}, skipped
	if skipped && r.task.Description == "" {
		r.task.Description = "Skipped"
	}
}

// fail ends the job because its task failed, unless its recovery plan goes on after failures.
func (r *run) fail(f job.Error) error {
	if r.task != nil {
		r.task.State, r.task.Ended, f.TaskID = job.Failed, r.now, r.task.ID
	}
	r.complain(f)
	if r.goesOn() {
		r.task.Passed = true
		return r.save()
	}
	if err := r.dropMachines(); err != nil {
		return err
	}
	return r.end(job.Failed)
}

// complain keeps an error with the job.
func (r *run) complain(f job.Error) {
	f.Level, f.Created = dr.LevelError, r.now
	r.job.Errors = append(r.job.Errors, f)
}

// finish ends a job that has no task left. What a recovery plan went on after makes its job failed all the same.
func (r *run) finish() error {
	for _, t := range r.job.Tasks {
		if t.Passed {
			return r.end(job.Failed)
		}
	}
	return r.end(job.Succeeded)
}

// inform says something about the running task that did not go as wished and need not stop it.
func (r *run) inform(message, causes, action string) {
	r.task.Description = "CompletedWithInformation"
	r.job.Errors = append(r.job.Errors, job.Error{TaskID: r.task.ID, Code: string(dr.CodeUnavailable), Message: message, PossibleCauses: causes, RecommendedAction: action,
		Level: dr.LevelWarning, Created: r.now})
}

func (r *run) cancelled() error {
	r.task.State, r.task.Ended = job.Cancelled, r.now
	if err := r.dropMachines(); err != nil {
		return err
	}
	return r.end(job.Cancelled)
}

// itemMissing tells whether the item that the job is about is no longer there.
func (r *run) itemMissing() bool { return r.item == nil && r.job.Item != "" }

// itemGone ends a job whose item is no longer there. Housekeeping has no point then.
func (r *run) itemGone() error {
	if r.job.Cancelling() || r.job.Internal {
		return r.cancelled()
	}
	return r.fail(itemGone)
}

func jobError(e *dr.Error) job.Error {
	return job.Error{Code: string(e.Code), Message: e.Message, PossibleCauses: e.PossibleCauses, RecommendedAction: e.RecommendedAction}
}

// saveResult takes one result. It counts only for the attempt that is running: whoever worked on an older one was replaced.
func (e *Engine) saveResult(ctx context.Context, res queue.Result) error {
	jobID, taskID, ok := control.SplitTaskID(res.TaskID)
	if !ok {
		return nil
	}
	return e.update(ctx, func(tx store.Tx) error {
		r, err := e.load(tx, jobID)
		if err != nil || r == nil || r.task == nil || r.task.ID != taskID {
			return err
		}
		if r.task.State != job.InProgress || !r.task.RetryAt.IsZero() || res.Token <= r.task.Token || res.Token>>attemptShift != r.task.Attempt {
			return nil
		}
		if r.itemMissing() {
			return r.itemGone()
		}
		r.task.Token = res.Token
		s, _ := r.step()
		if res.Failure != nil {
			return e.failure(r, s, res.Failure)
		}
		r.task.Output = res.Output
		if s.apply != nil {
			if err := s.apply(r, res.Output); err != nil {
				return err
			}
		}
		r.succeed(false)
		return r.save()
	})
}

// attemptShift is where the attempt sits in a fencing token.
const attemptShift = 20

// failure decides what a worker's failure means: retry, excuse, cancelled or failed.
func (e *Engine) failure(r *run, s step, f *queue.Failure) error {
	je := job.Error{Code: f.Code, Message: f.Message, PossibleCauses: f.PossibleCauses, RecommendedAction: f.RecommendedAction}
	if r.job.Cancelling() {
		return r.cancelled()
	}
	late := s.patience != nil && r.waited() > s.patience(e.opt)
	if dr.Retryable(&dr.Error{Code: dr.Code(f.Code)}) && !late && (r.task.Retries < e.opt.Retries || r.job.Plan == job.PlanReleasePoint) { // a pin left behind would stay for ever
		wait := min(e.opt.RetryMost, e.opt.RetryFirst<<min(r.task.Retries, 16))
		r.task.Retries++
		r.task.RetryAt = r.now.Add(wait)
		r.task.Progress.Note = f.Message
		return r.save()
	}
	if s.excuse != nil {
		s.excuse(r, je)
		r.succeed(true)
		return r.save()
	}
	return r.fail(je)
}
