package control

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/lifeboat-dr/lifeboat/service/dr"
	"github.com/lifeboat-dr/lifeboat/service/job"
	"github.com/lifeboat-dr/lifeboat/service/store"
)

// PlanRequest is an operation on a recovery plan, with the plan's settings as they were when it was asked for.
type PlanRequest struct {
	Run            dr.PlanRun
	OnFailure      dr.OnFailure
	ParallelStarts int
	Network        string // drill: ARM id as sent
	NoNetwork      bool
	// Points says by provider type which point a machine is started from; a provider that is not in it takes the latest.
	Points map[string]string `json:",omitempty"`
	// GroupPoints says by consistency group which common point (dr.Point.GroupID) its machines are started from; a group that is
	// not in it, and a machine in no group, takes each machine's own.
	GroupPoints map[string]string `json:",omitempty"`
	Comments    string
}

// RecoveryPlanFailoverInput is the body of a plan's testFailover, plannedFailover and unplannedFailover.
type RecoveryPlanFailoverInput struct {
	Direction            string
	SourceSiteOperations string            // unplannedFailover: Required or NotRequired
	NetworkType          string            // testFailover
	NetworkID            string            // testFailover
	ProviderInput        []json.RawMessage // one for each provider: recoveryPointType
}

// planScenario is the job plan of each operation on a recovery plan.
var planScenario = map[dr.Operation]string{dr.OpTestFailover: job.PlanRecoveryTestFailover, dr.OpTestCleanup: job.PlanRecoveryTestCleanup,
	dr.OpPlannedFailover: job.PlanRecoveryPlannedFailover, dr.OpUnplannedFailover: job.PlanRecoveryUnplannedFailover, dr.OpCommit: job.PlanRecoveryCommit,
	dr.OpCancelFailover: job.PlanRecoveryCancel, dr.OpReprotect: job.PlanRecoveryReprotect}

// FailOverPlan drills the machines of a plan or fails them over; op is one of the three failovers.
func (s *Service) FailOverPlan(ctx context.Context, ref Ref, op dr.Operation, in RecoveryPlanFailoverInput) (string, error) {
	if err := checkDirection(in.Direction); err != nil {
		return "", err
	}
	q := PlanRequest{Run: dr.PlanRun{Op: op, Direction: dr.PrimaryToRecovery}, Network: in.NetworkID, NoNetwork: strings.EqualFold(in.NetworkType, "NoNetworkAttachAsInput"), Points: map[string]string{}}
	if strings.EqualFold(in.Direction, string(dr.RecoveryToPrimary)) {
		q.Run.Direction = dr.RecoveryToPrimary
	}
	q.Run.Shutdown = op == dr.OpUnplannedFailover && strings.EqualFold(in.SourceSiteOperations, "Required")
	together := map[string]bool{}
	for _, raw := range in.ProviderInput {
		provider := jsonField(raw, "instanceType")
		if provider == "" {
			continue
		}
		if _, twice := q.Points[provider]; twice {
			return "", &dr.Error{Code: dr.CodeInvalid, Message: fmt.Sprintf("providerSpecificDetails has two entries for %s", provider), PossibleCauses: "there is one for each provider of the plan",
				RecommendedAction: "send one of them"}
		}
		q.Points[provider] = jsonField(raw, "recoveryPointType")
		together[provider] = strings.EqualFold(jsonField(raw, "useMultiVmSyncPoint"), "true") || strings.EqualFold(jsonField(raw, "multiVmSyncPointOption"), "UseMultiVmSyncRecoveryPoint")
	}
	return s.runPlan(ctx, ref, q, func(tx store.Tx, p *dr.RecoveryPlan, q *PlanRequest) (err error) {
		q.GroupPoints, err = commonPoints(tx, p, q.Points, together)
		return err
	})
}

// CleanUpPlan ends the drill of all machines of a plan.
func (s *Service) CleanUpPlan(ctx context.Context, ref Ref, in CleanupInput) (string, error) {
	return s.runPlan(ctx, ref, PlanRequest{Run: dr.PlanRun{Op: dr.OpTestCleanup}, Comments: in.Comments}, nil)
}

// CommitPlan accepts the failover of all machines of a plan.
func (s *Service) CommitPlan(ctx context.Context, ref Ref) (string, error) {
	return s.runPlan(ctx, ref, PlanRequest{Run: dr.PlanRun{Op: dr.OpCommit}}, nil)
}

