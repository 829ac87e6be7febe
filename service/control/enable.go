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

// Enable starts to protect a machine as a new item. The same request again returns the first one's job.
func (s *Service) Enable(ctx context.Context, ref Ref, in EnableInput) (string, error) {
	if err := checkName("protected item", ref.Name); err != nil {
		return "", err
	}
	var id string
	err := s.store.Update(ctx, func(tx store.Tx) error {
		now := s.now()
		container, err := load[dr.Container](tx, KindContainer, fold(ref.Vault, ref.Fabric, ref.Container))
		if err != nil {
			return err
		}
		it, ok, err := find[dr.Item](tx, KindItem, ref.itemKey())
		if err != nil {
			return err
		}
		input, err := compact(in)
		if err != nil {
			return err
		}
		if ok && bytes.Equal(it.EnableRequest, input) && it.State.Phase != dr.PhaseEnableFailed {
			id = it.EnableJob
			return nil
		}
		policy, mapping, err := enablePolicy(tx, container, in)
		if err != nil {
			return err
		}
		if err := s.checkEnable(policy.Provider, in); err != nil {
			return err
		}
		target, err := recoveryContainer(tx, policy, mapping, in)
		if err != nil {
			return err
		}
		machine, agent, err := protectableFor(tx, container, policy.Provider, in)
		if err != nil {
			return err
		}
		if machine.ProtectedAs != "" && (!ok || machine.ProtectedAs != it.ID) {
			return &dr.Error{Code: dr.CodeConflict, Message: fmt.Sprintf("machine %s is protected already", machine.FriendlyName),
				PossibleCauses: "another protected item covers it", RecommendedAction: "remove that item first, or use it"}
		}
		if !ok {
			it = dr.Item{Meta: dr.Meta{Name: ref.Name}, ID: dr.ItemID(newID()), Vault: ref.Vault, Fabric: container.Fabric, Container: container.Name,
				InternalID: newID(), CorrelationID: newID(), PlannedFailoverStatus: "None"}
		}
		if refusal := dr.CheckSize(jsonField(in.ProviderInput, sizeField)); refusal != nil {
			return refusal
		}
		leg := dr.FirstLeg(policy.Provider)
		it.Driven = !leg.Driver || agent.ID == ""
		if it.Driven && !slices.Contains(s.drivers, policy.Provider) {
			return noDriver(policy.Provider)
		}
		source, err := machineOf(machine, agent)
		if err != nil {
			return err
		}
		j := newJob(ctx, ref.Vault, planFor(&it, dr.OpEnable, fixed(job.PlanEnable)), itemTarget(&it), now)
		next, refusal := dr.Apply(it.State, dr.Signal{Kind: dr.Requested, Op: dr.OpEnable, Job: j.ID, Leg: leg.Name, Driven: it.Driven}, now)
		if refusal != nil {
			return refusal
		}
		it.State, it.EnableRequest, it.EnableJob = next, input, j.ID
		it.RecoveryFabric, it.RecoveryContainer = target.Fabric, target.Name
		it.FriendlyName, it.ProtectableItem, it.AgentID, it.Physical = machine.FriendlyName, machine.Name, agent.ID, machine.Physical
		it.PolicyName, it.EnableInput = policy.Name, in.ProviderInput
		it.HomeUUID, it.ActiveUUID, it.Hardware = source.ProductUUID, source.ProductUUID, source.Hardware()
		it.TargetName = or(firstField(in.ProviderInput, "targetVmName", "targetAzureVmName"), machine.FriendlyName)
		it.TestNetwork, it.TargetNetwork = jsonField(in.ProviderInput, "testNetworkId"), firstField(in.ProviderInput, "targetNetworkId", "targetAzureNetworkId", "recoveryAzureNetworkId")
		it.MultiVMGroup = jsonField(in.ProviderInput, "multiVmGroupName")
		if it.ProcessServer, err = chosenServer(tx, in); err != nil {
			return err
		}
		j.TargetName = it.FriendlyName
		machine.ProtectedAs = it.ID
		if err := save(tx, KindProtectable, fold(machine.Vault, machine.Fabric, machine.Container, machine.Name), &machine, now); err != nil {
			return err
		}
		id = j.ID
		return saveStarted(tx, j, &it, dr.OpEnable, Request{Policy: policy.Name}, now)
	})
	if err != nil {
		return "", err
	}
	return id, nil
}

