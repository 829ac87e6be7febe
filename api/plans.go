package api

import (
	"encoding/json"
	"net/http"
	"strings"

	"github.com/lifeboat-dr/lifeboat/api/oas"
	"github.com/lifeboat-dr/lifeboat/service/control"
	"github.com/lifeboat-dr/lifeboat/service/dr"
)

func planBody(c *scope, v control.RecoveryPlanView) oas.RecoveryPlan {
	p := v.Plan
	out := oas.RecoveryPlanProperties{FriendlyName: p.Name, PrimaryFabricId: p.PrimaryFabricID, PrimaryFabricFriendlyName: p.PrimaryFabric, RecoveryFabricId: p.RecoveryFabricID,
		RecoveryFabricFriendlyName: p.RecoveryFabricID[strings.LastIndexByte(p.RecoveryFabricID, '/')+1:], FailoverDeploymentModel: p.DeploymentModel,
		ReplicationProviders: v.Providers, AllowedOperations: v.Allowed, LastPlannedFailoverTime: p.LastPlanned, LastUnplannedFailoverTime: p.LastUnplanned, LastTestFailoverTime: p.LastDrill,
		CurrentScenarioStatus: v.Status, CurrentScenarioStatusDescription: v.Description, Groups: []oas.RecoveryPlanGroup{}, ProviderSpecificDetails: []oas.RecoveryPlanProviderSpecificDetails{},
		OnFailure: oas.RecoveryPlanOnFailure(p.OnFailure), ParallelStarts: ptr(int32(p.ParallelStarts))}
	if p.LastScenario.JobID != "" {
		out.CurrentScenario = oas.CurrentScenarioDetails{ScenarioName: p.LastScenario.Name, JobId: c.job(p.LastScenario.JobID), StartTime: p.LastScenario.Started}
	}
	var inputs []json.RawMessage
	_ = json.Unmarshal(p.ProviderInput, &inputs) // was validated when it came in
	for _, raw := range inputs {
		if instanceType(raw) != string(dr.ProviderA2A) {
			continue // the field shows none for the others
		}
		var d oas.RecoveryPlanProviderSpecificDetails
		must(d.UnmarshalJSON(raw))
		out.ProviderSpecificDetails = append(out.ProviderSpecificDetails, d)
	}
	for _, g := range p.Groups {
		group := oas.RecoveryPlanGroup{GroupType: oas.RecoveryPlanGroupType(g.Kind), ReplicationProtectedItems: []oas.RecoveryPlanProtectedItem{},
			StartGroupActions: planActions(g.Before), EndGroupActions: planActions(g.After)}
		for _, id := range g.Items {
			if it, ok := v.Items[id]; ok {
				group.ReplicationProtectedItems = append(group.ReplicationProtectedItems, oas.RecoveryPlanProtectedItem{Id: c.item(it), VirtualMachineId: string(id)})
			}
		}
		out.Groups = append(out.Groups, group)
	}
	return oas.RecoveryPlan{Id: c.base + "/replicationRecoveryPlans/" + p.Name, Name: p.Name, Type: typePlan, Properties: out}
}

func sideOf(primary bool) oas.RecoveryPlanActionLocation {
	if primary {
		return oas.Primary
	}
	return oas.Recovery
}

func planActions(list []dr.PlanAction) []oas.RecoveryPlanAction {
	out := []oas.RecoveryPlanAction{}
	for _, a := range list {
		x := oas.RecoveryPlanAction{ActionName: a.Name, FailoverTypes: []oas.RecoveryPlanFailoverType{}, FailoverDirections: []oas.FailoverDirection{}}
		for _, t := range a.Types {
			x.FailoverTypes = append(x.FailoverTypes, oas.RecoveryPlanFailoverType(t))
		}
		for _, d := range a.Directions {
			x.FailoverDirections = append(x.FailoverDirections, oas.FailoverDirection(d))
		}
		switch a.Kind {
		case dr.ActionScript:
			must(x.CustomDetails.FromRecoveryPlanScriptActionDetails(oas.RecoveryPlanScriptActionDetails{InstanceType: "ScriptActionDetails", Path: a.PathSent, Timeout: a.TimeoutSent, FabricLocation: sideOf(a.Primary), Runner: a.Runner}))
		case dr.ActionWebhook:
			must(x.CustomDetails.FromRecoveryPlanAutomationRunbookActionDetails(oas.RecoveryPlanAutomationRunbookActionDetails{InstanceType: "AutomationRunbookActionDetails", RunbookId: a.URL, Timeout: a.TimeoutSent, FabricLocation: sideOf(a.Primary)}))
		default:
			must(x.CustomDetails.FromRecoveryPlanManualActionDetails(oas.RecoveryPlanManualActionDetails{InstanceType: "ManualActionDetails", Description: a.Instructions}))
		}
		out = append(out, x)
	}
	return out
}

