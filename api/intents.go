package api

import (
	"encoding/json"
	"net/http"
	"time"

	"github.com/lifeboat-dr/lifeboat/api/oas"
	"github.com/lifeboat-dr/lifeboat/service/control"
	"github.com/lifeboat-dr/lifeboat/service/dr"
)

const typeIntent = typeVault + "/replicationProtectionIntents"

// Names of nested objects in an intent's input and in the answer, which leaves out the suffix.
var intentNames = map[string]string{"primaryStagingStorageAccountCustomInput": "primaryStagingStorageAccount", "protectionProfileCustomInput": "protectionProfile",
	"recoveryAvailabilitySetCustomInput": "recoveryAvailabilitySet", "recoveryProximityPlacementGroupCustomInput": "recoveryProximityPlacementGroup", "recoveryVirtualNetworkCustomInput": "recoveryVirtualNetwork"}

func intentBody(c *scope, v control.IntentView) oas.ReplicationProtectionIntent {
	i := v.Intent
	p := oas.ReplicationProtectionIntentProperties{FriendlyName: i.Machine, JobState: string(v.JobState), IsActive: ptr(i.Item == ""), WaitingFor: i.Waiting, CreationTimeUTC: i.Created.UTC().Format(time.RFC3339)}
	if i.Job != "" {
		p.JobId = c.job(i.Job)
	}
	in := map[string]json.RawMessage{}
	_ = json.Unmarshal(i.Input, &in) // was validated when it came in
	for from, to := range intentNames {
		if raw, ok := in[from]; ok {
			in[to] = raw
			delete(in, from)
		}
	}
	raw, err := json.Marshal(in)
	must(err)
	must(p.ProviderSpecificDetails.UnmarshalJSON(raw))
	return oas.ReplicationProtectionIntent{Id: c.base + "/replicationProtectionIntents/" + i.Name, Name: i.Name, Type: typeIntent, Properties: p}
}

func (s *server) ReplicationProtectionIntentsList(w http.ResponseWriter, r *http.Request, _, _, _ string, _ oas.ReplicationProtectionIntentsListParams) {
	list(s, w, r, func(c *scope, p control.Paging) (control.Page[control.IntentView], error) {
		return s.control.Intents(r.Context(), c.vault.ID, p)
	}, intentBody)
}

func (s *server) ReplicationProtectionIntentsGet(w http.ResponseWriter, r *http.Request, _, _, _, _ string, _ oas.ReplicationProtectionIntentsGetParams) {
	s.get(w, r, shown(func(c *scope) (control.IntentView, error) {
		return s.control.Intent(r.Context(), c.vault.ID, c.names["intentObjectName"])
	}, intentBody))
}

func (s *server) ReplicationProtectionIntentsCreate(w http.ResponseWriter, r *http.Request, _, _, _, _ string, _ oas.ReplicationProtectionIntentsCreateParams) {
	s.get(w, r, func(c *scope) (any, error) {
		in, err := body[oas.CreateProtectionIntentInput](r)
		if err != nil {
			return nil, err
		}
		raw, err := in.Properties.ProviderSpecificDetails.MarshalJSON()
		if err != nil {
			return nil, err
		}
		var d oas.A2ACreateProtectionIntentInput
		if err := json.Unmarshal(raw, &d); err != nil {
			return nil, err
		}
		policy, err := d.ProtectionProfileCustomInput.MarshalJSON()
		if err != nil {
			return nil, err
		}
		var profile oas.ExistingProtectionProfile
		_ = json.Unmarshal(policy, &profile) // absent, and one to be made, name none
		v, err := s.control.PutIntent(r.Context(), c.vault.ID, c.names["intentObjectName"], control.IntentInput{Machine: d.FabricObjectId, PrimaryLocation: d.PrimaryLocation, RecoveryLocation: d.RecoveryLocation,
			Policy: profile.ProtectionProfileId, Input: raw})
		if err != nil {
			return nil, err
		}
		return intentBody(c, v), nil
	})
}

func (s *server) ReplicationEligibilityResultsList(w http.ResponseWriter, r *http.Request, _, _, _ string, _ oas.ReplicationEligibilityResultsListParams) {
	s.eligibility(w, r, func(one oas.ReplicationEligibilityResults) any {
		return oas.ReplicationEligibilityResultsCollection{Value: []oas.ReplicationEligibilityResults{one}}
	})
}

func (s *server) ReplicationEligibilityResultsGet(w http.ResponseWriter, r *http.Request, _, _, _ string, _ oas.ReplicationEligibilityResultsGetParams) {
	s.eligibility(w, r, func(one oas.ReplicationEligibilityResults) any { return one })
}

func (s *server) eligibility(w http.ResponseWriter, r *http.Request, shape func(oas.ReplicationEligibilityResults) any) {
	names := pathParams(r)
	subscription, group, machine := names["subscriptionId"], names["resourceGroupName"], names["virtualMachineName"]
	found, err := s.control.Eligibility(r.Context(), subscription, group, machine)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	writeJSON(w, http.StatusOK, shape(oas.ReplicationEligibilityResults{
		Id:   "/subscriptions/" + subscription + "/resourceGroups/" + group + "/providers/Microsoft.Compute/virtualMachines/" + machine + "/providers/Microsoft.RecoveryServices/replicationEligibilityResults/default",
		Name: "default", Type: "Microsoft.RecoveryServices/replicationEligibilityResults",
		Properties: oas.ReplicationEligibilityResultsProperties{ClientRequestId: of(r).clientID, Errors: obstacleBodies(found)}}))
}

func obstacleBodies(in []dr.Obstacle) []oas.ReplicationEligibilityResultsErrorInfo {
	out := make([]oas.ReplicationEligibilityResultsErrorInfo, 0, len(in))
	for _, o := range in {
		out = append(out, oas.ReplicationEligibilityResultsErrorInfo{Code: o.Code, Message: o.Message, PossibleCauses: o.PossibleCauses, RecommendedAction: o.RecommendedAction, Status: "Error"})
	}
	return out
}
