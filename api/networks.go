package api

import (
	"encoding/json"
	"net/http"

	"github.com/lifeboat-dr/lifeboat/api/oas"
	"github.com/lifeboat-dr/lifeboat/service/control"
	"github.com/lifeboat-dr/lifeboat/service/dr"
)

const (
	typeNetwork        = typeFabric + "/replicationNetworks"
	typeNetworkMapping = typeNetwork + "/replicationNetworkMappings"
	typeLogicalNetwork = typeFabric + "/replicationLogicalNetworks"
)

func (c *scope) network(fabric, name string) string {
	return c.fabric(fabric) + "/replicationNetworks/" + name
}

func networkBody(c *scope, v control.NetworkView) oas.Network {
	n := v.Network
	out := oas.Network{Id: c.network(n.Fabric, n.Name), Name: n.Name, Type: typeNetwork, Properties: oas.NetworkProperties{
		FabricType: string(v.Fabric.Kind), FriendlyName: n.FriendlyName, NetworkType: n.Type, Subnets: []oas.Subnet{}}}
	for _, s := range n.Subnets {
		out.Properties.Subnets = append(out.Properties.Subnets, oas.Subnet{Name: s.Name, FriendlyName: s.FriendlyName, AddressList: orEmpty(s.Ranges)})
	}
	return out
}

func logicalNetworkBody(c *scope, n dr.LogicalNetwork) oas.LogicalNetwork {
	return oas.LogicalNetwork{Id: c.fabric(n.Fabric) + "/replicationLogicalNetworks/" + n.Name, Name: n.Name, Type: typeLogicalNetwork, Properties: oas.LogicalNetworkProperties{
		FriendlyName: n.FriendlyName, NetworkVirtualizationStatus: n.Virtualization, LogicalNetworkUsage: n.Usage, LogicalNetworkDefinitionsStatus: n.Definitions}}
}

func networkMappingBody(c *scope, v control.NetworkMappingView) oas.NetworkMapping {
	m := v.Mapping
	network := c.network(m.Fabric, m.Network)
	p := oas.NetworkMappingProperties{State: "Paired", PrimaryNetworkId: network, PrimaryNetworkFriendlyName: v.Network.FriendlyName, PrimaryFabricFriendlyName: v.Fabric.Name,
		RecoveryNetworkId: m.RecoveryNetworkID, RecoveryNetworkFriendlyName: v.RecoveryNetwork, RecoveryFabricArmId: azure, RecoveryFabricFriendlyName: azure}
	if m.PrimaryNetworkID != "" {
		p.PrimaryNetworkId = m.PrimaryNetworkID
	}
	if m.RecoveryFabric != "" {
		p.RecoveryFabricArmId, p.RecoveryFabricFriendlyName = c.fabric(m.RecoveryFabric), m.RecoveryFabric
	}
	switch m.Kind {
	case dr.AzureToAzure:
		d := oas.AzureToAzureNetworkMappingSettings{InstanceType: string(m.Kind), PrimaryFabricLocation: locationOf(v.Fabric)}
		if v.RecoveryFabric != nil {
			d.RecoveryFabricLocation = locationOf(*v.RecoveryFabric)
		}
		must(p.FabricSpecificSettings.FromAzureToAzureNetworkMappingSettings(d))
	case dr.VmmToAzure:
		must(p.FabricSpecificSettings.FromVmmToAzureNetworkMappingSettings(oas.VmmToAzureNetworkMappingSettings{InstanceType: string(m.Kind)}))
	default:
		must(p.FabricSpecificSettings.FromVmmToVmmNetworkMappingSettings(oas.VmmToVmmNetworkMappingSettings{InstanceType: string(m.Kind)}))
	}
	return oas.NetworkMapping{Id: network + "/replicationNetworkMappings/" + m.Name, Name: m.Name, Type: typeNetworkMapping, Properties: p}
}

// locationOf is the region that a fabric stands for.
func locationOf(f dr.Fabric) string {
	var in oas.AzureFabricCreationInput
	_ = json.Unmarshal(f.Input, &in) // was validated when it came in
	return in.Location
}

func (s *server) listNetworks(w http.ResponseWriter, r *http.Request) {
	list(s, w, r, func(c *scope, p control.Paging) (control.Page[control.NetworkView], error) {
		return s.control.Networks(r.Context(), c.ref(""), p)
	}, networkBody)
}

func (s *server) ReplicationNetworksList(w http.ResponseWriter, r *http.Request, _, _, _ string, _ oas.ReplicationNetworksListParams) {
	s.listNetworks(w, r)
}

func (s *server) ReplicationNetworksListByReplicationFabrics(w http.ResponseWriter, r *http.Request, _, _, _, _ string, _ oas.ReplicationNetworksListByReplicationFabricsParams) {
	s.listNetworks(w, r)
}

func (s *server) ReplicationNetworksGet(w http.ResponseWriter, r *http.Request, _, _, _, _, _ string, _ oas.ReplicationNetworksGetParams) {
	s.get(w, r, shown(func(c *scope) (control.NetworkView, error) {
		return s.control.Network(r.Context(), c.ref("networkName"))
	}, networkBody))
}

