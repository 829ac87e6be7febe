package worker_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"slices"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/lifeboat-dr/lifeboat/replicator/compute"
	"github.com/lifeboat-dr/lifeboat/replicator/repo"
	"github.com/lifeboat-dr/lifeboat/replicator/restore"
	"github.com/lifeboat-dr/lifeboat/replicator/worker"
	"github.com/lifeboat-dr/lifeboat/service/queue"
	"github.com/lifeboat-dr/lifeboat/service/queue/embedded"
	"github.com/lifeboat-dr/lifeboat/service/queue/redisqueue"
)

func TestMain(m *testing.M) {
	// miniredis leaves a goroutine a connection until its peer has read the end.
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/alicebob/miniredis/v2/server.(*Server).servePeer"))
}

const (
	lease    = 600 * time.Millisecond
	patience = 20 * time.Second
)

var route = worker.Route{Site: "recovery", Capability: "repository"}

// bench is a queue and pools on it.
type bench struct {
	t   *testing.T
	ctx context.Context
	q   *redisqueue.Queue
	srv *embedded.Server
}

func newBench(t *testing.T) *bench {
	t.Helper()
	srv, err := embedded.Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = srv.Close() })
	ctx, stop := context.WithTimeout(t.Context(), patience)
	t.Cleanup(stop)
	return &bench{t: t, ctx: ctx, srv: srv, q: redisqueue.New(srv.Client(), redisqueue.Options{Lease: lease})}
}

// pool runs a pool until stop, which waits for it.
func (b *bench) pool(name string, q worker.Queue, handlers map[string]worker.Handler) (stop func()) {
	b.t.Helper()
	ctx, cancel := context.WithCancel(b.ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		worker.NewPool(worker.Config{Queue: q, Name: name, Routes: []worker.Lane{{Route: route, Slots: 2}}, Handlers: handlers}).Run(ctx)
	}()
	stop = func() { cancel(); <-done }
	b.t.Cleanup(stop)
	return stop
}

func (b *bench) enqueue(id, kind string) {
	b.t.Helper()
	if err := b.q.Enqueue(b.ctx, queue.Message{TaskID: id, JobID: "j", Kind: kind, Route: route, Attempt: 1, Payload: json.RawMessage(`{"n":7}`)}); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) result() queue.Result {
	b.t.Helper()
	rs, err := b.q.Results(b.ctx, patience)
	if err != nil || len(rs) != 1 {
		b.t.Fatalf("Results: got %v, %v, want one", rs, err)
	}
	if err := b.q.Acknowledge(b.ctx, rs); err != nil {
		b.t.Fatal(err)
	}
	return rs[0]
}

func (b *bench) noResult() {
	b.t.Helper()
	if rs, err := b.q.Results(b.ctx, 0); err != nil || len(rs) != 0 {
		b.t.Fatalf("Results: got %v, %v, want none", rs, err)
	}
}

func wait[T any](b *bench, c <-chan T, what string) T {
	b.t.Helper()
	select {
	case v := <-c:
		return v
	case <-b.ctx.Done():
		b.t.Fatalf("%s did not happen in time", what)
		panic("unreachable")
	}
}

// untilHeard waits until a worker listens for published cancels; one published before is missed, by contract.
func (b *bench) untilHeard() {
	b.t.Helper()
	for {
		channels, err := b.srv.Client().PubSubChannels(b.ctx, "*cancel").Result()
		if err != nil {
			b.t.Fatal(err)
		}
		if len(channels) > 0 {
			return
		}
		select {
		case <-b.ctx.Done():
			b.t.Fatal("no worker listens for cancels")
		case <-time.After(time.Millisecond):
		}
	}
}

func TestATaskIsDoneAndItsOutputDelivered(t *testing.T) {
	b := newBench(t)
	b.pool("w", b.q, map[string]worker.Handler{"double": func(_ context.Context, task *worker.Task) (any, error) {
		var p struct{ N int }
		if err := task.Decode(&p); err != nil {
			return nil, err
		}
		return map[string]int{"n": 2 * p.N}, nil
	}})
	b.enqueue("t1", "double")
	if r := b.result(); r.TaskID != "t1" || string(r.Output) != `{"n":14}` || r.Failure != nil {
		t.Fatalf("got %+v", r)
	}
}