// chosenServer is the process server that the request names. Empty and any leave the choice to the server.
func chosenServer(tx store.Tx, in EnableInput) (string, error) {
	id := jsonField(in.ProviderInput, "processServerId")
	if id == "" || strings.EqualFold(id, "any") {
		return "", nil
	}
	r, err := requireProcessServer(tx, "processServerId", id)
	return r.ID, err
}

// saveStarted saves an item whose state took the job, and the job.
func saveStarted(tx store.Tx, j *job.Job, it *dr.Item, op dr.Operation, r Request, now time.Time) error {
	in, err := json.Marshal(r)
	if err != nil {
		return err
	}
	j.Item, j.Operation, j.Input, j.State = string(it.ID), string(op), in, job.InProgress
	it.CurrentScenario = dr.Scenario{Name: string(j.Scenario), JobID: j.ID, Started: now}
	if err := SaveItem(tx, it, now); err != nil {
		return err
	}
	return SaveJob(tx, j)
}

// compact is the request in one spelling, to compare with.
func compact(in EnableInput) ([]byte, error) {
	var provider any
	if len(in.ProviderInput) > 0 {
		if err := json.Unmarshal(in.ProviderInput, &provider); err != nil {
			return nil, &dr.Error{Code: dr.CodeInvalid, Message: "providerSpecificDetails is not an object", PossibleCauses: "the body is malformed",
				RecommendedAction: "send an object with an instanceType", Err: err}
		}
	}
	return json.Marshal([]any{strings.ToLower(in.PolicyID), strings.ToLower(in.ProtectableItemID), provider})
}

// enablePolicy finds the policy that the request names, and the mapping that puts the container under it.
func enablePolicy(tx store.Tx, c dr.Container, in EnableInput) (dr.Policy, dr.Mapping, error) {
	if in.PolicyID == "" {
		return dr.Policy{}, dr.Mapping{}, &dr.Error{Code: dr.CodeInvalid, Message: "policyId is missing", PossibleCauses: "the request names no policy", RecommendedAction: "send the ARM id of a replication policy"}
	}
	policy, err := requirePolicy(tx, c.Vault, in.PolicyID)
	if err != nil {
		return policy, dr.Mapping{}, err
	}
	provider := jsonField(in.ProviderInput, "instanceType")
	if !strings.EqualFold(provider, string(policy.Provider)) {
		return policy, dr.Mapping{}, &dr.Error{Code: dr.CodeInvalid, Message: fmt.Sprintf("providerSpecificDetails.instanceType is %q, but policy %s is for %s", provider, policy.Name, policy.Provider),
			PossibleCauses: "policy and input are for different providers", RecommendedAction: "use a policy of the same provider"}
	}
	if dr.FirstLeg(policy.Provider) == nil {
		return policy, dr.Mapping{}, &dr.Error{Code: dr.CodeInvalid, Message: fmt.Sprintf("protection cannot begin with %s", policy.Provider), PossibleCauses: "the provider is the way back of another",
			RecommendedAction: "enable with the forward provider; reprotect switches to this one"}
	}
	mappings, err := all[dr.Mapping](tx, KindMapping, under(c.Vault, c.Fabric, c.Name))
	if err != nil {
		return policy, dr.Mapping{}, err
	}
	for _, m := range mappings {
		if strings.EqualFold(m.PolicyName, policy.Name) {
			return policy, m, nil
		}
	}
	return policy, dr.Mapping{}, &dr.Error{Code: dr.CodeConflict, Message: fmt.Sprintf("policy %s is not associated with container %s", policy.Name, c.Name),
		PossibleCauses: "no container mapping pairs them", RecommendedAction: "create a replicationProtectionContainerMapping for the container with this policy"}
}

