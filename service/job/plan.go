package job

// A Step is a task of a plan.
type Step struct {
	ID           string // taskId on the wire
	Name         string
	FriendlyName string
	Kind         string // a worker's kind; empty: done by the control plane
}

// A Plan is what a job consists of. Its steps run in order, one at a time.
type Plan struct {
	Name         string
	Scenario     Scenario
	FriendlyName string
	Steps        []Step
	// Undo is the plan that restores what a failed job of this plan changed; empty: nothing to restore.
	Undo string
	// Ready and Boot are the steps that a recovery plan holds a machine before, so that all machines are stopped before the
	// first is prepared, and all are prepared before the first is started; empty: the plan does not divide there.
	Ready, Boot string
	// Release is the plan of the internal job that gives back what a job of this plan holds, however that one ended; empty: it
	// holds nothing.
	Release string
}

// Names of plans. Scenario names and tasks are those the field's clients know (ref 10.2) where it has any.
const (
	PlanEnable            = "enable"
	PlanTestFailover      = "testFailover"
	PlanTestCleanup       = "testFailoverCleanup"
	PlanUndoTestFailover  = "undoTestFailover"
	PlanUnplannedFailover = "unplannedFailover"
	PlanUndoUnplanned     = "undoUnplannedFailover"
	PlanPlannedFailover   = "plannedFailover"
	PlanPlannedFromHost   = "plannedFailoverFromHost"
	PlanCancelFailover    = "cancelFailover"
	PlanApplyPoint        = "applyRecoveryPoint"
	PlanCommit            = "commit"
	PlanCommitFailback    = "commitFailback"
	PlanReprotect         = "reprotect"
	PlanReprotectForward  = "reprotectForward"
	PlanRepair            = "repair"
	PlanAddDisks          = "addDisks"
	PlanRemoveDisks       = "removeDisks"
	PlanRemove            = "remove"
	PlanPurge             = "purge"
	PlanPrune             = "prune"
	PlanCheckConsistency  = "checkConsistency"
	PlanCapture           = "captureNow"
	PlanVerifyPoint       = "verifyPoint"
	PlanExportPoint       = "exportPoint"
	PlanReleasePoint      = "releasePoint"
	PlanReissueKey        = "reissueRecoveryKey"

	PlanRecoveryTestFailover      = "recoveryPlanTestFailover"
	PlanRecoveryTestCleanup       = "recoveryPlanTestFailoverCleanup"
	PlanRecoveryPlannedFailover   = "recoveryPlanPlannedFailover"
	PlanRecoveryUnplannedFailover = "recoveryPlanUnplannedFailover"
	PlanRecoveryCommit            = "recoveryPlanCommit"
	PlanRecoveryCancel            = "recoveryPlanCancelFailover"
	PlanRecoveryReprotect         = "recoveryPlanReprotect"
	PlanCreateRecoveryPlan        = "createRecoveryPlan"
	PlanUpdateRecoveryPlan        = "updateRecoveryPlan"
	PlanDeleteRecoveryPlan        = "deleteRecoveryPlan"

	PlanUpdateItem       = "updateItem"
	PlanFinalize         = "finalizeProtection"
	PlanCreateFabric     = "createFabric"
	PlanRemoveFabric     = "removeFabric"
	PlanRegisterProvider = "registerProvider"
	PlanRemoveProvider   = "removeProvider"
	PlanRefreshProvider  = "refreshProvider"
	PlanDiscover         = "discover"
	PlanCreatePolicy     = "createPolicy"
	PlanUpdatePolicy     = "updatePolicy"
	PlanDeletePolicy     = "deletePolicy"
	PlanCreateMapping    = "createMapping"
	PlanUpdateMapping    = "updateMapping"
	PlanRemoveMapping    = "removeMapping"
	PlanRefreshHealth    = "refreshVaultHealth"
	PlanExportJobs       = "exportJobs"
	PlanUpdateAppliance  = "updateAppliance"
	PlanResolveHealth    = "resolveHealthErrors"
	PlanReassociate      = "reassociateGateway"
	PlanRenewCertificate = "renewCertificate"
	PlanCreateContainer  = "createContainer"
	PlanRemoveContainer  = "removeContainer"
	PlanAddVCenter       = "addVCenter"
	PlanUpdateVCenter    = "updateVCenter"
	PlanDeleteVCenter    = "deleteVCenter"
	PlanMapNetwork       = "mapNetwork"
	PlanRemapNetwork     = "remapNetwork"
	PlanUnmapNetwork     = "unmapNetwork"
	PlanMapStorage       = "mapStorage"
	PlanUnmapStorage     = "unmapStorage"
)

