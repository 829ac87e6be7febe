package api

import (
	"encoding/json"
	"net/http"

	"github.com/lifeboat-dr/lifeboat/api/oas"
	"github.com/lifeboat-dr/lifeboat/service/control"
	"github.com/lifeboat-dr/lifeboat/service/dr"
)

func policyBody(c *scope, p dr.Policy) oas.Policy {
	return oas.Policy{Id: c.policy(p.Name), Name: p.Name, Type: typePolicy,
		Properties: oas.PolicyProperties{FriendlyName: p.Name, ProviderSpecificDetails: policyDetails(p)}}
}

func (s *server) policy(r *http.Request) func(c *scope) (any, error) {
	return shown(func(c *scope) (dr.Policy, error) { return s.control.Policy(r.Context(), c.ref("policyName")) }, policyBody)
}

func (s *server) ReplicationPoliciesList(w http.ResponseWriter, r *http.Request, _, _, _ string, _ oas.ReplicationPoliciesListParams) {
	list(s, w, r, func(c *scope, p control.Paging) (control.Page[dr.Policy], error) {
		return s.control.Policies(r.Context(), c.vault.ID, p)
	}, policyBody)
}

func (s *server) ReplicationPoliciesGet(w http.ResponseWriter, r *http.Request, _, _, _, _ string, _ oas.ReplicationPoliciesGetParams) {
	s.get(w, r, s.policy(r))
}

func (s *server) ReplicationPoliciesCreate(w http.ResponseWriter, r *http.Request, _, _, _, _ string, _ oas.ReplicationPoliciesCreateParams) {
	s.change(w, r, func(c *scope) (string, error) {
		in, err := body[oas.CreatePolicyInput](r)
		if err != nil {
			return "", err
		}
		return s.control.PutPolicy(r.Context(), c.ref("policyName"), control.PolicyInput{ProviderSpecificInput: union(in.Properties.ProviderSpecificInput)})
	}, s.policy(r))
}

func (s *server) ReplicationPoliciesUpdate(w http.ResponseWriter, r *http.Request, _, _, _, _ string, _ oas.ReplicationPoliciesUpdateParams) {
	s.change(w, r, func(c *scope) (string, error) {
		in, err := body[oas.UpdatePolicyInput](r)
		if err != nil {
			return "", err
		}
		return s.control.PatchPolicy(r.Context(), c.ref("policyName"), control.PolicyInput{ProviderSpecificInput: union(in.Properties.ReplicationProviderSettings)})
	}, s.policy(r))
}

func (s *server) ReplicationPoliciesDelete(w http.ResponseWriter, r *http.Request, _, _, _, _ string, _ oas.ReplicationPoliciesDeleteParams) {
	s.remove(w, r, func(c *scope) (string, error) { return s.control.DeletePolicy(r.Context(), c.ref("policyName")) })
}

func (s *server) ReplicationPoliciesOperationResult(w http.ResponseWriter, r *http.Request, _, _, _, _, _ string, _ oas.ReplicationPoliciesOperationResultParams) {
	s.operationResult(w, r, "jobId", s.policy(r))
}

// union returns a provider's input as it was sent; nil when there is none, or when its instanceType names no provider: clients
// send names of base classes to say that they have nothing to say (ref 2.5).
func union(v json.Marshaler) json.RawMessage {
	raw, err := v.MarshalJSON()
	if err != nil || len(raw) == 0 || string(raw) == "null" {
		return nil
	}
	switch dr.ProviderType(instanceType(raw)) {
	case dr.ProviderInMageAzureV2, dr.ProviderInMage, dr.ProviderInMageRcm, dr.ProviderInMageRcmFailback, dr.ProviderHyperVReplicaAzure,
		dr.ProviderHyperVReplicaAzureFailback, dr.ProviderHyperVReplica2012, dr.ProviderHyperVReplica2012R2, dr.ProviderA2A,
		"VMwareCbt", "A2ACrossClusterMigration": // refused by name where they come to
		return raw
	}
	return nil
}
