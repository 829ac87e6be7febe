package sdk

import (
	"context"
	"fmt"
	"iter"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/lifeboat-dr/lifeboat/sdk/oas"
)

// What happens to the rest of a recovery plan when a machine or an action fails.
const (
	StopOnFailure     = "Stop"
	ContinueOnFailure = "Continue"
)

// PlanSettings describe a recovery plan.
type PlanSettings struct {
	Fabric         string // site of the machines
	Groups         []PlanGroup
	OnFailure      string // StopOnFailure when empty
	ParallelStarts int32  // machines of a group that are worked on at the same time; 0 lets the server choose
}

// PlanGroup is a group of machines that start together, with what is done before the first and after the last.
type PlanGroup struct {
	// Kind is Boot when empty; Shutdown and Failover hold actions only.
	Kind          string
	Machines      []ItemRef
	Before, After []PlanAction
}

// PlanAction is done between machines. Exactly one of Script, Webhook and Manual says what it is.
type PlanAction struct {
	Name    string
	Script  string // path below the runner's directory of scripts
	Runner  string // with Script: name of the runner; empty takes any at the side
	Webhook string // URL that is posted to
	Manual  string // instructions for the person who resumes the job
	Timeout time.Duration
	Primary bool // at the primary side, where it is skipped in a drill; else at the recovery side
	// In which operations: TestFailover, PlannedFailover, UnplannedFailover; empty takes all three.
	On []string
	// Home is for the way home, too; without it the action is for the way to the recovery side only.
	Home bool
}

func (a PlanAction) wire() (out oas.RecoveryPlanAction, err error) {
	out = oas.RecoveryPlanAction{ActionName: a.Name, FailoverTypes: []oas.RecoveryPlanFailoverType{}, FailoverDirections: []oas.FailoverDirection{oas.PrimaryToRecovery}}
	if a.Home {
		out.FailoverDirections = append(out.FailoverDirections, oas.RecoveryToPrimary)
	}
	on := a.On
	if len(on) == 0 {
		on = []string{"TestFailover", "PlannedFailover", "UnplannedFailover"}
	}
	for _, word := range on {
		out.FailoverTypes = append(out.FailoverTypes, oas.RecoveryPlanFailoverType(word))
	}
	timeout, side := "", oas.Recovery
	if a.Timeout > 0 {
		timeout = fmt.Sprintf("PT%dS", int64((a.Timeout+time.Second-1)/time.Second))
	}
	if a.Primary {
		side = oas.Primary
	}
	kinds := 0
	for _, s := range []string{a.Script, a.Webhook, a.Manual} {
		if s != "" {
			kinds++
		}
	}
	switch {
	case kinds != 1:
		return out, &Error{Code: "InvalidParameter", Message: fmt.Sprintf("action %q is not one thing", a.Name), PossibleCauses: "it has none or several of script, webhook and manual", RecommendedAction: "give it one of them"}
	case a.Script != "":
		err = out.CustomDetails.FromRecoveryPlanScriptActionDetails(oas.RecoveryPlanScriptActionDetails{InstanceType: "ScriptActionDetails", Path: a.Script, Runner: a.Runner, Timeout: timeout, FabricLocation: side})
	case a.Webhook != "":
		err = out.CustomDetails.FromRecoveryPlanAutomationRunbookActionDetails(oas.RecoveryPlanAutomationRunbookActionDetails{InstanceType: "AutomationRunbookActionDetails", RunbookId: a.Webhook, Timeout: timeout, FabricLocation: side})
	default:
		err = out.CustomDetails.FromRecoveryPlanManualActionDetails(oas.RecoveryPlanManualActionDetails{InstanceType: "ManualActionDetails", Description: a.Manual})
	}
	return out, err
}

func (c *Client) planGroups(groups []PlanGroup) ([]oas.RecoveryPlanGroup, error) {
	out := []oas.RecoveryPlanGroup{}
	for _, g := range groups {
		group := oas.RecoveryPlanGroup{GroupType: oas.RecoveryPlanGroupType(or(g.Kind, "Boot")), ReplicationProtectedItems: []oas.RecoveryPlanProtectedItem{},
			StartGroupActions: []oas.RecoveryPlanAction{}, EndGroupActions: []oas.RecoveryPlanAction{}}
		for _, i := range g.Machines {
			group.ReplicationProtectedItems = append(group.ReplicationProtectedItems, oas.RecoveryPlanProtectedItem{Id: c.itemID(i)})
		}
		for _, list := range []struct {
			from []PlanAction
			to   *[]oas.RecoveryPlanAction
		}{{g.Before, &group.StartGroupActions}, {g.After, &group.EndGroupActions}} {
			for _, a := range list.from {
				action, err := a.wire()
				if err != nil {
					return nil, err
				}
				*list.to = append(*list.to, action)
			}
		}
		out = append(out, group)
	}
	return out, nil
}

