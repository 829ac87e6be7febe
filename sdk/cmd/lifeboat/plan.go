package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/oasdiff/yaml"
	"github.com/spf13/cobra"

	"github.com/lifeboat-dr/lifeboat/sdk"
)

var planColumns = []column[sdk.RecoveryPlan]{
	{"name", func(p sdk.RecoveryPlan) string { return p.Name }},
	{"machines", func(p sdk.RecoveryPlan) string {
		n := 0
		for _, g := range p.Properties.Groups {
			n += len(g.ReplicationProtectedItems)
		}
		return fmt.Sprint(n)
	}},
	{"groups", func(p sdk.RecoveryPlan) string {
		n := 0
		for _, g := range p.Properties.Groups {
			if g.GroupType == "Boot" {
				n++
			}
		}
		return fmt.Sprint(n)
	}},
	{"last operation", func(p sdk.RecoveryPlan) string {
		return strings.TrimSpace(p.Properties.CurrentScenario.ScenarioName + " " + p.Properties.CurrentScenarioStatus)
	}},
	{"allowed now", func(p sdk.RecoveryPlan) string { return strings.Join(p.Properties.AllowedOperations, ", ") }},
}

var planDetail = append(planColumns[:len(planColumns):len(planColumns)],
	column[sdk.RecoveryPlan]{"fabric", func(p sdk.RecoveryPlan) string { return p.Properties.PrimaryFabricFriendlyName }},
	column[sdk.RecoveryPlan]{"on failure", func(p sdk.RecoveryPlan) string { return string(p.Properties.OnFailure) }},
	column[sdk.RecoveryPlan]{"last drill", func(p sdk.RecoveryPlan) string { return when(p.Properties.LastTestFailoverTime) }},
	column[sdk.RecoveryPlan]{"job", func(p sdk.RecoveryPlan) string {
		id := p.Properties.CurrentScenario.JobId
		return id[strings.LastIndexByte(id, '/')+1:]
	}})

// planFile is a recovery plan as people write it. Names of machines are those of their protected items.
type planFile struct {
	Fabric         string          `json:"fabric"`
	OnFailure      string          `json:"onFailure"`
	ParallelStarts int32           `json:"parallelStarts"`
	Shutdown       planFileGroup   `json:"shutdown"`
	Failover       planFileGroup   `json:"failover"`
	Groups         []planFileGroup `json:"groups"`
}

type planFileGroup struct {
	Machines []string         `json:"machines"`
	Before   []planFileAction `json:"before"`
	After    []planFileAction `json:"after"`
}

type planFileAction struct {
	Name    string   `json:"name"`
	Script  string   `json:"script"`
	Runner  string   `json:"runner"`
	Webhook string   `json:"webhook"`
	Manual  string   `json:"manual"`
	Timeout string   `json:"timeout"`
	Primary bool     `json:"primary"`
	On      []string `json:"on"`
	Home    bool     `json:"home"`
}

// words maps what people write in on to the wire's failoverTypes.
var planWords = map[string]string{"drill": "TestFailover", "planned": "PlannedFailover", "unplanned": "UnplannedFailover"}

func readPlan(path string) (f planFile, err error) {
	var text []byte
	if path == "-" {
		text, err = io.ReadAll(io.LimitReader(os.Stdin, 1<<20))
	} else {
		text, err = os.ReadFile(path)
	}
	if err == nil {
		text, err = yaml.YAMLToJSON(text)
	}
	if err == nil {
		d := json.NewDecoder(bytes.NewReader(text))
		d.DisallowUnknownFields()
		err = d.Decode(&f)
	}
	if err != nil {
		return f, &usageError{fmt.Sprintf("--file %s: %v", path, err)}
	}
	return f, nil
}

