// Package redisqueue is the task queue on Redis Streams: one stream and consumer group a route, one hash a task, one stream of
// results. It holds nothing that SQL cannot put out again, sets no expiry on any key, and never decides what a task means.
// The embedded shape runs the same code against an in-process server.
package redisqueue

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/lifeboat-dr/lifeboat/service/queue"
)

// group is the consumer group of every route's stream.
const group = "workers"

// longestBlock bounds a blocking read, because go-redis does not interrupt a read in flight when its context ends.
const longestBlock = 500 * time.Millisecond

// resultBatch is how many results one call returns at most.
const resultBatch = 128

// Options of a Queue. The zero value is what production uses.
type Options struct {
	Lease  time.Duration // how long a delivery is held without a Renew; 5 s
	Prefix string        // of all keys; "lifeboat:"
}

// Queue implements queue.Workers, queue.Control and queue.Notifier. Safe for concurrent use.
type Queue struct {
	rdb    redis.UniversalClient
	lease  time.Duration
	prefix string

	mu       sync.Mutex
	claimDue map[string]time.Time // by stream: when expired leases are looked for again
	results  map[resultKey]string // entry ids of results handed out and not yet acknowledged
}

type resultKey struct {
	task  string
	token int64
}

// New returns a Queue on a client that the caller keeps owning. The client's pool must have room for as many connections as
// Lease calls run at once; see Dial.
func New(rdb redis.UniversalClient, opt Options) *Queue {
	if opt.Lease <= 0 {
		opt.Lease = 5 * time.Second
	}
	if opt.Prefix == "" {
		opt.Prefix = "lifeboat:"
	}
	return &Queue{rdb: rdb, lease: opt.Lease, prefix: opt.Prefix, claimDue: map[string]time.Time{}, results: map[resultKey]string{}}
}

// Dial returns a client for an address (host:port, or a redis:// or rediss:// URL). It does not connect yet.
func Dial(address string) (*redis.Client, error) {
	opt := &redis.Options{Addr: address}
	if strings.Contains(address, "://") {
		var err error
		if opt, err = redis.ParseURL(address); err != nil {
			return nil, fmt.Errorf("parse redis address: %w", err)
		}
	}
	return redis.NewClient(Tune(opt)), nil
}

// Tune sets what this package needs on a client's options: room for many blocked readers, and no start-up chatter that the
// embedded server does not know.
func Tune(opt *redis.Options) *redis.Options {
	opt.PoolSize = 512
	opt.MinIdleConns = 0
	opt.DisableIdentity = true
	opt.DialTimeout = 3 * time.Second
	opt.ReadTimeout = 5 * time.Second
	opt.WriteTimeout = 5 * time.Second
	return opt
}

func (q *Queue) taskKey(id string) string { return q.prefix + "task:" + id }

func (q *Queue) streamKey(r queue.Route) string {
	return q.prefix + "route:" + r.Site + ":" + r.Capability
}

func (q *Queue) resultsKey() string { return q.prefix + "results" }

func (q *Queue) termKey() string { return q.prefix + "term" }

func (q *Queue) cancelChannel() string { return q.prefix + "cancel" }

// Enqueue implements queue.Control. A new attempt forgets the cancel, progress and result of the one before.
func (q *Queue) Enqueue(ctx context.Context, m queue.Message) error {
	if m.TaskID == "" || m.Attempt < 1 {
		return fmt.Errorf("enqueue task %q: needs an id and an attempt from 1", m.TaskID)
	}
	msg, err := json.Marshal(m)
	if err != nil {
		return fmt.Errorf("enqueue task %s: %w", m.TaskID, err)
	}
	keys := []string{q.taskKey(m.TaskID), q.streamKey(m.Route), q.resultsKey(), q.termKey()}
	if err := enqueueScript.Run(ctx, q.rdb, keys, m.TaskID, m.Attempt, msg, m.Term).Err(); err != nil {
		return fmt.Errorf("enqueue task %s: %w", m.TaskID, err)
	}
	return nil
}

// Cancel implements queue.Control. A task that the queue does not hold is left alone.
func (q *Queue) Cancel(ctx context.Context, taskID string) error {
	known, err := cancelScript.Run(ctx, q.rdb, []string{q.taskKey(taskID)}).Int()
	if err == nil && known == 1 {
		// Only hurries what the flag does anyway, so nobody listening is no fault.
		err = q.rdb.Publish(ctx, q.cancelChannel(), taskID).Err()
	}
	if err != nil {
		return fmt.Errorf("cancel task %s: %w", taskID, err)
	}
	return nil
}

