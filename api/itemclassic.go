package api

import (
	"strconv"
	"time"

	"github.com/lifeboat-dr/lifeboat/api/oas"
	"github.com/lifeboat-dr/lifeboat/service/control"
	"github.com/lifeboat-dr/lifeboat/service/dr"
)

// standing is how replication stands, in the terms that the classic, Hyper-V and region providers share.
type standing struct {
	rpo        *int64 // seconds; nil when nothing replicates
	rpoAt      time.Time
	newest     time.Time // capture time of the newest point
	percent    int32     // of the first copy or the comparison that runs; 100 when none does
	state      string    // vmProtectionState
	stateWords string
	group      string // Enabled when the machine shares its points with others
}

func standingOf(v control.ItemView) standing {
	s := standing{percent: 100, state: v.Projection.ProtectionState, stateWords: v.Projection.ProtectionStateDescription, group: "Disabled"}
	if v.RPOValid {
		s.rpo, s.rpoAt = ptr(int64(v.RPO/time.Second)), v.RPOAt
	}
	if v.LatestPoint != nil {
		s.newest = v.LatestPoint.Time
	}
	initial, resync := progressOf(v)
	switch {
	case initial.running:
		s.percent = int32(v.InitialPercent)
	case resync.running:
		s.percent = int32(v.ResyncPercent)
	}
	if v.Item.MultiVMGroup != "" {
		s.group = "Enabled"
	}
	return s
}

// percentOf is how far the pass over one disk is.
func (s standing) percentOf(p dr.DiskProgress) *int32 {
	if s.percent == 100 {
		return ptr(s.percent)
	}
	return ptr(int32(p.ProgressPercent))
}

