// Package worker leases tasks and does them: what jobs ask of the repository, of the hypervisor and of the machines at home. A
// task may have been begun by another worker that was killed anywhere, so each kind starts by looking at what is already true.
// It never decides what comes next, and it stops as soon as its lease is no longer its own.
package worker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync"
	"time"

	"github.com/lifeboat-dr/lifeboat/service/queue"
)

const (
	leaseWait   = 20 * time.Second // one wait for a task; the next follows at once
	backoffLow  = 200 * time.Millisecond
	backoffHigh = 5 * time.Second
	finishEvery = 500 * time.Millisecond // between tries to deliver a result
)

// ErrCancelled is the cause of a task's context when a person cancelled its job.
var ErrCancelled = errors.New("worker: the job was cancelled")

type (
	// Queue is where tasks come from; the queue's own, so that who assembles a Pool need not import it.
	Queue = queue.Workers
	// Route is the queue's own too.
	Route = queue.Route
)

// Handler does one kind of task. Its output becomes the task's output as JSON; its error is mapped to a failure by FailureOf.
type Handler func(ctx context.Context, t *Task) (output any, err error)

// Task is what a handler works on.
type Task struct {
	queue.Message
	Log *slog.Logger

	mu       sync.Mutex
	progress queue.Progress
}

// Decode reads the payload. Its error is a Fault with the code invalid.
func (t *Task) Decode(payload any) error {
	if err := json.Unmarshal(t.Payload, payload); err != nil {
		return &Fault{Code: codeInvalid, Message: fmt.Sprintf("The payload of %s cannot be read.", t.Kind), Err: err}
	}
	return nil
}

// Progress tells how far the task is; it travels with the next renewal of the lease. Safe for concurrent use.
func (t *Task) Progress(done, total int64, note string) {
	t.mu.Lock()
	t.progress = queue.Progress{DoneBytes: done, TotalBytes: total, Note: note}
	t.mu.Unlock()
}

func (t *Task) current() queue.Progress {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.progress
}

// Config wires a Pool. All fields but Log are required.
type Config struct {
	Queue    queue.Workers
	Name     string // of this worker in the queue
	Routes   []Lane
	Handlers map[string]Handler // by kind
	Log      *slog.Logger
}

// Lane is a route and how many of its tasks run at once here. Lanes do not wait for each other.
type Lane struct {
	Route queue.Route
	Slots int
}

// Pool leases tasks until its context ends.
type Pool struct {
	cfg Config
	log *slog.Logger

	mu      sync.Mutex
	running map[string]func() // renews the lease of a running task now, by task id
}

// NewPool returns a Pool; Run starts it.
func NewPool(c Config) *Pool {
	log := c.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Pool{cfg: c, log: log, running: map[string]func(){}}
}

// Run works until ctx ends, then stops what runs and waits for it. Tasks that were stopped so are not finished: another worker
// resumes them when their lease ends.
func (p *Pool) Run(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	if n, ok := p.cfg.Queue.(queue.Notifier); ok {
		wg.Go(func() { p.hearCancels(ctx, n) })
	}
	for _, lane := range p.cfg.Routes {
		for slot := range lane.Slots {
			name := fmt.Sprintf("%s-%s-%d", p.cfg.Name, lane.Route.Capability, slot)
			wg.Go(func() { p.slot(ctx, name, lane.Route) })
		}
	}
}

// hearCancels hurries the renewal of tasks whose cancel was published. Missing one only means that the next renewal tells it.
func (p *Pool) hearCancels(ctx context.Context, n queue.Notifier) {
	for ctx.Err() == nil {
		heard, err := n.Cancels(ctx)
		if err == nil {
			for id := range heard {
				p.mu.Lock()
				renew := p.running[id]
				p.mu.Unlock()
				if renew != nil {
					renew()
				}
			}
		}
		pause(ctx, backoffHigh)
	}
}

func (p *Pool) slot(ctx context.Context, name string, route queue.Route) {
	backoff := backoffLow
	for ctx.Err() == nil {
		d, err := p.cfg.Queue.Lease(ctx, name, []queue.Route{route}, leaseWait)
		if err != nil {
			if ctx.Err() != nil {
				return
			}
			p.log.Warn("no task could be leased", "route", route.Capability, "err", err)
			pause(ctx, backoff)
			backoff = min(2*backoff, backoffHigh)
			continue
		}
		backoff = backoffLow
		if d != nil {
			p.do(ctx, d)
		}
	}
}

