package api

import (
	"encoding/json"
	"net/http"
	"slices"
	"time"

	"github.com/lifeboat-dr/lifeboat/api/oas"
	"github.com/lifeboat-dr/lifeboat/service/control"
	"github.com/lifeboat-dr/lifeboat/service/dr"
)

func fabricBody(c *scope, v control.FabricView) oas.Fabric {
	return oas.Fabric{Id: c.fabric(v.Fabric.Name), Name: v.Fabric.Name, Type: typeFabric, Properties: oas.FabricProperties{
		FriendlyName: v.Fabric.Name, InternalIdentifier: v.Fabric.ID, BcdrState: "Valid", Health: v.Health, HealthErrorDetails: healthErrors(v.Errors),
		EncryptionDetails: oas.EncryptionDetails{KekState: "None"}, RolloverEncryptionDetails: oas.EncryptionDetails{KekState: "None"},
		CustomDetails: fabricDetails(v)}}
}

// fabricDetails shows the replicators of a site under the names of the parts they stand for.
func fabricDetails(v control.FabricView) (out oas.FabricSpecificDetails) {
	var err error
	switch v.Fabric.Kind {
	case dr.FabricInMageRcm:
		err = out.FromInMageRcmFabricSpecificDetails(rcmFabric(v))
	case dr.FabricAzure:
		var in oas.AzureFabricCreationInput
		_ = json.Unmarshal(v.Fabric.Input, &in) // was validated when it came in
		err = out.FromAzureFabricSpecificDetails(oas.AzureFabricSpecificDetails{InstanceType: string(v.Fabric.Kind), Location: in.Location})
	case dr.FabricHyperVSite:
		err = out.FromHyperVSiteDetails(oas.HyperVSiteDetails{InstanceType: string(v.Fabric.Kind), HyperVHosts: []oas.HyperVHostDetails{}})
	case dr.FabricVMware:
		err = out.FromVMwareDetails(vmwareFabric(v))
	case dr.FabricVMwareV2:
		in := read[oas.VMwareV2FabricCreationInput](v.Fabric.Input)
		err = out.FromVMwareV2FabricSpecificDetails(oas.VMwareV2FabricSpecificDetails{InstanceType: string(v.Fabric.Kind), MigrationSolutionId: in.MigrationSolutionId,
			PhysicalSiteId: in.PhysicalSiteId, VmwareSiteId: in.VmwareSiteId})
	default:
		err = out.FromOtherFabricDetails(oas.OtherFabricDetails{InstanceType: string(v.Fabric.Kind)})
	}
	must(err)
	return out
}

// must stands where a generated type is encoded into a union, which cannot fail.
func must(err error) {
	if err != nil {
		panic(err)
	}
}

