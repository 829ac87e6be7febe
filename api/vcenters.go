package api

import (
	"net/http"
	"strconv"

	"github.com/lifeboat-dr/lifeboat/api/oas"
	"github.com/lifeboat-dr/lifeboat/service/control"
)

const typeVCenter = typeFabric + "/replicationvCenters"

func vcenterBody(c *scope, v control.VCenterView) oas.VCenter {
	s := v.VCenter
	return oas.VCenter{Id: c.fabric(s.Fabric) + "/replicationvCenters/" + s.Name, Name: s.Name, Type: typeVCenter, Properties: oas.VCenterProperties{
		FriendlyName: s.FriendlyName, InternalId: s.ID, DiscoveryStatus: "Pending", ProcessServerId: s.ProcessServer, IpAddress: s.Address, Port: strconv.Itoa(s.Port),
		RunAsAccountId: s.RunAsAccount, FabricArmResourceName: s.Fabric, HealthErrors: healthErrors(v.Errors)}}
}

func (s *server) vcenter(r *http.Request) func(c *scope) (any, error) {
	return shown(func(c *scope) (control.VCenterView, error) {
		return s.control.VCenter(r.Context(), c.ref("vcenterName"))
	}, vcenterBody)
}

func (s *server) listVCenters(w http.ResponseWriter, r *http.Request) {
	list(s, w, r, func(c *scope, p control.Paging) (control.Page[control.VCenterView], error) {
		return s.control.VCenters(r.Context(), c.ref(""), p)
	}, vcenterBody)
}

func (s *server) ReplicationvCentersList(w http.ResponseWriter, r *http.Request, _, _, _ string, _ oas.ReplicationvCentersListParams) {
	s.listVCenters(w, r)
}

func (s *server) ReplicationvCentersListByReplicationFabrics(w http.ResponseWriter, r *http.Request, _, _, _, _ string, _ oas.ReplicationvCentersListByReplicationFabricsParams) {
	s.listVCenters(w, r)
}

func (s *server) ReplicationvCentersGet(w http.ResponseWriter, r *http.Request, _, _, _, _, _ string, _ oas.ReplicationvCentersGetParams) {
	s.get(w, r, s.vcenter(r))
}

func (s *server) ReplicationvCentersCreate(w http.ResponseWriter, r *http.Request, _, _, _, _, _ string, _ oas.ReplicationvCentersCreateParams) {
	s.change(w, r, func(c *scope) (string, error) {
		in, err := body[oas.AddVCenterRequest](r)
		if err != nil {
			return "", err
		}
		p := in.Properties
		return s.control.PutVCenter(r.Context(), c.ref("vcenterName"), control.VCenterInput{FriendlyName: p.FriendlyName, Address: p.IpAddress, Port: p.Port, ProcessServer: p.ProcessServerId, RunAsAccount: p.RunAsAccountId})
	}, s.vcenter(r))
}

func (s *server) ReplicationvCentersUpdate(w http.ResponseWriter, r *http.Request, _, _, _, _, _ string, _ oas.ReplicationvCentersUpdateParams) {
	s.change(w, r, func(c *scope) (string, error) {
		in, err := body[oas.UpdateVCenterRequest](r)
		if err != nil {
			return "", err
		}
		p := in.Properties
		return s.control.PatchVCenter(r.Context(), c.ref("vcenterName"), control.VCenterInput{FriendlyName: p.FriendlyName, Address: p.IpAddress, Port: p.Port, ProcessServer: p.ProcessServerId, RunAsAccount: p.RunAsAccountId})
	}, s.vcenter(r))
}

func (s *server) ReplicationvCentersDelete(w http.ResponseWriter, r *http.Request, _, _, _, _, _ string, _ oas.ReplicationvCentersDeleteParams) {
	s.remove(w, r, func(c *scope) (string, error) { return s.control.RemoveVCenter(r.Context(), c.ref("vcenterName")) })
}

func (s *server) ReplicationvCentersOperationResult(w http.ResponseWriter, r *http.Request, _, _, _, _, _, _ string, _ oas.ReplicationvCentersOperationResultParams) {
	s.operationResult(w, r, "jobId", s.vcenter(r))
}