// settings completes a plan: machines are looked up by name, and a fabric that is not named is the first machine's.
func (f planFile) settings(ctx context.Context, c *sdk.Client) (s sdk.PlanSettings, err error) {
	s.Fabric, s.OnFailure, s.ParallelStarts = f.Fabric, f.OnFailure, f.ParallelStarts
	add := func(kind string, from planFileGroup) error {
		g := sdk.PlanGroup{Kind: kind}
		for _, name := range from.Machines {
			item, err := c.FindItem(ctx, f.Fabric, name)
			if err != nil {
				return err
			}
			ref, err := sdk.RefOf(item)
			if err != nil {
				return err
			}
			if s.Fabric == "" {
				s.Fabric = ref.Fabric
			}
			g.Machines = append(g.Machines, ref)
		}
		if g.Before, err = actionsOf(from.Before); err != nil {
			return err
		}
		if g.After, err = actionsOf(from.After); err != nil {
			return err
		}
		s.Groups = append(s.Groups, g)
		return nil
	}
	if err := add("Shutdown", f.Shutdown); err != nil {
		return s, err
	}
	if err := add("Failover", f.Failover); err != nil {
		return s, err
	}
	for _, g := range f.Groups {
		if err := add("Boot", g); err != nil {
			return s, err
		}
	}
	return s, nil
}

func actionsOf(from []planFileAction) (out []sdk.PlanAction, _ error) {
	for _, a := range from {
		x := sdk.PlanAction{Name: a.Name, Script: a.Script, Runner: a.Runner, Webhook: a.Webhook, Manual: a.Manual, Primary: a.Primary, Home: a.Home}
		if a.Timeout != "" {
			d, err := time.ParseDuration(a.Timeout)
			if err != nil {
				return nil, &usageError{fmt.Sprintf("timeout of action %q is %q: write it as 90s or 5m", a.Name, a.Timeout)}
			}
			x.Timeout = d
		}
		for _, w := range a.On {
			word, ok := planWords[w]
			if !ok {
				return nil, &usageError{fmt.Sprintf("action %q is on %q: use drill, planned, unplanned", a.Name, w)}
			}
			x.On = append(x.On, word)
		}
		out = append(out, x)
	}
	return out, nil
}

func (a *app) planCommand() *cobra.Command {
	list := verb("list", "List the recovery plans of the vault", func(ctx context.Context, _ []string) error {
		c, err := a.client(ctx)
		if err != nil {
			return err
		}
		all, err := sdk.Collect(c.Plans(ctx))
		if err != nil {
			return err
		}
		return showList(a, all, planColumns)
	})
	show := verb("show PLAN", "Show a recovery plan, its groups and actions, and what may be done with it now", func(ctx context.Context, args []string) error {
		c, err := a.client(ctx)
		if err != nil {
			return err
		}
		p, err := c.Plan(ctx, args[0])
		if err != nil {
			return err
		}
		return a.showPlan(p)
	})
	remove := verb("delete PLAN", "Delete a recovery plan; its machines stay as they are", func(ctx context.Context, args []string) error {
		c, err := a.client(ctx)
		if err != nil {
			return err
		}
		op, err := c.DeletePlan(ctx, args[0])
		return done(ctx, op, err)
	})
	var in sdk.PlanFailover
	var comments string
	drill := a.startsPlan("drill PLAN", "Start a drill of all machines of a plan; it lasts until its cleanup", func(ctx context.Context, c *sdk.Client, plan string) (*sdk.Operation, error) {
		return c.DrillPlan(ctx, plan, in)
	})
	drill.Flags().StringVar(&in.Network, "network", "", "isolated network (default: each machine's test network)")
	drill.Flags().BoolVar(&in.Detached, "no-network", false, "without any network")
	cleanup := a.startsPlan("cleanup PLAN", "End a drill of a plan and remove what it made", func(ctx context.Context, c *sdk.Client, plan string) (*sdk.Operation, error) {
		return c.CleanUpPlan(ctx, plan, comments)
	})
	planned := a.startsPlan("planned PLAN", "Move all machines of a plan without loss", func(ctx context.Context, c *sdk.Client, plan string) (*sdk.Operation, error) {
		return c.PlannedFailoverPlan(ctx, plan)
	})
	failover := a.startsPlan("failover PLAN", "Start all machines of a plan at the other side from their points, the sources presumed lost", func(ctx context.Context, c *sdk.Client, plan string) (*sdk.Operation, error) {
		return c.UnplannedFailoverPlan(ctx, plan, in)
	})
	failover.Flags().BoolVar(&in.Shutdown, "shutdown", false, "ask the sources to shut down first, in case they live")
	for _, c := range []*cobra.Command{drill, failover} {
		c.Flags().StringVar(&in.Points, "points", "Latest", "Latest, LatestProcessed, LatestApplicationConsistent or LatestCrashConsistent")
	}
	commit := a.startsPlan("commit PLAN", "Accept the failover of all machines of a plan", func(ctx context.Context, c *sdk.Client, plan string) (*sdk.Operation, error) {
		return c.CommitPlan(ctx, plan)
	})
	cancel := a.startsPlan("cancel PLAN", "Undo the planned failover of all machines of a plan", func(ctx context.Context, c *sdk.Client, plan string) (*sdk.Operation, error) {
		return c.CancelPlan(ctx, plan)
	})
	reprotect := a.startsPlan("reprotect PLAN", "Replicate all machines of a plan in the other direction from now on", func(ctx context.Context, c *sdk.Client, plan string) (*sdk.Operation, error) {
		return c.ReprotectPlan(ctx, plan)
	})
	resume := a.startsPlan("resume PLAN", "Go on with a plan that waits for a person", func(ctx context.Context, c *sdk.Client, plan string) (*sdk.Operation, error) {
		return c.ResumePlan(ctx, plan, comments)
	})
	for _, c := range []*cobra.Command{cleanup, resume} {
		c.Flags().StringVar(&comments, "comments", "", "kept with the job")
	}
	return group("plan", "Recovery plans: groups of machines in order, with actions between them", a.createPlanCommand(), list, show, remove, drill, cleanup, failover, planned, resume, commit, cancel, reprotect)
}