func classicDetails(v control.ItemView) oas.InMageAzureV2ReplicationDetails {
	i, o, s, com := v.Item, v.Observed, standingOf(v), common(v.Item)
	in, up := read[oas.InMageAzureV2EnableProtectionInput](i.EnableInput), read[oas.InMageAzureV2UpdateReplicationProtectedItemInput](i.UpdateInput)
	d := oas.InMageAzureV2ReplicationDetails{InstanceType: string(dr.ProviderInMageAzureV2), InfrastructureVmId: i.ProtectableItem, VmId: i.ActiveUUID, ReplicaId: string(i.ID), MultiVmGroupName: i.MultiVMGroup,
		MultiVmGroupId: in.MultiVmGroupId, MultiVmSyncStatus: s.group, ProtectionStage: s.stateWords, VmProtectionState: s.state, VmProtectionStateDescription: s.stateWords,
		ResyncProgressPercentage: ptr(s.percent), RpoInSeconds: s.rpo, LastRpoCalculatedTime: s.rpoAt, LastRecoveryPointReceived: s.newest, LastHeartbeat: o.LastHeartbeat, LastUpdateReceivedTime: o.LastHeartbeat,
		AgentVersion: o.AgentVersion, IsAgentUpdateRequired: "false", IsRebootAfterUpdateRequired: "false", DiskResized: "false", IsAdditionalStatsAvailable: ptr(true),
		OsType: i.Hardware.OSType, OsName: i.Hardware.OSName, FirmwareType: i.Hardware.Firmware, SourceVmCpuCount: ptr(int32(i.Hardware.CPUs)), SourceVmRamSizeInMB: ptr(int32(i.Hardware.MemoryBytes >> 20)),
		DiscoveryType: "vCenter", MasterTargetId: in.MasterTargetId, RecoveryAzureVMName: i.TargetName, RecoveryAzureVMSize: pick(com.RecoveryAzureVMSize, in.TargetVmSize),
		RecoveryAzureResourceGroupId: pick(up.RecoveryAzureV2ResourceGroupId, up.RecoveryAzureV1ResourceGroupId, in.TargetAzureV2ResourceGroupId, in.TargetAzureV1ResourceGroupId),
		RecoveryAzureStorageAccount:  in.StorageAccountId, RecoveryAzureLogStorageAccountId: in.LogStorageAccountId, RecoveryAvailabilitySetId: pick(com.RecoveryAvailabilitySetId, in.TargetAvailabilitySetId),
		SelectedRecoveryAzureNetworkId: i.TargetNetwork, SelectedTfoAzureNetworkId: i.TestNetwork, SelectedSourceNicId: com.SelectedSourceNicId,
		EnableRdpOnTargetOption: pick(com.EnableRdpOnTargetOption, in.EnableRdpOnTargetOption, "Never"), LicenseType: pick(com.LicenseType, string(in.LicenseType)),
		SqlServerLicenseType: pick(string(up.SqlServerLicenseType), string(in.SqlServerLicenseType)), TargetAvailabilityZone: pick(up.TargetAvailabilityZone, in.TargetAvailabilityZone),
		TargetProximityPlacementGroupId: pick(up.TargetProximityPlacementGroupId, in.TargetProximityPlacementGroupId), UseManagedDisks: pick(up.UseManagedDisks, "true"),
		TargetVmTags: tags(up.TargetVmTags, in.TargetVmTags), TargetManagedDiskTags: tags(up.TargetManagedDiskTags, in.TargetManagedDiskTags), TargetNicTags: tags(up.TargetNicTags, in.TargetNicTags),
		SeedManagedDiskTags: in.SeedManagedDiskTags, OsDiskId: osDisk(i), Datastores: []string{}, ValidationErrors: []oas.HealthError{}, SwitchProviderBlockingErrorDetails: []oas.RcmErrorDetails{},
		AllAvailableOSUpgradeConfigurations: []oas.OSUpgradeSupportedVersions{}, SupportedOSVersions: []string{}, VmNics: nics(v),
		ProtectedDisks: []oas.InMageAzureV2ProtectedDiskDetails{}, ProtectedManagedDisks: []oas.InMageAzureV2ManagedDiskDetails{}, AzureVMDiskDetails: []oas.AzureVMDiskDetails{}}
	if i.Physical {
		d.DiscoveryType = "physical"
	}
	if v.Agent != nil {
		d.IpAddress = firstOf(v.Agent.Machine.IPAddresses)
	}
	if ps := v.ProcessServer; ps != nil {
		d.ProcessServerId, d.ProcessServerName = ps.ID, ps.Hostname
	}
	if i.FailoverInstance != nil {
		d.TargetVmId = i.FailoverInstance.ID
	}
	for n, k := range i.Disks {
		progress, name := diskProgress(v, k.ID)
		d.ProtectedDisks = append(d.ProtectedDisks, oas.InMageAzureV2ProtectedDiskDetails{DiskId: k.ID, DiskName: name, DiskCapacityInBytes: ptr(k.SizeBytes), ProtectionStage: s.stateWords,
			ResyncRequired: boolText(i.State.Resync), ResyncProgressPercentage: s.percentOf(progress), ResyncProcessedBytes: ptr(progress.ProcessedBytes),
			ResyncTotalTransferredBytes: ptr(progress.TransferredBytes), RpoInSeconds: s.rpo, LastRpoCalculatedTime: s.rpoAt, DiskResized: "false", ProgressHealth: "None"})
		disk := azureDisk(n, k, name)
		disk.DiskId, disk.VhdId = k.ID, ""
		for _, wish := range up.VmDisks {
			if wish.DiskId == k.ID {
				disk.TargetDiskName, disk.CustomTargetDiskName = wish.TargetDiskName, wish.TargetDiskName
			}
		}
		d.AzureVMDiskDetails = append(d.AzureVMDiskDetails, disk)
		managed := oas.InMageAzureV2ManagedDiskDetails{DiskId: k.ID, TargetDiskName: disk.TargetDiskName, ReplicaDiskType: string(in.DiskType), DiskEncryptionSetId: in.DiskEncryptionSetId}
		for _, asked := range in.DisksToInclude {
			if asked.DiskId == k.ID {
				managed.ReplicaDiskType, managed.DiskEncryptionSetId = string(asked.DiskType), asked.DiskEncryptionSetId
			}
		}
		d.ProtectedManagedDisks = append(d.ProtectedManagedDisks, managed)
	}
	return d
}

