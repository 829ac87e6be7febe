package api

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"github.com/lifeboat-dr/lifeboat/api/oas"
	"github.com/lifeboat-dr/lifeboat/service/control"
	"github.com/lifeboat-dr/lifeboat/service/dr"
)

func containerBody(c *scope, v control.ContainerView) oas.ProtectionContainer {
	pairing, role := "NotPaired", ""
	if v.Paired {
		pairing, role = "Paired", "Primary"
	}
	return oas.ProtectionContainer{Id: c.container(v.Fabric.Name, v.Container.Name), Name: v.Container.Name, Type: typeContainer,
		Properties: oas.ProtectionContainerProperties{FabricFriendlyName: v.Fabric.Name, FriendlyName: v.Container.FriendlyName, FabricType: string(v.Fabric.Kind),
			ProtectedItemCount: ptr(int32(v.Items)), PairingStatus: pairing, Role: role,
			FabricSpecificDetails: oas.ProtectionContainerFabricSpecificDetails{InstanceType: string(v.Fabric.Kind)}}}
}

func (s *server) container(r *http.Request) func(c *scope) (any, error) {
	return shown(func(c *scope) (control.ContainerView, error) { return s.control.Container(r.Context(), c.ref("")) }, containerBody)
}

func (s *server) listContainers(w http.ResponseWriter, r *http.Request) {
	list(s, w, r, func(c *scope, p control.Paging) (control.Page[control.ContainerView], error) {
		return s.control.Containers(r.Context(), c.ref(""), p)
	}, containerBody)
}

func (s *server) ReplicationProtectionContainersList(w http.ResponseWriter, r *http.Request, _, _, _ string, _ oas.ReplicationProtectionContainersListParams) {
	s.listContainers(w, r)
}

func (s *server) ReplicationProtectionContainersListByReplicationFabrics(w http.ResponseWriter, r *http.Request, _, _, _, _ string, _ oas.ReplicationProtectionContainersListByReplicationFabricsParams) {
	s.listContainers(w, r)
}

func (s *server) ReplicationProtectionContainersGet(w http.ResponseWriter, r *http.Request, _, _, _, _, _ string, _ oas.ReplicationProtectionContainersGetParams) {
	s.getAndKeep(w, r, s.container)
}

func (s *server) ReplicationProtectionContainersDiscoverProtectableItem(w http.ResponseWriter, r *http.Request, _, _, _, _, _ string, _ oas.ReplicationProtectionContainersDiscoverProtectableItemParams) {
	s.change(w, r, func(c *scope) (string, error) {
		in, err := body[oas.DiscoverProtectableItemRequest](r)
		if err != nil {
			return "", err
		}
		p := in.Properties
		return s.control.DiscoverProtectable(r.Context(), c.ref(""), control.DiscoverInput{FriendlyName: p.FriendlyName, Address: p.IpAddress, OSType: p.OsType})
	}, s.container(r))
}

func (s *server) ReplicationProtectionContainersCreate(w http.ResponseWriter, r *http.Request, _, _, _, _, _ string, _ oas.ReplicationProtectionContainersCreateParams) {
	s.change(w, r, func(c *scope) (string, error) {
		in, err := body[oas.CreateProtectionContainerInput](r)
		if err != nil {
			return "", err
		}
		var providers []string
		for _, p := range in.Properties.ProviderSpecificInput {
			raw, err := p.MarshalJSON()
			if err != nil {
				return "", err
			}
			providers = append(providers, instanceType(raw))
		}
		return s.control.PutContainer(r.Context(), c.ref(""), providers)
	}, s.container(r))
}

func (s *server) ReplicationProtectionContainersDelete(w http.ResponseWriter, r *http.Request, _, _, _, _, _ string, _ oas.ReplicationProtectionContainersDeleteParams) {
	s.remove(w, r, func(c *scope) (string, error) { return s.control.RemoveContainer(r.Context(), c.ref("")) })
}

func (s *server) ReplicationProtectionContainersSwitchProtection(w http.ResponseWriter, r *http.Request, _, _, _, _, _ string, _ oas.ReplicationProtectionContainersSwitchProtectionParams) {
	s.change(w, r, func(c *scope) (string, error) {
		in, err := body[oas.SwitchProtectionInput](r)
		if err != nil {
			return "", err
		}
		return s.control.SwitchProtection(r.Context(), c.ref(""), in.Properties.ReplicationProtectedItemName, union(in.Properties.ProviderSpecificDetails))
	}, s.container(r))
}

func (s *server) ReplicationProtectionContainersOperationResult(w http.ResponseWriter, r *http.Request, _, _, _, _, _, _ string, _ oas.ReplicationProtectionContainersOperationResultParams) {
	s.operationResult(w, r, "jobId", s.container(r))
}

