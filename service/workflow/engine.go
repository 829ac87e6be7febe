package workflow

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/lifeboat-dr/lifeboat/service/control"
	"github.com/lifeboat-dr/lifeboat/service/queue"
	"github.com/lifeboat-dr/lifeboat/service/store"
)

// Options of an Engine. The zero value is what production uses.
type Options struct {
	// Name tells the engines on a store apart: an engine takes over at once from an earlier one of its own name.
	Name         string
	Lease        time.Duration // how long a leader may be silent before another engine takes over; 4 s
	Tick         time.Duration // how often waiting tasks and lost ones are looked at, besides every change of the store; 1 s
	Housekeeping time.Duration // how often health is judged; 10 s
	PruneEvery   time.Duration // how often an item's points are pruned; 15 min
	RetryFirst   time.Duration // wait before the first retry of a task, doubled each time up to RetryMost; 1 s
	RetryMost    time.Duration // 30 s
	Retries      int           // of a task, before its job fails; 10
	ProbeTimeout time.Duration // how long a started machine may take to come up; 10 min (software emulation is slow)
	StopTimeout  time.Duration // how long a guest may take to shut down; 3 min
	AgentTimeout time.Duration // how long a job waits for an agent; 15 min
	// ShutdownWait bounds each of the attempts before an unplanned failover to get the source's latest changes and to shut it
	// down; 2 min.
	ShutdownWait time.Duration
	// AnswerWait is how long an agent may take to be heard of after it was asked for something in a hurry. Its long poll ends as
	// soon as it is asked; 20 s.
	AnswerWait time.Duration
	// CaptureWait bounds the wait for the last delta of a running machine; what it misses the stopped disks give; 5 min.
	CaptureWait time.Duration
}

func (o Options) withDefaults() Options {
	for _, d := range []struct {
		v   *time.Duration
		def time.Duration
	}{{&o.Lease, 4 * time.Second}, {&o.Tick, time.Second}, {&o.Housekeeping, 10 * time.Second}, {&o.PruneEvery, 15 * time.Minute}, {&o.RetryFirst, time.Second}, {&o.RetryMost, 30 * time.Second},
		{&o.ProbeTimeout, 10 * time.Minute}, {&o.StopTimeout, 3 * time.Minute}, {&o.AgentTimeout, 15 * time.Minute}, {&o.ShutdownWait, 2 * time.Minute}, {&o.AnswerWait, 20 * time.Second}, {&o.CaptureWait, 5 * time.Minute}} {
		if *d.v <= 0 {
			*d.v = d.def
		}
	}
	if o.Retries <= 0 {
		o.Retries = 10
	}
	return o
}

// Engine moves jobs. Of those on a store one leads and works; the others wait until it falls silent (see campaign). What a
// deposed leader still tries to save or to put out is refused by the number of its term.
type Engine struct {
	store store.Store
	queue queue.Control
	opt   Options
	log   *slog.Logger
	now   func() time.Time

	wake chan struct{}

	// Of the running term; written while nothing else runs.
	number int64
	depose context.CancelFunc
}

// New returns an Engine that does nothing until Run.
func New(s store.Store, q queue.Control, opt Options, log *slog.Logger) *Engine {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Engine{store: s, queue: q, opt: opt.withDefaults(), log: log, now: func() time.Time { return time.Now().UTC() }, wake: make(chan struct{}, 1)}
}

// Run leads when it is this engine's turn, until ctx ends, and returns when all it started has stopped. Jobs stay where they are;
// the next leader goes on.
func (e *Engine) Run(ctx context.Context) {
	for first := true; ctx.Err() == nil; first = false {
		if number := e.campaign(ctx, first); number != 0 {
			e.lead(ctx, number)
		}
	}
}

// moveJobs moves jobs until ctx ends.
func (e *Engine) moveJobs(ctx context.Context) {
	changed, stop := e.store.Subscribe(control.KindJob, control.KindItem, control.KindObserved, control.KindAgent, control.KindReplicator)
	defer stop()
	tick := time.NewTicker(e.opt.Tick)
	defer tick.Stop()
	e.advanceAll(ctx)
	e.reconcile(ctx)
	for {
		select {
		case <-ctx.Done():
			return
		case <-changed:
		case <-e.wake:
		case <-tick.C:
			e.reconcile(ctx)
		}
		e.advanceAll(ctx)
	}
}

// poke makes the loop look again soon.
func (e *Engine) poke() {
	select {
	case e.wake <- struct{}{}:
	default:
	}
}

// complain logs an error of the machinery; what failed is tried again at the next tick.
func (e *Engine) complain(ctx context.Context, message string, err error, attrs ...any) {
	if ctx.Err() == nil && !errors.Is(err, errDeposed) {
		e.log.ErrorContext(ctx, message, append(attrs, "err", err)...)
	}
}

// takeResults takes what workers finished.
func (e *Engine) takeResults(ctx context.Context) {
	for ctx.Err() == nil {
		results, err := e.queue.Results(ctx, time.Second)
		if err == nil {
			err = e.saveResults(ctx, results)
		}
		if err != nil {
			e.complain(ctx, "results were not taken", err)
			select {
			case <-ctx.Done():
			case <-time.After(e.opt.Tick):
			}
		}
	}
}

// saveResults saves results, then drops them from the queue: a kill in between brings them again, and they change nothing.
func (e *Engine) saveResults(ctx context.Context, results []queue.Result) error {
	if len(results) == 0 {
		return nil
	}
	saved := make([]queue.Result, 0, len(results))
	var failed error
	for _, r := range results {
		if err := e.saveResult(ctx, r); err != nil {
			failed = err
			continue
		}
		saved = append(saved, r)
	}
	if len(saved) > 0 {
		if err := e.queue.Acknowledge(ctx, saved); err != nil {
			return err
		}
		e.poke()
	}
	return failed
}
