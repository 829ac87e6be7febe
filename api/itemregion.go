package api

import (
	"github.com/lifeboat-dr/lifeboat/api/oas"
	"github.com/lifeboat-dr/lifeboat/service/control"
	"github.com/lifeboat-dr/lifeboat/service/dr"
)

// regionDetails shows a machine replicated between regions. Primary and recovery swap with the leg; initial does not.
func regionDetails(v control.ItemView) oas.A2AReplicationDetails {
	i, o, s := v.Item, v.Observed, standingOf(v)
	in, up := read[oas.A2AEnableProtectionInput](i.EnableInput), read[oas.A2AUpdateReplicationProtectedItemInput](i.UpdateInput)
	com := common(i)
	here, there := regionOf(v.Fabric), regionOf(v.TargetFabric)
	d := oas.A2AReplicationDetails{InstanceType: string(dr.ProviderA2A), FabricObjectId: in.FabricObjectId, LifecycleId: i.CorrelationID, ManagementId: i.InternalID, OsType: i.Hardware.OSType,
		InitialPrimaryFabricLocation: here, InitialRecoveryFabricLocation: there, PrimaryFabricLocation: here, RecoveryFabricLocation: there,
		MultiVmGroupName: i.MultiVMGroup, MultiVmGroupId: in.MultiVmGroupId, MultiVmGroupCreateOption: "AutoCreated", AgentVersion: o.AgentVersion, LastHeartbeat: o.LastHeartbeat,
		IsReplicationAgentUpdateRequired: ptr(false), IsReplicationAgentCertificateUpdateRequired: ptr(false), IsClusterInfraReady: ptr(false), ChurnOptionSelected: "Normal",
		VmEncryptionType: "NotEncrypted", RpoInSeconds: s.rpo, LastRpoCalculatedTime: s.rpoAt, VmProtectionState: s.state, VmProtectionStateDescription: s.stateWords,
		MonitoringPercentageCompletion: ptr(s.percent), MonitoringJobType: monitoring(v), RecoveryAzureVMName: i.TargetName, RecoveryAzureVMSize: com.RecoveryAzureVMSize,
		RecoveryAzureResourceGroupId: pick(up.RecoveryResourceGroupId, in.RecoveryResourceGroupId), RecoveryCloudService: pick(up.RecoveryCloudServiceId, in.RecoveryCloudServiceId),
		RecoveryAvailabilitySet: pick(com.RecoveryAvailabilitySetId, in.RecoveryAvailabilitySetId), RecoveryAvailabilityZone: pick(up.RecoveryAvailabilityZone, in.RecoveryAvailabilityZone),
		RecoveryProximityPlacementGroupId:  pick(up.RecoveryProximityPlacementGroupId, in.RecoveryProximityPlacementGroupId),
		RecoveryBootDiagStorageAccountId:   pick(up.RecoveryBootDiagStorageAccountId, in.RecoveryBootDiagStorageAccountId),
		RecoveryVirtualMachineScaleSetId:   pick(up.RecoveryVirtualMachineScaleSetId, in.RecoveryVirtualMachineScaleSetId),
		RecoveryCapacityReservationGroupId: pick(up.RecoveryCapacityReservationGroupId, in.RecoveryCapacityReservationGroupId),
		SelectedRecoveryAzureNetworkId:     pick(i.TargetNetwork, in.RecoveryAzureNetworkId), SelectedTfoAzureNetworkId: i.TestNetwork, TfoAzureVMName: up.TfoAzureVMName,
		AutoProtectionOfDataDisk: pick(string(in.AutoProtectionOfDataDisk), "Disabled"), VmNics: nics(v), ProtectedDisks: []oas.A2AProtectedDiskDetails{},
		ProtectedManagedDisks: []oas.A2AProtectedManagedDiskDetails{}, UnprotectedDisks: []oas.A2AUnprotectedDiskDetails{}}
	if v.Projection.Direction == dr.RecoveryToPrimary {
		d.PrimaryFabricLocation, d.RecoveryFabricLocation = there, here
	}
	if i.FailoverInstance != nil {
		d.RecoveryFabricObjectId = i.FailoverInstance.ID
	}
	if i.TestInstance != nil {
		d.TestFailoverRecoveryFabricObjectId = i.TestInstance.ID
	}
	if in.MultiVmGroupName != "" {
		d.MultiVmGroupCreateOption = "UserSpecified"
	}
	for _, k := range i.Disks {
		progress, name := diskProgress(v, k.ID)
		disk := oas.A2AProtectedManagedDiskDetails{DiskId: k.ID, DiskName: name, DiskCapacityInBytes: ptr(k.SizeBytes), DiskState: "Protected", DiskType: diskKind(k), ResyncRequired: ptr(i.State.Resync),
			MonitoringPercentageCompletion: s.percentOf(progress), MonitoringJobType: d.MonitoringJobType, AllowedDiskLevelOperation: []string{}, IsDiskEncrypted: ptr(false), IsDiskKeyEncrypted: ptr(false)}
		if initial, _ := progressOf(v); initial.running {
			disk.DiskState = "InitialReplicationPending"
		}
		for _, asked := range in.VmManagedDisks {
			if asked.DiskId == k.ID {
				disk.PrimaryStagingAzureStorageAccountId, disk.RecoveryResourceGroupId = asked.PrimaryStagingAzureStorageAccountId, asked.RecoveryResourceGroupId
				disk.RecoveryTargetDiskAccountType, disk.RecoveryReplicaDiskAccountType, disk.RecoveryDiskEncryptionSetId = asked.RecoveryTargetDiskAccountType, asked.RecoveryReplicaDiskAccountType, asked.RecoveryDiskEncryptionSetId
			}
		}
		for _, wish := range up.ManagedDiskUpdateDetails {
			if wish.DiskId == k.ID {
				disk.RecoveryTargetDiskAccountType, disk.RecoveryReplicaDiskAccountType = pick(wish.RecoveryTargetDiskAccountType, disk.RecoveryTargetDiskAccountType), pick(wish.RecoveryReplicaDiskAccountType, disk.RecoveryReplicaDiskAccountType)
				disk.FailoverDiskName, disk.TfoDiskName = wish.FailoverDiskName, wish.TfoDiskName
			}
		}
		d.ProtectedManagedDisks = append(d.ProtectedManagedDisks, disk)
	}
	for n := range v.UnprotectedDisks {
		d.UnprotectedDisks = append(d.UnprotectedDisks, oas.A2AUnprotectedDiskDetails{DiskLunId: ptr(int32(len(i.Disks) + n)), DiskAutoProtectionStatus: d.AutoProtectionOfDataDisk})
	}
	return d
}

// monitoring names the pass that the percentage is of.
func monitoring(v control.ItemView) string {
	initial, resync := progressOf(v)
	switch {
	case initial.running:
		return "InitialReplication"
	case resync.running:
		return "Resynchronization"
	}
	return ""
}

// regionOf is the region that a fabric stands for; its name where it names none.
func regionOf(f dr.Fabric) string {
	return pick(read[oas.AzureFabricCreationInput](f.Input).Location, f.Name)
}