func groupsOf(in []oas.RecoveryPlanGroup) ([]control.RecoveryPlanGroup, error) {
	if in == nil {
		return nil, nil
	}
	out := []control.RecoveryPlanGroup{}
	for _, g := range in {
		group := control.RecoveryPlanGroup{Kind: dr.GroupKind(g.GroupType)}
		for _, i := range g.ReplicationProtectedItems {
			group.Items = append(group.Items, control.RecoveryPlanItem{ID: i.Id, GUID: i.VirtualMachineId})
		}
		var err error
		if group.Before, err = actionsOf(g.StartGroupActions); err != nil {
			return nil, err
		}
		if group.After, err = actionsOf(g.EndGroupActions); err != nil {
			return nil, err
		}
		out = append(out, group)
	}
	return out, nil
}

func actionsOf(in []oas.RecoveryPlanAction) (out []dr.PlanAction, err error) {
	for _, x := range in {
		a := dr.PlanAction{Name: x.ActionName}
		for _, t := range x.FailoverTypes {
			a.Types = append(a.Types, string(t))
		}
		for _, d := range x.FailoverDirections {
			a.Directions = append(a.Directions, dr.Direction(d))
		}
		details, err := x.CustomDetails.ValueByDiscriminator()
		if err != nil {
			return nil, err
		}
		switch d := details.(type) {
		case oas.RecoveryPlanScriptActionDetails:
			a.Kind, a.PathSent, a.Runner, a.TimeoutSent, a.Primary = dr.ActionScript, d.Path, d.Runner, d.Timeout, d.FabricLocation == oas.Primary
		case oas.RecoveryPlanAutomationRunbookActionDetails:
			a.Kind, a.URL, a.TimeoutSent, a.Primary = dr.ActionWebhook, d.RunbookId, d.Timeout, d.FabricLocation == oas.Primary
		case oas.RecoveryPlanManualActionDetails:
			a.Kind, a.Instructions = dr.ActionManual, d.Description
		}
		out = append(out, a)
	}
	return out, nil
}

func (s *server) plan(r *http.Request) func(c *scope) (any, error) {
	return shown(func(c *scope) (control.RecoveryPlanView, error) {
		return s.control.RecoveryPlan(r.Context(), c.ref("recoveryPlanName"))
	}, planBody)
}

// onPlan starts an operation on the plan of the path from a body of type T.
func onPlan[T any](s *server, w http.ResponseWriter, r *http.Request, start func(ref control.Ref, in T) (string, error)) {
	s.change(w, r, func(c *scope) (string, error) {
		in, err := body[T](r)
		if err != nil {
			return "", err
		}
		return start(c.ref("recoveryPlanName"), in)
	}, s.plan(r))
}

func (s *server) ReplicationRecoveryPlansList(w http.ResponseWriter, r *http.Request, _, _, _ string, _ oas.ReplicationRecoveryPlansListParams) {
	list(s, w, r, func(c *scope, p control.Paging) (control.Page[control.RecoveryPlanView], error) {
		return s.control.RecoveryPlans(r.Context(), c.vault.ID, p)
	}, planBody)
}

func (s *server) ReplicationRecoveryPlansGet(w http.ResponseWriter, r *http.Request, _, _, _, _ string, _ oas.ReplicationRecoveryPlansGetParams) {
	s.get(w, r, s.plan(r))
}

func (s *server) ReplicationRecoveryPlansCreate(w http.ResponseWriter, r *http.Request, _, _, _, _ string, _ oas.ReplicationRecoveryPlansCreateParams) {
	onPlan(s, w, r, func(ref control.Ref, in oas.CreateRecoveryPlanInput) (string, error) {
		p := in.Properties
		groups, err := groupsOf(p.Groups)
		if err != nil {
			return "", err
		}
		provider, err := json.Marshal(p.ProviderSpecificInput)
		if err != nil {
			return "", err
		}
		return s.control.PutRecoveryPlan(r.Context(), ref, control.RecoveryPlanInput{PrimaryFabricID: p.PrimaryFabricId, RecoveryFabricID: p.RecoveryFabricId, DeploymentModel: p.FailoverDeploymentModel,
			ProviderInput: provider, Groups: groups, OnFailure: dr.OnFailure(p.OnFailure), ParallelStarts: startsOf(p.ParallelStarts)})
	})
}

func startsOf(n *int32) int {
	if n == nil {
		return 0
	}
	return int(*n)
}

func (s *server) ReplicationRecoveryPlansUpdate(w http.ResponseWriter, r *http.Request, _, _, _, _ string, _ oas.ReplicationRecoveryPlansUpdateParams) {
	onPlan(s, w, r, func(ref control.Ref, in oas.UpdateRecoveryPlanInput) (string, error) {
		p := in.Properties
		groups, err := groupsOf(p.Groups)
		if err != nil {
			return "", err
		}
		return s.control.PatchRecoveryPlan(r.Context(), ref, control.RecoveryPlanInput{Groups: groups, OnFailure: dr.OnFailure(p.OnFailure), ParallelStarts: startsOf(p.ParallelStarts)})
	})
}

