package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/lifeboat-dr/lifeboat/sdk"
	"github.com/lifeboat-dr/lifeboat/sdk/oas"
)

var jobListColumns = []column[sdk.Job]{
	{"job", func(j sdk.Job) string { return j.Name }},
	{"what", func(j sdk.Job) string { return name(j.Properties.FriendlyName, j.Properties.ScenarioName) }},
	{"on", func(j sdk.Job) string { return j.Properties.TargetObjectName }},
	{"state", func(j sdk.Job) string { return j.Properties.State }},
	{"started", func(j sdk.Job) string { return when(j.Properties.StartTime) }},
	{"took", func(j sdk.Job) string {
		if j.Properties.EndTime.IsZero() {
			return ""
		}
		return j.Properties.EndTime.Sub(j.Properties.StartTime).Round(time.Millisecond).String()
	}},
}

var jobColumns = append(jobListColumns[:len(jobListColumns):len(jobListColumns)],
	column[sdk.Job]{"allowed now", func(j sdk.Job) string { return strings.Join(j.Properties.AllowedActions, ", ") }},
	column[sdk.Job]{"point", func(j sdk.Job) string {
		if d, ok := failedOver(j); ok {
			return strings.TrimSpace(when(d.RecoveryPointTime) + " " + d.RecoveryPointId[strings.LastIndex(d.RecoveryPointId, "/")+1:])
		}
		return ""
	}},
	column[sdk.Job]{"recovery time", func(j sdk.Job) string {
		d, _ := failedOver(j)
		return seconds(d.RecoveryTimeInSeconds)
	}},
	column[sdk.Job]{"data loss", func(j sdk.Job) string {
		d, _ := failedOver(j)
		return seconds(d.DataLossInSeconds)
	}})

func seconds(s *float64) string {
	if s == nil {
		return ""
	}
	return time.Duration(*s * float64(time.Second)).Round(time.Millisecond).String()
}

// failedOver is what a failover or a drill says about its machine.
func failedOver(j sdk.Job) (d oas.FailoverReplicationProtectedItemDetails, ok bool) {
	kind, err := j.Properties.CustomDetails.Discriminator()
	if err != nil || kind != "FailoverJobDetails" && kind != "TestFailoverJobDetails" {
		return d, false
	}
	f, err := j.Properties.CustomDetails.AsFailoverJobDetails() // both have these details under the same name
	if err != nil || len(f.ProtectedItemDetails) != 1 {         // a recovery plan's machines have jobs of their own to show it
		return d, false
	}
	return f.ProtectedItemDetails[0], true
}

// showJob prints a job with its tasks and what went wrong.
func (a *app) showJob(j sdk.Job) error {
	if err := showOne(a, j, jobColumns); err != nil || a.format == "json" || a.query != "" {
		return err
	}
	rows := [][]string{{"TASK", "STATE", "TOOK", "PROGRESS"}}
	for _, t := range allTasks(j.Properties.Tasks, 0) {
		took := ""
		if !t.EndTime.IsZero() && !t.StartTime.IsZero() {
			took = t.EndTime.Sub(t.StartTime).Round(time.Millisecond).String()
		}
		p := t.Progress
		progress := p.Note
		if p.TotalBytes != nil && *p.TotalBytes > 0 {
			progress = strings.TrimSpace(fmt.Sprintf("%s of %s %s", name(sizeOf(p.DoneBytes), "0 B"), sizeOf(p.TotalBytes), note(p.Note)))
		}
		rows = append(rows, []string{strings.Repeat("  ", t.depth) + name(t.FriendlyName, t.Name), t.State, dash(took), dash(progress)})
	}
	if len(rows) > 1 {
		fmt.Fprintln(a.out)
		if err := table(a.out, rows); err != nil {
			return err
		}
	}
	for _, e := range j.Properties.Errors {
		s := e.ServiceErrorDetails
		fmt.Fprintf(a.out, "\n%s: %s (%s)\n", strings.ToLower(name(e.ErrorLevel, "Error")), s.Message, s.Code)
		explain(a.out, &sdk.Error{PossibleCauses: s.PossibleCauses, RecommendedAction: s.RecommendedAction})
	}
	return nil
}

// nested is a task with how deep it lies in groups of a recovery plan.
type nested struct {
	oas.ASRTask
	depth int
}