// Ids of steps that code refers to.
const (
	StepPreflight       = "PreflightChecksTask"
	StepOpenGeneration  = "OpenGenerationTask"
	StepConfigure       = "ConfigureReplicationTask"
	StepPin             = "PinPointTask"
	StepUnpin           = "ReleasePointTask"
	StepPrepareTest     = "PrepareTestProtectedEntitiesTask"
	StepBootTest        = "BootTestProtectedEntitiesTask"
	StepEndTest         = "EndTestFailoverTask"
	StepCleanupTest     = "CleanupTestProtectedEntitiesTask"
	StepSyncSource      = "SynchronizeSourceTask"
	StepShutdownSource  = "ShutdownSourceTask"
	StepFence           = "FenceSourceTask"
	StepChoosePoint     = "PrepareForFailoverTask"
	StepStartReplica    = "StartVmOnSecondary"
	StepDestroyReplica  = "DeleteReplicaTask"
	StepLastDelta       = "PrepareForFailoverTask"
	StepStopSource      = "FailoverTask"
	StepCapture         = "FinalCaptureTask"
	StepStopHome        = "StopProtectedEntitiesTask"
	StepWriteback       = "PrepareProtectedEntitiesTask"
	StepStartHome       = "StartVmOnSecondary"
	StepCommit          = "CommitFailoverTask"
	StepWaitHydrated    = "WaitForHydrationTask"
	StepDiscoverReplica = "DiscoverReplicaTask"
	StepProtectReplica  = "ProtectReplicaTask"
	StepResume          = "ResumeReplicationTask"
	StepDeleteData      = "DeleteReplicationDataTask"
	StepFinish          = "FinishTask"
	StepPrune           = "PruneRecoveryPointsTask"
	StepReport          = "ReportRecoveryPointsTask"
	StepCaptureNow      = "CaptureRecoveryPointTask"
	StepVerify          = "VerifyRecoveryPointTask"
	StepVerdict         = "VerificationVerdictTask"
	StepExport          = "ExportRecoveryPointTask"
	StepWriteVaultFile  = "WriteVaultFileTask"
)

func step(id, name, friendly, kind string) Step { return Step{id, name, friendly, kind} }