// do runs one delivery to its end: a result taken, the lease lost, or ctx ended.
func (p *Pool) do(ctx context.Context, d *queue.Delivery) {
	log := p.log.With("task", d.TaskID, "job", d.JobID, "kind", d.Kind)
	t := &Task{Message: d.Message, Log: log}
	work, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)

	now := make(chan struct{}, 1)
	p.mu.Lock()
	p.running[d.TaskID] = func() {
		select {
		case now <- struct{}{}:
		default: // a renewal is due already
		}
	}
	p.mu.Unlock()
	var keeper sync.WaitGroup
	keeperCtx, stopKeeper := context.WithCancel(ctx)
	keeper.Go(func() { p.keep(keeperCtx, d, t, now, cancel) })
	defer func() {
		stopKeeper()
		keeper.Wait()
		p.mu.Lock()
		delete(p.running, d.TaskID)
		p.mu.Unlock()
	}()

	if d.Cancelled {
		cancel(ErrCancelled)
	}
	start := time.Now()
	log.Info("task started", "token", d.Token)
	output, err := p.call(work, t)
	cause := context.Cause(work)
	switch {
	case ctx.Err() != nil && err != nil:
		log.Info("task left for another worker", "dur", time.Since(start))
		return
	case errors.Is(cause, queue.ErrLeaseLost):
		log.Warn("lease lost, work stopped", "dur", time.Since(start))
		return
	case err != nil && errors.Is(cause, ErrCancelled):
		err = errors.Join(ErrCancelled, err)
	}
	result := queue.Result{}
	if err == nil {
		if result.Output, err = json.Marshal(output); err != nil {
			err = fmt.Errorf("encode output of %s: %w", t.Kind, err)
		}
	}
	if err != nil {
		f := FailureOf(err)
		result = queue.Result{Failure: &f}
		log.Warn("task failed", "dur", time.Since(start), "code", f.Code, "err", err)
	} else {
		log.Info("task done", "dur", time.Since(start))
	}
	p.finish(ctx, work, d, result, log)
}

// call runs the handler. A panic of one task must not end all others, nor come back with every redelivery as a crash.
func (p *Pool) call(ctx context.Context, t *Task) (output any, err error) {
	defer func() {
		if r := recover(); r != nil {
			t.Log.Error("task panicked", "err", fmt.Sprint(r), "stack", string(debug.Stack()))
			err = &Fault{Code: codeInternal, Message: "The task met an error of the program.", Err: fmt.Errorf("panic: %v", r)}
		}
	}()
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	h := p.cfg.Handlers[t.Kind]
	if h == nil {
		return nil, &Fault{Code: codeUnimplemented, Message: fmt.Sprintf("This replicator cannot do tasks of kind %s.", t.Kind),
			RecommendedAction: "Use a replicator of the same version as lifeboatd that has the driver."}
	}
	return h(ctx, t)
}

// keep renews the lease until ctx ends, and cancels the work when the lease is lost, when nothing was renewed for a whole
// lease, or when cancel was asked.
func (p *Pool) keep(ctx context.Context, d *queue.Delivery, t *Task, now <-chan struct{}, cancel context.CancelCauseFunc) {
	tick := time.NewTicker(d.Lease / 3)
	defer tick.Stop()
	held := time.Now().Add(d.Lease) // the lease is ours until then for certain
	for {
		select {
		case <-ctx.Done():
			return
		case <-now:
		case <-tick.C:
		}
		begin := time.Now()
		call, stop := context.WithDeadline(ctx, held)
		cancelled, err := p.cfg.Queue.Renew(call, d, t.current())
		stop()
		switch {
		case ctx.Err() != nil:
			return
		case err == nil:
			held = begin.Add(d.Lease)
		case errors.Is(err, queue.ErrLeaseLost), !time.Now().Before(held):
			cancel(queue.ErrLeaseLost)
			return
		default:
			t.Log.Warn("lease could not be renewed yet", "err", err)
		}
		if cancelled {
			cancel(ErrCancelled)
		}
	}
}

// finish delivers the result, again and again until it is taken or the lease is lost, which work's cause tells. A result
// outlives a shutdown by one more try: work that is done should not be done again.
func (p *Pool) finish(ctx, work context.Context, d *queue.Delivery, r queue.Result, log *slog.Logger) {
	for {
		call, stop := context.WithTimeout(context.WithoutCancel(ctx), d.Lease)
		err := p.cfg.Queue.Finish(call, d, r)
		stop()
		switch {
		case err == nil:
			return
		case errors.Is(err, queue.ErrLeaseLost), errors.Is(context.Cause(work), queue.ErrLeaseLost):
			log.Warn("result not taken, lease lost")
			return
		case ctx.Err() != nil:
			log.Warn("result not delivered before the stop", "err", err)
			return
		}
		log.Warn("result could not be delivered yet", "err", err)
		pause(ctx, finishEvery)
	}
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}