func (c *Client) itemID(i ItemRef) string {
	return c.ID(Segment{kindFabric, i.Fabric}, Segment{kindContainer, i.Container}, Segment{kindItem, i.Name}).String()
}

// PutPlan creates a recovery plan, or replaces it.
func (c *Client) PutPlan(ctx context.Context, name string, s PlanSettings) (*Operation, error) {
	groups, err := c.planGroups(s.Groups)
	if err != nil {
		return nil, err
	}
	p := oas.CreateRecoveryPlanInputProperties{PrimaryFabricId: c.ID(Segment{kindFabric, s.Fabric}).String(), RecoveryFabricId: recoverySite, Groups: groups, OnFailure: oas.RecoveryPlanOnFailure(s.OnFailure)}
	if s.ParallelStarts > 0 {
		p.ParallelStarts = &s.ParallelStarts
	}
	return c.begin(c.api.ReplicationRecoveryPlansCreate(ctx, c.subscription, c.group, c.v, name, nil, oas.CreateRecoveryPlanInput{Properties: p}))
}

// Plan reads a recovery plan.
func (c *Client) Plan(ctx context.Context, name string) (RecoveryPlan, error) {
	return decode[RecoveryPlan](c.api.ReplicationRecoveryPlansGet(ctx, c.subscription, c.group, c.v, nameOf(name), nil))
}

// Plans lists the recovery plans of the vault.
func (c *Client) Plans(ctx context.Context) iter.Seq2[RecoveryPlan, error] {
	return pages[RecoveryPlan](ctx, c, func() (*http.Response, error) {
		return c.api.ReplicationRecoveryPlansList(ctx, c.subscription, c.group, c.v, nil)
	})
}

// DeletePlan deletes a recovery plan; its machines stay as they are.
func (c *Client) DeletePlan(ctx context.Context, name string) (*Operation, error) {
	return c.begin(c.api.ReplicationRecoveryPlansDelete(ctx, c.subscription, c.group, c.v, nameOf(name), nil))
}

// PlanFailover says how the machines of a plan are started at the other side.
type PlanFailover struct {
	// Points says which point each machine starts from: Latest, LatestProcessed, LatestApplicationConsistent or
	// LatestCrashConsistent; empty takes Latest.
	Points   string
	Network  string // drill: the isolated network
	Detached bool   // drill: without any network
	Shutdown bool   // unplanned failover: ask the sources to shut down first
}

// providers is the input for every provider of a plan, and the direction that its machines go.
func (c *Client) providers(ctx context.Context, name string, in PlanFailover) (out []oas.RecoveryPlanProviderSpecificFailoverInput, to oas.FailoverDirection, _ error) {
	plan, err := c.Plan(ctx, name)
	if err != nil {
		return nil, "", err
	}
	if slices.Contains(plan.Properties.ReplicationProviders, ProviderGuestBack) {
		return nil, oas.RecoveryToPrimary, nil
	}
	var p oas.RecoveryPlanProviderSpecificFailoverInput
	points := oas.RecoveryPlanInMageRcmFailoverInputRecoveryPointType(or(in.Points, "Latest"))
	if err := p.FromRecoveryPlanInMageRcmFailoverInput(oas.RecoveryPlanInMageRcmFailoverInput{InstanceType: ProviderGuest, RecoveryPointType: points}); err != nil {
		return nil, "", err
	}
	return append(out, p), oas.PrimaryToRecovery, nil
}

