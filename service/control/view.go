package control

import (
	"time"

	"github.com/lifeboat-dr/lifeboat/service/dr"
	"github.com/lifeboat-dr/lifeboat/service/job"
)

// PutVault is the outcome of a vault PUT. RecoveryKey is set only when the vault was created; it is kept nowhere.
type PutVault struct {
	Vault       dr.Vault
	Created     bool
	RecoveryKey string
}

// FabricView is a fabric with what belongs to it.
type FabricView struct {
	Fabric      dr.Fabric
	Providers   []dr.Provider
	Replicators []dr.Replicator // those that serve the fabric
	Agents      []dr.Agent
	// Accounts are what the fabric's vCenter servers are read with, sorted, each once.
	Accounts []string
	Items    int
	Health   string
	Errors   []dr.HealthError
}

// ProviderView is a registered replicator or provider.
type ProviderView struct {
	Provider   dr.Provider
	Fabric     dr.Fabric
	Connected  bool
	Items      int
	Replicator *dr.Replicator // nil when it is gone
}

// ContainerView is a container with what belongs to it.
type ContainerView struct {
	Container dr.Container
	Fabric    dr.Fabric
	Items     int
	Paired    bool // it has a mapping
}

// ProtectableView is a machine that was discovered.
type ProtectableView struct {
	Item      dr.ProtectableItem
	Fabric    dr.Fabric
	Agent     *dr.Agent // nil before its agent enrolled
	Protected *dr.Item  // nil while unprotected
	// Problems are reasons that it cannot be protected now.
	Problems []string
}

// MappingView is a container mapping with the names it refers to.
type MappingView struct {
	Mapping   dr.Mapping
	Policy    dr.Policy
	Fabric    dr.Fabric
	Container dr.Container
}

// ItemView is a protected item and everything that clients see of it.
type ItemView struct {
	Item       dr.Item
	Projection dr.Projection
	Observed   dr.Observed
	Policy     dr.Policy // zero when it is gone
	Fabric     dr.Fabric
	Container  dr.Container
	// TargetFabric and TargetContainer are the other side when it is a site of this vault; zero when it is this server's.
	TargetFabric    dr.Fabric
	TargetContainer dr.Container
	Agent           *dr.Agent
	LatestPoint     *dr.Point
	// RPO is now minus the capture time of the newest point; Valid only when there is a point and the leg replicates.
	RPO      time.Duration
	RPOValid bool
	RPOAt    time.Time
	until    time.Time // what RPOAt, RPO and health tell may change then
	// Health is Normal, Warning, Critical or None.
	Health         string
	FailoverHealth string
	HealthErrors   []dr.HealthError
	// FailoverPointID is the GUID of the point the last failover used, or empty.
	FailoverPointID  string
	ResyncPercent    int
	InitialPercent   int
	UnprotectedDisks []dr.MachineDisk
	ProcessServer    *dr.Replicator
}

// JobView is a job as clients see it.
type JobView struct {
	Job            job.Job
	AllowedActions []string // Cancel, Resume, Restart
	Description    string   // stateDescription
	Percent        int
	// Affected names the objects for customDetails.affectedObjectDetails.
	Affected map[string]string
	Item     *dr.Item  // nil when the job is not about an item, or it is gone
	Point    *dr.Point // the point a failover or drill uses
	// Machines are the jobs of the machines that an operation on a recovery plan works on, as far as they were made.
	Machines []JobView
}

// OperationStatus is what a poller of a long-running operation sees.
type OperationStatus struct {
	JobID   string
	Status  string // InProgress, Succeeded, Failed or Canceled
	Started time.Time
	Ended   time.Time // zero while it runs
	Percent int
	Error   *job.Error // why it failed
}

// OperationResult tells how an operation on a resource ended.
type OperationResult struct {
	Status OperationStatus
	// ResourcePath is the path below the vault of the resource the operation acted on, as the request spelled it.
	ResourcePath string
	// Gone tells that the operation ended with the resource removed.
	Gone bool
	// Scenario tells what the operation was.
	Scenario job.Scenario
}

// VaultHealth sums a vault up.
type VaultHealth struct {
	Errors     []dr.HealthError
	Items      HealthSummary
	Fabrics    HealthSummary
	Containers HealthSummary
}

// HealthSummary counts resources by what is the matter with them.
type HealthSummary struct {
	Count       int
	Categorized map[string]int
	Issues      []HealthIssue
}

// HealthIssue is one kind of trouble and who has it.
type HealthIssue struct {
	Code           string
	Category       string
	Severity       string
	Message        string
	ResourceType   string
	CorrelationIDs []string
}

// VaultUsage counts what a vault holds.
type VaultUsage struct {
	Items, Providers, Plans, Events           int
	UnhealthyItems, UnhealthyProviders        int
	FailedJobs, InProgressJobs, SuspendedJobs int
}

// RegistrationKey is a key as shown once.
type RegistrationKey struct {
	Key     string
	Expires time.Time
}

// Enrolled is what an agent or replicator became.
type Enrolled struct {
	ID    string
	Vault string // empty for a replicator
}

// VaultSetting is one replicationVaultSettings resource of a vault.
type VaultSetting struct {
	Name                      string
	MigrationSolutionID       string
	VMwareToAzureProviderType string
}

// AgentItem is an item that an agent's machine is, with the policy of its running leg.
type AgentItem struct {
	Item   dr.Item
	Policy dr.Policy
}

// MaxArtifact bounds a file kept with a job, in bytes.
const MaxArtifact = 8 << 20
