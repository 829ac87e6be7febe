package job

// CapabilityLeg is what a driver of legs of a provider serves: At(it, the provider's instanceType).
const CapabilityLeg = "leg"

// KindLegOperation is the one kind of task that such a driver does: LegOperation -> LegDone. It may be given the same task twice,
// and answers as it did before.
const KindLegOperation = "leg.operation"

// LegOperation asks the driver of a leg for one operation on one machine. Operation is a dr.Operation. Point is the recovery
// point that a drill or failover starts from, or that a reprotect builds on; nil for other operations. Generation is the one that
// is to be open when the operation is done.
type LegOperation struct {
	Machine
	Leg          string    `json:"leg"`
	Operation    string    `json:"operation"`
	FriendlyName string    `json:"friendlyName"`
	Point        *PointRef `json:"point,omitempty"`
	Generation   int64     `json:"generation"`
	Shutdown     bool      `json:"shutdown,omitempty"`
	// Network is what a started machine is attached to: as asked, as the item was told, or as a network mapping has it; empty: nothing
	// tells.
	Network string   `json:"network,omitempty"`
	Disks   []string `json:"disks,omitempty"` // to be added or removed
	// Storage is the class of storage that replicas of disks get, by the class that the disks have, when disks get replicas.
	Storage map[string]string `json:"storage,omitempty"`
}

// LegDone tells what there is afterwards. Disks answer an enable, and a change of the disks: what the driver replicates
// then, the system disk first. Instance is
// the machine that a drill or failover started.
type LegDone struct {
	Disks    []LegDisk `json:"disks,omitempty"`
	Instance string    `json:"instance,omitempty"`
	Address  string    `json:"address,omitempty"`
}

// LegDisk is a disk that a driver replicates.
type LegDisk struct {
	ID        string `json:"id"`
	SizeBytes int64  `json:"sizeBytes"`
	IsOSDisk  bool   `json:"isOsDisk,omitempty"`
}

// StepLeg is the task of a driver.
const StepLeg = "LegOperationTask"

// LegPlan names the plan of an operation (a dr.Operation) on a machine whose leg has a driver of its own.
func LegPlan(operation string) string { return "leg." + operation }

// legPlans are the plans of drivers: checks, then the driver's work. They have the scenarios of the plans that the control plane
// carries out itself, so that clients cannot tell them apart.
func legPlans() []Plan {
	var out []Plan
	for _, p := range []struct {
		operation, friendly string
		scenario            Scenario
	}{
		{"enable", "Enable replication", "EnableProtection"}, {"testFailover", "Test failover", "TestFailover"}, {"testFailoverCleanup", "Test failover cleanup", "TestFailoverCleanup"},
		{"plannedFailover", "Planned failover", "PlannedFailover"}, {"unplannedFailover", "Failover", "UnplannedFailover"}, {"applyRecoveryPoint", "Change recovery point", "ApplyRecoveryPoint"},
		{"failoverCommit", "Commit", "CommitFailover"}, {"failoverCancel", "Cancel failover", "CancelFailover"}, {"reProtect", "Reprotect", "SwitchReplicationGroupProtection"},
		{"repairReplication", "Resynchronize", "RepairReplication"}, {"addDisks", "Add disks", "AddDisks"}, {"removeDisks", "Remove disks", "RemoveDisks"}, {"remove", "Disable replication", "DisableProtection"}, {"purge", "Purge protected item", "PurgeProtection"},
	} {
		checks, work := step(StepPreflight, "VmLegPrerequisitesCheck", "Prerequisites check", ""), step(StepLeg, "VmLegOperation", p.friendly, KindLegOperation)
		finish := step(StepFinish, "VmLegFinish", "Removing the protected item", "")
		steps := []Step{checks, work}
		switch p.operation {
		case "remove":
			steps = []Step{checks, work, finish}
		case "purge":
			steps = []Step{finish, work}
		}
		out = append(out, Plan{Name: LegPlan(p.operation), Scenario: p.scenario, FriendlyName: p.friendly, Steps: steps})
	}
	return out
}
