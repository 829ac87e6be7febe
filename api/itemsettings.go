package api

import (
	"encoding/json"

	"github.com/lifeboat-dr/lifeboat/api/oas"
	"github.com/lifeboat-dr/lifeboat/service/control"
	"github.com/lifeboat-dr/lifeboat/service/dr"
)

// read decodes what a client sent, later inputs over earlier ones. All were validated when they came in; fields of one provider
// have the same name and type in all its requests.
func read[T any](inputs ...json.RawMessage) (in T) {
	for _, raw := range inputs {
		_ = json.Unmarshal(raw, &in) // absent is empty
	}
	return in
}

// common are the settings that an update has for every provider.
func common(i dr.Item) oas.UpdateReplicationProtectedItemInputProperties {
	return read[oas.UpdateReplicationProtectedItemInputProperties](i.UpdateCommon)
}

// nics are the machine's adapters as the classic, Hyper-V and region providers show them.
func nics(v control.ItemView) []oas.VMNicDetails {
	out := []oas.VMNicDetails{}
	if v.Agent == nil {
		return out
	}
	set := common(v.Item)
	for n, nic := range v.Agent.Machine.NICs {
		d := oas.VMNicDetails{NicId: nic.MAC, VMNetworkName: nic.Name, SelectionType: "SelectedByDefault", RecoveryVMNetworkId: v.Item.TargetNetwork, TfoVMNetworkId: v.Item.TestNetwork, IpConfigs: []oas.IPConfigDetails{}}
		for a, address := range nic.IPAddresses {
			d.IpConfigs = append(d.IpConfigs, oas.IPConfigDetails{Name: address, IsPrimary: ptr(n == 0 && a == 0), IsSeletedForFailover: ptr(true), StaticIPAddress: address,
				IpAddressType: "Dynamic", RecoveryIPAddressType: "Dynamic"})
		}
		for _, in := range set.VmNics {
			if in.NicId == nic.MAC {
				wishNIC(&d, in)
			}
		}
		out = append(out, d)
	}
	return out
}

// wishNIC lays what the user asked for over what the adapter is.
func wishNIC(d *oas.VMNicDetails, in oas.VMNicInputDetails) {
	d.SelectionType, d.TargetNicName = in.SelectionType, in.TargetNicName
	if d.SelectionType == "" {
		d.SelectionType = "SelectedByUser"
	}
	d.RecoveryNicName, d.RecoveryNicResourceGroupName, d.RecoveryNetworkSecurityGroupId = in.RecoveryNicName, in.RecoveryNicResourceGroupName, in.RecoveryNetworkSecurityGroupId
	d.TfoRecoveryNicName, d.TfoRecoveryNicResourceGroupName, d.TfoNetworkSecurityGroupId = in.TfoNicName, in.TfoNicResourceGroupName, in.TfoNetworkSecurityGroupId
	d.EnableAcceleratedNetworkingOnRecovery, d.EnableAcceleratedNetworkingOnTfo = ptr(in.EnableAcceleratedNetworkingOnRecovery), ptr(in.EnableAcceleratedNetworkingOnTfo)
	d.ReuseExistingNic, d.TfoReuseExistingNic = ptr(in.ReuseExistingNic), ptr(in.TfoReuseExistingNic)
	for _, c := range in.IpConfigs {
		at := -1
		for i := range d.IpConfigs {
			if d.IpConfigs[i].Name == c.IpConfigName {
				at = i
			}
		}
		if at < 0 {
			d.IpConfigs = append(d.IpConfigs, oas.IPConfigDetails{Name: c.IpConfigName, RecoveryIPAddressType: "Dynamic"})
			at = len(d.IpConfigs) - 1
		}
		ip := &d.IpConfigs[at]
		ip.IsPrimary, ip.IsSeletedForFailover = ptr(c.IsPrimary), ptr(c.IsSeletedForFailover)
		ip.RecoverySubnetName, ip.RecoveryStaticIPAddress, ip.RecoveryPublicIPAddressId = c.RecoverySubnetName, c.RecoveryStaticIPAddress, c.RecoveryPublicIPAddressId
		ip.TfoSubnetName, ip.TfoStaticIPAddress, ip.TfoPublicIPAddressId = c.TfoSubnetName, c.TfoStaticIPAddress, c.TfoPublicIPAddressId
		ip.RecoveryLBBackendAddressPoolIds, ip.TfoLBBackendAddressPoolIds = c.RecoveryLBBackendAddressPoolIds, c.TfoLBBackendAddressPoolIds
		if c.RecoveryStaticIPAddress != "" {
			ip.RecoveryIPAddressType = "Static"
		}
	}
}

// diskKind tells an item's disks apart as the wire does.
func diskKind(d dr.Disk) string {
	if d.IsOSDisk {
		return "OperatingSystem"
	}
	return "Data"
}

// osDisk is the id of the disk the machine boots from.
func osDisk(i dr.Item) string {
	for _, d := range i.Disks {
		if d.IsOSDisk {
			return d.ID
		}
	}
	return ""
}

// pick returns the first that is not empty.
func pick(values ...string) string {
	for _, v := range values {
		if v != "" {
			return v
		}
	}
	return ""
}