// CancelPlan takes the planned failover of all machines of a plan back.
func (s *Service) CancelPlan(ctx context.Context, ref Ref) (string, error) {
	return s.runPlan(ctx, ref, PlanRequest{Run: dr.PlanRun{Op: dr.OpCancelFailover}}, nil)
}

// ReprotectPlan replicates all machines of a plan in the other direction.
func (s *Service) ReprotectPlan(ctx context.Context, ref Ref) (string, error) {
	return s.runPlan(ctx, ref, PlanRequest{Run: dr.PlanRun{Op: dr.OpReprotect}}, nil)
}

// runPlan begins an operation: it decides which machines take part and lists all tasks from the start. prepare, if not nil, fills
// what of the request depends on the plan's machines.
func (s *Service) runPlan(ctx context.Context, ref Ref, asked PlanRequest, prepare func(store.Tx, *dr.RecoveryPlan, *PlanRequest) error) (string, error) {
	var id string
	err := s.store.Update(ctx, func(tx store.Tx) error {
		now := s.now()
		p, err := load[dr.RecoveryPlan](tx, KindRecoveryPlan, planKey(ref))
		if err != nil {
			return err
		}
		t := planTarget(Ref{Vault: ref.Vault, Name: p.Name})
		if id, err = repeated(ctx, tx, p.Vault, string(asked.Run.Op), t.path, now); err != nil || id != "" {
			return err
		}
		q := asked
		q.OnFailure, q.ParallelStarts = p.OnFailure, p.ParallelStarts
		if !divides(q.Run.Op) {
			q.OnFailure = dr.ContinueOnFailure // what one machine cannot do is no reason to leave the others where they are
		}
		if p.PendingJob != "" {
			if id, err = samePlanRequest(tx, p.PendingJob, q); err != nil || id != "" {
				return err
			}
			return unusedPlan(p, "run")
		}
		if prepare != nil {
			if err := prepare(tx, &p, &q); err != nil {
				return err
			}
		}
		input, err := json.Marshal(Request{Plan: &q})
		if err != nil {
			return err
		}
		parts, err := planParts(tx, &p, &q)
		if err != nil {
			return err
		}
		j := newJob(ctx, p.Vault, planScenario[q.Run.Op], t, now)
		j.RecoveryPlan, j.Input, j.State = p.Name, input, job.InProgress
		j.Tasks = append(j.Tasks, stageTasks(&p, q.Run, parts)...)
		p.PendingJob, id = j.ID, j.ID
		p.LastScenario = dr.Scenario{Name: string(j.Scenario), JobID: j.ID, Started: now}
		switch q.Run.Op {
		case dr.OpTestFailover:
			p.LastDrill = now
		case dr.OpPlannedFailover:
			p.LastPlanned = now
		case dr.OpUnplannedFailover:
			p.LastUnplanned = now
		}
		if err := remember(ctx, tx, string(q.Run.Op), j, now); err != nil {
			return err
		}
		if err := save(tx, KindRecoveryPlan, planKey(ref), &p, now); err != nil {
			return err
		}
		return SaveJob(tx, j)
	})
	if err != nil {
		return "", err
	}
	return id, nil
}

// samePlanRequest finds the running job when it does just what is asked for: a client repeats a request whose answer it did not get.
func samePlanRequest(tx store.Tx, pending string, q PlanRequest) (string, error) {
	running, ok, err := LoadOpenJob(tx, pending)
	if err != nil || !ok {
		return "", err
	}
	r, err := DecodeRequest(&running)
	if err != nil || r.Plan == nil {
		return "", err
	}
	r.Plan.GroupPoints = nil // chosen when it began
	was, err := json.Marshal(r.Plan)
	if err != nil {
		return "", err
	}
	now, err := json.Marshal(q)
	if err != nil || !bytes.Equal(was, now) {
		return "", err
	}
	return running.ID, nil
}

// divides tells whether the operation stops at a failure when the user chose so: the failovers, which have an order.
func divides(op dr.Operation) bool {
	return op == dr.OpTestFailover || op == dr.OpPlannedFailover || op == dr.OpUnplannedFailover
}

