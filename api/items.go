package api

import (
	"encoding/json"
	"net/http"

	"github.com/lifeboat-dr/lifeboat/api/oas"
	"github.com/lifeboat-dr/lifeboat/service/control"
)

func (s *server) item(r *http.Request) func(c *scope) (any, error) {
	return shown(func(c *scope) (control.ItemView, error) {
		return s.control.Item(r.Context(), c.ref("replicatedProtectedItemName"))
	}, itemBody)
}

// onItem starts an operation on the item of the path from a body of type T.
func onItem[T any](s *server, w http.ResponseWriter, r *http.Request, start func(ref control.Ref, in T) (string, error)) {
	s.change(w, r, func(c *scope) (string, error) {
		in, err := body[T](r)
		if err != nil {
			return "", err
		}
		return start(c.ref("replicatedProtectedItemName"), in)
	}, s.item(r))
}

// none is the body of operations that have none.
type none struct{}

func (s *server) ReplicationProtectedItemsList(w http.ResponseWriter, r *http.Request, _, _, _ string, _ oas.ReplicationProtectedItemsListParams) {
	list(s, w, r, func(c *scope, p control.Paging) (control.Page[control.ItemView], error) {
		f, err := filterOf(r, "sourceFabricName", "instanceType", "processServerId", "recoveryPlanName", "sourceFabricLocation", "fabricObjectId", "vCenterName", "multiVmGroupCreateOption")
		if err != nil {
			return control.Page[control.ItemView]{}, err
		}
		if f.one("vCenterName") != "" {
			return control.Page[control.ItemView]{}, nil // machines report themselves; none is known by its vCenter
		}
		return s.control.Items(r.Context(), c.ref(""), control.ItemFilter{Fabric: f.one("sourceFabricName"), InstanceType: f.one("instanceType"), ProcessServer: f.one("processServerId"), RecoveryPlan: f.one("recoveryPlanName"),
			Location: f.one("sourceFabricLocation"), FabricObject: f.one("fabricObjectId"), GroupOption: f.one("multiVmGroupCreateOption")}, p)
	}, itemBody)
}

func (s *server) ReplicationProtectedItemsListByReplicationProtectionContainers(w http.ResponseWriter, r *http.Request, _, _, _, _, _ string, _ oas.ReplicationProtectedItemsListByReplicationProtectionContainersParams) {
	list(s, w, r, func(c *scope, p control.Paging) (control.Page[control.ItemView], error) {
		return s.control.Items(r.Context(), c.ref(""), control.ItemFilter{}, p)
	}, itemBody)
}

func (s *server) ReplicationProtectedItemsGet(w http.ResponseWriter, r *http.Request, _, _, _, _, _, _ string, _ oas.ReplicationProtectedItemsGetParams) {
	s.getAndKeep(w, r, s.item)
}

func (s *server) ReplicationProtectedItemsCreate(w http.ResponseWriter, r *http.Request, _, _, _, _, _, _ string, _ oas.ReplicationProtectedItemsCreateParams) {
	onItem(s, w, r, func(ref control.Ref, in oas.EnableProtectionInput) (string, error) {
		p := in.Properties
		return s.control.Enable(r.Context(), ref, control.EnableInput{PolicyID: p.PolicyId, ProtectableItemID: p.ProtectableItemId, ProviderInput: union(p.ProviderSpecificDetails)})
	})
}

func (s *server) ReplicationProtectedItemsUpdate(w http.ResponseWriter, r *http.Request, _, _, _, _, _, _ string, _ oas.ReplicationProtectedItemsUpdateParams) {
	onItem(s, w, r, func(ref control.Ref, in oas.UpdateReplicationProtectedItemInput) (string, error) {
		provider := union(in.Properties.ProviderSpecificDetails)
		in.Properties.ProviderSpecificDetails = oas.UpdateReplicationProtectedItemProviderInput{}
		rest, err := json.Marshal(in.Properties)
		if err != nil {
			return "", err
		}
		return s.control.UpdateItem(r.Context(), ref, control.UpdateInput{Properties: rest, ProviderInput: provider})
	})
}

func (s *server) ReplicationProtectedItemsPurge(w http.ResponseWriter, r *http.Request, _, _, _, _, _, _ string, _ oas.ReplicationProtectedItemsPurgeParams) {
	s.remove(w, r, func(c *scope) (string, error) {
		return s.control.PurgeItem(r.Context(), c.ref("replicatedProtectedItemName"))
	})
}

func (s *server) ReplicationProtectedItemsDelete(w http.ResponseWriter, r *http.Request, _, _, _, _, _, _ string, _ oas.ReplicationProtectedItemsDeleteParams) {
	s.remove(w, r, func(c *scope) (string, error) {
		in, err := body[oas.DisableProtectionInput](r)
		if err != nil {
			return "", err
		}
		return s.control.RemoveItem(r.Context(), c.ref("replicatedProtectedItemName"), control.RemoveInput{Reason: string(in.Properties.DisableProtectionReason),
			ProviderInput: union(in.Properties.ReplicationProviderInput)})
	})
}

