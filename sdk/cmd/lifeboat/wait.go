package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/schollz/progressbar/v3"
	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/lifeboat-dr/lifeboat/sdk"
	"github.com/lifeboat-dr/lifeboat/sdk/oas"
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
		p = &bars{lines: lines{w: a.err}}
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
	for _, t := range allTasks(j.Properties.Tasks, 0) {
		if t.State == l.tasks[t.TaskId] || t.State == "NotStarted" {
			continue
		}
		l.tasks[t.TaskId] = t.State
		moved := ""
		if p := t.Progress; t.State == "Succeeded" && p.DoneBytes != nil && *p.DoneBytes > 0 {
			moved = ", " + sizeOf(p.DoneBytes)
		}
		fmt.Fprintf(l.w, "%s  %stask %s: %s%s\n", now, strings.Repeat("  ", t.depth), name(t.FriendlyName, t.Name), t.State, moved)
		if d, err := t.CustomDetails.AsManualActionTaskDetails(); err == nil && t.State == "Suspended" && t.TaskType == d.InstanceType && d.Instructions != "" {
			fmt.Fprintf(l.w, "%s  %swaits for you: %s; then: lifeboat job resume %s\n", now, strings.Repeat("  ", t.depth), d.Instructions, j.Name)
		}
	}
}

func (l *lines) end() {}

// bars prints the same on a terminal, and under it the running task that counts bytes as a bar with bytes, rate and time left.
// Rate and time are reckoned here: a bar's own would take what was done before anyone looked for the work of an instant.
type bars struct {
	lines
	task  string
	total int64
	bar   *progressbar.ProgressBar
	seen  []sample
}

// sample is how far a task was at an instant.
type sample struct {
	at   time.Time
	done int64
}

// window is how many looks, a second apart, a rate is taken over.
const window = 15

func (b *bars) show(j sdk.Job) {
	if b.bar != nil {
		_ = b.bar.Clear() // of a terminal that went away nothing is drawn, which is no reason to stop waiting
	}
	b.lines.show(j)
	for _, t := range j.Properties.Tasks {
		if t.State == "InProgress" && t.Progress.TotalBytes != nil && *t.Progress.TotalBytes > 0 {
			b.draw(t)
			return
		}
	}
	b.bar = nil
}

func (b *bars) draw(t oas.ASRTask) {
	total, moved := *t.Progress.TotalBytes, int64(0)
	if t.Progress.DoneBytes != nil {
		moved = min(max(0, *t.Progress.DoneBytes), total)
	}
	if b.bar == nil || t.TaskId != b.task {
		b.task, b.total, b.bar, b.seen = t.TaskId, total, newBar(b.w, total), nil
	}
	if total != b.total {
		b.total = total
		b.bar.ChangeMax64(total)
	}
	b.bar.Describe(name(t.FriendlyName, t.Name) + note(t.Progress.Note) + "  " + sizeText(float64(moved)) + " of " + sizeText(float64(total)) + b.rate(moved, total))
	_ = b.bar.Set64(moved) // as in show
}

// rate tells bytes a second and the time left, once two looks allow it.
func (b *bars) rate(moved, total int64) string {
	b.seen = append(b.seen, sample{time.Now(), moved})
	if len(b.seen) > window {
		b.seen = b.seen[1:]
	}
	first := b.seen[0]
	took := time.Since(first.at).Seconds()
	if took <= 0 || moved <= first.done {
		return ""
	}
	perSecond := float64(moved-first.done) / took
	left := time.Duration(float64(total-moved) / perSecond * float64(time.Second))
	return fmt.Sprintf(", %s/s, %s left", sizeText(perSecond), left.Round(time.Second))
}

func newBar(w io.Writer, total int64) *progressbar.ProgressBar {
	return progressbar.NewOptions64(total, progressbar.OptionSetWriter(w), progressbar.OptionSetPredictTime(false), progressbar.OptionSetElapsedTime(false),
		progressbar.OptionSetWidth(24), progressbar.OptionShowDescriptionAtLineEnd(), progressbar.OptionSetRenderBlankState(false))
}

func (b *bars) end() {
	if b.bar != nil {
		_ = b.bar.Clear() // as in show
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