// allTasks are tasks with those inside them, each after the one that it is in.
func allTasks(list []oas.ASRTask, depth int) (out []nested) {
	for _, t := range list {
		out = append(out, nested{t, depth})
		if g, err := t.GroupTaskCustomDetails.AsRecoveryPlanGroupTaskDetails(); err == nil {
			out = append(out, allTasks(g.ChildTasks, depth+1)...)
		}
	}
	return out
}

func (a *app) jobCommand() *cobra.Command {
	var state string
	limit := 0
	list := verb("list", "List jobs, newest first", func(ctx context.Context, _ []string) error {
		c, err := a.client(ctx)
		if err != nil {
			return err
		}
		all := []sdk.Job{}
		for j, err := range c.Jobs(ctx, state) {
			if err != nil {
				return err
			}
			all = append(all, j)
			if len(all) == limit {
				break
			}
		}
		return showList(a, all, jobListColumns)
	})
	list.Flags().StringVar(&state, "state", "", "only in this state, such as InProgress or Failed")
	list.Flags().IntVar(&limit, "limit", 50, "at most so many (0: all)")
	show := verb("show JOB", "Show a job, its tasks and what went wrong", func(ctx context.Context, args []string) error {
		c, err := a.client(ctx)
		if err != nil {
			return err
		}
		j, err := c.Job(ctx, args[0])
		if err != nil {
			return err
		}
		return a.showJob(j)
	})
	restart := a.startsJob("restart JOB", "Run a failed job again from the task that failed", func(ctx context.Context, c *sdk.Client, id string) (*sdk.Operation, error) {
		return c.RestartJob(ctx, id)
	})
	cancel := a.startsJob("cancel JOB", "Ask a job to stop", func(ctx context.Context, c *sdk.Client, id string) (*sdk.Operation, error) {
		return c.CancelJob(ctx, id)
	})
	var comments string
	resume := a.startsJob("resume JOB", "Go on with a job that waits for a person", func(ctx context.Context, c *sdk.Client, id string) (*sdk.Operation, error) {
		return c.ResumeJob(ctx, id, comments)
	})
	resume.Flags().StringVar(&comments, "comments", "", "kept with the job")
	var timeout time.Duration
	wait := verb("wait JOB", "Wait until a job's operation has ended", func(ctx context.Context, args []string) error {
		c, err := a.client(ctx)
		if err != nil {
			return err
		}
		return a.finish(ctx, waiting{wait: true, timeout: timeout}, c.Operation(args[0]), nil)
	})
	wait.Flags().DurationVar(&timeout, "timeout", 0, "stop waiting after this time (0: never)")
	return group("job", "Asynchronous operations", list, show, cancel, restart, resume, wait, a.artifactsCommand())
}

func (a *app) startsJob(use, short string, start func(ctx context.Context, c *sdk.Client, id string) (*sdk.Operation, error)) *cobra.Command {
	var w waiting
	return w.flags(verb(use, short, func(ctx context.Context, args []string) error {
		c, err := a.client(ctx)
		if err != nil {
			return err
		}
		op, err := start(ctx, c, args[0])
		return a.finish(ctx, w, op, err)
	}))
}

func (a *app) artifactsCommand() *cobra.Command {
	var directory string
	cmd := verb("artifacts JOB", "List what a job kept: serial logs, console screenshots", func(ctx context.Context, args []string) error {
		c, err := a.client(ctx)
		if err != nil {
			return err
		}
		all, err := c.Artifacts(ctx, args[0])
		if err != nil {
			return err
		}
		if directory != "" {
			if err := download(ctx, c, args[0], all, directory); err != nil {
				return err
			}
		}
		return showList(a, all, []column[sdk.Artifact]{
			{"name", func(f sdk.Artifact) string { return f.Name }},
			{"type", func(f sdk.Artifact) string { return f.ContentType }},
		})
	})
	cmd.Flags().StringVar(&directory, "download", "", "write them all into this directory")
	return cmd
}

// download writes artifacts under their last name, which is the server's and so never a path.
func download(ctx context.Context, c *sdk.Client, job string, all []sdk.Artifact, directory string) error {
	if err := os.MkdirAll(directory, 0o755); err != nil {
		return err
	}
	for _, f := range all {
		content, err := c.Artifact(ctx, job, f.Name)
		if err != nil {
			return err
		}
		base := filepath.Base(filepath.Clean("/" + f.Name))
		if base == "/" {
			return fmt.Errorf("job %s has an artifact without a name", job)
		}
		if err := os.WriteFile(filepath.Join(directory, base), content, 0o644); err != nil {
			return err
		}
	}
	return nil
}
