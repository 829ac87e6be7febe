package worker

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/lifeboat-dr/lifeboat/service/job"
)

// Bounds of the time between two tries of a webhook, and of one try.
const (
	webhookLow  = time.Second
	webhookHigh = 30 * time.Second
	webhookTry  = 30 * time.Second
)

// webhookClient follows no redirects: a POST that becomes a GET on the way tells nobody anything.
var webhookClient = &http.Client{Timeout: webhookTry, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}

// webhookCall posts the context until the URL answers 2xx, refuses for good, or the time is over. All tries carry the same
// Idempotency-Key, which is the task's id: a task that is taken over is the same call.
func (t *Tasks) webhookCall(ctx context.Context, task *Task) (any, error) {
	var p job.WebhookCall
	if err := task.Decode(&p); err != nil {
		return nil, err
	}
	deadline, cancel := context.WithTimeout(ctx, p.Timeout)
	defer cancel()
	var said string
	for try, wait := 1, webhookLow; ; try, wait = try+1, min(2*wait, webhookHigh) {
		status, output, after, err := post(deadline, p, task.TaskID)
		switch {
		case err != nil:
			said = err.Error()
		case status >= 200 && status < 300:
			return job.WebhookCalled{Status: status, Output: output, Tries: try}, nil
		default:
			said = fmt.Sprintf("it answered %d: %s", status, output)
			if status < 500 && status != http.StatusTooManyRequests && status != http.StatusRequestTimeout {
				return nil, &Fault{Code: codeConflict, Message: fmt.Sprintf("Webhook %s refused: %s", p.URL, said), PossibleCauses: "The URL or what it expects has changed.", RecommendedAction: "Mend the webhook or the plan, then restart the job."}
			}
		}
		task.Progress(0, 0, fmt.Sprintf("try %d: %s", try, said))
		pause(deadline, max(wait, after))
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if deadline.Err() != nil {
			return nil, &Fault{Code: codeConflict, Message: fmt.Sprintf("Webhook %s took no call within %s (%d tries): %s", p.URL, p.Timeout, try, said),
				PossibleCauses: "What listens there is down or cannot be reached from this replicator.", RecommendedAction: "Bring it up, then restart the job."}
		}
	}
}

// post makes one try; after is how long the answer asks to wait.
func post(ctx context.Context, p job.WebhookCall, key string) (status int, output string, after time.Duration, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, p.URL, bytes.NewReader(p.Context))
	if err != nil {
		return 0, "", 0, err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Idempotency-Key", key)
	resp, err := webhookClient.Do(req)
	if err != nil {
		return 0, "", 0, err
	}
	defer func() { _ = resp.Body.Close() }() // nothing was written
	body, err := io.ReadAll(io.LimitReader(resp.Body, job.MaxActionOutput))
	if seconds, e := strconv.Atoi(resp.Header.Get("Retry-After")); e == nil && seconds > 0 {
		after = time.Duration(min(seconds, 3600)) * time.Second
	}
	return resp.StatusCode, strings.ToValidUTF8(string(bytes.TrimSpace(body)), "�"), after, err
}
