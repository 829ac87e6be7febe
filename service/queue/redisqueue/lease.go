package redisqueue

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/lifeboat-dr/lifeboat/service/queue"
)

// entry is a stream message that XREADGROUP or XAUTOCLAIM gave to a worker, before begin made it a lease.
type entry struct {
	stream, id, task string
}

// Lease implements queue.Workers: expired leases first, when it is time to look for them, then a blocking read that ends
// before the next look. A reader that stayed blocked longer would starve the claiming.
func (q *Queue) Lease(ctx context.Context, worker string, routes []queue.Route, wait time.Duration) (*queue.Delivery, error) {
	if len(routes) == 0 {
		return nil, errors.New("lease: no routes")
	}
	streams := make([]string, len(routes))
	for i, r := range routes {
		streams[i] = q.streamKey(r)
	}
	end := time.Now().Add(wait)
	for {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		taken, err := q.claimExpired(ctx, worker, streams)
		if err != nil {
			return nil, err
		}
		left := time.Until(end)
		if len(taken) == 0 {
			if taken, err = q.read(ctx, worker, streams, left); err != nil {
				return nil, err
			}
		}
		d, err := q.begin(ctx, worker, taken)
		if d != nil || err != nil || left <= 0 {
			return d, err
		}
	}
}

// claimExpired takes at most one entry whose lease ended, from the streams whose look is due. The next look is due a third of
// a lease later, or at once where one was found.
func (q *Queue) claimExpired(ctx context.Context, worker string, streams []string) ([]entry, error) {
	for _, s := range streams {
		now := time.Now()
		q.mu.Lock()
		due := !now.Before(q.claimDue[s])
		if due {
			q.claimDue[s] = now.Add(q.lease / 3)
		}
		q.mu.Unlock()
		if !due {
			continue
		}
		msgs, _, err := q.rdb.XAutoClaim(ctx, &redis.XAutoClaimArgs{Stream: s, Group: group, Consumer: worker, MinIdle: q.lease, Start: "0-0", Count: 1}).Result()
		if isNoGroup(err) {
			if err := q.createGroup(ctx, s); err != nil {
				return nil, err
			}
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("claim expired leases: %w", err)
		}
		if len(msgs) == 0 {
			continue
		}
		q.mu.Lock()
		delete(q.claimDue, s)
		q.mu.Unlock()
		return entriesOf(s, msgs), nil
	}
	return nil, nil
}

// read waits for new entries, at most one a stream, until it is time to look for expired leases again.
func (q *Queue) read(ctx context.Context, worker string, streams []string, left time.Duration) ([]entry, error) {
	block := time.Duration(-1) // do not block
	if left > 0 {
		block = min(left, longestBlock)
		q.mu.Lock()
		for _, s := range streams {
			block = min(block, time.Until(q.claimDue[s]))
		}
		q.mu.Unlock()
		block = max(block, time.Millisecond) // 0 would block for ever
	}
	args := make([]string, 0, 2*len(streams))
	args = append(args, streams...)
	for range streams {
		args = append(args, ">")
	}
	got, err := q.rdb.XReadGroup(ctx, &redis.XReadGroupArgs{Group: group, Consumer: worker, Streams: args, Count: 1, Block: block}).Result()
	switch {
	case errors.Is(err, redis.Nil):
		return nil, nil
	case isNoGroup(err):
		for _, s := range streams {
			if err := q.createGroup(ctx, s); err != nil {
				return nil, err
			}
		}
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("read routes: %w", err)
	}
	var out []entry
	for _, s := range got {
		out = append(out, entriesOf(s.Stream, s.Messages)...)
	}
	return out, nil
}

