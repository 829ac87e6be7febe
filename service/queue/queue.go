// Package queue owns the contract between the control plane, which puts tasks out, and the workers, which lease them. A
// message carries a task's id, route and payload; SQL stays the truth, so that losing the queue costs time, never a job.
package queue

import (
	"context"
	"encoding/json"
	"errors"
	"time"
)

// ErrLeaseLost means that another worker holds the task by now, or that the queue forgot it: the work must stop and its result
// is not taken. It is final for that delivery.
var ErrLeaseLost = errors.New("queue: lease lost")

// Route says which worker can do a task: one that is at the site and has the capability.
type Route struct {
	Site       string
	Capability string
}

// Message is one task as the queue carries it.
type Message struct {
	Term    int64 // of the engine that puts it out; one of an older term than the queue has seen is refused silently
	TaskID  string
	JobID   string
	Kind    string
	Route   Route
	Attempt int64 // counts enqueues of the task, kept in SQL, from 1; the high part of the fencing token
	Payload json.RawMessage
}

// Delivery is a leased message. Token grows with every delivery of the task, over Redis restarts too (Attempt<<20 + delivery).
type Delivery struct {
	Message
	Token int64
	// Cancelled is set when cancel was asked before the lease began.
	Cancelled bool
	// Lease is how long the delivery is held without a Renew.
	Lease time.Duration
}

// Progress is what a worker tells while it works.
type Progress struct {
	DoneBytes  int64  `json:"doneBytes,omitempty"`
	TotalBytes int64  `json:"totalBytes,omitempty"`
	Note       string `json:"note,omitempty"`
}

// Failure is a task's error as it crosses processes; Code is one of the codes of service/dr.
type Failure struct {
	Code              string `json:"code"`
	Message           string `json:"message"`
	PossibleCauses    string `json:"possibleCauses,omitempty"`
	RecommendedAction string `json:"recommendedAction,omitempty"`
}

// Result ends a task. Failure nil means success.
type Result struct {
	TaskID  string
	JobID   string
	Token   int64
	Output  json.RawMessage
	Failure *Failure
}

// Workers is the side of the queue that workers see. Safe for concurrent use.
type Workers interface {
	// Lease blocks up to wait for one message of the routes and leases it to worker. It returns nil, nil when none came. An
	// expired lease of another worker is taken over here, with a higher token.
	Lease(ctx context.Context, worker string, routes []Route, wait time.Duration) (*Delivery, error)
	// Renew keeps the lease for another lease time and stores the progress. cancelled tells that the task should stop.
	// ErrLeaseLost when the token is no longer the newest. Of d only the task's id and the token are needed, here and in Finish.
	Renew(ctx context.Context, d *Delivery, p Progress) (cancelled bool, err error)
	// Finish stores the result for the control plane and drops the message, in one step, only with the live token; else
	// ErrLeaseLost and nothing is stored.
	Finish(ctx context.Context, d *Delivery, r Result) error
}

// Notifier is what a Workers may offer besides: cancels told at once instead of at the next Renew. A worker that is told renews
// at once; the Renew decides.
type Notifier interface {
	// Cancels returns a channel of task ids, closed when ctx ends or the connection is given up. Cancels may be missed.
	Cancels(ctx context.Context) (<-chan string, error)
}

// Control is the side of the queue that the control plane sees. Safe for concurrent use.
type Control interface {
	// Enqueue puts a message out. A second Enqueue of the same task and attempt changes nothing, nor does one of a term that is
	// over: its engine was held up, and what it wants was done or decided anew by the next.
	Enqueue(ctx context.Context, m Message) error
	// Cancel asks whoever works on the task to stop; the worker sees it at its next Renew or Lease.
	Cancel(ctx context.Context, taskID string) error
	// Results blocks up to wait and returns results not yet acknowledged, oldest first; the same result may come again until
	// Acknowledge.
	Results(ctx context.Context, wait time.Duration) ([]Result, error)
	// Acknowledge drops results that were saved.
	Acknowledge(ctx context.Context, results []Result) error
	// Progress returns the newest progress of the tasks it knows.
	Progress(ctx context.Context, taskIDs []string) (map[string]Progress, error)
	// Known tells for each task whether the queue still holds it (waiting, leased, or its result unacknowledged). A task that
	// SQL calls running and the queue does not know is enqueued again with the next attempt.
	Known(ctx context.Context, taskIDs []string) (map[string]bool, error)
}