// DrillPlan starts a drill of all machines of a plan.
func (c *Client) DrillPlan(ctx context.Context, name string, in PlanFailover) (*Operation, error) {
	providers, to, err := c.providers(ctx, name, in)
	if err != nil {
		return nil, err
	}
	p := oas.RecoveryPlanTestFailoverInputProperties{FailoverDirection: to, NetworkType: "VmNetworkAsInput", NetworkId: in.Network, ProviderSpecificDetails: providers}
	if in.Detached {
		p.NetworkType = "NoNetworkAttachAsInput"
	}
	return c.begin(c.api.ReplicationRecoveryPlansTestFailover(ctx, c.subscription, c.group, c.v, nameOf(name), nil, oas.RecoveryPlanTestFailoverInput{Properties: p}))
}

// CleanUpPlan ends the drill of all machines of a plan. comments are kept with the job.
func (c *Client) CleanUpPlan(ctx context.Context, name, comments string) (*Operation, error) {
	in := oas.RecoveryPlanTestFailoverCleanupInput{Properties: oas.RecoveryPlanTestFailoverCleanupInputProperties{Comments: comments}}
	return c.begin(c.api.ReplicationRecoveryPlansTestFailoverCleanup(ctx, c.subscription, c.group, c.v, nameOf(name), nil, in))
}

// PlannedFailoverPlan moves all machines of a plan without loss.
func (c *Client) PlannedFailoverPlan(ctx context.Context, name string) (*Operation, error) {
	_, to, err := c.providers(ctx, name, PlanFailover{})
	if err != nil {
		return nil, err
	}
	in := oas.RecoveryPlanPlannedFailoverInput{Properties: oas.RecoveryPlanPlannedFailoverInputProperties{FailoverDirection: to}}
	return c.begin(c.api.ReplicationRecoveryPlansPlannedFailover(ctx, c.subscription, c.group, c.v, nameOf(name), nil, in))
}

// UnplannedFailoverPlan starts all machines of a plan from their points, their sources presumed lost.
func (c *Client) UnplannedFailoverPlan(ctx context.Context, name string, in PlanFailover) (*Operation, error) {
	providers, to, err := c.providers(ctx, name, in)
	if err != nil {
		return nil, err
	}
	p := oas.RecoveryPlanUnplannedFailoverInputProperties{FailoverDirection: to, SourceSiteOperations: oas.NotRequired, ProviderSpecificDetails: providers}
	if in.Shutdown {
		p.SourceSiteOperations = oas.Required
	}
	return c.begin(c.api.ReplicationRecoveryPlansUnplannedFailover(ctx, c.subscription, c.group, c.v, nameOf(name), nil, oas.RecoveryPlanUnplannedFailoverInput{Properties: p}))
}

// CommitPlan accepts the failover of all machines of a plan.
func (c *Client) CommitPlan(ctx context.Context, name string) (*Operation, error) {
	return c.begin(c.api.ReplicationRecoveryPlansFailoverCommit(ctx, c.subscription, c.group, c.v, nameOf(name), nil))
}

// CancelPlan undoes the planned failover of all machines of a plan.
func (c *Client) CancelPlan(ctx context.Context, name string) (*Operation, error) {
	return c.begin(c.api.ReplicationRecoveryPlansFailoverCancel(ctx, c.subscription, c.group, c.v, nameOf(name), nil))
}

// ReprotectPlan replicates all machines of a plan in the other direction from now on.
func (c *Client) ReprotectPlan(ctx context.Context, name string) (*Operation, error) {
	return c.begin(c.api.ReplicationRecoveryPlansReprotect(ctx, c.subscription, c.group, c.v, nameOf(name), nil))
}

// ResumePlan goes on with a plan whose operation waits for a person, and returns that operation, not the request to resume.
// comments are kept as the person's observation.
func (c *Client) ResumePlan(ctx context.Context, name, comments string) (*Operation, error) {
	plan, err := c.Plan(ctx, name)
	if err != nil {
		return nil, err
	}
	if !strings.EqualFold(plan.Properties.CurrentScenarioStatus, "Suspended") || plan.Properties.CurrentScenarioStatusDescription == "WaitingForStopTestFailover" {
		return nil, &Error{Code: "Conflict", Message: "recovery plan " + plan.Name + " waits for nobody", PossibleCauses: "it has not come to a manual action yet, or somebody was faster", RecommendedAction: "look at its job"}
	}
	job := nameOf(plan.Properties.CurrentScenario.JobId)
	if _, err := c.ResumeJob(ctx, job, comments); err != nil {
		return nil, err
	}
	return c.Operation(job), nil
}
