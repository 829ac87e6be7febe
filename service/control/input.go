package control

import (
	"encoding/json"
	"time"

	"github.com/lifeboat-dr/lifeboat/service/dr"
	"github.com/lifeboat-dr/lifeboat/service/job"
)

// VaultInput is the body of a vault PUT.
type VaultInput struct {
	Location     string
	Tags         map[string]string
	SKU, SKUTier string
	// Identity and Properties are kept as they were sent and shown again; nil leaves a vault's as they are.
	Identity, Properties json.RawMessage
	If                   Precondition
}

// VaultPatch changes what is not nil.
type VaultPatch struct {
	Tags         map[string]string
	SKU, SKUTier *string
	Identity     json.RawMessage
	Properties   json.RawMessage // its fields replace those of the same name
	If           Precondition
}

// FabricInput is the body of a fabric PUT. Kind empty means a Hyper-V site.
type FabricInput struct {
	Kind  dr.FabricKind
	Input json.RawMessage // customDetails
}

// PolicyInput is the body of a policy PUT or PATCH: providerSpecificInput (replicationProviderSettings), whose instanceType
// names the provider.
type PolicyInput struct {
	ProviderSpecificInput json.RawMessage
}

// MappingInput is the body of a container mapping PUT.
type MappingInput struct {
	PolicyID              string // ARM id; its last segment names a policy of the vault
	TargetContainerID     string
	ProviderSpecificInput json.RawMessage
}

// DiscoverInput adds a machine by address.
type DiscoverInput struct {
	FriendlyName string
	Address      string
	OSType       string
}

// EnableInput is the body of a protected item PUT.
type EnableInput struct {
	PolicyID string // ARM id
	// ProtectableItemID is the ARM id; InMageRcm leaves it out and names the machine in ProviderInput.fabricDiscoveryMachineId,
	// which may be an ARM id, a protectable item's name or an agent id.
	ProtectableItemID string
	ProviderInput     json.RawMessage // providerSpecificDetails
}

// UpdateInput is the body of a protected item PATCH. Properties are the common ones as sent.
type UpdateInput struct {
	Properties    json.RawMessage
	ProviderInput json.RawMessage
}

// TestFailoverInput is the body of testFailover.
type TestFailoverInput struct {
	Direction     string
	NetworkType   string
	NetworkID     string
	ProviderInput json.RawMessage // recoveryPointId: a point's ARM id or name; null: latest
}

// CleanupInput is the body of testFailoverCleanup.
type CleanupInput struct{ Comments string }

// FailoverInput is the body of plannedFailover and unplannedFailover.
type FailoverInput struct {
	Direction            string
	SourceSiteOperations string
	ProviderInput        json.RawMessage // performShutdown, recoveryPointId, recoveryPointType
}

// ApplyPointInput is the body of applyRecoveryPoint.
type ApplyPointInput struct {
	RecoveryPointID string
	ProviderInput   json.RawMessage
}

// ReprotectInput is the body of reProtect.
type ReprotectInput struct {
	Direction     string
	ProviderInput json.RawMessage // reprotectAgentId, datastoreName, policyId, processServerId
}

// RemoveInput is the body of remove.
type RemoveInput struct {
	Reason        string
	ProviderInput json.RawMessage
}

// JobFilter narrows a list of jobs. Zero fields do not narrow.
type JobFilter struct {
	Name            string
	States          []job.State
	AffectedObjects []string
	FabricID        string
	From, To        time.Time // by start
}

// EventFilter narrows a list of events. Zero fields do not narrow.
type EventFilter struct {
	Code, Type, Severity, Fabric, ObjectName, ObjectID string
	From, To                                           time.Time
}

// ItemFilter narrows a list of protected items. Zero fields do not narrow.
type ItemFilter struct {
	Fabric, InstanceType, ProcessServer string
	RecoveryPlan                        string // name
	// Of machines between regions: the region replicated from, the machine's path, and AutoCreated or UserSpecified.
	Location, FabricObject, GroupOption string
}

// RegistrationKeyInput asks for a key that lets one agent or replicator enrol. Fabric may be empty for a replicator that serves
// all.
type RegistrationKeyInput struct {
	Vault, Fabric string
	Role          string // agent or replicator
	Lifetime      time.Duration
}
