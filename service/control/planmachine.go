package control

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/lifeboat-dr/lifeboat/service/dr"
	"github.com/lifeboat-dr/lifeboat/service/job"
	"github.com/lifeboat-dr/lifeboat/service/store"
)

// BeginMachine makes the job of one machine in an operation on its recovery plan: the very job that the operation makes when it
// is asked for on the machine alone, but that it waits before gate. A *dr.Error means that the machine's state does not allow it.
func BeginMachine(tx store.Tx, parent *job.Job, q *PlanRequest, it *dr.Item, stage dr.StageKind, now time.Time) (*job.Job, error) {
	op := q.Run.Op
	j := newJob(context.Background(), it.Vault, planFor(it, op, func(it *dr.Item) string { return machinePlan(op, it) }), itemTarget(it), now)
	j.ActivityID, j.Parent = parent.ActivityID, parent.ID
	j.Gate = GateOf(j, stage)
	next, refusal := dr.Apply(it.State, dr.Signal{Kind: dr.Requested, Op: op, Job: j.ID, Driven: it.Driven}, now)
	if refusal != nil {
		return nil, refusal
	}
	r, err := machineRequest(tx, q, it)
	if err != nil {
		return nil, err
	}
	it.State = next
	return j, saveStarted(tx, j, it, op, r, now)
}

// GateOf is the task that a machine's job waits before when the stage of its plan has ended; empty when it does not wait.
func GateOf(j *job.Job, stage dr.StageKind) string {
	p := job.PlanByName(j.Plan)
	switch stage {
	case dr.StageShutdown:
		return or(p.Ready, p.Boot)
	case dr.StageFailover:
		return p.Boot
	}
	return ""
}

// Divides tells whether the machine's job can wait between the stages of an operation on its plan. One that cannot is made when the
// machine's own group comes, and does everything then.
func Divides(q *PlanRequest, it *dr.Item) bool {
	op := q.Run.Op
	return job.PlanByName(planFor(it, op, func(it *dr.Item) string { return machinePlan(op, it) })).Boot != ""
}

// machinePlan is the job plan of an operation on one machine.
func machinePlan(op dr.Operation, it *dr.Item) string {
	switch op {
	case dr.OpCommit:
		return commitPlan(it)
	case dr.OpReprotect:
		return reprotectPlan(it)
	case dr.OpPlannedFailover:
		return plannedPlan(it)
	}
	return map[dr.Operation]string{dr.OpTestFailover: job.PlanTestFailover, dr.OpTestCleanup: job.PlanTestCleanup,
		dr.OpUnplannedFailover: job.PlanUnplannedFailover, dr.OpCancelFailover: job.PlanCancelFailover}[op]
}

// machineRequest is what the machine alone would have been asked for.
func machineRequest(tx store.Tx, q *PlanRequest, it *dr.Item) (Request, error) {
	r := Request{Network: q.Network, NoNetwork: q.NoNetwork, Shutdown: q.Run.Shutdown, Comments: q.Comments}
	switch q.Run.Op {
	case dr.OpTestFailover, dr.OpUnplannedFailover:
		if ok, err := chooseGroupPoint(tx, q, it, &r); ok || err != nil {
			return r, err
		}
		return r, choosePoint(tx, it, "", q.Points[string(dr.Project(it.State).Provider)], &r)
	case dr.OpReprotect:
		in, err := chooseReprotect(tx, it)
		if err != nil {
			return r, err
		}
		return r, prepareReprotect(tx, it, in, &r)
	}
	return r, nil
}

// chooseReprotect chooses what the reprotect of a plan does not say: homewards the master target that sees the machine, forwards
// the policy it was under, or one that its container is mapped to.
func chooseReprotect(tx store.Tx, it *dr.Item) (ReprotectInput, error) {
	if it.Driven {
		return ReprotectInput{}, nil // the driver knows
	}
	input := map[string]string{"instanceType": string(dr.Project(it.State).Provider)}
	if it.State.Leg != dr.LegInMageRcmFailback {
		reps, err := LoadReplicators(tx)
		if err != nil {
			return ReprotectInput{}, err
		}
		for _, rep := range reps {
			if vm, ok := rep.VM(it.HomeUUID); ok && rep.HasRole(dr.RoleMasterTarget) {
				input["reprotectAgentId"], input["datastoreName"] = rep.ID, vm.Datastore
			}
		}
		if input["reprotectAgentId"] == "" && !it.Physical {
			return ReprotectInput{}, &dr.Error{Code: dr.CodeConflict, Message: fmt.Sprintf("no master target sees the virtual machine of %s (SMBIOS UUID %s)", it.FriendlyName, it.HomeUUID),
				PossibleCauses: "the machine was deleted at home, or the replicator there is not connected", RecommendedAction: "bring the machine's definition back, or reprotect it alone and name a master target"}
		}
	} else {
		policy, err := forwardPolicy(tx, it)
		if err != nil {
			return ReprotectInput{}, err
		}
		input["policyId"] = policy
	}
	raw, err := json.Marshal(input)
	return ReprotectInput{ProviderInput: raw}, err
}

func forwardPolicy(tx store.Tx, it *dr.Item) (string, error) {
	if p, err := LoadPolicy(tx, it.Vault, it.PolicyName); err != nil || p.Provider == dr.ProviderInMageRcm {
		return p.Name, err
	}
	mappings, err := all[dr.Mapping](tx, KindMapping, under(it.Vault, it.Fabric, it.Container))
	if err != nil {
		return "", err
	}
	for _, m := range mappings {
		if p, err := LoadPolicy(tx, it.Vault, m.PolicyName); err != nil || strings.EqualFold(string(p.Provider), string(dr.ProviderInMageRcm)) {
			return p.Name, err
		}
	}
	return "", &dr.Error{Code: dr.CodeConflict, Message: fmt.Sprintf("no policy is known to protect %s under", it.FriendlyName), PossibleCauses: "its container is mapped to no policy for InMageRcm",
		RecommendedAction: "map the container to one, or reprotect the machine alone and name a policy"}
}
