package api

import (
	"encoding/json"
	"slices"
	"strings"
	"time"

	"github.com/lifeboat-dr/lifeboat/api/oas"
	"github.com/lifeboat-dr/lifeboat/service/control"
	"github.com/lifeboat-dr/lifeboat/service/dr"
)

// idleSince is the start of "no scenario" (ref 1, well-known identifiers).
var idleSince = time.Date(1753, 1, 1, 1, 1, 1, 0, time.UTC)

func itemBody(c *scope, v control.ItemView) oas.ReplicationProtectedItem {
	i, p := v.Item, v.Projection
	id := c.item(i)
	home, homeContainer := c.fabric(i.Fabric), c.container(i.Fabric, i.Container)
	props := oas.ReplicationProtectedItemProperties{
		FriendlyName: i.FriendlyName, PrimaryFabricFriendlyName: i.Fabric, PrimaryFabricProvider: fabricProvider(v.Fabric.Kind),
		RecoveryFabricFriendlyName: azure, RecoveryFabricId: azure, PrimaryProtectionContainerFriendlyName: v.Container.FriendlyName,
		RecoveryProtectionContainerFriendlyName: azure, RecoveryContainerId: c.container(azureFabric, azureContainer),
		ProtectionState: p.ProtectionState, ProtectionStateDescription: p.ProtectionStateDescription, ActiveLocation: p.ActiveLocation,
		TestFailoverState: p.TestFailoverState, TestFailoverStateDescription: p.TestFailoverStateDescription, AllowedOperations: orEmpty(p.AllowedOperations),
		ReplicationHealth: v.Health, FailoverHealth: v.FailoverHealth, HealthErrors: healthErrors(v.HealthErrors),
		LastSuccessfulFailoverTime: i.LastFailover, LastSuccessfulTestFailoverTime: i.LastTestFailover, CurrentScenario: scenario(c, i.CurrentScenario),
		EventCorrelationId: i.CorrelationID, ProviderSpecificDetails: itemDetails(c, v)}
	if i.RecoveryContainer != "" {
		props.RecoveryFabricFriendlyName, props.RecoveryFabricId = i.RecoveryFabric, c.fabric(i.RecoveryFabric)
		props.RecoveryProtectionContainerFriendlyName, props.RecoveryContainerId = v.TargetContainer.FriendlyName, c.container(i.RecoveryFabric, i.RecoveryContainer)
	}
	switch p.Provider {
	case dr.ProviderHyperVReplicaAzure, dr.ProviderHyperVReplica2012, dr.ProviderHyperVReplica2012R2:
		props.ProtectedItemType = "HyperVVirtualMachine"
	case dr.ProviderInMageRcmFailback:
		// On the way home the primary side is this server's (ref 6.7).
		props.PrimaryFabricFriendlyName, props.PrimaryFabricProvider, props.PrimaryProtectionContainerFriendlyName = azure, "AzureFabric", azure
		props.RecoveryFabricFriendlyName, props.RecoveryFabricId = i.Fabric, home
		props.RecoveryProtectionContainerFriendlyName, props.RecoveryContainerId = v.Container.FriendlyName, homeContainer
	}
	if i.PolicyName != "" {
		props.PolicyId, props.PolicyFriendlyName = c.policy(i.PolicyName), i.PolicyName
	}
	if i.ProtectableItem != "" {
		props.ProtectableItemId = c.protectable(i.Fabric, i.Container, i.ProtectableItem)
	}
	if v.FailoverPointID != "" {
		props.FailoverRecoveryPointId = c.point(id, v.FailoverPointID)
	}
	return oas.ReplicationProtectedItem{Id: id, Name: i.Name, Type: typeItem, Properties: props}
}

func fabricProvider(k dr.FabricKind) string {
	switch k {
	case dr.FabricInMageRcm:
		return "InMageRcmFabric"
	case dr.FabricAzure:
		return "AzureFabric"
	}
	return string(k)
}

func scenario(c *scope, s dr.Scenario) oas.CurrentScenarioDetails {
	if s.Name == "" {
		return oas.CurrentScenarioDetails{ScenarioName: "None", JobId: c.job("None"), StartTime: idleSince}
	}
	return oas.CurrentScenarioDetails{ScenarioName: s.Name, JobId: c.job(s.JobID), StartTime: s.Started}
}