func protectableBody(c *scope, v control.ProtectableView) oas.ProtectableItem {
	i := v.Item
	out := oas.ProtectableItem{Id: c.protectable(i.Fabric, i.Container, i.Name), Name: i.Name, Type: typeProtectable,
		Properties: oas.ProtectableItemProperties{FriendlyName: i.FriendlyName, ProtectionStatus: "Unprotected", ProtectionReadinessErrors: orEmpty(v.Problems),
			SupportedReplicationProviders: providersOf(v.Fabric.Kind)}}
	if v.Protected != nil {
		out.Properties.ProtectionStatus = "Protected"
		out.Properties.ReplicationProtectedItemId = c.item(*v.Protected)
	}
	if v.Fabric.Kind == dr.FabricHyperVSite || v.Fabric.Kind == dr.FabricVMM {
		must(out.Properties.CustomDetails.FromHyperVVirtualMachineDetails(hyperVMachine(v)))
		return out
	}
	d := oas.VMwareVirtualMachineDetails{InstanceType: "VMwareVirtualMachine", AgentGeneratedId: i.AgentID, AgentInstalled: boolText(v.Agent != nil),
		OsType: i.OSType, IpAddress: i.Address, PoweredOn: "Unknown", DiscoveryType: "vm", DiskDetails: []oas.InMageDiskDetails{}, ValidationErrors: []oas.HealthError{}}
	if i.Physical {
		d.DiscoveryType = "physical"
	}
	if a := v.Agent; a != nil {
		d.AgentVersion = a.AgentVersion
		if a.Machine.OSType != "" {
			d.OsType = a.Machine.OSType
		}
		for _, k := range a.Machine.Disks {
			disk := oas.InMageDiskDetails{DiskId: k.ID, DiskName: k.Path, DiskSizeInMB: strconv.FormatInt(k.SizeBytes>>20, 10), DiskType: "Basic", VolumeList: []oas.DiskVolumeDetails{}}
			for _, m := range k.Mounts {
				disk.VolumeList = append(disk.VolumeList, oas.DiskVolumeDetails{Name: m})
			}
			d.DiskDetails = append(d.DiskDetails, disk)
		}
	}
	must(out.Properties.CustomDetails.FromVMwareVirtualMachineDetails(d))
	return out
}

// hyperVMachine shows a machine that a Hyper-V host or its management server knows.
func hyperVMachine(v control.ProtectableView) oas.HyperVVirtualMachineDetails {
	d := oas.HyperVVirtualMachineDetails{InstanceType: "HyperVVirtualMachine", SourceItemId: v.Item.ID, HasPhysicalDisk: "Unknown", HasFibreChannelAdapter: "Unknown", HasSharedVhd: "Unknown",
		OsDetails: oas.OSDetails{OsType: v.Item.OSType}, DiskDetails: []oas.DiskDetails{}}
	if v.Fabric.Kind == dr.FabricVMM {
		d.InstanceType = "VmmVirtualMachine"
	}
	if a := v.Agent; a != nil {
		for _, k := range a.Machine.Disks {
			kind := diskKind(dr.Disk{IsOSDisk: k.IsOSDisk})
			d.DiskDetails = append(d.DiskDetails, oas.DiskDetails{VhdId: k.ID, VhdName: k.Path, VhdType: kind, MaxSizeMB: ptr(k.SizeBytes >> 20)})
		}
	}
	return d
}

// providersOf are the providers that machines of a kind of site can be protected with (ref 4.2).
func providersOf(k dr.FabricKind) []string {
	switch k {
	case dr.FabricHyperVSite:
		return []string{string(dr.ProviderHyperVReplicaAzure)}
	case dr.FabricVMM:
		return []string{string(dr.ProviderHyperVReplicaAzure), string(dr.ProviderHyperVReplica2012R2)}
	case dr.FabricVMware:
		return []string{string(dr.ProviderInMageAzureV2), string(dr.ProviderInMage)}
	case dr.FabricAzure:
		return []string{string(dr.ProviderA2A)}
	}
	return []string{string(dr.ProviderInMageRcm)}
}

func boolText(b bool) string { return strconv.FormatBool(b) }

func orEmpty[T any](v []T) []T {
	if v == nil {
		return []T{}
	}
	return v
}

func (s *server) ReplicationProtectableItemsListByReplicationProtectionContainers(w http.ResponseWriter, r *http.Request, _, _, _, _, _ string, _ oas.ReplicationProtectableItemsListByReplicationProtectionContainersParams) {
	list(s, w, r, func(c *scope, p control.Paging) (control.Page[control.ProtectableView], error) {
		f, err := filterOf(r, "state")
		if err != nil {
			return control.Page[control.ProtectableView]{}, err
		}
		state := f.one("state")
		if state != "" && !strings.EqualFold(state, "Protected") && !strings.EqualFold(state, "Unprotected") {
			return control.Page[control.ProtectableView]{}, badFilter(fmt.Sprintf("state is %q", printable(state)), "use Protected or Unprotected")
		}
		return s.control.Protectables(r.Context(), c.ref(""), state, p)
	}, protectableBody)
}

func (s *server) ReplicationProtectableItemsGet(w http.ResponseWriter, r *http.Request, _, _, _, _, _, _ string, _ oas.ReplicationProtectableItemsGetParams) {
	s.get(w, r, func(c *scope) (any, error) {
		v, err := s.control.Protectable(r.Context(), c.ref("protectableItemName"))
		return protectableBody(c, v), err
	})
}