func rcmFabric(v control.FabricView) oas.InMageRcmFabricSpecificDetails {
	var in oas.InMageRcmFabricCreationInput
	_ = json.Unmarshal(v.Fabric.Input, &in) // was validated when it came in
	out := oas.InMageRcmFabricSpecificDetails{InstanceType: string(dr.FabricInMageRcm), PhysicalSiteId: in.PhysicalSiteId, VmwareSiteId: in.VmwareSiteId,
		ProcessServers: []oas.ProcessServerDetails{}, RcmProxies: []oas.RcmComponentDetails{}, PushInstallers: []oas.RcmComponentDetails{},
		ReplicationAgents: []oas.RcmComponentDetails{}, MarsAgents: []oas.RcmComponentDetails{}, Dras: []oas.DraDetails{},
		ReprotectAgents: []oas.ReprotectAgentDetails{}, AgentDetails: []oas.AgentDetails{}}
	for _, p := range v.Replicators {
		health := partHealth(p.LastHeartbeat)
		if p.HasRole(dr.RoleProcessServer) {
			out.ProcessServers = append(out.ProcessServers, processServer(v, p, health))
		}
		if p.HasRole(dr.RoleConfigurationServer) {
			out.RcmProxies = append(out.RcmProxies, oas.RcmComponentDetails{Id: p.ID, Name: p.Hostname, FabricObjectId: p.ID, Fqdn: p.Hostname, Version: p.AgentVersion,
				LastHeartbeatUtc: p.LastHeartbeat, Health: health, HealthErrors: []oas.HealthError{}, ClientAuthenticationType: "Certificate"})
		}
		if p.HasRole(dr.RoleMasterTarget) {
			stores := []string{}
			for _, d := range p.Datastores {
				stores = append(stores, d.Name)
			}
			out.ReprotectAgents = append(out.ReprotectAgents, oas.ReprotectAgentDetails{Id: p.ID, Name: p.Hostname, FabricObjectId: p.ID, Fqdn: p.Hostname,
				Version: p.AgentVersion, LastHeartbeatUtc: p.LastHeartbeat, LastDiscoveryInUtc: p.LastHeartbeat, AccessibleDatastores: stores,
				Health: health, HealthErrors: []oas.HealthError{}})
		}
	}
	for _, a := range v.Agents {
		d := oas.AgentDetails{AgentId: a.ID, MachineId: a.ProtectableItem, BiosId: a.Machine.ProductUUID, Fqdn: a.Hostname, Disks: []oas.AgentDiskDetails{}}
		for _, k := range a.Machine.Disks {
			d.Disks = append(d.Disks, oas.AgentDiskDetails{DiskId: k.ID, DiskName: k.Path, IsOSDisk: boolText(k.IsOSDisk), CapacityInBytes: ptr(k.SizeBytes)})
		}
		out.AgentDetails = append(out.AgentDetails, d)
	}
	return out
}

func processServer(v control.FabricView, p dr.Replicator, health string) oas.ProcessServerDetails {
	h := p.Health
	out := oas.ProcessServerDetails{Id: p.ID, Name: p.Hostname, FabricObjectId: p.ID, Fqdn: p.Hostname, IpAddresses: []string{}, Version: p.AgentVersion,
		LastHeartbeatUtc: p.LastHeartbeat, Health: health, HistoricHealth: health, HealthErrors: []oas.HealthError{}, ProtectedItemCount: ptr(int32(v.Items)),
		TotalMemoryInBytes: ptr(h.TotalMemoryBytes), AvailableMemoryInBytes: ptr(h.AvailableMemoryBytes), UsedMemoryInBytes: ptr(h.TotalMemoryBytes - h.AvailableMemoryBytes),
		TotalSpaceInBytes: ptr(h.TotalSpaceBytes), AvailableSpaceInBytes: ptr(h.AvailableSpaceBytes), UsedSpaceInBytes: ptr(h.TotalSpaceBytes - h.AvailableSpaceBytes),
		ProcessorUsagePercentage: ptr(h.ProcessorPercent), ThroughputInBytes: ptr(h.ThroughputBytesPerSecond), ThroughputUploadPendingDataInBytes: ptr(h.SpoolUsedBytes)}
	if host, ok := hostOf(p.DataAddress); ok {
		out.IpAddresses = append(out.IpAddresses, host)
	}
	if h.TotalMemoryBytes > 0 {
		out.MemoryUsagePercentage = ptr(100 * float64(h.TotalMemoryBytes-h.AvailableMemoryBytes) / float64(h.TotalMemoryBytes))
	}
	if h.TotalSpaceBytes > 0 {
		out.FreeSpacePercentage = ptr(100 * float64(h.AvailableSpaceBytes) / float64(h.TotalSpaceBytes))
	}
	return out
}

func partHealth(heartbeat time.Time) string {
	if time.Since(heartbeat) > dr.HeartbeatLimit {
		return dr.HealthCritical
	}
	return dr.HealthNormal
}

func (s *server) fabric(r *http.Request) func(c *scope) (any, error) {
	return shown(func(c *scope) (control.FabricView, error) { return s.control.Fabric(r.Context(), c.ref("")) }, fabricBody)
}

func (s *server) ReplicationFabricsList(w http.ResponseWriter, r *http.Request, _, _, _ string, _ oas.ReplicationFabricsListParams) {
	list(s, w, r, func(c *scope, p control.Paging) (control.Page[control.FabricView], error) {
		return s.control.Fabrics(r.Context(), c.vault.ID, p)
	}, fabricBody)
}

