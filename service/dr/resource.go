package dr

import (
	"encoding/json"
	"time"
)

// VaultKey is where a vault lives in the ARM tree. Names compare without case; Key folds them.
type VaultKey struct {
	Subscription  string
	ResourceGroup string
	Name          string
}

// Meta is what all stored resources have.
type Meta struct {
	// Name is the last segment of the resource's path, spelled as its creator did.
	Name    string
	Version int64 // grows with every save; 0 for a resource never saved
	Created time.Time
	Updated time.Time
}

// Metadata lets code that stores resources reach what they all have.
func (m *Meta) Metadata() *Meta { return m }

// Vault is the top of the tree. ID is a GUID made at creation: a vault created again under an old name is another vault.
type Vault struct {
	Meta
	Key       VaultKey
	ID        string
	Location  string
	Tags      map[string]string
	SKU       string
	SKUTier   string
	BucketURL string
	// RecoveryKeyHash lets a recovery key be checked without being kept.
	RecoveryKeyHash []byte
	Settings        map[string]string
	// Identity and Properties are what a client asked for, for its own use.
	Identity, Properties json.RawMessage
}

// FabricKind is the fabric's customDetails.instanceType.
type FabricKind string

const (
	FabricAzure      FabricKind = "Azure"
	FabricHyperVSite FabricKind = "HyperVSite"
	FabricVMM        FabricKind = "VMM"
	FabricVMware     FabricKind = "VMware"
	FabricVMwareV2   FabricKind = "VMwareV2"
	FabricInMageRcm  FabricKind = "InMageRcm"
)

// Fabric is a site.
type Fabric struct {
	Meta
	ID    string // internalIdentifier, a GUID
	Vault string // Vault.ID
	Kind  FabricKind
	Input json.RawMessage // customDetails as the client sent them
}

// Provider is a registered replicator of a fabric, or the agent of a hypervisor there.
type Provider struct {
	Meta
	ID            string
	Vault, Fabric string // Fabric is the fabric's name
	ReplicatorID  string
	AgentID       string
	Hostname      string
	AgentVersion  string
	LastHeartbeat time.Time
}

// Container groups the machines of a fabric.
type Container struct {
	Meta
	ID            string
	Vault, Fabric string
	FriendlyName  string
}

// ProtectableItem is a discovered machine. Its Name is a GUID.
type ProtectableItem struct {
	Meta
	ID                       string
	Vault, Fabric, Container string
	FriendlyName             string
	// AgentID is empty until the machine's agent has enrolled.
	AgentID     string
	Address     string // as given to discoverProtectableItem, or observed
	OSType      string
	Physical    bool
	ProtectedAs ItemID          // empty while unprotected
	Observed    json.RawMessage // last Machine object of the agent's report
	LastSeen    time.Time
}

// ItemID names a protected machine for its whole life, in the bucket too.
type ItemID string

// ProviderType is the replication provider: instanceType on the wire.
type ProviderType string

const (
	ProviderInMageAzureV2              ProviderType = "InMageAzureV2"
	ProviderInMage                     ProviderType = "InMage"
	ProviderInMageRcm                  ProviderType = "InMageRcm"
	ProviderInMageRcmFailback          ProviderType = "InMageRcmFailback"
	ProviderHyperVReplicaAzure         ProviderType = "HyperVReplicaAzure"
	ProviderHyperVReplicaAzureFailback ProviderType = "HyperVReplicaAzureFailback"
	ProviderHyperVReplica2012          ProviderType = "HyperVReplica2012"
	ProviderHyperVReplica2012R2        ProviderType = "HyperVReplica2012R2"
	ProviderA2A                        ProviderType = "A2A"
)

// Policy is the replication settings of one provider type, in the domain's units. Input keeps the provider's own spelling.
type Policy struct {
	Meta
	ID                    string
	Vault                 string
	Provider              ProviderType
	CrashConsistentEvery  time.Duration
	AppConsistentEvery    time.Duration // 0: off
	Retention             time.Duration
	RPOThreshold          time.Duration
	MultiVMSync           bool
	Throttle              Throttle
	ProviderSpecificInput json.RawMessage
	// DerivedFrom is the policy beside which this one was made for the way back; empty for one that a client made.
	DerivedFrom string
}

// Mapping pairs a source container with a target under a policy.
type Mapping struct {
	Meta
	Vault, Fabric, Container string
	PolicyID                 string // ARM id as sent
	PolicyName               string
	TargetContainerID        string // ARM id, or the literal "Microsoft Azure"
	ProviderSpecificInput    json.RawMessage
}

// Point is the SQL index of a recovery point; the bucket is the truth.
type Point struct {
	ID           string // GUID, derived from machine, generation and sequence
	Item         ItemID
	Generation   int64
	Sequence     int64
	Time         time.Time // capture instant
	Consistency  Consistency
	ChangedBytes int64
	StoredBytes  int64
	GroupID      string
	// Disks are the ids of its disks, when it is reported; they are not kept.
	Disks []string `json:"-"`
	// Provider is that of the leg that made the point.
	Provider ProviderType
}

// Consistency of a recovery point.
type Consistency string

const (
	CrashConsistent       Consistency = "CrashConsistent"
	ApplicationConsistent Consistency = "ApplicationConsistent"
)

// Severity of an event.
type Severity string

const (
	SeverityOK       Severity = "OK"
	SeverityInfo     Severity = "Info"
	SeverityWarning  Severity = "Warning"
	SeverityCritical Severity = "Critical"
)

// Event is something a person may want to know. Written in the same transaction as what it tells of.
type Event struct {
	Meta
	ID           string
	Vault        string
	Type         string // VmHealth, JobStatus, ServerHealth, AgentHealth
	Code         string // a GUID for each event definition
	Severity     Severity
	Description  string
	ObjectName   string
	ObjectID     string
	Fabric       string
	Time         time.Time
	HealthErrors []HealthError
	JobID        string
	// Provider and Container are those of the item that the event is about; empty for other events.
	Provider  ProviderType
	Container string
}

// HealthError tells what is wrong with a resource, why, and what to do.
type HealthError struct {
	ID                string
	Code              string
	Level             string // Error or Warning
	Category          string
	Message           string
	Summary           string
	PossibleCauses    string
	RecommendedAction string
	Created           time.Time
	Source            string
	EntityID          string
}
