package api

import (
	"net/http"

	"github.com/lifeboat-dr/lifeboat/api/oas"
	"github.com/lifeboat-dr/lifeboat/service/control"
	"github.com/lifeboat-dr/lifeboat/service/dr"
)

func pointBody(c *scope, p dr.Point) oas.RecoveryPoint {
	item := c.container(c.names["fabricName"], c.names["protectionContainerName"]) + "/replicationProtectedItems/" + c.names["replicatedProtectedItemName"]
	out := oas.RecoveryPoint{Id: c.point(item, p.ID), Name: p.ID, Type: typePoint, Properties: oas.RecoveryPointProperties{RecoveryPointTime: p.Time,
		RecoveryPointType: string(p.Consistency), Generation: ptr(p.Generation), Sequence: ptr(p.Sequence), ChangedBytes: ptr(p.ChangedBytes), StoredBytes: ptr(p.StoredBytes)}}
	details, group := &out.Properties.ProviderSpecificDetails, boolText(p.GroupID != "")
	switch p.Provider {
	case dr.ProviderInMageRcm, "":
		must(details.FromInMageRcmRecoveryPointDetails(oas.InMageRcmRecoveryPointDetails{InstanceType: string(dr.ProviderInMageRcm), IsMultiVmSyncPoint: group}))
	case dr.ProviderInMageAzureV2:
		must(details.FromInMageAzureV2RecoveryPointDetails(oas.InMageAzureV2RecoveryPointDetails{InstanceType: string(p.Provider), IsMultiVmSyncPoint: group}))
	case dr.ProviderA2A:
		kind := "PerVmRecoveryPoint"
		if p.GroupID != "" {
			kind = "MultiVmSyncRecoveryPoint"
		}
		must(details.FromA2ARecoveryPointDetails(oas.A2ARecoveryPointDetails{InstanceType: string(p.Provider), RecoveryPointSyncType: kind}))
	default:
		must(details.FromOtherRecoveryPointDetails(oas.OtherRecoveryPointDetails{InstanceType: string(p.Provider)}))
	}
	return out
}

func (s *server) point(r *http.Request) func(c *scope) (any, error) {
	return shown(func(c *scope) (dr.Point, error) {
		return s.control.Point(r.Context(), c.ref("replicatedProtectedItemName"), c.names["recoveryPointName"])
	}, pointBody)
}

func (s *server) RecoveryPointsListByReplicationProtectedItems(w http.ResponseWriter, r *http.Request, _, _, _, _, _, _ string, _ oas.RecoveryPointsListByReplicationProtectedItemsParams) {
	list(s, w, r, func(c *scope, p control.Paging) (control.Page[dr.Point], error) {
		return s.control.Points(r.Context(), c.ref("replicatedProtectedItemName"), p)
	}, pointBody)
}

func (s *server) RecoveryPointsGet(w http.ResponseWriter, r *http.Request, _, _, _, _, _, _, _ string, _ oas.RecoveryPointsGetParams) {
	s.get(w, r, s.point(r))
}

func (s *server) RecoveryPointsVerify(w http.ResponseWriter, r *http.Request, _, _, _, _, _, _, _ string, _ oas.RecoveryPointsVerifyParams) {
	s.change(w, r, func(c *scope) (string, error) {
		return s.control.VerifyPoint(r.Context(), c.ref("replicatedProtectedItemName"), c.names["recoveryPointName"])
	}, s.point(r))
}

func (s *server) RecoveryPointsExport(w http.ResponseWriter, r *http.Request, _, _, _, _, _, _, _ string, _ oas.RecoveryPointsExportParams) {
	s.change(w, r, func(c *scope) (string, error) {
		in, err := body[oas.ExportRecoveryPointInput](r)
		if err != nil {
			return "", err
		}
		return s.control.ExportPoint(r.Context(), c.ref("replicatedProtectedItemName"), c.names["recoveryPointName"], string(in.Properties.Format), in.Properties.Directory)
	}, s.point(r))
}

func (s *server) RecoveryPointsOperationResult(w http.ResponseWriter, r *http.Request, _, _, _, _, _, _, _, _ string, _ oas.RecoveryPointsOperationResultParams) {
	s.operationResult(w, r, "jobId", s.point(r))
}
