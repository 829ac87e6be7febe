package control

import (
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

// HealthResolution is the body of resolveHealthErrors: the ids of the errors the user takes as dealt with.
type HealthResolution struct{ ErrorIDs []string }

// ProviderSwitch is the body of switchProvider.
type ProviderSwitch struct {
	TargetType    string
	ProviderInput json.RawMessage // targetVaultID, targetFabricID, targetApplianceID
}

// ApplianceInput is the body of updateAppliance.
type ApplianceInput struct {
	TargetID      string // id or host name of a process server
	ProviderInput json.RawMessage
}

// SwitchProvider refuses: there is no machine of the classic provider that could be handed over.
func (s *Service) SwitchProvider(ctx context.Context, ref Ref, in ProviderSwitch) (string, error) {
	return "", s.refuseAction(ctx, ref, "switchProvider", in.ProviderInput, []dr.ProviderType{dr.ProviderInMageAzureV2}, &dr.Error{
		Message:           fmt.Sprintf("a machine cannot be handed over to %s", or(in.TargetType, "another provider")),
		PossibleCauses:    "this server has no driver for the provider that would give the machine away",
		RecommendedAction: "remove the protected item and enable it again with provider InMageRcm"})
}

// UpdateMobilityService refuses: the server does not install software in guests.
func (s *Service) UpdateMobilityService(ctx context.Context, ref Ref) (string, error) {
	return "", s.refuseAction(ctx, ref, "updateMobilityService", nil, guestAgent, &dr.Error{
		Message:           "the agent cannot be upgraded from here",
		PossibleCauses:    "installing software in a guest from the server is missing in this version",
		RecommendedAction: "replace the lifeboat-agent binary on the machine and restart its service; replication goes on where it was"})
}

// ReinstallMobilityService refuses for the same reason as UpdateMobilityService.
func (s *Service) ReinstallMobilityService(ctx context.Context, ref Ref) (string, error) {
	return "", s.refuseAction(ctx, ref, "reinstallMobilityService", nil, guestAgent, &dr.Error{
		Message:           "the agent cannot be installed from here",
		PossibleCauses:    "installing software in a guest from the server is missing in this version",
		RecommendedAction: "install lifeboat-agent on the machine and enrol it with a registration key; the protected item is found again by the machine's SMBIOS UUID"})
}

// guestAgent are the providers whose machines run an agent.
var guestAgent = []dr.ProviderType{dr.ProviderInMageRcm, dr.ProviderInMageRcmFailback, dr.ProviderInMageAzureV2, dr.ProviderInMage, dr.ProviderA2A}

// refuseAction refuses an action on an item as precisely as can be: the item must exist, its provider must know the action, and
// the input must be for that provider. What is left is not built yet.
func (s *Service) refuseAction(ctx context.Context, ref Ref, action string, in json.RawMessage, has []dr.ProviderType, missing *dr.Error) error {
	return s.store.View(ctx, func(tx store.Tx) error {
		it, err := load[dr.Item](tx, KindItem, ref.itemKey())
		if err != nil {
			return err
		}
		if err := requireProvider(&it, action, in, has); err != nil {
			return err
		}
		missing.Code = dr.CodeUnimplemented
		return missing
	})
}

// requireProvider refuses an action that the item's provider does not have, and input that is for another provider.
func requireProvider(it *dr.Item, action string, in json.RawMessage, has []dr.ProviderType) error {
	provider := dr.Project(it.State).Provider
	if !slices.Contains(has, provider) {
		names := make([]string, len(has))
		for i, p := range has {
			names[i] = string(p)
		}
		return &dr.Error{Code: dr.CodeConflict, Message: fmt.Sprintf("%s replicates with %s, which has no %s", it.FriendlyName, provider, action),
			PossibleCauses: "the action belongs to other providers: " + strings.Join(names, ", "), RecommendedAction: "use one of the operations in allowedOperations"}
	}
	if given := jsonField(in, "instanceType"); given != "" && !strings.EqualFold(given, string(provider)) {
		return &dr.Error{Code: dr.CodeInvalid, Message: fmt.Sprintf("providerSpecificDetails.instanceType is %q, but %s replicates with %s", given, it.FriendlyName, provider),
			PossibleCauses: "the input is for another provider", RecommendedAction: fmt.Sprintf("send input of %s", provider)}
	}
	return nil
}

// ResolveHealthErrors takes health errors as dealt with. Every error of this version is judged anew from what is true, so that
// none can be talked away; the refusal says what would make it go.
func (s *Service) ResolveHealthErrors(ctx context.Context, ref Ref, in HealthResolution) (string, error) {
	return s.atOnce(ctx, ref.Vault, job.PlanResolveHealth, target{kind: "ProtectionEntity", name: ref.Name, path: ref.itemPath()}, func(tx store.Tx, now time.Time) error {
		it, err := load[dr.Item](tx, KindItem, ref.itemKey())
		if err != nil {
			return err
		}
		e, err := EvidenceFor(tx, &it)
		if err != nil {
			return err
		}
		_, open := dr.Judge(e, now)
		for _, id := range in.ErrorIDs {
			i := slices.IndexFunc(open, func(h dr.HealthError) bool { return strings.EqualFold(h.ID, id) })
			if i < 0 {
				continue // gone: that is what the caller wants
			}
			return &dr.Error{Code: dr.CodeConflict, Message: fmt.Sprintf("health error %s of %s cannot be taken as dealt with: %s", open[i].Code, it.FriendlyName, open[i].Message),
				PossibleCauses: open[i].PossibleCauses, RecommendedAction: open[i].RecommendedAction}
		}
		return nil
	})
}

// UpdateAppliance lets another process server take the item's data first.
func (s *Service) UpdateAppliance(ctx context.Context, ref Ref, in ApplianceInput) (string, error) {
	return s.atOnce(ctx, ref.Vault, job.PlanUpdateAppliance, target{kind: "ProtectionEntity", name: ref.Name, path: ref.itemPath()}, func(tx store.Tx, now time.Time) error {
		it, err := load[dr.Item](tx, KindItem, ref.itemKey())
		if err != nil {
			return err
		}
		if err := requireProvider(&it, "updateAppliance", in.ProviderInput, []dr.ProviderType{dr.ProviderInMageRcm}); err != nil {
			return err
		}
		r, err := requireProcessServer(tx, "targetApplianceId", in.TargetID)
		if err != nil {
			return err
		}
		it.ProcessServer = r.ID
		return SaveItem(tx, &it, now)
	})
}

// requireProcessServer finds the process server that a request names by id, path or host name.
func requireProcessServer(tx store.Tx, field, id string) (dr.Replicator, error) {
	reps, err := LoadReplicators(tx)
	if err != nil {
		return dr.Replicator{}, err
	}
	name := lastSegment(id)
	for _, r := range reps {
		if r.HasRole(dr.RoleProcessServer) && (strings.EqualFold(r.ID, name) || strings.EqualFold(r.Hostname, name)) {
			return r, nil
		}
	}
	return dr.Replicator{}, &dr.Error{Code: dr.CodeInvalid, Message: fmt.Sprintf("%s %q names no process server", field, id), PossibleCauses: "no replicator with that id or host name has the role processServer",
		RecommendedAction: "list the fabric and choose one of its processServers"}
}