// Cancels implements queue.Notifier.
func (q *Queue) Cancels(ctx context.Context) (<-chan string, error) {
	sub := q.rdb.Subscribe(ctx, q.cancelChannel())
	if _, err := sub.Receive(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("subscribe to cancels: %w", err), sub.Close())
	}
	out := make(chan string)
	in := sub.Channel()
	go func() {
		defer close(out)
		defer func() { _ = sub.Close() }() // only ends the subscription
		for {
			select {
			case m, ok := <-in:
				if !ok {
					return
				}
				select {
				case out <- m.Payload:
				case <-ctx.Done():
					return
				}
			case <-ctx.Done():
				return
			}
		}
	}()
	return out, nil
}

// Results implements queue.Control.
func (q *Queue) Results(ctx context.Context, wait time.Duration) ([]queue.Result, error) {
	end := time.Now().Add(wait)
	for {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		left := time.Until(end)
		block := time.Duration(-1)
		if left > 0 {
			block = max(min(left, longestBlock), time.Millisecond)
		}
		streams, err := q.rdb.XRead(ctx, &redis.XReadArgs{Streams: []string{q.resultsKey(), "0"}, Count: resultBatch, Block: block}).Result()
		switch {
		case errors.Is(err, redis.Nil):
			if left <= 0 {
				return nil, nil
			}
			continue
		case err != nil:
			return nil, fmt.Errorf("read results: %w", err)
		}
		var out []queue.Result
		for _, s := range streams {
			for _, e := range s.Messages {
				var r queue.Result
				raw, _ := e.Values["result"].(string)
				if err := json.Unmarshal([]byte(raw), &r); err != nil {
					return nil, fmt.Errorf("decode result %s: %w", e.ID, err)
				}
				q.mu.Lock()
				q.results[resultKey{r.TaskID, r.Token}] = e.ID
				q.mu.Unlock()
				out = append(out, r)
			}
		}
		if len(out) > 0 || left <= 0 {
			return out, nil
		}
	}
}

// Acknowledge implements queue.Control.
func (q *Queue) Acknowledge(ctx context.Context, results []queue.Result) error {
	for _, r := range results {
		key := resultKey{r.TaskID, r.Token}
		q.mu.Lock()
		entry := q.results[key]
		q.mu.Unlock()
		if err := acknowledgeScript.Run(ctx, q.rdb, []string{q.taskKey(r.TaskID), q.resultsKey()}, r.Token, entry).Err(); err != nil {
			return fmt.Errorf("acknowledge result of task %s: %w", r.TaskID, err)
		}
		q.mu.Lock()
		delete(q.results, key)
		q.mu.Unlock()
	}
	return nil
}

// Progress implements queue.Control. Tasks without progress are left out.
func (q *Queue) Progress(ctx context.Context, taskIDs []string) (map[string]queue.Progress, error) {
	out := make(map[string]queue.Progress, len(taskIDs))
	if len(taskIDs) == 0 {
		return out, nil
	}
	pipe := q.rdb.Pipeline()
	cmds := make([]*redis.StringCmd, len(taskIDs))
	for i, id := range taskIDs {
		cmds[i] = pipe.HGet(ctx, q.taskKey(id), "progress")
	}
	if _, err := pipe.Exec(ctx); err != nil && !errors.Is(err, redis.Nil) {
		return nil, fmt.Errorf("read progress: %w", err)
	}
	for i, id := range taskIDs {
		raw, err := cmds[i].Bytes()
		if errors.Is(err, redis.Nil) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read progress of task %s: %w", id, err)
		}
		var p queue.Progress
		if err := json.Unmarshal(raw, &p); err != nil {
			return nil, fmt.Errorf("decode progress of task %s: %w", id, err)
		}
		out[id] = p
	}
	return out, nil
}

// Known implements queue.Control.
func (q *Queue) Known(ctx context.Context, taskIDs []string) (map[string]bool, error) {
	out := make(map[string]bool, len(taskIDs))
	for _, id := range taskIDs {
		n, err := knownScript.Run(ctx, q.rdb, []string{q.taskKey(id)}).Int()
		if err != nil {
			return nil, fmt.Errorf("look for task %s: %w", id, err)
		}
		out[id] = n > 0
	}
	return out, nil
}