// begin leases the first entry that is still its task's and gives the others back. When ctx ended meanwhile it gives all back:
// the caller is no longer there to work.
func (q *Queue) begin(ctx context.Context, worker string, taken []entry) (*queue.Delivery, error) {
	if len(taken) == 0 {
		return nil, nil
	}
	// What was read must be leased or given back even when ctx ends now, else it is out of sight for a whole lease.
	own, cancel := context.WithTimeout(context.WithoutCancel(ctx), q.lease)
	defer cancel()
	var d *queue.Delivery
	var errs []error
	for _, e := range taken {
		if d != nil || ctx.Err() != nil {
			keys := []string{q.taskKey(e.task), e.stream}
			if err := giveBackScript.Run(own, q.rdb, keys, group, e.id, e.task).Err(); err != nil {
				errs = append(errs, fmt.Errorf("give task %s back: %w", e.task, err))
			}
			continue
		}
		got, err := q.beginOne(own, worker, e)
		if err != nil {
			errs = append(errs, err)
		}
		d = got
	}
	if d != nil {
		return d, nil // a failed give back heals when the lease of that entry ends
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return nil, errors.Join(errs...)
}

func (q *Queue) beginOne(ctx context.Context, worker string, e entry) (*queue.Delivery, error) {
	got, err := beginScript.Run(ctx, q.rdb, []string{q.taskKey(e.task), e.stream}, group, worker, e.id).StringSlice()
	if errors.Is(err, redis.Nil) {
		return nil, nil // an entry left over from an older attempt
	}
	if err != nil {
		return nil, fmt.Errorf("begin task %s: %w", e.task, err)
	}
	if len(got) != 3 {
		return nil, fmt.Errorf("begin task %s: %d values instead of 3", e.task, len(got))
	}
	d := &queue.Delivery{Lease: q.lease, Cancelled: got[2] == "1"}
	if err := json.Unmarshal([]byte(got[0]), &d.Message); err != nil {
		return nil, fmt.Errorf("decode task %s: %w", e.task, err)
	}
	if d.Token, err = strconv.ParseInt(got[1], 10, 64); err != nil {
		return nil, fmt.Errorf("decode token of task %s: %w", e.task, err)
	}
	return d, nil
}

// Renew implements queue.Workers.
func (q *Queue) Renew(ctx context.Context, d *queue.Delivery, p queue.Progress) (bool, error) {
	progress := ""
	if p != (queue.Progress{}) {
		raw, err := json.Marshal(p)
		if err != nil {
			return false, fmt.Errorf("renew task %s: %w", d.TaskID, err)
		}
		progress = string(raw)
	}
	n, err := renewScript.Run(ctx, q.rdb, []string{q.taskKey(d.TaskID)}, group, d.Token, progress).Int()
	if isNoGroup(err) {
		return false, queue.ErrLeaseLost // with the group went whose lease this is; the next Lease makes it anew
	}
	if err != nil {
		return false, fmt.Errorf("renew task %s: %w", d.TaskID, err)
	}
	if n < 0 {
		return false, queue.ErrLeaseLost
	}
	return n == 1, nil
}

// Finish implements queue.Workers.
func (q *Queue) Finish(ctx context.Context, d *queue.Delivery, r queue.Result) error {
	r.TaskID, r.JobID, r.Token = d.TaskID, d.JobID, d.Token
	if r.JobID == "" { // a caller that kept no more of the delivery than its id and token
		var err error
		if r.JobID, err = q.jobOf(ctx, d.TaskID); err != nil {
			return err
		}
	}
	raw, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("finish task %s: %w", d.TaskID, err)
	}
	n, err := finishScript.Run(ctx, q.rdb, []string{q.taskKey(d.TaskID), q.resultsKey()}, group, d.Token, raw).Int()
	if err != nil {
		return fmt.Errorf("finish task %s: %w", d.TaskID, err)
	}
	if n < 0 {
		return queue.ErrLeaseLost
	}
	return nil
}

// jobOf returns the job of a task that the queue holds, else ErrLeaseLost.
func (q *Queue) jobOf(ctx context.Context, taskID string) (string, error) {
	raw, err := q.rdb.HGet(ctx, q.taskKey(taskID), "msg").Bytes()
	if errors.Is(err, redis.Nil) {
		return "", queue.ErrLeaseLost
	}
	if err != nil {
		return "", fmt.Errorf("look up task %s: %w", taskID, err)
	}
	var m queue.Message
	if err := json.Unmarshal(raw, &m); err != nil {
		return "", fmt.Errorf("decode task %s: %w", taskID, err)
	}
	return m.JobID, nil
}

// createGroup makes a stream's group from its beginning, so that what was enqueued before any worker came is delivered.
func (q *Queue) createGroup(ctx context.Context, stream string) error {
	err := q.rdb.XGroupCreateMkStream(ctx, stream, group, "0").Err()
	if err != nil && !strings.HasPrefix(err.Error(), "BUSYGROUP") {
		return fmt.Errorf("create group of %s: %w", stream, err)
	}
	return nil
}

// isNoGroup recognises the reply to a missing group. Redis replies are told apart by their first word; that is the protocol's
// own error code, not prose.
func isNoGroup(err error) bool {
	if err == nil {
		return false
	}
	var reply redis.Error
	return errors.As(err, &reply) && strings.Contains(reply.Error(), "NOGROUP")
}

func entriesOf(stream string, msgs []redis.XMessage) []entry {
	out := make([]entry, 0, len(msgs))
	for _, m := range msgs {
		task, _ := m.Values["task"].(string)
		out = append(out, entry{stream: stream, id: m.ID, task: task})
	}
	return out
}