// checkEnable refuses what no machine of the provider could be protected with here, before the machine is looked for.
func (s *Service) checkEnable(p dr.ProviderType, in EnableInput) error {
	if !dr.FirstLeg(p).Driver && !slices.Contains(s.drivers, p) {
		return noDriver(p)
	}
	if jsonField(in.ProviderInput, "protectionClusterId") != "" {
		return &dr.Error{Code: dr.CodeUnimplemented, Message: "machines of a shared-disk cluster cannot be protected together", PossibleCauses: "this server has no driver for shared disks",
			RecommendedAction: "protect the machines one by one without their shared disks, and leave protectionClusterId out"}
	}
	return nil
}

func noDriver(p dr.ProviderType) error {
	return &dr.Error{Code: dr.CodeUnimplemented, Message: fmt.Sprintf("machines cannot be protected with %s yet", p), PossibleCauses: fmt.Sprintf("this server has no driver for %s: nothing here reads or writes the machine's disks", p),
		RecommendedAction: "install lifeboat-agent on the machine and protect it with InMageRcm"}
}

// recoveryContainer is the container of this vault that the machine replicates to: what the request names, or the target of the
// mapping. The zero value is this server's recovery site.
func recoveryContainer(tx store.Tx, p dr.Policy, m dr.Mapping, in EnableInput) (dr.Container, error) {
	id := m.TargetContainerID
	if p.Provider == dr.ProviderA2A {
		id = or(jsonField(in.ProviderInput, "recoveryContainerId"), id)
	}
	if !betweenSites(p.Provider) {
		return dr.Container{}, nil
	}
	return requireContainer(tx, m.Vault, id)
}

// protectableFor finds the machine that the request names, and its agent.
func protectableFor(tx store.Tx, c dr.Container, p dr.ProviderType, in EnableInput) (dr.ProtectableItem, dr.Agent, error) {
	id := in.ProtectableItemID
	if id == "" {
		id = firstField(in.ProviderInput, "fabricDiscoveryMachineId", "fabricObjectId")
	}
	if id == "" {
		return dr.ProtectableItem{}, dr.Agent{}, &dr.Error{Code: dr.CodeInvalid, Message: "the request names no machine", PossibleCauses: "fabricDiscoveryMachineId and protectableItemId are missing",
			RecommendedAction: "send the id of a protectable item of the container"}
	}
	name := lastSegment(id)
	machines, err := all[dr.ProtectableItem](tx, KindProtectable, under(c.Vault, c.Fabric, c.Name))
	if err != nil {
		return dr.ProtectableItem{}, dr.Agent{}, err
	}
	for _, m := range machines {
		if !strings.EqualFold(m.Name, name) && !strings.EqualFold(m.AgentID, name) && (p != dr.ProviderA2A || !strings.EqualFold(m.FriendlyName, name)) {
			continue
		}
		if !slices.Contains(guestAgent, p) && (m.AgentID == "" || !slices.Contains(hostAgent, p)) {
			return m, dr.Agent{}, nil
		}
		if m.AgentID == "" {
			return m, dr.Agent{}, &dr.Error{Code: dr.CodeConflict, Message: fmt.Sprintf("no agent has enrolled from machine %s", m.FriendlyName),
				PossibleCauses: "lifeboat-agent is not installed there, or it has not reached its configuration server", RecommendedAction: "create a registration key, enrol the agent on the machine, and try again"}
		}
		a, err := LoadAgent(tx, m.AgentID)
		return m, a, err
	}
	return dr.ProtectableItem{}, dr.Agent{}, &dr.Error{Code: dr.CodeInvalid, Message: fmt.Sprintf("%q names no machine of container %s", id, c.Name),
		PossibleCauses: "the machine was not discovered, or is in another container", RecommendedAction: "list replicationProtectableItems of the container"}
}