func (s *server) ReplicationFabricsGet(w http.ResponseWriter, r *http.Request, _, _, _, _ string, _ oas.ReplicationFabricsGetParams) {
	s.get(w, r, func(c *scope) (any, error) {
		// What clients ask for this way is how much the answer says; ours says all it knows.
		if _, err := filterOf(r, "zoneToZoneMappings", "fetchAgentDetails", "biosId", "fqdn", "discoveryType", "osType", "extendedLocationMappings", "locationDetails"); err != nil {
			return nil, err
		}
		return s.fabric(r)(c)
	})
}

func (s *server) ReplicationFabricsCreate(w http.ResponseWriter, r *http.Request, _, _, _, _ string, _ oas.ReplicationFabricsCreateParams) {
	s.change(w, r, func(c *scope) (string, error) {
		in, err := body[oas.FabricCreationInput](r)
		if err != nil {
			return "", err
		}
		details, err := in.Properties.CustomDetails.MarshalJSON()
		if err != nil {
			return "", err
		}
		kind := dr.FabricKind(instanceType(details))
		if !slices.Contains([]dr.FabricKind{dr.FabricAzure, dr.FabricHyperVSite, dr.FabricVMM, dr.FabricVMware, dr.FabricVMwareV2, dr.FabricInMageRcm}, kind) {
			kind, details = "", nil // a base class, or nothing: a Hyper-V site
		}
		return s.control.PutFabric(r.Context(), c.ref(""), control.FabricInput{Kind: kind, Input: details})
	}, s.fabric(r))
}

// instanceType reads the discriminator of an input; "" when there is none.
func instanceType(raw json.RawMessage) string {
	var in struct {
		InstanceType string `json:"instanceType"`
	}
	_ = json.Unmarshal(raw, &in) // absent and null have none
	return in.InstanceType
}

func (s *server) removeFabric(w http.ResponseWriter, r *http.Request) {
	s.remove(w, r, func(c *scope) (string, error) { return s.control.RemoveFabric(r.Context(), c.ref("")) })
}

func (s *server) ReplicationFabricsPurge(w http.ResponseWriter, r *http.Request, _, _, _, _ string, _ oas.ReplicationFabricsPurgeParams) {
	s.removeFabric(w, r)
}

func (s *server) ReplicationFabricsDelete(w http.ResponseWriter, r *http.Request, _, _, _, _ string, _ oas.ReplicationFabricsDeleteParams) {
	s.removeFabric(w, r)
}

func (s *server) ReplicationFabricsCheckConsistency(w http.ResponseWriter, r *http.Request, _, _, _, _ string, _ oas.ReplicationFabricsCheckConsistencyParams) {
	s.change(w, r, func(c *scope) (string, error) { return s.control.CheckFabricConsistency(r.Context(), c.ref("")) }, s.fabric(r))
}

func (s *server) ReplicationFabricsOperationResult(w http.ResponseWriter, r *http.Request, _, _, _, _, _ string, _ oas.ReplicationFabricsOperationResultParams) {
	s.operationResult(w, r, "jobId", s.fabric(r))
}

func (s *server) ReplicationFabricsGenerateRegistrationKey(w http.ResponseWriter, r *http.Request, _, _, _, _ string, _ oas.ReplicationFabricsGenerateRegistrationKeyParams) {
	s.get(w, r, func(c *scope) (any, error) {
		in, err := body[oas.GenerateRegistrationKeyInput](r)
		if err != nil {
			return nil, err
		}
		key, err := s.control.CreateRegistrationKey(r.Context(), control.RegistrationKeyInput{Vault: c.vault.ID, Fabric: c.names["fabricName"], Role: string(in.Properties.Role)})
		address := s.cfg.Enrolment.ControlAddress
		if address == "" {
			address = r.Host
		}
		return oas.RegistrationKey{RegistrationKey: key.Key, ValidUntil: key.Expires, CaSha256: s.cfg.Enrolment.CASHA256, ControlAddress: address}, err
	})
}
