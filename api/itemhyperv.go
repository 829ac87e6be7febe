package api

import (
	"strconv"

	"github.com/lifeboat-dr/lifeboat/api/oas"
	"github.com/lifeboat-dr/lifeboat/service/control"
	"github.com/lifeboat-dr/lifeboat/service/dr"
)

func hyperVAzureDetails(v control.ItemView) oas.HyperVReplicaAzureReplicationDetails {
	i, s, com := v.Item, standingOf(v), common(v.Item)
	in, up := read[oas.HyperVReplicaAzureEnableProtectionInput](i.EnableInput), read[oas.HyperVReplicaAzureUpdateReplicationProtectedItemInput](i.UpdateInput)
	d := oas.HyperVReplicaAzureReplicationDetails{InstanceType: string(dr.ProviderHyperVReplicaAzure), VmId: pick(in.HvHostVmId, i.ActiveUUID), VmProtectionState: s.state, VmProtectionStateDescription: s.stateWords,
		InitialReplicationDetails: firstCopy(v), RpoInSeconds: s.rpo, LastRpoCalculatedTime: s.rpoAt, LastReplicatedTime: s.newest, LastRecoveryPointReceived: s.newest, Encryption: "Disabled",
		OSDetails:        oas.OSDetails{OsType: pick(i.Hardware.OSType, in.OsType), UserSelectedOSName: pick(up.UserSelectedOSName, in.UserSelectedOSName, i.Hardware.OSName)},
		SourceVmCpuCount: ptr(int32(i.Hardware.CPUs)), SourceVmRamSizeInMB: ptr(int32(i.Hardware.MemoryBytes >> 20)), RecoveryAzureVmName: i.TargetName,
		RecoveryAzureVMSize:          pick(com.RecoveryAzureVMSize, in.TargetVmSize),
		RecoveryAzureResourceGroupId: pick(up.RecoveryAzureV2ResourceGroupId, up.RecoveryAzureV1ResourceGroupId, in.TargetAzureV2ResourceGroupId, in.TargetAzureV1ResourceGroupId),
		RecoveryAzureStorageAccount:  in.TargetStorageAccountId, RecoveryAzureLogStorageAccountId: in.LogStorageAccountId, RecoveryAvailabilitySetId: pick(com.RecoveryAvailabilitySetId, in.TargetAvailabilitySetId),
		SelectedRecoveryAzureNetworkId: i.TargetNetwork, SelectedSourceNicId: com.SelectedSourceNicId, EnableRdpOnTargetOption: pick(com.EnableRdpOnTargetOption, in.EnableRdpOnTargetOption, "Never"),
		LicenseType: pick(com.LicenseType, string(in.LicenseType)), LinuxLicenseType: pick(string(up.LinuxLicenseType), string(in.LinuxLicenseType)),
		SqlServerLicenseType: pick(string(up.SqlServerLicenseType), string(in.SqlServerLicenseType)), TargetAvailabilityZone: pick(up.TargetAvailabilityZone, in.TargetAvailabilityZone),
		TargetProximityPlacementGroupId:  pick(up.TargetProximityPlacementGroupId, in.TargetProximityPlacementGroupId),
		TargetCapacityReservationGroupId: pick(up.TargetCapacityReservationGroupId, in.TargetCapacityReservationGroupId), TargetVmSecurityProfile: in.TargetVmSecurityProfile,
		UseManagedDisks: pick(up.UseManagedDisks, in.UseManagedDisks, "true"), TargetVmTags: tags(up.TargetVmTags, in.TargetVmTags),
		TargetManagedDiskTags: tags(up.TargetManagedDiskTags, in.TargetManagedDiskTags), TargetNicTags: tags(up.TargetNicTags, in.TargetNicTags), SeedManagedDiskTags: in.SeedManagedDiskTags,
		AllAvailableOSUpgradeConfigurations: []oas.OSUpgradeSupportedVersions{}, VmNics: nics(v), AzureVmDiskDetails: []oas.AzureVMDiskDetails{}, ProtectedManagedDisks: []oas.HyperVReplicaAzureManagedDiskDetails{}}
	for n, k := range i.Disks {
		_, name := diskProgress(v, k.ID)
		disk := azureDisk(n, k, name)
		managed := oas.HyperVReplicaAzureManagedDiskDetails{DiskId: k.ID, ReplicaDiskType: string(in.DiskType), TargetDiskAccountType: string(in.DiskType), DiskEncryptionSetId: in.DiskEncryptionSetId}
		for _, asked := range in.DisksToIncludeForManagedDisks {
			if asked.DiskId == k.ID {
				managed.ReplicaDiskType, managed.TargetDiskAccountType, managed.DiskEncryptionSetId = string(asked.DiskType), string(asked.DiskType), asked.DiskEncryptionSetId
				managed.SectorSizeInBytes, managed.Iops, managed.ThroughputInMbps, managed.DiskSizeInGB = asked.SectorSizeInBytes, asked.Iops, asked.ThroughputInMbps, asked.DiskSizeInGB
			}
		}
		for _, wish := range up.VmDisks {
			if wish.DiskId == k.ID {
				disk.TargetDiskName, disk.CustomTargetDiskName = wish.TargetDiskName, wish.TargetDiskName
			}
		}
		d.AzureVmDiskDetails, d.ProtectedManagedDisks = append(d.AzureVmDiskDetails, disk), append(d.ProtectedManagedDisks, managed)
	}
	return d
}

// hyperVDetails serves both generations of replication between Hyper-V sites.
func hyperVDetails(v control.ItemView) oas.HyperVReplicaReplicationDetails {
	i, s := v.Item, standingOf(v)
	d := oas.HyperVReplicaReplicationDetails{InstanceType: string(v.Projection.Provider), VmId: i.ActiveUUID, VmProtectionState: s.state, VmProtectionStateDescription: s.stateWords,
		InitialReplicationDetails: firstCopy(v), LastReplicatedTime: s.newest, VmNics: nics(v), VMDiskDetails: []oas.DiskDetails{}}
	for _, k := range i.Disks {
		_, name := diskProgress(v, k.ID)
		d.VMDiskDetails = append(d.VMDiskDetails, oas.DiskDetails{VhdId: k.ID, VhdName: name, VhdType: diskKind(k), MaxSizeMB: ptr(k.SizeBytes >> 20)})
	}
	return d
}

func firstCopy(v control.ItemView) oas.InitialReplicationDetails {
	return oas.InitialReplicationDetails{InitialReplicationType: "OverNetwork", InitialReplicationProgressPercentage: strconv.Itoa(v.InitialPercent)}
}
