package control

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/lifeboat-dr/lifeboat/service/dr"
	"github.com/lifeboat-dr/lifeboat/service/job"
	"github.com/lifeboat-dr/lifeboat/service/store"
)

// Reprotect replicates in the other direction.
func (s *Service) Reprotect(ctx context.Context, ref Ref, in ReprotectInput) (string, error) {
	return s.act(ctx, ref, dr.OpReprotect, reprotectPlan, func(tx store.Tx, it *dr.Item, r *Request) error {
		if err := checkDirection(in.Direction); err != nil {
			return err
		}
		return prepareReprotect(tx, it, in, r)
	})
}

func reprotectPlan(it *dr.Item) string {
	if it.State.Leg == dr.LegInMageRcmFailback {
		return job.PlanReprotectForward
	}
	return job.PlanReprotect
}

func prepareReprotect(tx store.Tx, it *dr.Item, in ReprotectInput, r *Request) error {
	if it.Driven {
		return prepareDriven(tx, it, in, r)
	}
	if it.State.Leg == dr.LegInMageRcmFailback {
		return prepareForward(tx, it, in, r)
	}
	return prepareHomeward(tx, it, in, r)
}

// prepareHomeward checks that a master target can write the machine's own disks.
func prepareHomeward(tx store.Tx, it *dr.Item, in ReprotectInput, r *Request) error {
	if it.Physical {
		return &dr.Error{Code: dr.CodeConflict, Message: fmt.Sprintf("%s is a physical machine: its own disks cannot be the target of a failback", it.FriendlyName),
			PossibleCauses: "no master target reaches the disks of a physical machine", RecommendedAction: "keep it running at the recovery site, or restore a recovery point onto it by hand"}
	}
	agent, store := lastSegment(jsonField(in.ProviderInput, "reprotectAgentId")), jsonField(in.ProviderInput, "datastoreName")
	if agent == "" || store == "" {
		return &dr.Error{Code: dr.CodeInvalid, Message: "reprotectAgentId and datastoreName are required", PossibleCauses: "the request names no master target, or none of its datastores",
			RecommendedAction: "send the id of a master target and one of its datastores (reprotectAgents of the fabric)"}
	}
	reps, err := LoadReplicators(tx)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(reps, func(r dr.Replicator) bool {
		return strings.EqualFold(r.ID, agent) || strings.EqualFold(r.Hostname, agent) && r.HasRole(dr.RoleMasterTarget)
	})
	if i < 0 || !reps[i].HasRole(dr.RoleMasterTarget) {
		return &dr.Error{Code: dr.CodeInvalid, Message: fmt.Sprintf("reprotectAgentId %q names no master target", agent), PossibleCauses: "no replicator with that id has the role masterTarget",
			RecommendedAction: "list the fabric and choose one of its reprotectAgents"}
	}
	mt := reps[i]
	if !slices.ContainsFunc(mt.Datastores, func(d dr.Datastore) bool { return strings.EqualFold(d.Name, store) }) {
		return &dr.Error{Code: dr.CodeInvalid, Message: fmt.Sprintf("master target %s has no datastore %q", mt.Hostname, store), PossibleCauses: "the name is misspelled, or the datastore is not connected",
			RecommendedAction: "choose one of its accessibleDatastores"}
	}
	vm, ok := mt.VM(it.HomeUUID)
	if !ok || !strings.EqualFold(vm.Datastore, store) {
		return &dr.Error{Code: dr.CodeConflict, Message: fmt.Sprintf("master target %s does not see the virtual machine of %s (SMBIOS UUID %s) in datastore %s", mt.Hostname, it.FriendlyName, it.HomeUUID, store),
			PossibleCauses: "the machine was deleted at home, or lies in another datastore", RecommendedAction: "choose the datastore that holds the machine, or bring the machine's definition back"}
	}
	r.MasterTarget, r.Datastore = mt.ID, vm.Datastore
	if id := jsonField(in.ProviderInput, "policyId"); id != "" {
		p, err := requirePolicy(tx, it.Vault, id)
		if err != nil {
			return err
		}
		if p.Provider != dr.ProviderInMageRcmFailback && p.Provider != dr.ProviderInMageRcm {
			return wrongPolicy(p, dr.ProviderInMageRcmFailback)
		}
		r.Policy = p.Name
	}
	return nil
}

// prepareForward checks the policy of the forward leg.
func prepareForward(tx store.Tx, it *dr.Item, in ReprotectInput, r *Request) error {
	id := jsonField(in.ProviderInput, "policyId")
	if id == "" {
		return &dr.Error{Code: dr.CodeInvalid, Message: "policyId is missing", PossibleCauses: "the request names no policy", RecommendedAction: "send the ARM id of an InMageRcm policy"}
	}
	p, err := requirePolicy(tx, it.Vault, id)
	if err != nil {
		return err
	}
	if p.Provider != dr.ProviderInMageRcm {
		return wrongPolicy(p, dr.ProviderInMageRcm)
	}
	r.Policy = p.Name
	return nil
}

func wrongPolicy(p dr.Policy, want dr.ProviderType) error {
	return &dr.Error{Code: dr.CodeInvalid, Message: fmt.Sprintf("policy %s is for %s", p.Name, p.Provider), PossibleCauses: "policy and direction do not fit", RecommendedAction: fmt.Sprintf("use a policy for %s", want)}
}

// prepareDriven checks the policy that the request names for the next leg; the driver knows the rest. Without one the machine
// keeps its policy.
func prepareDriven(tx store.Tx, it *dr.Item, in ReprotectInput, r *Request) error {
	id := firstField(in.ProviderInput, "policyId", "profileId")
	if id == "" {
		return nil
	}
	p, err := requirePolicy(tx, it.Vault, id)
	if err != nil {
		return err
	}
	if next, _, ok := dr.LegByName(it.State.Leg).Next(dr.OpReprotect, it.State.Phase); ok && dr.LegByName(next).Provider != p.Provider {
		return wrongPolicy(p, dr.LegByName(next).Provider)
	}
	r.Policy = p.Name
	return nil
}