func (a *app) createPlanCommand() *cobra.Command {
	var path, onFailure string
	var groups []string
	var parallel int32
	create := verb("create PLAN", "Create a recovery plan, or replace it", func(ctx context.Context, args []string) error {
		var f planFile
		switch {
		case (path == "") == (len(groups) == 0):
			return &usageError{"say what the plan does with --file, or with --group for each group"}
		case path != "":
			var err error
			if f, err = readPlan(path); err != nil {
				return err
			}
		}
		for _, g := range groups {
			f.Groups = append(f.Groups, planFileGroup{Machines: strings.Split(g, ",")})
		}
		if onFailure != "" {
			f.OnFailure = onFailure
		}
		if parallel > 0 {
			f.ParallelStarts = parallel
		}
		c, err := a.client(ctx)
		if err != nil {
			return err
		}
		s, err := f.settings(ctx, c)
		if err != nil {
			return err
		}
		op, err := c.PutPlan(ctx, args[0], s)
		if err := done(ctx, op, err); err != nil {
			return err
		}
		p, err := c.Plan(ctx, args[0])
		if err != nil {
			return err
		}
		return a.showPlan(p)
	})
	create.Flags().StringVar(&path, "file", "", "YAML or JSON file with groups and actions (docs/runbooks/plans.md); - for standard input")
	create.Flags().StringArrayVar(&groups, "group", nil, "machines of a group, with commas between; again for each group, in order")
	create.Flags().StringVar(&onFailure, "on-failure", "", "Stop or Continue when a machine or an action fails (default Stop)")
	create.Flags().Int32Var(&parallel, "parallel", 0, "machines of a group that start at the same time (default 10)")
	return create
}

// startsPlan is a verb that starts an operation on the plan it names.
func (a *app) startsPlan(use, short string, start func(ctx context.Context, c *sdk.Client, plan string) (*sdk.Operation, error)) *cobra.Command {
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

// showPlan prints a plan with a line for each of its steps.
func (a *app) showPlan(p sdk.RecoveryPlan) error {
	if err := showOne(a, p, planDetail); err != nil || a.format == "json" || a.query != "" {
		return err
	}
	rows := [][]string{{"GROUP", "STEP", "WHAT"}}
	boot := 0
	for _, g := range p.Properties.Groups {
		title := string(g.GroupType)
		if g.GroupType == "Boot" {
			boot++
			title = fmt.Sprint(boot)
		}
		for _, x := range g.StartGroupActions {
			rows = append(rows, []string{title, "before", x.ActionName})
		}
		for _, i := range g.ReplicationProtectedItems {
			rows = append(rows, []string{title, "machine", i.Id[strings.LastIndexByte(i.Id, '/')+1:]})
		}
		for _, x := range g.EndGroupActions {
			rows = append(rows, []string{title, "after", x.ActionName})
		}
	}
	fmt.Fprintln(a.out)
	return table(a.out, rows)
}
