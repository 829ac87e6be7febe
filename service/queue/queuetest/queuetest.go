// Package queuetest is the suite that every queue passes: redisqueue on a real Redis, the embedded server, and the lease
// endpoint. It knows the contract of service/queue and nothing of how a queue keeps it.
package queuetest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/lifeboat-dr/lifeboat/service/queue"
)

// Harness is one fresh, empty queue.
type Harness struct {
	Workers queue.Workers
	Control queue.Control
	Lease   time.Duration               // the queue's lease time; short, such as 300 ms
	Flush   func(context.Context) error // loses everything the queue holds
}

// patience bounds every wait of the suite.
const patience = 20 * time.Second

// Run runs the suite. start makes a queue that is cleaned up with t.
func Run(t *testing.T, start func(t *testing.T) Harness) {
	tests := []struct {
		name string
		fn   func(t *testing.T, s suite)
	}{
		{"a message is leased, renewed and finished", lifeOfATask},
		{"no message means nil after the wait", emptyWait},
		{"a waiting worker gets a message at once", wakesUp},
		{"a second enqueue of the same attempt changes nothing", enqueueTwice},
		{"a newer attempt replaces the older one and fences its worker", newerAttempt},
		{"a message of a term that is over is not taken", oldTerm},
		{"messages go only to their route", routesAreApart},
		{"several waiting messages of several routes are each leased once", severalRoutes},
		{"the lease of a silent worker is taken over with a higher token", takeOver},
		{"a renewed lease is not taken over", renewKeeps},
		{"cancel is seen at renew and at lease", cancel},
		{"progress is read by the control plane", progress},
		{"results come again until acknowledged", results},
		{"a failure crosses whole", failure},
		{"finishing twice stores one result", finishTwice},
		{"losing everything costs time only", flush},
		{"many workers do each task", manyWorkers},
		{"a lease ends with its context", leaseContext},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			ctx, stop := context.WithTimeout(t.Context(), patience)
			defer stop()
			tt.fn(t, suite{Harness: start(t), ctx: ctx})
		})
	}
}

type suite struct {
	Harness
	ctx context.Context // of one test; the suite's methods are its helpers
}

var home = queue.Route{Site: "recovery", Capability: "repository"}

func message(id string) queue.Message {
	return queue.Message{TaskID: id, JobID: "job-" + id, Kind: "point.pin", Route: home, Attempt: 1, Payload: json.RawMessage(`{"a":1}`)}
}

func (s suite) enqueue(t *testing.T, m queue.Message) {
	t.Helper()
	if err := s.Control.Enqueue(s.ctx, m); err != nil {
		t.Fatalf("Enqueue(%s): %v", m.TaskID, err)
	}
}

func oldTerm(t *testing.T, s suite) {
	for _, m := range []struct {
		id   string
		term int64
	}{{"a", 7}, {"late", 6}, {"b", 7}} {
		msg := message(m.id)
		msg.Term = m.term
		s.enqueue(t, msg)
	}
	known, err := s.Control.Known(s.ctx, []string{"a", "late", "b"})
	if err != nil || !known["a"] || !known["b"] || known["late"] {
		t.Errorf("got %v, %v, want all but the late one", known, err)
	}
}

func (s suite) take(t *testing.T, worker string, routes ...queue.Route) *queue.Delivery {
	t.Helper()
	if len(routes) == 0 {
		routes = []queue.Route{home}
	}
	for s.ctx.Err() == nil {
		d, err := s.Workers.Lease(s.ctx, worker, routes, time.Second)
		if err != nil {
			t.Fatalf("Lease: %v", err)
		}
		if d != nil {
			return d
		}
	}
	t.Fatal("no message within the test's time")
	return nil
}

func (s suite) none(t *testing.T, worker string, wait time.Duration, routes ...queue.Route) {
	t.Helper()
	if len(routes) == 0 {
		routes = []queue.Route{home}
	}
	d, err := s.Workers.Lease(s.ctx, worker, routes, wait)
	if err != nil || d != nil {
		t.Fatalf("Lease: got %+v, %v, want no message", d, err)
	}
}

func (s suite) finish(t *testing.T, d *queue.Delivery, output string) {
	t.Helper()
	if err := s.Workers.Finish(s.ctx, d, queue.Result{Output: json.RawMessage(output)}); err != nil {
		t.Fatalf("Finish(%s): %v", d.TaskID, err)
	}
}

func (s suite) wantResults(t *testing.T, ids ...string) []queue.Result {
	t.Helper()
	rs, err := s.Control.Results(s.ctx, 5*time.Second)
	if err != nil {
		t.Fatalf("Results: %v", err)
	}
	var got []string
	for _, r := range rs {
		got = append(got, r.TaskID)
	}
	if !slices.Equal(got, ids) {
		t.Fatalf("Results: got %v, want %v", got, ids)
	}
	return rs
}