func (s *server) ReplicationRecoveryPlansDelete(w http.ResponseWriter, r *http.Request, _, _, _, _ string, _ oas.ReplicationRecoveryPlansDeleteParams) {
	s.remove(w, r, func(c *scope) (string, error) {
		return s.control.DeleteRecoveryPlan(r.Context(), c.ref("recoveryPlanName"))
	})
}

// planInputs are the inputs of a plan's providers as they were sent.
func planInputs(in []oas.RecoveryPlanProviderSpecificFailoverInput) (out []json.RawMessage) {
	for _, p := range in {
		if raw := union(p); raw != nil {
			out = append(out, raw)
		}
	}
	return out
}

func (s *server) ReplicationRecoveryPlansTestFailover(w http.ResponseWriter, r *http.Request, _, _, _, _ string, _ oas.ReplicationRecoveryPlansTestFailoverParams) {
	onPlan(s, w, r, func(ref control.Ref, in oas.RecoveryPlanTestFailoverInput) (string, error) {
		p := in.Properties
		return s.control.FailOverPlan(r.Context(), ref, dr.OpTestFailover, control.RecoveryPlanFailoverInput{Direction: string(p.FailoverDirection), NetworkType: p.NetworkType, NetworkID: p.NetworkId,
			ProviderInput: planInputs(p.ProviderSpecificDetails)})
	})
}

func (s *server) ReplicationRecoveryPlansTestFailoverCleanup(w http.ResponseWriter, r *http.Request, _, _, _, _ string, _ oas.ReplicationRecoveryPlansTestFailoverCleanupParams) {
	onPlan(s, w, r, func(ref control.Ref, in oas.RecoveryPlanTestFailoverCleanupInput) (string, error) {
		return s.control.CleanUpPlan(r.Context(), ref, control.CleanupInput{Comments: in.Properties.Comments})
	})
}

func (s *server) ReplicationRecoveryPlansPlannedFailover(w http.ResponseWriter, r *http.Request, _, _, _, _ string, _ oas.ReplicationRecoveryPlansPlannedFailoverParams) {
	onPlan(s, w, r, func(ref control.Ref, in oas.RecoveryPlanPlannedFailoverInput) (string, error) {
		p := in.Properties
		return s.control.FailOverPlan(r.Context(), ref, dr.OpPlannedFailover, control.RecoveryPlanFailoverInput{Direction: string(p.FailoverDirection), ProviderInput: planInputs(p.ProviderSpecificDetails)})
	})
}

func (s *server) ReplicationRecoveryPlansUnplannedFailover(w http.ResponseWriter, r *http.Request, _, _, _, _ string, _ oas.ReplicationRecoveryPlansUnplannedFailoverParams) {
	onPlan(s, w, r, func(ref control.Ref, in oas.RecoveryPlanUnplannedFailoverInput) (string, error) {
		p := in.Properties
		return s.control.FailOverPlan(r.Context(), ref, dr.OpUnplannedFailover, control.RecoveryPlanFailoverInput{Direction: string(p.FailoverDirection), SourceSiteOperations: string(p.SourceSiteOperations),
			ProviderInput: planInputs(p.ProviderSpecificDetails)})
	})
}

func (s *server) ReplicationRecoveryPlansFailoverCommit(w http.ResponseWriter, r *http.Request, _, _, _, _ string, _ oas.ReplicationRecoveryPlansFailoverCommitParams) {
	onPlan(s, w, r, func(ref control.Ref, _ none) (string, error) { return s.control.CommitPlan(r.Context(), ref) })
}

func (s *server) ReplicationRecoveryPlansFailoverCancel(w http.ResponseWriter, r *http.Request, _, _, _, _ string, _ oas.ReplicationRecoveryPlansFailoverCancelParams) {
	onPlan(s, w, r, func(ref control.Ref, _ none) (string, error) { return s.control.CancelPlan(r.Context(), ref) })
}

func (s *server) ReplicationRecoveryPlansReprotect(w http.ResponseWriter, r *http.Request, _, _, _, _ string, _ oas.ReplicationRecoveryPlansReprotectParams) {
	onPlan(s, w, r, func(ref control.Ref, _ none) (string, error) { return s.control.ReprotectPlan(r.Context(), ref) })
}

func (s *server) ReplicationRecoveryPlansOperationResult(w http.ResponseWriter, r *http.Request, _, _, _, _, _ string, _ oas.ReplicationRecoveryPlansOperationResultParams) {
	s.operationResult(w, r, "jobId", s.plan(r))
}
