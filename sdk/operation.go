package sdk

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/lifeboat-dr/lifeboat/sdk/oas"
)

// Operation is a change that was accepted. Its job runs in the server, whether or not anybody waits.
type Operation struct {
	// JobID names the job; empty when the change was made at once.
	JobID string

	c                *Client
	status, location string // URLs that the server sent; either may be empty
	delay            time.Duration
}

// Bounds of the time between two looks at an operation. The server's Retry-After lies between them.
const (
	minDelay     = 200 * time.Millisecond
	defaultDelay = time.Second
)

// begin ends the request that starts an operation.
func (c *Client) begin(resp *http.Response, err error) (*Operation, error) {
	if err != nil {
		return nil, err
	}
	if _, err := answer(resp); err != nil {
		return nil, err
	}
	o := &Operation{c: c, delay: delayOf(resp.Header)}
	if resp.StatusCode != http.StatusAccepted {
		return o, nil
	}
	o.status, o.location = resp.Header.Get("Azure-AsyncOperation"), resp.Header.Get("Location")
	u, err := url.Parse(or(o.status, o.location))
	if err != nil || u.Path == "" {
		return nil, fmt.Errorf("%s %s was accepted, but the answer does not say where its operation is", resp.Request.Method, resp.Request.URL.Path)
	}
	o.JobID = nameOf(u.Path)
	return o, nil
}

func delayOf(h http.Header) time.Duration {
	if d, ok := retryAfter(h); ok {
		return min(max(d, minDelay), maxPause)
	}
	return defaultDelay
}

// Operation takes up an operation whose job is known, for one that another process started.
func (c *Client) Operation(jobID string) *Operation {
	jobID = nameOf(jobID)
	id := ID{Subscription: url.PathEscape(c.subscription), ResourceGroup: url.PathEscape(c.group), Vault: url.PathEscape(c.v),
		Path: []Segment{{"replicationOperationStatus", url.PathEscape(jobID)}}}
	return &Operation{c: c, JobID: jobID, delay: minDelay, status: id.String()}
}

// WaitForJob waits until the operation of a job has ended; see Operation.Wait.
func (c *Client) WaitForJob(ctx context.Context, jobID string, progress func(Job)) (Job, error) {
	return c.Operation(jobID).Wait(ctx, progress)
}

// Wait waits until the operation has ended and returns its job, which is empty when the change was made at once. progress, if
// not nil, gets the job at each look, on the caller's goroutine, and once more at the end. An operation that failed or was
// cancelled is *OperationError beside the job. When ctx ends the job goes on, and Wait may be called again.
func (o *Operation) Wait(ctx context.Context, progress func(Job)) (Job, error) {
	if o.JobID == "" {
		return Job{}, nil
	}
	for {
		ended, failure, err := o.look(ctx)
		if err != nil {
			return Job{}, err
		}
		var job Job
		if progress != nil || ended {
			if job, err = o.c.Job(ctx, o.JobID); err != nil {
				return Job{}, err
			}
		}
		if progress != nil {
			progress(job)
		}
		if ended {
			if failure != nil {
				return job, failure
			}
			return job, nil
		}
		if err := sleep(ctx, o.delay); err != nil {
			return Job{}, err
		}
	}
}

// look asks once. Azure-AsyncOperation tells the state in its body; Location alone tells it by its status.
func (o *Operation) look(ctx context.Context) (ended bool, failure *OperationError, _ error) {
	resp, err := o.c.follow(ctx, or(o.status, o.location))
	if err != nil {
		return false, nil, err
	}
	body, err := answer(resp)
	if err != nil {
		return false, nil, err
	}
	o.delay = delayOf(resp.Header)
	if o.status == "" {
		return resp.StatusCode != http.StatusAccepted, nil, nil
	}
	var st oas.OperationStatus
	if err := json.Unmarshal(body, &st); err != nil {
		return false, nil, fmt.Errorf("read the status of job %s: %w", o.JobID, err)
	}
	switch strings.ToLower(st.Status) {
	case "succeeded":
		return true, nil, nil
	case "failed", "canceled", "cancelled":
		return true, &OperationError{JobID: o.JobID, Status: st.Status, Err: errorOf(st.Error)}, nil
	}
	return false, nil, nil
}