// Plans is the table of all plans.
var Plans = append([]Plan{
	{Name: PlanEnable, Scenario: "EnableProtection", FriendlyName: "Enable replication", Steps: []Step{
		step(StepPreflight, "VmEnablePrerequisitesCheck", "Prerequisites check for enabling replication", ""),
		step(StepOpenGeneration, "VmPrepareReplication", "Preparing replication", KindGenerationOpen),
		step(StepConfigure, "VmConfigureReplication", "Configuring replication on the machine", ""),
	}},
	{Name: PlanTestFailover, Scenario: "TestFailover", FriendlyName: "Test failover", Undo: PlanUndoTestFailover, Boot: StepBootTest, Steps: []Step{
		step("TestFailoverPreflightChecksTask", "VmTfoPrerequisitesCheck", "Prerequisites check for test failover", ""),
		step("BeginTestFailoverTask", "VmTfoInitiateFailover", "Creating test environment", KindPointPin),
		step(StepPrepareTest, "VmTfoPrepareTestVm", "Preparing the test virtual machine", ""),
		step(StepBootTest, "VmTfoBootTestVm", "Starting the test virtual machine", KindInstanceStart),
	}},
	{Name: PlanTestCleanup, Scenario: "TestFailoverCleanup", FriendlyName: "Test failover cleanup", Steps: []Step{
		step("TestFailoverCleanupPreflightChecksTask", "VmTfoCleanupPreflightsCheck", "Prerequisites check for test failover cleanup", ""),
		step(StepEndTest, "VmTfoEndFailover", "Cleaning up the test virtual machine", KindInstanceDestroy),
		step(StepCleanupTest, "VmTfoDeleteTestVm", "Releasing the recovery point", KindPointUnpin),
	}},
	{Name: PlanUndoTestFailover, Scenario: "TestFailoverCleanup", FriendlyName: "Test failover cleanup", Steps: []Step{
		step(StepEndTest, "VmTfoEndFailover", "Cleaning up the test virtual machine", KindInstanceDestroy),
		step(StepCleanupTest, "VmTfoDeleteTestVm", "Releasing the recovery point", KindPointUnpin),
	}},
	{Name: PlanUnplannedFailover, Scenario: "UnplannedFailover", FriendlyName: "Failover", Undo: PlanUndoUnplanned, Ready: StepFence, Boot: StepStartReplica, Steps: []Step{
		step("UnplannedFailoverPreflightChecksTask", "VmUfoPrerequisitesCheck", "Prerequisites check for failover", ""),
		step(StepSyncSource, "VmFoSynchronizeSource", "Synchronizing the latest changes of the source", ""),
		step(StepShutdownSource, "VmFoShutdownSource", "Shutting down the source virtual machine", KindHomeStop),
		step(StepCapture, "VmFoFinalCapture", "Capturing the stopped disks", KindHomeCapture),
		step(StepFence, "VmFoFenceSource", "Fencing the source", KindGenerationClose),
		step(StepChoosePoint, "VmPrepareForFailover", "Choosing the recovery point", ""),
		step(StepPin, "VmFoHoldPoint", "Holding the recovery point", KindPointPin),
		step(StepStartReplica, "VmFoStartVmOnSecondary", "Starting the virtual machine", KindInstanceStart),
	}},
	{Name: PlanUndoUnplanned, Scenario: "CancelFailover", FriendlyName: "Cancel failover", Steps: []Step{
		step(StepDestroyReplica, "VmCancelDeleteReplica", "Deleting the replica virtual machine", KindInstanceDestroy),
		step(StepUnpin, "VmCancelReleasePoint", "Releasing the recovery point", KindPointUnpin),
		step(StepFence, "VmCancelCloseLog", "Making sure that the recovery point log is closed", KindGenerationClose),
		step(StepOpenGeneration, "VmCancelReopenReplication", "Opening the recovery point log again", KindGenerationOpen),
		step(StepResume, "VmCancelResumeReplication", "Resuming replication", ""),
	}},
	{Name: PlanPlannedFailover, Scenario: "PlannedFailover", FriendlyName: "Planned failover", Undo: PlanCancelFailover, Ready: StepCapture, Boot: StepStartHome, Steps: []Step{
		step("PlannedFailoverPreflightChecksTask", "VmPfoPrerequisitesCheck", "Prerequisites check for planned failover", ""),
		step(StepLastDelta, "VmPrepareForFailover", "Sending recent changes", ""),
		step(StepStopSource, "VmFailover", "Shutting down the virtual machine", KindInstanceStop),
		step(StepCapture, "VmPfoFinalCapture", "Capturing the stopped disks", KindInstanceCapture),
		step(StepFence, "VmFoFenceSource", "Fencing the source", KindGenerationClose),
		step(StepStopHome, "VmPfoStopHome", "Making sure that the home virtual machine is off", KindHomeStop),
		step(StepWriteback, "VmPrepareProtectedEntitiesTask", "Writing the home disks", KindHomeWriteback),
		step(StepStartHome, "VmFoStartVmOnSecondary", "Starting the home virtual machine", KindHomeStart),
	}},
	{Name: PlanPlannedFromHost, Scenario: "PlannedFailover", FriendlyName: "Planned failover", Undo: PlanUndoUnplanned, Ready: StepFence, Boot: StepStartReplica, Steps: []Step{
		step("PlannedFailoverPreflightChecksTask", "VmPfoPrerequisitesCheck", "Prerequisites check for planned failover", ""),
		step(StepStopSource, "VmFailover", "Shutting down the virtual machine and capturing its disks", ""),
		step(StepFence, "VmFoFenceSource", "Fencing the source", KindGenerationClose),
		step(StepChoosePoint, "VmPrepareForFailover", "Choosing the recovery point", ""),
		step(StepPin, "VmFoHoldPoint", "Holding the recovery point", KindPointPin),
		step(StepStartReplica, "VmFoStartVmOnSecondary", "Starting the virtual machine", KindInstanceStart),
	}},
	{Name: PlanCancelFailover, Scenario: "CancelFailover", FriendlyName: "Cancel failover", Steps: []Step{
		step(StepPreflight, "VmCancelPrerequisitesCheck", "Prerequisites check for cancelling the failover", ""),
		step(StepStopHome, "VmCancelStopHome", "Shutting down the home virtual machine", KindHomeStop),
		step(StepFence, "VmCancelCloseLog", "Making sure that the recovery point log is closed", KindGenerationClose),
		step(StepOpenGeneration, "VmCancelReopenReplication", "Opening the recovery point log again", KindGenerationOpen),
		step(StepStartReplica, "VmCancelStartReplica", "Starting the replica virtual machine", KindInstanceStart),
		step(StepResume, "VmCancelResumeReplication", "Resuming replication", ""),
	}},
	{Name: PlanApplyPoint, Scenario: "ApplyRecoveryPoint", FriendlyName: "Change recovery point", Steps: []Step{
		step(StepPreflight, "VmChangePitPrerequisitesCheck", "Prerequisites check for changing the recovery point", ""),
		step(StepDestroyReplica, "VmChangePitDeleteReplica", "Deleting the replica virtual machine", KindInstanceDestroy),
		step(StepUnpin, "VmChangePitReleasePoint", "Releasing the recovery point used before", KindPointUnpin),
		step(StepPin, "VmChangePitHoldPoint", "Holding the recovery point", KindPointPin),
		step(StepStartReplica, "VmFoStartVmOnSecondary", "Starting the virtual machine", KindInstanceStart),
	}},
	{Name: PlanCommit, Scenario: "CommitFailover", FriendlyName: "Commit", Steps: []Step{
		step(StepPreflight, "VmCommitPrerequisitesCheck", "Prerequisites check for commit", ""),
		step(StepCommit, "VmCommit", "Committing the failover", ""),
		step(StepWaitHydrated, "VmCommitWaitForHydration", "Filling the replica's disks", ""),
		step(StepUnpin, "VmCommitReleasePoint", "Releasing the recovery point", KindPointUnpin),
	}},
	{Name: PlanCommitFailback, Scenario: "CommitFailover", FriendlyName: "Commit", Steps: []Step{
		step(StepPreflight, "VmCommitPrerequisitesCheck", "Prerequisites check for commit", ""),
		step(StepCommit, "VmCommit", "Committing the failover", ""),
		step(StepDestroyReplica, "VmCommitDeleteReplica", "Deleting the replica virtual machine", KindInstanceDestroy),
		step(StepUnpin, "VmCommitReleasePoint", "Releasing the recovery point", KindPointUnpin),
	}},
	{Name: PlanReprotect, Scenario: "SwitchReplicationGroupProtection", FriendlyName: "Reprotect", Steps: []Step{
		step("SwitchReplicationGroupProtectionPreflightTask", "VmReprotectPrerequisitesCheck", "Prerequisites check for reprotect", ""),
		step(StepCommit, "VmCommitFailover", "Committing the failover", ""),
		step(StepDiscoverReplica, "DiscoverReplica", "Waiting for the replica's agent", ""),
		step("GetSwitchProtectionRequirementsTask", "GetSwitchProtectionRequirements", "Opening the recovery point log", KindGenerationOpen),
		step(StepProtectReplica, "ProtectReplica", "Reversing replication", ""),
		step(StepWaitHydrated, "VmCommitWaitForHydration", "Filling the replica's disks", ""),
		step(StepUnpin, "VmCommitReleasePoint", "Releasing the recovery point", KindPointUnpin),
	}},
	{Name: PlanReprotectForward, Scenario: "SwitchReplicationGroupProtection", FriendlyName: "Reprotect", Steps: []Step{
		step("SwitchReplicationGroupProtectionPreflightTask", "VmReprotectPrerequisitesCheck", "Prerequisites check for reprotect", ""),
		step(StepCommit, "VmCommitFailover", "Committing the failover", ""),
		step(StepDestroyReplica, "VmCommitDeleteReplica", "Deleting the replica virtual machine", KindInstanceDestroy),
		step(StepUnpin, "VmCommitReleasePoint", "Releasing the recovery point", KindPointUnpin),
		step(StepDiscoverReplica, "DiscoverReplica", "Waiting for the machine's agent", ""),
		step("GetSwitchProtectionRequirementsTask", "GetSwitchProtectionRequirements", "Opening the recovery point log", KindGenerationOpen),
		step(StepProtectReplica, "ProtectReplica", "Reversing replication", ""),
	}},
	{Name: PlanRepair, Scenario: "RepairReplication", FriendlyName: "Resynchronize", Steps: []Step{
		step(StepPreflight, "VmRepairPrerequisitesCheck", "Prerequisites check for resynchronization", ""),
		step(StepOpenGeneration, "VmRepairReopenReplication", "Opening the recovery point log again", KindGenerationOpen),
		step(StepResume, "VmRepairStartResynchronization", "Starting resynchronization", ""),
	}},
	{Name: PlanAddDisks, Scenario: "AddDisks", FriendlyName: "Add disks", Steps: []Step{
		step(StepConfigure, "VmConfigureReplication", "Configuring replication on the machine", ""),
	}},
	{Name: PlanRemoveDisks, Scenario: "RemoveDisks", FriendlyName: "Remove disks", Steps: []Step{
		step(StepConfigure, "VmConfigureReplication", "Configuring replication on the machine", ""),
	}},
	{Name: PlanRemove, Scenario: "DisableProtection", FriendlyName: "Disable replication", Steps: []Step{
		step(StepPreflight, "VmDisablePrerequisitesCheck", "Prerequisites check for disabling replication", ""),
		step(StepFence, "VmDisableStopReplication", "Stopping replication", KindGenerationClose),
		step(StepEndTest, "VmDisableDeleteTestVm", "Deleting the test virtual machine", KindInstanceDestroy),
		step(StepDestroyReplica, "VmDisableDeleteReplica", "Deleting a replica that was left behind", KindInstanceDestroy),
		step(StepWaitHydrated, "VmDisableWaitForHydration", "Filling the replica's disks", ""),
		step(StepDeleteData, "VmDisableDeleteData", "Deleting recovery points", KindMachineDelete),
		step(StepFinish, "VmDisableFinish", "Removing the protected item", ""),
	}},
	{Name: PlanPurge, Scenario: "PurgeProtection", FriendlyName: "Purge protected item", Steps: []Step{
		step(StepFinish, "VmPurge", "Removing the protected item", ""),
		step(StepFence, "VmDisableStopReplication", "Stopping replication", KindGenerationClose),
		step(StepEndTest, "VmDisableDeleteTestVm", "Deleting the test virtual machine", KindInstanceDestroy),
		step(StepDestroyReplica, "VmDisableDeleteReplica", "Deleting a replica that was left behind", KindInstanceDestroy),
		step(StepDeleteData, "VmDisableDeleteData", "Deleting recovery points", KindMachineDelete),
	}},
	{Name: PlanPrune, Scenario: "PruneRecoveryPoints", FriendlyName: "Prune recovery points", Steps: []Step{
		step(StepPrune, "VmPruneRecoveryPoints", "Dropping points that the policy does not keep", KindRepositoryPrune),
		step(StepReport, "VmReportRecoveryPoints", "Reporting recovery points", KindRepositoryReport),
	}},
	{Name: PlanCheckConsistency, Scenario: "ConsistencyCheck", FriendlyName: "Check consistency", Steps: []Step{
		step(StepReport, "VmReportRecoveryPoints", "Reporting recovery points", KindRepositoryReport),
	}},
	{Name: PlanCapture, Scenario: "CaptureRecoveryPoint", FriendlyName: "Capture a recovery point", Steps: []Step{
		step(StepCaptureNow, "VmCaptureRecoveryPoint", "Capturing a recovery point", ""),
	}},
	{Name: PlanVerifyPoint, Scenario: "VerifyRecoveryPoint", FriendlyName: "Verify a recovery point", Release: PlanReleasePoint, Steps: []Step{
		step(StepPin, "VmHoldRecoveryPoint", "Holding the recovery point", KindPointPin),
		step(StepVerify, "VmVerifyRecoveryPoint", "Reading every byte of the recovery point", KindPointVerify),
		step(StepVerdict, "VmVerificationVerdict", "Judging what was read", ""),
	}},
	{Name: PlanExportPoint, Scenario: "ExportRecoveryPoint", FriendlyName: "Export a recovery point", Release: PlanReleasePoint, Steps: []Step{
		step(StepPin, "VmHoldRecoveryPoint", "Holding the recovery point", KindPointPin),
		step(StepExport, "VmExportRecoveryPoint", "Writing disk images", KindPointExport),
	}},
	{Name: PlanReleasePoint, Scenario: "ReleaseRecoveryPoint", FriendlyName: "Release a recovery point", Steps: []Step{
		step(StepUnpin, "VmReleaseRecoveryPoint", "Releasing the recovery point", KindPointUnpin),
	}},
	{Name: PlanReissueKey, Scenario: "ReissueRecoveryKey", FriendlyName: "Reissue the recovery key", Steps: []Step{
		step(StepWriteVaultFile, "WriteVaultFile", "Writing the vault's file to the bucket", KindVaultFileWrite),
	}},

	// Operations on a whole recovery plan: what follows the checks is made from the plan.
	recovery(PlanRecoveryTestFailover, "TestFailover", "Test failover"),
	recovery(PlanRecoveryTestCleanup, "TestFailoverCleanup", "Test failover cleanup"),
	recovery(PlanRecoveryPlannedFailover, "PlannedFailover", "Planned failover"),
	recovery(PlanRecoveryUnplannedFailover, "UnplannedFailover", "Failover"),
	recovery(PlanRecoveryCommit, "CommitFailover", "Commit"),
	recovery(PlanRecoveryCancel, "CancelFailover", "Cancel failover"),
	recovery(PlanRecoveryReprotect, "ReverseReplication", "Reprotect"),

	// What follows is done the moment it is asked for: the job records that it was.
	done(PlanUpdateItem, "UpdateVmProperties", "Update the virtual machine"),
	done(PlanFinalize, "FinalizeProtection", "Finalize protection on the recovery site"),
	done(PlanCreateFabric, "CreateSite", "Create a site"),
	done(PlanRemoveFabric, "DeleteSite", "Delete a site"),
	done(PlanRegisterProvider, "RegisterDra", "Register the provider"),
	done(PlanRemoveProvider, "UnregisterDra", "Delete the provider"),
	done(PlanRefreshProvider, "RefreshDra", "Refresh the provider"),
	done(PlanDiscover, "DiscoverProtectableItem", "Add a physical machine"),
	done(PlanCreatePolicy, "AddProtectionProfile", "Create replication policy"),
	done(PlanUpdatePolicy, "UpdateProtectionProfile", "Update replication policy"),
	done(PlanDeletePolicy, "DeleteProtectionProfile", "Delete replication policy"),
	done(PlanCreateMapping, "AssociateProtectionProfile", "Associate replication policy"),
	done(PlanUpdateMapping, "UpdateProtectionProfileAssociation", "Update the association of a replication policy"),
	done(PlanRemoveMapping, "DissociateProtectionProfile", "Dissociate replication policy"),
	done(PlanRefreshHealth, "RefreshVaultHealth", "Refresh vault health"),
	done(PlanCreateRecoveryPlan, "CreateRecoveryPlan", "Create a recovery plan"),
	done(PlanUpdateRecoveryPlan, "UpdateRecoveryPlan", "Update a recovery plan"),
	done(PlanDeleteRecoveryPlan, "DeleteRecoveryPlan", "Delete a recovery plan"),
	done(PlanAddVCenter, "AddVCenter", "Add a vCenter server"),
	done(PlanUpdateVCenter, "UpdateVCenter", "Update a vCenter server"),
	done(PlanDeleteVCenter, "DeleteVCenter", "Delete a vCenter server"),
	done(PlanMapNetwork, "MapNetwork", "Map a network"),
	done(PlanRemapNetwork, "UpdateNetworkMapping", "Update a network mapping"),
	done(PlanUnmapNetwork, "UnmapNetwork", "Delete a network mapping"),
	done(PlanMapStorage, "MapStorageClassification", "Map a storage classification"),
	done(PlanUnmapStorage, "UnmapStorageClassification", "Delete a storage classification mapping"),
	done(PlanExportJobs, "ExportJobs", "Export jobs"),
	done(PlanUpdateAppliance, "UpdateAppliance", "Update the appliance of the virtual machine"),
	done(PlanResolveHealth, "ResolveHealthErrors", "Resolve health errors"),
	done(PlanReassociate, "ReassociateGateway", "Move machines to another process server"),
	done(PlanRenewCertificate, "RenewCertificate", "Renew certificates"),
	done(PlanCreateContainer, "CreateProtectionContainer", "Create a protection container"),
	done(PlanRemoveContainer, "RemoveProtectionContainer", "Delete a protection container"),
}, legPlans()...)

func done(name string, scenario Scenario, friendly string) Plan {
	return Plan{Name: name, Scenario: scenario, FriendlyName: friendly, Steps: []Step{{StepFinish, string(scenario) + "Task", friendly, ""}}}
}

func recovery(name string, scenario Scenario, friendly string) Plan {
	return Plan{Name: name, Scenario: scenario, FriendlyName: friendly, Steps: []Step{{StepPreflight, "RecoveryPlanPrerequisitesCheck", "Prerequisites check of the recovery plan", ""}}}
}

// PlanByName returns the plan, or nil.
func PlanByName(name string) *Plan {
	for i := range Plans {
		if Plans[i].Name == name {
			return &Plans[i]
		}
	}
	return nil
}

// Tasks lists the plan's tasks, not started.
func (p *Plan) Tasks() []Task {
	out := make([]Task, len(p.Steps))
	for i, s := range p.Steps {
		out[i] = Task{ID: s.ID, Name: s.Name, FriendlyName: s.FriendlyName, Kind: s.Kind, State: NotStarted}
	}
	return out
}
