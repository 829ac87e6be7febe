package workflow_test

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/lifeboat-dr/lifeboat/service/queue"
	"github.com/lifeboat-dr/lifeboat/service/queue/queuetest"
)

// memQueue is a queue in memory, for tests in a synctest bubble, where there are no sockets. It passes the queue's suite.
type memQueue struct {
	lease time.Duration

	mu      sync.Mutex // guards what follows
	tasks   map[string]*memTask
	order   []string
	results []queue.Result
	term    int64
	changed chan struct{} // closed and replaced at every change
}

type memTask struct {
	message    queue.Message
	deliveries int64
	token      int64
	until      time.Time // of the lease; zero: waiting
	cancelled  bool
	finished   bool // its result is not yet acknowledged
	progress   queue.Progress
}

func newMemQueue(lease time.Duration) *memQueue {
	return &memQueue{lease: lease, tasks: map[string]*memTask{}, changed: make(chan struct{})}
}

func (q *memQueue) notify() { close(q.changed); q.changed = make(chan struct{}) }

// poll runs try until it says done, something changed, or wait is over.
func (q *memQueue) poll(ctx context.Context, wait time.Duration, try func() bool) error {
	deadline := time.Now().Add(wait)
	for {
		q.mu.Lock()
		ok, changed := try(), q.changed
		q.mu.Unlock()
		left := time.Until(deadline)
		if ok || left <= 0 {
			return nil
		}
		timer := time.NewTimer(min(left, q.lease/4))
		select {
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		case <-changed:
			timer.Stop()
		case <-timer.C:
		}
	}
}

func (q *memQueue) Lease(ctx context.Context, _ string, routes []queue.Route, wait time.Duration) (d *queue.Delivery, err error) {
	err = q.poll(ctx, wait, func() bool {
		for _, id := range q.order {
			t := q.tasks[id]
			if t.finished || time.Now().Before(t.until) || !slices.Contains(routes, t.message.Route) {
				continue
			}
			t.deliveries++
			t.token, t.until = t.message.Attempt<<20+t.deliveries, time.Now().Add(q.lease)
			d = &queue.Delivery{Message: t.message, Token: t.token, Cancelled: t.cancelled, Lease: q.lease}
			return true
		}
		return false
	})
	return d, err
}

func (q *memQueue) held(d *queue.Delivery) *memTask {
	if t := q.tasks[d.TaskID]; t != nil && t.token == d.Token && !t.finished {
		return t
	}
	return nil
}

func (q *memQueue) Renew(_ context.Context, d *queue.Delivery, p queue.Progress) (bool, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	t := q.held(d)
	if t == nil {
		return false, queue.ErrLeaseLost
	}
	t.until = time.Now().Add(q.lease)
	if p != (queue.Progress{}) { // else nothing new is told
		t.progress = p
	}
	return t.cancelled, nil
}

func (q *memQueue) Finish(_ context.Context, d *queue.Delivery, r queue.Result) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if t := q.tasks[d.TaskID]; t != nil && t.finished && t.token == d.Token {
		return nil // the answer to the first call was lost
	}
	t := q.held(d)
	if t == nil {
		return queue.ErrLeaseLost
	}
	t.finished = true
	r.TaskID, r.JobID, r.Token = d.TaskID, d.JobID, d.Token
	q.results = append(q.results, r)
	q.notify()
	return nil
}

func (q *memQueue) Enqueue(_ context.Context, m queue.Message) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if t := q.tasks[m.TaskID]; t != nil && t.message.Attempt >= m.Attempt || m.Term < q.term {
		return nil
	}
	q.term = m.Term
	if q.tasks[m.TaskID] == nil {
		q.order = append(q.order, m.TaskID)
	}
	q.tasks[m.TaskID] = &memTask{message: m}
	q.notify()
	return nil
}

func (q *memQueue) Cancel(_ context.Context, id string) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if t := q.tasks[id]; t != nil {
		t.cancelled = true
	}
	return nil
}

func (q *memQueue) Results(ctx context.Context, wait time.Duration) (out []queue.Result, err error) {
	err = q.poll(ctx, wait, func() bool { out = slices.Clone(q.results); return len(out) > 0 })
	return out, err
}

func (q *memQueue) Acknowledge(_ context.Context, rs []queue.Result) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, r := range rs {
		q.results = slices.DeleteFunc(q.results, func(o queue.Result) bool { return o.TaskID == r.TaskID && o.Token == r.Token })
		if t := q.tasks[r.TaskID]; t != nil && t.finished && t.token == r.Token {
			delete(q.tasks, r.TaskID)
			q.order = slices.DeleteFunc(q.order, func(id string) bool { return id == r.TaskID })
		}
	}
	return nil
}

func (q *memQueue) Progress(_ context.Context, ids []string) (map[string]queue.Progress, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	out := map[string]queue.Progress{}
	for _, id := range ids {
		if t := q.tasks[id]; t != nil && t.progress != (queue.Progress{}) {
			out[id] = t.progress
		}
	}
	return out, nil
}

func (q *memQueue) Known(_ context.Context, ids []string) (map[string]bool, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	out := map[string]bool{}
	for _, id := range ids {
		_, out[id] = q.tasks[id]
	}
	return out, nil
}

func TestTheQueueInMemoryIsAQueue(t *testing.T) {
	queuetest.Run(t, func(*testing.T) queuetest.Harness {
		q := newMemQueue(300 * time.Millisecond)
		return queuetest.Harness{Workers: q, Control: q, Lease: q.lease, Flush: func(context.Context) error {
			q.mu.Lock()
			defer q.mu.Unlock()
			q.tasks, q.order, q.results, q.term = map[string]*memTask{}, nil, nil, 0
			return nil
		}}
	})
}