func (s suite) wantKnown(t *testing.T, id string, want bool) {
	t.Helper()
	got, err := s.Control.Known(s.ctx, []string{id})
	if err != nil || got[id] != want {
		t.Fatalf("Known(%s): got %v, %v, want %v", id, got[id], err, want)
	}
}

func lifeOfATask(t *testing.T, s suite) {
	s.wantKnown(t, "t1", false)
	s.enqueue(t, message("t1"))
	s.wantKnown(t, "t1", true)
	d := s.take(t, "w1")
	want := message("t1")
	if d.TaskID != want.TaskID || d.JobID != want.JobID || d.Kind != want.Kind || string(d.Payload) != string(want.Payload) {
		t.Fatalf("Lease: got %+v, want %+v", d.Message, want)
	}
	if d.Token>>20 != 1 || d.Cancelled || d.Lease != s.Lease {
		t.Fatalf("Lease: got token %d, cancelled %v, lease %v, want attempt 1, not cancelled, %v", d.Token, d.Cancelled, d.Lease, s.Lease)
	}
	if cancelled, err := s.Workers.Renew(s.ctx, d, queue.Progress{}); cancelled || err != nil {
		t.Fatalf("Renew: got %v, %v", cancelled, err)
	}
	s.finish(t, d, `{"done":true}`)
	s.wantKnown(t, "t1", true)
	rs := s.wantResults(t, "t1")
	if r := rs[0]; r.JobID != want.JobID || r.Token != d.Token || string(r.Output) != `{"done":true}` || r.Failure != nil {
		t.Fatalf("Results: got %+v", r)
	}
	if err := s.Control.Acknowledge(s.ctx, rs); err != nil {
		t.Fatalf("Acknowledge: %v", err)
	}
	s.wantKnown(t, "t1", false)
	if rs, err := s.Control.Results(s.ctx, 0); len(rs) != 0 || err != nil {
		t.Fatalf("Results after Acknowledge: got %v, %v", rs, err)
	}
	if _, err := s.Workers.Renew(s.ctx, d, queue.Progress{}); !errors.Is(err, queue.ErrLeaseLost) {
		t.Fatalf("Renew of a finished task: got %v, want ErrLeaseLost", err)
	}
}

func emptyWait(t *testing.T, s suite) {
	s.none(t, "w1", 0)
	start := time.Now()
	s.none(t, "w1", time.Second)
	if took := time.Since(start); took < 900*time.Millisecond {
		t.Fatalf("Lease came back after %v, before its wait of 1s", took)
	}
}

func wakesUp(t *testing.T, s suite) {
	got := make(chan *queue.Delivery, 1)
	go func() {
		d, err := s.Workers.Lease(s.ctx, "w1", []queue.Route{home}, patience)
		if err != nil {
			t.Errorf("Lease: %v", err)
		}
		got <- d
	}()
	s.enqueue(t, message("t1"))
	if d := <-got; d == nil || d.TaskID != "t1" {
		t.Fatalf("Lease: got %v, want t1", d)
	}
}

func enqueueTwice(t *testing.T, s suite) {
	s.enqueue(t, message("t1"))
	s.enqueue(t, message("t1"))
	d := s.take(t, "w1")
	s.enqueue(t, message("t1"))
	s.none(t, "w2", 0)
	s.finish(t, d, `{}`)
	s.enqueue(t, message("t1"))
	s.none(t, "w2", 0)
	s.wantResults(t, "t1")
}

func newerAttempt(t *testing.T, s suite) {
	s.enqueue(t, message("t1"))
	old := s.take(t, "w1")
	if err := s.Control.Cancel(s.ctx, "t1"); err != nil {
		t.Fatal(err)
	}
	m := message("t1")
	m.Attempt = 2
	s.enqueue(t, m)
	s.enqueue(t, message("t1")) // the older attempt comes late
	d := s.take(t, "w2")
	if d.Token <= old.Token || d.Attempt != 2 || d.Cancelled {
		t.Fatalf("Lease: got token %d attempt %d cancelled %v, want more than %d, 2, false", d.Token, d.Attempt, d.Cancelled, old.Token)
	}
	if _, err := s.Workers.Renew(s.ctx, old, queue.Progress{}); !errors.Is(err, queue.ErrLeaseLost) {
		t.Fatalf("Renew by the older attempt: got %v, want ErrLeaseLost", err)
	}
	if err := s.Workers.Finish(s.ctx, old, queue.Result{}); !errors.Is(err, queue.ErrLeaseLost) {
		t.Fatalf("Finish by the older attempt: got %v, want ErrLeaseLost", err)
	}
	s.none(t, "w3", 2*s.Lease/3)
	s.finish(t, d, `{}`)
	rs := s.wantResults(t, "t1")
	if rs[0].Token != d.Token {
		t.Fatalf("Results: got token %d, want %d", rs[0].Token, d.Token)
	}
}

