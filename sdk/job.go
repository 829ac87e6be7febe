package sdk

import (
	"context"
	"iter"
	"net/http"

	"github.com/lifeboat-dr/lifeboat/sdk/oas"
)

// Job reads a job with its tasks. Here and below a job is named by its name or by its id.
func (c *Client) Job(ctx context.Context, id string) (Job, error) {
	return decode[Job](c.api.ReplicationJobsGet(ctx, c.subscription, c.group, c.v, nameOf(id), nil))
}

// Jobs lists jobs, newest first, without their tasks. state narrows the list to one state when it is not empty.
func (c *Client) Jobs(ctx context.Context, state string) iter.Seq2[Job, error] {
	p := &oas.ReplicationJobsListParams{Filter: filter("jobStatus", state)}
	return pages[Job](ctx, c, func() (*http.Response, error) {
		return c.api.ReplicationJobsList(ctx, c.subscription, c.group, c.v, p)
	})
}

// CancelJob asks a job to stop. The operation ends with the job, whatever became of it.
func (c *Client) CancelJob(ctx context.Context, id string) (*Operation, error) {
	return c.begin(c.api.ReplicationJobsCancel(ctx, c.subscription, c.group, c.v, nameOf(id), nil))
}

// RestartJob runs a job that failed again, from the task that failed.
func (c *Client) RestartJob(ctx context.Context, id string) (*Operation, error) {
	return c.begin(c.api.ReplicationJobsRestart(ctx, c.subscription, c.group, c.v, nameOf(id), nil))
}

// ResumeJob goes on with a job that waits for a person. comments are kept with it.
func (c *Client) ResumeJob(ctx context.Context, id, comments string) (*Operation, error) {
	in := oas.ResumeJobParams{Properties: oas.ResumeJobParamsProperties{Comments: comments}}
	return c.begin(c.api.ReplicationJobsResume(ctx, c.subscription, c.group, c.v, nameOf(id), nil, in))
}

// Artifacts lists what a job kept: serial logs and screenshots of the console.
func (c *Client) Artifacts(ctx context.Context, id string) ([]Artifact, error) {
	p, err := decode[page[Artifact]](c.api.ReplicationJobsListArtifacts(ctx, c.subscription, c.group, c.v, nameOf(id), nil))
	return p.Value, err
}

// Artifact reads one of them.
func (c *Client) Artifact(ctx context.Context, id, name string) ([]byte, error) {
	resp, err := c.api.ReplicationJobsGetArtifact(ctx, c.subscription, c.group, c.v, nameOf(id), name, nil)
	if err != nil {
		return nil, err
	}
	return answer(resp)
}

// Ended reports whether a job's state is final.
func Ended(j Job) bool {
	switch j.Properties.State {
	case "Succeeded", "Failed", "Cancelled":
		return true
	}
	return false
}
