package dr

// Direction says which way a leg replicates.
type Direction string

const (
	PrimaryToRecovery Direction = "PrimaryToRecovery"
	RecoveryToPrimary Direction = "RecoveryToPrimary"
)

// Operation is what a user can ask of an item.
type Operation string

const (
	OpEnable             Operation = "enable"
	OpTestFailover       Operation = "testFailover"
	OpTestCleanup        Operation = "testFailoverCleanup"
	OpPlannedFailover    Operation = "plannedFailover"
	OpUnplannedFailover  Operation = "unplannedFailover"
	OpApplyRecoveryPoint Operation = "applyRecoveryPoint"
	OpCommit             Operation = "failoverCommit"
	OpCancelFailover     Operation = "failoverCancel"
	OpReprotect          Operation = "reProtect"
	OpRepair             Operation = "repairReplication"
	OpUpdate             Operation = "update"
	OpAddDisks           Operation = "addDisks"
	OpRemoveDisks        Operation = "removeDisks"
	OpRemove             Operation = "remove"
	OpPurge              Operation = "purge"
)

// Operations are all operations, in the order of a machine's life.
var Operations = []Operation{OpEnable, OpTestFailover, OpTestCleanup, OpPlannedFailover, OpUnplannedFailover, OpApplyRecoveryPoint,
	OpCommit, OpCancelFailover, OpReprotect, OpRepair, OpUpdate, OpAddDisks, OpRemoveDisks, OpRemove, OpPurge}

// Phases of a leg. The comment says what the user may rely on.
const (
	PhaseNone               Phase = ""                       // not enabled yet
	PhaseEnabling           Phase = "enabling"               // configuration; nothing is copied yet
	PhaseEnableFailed       Phase = "enableFailed"           // the configuration did not succeed; nothing is protected
	PhaseInitialReplication Phase = "initialReplication"     // the first copy (or, after a reprotect, what differs) travels
	PhaseFirstPointPending  Phase = "firstPointPending"      // everything was shipped; the first point is not durable yet
	PhaseProtected          Phase = "protected"              // at least one point of this leg is durable
	PhasePlannedPending     Phase = "plannedCommitPending"   // runs at the other side, nothing lost; may be undone
	PhaseUnplannedPending   Phase = "unplannedCommitPending" // runs at the other side from the chosen point; the point may be changed
	PhasePlannedCommitted   Phase = "plannedCommitted"       // accepted; not protected until reprotected
	PhaseUnplannedCommitted Phase = "unplannedCommitted"     // accepted; not protected until reprotected
	PhaseRemoved            Phase = "removed"                // no longer protected
)

// Phases are all phases in the order of a leg's life.
var Phases = []Phase{PhaseNone, PhaseEnabling, PhaseEnableFailed, PhaseInitialReplication, PhaseFirstPointPending, PhaseProtected,
	PhasePlannedPending, PhaseUnplannedPending, PhasePlannedCommitted, PhaseUnplannedCommitted, PhaseRemoved}

// States of a drill.
const (
	DrillNone    TestFailover = ""        // none since the leg began
	DrillOpen    TestFailover = "open"    // a machine runs on the isolated network and waits for cleanup
	DrillCleaned TestFailover = "cleaned" // the last one was cleaned up
)

// Names of the legs.
const (
	LegInMageRcm         LegName = "InMageRcm"
	LegInMageRcmFailback LegName = "InMageRcmFailback"
	LegInMageAzureV2     LegName = "InMageAzureV2"
	LegInMageFailback    LegName = "InMageFailback" // provider InMage: the way back from InMageAzureV2
	LegScout             LegName = "InMage"         // provider InMage: to a secondary site
	LegScoutFailback     LegName = "InMageReverse"
	LegHyperVAzure       LegName = "HyperVReplicaAzure"
	LegHyperVAzureBack   LegName = "HyperVReplicaAzureFailback"
	LegHyperV2012        LegName = "HyperVReplica2012"
	LegHyperV2012Back    LegName = "HyperVReplica2012Reverse"
	LegHyperV2012R2      LegName = "HyperVReplica2012R2"
	LegHyperV2012R2Back  LegName = "HyperVReplica2012R2Reverse"
	LegA2A               LegName = "A2A"
	LegA2AReverse        LegName = "A2AReverse"
)