func routesAreApart(t *testing.T, s suite) {
	other := queue.Route{Site: home.Site, Capability: "writeback"}
	m := message("t1")
	m.Route = other
	s.enqueue(t, m)
	s.none(t, "w1", 0)
	if d := s.take(t, "w2", home, other); d.TaskID != "t1" || d.Route != other {
		t.Fatalf("Lease: got %s of %v", d.TaskID, d.Route)
	}
}

func severalRoutes(t *testing.T, s suite) {
	routes := []queue.Route{home, {Site: "recovery", Capability: "compute"}, {Site: "recovery", Capability: "writeback"}}
	want := map[string]bool{}
	for i, r := range routes {
		for j := range 3 {
			m := message(fmt.Sprintf("t%d-%d", i, j))
			m.Route = r
			want[m.TaskID] = true
			s.enqueue(t, m)
		}
	}
	for len(want) > 0 {
		d := s.take(t, "w1", routes...)
		if !want[d.TaskID] {
			t.Fatalf("Lease: got %s, which was leased before", d.TaskID)
		}
		delete(want, d.TaskID)
		s.finish(t, d, `{}`)
	}
	s.none(t, "w1", 0, routes...)
}

func takeOver(t *testing.T, s suite) {
	s.enqueue(t, message("t1"))
	old := s.take(t, "w1")
	start := time.Now()
	d := s.take(t, "w2")
	if took := time.Since(start); took > 2*s.Lease || took < s.Lease/2 {
		t.Fatalf("taken over after %v, want about %v and at most twice it", took, s.Lease)
	}
	if d.TaskID != "t1" || d.Token <= old.Token {
		t.Fatalf("Lease: got %s token %d, want t1 and more than %d", d.TaskID, d.Token, old.Token)
	}
	if _, err := s.Workers.Renew(s.ctx, old, queue.Progress{}); !errors.Is(err, queue.ErrLeaseLost) {
		t.Fatalf("Renew by the replaced worker: got %v, want ErrLeaseLost", err)
	}
	if err := s.Workers.Finish(s.ctx, old, queue.Result{}); !errors.Is(err, queue.ErrLeaseLost) {
		t.Fatalf("Finish by the replaced worker: got %v, want ErrLeaseLost", err)
	}
	if rs, err := s.Control.Results(s.ctx, 0); len(rs) != 0 || err != nil {
		t.Fatalf("Results: got %v, %v, want none", rs, err)
	}
	s.finish(t, d, `{}`)
	s.wantResults(t, "t1")
}

func renewKeeps(t *testing.T, s suite) {
	s.enqueue(t, message("t1"))
	d := s.take(t, "w1")
	tick := time.NewTicker(s.Lease / 3)
	defer tick.Stop()
	for range 8 { // well over two leases
		<-tick.C
		if _, err := s.Workers.Renew(s.ctx, d, queue.Progress{}); err != nil {
			t.Fatalf("Renew: %v", err)
		}
		s.none(t, "w2", 0)
	}
	s.finish(t, d, `{}`)
}

func cancel(t *testing.T, s suite) {
	if err := s.Control.Cancel(s.ctx, "unknown"); err != nil {
		t.Fatalf("Cancel of an unknown task: %v", err)
	}
	s.wantKnown(t, "unknown", false)
	s.enqueue(t, message("t1"))
	d := s.take(t, "w1")
	if err := s.Control.Cancel(s.ctx, "t1"); err != nil {
		t.Fatal(err)
	}
	if cancelled, err := s.Workers.Renew(s.ctx, d, queue.Progress{}); !cancelled || err != nil {
		t.Fatalf("Renew: got %v, %v, want cancelled", cancelled, err)
	}
	s.enqueue(t, message("t2"))
	if err := s.Control.Cancel(s.ctx, "t2"); err != nil {
		t.Fatal(err)
	}
	if d := s.take(t, "w1"); d.TaskID != "t2" || !d.Cancelled {
		t.Fatalf("Lease: got %s cancelled %v, want t2 cancelled", d.TaskID, d.Cancelled)
	}
}

func progress(t *testing.T, s suite) {
	s.enqueue(t, message("t1"))
	s.enqueue(t, message("t2"))
	d := s.take(t, "w1")
	want := queue.Progress{DoneBytes: 1 << 40, TotalBytes: 1 << 41, Note: "copying"}
	if _, err := s.Workers.Renew(s.ctx, d, want); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Workers.Renew(s.ctx, d, queue.Progress{}); err != nil { // tells nothing new
		t.Fatal(err)
	}
	got, err := s.Control.Progress(s.ctx, []string{"t1", "t2", "unknown"})
	if err != nil || len(got) != 1 || got["t1"] != want {
		t.Fatalf("Progress: got %v, %v, want t1: %v", got, err, want)
	}
}