func (s *server) ReplicationLogicalNetworksListByReplicationFabrics(w http.ResponseWriter, r *http.Request, _, _, _, _ string, _ oas.ReplicationLogicalNetworksListByReplicationFabricsParams) {
	list(s, w, r, func(c *scope, p control.Paging) (control.Page[dr.LogicalNetwork], error) {
		return s.control.LogicalNetworks(r.Context(), c.ref(""), p)
	}, logicalNetworkBody)
}

func (s *server) ReplicationLogicalNetworksGet(w http.ResponseWriter, r *http.Request, _, _, _, _, _ string, _ oas.ReplicationLogicalNetworksGetParams) {
	s.get(w, r, shown(func(c *scope) (dr.LogicalNetwork, error) {
		return s.control.LogicalNetwork(r.Context(), c.ref("logicalNetworkName"))
	}, logicalNetworkBody))
}

func (s *server) networkMapping(r *http.Request) func(c *scope) (any, error) {
	return shown(func(c *scope) (control.NetworkMappingView, error) {
		return s.control.NetworkMapping(r.Context(), c.ref("networkMappingName"), c.names["networkName"])
	}, networkMappingBody)
}

func (s *server) listNetworkMappings(w http.ResponseWriter, r *http.Request) {
	list(s, w, r, func(c *scope, p control.Paging) (control.Page[control.NetworkMappingView], error) {
		return s.control.NetworkMappings(r.Context(), c.ref(""), c.names["networkName"], p)
	}, networkMappingBody)
}

func (s *server) ReplicationNetworkMappingsList(w http.ResponseWriter, r *http.Request, _, _, _ string, _ oas.ReplicationNetworkMappingsListParams) {
	s.listNetworkMappings(w, r)
}

func (s *server) ReplicationNetworkMappingsListByReplicationNetworks(w http.ResponseWriter, r *http.Request, _, _, _, _, _ string, _ oas.ReplicationNetworkMappingsListByReplicationNetworksParams) {
	s.listNetworkMappings(w, r)
}

func (s *server) ReplicationNetworkMappingsGet(w http.ResponseWriter, r *http.Request, _, _, _, _, _, _ string, _ oas.ReplicationNetworkMappingsGetParams) {
	s.get(w, r, s.networkMapping(r))
}

// networkMappingInput reads what both inputs share. A base class says nothing about the kind.
func networkMappingInput(recoveryFabric, recoveryNetwork string, details json.Marshaler) control.NetworkMappingInput {
	in := control.NetworkMappingInput{RecoveryFabric: recoveryFabric, RecoveryNetworkID: recoveryNetwork}
	raw, err := details.MarshalJSON()
	if err != nil {
		return in
	}
	var d oas.AzureToAzureUpdateNetworkMappingInput
	_ = json.Unmarshal(raw, &d) // was validated; absent details are null
	switch kind := dr.NetworkMappingKind(d.InstanceType); kind {
	case dr.AzureToAzure, dr.VmmToAzure, dr.VmmToVmm:
		in.Kind, in.PrimaryNetworkID = kind, d.PrimaryNetworkId
	}
	return in
}

func (s *server) ReplicationNetworkMappingsCreate(w http.ResponseWriter, r *http.Request, _, _, _, _, _, _ string, _ oas.ReplicationNetworkMappingsCreateParams) {
	s.change(w, r, func(c *scope) (string, error) {
		in, err := body[oas.CreateNetworkMappingInput](r)
		if err != nil {
			return "", err
		}
		p := in.Properties
		return s.control.PutNetworkMapping(r.Context(), c.ref("networkMappingName"), c.names["networkName"], networkMappingInput(p.RecoveryFabricName, p.RecoveryNetworkId, p.FabricSpecificDetails))
	}, s.networkMapping(r))
}

func (s *server) ReplicationNetworkMappingsUpdate(w http.ResponseWriter, r *http.Request, _, _, _, _, _, _ string, _ oas.ReplicationNetworkMappingsUpdateParams) {
	s.change(w, r, func(c *scope) (string, error) {
		in, err := body[oas.UpdateNetworkMappingInput](r)
		if err != nil {
			return "", err
		}
		p := in.Properties
		return s.control.PatchNetworkMapping(r.Context(), c.ref("networkMappingName"), c.names["networkName"], networkMappingInput(p.RecoveryFabricName, p.RecoveryNetworkId, p.FabricSpecificDetails))
	}, s.networkMapping(r))
}

func (s *server) ReplicationNetworkMappingsDelete(w http.ResponseWriter, r *http.Request, _, _, _, _, _, _ string, _ oas.ReplicationNetworkMappingsDeleteParams) {
	s.remove(w, r, func(c *scope) (string, error) {
		return s.control.RemoveNetworkMapping(r.Context(), c.ref("networkMappingName"), c.names["networkName"])
	})
}

func (s *server) ReplicationNetworkMappingsOperationResult(w http.ResponseWriter, r *http.Request, _, _, _, _, _, _, _ string, _ oas.ReplicationNetworkMappingsOperationResultParams) {
	s.operationResult(w, r, "jobId", s.networkMapping(r))
}