func TestFailuresAreTold(t *testing.T) {
	b := newBench(t)
	b.pool("w", b.q, map[string]worker.Handler{
		"corrupt": func(context.Context, *worker.Task) (any, error) {
			return nil, fmt.Errorf("open: %w", &repo.CorruptError{Machine: "m", Disk: "d1", Object: "packs/x"})
		},
		"panic":  func(context.Context, *worker.Task) (any, error) { panic("a bug") },
		"output": func(context.Context, *worker.Task) (any, error) { return func() {}, nil },
		"payload": func(_ context.Context, task *worker.Task) (any, error) {
			var p struct{ N string }
			return nil, task.Decode(&p)
		},
	})
	for kind, code := range map[string]string{"corrupt": "corrupt", "panic": "internal", "output": "internal", "payload": "invalid", "unheard of": "unimplemented"} {
		b.enqueue("t-"+kind, kind)
		if r := b.result(); r.Failure == nil || r.Failure.Code != code || r.Failure.Message == "" {
			t.Errorf("%s: got %+v, want a failure with the code %s", kind, r.Failure, code)
		}
	}
}

func TestALongTaskKeepsItsLeaseAndTellsProgress(t *testing.T) {
	b := newBench(t)
	release := make(chan struct{})
	starts := make(chan struct{}, 8)
	h := map[string]worker.Handler{"long": func(ctx context.Context, task *worker.Task) (any, error) {
		starts <- struct{}{}
		task.Progress(5, 10, "half")
		select {
		case <-release:
			return struct{}{}, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}}
	b.pool("w1", b.q, h)
	b.pool("w2", b.q, h)
	b.enqueue("t1", "long")
	wait(b, starts, "the start")
	seen := time.Now()
	for time.Since(seen) < 3*lease { // the other pool looks for expired leases all the while
		p, err := b.q.Progress(b.ctx, []string{"t1"})
		if err != nil {
			t.Fatal(err)
		}
		if p["t1"].DoneBytes == 5 && time.Since(seen) > 2*lease {
			break
		}
	}
	close(release)
	if r := b.result(); r.Failure != nil {
		t.Fatalf("got %+v", r.Failure)
	}
	if len(starts) != 0 {
		t.Fatalf("the task was started %d times more", len(starts))
	}
}

func TestCancelStopsATaskBeforeItsNextRenewal(t *testing.T) {
	b := newBench(t)
	q := redisqueue.New(b.srv.Client(), redisqueue.Options{Lease: time.Hour}) // renewals are far apart
	started := make(chan struct{})
	b.pool("w", q, map[string]worker.Handler{"long": func(ctx context.Context, _ *worker.Task) (any, error) {
		close(started)
		<-ctx.Done()
		return nil, ctx.Err()
	}})
	b.enqueue("t1", "long")
	wait(b, started, "the start")
	b.untilHeard()
	if err := b.q.Cancel(b.ctx, "t1"); err != nil {
		t.Fatal(err)
	}
	if r := b.result(); r.Failure == nil || r.Failure.Message != "The task was cancelled." {
		t.Fatalf("got %+v, want it cancelled", r.Failure)
	}
}

func TestATaskCancelledBeforeItsLeaseIsNotBegun(t *testing.T) {
	b := newBench(t)
	b.enqueue("t1", "never")
	if err := b.q.Cancel(b.ctx, "t1"); err != nil {
		t.Fatal(err)
	}
	b.pool("w", b.q, map[string]worker.Handler{"never": func(context.Context, *worker.Task) (any, error) {
		t.Error("the handler ran")
		return nil, nil
	}})
	if r := b.result(); r.Failure == nil {
		t.Fatal("got success, want it cancelled")
	}
}

func TestALostLeaseStopsTheWorkAndItsResultIsNotTaken(t *testing.T) {
	b := newBench(t)
	started, stopped := make(chan struct{}), make(chan error)
	b.pool("w", b.q, map[string]worker.Handler{"long": func(ctx context.Context, _ *worker.Task) (any, error) {
		close(started)
		<-ctx.Done()
		stopped <- context.Cause(ctx)
		return "a result nobody may take", nil
	}})
	b.enqueue("t1", "long")
	wait(b, started, "the start")
	if err := b.srv.Client().FlushAll(b.ctx).Err(); err != nil {
		t.Fatal(err)
	}
	if err := wait(b, stopped, "the stop"); !errors.Is(err, queue.ErrLeaseLost) {
		t.Fatalf("the work was stopped by %v, want the lost lease", err)
	}
	b.noResult()
}

// silent is a queue whose renewals do not get through any more.
type silent struct{ worker.Queue }

func (silent) Renew(context.Context, *queue.Delivery, queue.Progress) (bool, error) {
	return false, errors.New("no route to host")
}

func TestAWorkerThatCannotRenewStopsWithinItsLease(t *testing.T) {
	b := newBench(t)
	started, stopped := make(chan time.Time, 1), make(chan time.Time)
	b.pool("cut off", silent{b.q}, map[string]worker.Handler{"long": func(ctx context.Context, _ *worker.Task) (any, error) {
		started <- time.Now()
		<-ctx.Done()
		stopped <- time.Now()
		return nil, ctx.Err()
	}})
	b.enqueue("t1", "long")
	begin := wait(b, started, "the start")
	if took := wait(b, stopped, "the stop").Sub(begin); took > 2*lease {
		t.Fatalf("the work went on for %v after the start, want at most the lease of %v and a third", took, lease)
	}
}

func TestAStoppedWorkersTaskIsResumedElsewhere(t *testing.T) {
	b := newBench(t)
	started := make(chan string, 2)
	handler := func(name string) map[string]worker.Handler {
		return map[string]worker.Handler{"long": func(ctx context.Context, _ *worker.Task) (any, error) {
			started <- name
			if name == "first" {
				<-ctx.Done()
				return nil, ctx.Err()
			}
			return struct{}{}, nil
		}}
	}
	stop := b.pool("first", b.q, handler("first"))
	b.enqueue("t1", "long")
	wait(b, started, "the start")
	stop()
	b.noResult()
	begin := time.Now()
	b.pool("second", b.q, handler("second"))
	if r := b.result(); r.Failure != nil {
		t.Fatalf("got %+v", r.Failure)
	}
	if took := time.Since(begin); took > 2*lease {
		t.Fatalf("resumed after %v, want at most twice the lease of %v", took, lease)
	}
}

func TestFailureOf(t *testing.T) {
	for _, c := range []struct {
		err  error
		code string
	}{
		{worker.ErrCancelled, "conflict"},
		{fmt.Errorf("x: %w", repo.ErrFenced), "fenced"},
		{fmt.Errorf("x: %w", repo.ErrNotFound), "not_found"},
		{fmt.Errorf("x: %w", repo.ErrConflict), "conflict"},
		{fmt.Errorf("x: %w", repo.ErrInvalid), "invalid"},
		{fmt.Errorf("x: %w", restore.ErrCorrupt), "corrupt"},
		{fmt.Errorf("x: %w", restore.ErrFull), "exhausted"},
		{fmt.Errorf("x: %w", compute.ErrRunning), "conflict"},
		{fmt.Errorf("x: %w", compute.ErrUnsupported), "unimplemented"},
		{fmt.Errorf("x: %w", compute.ErrProbe), "conflict"},
		{fmt.Errorf("x: %w", &net.OpError{Op: "dial", Err: errors.New("refused")}), "unavailable"},
		{context.DeadlineExceeded, "unavailable"},
		{errors.New("nobody foresaw this"), "internal"},
	} {
		if got := worker.FailureOf(c.err); got.Code != c.code || got.Message == "" {
			t.Errorf("FailureOf(%v): got %+v, want the code %s", c.err, got, c.code)
		}
	}
}

func TestHandlersFollowTheDrivers(t *testing.T) {
	kinds := func(tasks *worker.Tasks) (out []string) {
		for k := range tasks.Handlers() {
			out = append(out, k)
		}
		return out
	}
	if got := kinds(&worker.Tasks{}); slices.Contains(got, "instance.start") || slices.Contains(got, "home.writeback") || !slices.Contains(got, "generation.close") {
		t.Fatalf("without a hypervisor: got %v", got)
	}
}