func itemDetails(c *scope, v control.ItemView) (out oas.ReplicationProviderSpecificSettings) {
	switch v.Projection.Provider {
	case dr.ProviderInMageRcm:
		must(out.FromInMageRcmReplicationDetails(rcmDetails(c, v)))
	case dr.ProviderInMageRcmFailback:
		must(out.FromInMageRcmFailbackReplicationDetails(failbackDetails(c, v)))
	case dr.ProviderInMageAzureV2:
		must(out.FromInMageAzureV2ReplicationDetails(classicDetails(v)))
	case dr.ProviderInMage:
		must(out.FromInMageReplicationDetails(scoutDetails(v)))
	case dr.ProviderHyperVReplicaAzure:
		must(out.FromHyperVReplicaAzureReplicationDetails(hyperVAzureDetails(v)))
	case dr.ProviderHyperVReplica2012, dr.ProviderHyperVReplica2012R2:
		must(out.FromHyperVReplicaReplicationDetails(hyperVDetails(v)))
	case dr.ProviderA2A:
		must(out.FromA2AReplicationDetails(regionDetails(v)))
	}
	return out
}

// settings are what the user asked for, the updates over the enable request.
func settings(i dr.Item) oas.InMageRcmEnableProtectionInput {
	return read[oas.InMageRcmEnableProtectionInput](i.EnableInput, i.UpdateInput)
}

func rcmDetails(c *scope, v control.ItemView) oas.InMageRcmReplicationDetails {
	i, o, set := v.Item, v.Observed, settings(v.Item)
	initial, resync := progressOf(v)
	d := oas.InMageRcmReplicationDetails{InstanceType: string(dr.ProviderInMageRcm), InternalIdentifier: i.InternalID, MultiVmGroupName: i.MultiVMGroup,
		DiscoveryType: "vm", OsType: i.Hardware.OSType, OsName: i.Hardware.OSName, FirmwareType: i.Hardware.Firmware, ProcessorCoreCount: ptr(int32(i.Hardware.CPUs)),
		AllocatedMemoryInMB: ptr(float64(i.Hardware.MemoryBytes) / (1 << 20)), RunAsAccountId: set.RunAsAccountId,
		LicenseType: string(set.LicenseType), LinuxLicenseType: string(set.LinuxLicenseType), SqlServerLicenseType: string(set.SqlServerLicenseType), SupportedOSVersions: []string{},
		TargetVmName: i.TargetName, TargetVmSize: set.TargetVmSize, TargetResourceGroupId: set.TargetResourceGroupId, TargetAvailabilitySetId: set.TargetAvailabilitySetId,
		TargetAvailabilityZone: set.TargetAvailabilityZone, TargetProximityPlacementGroupId: set.TargetProximityPlacementGroupId,
		TargetBootDiagnosticsStorageAccountId: set.TargetBootDiagnosticsStorageAccountId, TargetNetworkId: set.TargetNetworkId, TestNetworkId: set.TestNetworkId,
		TargetVmTags: set.TargetVmTags, SeedManagedDiskTags: set.SeedManagedDiskTags, TargetManagedDiskTags: set.TargetManagedDiskTags, TargetNicTags: set.TargetNicTags,
		TargetVmSecurityProfile: set.TargetVmSecurityProfile, ResyncRequired: boolText(i.State.Resync), AgentUpgradeState: "None",
		InitialReplicationProgressPercentage: ptr(int32(v.InitialPercent)), InitialReplicationProcessedBytes: ptr(initial.processed),
		InitialReplicationTransferredBytes: ptr(initial.transferred), InitialReplicationProgressHealth: initial.health,
		ResyncProgressPercentage: ptr(int32(v.ResyncPercent)), ResyncProcessedBytes: ptr(resync.processed), ResyncTransferredBytes: ptr(resync.transferred),
		ResyncProgressHealth: resync.health, ResyncState: resync.state, LastAgentUpgradeErrorDetails: []oas.RcmErrorDetails{}, AgentUpgradeBlockingErrorDetails: []oas.RcmErrorDetails{},
		IsAgentRegistrationSuccessfulAfterFailover: ptr(registeredAfterFailover(v)),
		ProtectedDisks: []oas.InMageRcmProtectedDiskDetails{}, UnprotectedDisks: []oas.InMageRcmUnProtectedDiskDetails{}, VmNics: []oas.InMageRcmNicDetails{}}
	if i.Physical {
		d.DiscoveryType = "physical"
	}
	if i.ProtectableItem != "" {
		d.FabricDiscoveryMachineId = c.protectable(i.Fabric, i.Container, i.ProtectableItem)
	}
	if ps := v.ProcessServer; ps != nil {
		d.ProcessServerId, d.ProcessServerName = ps.ID, ps.Hostname
	}
	if v.FailoverPointID != "" {
		d.FailoverRecoveryPointId = c.point(c.item(i), v.FailoverPointID)
	}
	if p := v.LatestPoint; p != nil {
		d.LastRecoveryPointId, d.LastRecoveryPointReceived = c.point(c.item(i), p.ID), p.Time
	}
	if v.RPOValid {
		d.LastRpoInSeconds, d.LastRpoCalculatedTime = ptr(int64(v.RPO/time.Second)), v.RPOAt
	}
	d.MobilityAgentDetails = oas.InMageRcmMobilityAgentDetails{Version: o.AgentVersion, LatestVersion: o.AgentVersion, LastHeartbeatUtc: o.LastHeartbeat,
		IsUpgradeable: "false", ReasonsBlockingUpgrade: []string{"AlreadyOnLatestVersion"}}
	for _, k := range i.Disks {
		progress, name := diskProgress(v, k.ID)
		asked := diskInput(set, k)
		disk := oas.InMageRcmProtectedDiskDetails{DiskId: k.ID, DiskName: name, IsOSDisk: boolText(k.IsOSDisk), CapacityInBytes: ptr(k.SizeBytes), DiskState: "Protected",
			IsInitialReplicationComplete: boolText(!initial.running && !k.Seeding), DiskType: string(asked.DiskType), LogStorageAccountId: asked.LogStorageAccountId}
		if initial.running || k.Seeding {
			disk.DiskState = "InitialReplicationPending"
			disk.IrDetails = syncDetails(o, progress)
		} else if i.State.Resync {
			disk.ResyncDetails = syncDetails(o, progress)
		}
		d.ProtectedDisks = append(d.ProtectedDisks, disk)
	}
	for _, k := range v.UnprotectedDisks {
		d.UnprotectedDisks = append(d.UnprotectedDisks, oas.InMageRcmUnProtectedDiskDetails{DiskId: k.ID, DiskName: k.Path, CapacityInBytes: ptr(k.SizeBytes)})
	}
	if a := v.Agent; a != nil {
		d.PrimaryNicIpAddress = firstOf(a.Machine.IPAddresses)
		for n, nic := range a.Machine.NICs {
			d.VmNics = append(d.VmNics, oas.InMageRcmNicDetails{NicId: nic.MAC, IsPrimaryNic: boolText(n == 0), IsSelectedForFailover: "true",
				SourceIPAddress: firstOf(nic.IPAddresses), SourceIPAddressType: "Dynamic", TargetIPAddressType: "Dynamic", TestIPAddressType: "Dynamic"})
		}
	}
	return d
}

