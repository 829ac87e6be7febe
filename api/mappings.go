package api

import (
	"encoding/json"
	"net/http"

	"github.com/lifeboat-dr/lifeboat/api/oas"
	"github.com/lifeboat-dr/lifeboat/service/control"
	"github.com/lifeboat-dr/lifeboat/service/dr"
)

func mappingBody(c *scope, v control.MappingView) oas.ProtectionContainerMapping {
	m := v.Mapping
	out := oas.ProtectionContainerMapping{Id: c.container(m.Fabric, m.Container) + "/replicationProtectionContainerMappings/" + m.Name, Name: m.Name, Type: typeMapping,
		Properties: oas.ProtectionContainerMappingProperties{TargetProtectionContainerId: m.TargetContainerID, TargetProtectionContainerFriendlyName: azure,
			TargetFabricFriendlyName: azure, Health: dr.HealthNormal, HealthErrorDetails: []oas.HealthError{}, State: "Paired",
			SourceProtectionContainerFriendlyName: v.Container.FriendlyName, SourceFabricFriendlyName: v.Fabric.Name}}
	if m.PolicyName != "" {
		out.Properties.PolicyId, out.Properties.PolicyFriendlyName = c.policy(m.PolicyName), m.PolicyName
	}
	details := &out.Properties.ProviderSpecificDetails
	switch v.Policy.Provider {
	case dr.ProviderInMageRcm:
		var in oas.InMageRcmUpdateContainerMappingInput
		_ = json.Unmarshal(m.ProviderSpecificInput, &in) // was validated when it came in; absent leaves the default
		if in.EnableAgentAutoUpgrade == "" {
			in.EnableAgentAutoUpgrade = "false"
		}
		must(details.FromInMageRcmContainerMappingDetails(oas.InMageRcmContainerMappingDetails{InstanceType: string(dr.ProviderInMageRcm), EnableAgentAutoUpgrade: in.EnableAgentAutoUpgrade}))
	case dr.ProviderA2A:
		var d oas.A2AContainerMappingDetails
		_ = json.Unmarshal(m.ProviderSpecificInput, &d) // the answer has the input's names
		d.InstanceType = string(dr.ProviderA2A)
		must(details.FromA2AContainerMappingDetails(d))
	case "":
	default:
		must(details.FromOtherContainerMappingDetails(oas.OtherContainerMappingDetails{InstanceType: string(v.Policy.Provider)}))
	}
	return out
}

func (s *server) mapping(r *http.Request) func(c *scope) (any, error) {
	return shown(func(c *scope) (control.MappingView, error) {
		return s.control.Mapping(r.Context(), c.ref("mappingName"))
	}, mappingBody)
}

func (s *server) listMappings(w http.ResponseWriter, r *http.Request) {
	list(s, w, r, func(c *scope, p control.Paging) (control.Page[control.MappingView], error) {
		return s.control.Mappings(r.Context(), c.ref(""), p)
	}, mappingBody)
}

func (s *server) ReplicationProtectionContainerMappingsList(w http.ResponseWriter, r *http.Request, _, _, _ string, _ oas.ReplicationProtectionContainerMappingsListParams) {
	s.listMappings(w, r)
}

func (s *server) ReplicationProtectionContainerMappingsListByReplicationProtectionContainers(w http.ResponseWriter, r *http.Request, _, _, _, _, _ string, _ oas.ReplicationProtectionContainerMappingsListByReplicationProtectionContainersParams) {
	s.listMappings(w, r)
}

func (s *server) ReplicationProtectionContainerMappingsGet(w http.ResponseWriter, r *http.Request, _, _, _, _, _, _ string, _ oas.ReplicationProtectionContainerMappingsGetParams) {
	s.get(w, r, s.mapping(r))
}

func (s *server) ReplicationProtectionContainerMappingsCreate(w http.ResponseWriter, r *http.Request, _, _, _, _, _, _ string, _ oas.ReplicationProtectionContainerMappingsCreateParams) {
	s.change(w, r, func(c *scope) (string, error) {
		in, err := body[oas.CreateProtectionContainerMappingInput](r)
		if err != nil {
			return "", err
		}
		p := in.Properties
		return s.control.PutMapping(r.Context(), c.ref("mappingName"), control.MappingInput{PolicyID: p.PolicyId, TargetContainerID: p.TargetProtectionContainerId,
			ProviderSpecificInput: union(p.ProviderSpecificInput)})
	}, s.mapping(r))
}

func (s *server) ReplicationProtectionContainerMappingsUpdate(w http.ResponseWriter, r *http.Request, _, _, _, _, _, _ string, _ oas.ReplicationProtectionContainerMappingsUpdateParams) {
	s.change(w, r, func(c *scope) (string, error) {
		in, err := body[oas.UpdateProtectionContainerMappingInput](r)
		if err != nil {
			return "", err
		}
		return s.control.PatchMapping(r.Context(), c.ref("mappingName"), union(in.Properties.ProviderSpecificInput))
	}, s.mapping(r))
}

func (s *server) removeMapping(w http.ResponseWriter, r *http.Request) {
	s.remove(w, r, func(c *scope) (string, error) { return s.control.RemoveMapping(r.Context(), c.ref("mappingName")) })
}

func (s *server) ReplicationProtectionContainerMappingsPurge(w http.ResponseWriter, r *http.Request, _, _, _, _, _, _ string, _ oas.ReplicationProtectionContainerMappingsPurgeParams) {
	s.removeMapping(w, r)
}

func (s *server) ReplicationProtectionContainerMappingsDelete(w http.ResponseWriter, r *http.Request, _, _, _, _, _, _ string, _ oas.ReplicationProtectionContainerMappingsDeleteParams) {
	s.removeMapping(w, r)
}

func (s *server) ReplicationProtectionContainerMappingsOperationResult(w http.ResponseWriter, r *http.Request, _, _, _, _, _, _, _ string, _ oas.ReplicationProtectionContainerMappingsOperationResultParams) {
	s.operationResult(w, r, "jobId", s.mapping(r))
}
