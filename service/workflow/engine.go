package workflow

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/lifeboat-dr/lifeboat/service/control"
	"github.com/lifeboat-dr/lifeboat/service/dr"
	"github.com/lifeboat-dr/lifeboat/service/queue"
	"github.com/lifeboat-dr/lifeboat/service/store"
)

// Options of an Engine. The zero value is what production uses.
type Options struct {
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
	}{{&o.Tick, time.Second}, {&o.Housekeeping, 10 * time.Second}, {&o.PruneEvery, 15 * time.Minute}, {&o.RetryFirst, time.Second}, {&o.RetryMost, 30 * time.Second},
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

// Engine moves jobs. One runs on a store at a time.
type Engine struct {
	store store.Store
	queue queue.Control
	opt   Options
	log   *slog.Logger
	now   func() time.Time

	pruned map[dr.ItemID]time.Time // owned by the goroutine of Run
	wake   chan struct{}
}

// New returns an Engine that does nothing until Run.
func New(s store.Store, q queue.Control, opt Options, log *slog.Logger) *Engine {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Engine{store: s, queue: q, opt: opt.withDefaults(), log: log, now: func() time.Time { return time.Now().UTC() }, pruned: map[dr.ItemID]time.Time{}, wake: make(chan struct{}, 1)}
}

// Run moves jobs until ctx ends and returns when all it started has stopped. Jobs stay where they are; the next Run goes on.
func (e *Engine) Run(ctx context.Context) {
	var wg sync.WaitGroup
	wg.Go(func() { e.takeResults(ctx) })
	defer wg.Wait()

	changed, stop := e.store.Subscribe(control.KindJob, control.KindItem, control.KindObserved, control.KindAgent, control.KindReplicator)
	defer stop()
	tick := time.NewTicker(e.opt.Tick)
	defer tick.Stop()
	keep := time.NewTicker(e.opt.Housekeeping)
	defer keep.Stop()
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
		case <-keep.C:
			e.judgeAll(ctx)
			e.schedulePrunes(ctx)
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

// advanceAll moves every open job as far as it goes now.
func (e *Engine) advanceAll(ctx context.Context) {
	var ids []string
	if err := e.store.View(ctx, func(tx store.Tx) (err error) {
		ids, err = control.OpenJobs(tx)
		return err
	}); err != nil {
		e.complain(ctx, "open jobs were not read", err)
		return
	}
	for _, id := range ids {
		if ctx.Err() != nil {
			return
		}
		if err := e.advance(ctx, id); err != nil {
			e.complain(ctx, "job was not moved", err, "job", id)
		}
	}
}

// complain logs an error of the machinery; what failed is tried again at the next tick.
func (e *Engine) complain(ctx context.Context, message string, err error, attrs ...any) {
	if ctx.Err() == nil {
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