func failbackDetails(c *scope, v control.ItemView) oas.InMageRcmFailbackReplicationDetails {
	i, o := v.Item, v.Observed
	initial, resync := progressOf(v)
	var in oas.InMageRcmReprotectInput
	_ = json.Unmarshal(i.ReprotectInput, &in) // was validated when it came in
	d := oas.InMageRcmFailbackReplicationDetails{InstanceType: string(dr.ProviderInMageRcmFailback), InternalIdentifier: i.InternalID, MultiVmGroupName: i.MultiVMGroup,
		ReprotectAgentId: i.ReprotectAgent, ReprotectAgentName: i.ReprotectAgent, OsType: i.Hardware.OSType, LogStorageAccountId: in.LogStorageAccountId,
		TargetDataStoreName: i.Datastore, TargetVmName: i.FriendlyName, LastPlannedFailoverStartTime: i.PlannedFailoverStarted,
		LastPlannedFailoverStatus: i.PlannedFailoverStatus, ResyncRequired: boolText(i.State.Resync),
		InitialReplicationProgressPercentage: ptr(int32(v.InitialPercent)), InitialReplicationProcessedBytes: ptr(initial.processed),
		InitialReplicationTransferredBytes: ptr(initial.transferred), InitialReplicationProgressHealth: initial.health,
		ResyncProgressPercentage: ptr(int32(v.ResyncPercent)), ResyncProcessedBytes: ptr(resync.processed), ResyncTransferredBytes: ptr(resync.transferred),
		ResyncProgressHealth: resync.health, ResyncState: resync.state, IsAgentRegistrationSuccessfulAfterFailover: ptr(registeredAfterFailover(v)),
		ProtectedDisks: []oas.InMageRcmFailbackProtectedDiskDetails{}, VmNics: []oas.InMageRcmFailbackNicDetails{},
		MobilityAgentDetails: oas.InMageRcmFailbackMobilityAgentDetails{Version: o.AgentVersion, LatestVersion: o.AgentVersion, LastHeartbeatUtc: o.LastHeartbeat,
			IsUpgradeable: "false", ReasonsBlockingUpgrade: []string{"AlreadyOnLatestVersion"}}}
	if i.PolicyName != "" {
		d.LastUsedPolicyId, d.LastUsedPolicyFriendlyName = c.policy(i.PolicyName), i.PolicyName
	}
	if i.FailoverInstance != nil {
		d.AzureVirtualMachineId = i.FailoverInstance.ID
	}
	for _, k := range i.Disks {
		progress, name := diskProgress(v, k.ID)
		disk := oas.InMageRcmFailbackProtectedDiskDetails{DiskId: k.ID, DiskName: name, IsOSDisk: boolText(k.IsOSDisk), CapacityInBytes: ptr(k.SizeBytes),
			IsInitialReplicationComplete: boolText(!initial.running)}
		if initial.running {
			disk.IrDetails = oas.InMageRcmFailbackSyncDetails(syncDetails(o, progress))
		} else if i.State.Resync {
			disk.ResyncDetails = oas.InMageRcmFailbackSyncDetails(syncDetails(o, progress))
		}
		if p := v.LatestPoint; p != nil {
			disk.LastSyncTime = p.Time
		}
		d.ProtectedDisks = append(d.ProtectedDisks, disk)
	}
	if a := v.Agent; a != nil {
		for _, nic := range a.Machine.NICs {
			d.VmNics = append(d.VmNics, oas.InMageRcmFailbackNicDetails{MacAddress: nic.MAC, NetworkName: nic.Name, SourceIpAddress: firstOf(nic.IPAddresses)})
		}
	}
	return d
}

