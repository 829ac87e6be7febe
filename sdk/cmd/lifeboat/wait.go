package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/schollz/progressbar/v3"
	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/lifeboat-dr/lifeboat/sdk"
)

// waiting is how a command treats the operation it starts.
type waiting struct {
	wait    bool
	timeout time.Duration
}

func (w *waiting) flags(c *cobra.Command) *cobra.Command {
	c.Flags().BoolVarP(&w.wait, "wait", "w", false, "wait until the operation has ended, and show how far it is")
	c.Flags().DurationVar(&w.timeout, "timeout", 0, "stop waiting after this time; the operation goes on (0: never)")
	return c
}

// started is what a script reads of an operation that nobody waits for.
type started struct {
	Job   string `json:"job"`
	State string `json:"state"`
}

// finish ends a command that started an operation: by naming its job, or by waiting for it.
func (a *app) finish(ctx context.Context, w waiting, op *sdk.Operation, err error) error {
	if err != nil {
		return err
	}
	if op.JobID == "" {
		return showOne(a, started{State: "Succeeded"}, startedColumns)
	}
	if !w.wait {
		return showOne(a, started{Job: op.JobID, State: "InProgress"}, startedColumns)
	}
	job, err := a.await(ctx, w.timeout, op)
	if job.Name != "" {
		err = errors.Join(showOne(a, job, jobColumns), err)
	}
	return err
}

var startedColumns = []column[started]{
	{"job", func(s started) string { return s.Job }},
	{"state", func(s started) string { return s.State }},
}

func (a *app) await(ctx context.Context, timeout time.Duration, op *sdk.Operation) (sdk.Job, error) {
	if timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, timeout, fmt.Errorf("job %s had not ended after %s; it goes on, see lifeboat job wait %s", op.JobID, timeout, op.JobID))
		defer cancel()
	}
	var p interface {
		show(sdk.Job)
		end()
	}
	if f, ok := a.err.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		p = &bars{w: a.err}
	} else {
		p = &lines{w: a.err}
	}
	defer p.end()
	return op.Wait(ctx, p.show)
}

// done waits for an operation that is over at once in practice, showing nothing.
func done(ctx context.Context, op *sdk.Operation, err error) error {
	if err == nil {
		_, err = op.Wait(ctx, nil)
	}
	return err
}

// lines prints one line each time the state of a job or of a task changes, for logs.
type lines struct {
	w     io.Writer
	state string
	tasks map[string]string
}

func (l *lines) show(j sdk.Job) {
	if l.tasks == nil {
		l.tasks = map[string]string{}
	}
	now := time.Now().UTC().Format(time.TimeOnly)
	if s := j.Properties.State; s != l.state {
		l.state = s
		fmt.Fprintf(l.w, "%s  %s: %s\n", now, name(j.Properties.FriendlyName, j.Properties.ScenarioName), s)
	}
	for _, t := range j.Properties.Tasks {
		if t.State == l.tasks[t.TaskId] || t.State == "NotStarted" {
			continue
		}
		l.tasks[t.TaskId] = t.State
		moved := ""
		if p := t.Progress; t.State == "Succeeded" && p.DoneBytes != nil && *p.DoneBytes > 0 {
			moved = ", " + bytes(p.DoneBytes)
		}
		fmt.Fprintf(l.w, "%s  task %s: %s%s\n", now, name(t.FriendlyName, t.Name), t.State, moved)
	}
}

func (l *lines) end() {}

// bars draws the running task on a terminal: bytes, rate and time left when it counts bytes, a spinner when it does not.
type bars struct {
	w     io.Writer
	task  string
	total int64
	bar   *progressbar.ProgressBar
}

func (b *bars) show(j sdk.Job) {
	for _, t := range j.Properties.Tasks {
		if t.State != "InProgress" {
			continue
		}
		total, doneBytes := int64(-1), int64(0)
		if t.Progress.TotalBytes != nil && *t.Progress.TotalBytes > 0 {
			total = *t.Progress.TotalBytes
		}
		if t.Progress.DoneBytes != nil {
			doneBytes = *t.Progress.DoneBytes
		}
		if b.bar == nil || t.TaskId != b.task || (total < 0) != (b.total < 0) {
			b.end()
			b.task, b.total, b.bar = t.TaskId, total, newBar(b.w, total)
		}
		if total > 0 && total != b.total {
			b.total = total
			b.bar.ChangeMax64(total)
		}
		b.bar.Describe(name(t.FriendlyName, t.Name) + note(t.Progress.Note))
		// A terminal that went away is no reason to stop waiting.
		if total > 0 {
			_ = b.bar.Set64(min(doneBytes, total))
		} else {
			_ = b.bar.Add(1)
		}
		return
	}
}

func newBar(w io.Writer, total int64) *progressbar.ProgressBar {
	bytesShown := total > 0
	return progressbar.NewOptions64(total, progressbar.OptionSetWriter(w), progressbar.OptionShowBytes(bytesShown), progressbar.OptionUseIECUnits(true),
		progressbar.OptionShowTotalBytes(bytesShown), progressbar.OptionSetPredictTime(bytesShown), progressbar.OptionSetElapsedTime(true), progressbar.OptionSetWidth(24), progressbar.OptionClearOnFinish(),
		progressbar.OptionSpinnerType(14), progressbar.OptionThrottle(100*time.Millisecond))
}

func (b *bars) end() {
	if b.bar != nil {
		_ = b.bar.Clear() // as above
		b.bar = nil
	}
}

func note(text string) string {
	if text == "" {
		return ""
	}
	return " (" + text + ")"
}

func name(friendly, otherwise string) string {
	if friendly == "" {
		return otherwise
	}
	return friendly
}