func results(t *testing.T, s suite) {
	for _, id := range []string{"t1", "t2", "t3"} {
		s.enqueue(t, message(id))
		s.finish(t, s.take(t, "w1"), `{}`)
	}
	rs := s.wantResults(t, "t1", "t2", "t3")
	if err := s.Control.Acknowledge(s.ctx, rs[1:2]); err != nil {
		t.Fatal(err)
	}
	rs = s.wantResults(t, "t1", "t3")
	for range 2 { // the second changes nothing
		if err := s.Control.Acknowledge(s.ctx, rs); err != nil {
			t.Fatal(err)
		}
	}
	if rs, err := s.Control.Results(s.ctx, 0); len(rs) != 0 || err != nil {
		t.Fatalf("Results: got %v, %v, want none", rs, err)
	}
}

func failure(t *testing.T, s suite) {
	s.enqueue(t, message("t1"))
	want := queue.Failure{Code: "corrupt", Message: "a chunk is damaged", PossibleCauses: "disk", RecommendedAction: "choose another point"}
	if err := s.Workers.Finish(s.ctx, s.take(t, "w1"), queue.Result{Failure: &want}); err != nil {
		t.Fatal(err)
	}
	if rs := s.wantResults(t, "t1"); rs[0].Failure == nil || *rs[0].Failure != want {
		t.Fatalf("Results: got %+v, want %+v", rs[0].Failure, want)
	}
}

func finishTwice(t *testing.T, s suite) {
	s.enqueue(t, message("t1"))
	d := s.take(t, "w1")
	s.finish(t, d, `{}`)
	s.finish(t, d, `{}`) // a worker that lost the answer to the first
	s.wantResults(t, "t1")
}

func flush(t *testing.T, s suite) {
	s.enqueue(t, message("t1"))
	old := s.take(t, "w1")
	if err := s.Flush(s.ctx); err != nil {
		t.Fatalf("Flush: %v", err)
	}
	if _, err := s.Workers.Renew(s.ctx, old, queue.Progress{DoneBytes: 1}); !errors.Is(err, queue.ErrLeaseLost) {
		t.Fatalf("Renew after losing everything: got %v, want ErrLeaseLost", err)
	}
	if err := s.Workers.Finish(s.ctx, old, queue.Result{}); !errors.Is(err, queue.ErrLeaseLost) {
		t.Fatalf("Finish after losing everything: got %v, want ErrLeaseLost", err)
	}
	s.none(t, "w1", 0)
	s.wantKnown(t, "t1", false)
	m := message("t1")
	m.Attempt = 2 // as the control plane does with a running task that the queue does not know
	s.enqueue(t, m)
	d := s.take(t, "w1")
	if d.Token <= old.Token {
		t.Fatalf("Lease: got token %d, want more than %d", d.Token, old.Token)
	}
	s.finish(t, d, `{}`)
	s.wantResults(t, "t1")
}

func manyWorkers(t *testing.T, s suite) {
	const tasks, workers = 60, 6
	var mu sync.Mutex
	done := map[string]int{}
	ctx, stop := context.WithCancel(s.ctx)
	defer stop()
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for ctx.Err() == nil {
				d, err := s.Workers.Lease(ctx, fmt.Sprint("w", w), []queue.Route{home}, time.Second)
				if err != nil && ctx.Err() == nil {
					t.Errorf("Lease: %v", err)
					return
				}
				if d == nil {
					continue
				}
				if err := s.Workers.Finish(s.ctx, d, queue.Result{}); err != nil {
					t.Errorf("Finish: %v", err)
				}
				mu.Lock()
				done[d.TaskID]++
				if len(done) == tasks {
					stop()
				}
				mu.Unlock()
			}
		})
	}
	for i := range tasks {
		s.enqueue(t, message(fmt.Sprint("t", i)))
	}
	wg.Wait()
	if len(done) != tasks {
		t.Fatalf("got %d tasks done, want %d", len(done), tasks)
	}
	for id, n := range done {
		if n != 1 {
			t.Errorf("task %s was done %d times, want once", id, n)
		}
	}
}

func leaseContext(t *testing.T, s suite) {
	ctx, stop := context.WithTimeout(s.ctx, 100*time.Millisecond)
	defer stop()
	start := time.Now()
	d, err := s.Workers.Lease(ctx, "w1", []queue.Route{home}, patience)
	if d != nil || err == nil {
		t.Fatalf("Lease: got %v, %v, want the context's error", d, err)
	}
	if took := time.Since(start); took > 3*time.Second {
		t.Fatalf("Lease came back %v after its context ended", took)
	}
	s.enqueue(t, message("t1")) // not swallowed by the one who left
	s.take(t, "w2")
}