// azureDisk is a disk of the started machine. Numbers are text there.
func azureDisk(n int, k dr.Disk, name string) oas.AzureVMDiskDetails {
	return oas.AzureVMDiskDetails{VhdId: k.ID, VhdName: name, VhdType: diskKind(k), MaxSizeMB: strconv.FormatInt(k.SizeBytes>>20, 10), LunId: strconv.Itoa(n)}
}

// tags are the last ones asked for.
func tags(latest, first map[string]string) map[string]string {
	if latest != nil {
		return latest
	}
	return first
}

// scoutDetails shows a leg of provider InMage: the classic way home, or replication to a secondary site.
func scoutDetails(v control.ItemView) oas.InMageReplicationDetails {
	i, o, s := v.Item, v.Observed, standingOf(v)
	in, back := read[oas.InMageEnableProtectionInput](i.EnableInput), read[oas.InMageReprotectInput](i.ReprotectInput)
	d := oas.InMageReplicationDetails{InstanceType: string(dr.ProviderInMage), ActiveSiteType: activeSite(i.State), InfrastructureVmId: i.ProtectableItem, VmId: i.ActiveUUID, ReplicaId: string(i.ID),
		MultiVmGroupName: i.MultiVMGroup, MultiVmGroupId: in.MultiVmGroupId, MultiVmSyncStatus: s.group, ProtectionStage: s.stateWords, VmProtectionState: s.state, VmProtectionStateDescription: s.stateWords,
		RpoInSeconds: s.rpo, LastRpoCalculatedTime: s.rpoAt, LastHeartbeat: o.LastHeartbeat, LastUpdateReceivedTime: o.LastHeartbeat, RetentionWindowEnd: s.newest, DiskResized: "false",
		IsAdditionalStatsAvailable: ptr(true), AgentDetails: oas.InMageAgentDetails{AgentVersion: o.AgentVersion, AgentUpdateStatus: "NotRequired", PostUpdateRebootStatus: "false"},
		RebootAfterUpdateStatus: "NotRequired", OsDetails: oas.OSDiskDetails{OsType: i.Hardware.OSType, OsVhdId: osDisk(i)}, DiscoveryType: "vCenter", MasterTargetId: pick(i.ReprotectAgent, back.MasterTargetId, in.MasterTargetId),
		SourceVmCpuCount: ptr(int32(i.Hardware.CPUs)), SourceVmRamSizeInMB: ptr(int32(i.Hardware.MemoryBytes >> 20)),
		ResyncDetails: oas.InitialReplicationDetails{InitialReplicationType: "OverNetwork", InitialReplicationProgressPercentage: strconv.Itoa(int(s.percent))},
		Datastores:    []string{}, ValidationErrors: []oas.HealthError{}, VmNics: nics(v), ProtectedDisks: []oas.InMageProtectedDiskDetails{}}
	if i.Physical {
		d.DiscoveryType = "physical"
	}
	if store := pick(i.Datastore, back.DatastoreName, in.DatastoreName); store != "" {
		d.Datastores = append(d.Datastores, store)
	}
	if v.Agent != nil {
		d.IpAddress = firstOf(v.Agent.Machine.IPAddresses)
	}
	if ps := v.ProcessServer; ps != nil {
		d.ProcessServerId = ps.ID
	}
	for _, k := range i.Disks {
		progress, name := diskProgress(v, k.ID)
		d.ProtectedDisks = append(d.ProtectedDisks, oas.InMageProtectedDiskDetails{DiskId: k.ID, DiskName: name, DiskCapacityInBytes: ptr(k.SizeBytes), ProtectionStage: s.stateWords,
			ResyncRequired: boolText(i.State.Resync), ResyncProgressPercentage: s.percentOf(progress), ResyncProcessedBytes: ptr(progress.ProcessedBytes),
			ResyncTotalTransferredBytes: ptr(progress.TransferredBytes), RpoInSeconds: s.rpo, LastRpoCalculatedTime: s.rpoAt, DiskResized: "false", ProgressHealth: "None"})
	}
	return d
}

// activeSite tells where the machine runs: between two sites of one's own it is on premises either way.
func activeSite(s dr.State) string {
	if s.Leg == dr.LegInMageFailback && !dr.FailedOver(s.Phase) {
		return "Azure"
	}
	return "OnPrem"
}
