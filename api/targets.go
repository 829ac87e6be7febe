package api

import (
	"fmt"
	"net/http"
	"strings"

	"github.com/lifeboat-dr/lifeboat/api/oas"
	"github.com/lifeboat-dr/lifeboat/service/control"
	"github.com/lifeboat-dr/lifeboat/service/dr"
)

const (
	typeSystems = typeVault + "/replicationSupportedOperatingSystems"
	typeSize    = typeItem + "/targetComputeSizes"
)

// Every provider whose first leg has a driver, in the order they are shown.
var providers = []dr.ProviderType{dr.ProviderInMageRcm, dr.ProviderInMageAzureV2, dr.ProviderInMage, dr.ProviderHyperVReplicaAzure, dr.ProviderHyperVReplica2012,
	dr.ProviderHyperVReplica2012R2, dr.ProviderA2A}

// linux is what the guest agent runs on: what our tests protect, and what a static Go program needs (go.dev/wiki/MinimumRequirements).
func linux() []oas.SupportedOSDetails {
	return []oas.SupportedOSDetails{
		{OsName: "Debian GNU/Linux", OsType: "Linux", OsVersions: []oas.OSVersionWrapper{{Version: "12"}}},
		{OsName: "Other Linux", OsType: "Linux", OsVersions: []oas.OSVersionWrapper{{Version: "kernel 3.2 or later"}}},
	}
}

func (s *server) SupportedOperatingSystemsGet(w http.ResponseWriter, r *http.Request, _, _, _ string, _ oas.SupportedOperatingSystemsGetParams) {
	s.get(w, r, func(c *scope) (any, error) {
		wanted := r.URL.Query().Get("instanceType")
		out := oas.SupportedOperatingSystems{Id: c.base + "/replicationSupportedOperatingSystems", Name: "replicationSupportedOperatingSystems", Type: typeSystems,
			Properties: oas.SupportedOSProperties{SupportedOsList: []oas.SupportedOSProperty{}}}
		for _, p := range providers {
			if leg := dr.FirstLeg(p); leg == nil || !leg.Driver || wanted != "" && !strings.EqualFold(wanted, string(p)) {
				continue
			}
			out.Properties.SupportedOsList = append(out.Properties.SupportedOsList, oas.SupportedOSProperty{InstanceType: string(p), SupportedOs: linux()})
		}
		return out, nil
	})
}

// Limits of a replica of ours: what one PCI bus of the emulated machine takes besides the disk it starts from.
const (
	maxDataDisks = 15
	maxNICs      = 8
)

// TargetComputeSizesListByReplicationProtectedItems answers with the whole ladder of sizes: it is short.
func (s *server) TargetComputeSizesListByReplicationProtectedItems(w http.ResponseWriter, r *http.Request, _, _, _, _, _, _ string, _ oas.TargetComputeSizesListByReplicationProtectedItemsParams) {
	s.get(w, r, func(c *scope) (any, error) {
		v, err := s.control.Item(r.Context(), c.ref("replicatedProtectedItemName"))
		out := collection[oas.TargetComputeSize]{Value: []oas.TargetComputeSize{}}
		for _, size := range dr.TargetSizes(v.Item.Hardware) {
			out.Value = append(out.Value, sizeBody(c, v.Item, size))
		}
		return out, err
	})
}

func sizeBody(c *scope, i dr.Item, size dr.Size) oas.TargetComputeSize {
	gib := float64(size.MemoryMB) / 1024
	p := oas.TargetComputeSizeProperties{Name: size.Name, FriendlyName: fmt.Sprintf("%d processors, %.4g GiB", size.CPUs, gib), CpuCoresCount: ptr(int32(size.CPUs)), VCPUsAvailable: ptr(int32(size.CPUs)),
		MemoryInGB: ptr(gib), MaxDataDiskCount: ptr(int32(maxDataDisks)), MaxNicsCount: ptr(int32(maxNICs)), Errors: []oas.ComputeSizeErrorDetails{}, HighIopsSupported: "Supported", HyperVGenerations: []string{"V1", "V2"}}
	if n := len(i.Disks) - 1; n > maxDataDisks {
		p.Errors = append(p.Errors, oas.ComputeSizeErrorDetails{Severity: "Error", Message: fmt.Sprintf("the machine has %d disks besides the first; a replica can have %d", n, maxDataDisks)})
	}
	return oas.TargetComputeSize{Id: c.item(i) + "/targetComputeSizes/" + size.Name, Name: size.Name, Type: typeSize, Properties: p}
}

func (s *server) ReplicationAppliancesList(w http.ResponseWriter, r *http.Request, _, _, _ string, _ oas.ReplicationAppliancesListParams) {
	s.get(w, r, func(c *scope) (any, error) {
		f, err := filterOf(r, "providerType")
		if err != nil {
			return nil, err
		}
		p, err := s.paging(r)
		if err != nil {
			return nil, err
		}
		out := collection[oas.ReplicationAppliance]{Value: []oas.ReplicationAppliance{}}
		if kind := f.one("providerType"); kind != "" && !strings.EqualFold(kind, string(dr.FabricInMageRcm)) {
			return out, nil
		}
		found, err := s.control.Fabrics(r.Context(), c.vault.ID, p)
		out.NextLink = s.nextLink(r, found.Next)
		for _, v := range found.Items {
			if v.Fabric.Kind == dr.FabricInMageRcm {
				out.Value = append(out.Value, applianceBody(c, v))
			}
		}
		return out, err
	})
}

// applianceBody shows each replicator of a site as one appliance that has all the parts it stands for.
func applianceBody(c *scope, v control.FabricView) oas.ReplicationAppliance {
	d := oas.InMageRcmApplianceSpecificDetails{InstanceType: string(dr.FabricInMageRcm), Appliances: []oas.InMageRcmApplianceDetails{}}
	parts := rcmFabric(v)
	for _, p := range v.Replicators {
		a := oas.InMageRcmApplianceDetails{Id: p.ID, Name: p.Hostname, FabricArmId: c.fabric(v.Fabric.Name), SwitchProviderBlockingErrorDetails: []oas.InMageRcmFabricSwitchProviderBlockingErrorDetails{}}
		for _, part := range parts.ProcessServers {
			if part.Id == p.ID {
				a.ProcessServer = part
			}
		}
		for _, part := range parts.RcmProxies {
			if part.Id == p.ID {
				a.RcmProxy = part
			}
		}
		for _, part := range parts.ReprotectAgents {
			if part.Id == p.ID {
				a.ReprotectAgent = part
			}
		}
		d.Appliances = append(d.Appliances, a)
	}
	var out oas.ReplicationAppliance
	must(out.Properties.ProviderSpecificDetails.FromInMageRcmApplianceSpecificDetails(d))
	return out
}