// pass is the first copy or a comparison, as far as it is.
type pass struct {
	running                bool
	processed, transferred int64
	health, state          string
}

// progressOf splits what the agent reports into the two counters of the wire: the bytes belong to the pass that runs.
func progressOf(v control.ItemView) (initial, resync pass) {
	initial, resync = pass{health: "None", state: "None"}, pass{health: "None", state: "None"}
	running := pass{running: true, processed: v.Observed.ProcessedBytes, transferred: v.Observed.TransferredBytes, health: "InProgress", state: "StartedResynchronization"}
	switch {
	case slices.Contains([]dr.Phase{dr.PhaseEnabling, dr.PhaseInitialReplication, dr.PhaseFirstPointPending}, v.Item.State.Phase):
		initial = running
	case v.Item.State.Resync:
		resync = running
	}
	return initial, resync
}

func registeredAfterFailover(v control.ItemView) bool {
	f := v.Item.FailoverInstance
	return f != nil && v.Agent != nil && strings.EqualFold(v.Agent.Machine.ProductUUID, f.UUID)
}

func diskProgress(v control.ItemView, id string) (p dr.DiskProgress, name string) {
	name = id
	for _, d := range v.Observed.Disks {
		if d.ID == id {
			p = d
		}
	}
	if v.Agent != nil {
		for _, d := range v.Agent.Machine.Disks {
			if d.ID == id && d.Path != "" {
				name = d.Path
			}
		}
	}
	return p, name
}

func syncDetails(o dr.Observed, p dr.DiskProgress) oas.InMageRcmSyncDetails {
	out := oas.InMageRcmSyncDetails{ProgressHealth: "InProgress", ProgressPercentage: ptr(int32(p.ProgressPercent)), ProcessedBytes: ptr(p.ProcessedBytes), TransferredBytes: ptr(p.TransferredBytes)}
	if !o.LastHeartbeat.IsZero() {
		out.LastRefreshTime = o.LastHeartbeat.UTC().Format(time.RFC3339)
	}
	return out
}

// diskInput is what was asked for one disk: when it was added, or when protection was enabled, by name or for all.
func diskInput(set oas.InMageRcmEnableProtectionInput, k dr.Disk) oas.InMageRcmDiskInput {
	if k.Input != nil {
		return read[oas.InMageRcmDiskInput](k.Input)
	}
	for _, d := range set.DisksToInclude {
		if d.DiskId == k.ID {
			return d
		}
	}
	return oas.InMageRcmDiskInput{DiskType: set.DisksDefault.DiskType, LogStorageAccountId: set.DisksDefault.LogStorageAccountId}
}

func firstOf(v []string) string {
	if len(v) == 0 {
		return ""
	}
	return v[0]
}