func (s *server) ReplicationProtectedItemsTestFailover(w http.ResponseWriter, r *http.Request, _, _, _, _, _, _ string, _ oas.ReplicationProtectedItemsTestFailoverParams) {
	onItem(s, w, r, func(ref control.Ref, in oas.TestFailoverInput) (string, error) {
		p := in.Properties
		return s.control.TestFailover(r.Context(), ref, control.TestFailoverInput{Direction: string(p.FailoverDirection), NetworkType: p.NetworkType, NetworkID: p.NetworkId,
			ProviderInput: union(p.ProviderSpecificDetails)})
	})
}

func (s *server) ReplicationProtectedItemsTestFailoverCleanup(w http.ResponseWriter, r *http.Request, _, _, _, _, _, _ string, _ oas.ReplicationProtectedItemsTestFailoverCleanupParams) {
	onItem(s, w, r, func(ref control.Ref, in oas.TestFailoverCleanupInput) (string, error) {
		return s.control.TestFailoverCleanup(r.Context(), ref, control.CleanupInput{Comments: in.Properties.Comments})
	})
}

func (s *server) ReplicationProtectedItemsPlannedFailover(w http.ResponseWriter, r *http.Request, _, _, _, _, _, _ string, _ oas.ReplicationProtectedItemsPlannedFailoverParams) {
	onItem(s, w, r, func(ref control.Ref, in oas.PlannedFailoverInput) (string, error) {
		return s.control.PlannedFailover(r.Context(), ref, control.FailoverInput{Direction: string(in.Properties.FailoverDirection), ProviderInput: union(in.Properties.ProviderSpecificDetails)})
	})
}

func (s *server) ReplicationProtectedItemsUnplannedFailover(w http.ResponseWriter, r *http.Request, _, _, _, _, _, _ string, _ oas.ReplicationProtectedItemsUnplannedFailoverParams) {
	onItem(s, w, r, func(ref control.Ref, in oas.UnplannedFailoverInput) (string, error) {
		p := in.Properties
		return s.control.UnplannedFailover(r.Context(), ref, control.FailoverInput{Direction: string(p.FailoverDirection), SourceSiteOperations: string(p.SourceSiteOperations),
			ProviderInput: union(p.ProviderSpecificDetails)})
	})
}

func (s *server) ReplicationProtectedItemsApplyRecoveryPoint(w http.ResponseWriter, r *http.Request, _, _, _, _, _, _ string, _ oas.ReplicationProtectedItemsApplyRecoveryPointParams) {
	onItem(s, w, r, func(ref control.Ref, in oas.ApplyRecoveryPointInput) (string, error) {
		return s.control.ApplyRecoveryPoint(r.Context(), ref, control.ApplyPointInput{RecoveryPointID: in.Properties.RecoveryPointId, ProviderInput: union(in.Properties.ProviderSpecificDetails)})
	})
}

func (s *server) ReplicationProtectedItemsFailoverCommit(w http.ResponseWriter, r *http.Request, _, _, _, _, _, _ string, _ oas.ReplicationProtectedItemsFailoverCommitParams) {
	onItem(s, w, r, func(ref control.Ref, _ none) (string, error) { return s.control.FailoverCommit(r.Context(), ref) })
}

func (s *server) ReplicationProtectedItemsFailoverCancel(w http.ResponseWriter, r *http.Request, _, _, _, _, _, _ string, _ oas.ReplicationProtectedItemsFailoverCancelParams) {
	onItem(s, w, r, func(ref control.Ref, _ none) (string, error) { return s.control.FailoverCancel(r.Context(), ref) })
}

func (s *server) ReplicationProtectedItemsReprotect(w http.ResponseWriter, r *http.Request, _, _, _, _, _, _ string, _ oas.ReplicationProtectedItemsReprotectParams) {
	onItem(s, w, r, func(ref control.Ref, in oas.ReverseReplicationInput) (string, error) {
		return s.control.Reprotect(r.Context(), ref, control.ReprotectInput{Direction: string(in.Properties.FailoverDirection), ProviderInput: union(in.Properties.ProviderSpecificDetails)})
	})
}

func (s *server) ReplicationProtectedItemsRepairReplication(w http.ResponseWriter, r *http.Request, _, _, _, _, _, _ string, _ oas.ReplicationProtectedItemsRepairReplicationParams) {
	onItem(s, w, r, func(ref control.Ref, _ none) (string, error) { return s.control.RepairReplication(r.Context(), ref) })
}

func (s *server) ReplicationProtectedItemsCaptureNow(w http.ResponseWriter, r *http.Request, _, _, _, _, _, _ string, _ oas.ReplicationProtectedItemsCaptureNowParams) {
	onItem(s, w, r, func(ref control.Ref, _ none) (string, error) { return s.control.CaptureNow(r.Context(), ref) })
}

func (s *server) ReplicationProtectedItemsOperationResult(w http.ResponseWriter, r *http.Request, _, _, _, _, _, _, _ string, _ oas.ReplicationProtectedItemsOperationResultParams) {
	s.operationResult(w, r, "jobId", s.item(r))
}
