package api

import (
	"net/http"

	"github.com/lifeboat-dr/lifeboat/api/oas"
	"github.com/lifeboat-dr/lifeboat/service/control"
)

func (s *server) ReplicationProtectedItemsAddDisks(w http.ResponseWriter, r *http.Request, _, _, _, _, _, _ string, _ oas.ReplicationProtectedItemsAddDisksParams) {
	onItem(s, w, r, func(ref control.Ref, in oas.AddDisksInput) (string, error) {
		return s.control.AddDisks(r.Context(), ref, union(in.Properties.ProviderSpecificDetails))
	})
}

func (s *server) ReplicationProtectedItemsRemoveDisks(w http.ResponseWriter, r *http.Request, _, _, _, _, _, _ string, _ oas.ReplicationProtectedItemsRemoveDisksParams) {
	onItem(s, w, r, func(ref control.Ref, in oas.RemoveDisksInput) (string, error) {
		return s.control.RemoveDisks(r.Context(), ref, union(in.Properties.ProviderSpecificDetails))
	})
}

func (s *server) ReplicationProtectedItemsResolveHealthErrors(w http.ResponseWriter, r *http.Request, _, _, _, _, _, _ string, _ oas.ReplicationProtectedItemsResolveHealthErrorsParams) {
	onItem(s, w, r, func(ref control.Ref, in oas.ResolveHealthInput) (string, error) {
		var resolved control.HealthResolution
		for _, e := range in.Properties.HealthErrors {
			resolved.ErrorIDs = append(resolved.ErrorIDs, e.HealthErrorId)
		}
		return s.control.ResolveHealthErrors(r.Context(), ref, resolved)
	})
}

func (s *server) ReplicationProtectedItemsSwitchProvider(w http.ResponseWriter, r *http.Request, _, _, _, _, _, _ string, _ oas.ReplicationProtectedItemsSwitchProviderParams) {
	onItem(s, w, r, func(ref control.Ref, in oas.SwitchProviderInput) (string, error) {
		return s.control.SwitchProvider(r.Context(), ref, control.ProviderSwitch{TargetType: in.Properties.TargetInstanceType, ProviderInput: union(in.Properties.ProviderSpecificDetails)})
	})
}

func (s *server) ReplicationProtectedItemsUpdateAppliance(w http.ResponseWriter, r *http.Request, _, _, _, _, _, _ string, _ oas.ReplicationProtectedItemsUpdateApplianceParams) {
	onItem(s, w, r, func(ref control.Ref, in oas.UpdateApplianceForReplicationProtectedItemInput) (string, error) {
		return s.control.UpdateAppliance(r.Context(), ref, control.ApplianceInput{TargetID: in.Properties.TargetApplianceId, ProviderInput: union(in.Properties.ProviderSpecificDetails)})
	})
}

func (s *server) ReplicationProtectedItemsUpdateMobilityService(w http.ResponseWriter, r *http.Request, _, _, _, _, _, _ string, _ oas.ReplicationProtectedItemsUpdateMobilityServiceParams) {
	onItem(s, w, r, func(ref control.Ref, _ oas.UpdateMobilityServiceRequest) (string, error) {
		return s.control.UpdateMobilityService(r.Context(), ref)
	})
}

func (s *server) ReplicationProtectedItemsReinstallMobilityService(w http.ResponseWriter, r *http.Request, _, _, _, _, _, _ string, _ oas.ReplicationProtectedItemsReinstallMobilityServiceParams) {
	onItem(s, w, r, func(ref control.Ref, _ oas.ReinstallMobilityServiceRequest) (string, error) {
		return s.control.ReinstallMobilityService(r.Context(), ref)
	})
}