// planParts decides which part each machine of the plan takes. An operation that nobody has a part in is refused, and so is one
// that a machine's state does not allow when the plan is to stop at failures.
func planParts(tx store.Tx, p *dr.RecoveryPlan, q *PlanRequest) (map[dr.ItemID]job.MachinePart, error) {
	items, err := planItems(tx, p)
	if err != nil {
		return nil, err
	}
	out := map[dr.ItemID]job.MachinePart{}
	acts := 0
	var blocked []string
	var first *dr.Error
	for _, id := range p.Items() {
		it, ok := items[id]
		if !ok {
			continue // its protection was removed
		}
		part := job.MachinePart{Item: string(id), GUID: string(id), Name: it.FriendlyName, State: job.NotStarted}
		switch does, refusal := q.Run.PartOf(it.State, it.Driven); does {
		case dr.PartActs:
			acts++
		case dr.PartDone:
			part.Skip, part.SkipReason, part.State = string(does), "there is nothing to do for it", job.Succeeded
		default:
			part.Skip, part.SkipReason, part.State = string(does), refusal.Message, job.Succeeded
			blocked = append(blocked, fmt.Sprintf("%s: %s", it.FriendlyName, refusal.Message))
			if first == nil {
				first = refusal
			}
		}
		out[id] = part
	}
	switch {
	case len(blocked) > 0 && (q.OnFailure == dr.StopOnFailure || acts == 0):
		return nil, &dr.Error{Code: first.Code, Message: fmt.Sprintf("%s of plan %s is not allowed: %s", q.Run.Op, p.Name, strings.Join(blocked[:min(len(blocked), 10)], "; ")),
			PossibleCauses: first.PossibleCauses, RecommendedAction: first.RecommendedAction + "; or let the plan go on without them (onFailure Continue)"}
	case acts == 0:
		return nil, &dr.Error{Code: dr.CodeConflict, Message: fmt.Sprintf("%s of plan %s has nothing to do", q.Run.Op, p.Name), PossibleCauses: "all its machines are there already, or their protection was removed",
			RecommendedAction: "nothing needs to be done"}
	}
	return out, nil
}

// stageTasks are the tasks of an operation in their order.
func stageTasks(p *dr.RecoveryPlan, run dr.PlanRun, parts map[dr.ItemID]job.MachinePart) []job.Task {
	var out []job.Task
	for n, st := range p.Expand(run) {
		at := placeOf(p, st)
		add := func(id, name, friendly, kind string, fill func(*job.Stage)) {
			place := at
			fill(&place)
			out = append(out, job.Task{ID: fmt.Sprintf("Stage%d%s", n+1, id), Name: name, FriendlyName: friendly, Kind: kind, State: job.NotStarted, Stage: &place})
		}
		actions := func(id string, list []dr.StageAction) {
			for i, a := range list {
				act := job.Action{Kind: string(a.Kind), Name: a.Name, Script: a.Path, Runner: a.Runner, URL: a.URL, Instructions: a.Instructions, Timeout: a.Timeout, Primary: a.Primary, Skip: a.Skip}
				kind := map[dr.ActionKind]string{dr.ActionScript: job.KindScriptRun, dr.ActionWebhook: job.KindWebhookCall}[a.Kind]
				add(fmt.Sprintf("%s%dTask", id, i+1), actionTaskNames[a.Kind], a.Name, kind, func(s *job.Stage) { s.Action = &act })
			}
		}
		actions("Before", st.Before)
		if len(st.Items) > 0 {
			add("MachinesTask", "RecoveryPlan"+at.GroupKind+"Machines", at.GroupName, "", func(s *job.Stage) {
				for _, id := range st.Items {
					if part, ok := parts[id]; ok {
						s.Machines = append(s.Machines, part)
					}
				}
			})
		}
		actions("After", st.After)
	}
	return out
}

var actionTaskNames = map[dr.ActionKind]string{dr.ActionScript: "RecoveryPlanScriptAction", dr.ActionWebhook: "RecoveryPlanAutomationRunbookAction", dr.ActionManual: "RecoveryPlanManualAction"}

func placeOf(p *dr.RecoveryPlan, st dr.Stage) job.Stage {
	g := p.Groups[st.Group]
	at := job.Stage{Group: st.Group + 1, GroupKind: string(g.Kind), Kind: string(st.Kind)}
	switch g.Kind {
	case dr.GroupShutdown:
		at.GroupName = "All groups: shutdown"
	case dr.GroupFailover:
		at.GroupName = "All groups: failover"
	default:
		boot := 0
		for _, before := range p.Groups[:st.Group+1] {
			if before.Kind == dr.GroupBoot {
				boot++
			}
		}
		at.GroupName = fmt.Sprintf("Group %d", boot)
	}
	return at
}

// machineViews are the jobs of the plan's machines, in the order of the plan.
func machineViews(tx store.Tx, j *job.Job) (out []JobView, err error) {
	seen := map[string]bool{"": true}
	for _, t := range j.Tasks {
		if t.Stage == nil {
			continue
		}
		for _, m := range t.Stage.Machines {
			if seen[m.Job] {
				continue
			}
			seen[m.Job] = true
			part, err := LoadJob(tx, j.Vault, m.Job)
			if dr.CodeOf(err) == dr.CodeNotFound {
				continue
			}
			if err != nil {
				return nil, err
			}
			v, err := jobView(tx, part)
			if err != nil {
				return nil, err
			}
			out = append(out, v)
		}
	}
	return out, nil
}

// endPlanJob frees the plan for its next operation.
func endPlanJob(tx store.Tx, j *job.Job, now time.Time) error {
	p, ok, err := find[dr.RecoveryPlan](tx, KindRecoveryPlan, fold(j.Vault, j.RecoveryPlan))
	if err != nil || !ok || p.PendingJob != j.ID {
		return err
	}
	p.PendingJob = ""
	return save(tx, KindRecoveryPlan, fold(j.Vault, j.RecoveryPlan), &p, now)
}

// restartPlan runs a failed operation again: what succeeded is kept, machines that did not come up get a new job.
func restartPlan(tx store.Tx, j *job.Job, now time.Time) error {
	p, err := load[dr.RecoveryPlan](tx, KindRecoveryPlan, fold(j.Vault, j.RecoveryPlan))
	if err != nil {
		return err
	}
	if err := unusedPlan(p, "run"); err != nil {
		return err
	}
	r, err := DecodeRequest(j)
	if err != nil {
		return err
	}
	if p.LastScenario.JobID != j.ID {
		return &dr.Error{Code: dr.CodeConflict, Message: fmt.Sprintf("job %s is not the last operation of recovery plan %s", j.ID, p.Name), PossibleCauses: "another operation was started since",
			RecommendedAction: "start the operation anew"}
	}
	items, err := planItems(tx, &p)
	if err != nil {
		return err
	}
	redo := map[string]bool{}
	for _, t := range j.Tasks {
		if t.Stage == nil {
			continue
		}
		for _, m := range t.Stage.Machines {
			it, ok := items[dr.ItemID(m.Item)]
			if !ok {
				continue
			}
			switch does, refusal := r.Plan.Run.PartOf(it.State, it.Driven); {
			case does == dr.PartActs:
				redo[m.Item] = true
			case does == dr.PartBlocked && r.Plan.OnFailure == dr.StopOnFailure:
				return refusal
			}
		}
	}
	for i := range j.Tasks {
		restartTask(&j.Tasks[i], redo)
	}
	p.PendingJob, p.LastScenario.Started = j.ID, now
	return save(tx, KindRecoveryPlan, fold(p.Vault, p.Name), &p, now)
}

// restartTask makes a task run again if it did not succeed or if one of its machines is to be worked on once more. Actions that
// succeeded are not repeated.
func restartTask(t *job.Task, redo map[string]bool) {
	again := t.State != job.Succeeded
	if t.Stage != nil {
		st := *t.Stage
		st.Machines = slices.Clone(st.Machines)
		for i, m := range st.Machines {
			if redo[m.Item] {
				again = true
				st.Machines[i] = job.MachinePart{Item: m.Item, GUID: m.GUID, Name: m.Name, State: job.NotStarted}
			}
		}
		if st.Action != nil && again {
			act := *st.Action
			act.Resumed, act.Observation = false, ""
			st.Action = &act
		}
		t.Stage = &st
	}
	if !again {
		return
	}
	// Attempt and Token go on growing: an old delivery of the task must not be taken for the new one.
	*t = job.Task{ID: t.ID, Name: t.Name, FriendlyName: t.FriendlyName, Kind: t.Kind, State: job.NotStarted, Attempt: t.Attempt, Token: t.Token, Stage: t.Stage}
}
