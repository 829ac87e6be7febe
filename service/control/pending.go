package control

import (
	"context"
	"encoding/json"

	"github.com/lifeboat-dr/lifeboat/service/dr"
)

var errPending = &dr.Error{Code: dr.CodeUnimplemented, Message: "not implemented yet"}

// PutVault creates or replaces a vault. A created one's recovery key is in the answer and nowhere else.
func (s *Service) PutVault(ctx context.Context, key dr.VaultKey, in VaultInput) (PutVault, error) {
	return PutVault{}, errPending
}

// Vault returns the vault at key.
func (s *Service) Vault(ctx context.Context, key dr.VaultKey) (dr.Vault, error) {
	return dr.Vault{}, errPending
}

// VaultByID returns the vault with the ID.
func (s *Service) VaultByID(ctx context.Context, id string) (dr.Vault, error) {
	return dr.Vault{}, errPending
}

// PatchVault changes a vault.
func (s *Service) PatchVault(ctx context.Context, key dr.VaultKey, in VaultPatch) (dr.Vault, error) {
	return dr.Vault{}, errPending
}

// DeleteVault removes a vault that holds nothing; deleting one that does not exist is not an error.
func (s *Service) DeleteVault(ctx context.Context, key dr.VaultKey) error {
	return errPending
}

// Vaults lists the vaults of a resource group, or of a subscription when resourceGroup is empty.
func (s *Service) Vaults(ctx context.Context, subscription, resourceGroup string, p Paging) (Page[dr.Vault], error) {
	return Page[dr.Vault]{}, errPending
}

// AllVaults lists every vault, for replicators.
func (s *Service) AllVaults(ctx context.Context) ([]dr.Vault, error) {
	return nil, errPending
}

// VaultSecrets opens a vault's keys.
func (s *Service) VaultSecrets(ctx context.Context, vaultID string) (VaultSecrets, error) {
	return VaultSecrets{}, errPending
}

// VaultSettings serves replicationVaultSettings.
func (s *Service) VaultSettings(ctx context.Context, vaultID string) ([]VaultSetting, error) {
	return nil, errPending
}

// PutVaultSetting serves replicationVaultSettings.
func (s *Service) PutVaultSetting(ctx context.Context, vaultID, name string, in VaultSetting) (VaultSetting, error) {
	return VaultSetting{}, errPending
}

// VaultSetting serves replicationVaultSettings.
func (s *Service) VaultSetting(ctx context.Context, vaultID, name string) (VaultSetting, error) {
	return VaultSetting{}, errPending
}

// VaultHealth sums the vault up.
func (s *Service) VaultHealth(ctx context.Context, vaultID string) (VaultHealth, error) {
	return VaultHealth{}, errPending
}

// RefreshVaultHealth evaluates the health of everything in the vault now.
func (s *Service) RefreshVaultHealth(ctx context.Context, vaultID string) (string, error) {
	return "", errPending
}

// VaultUsage counts what the vault holds.
func (s *Service) VaultUsage(ctx context.Context, vaultID string) (VaultUsage, error) {
	return VaultUsage{}, errPending
}

// PutFabric creates a fabric, with its container when the kind has exactly one. The same request again changes nothing.
func (s *Service) PutFabric(ctx context.Context, ref Ref, in FabricInput) (string, error) {
	return "", errPending
}

// Fabric returns one fabric.
func (s *Service) Fabric(ctx context.Context, ref Ref) (FabricView, error) {
	return FabricView{}, errPending
}

// Fabrics lists a vault's fabrics by name.
func (s *Service) Fabrics(ctx context.Context, vaultID string, p Paging) (Page[FabricView], error) {
	return Page[FabricView]{}, errPending
}

// RemoveFabric removes a fabric that protects nothing. It serves remove, purge and removeInfra.
func (s *Service) RemoveFabric(ctx context.Context, ref Ref) (string, error) {
	return "", errPending
}

// CheckFabricConsistency asks for a complete report of every machine of the fabric.
func (s *Service) CheckFabricConsistency(ctx context.Context, ref Ref) (string, error) {
	return "", errPending
}

// Providers lists the providers of a fabric, or of the vault when ref.Fabric is empty.
func (s *Service) Providers(ctx context.Context, ref Ref, p Paging) (Page[ProviderView], error) {
	return Page[ProviderView]{}, errPending
}

// Provider returns one provider.
func (s *Service) Provider(ctx context.Context, ref Ref) (ProviderView, error) {
	return ProviderView{}, errPending
}

// RemoveProvider forgets a provider.
func (s *Service) RemoveProvider(ctx context.Context, ref Ref) (string, error) {
	return "", errPending
}

// RefreshProvider asks the provider to discover again.
func (s *Service) RefreshProvider(ctx context.Context, ref Ref) (string, error) {
	return "", errPending
}

// Containers lists the containers of a fabric, or of the vault when ref.Fabric is empty.
func (s *Service) Containers(ctx context.Context, ref Ref, p Paging) (Page[ContainerView], error) {
	return Page[ContainerView]{}, errPending
}

// Container returns one container.
func (s *Service) Container(ctx context.Context, ref Ref) (ContainerView, error) {
	return ContainerView{}, errPending
}

// Protectables lists a container's protectable items; state Protected or Unprotected narrows.
func (s *Service) Protectables(ctx context.Context, ref Ref, state string, p Paging) (Page[ProtectableView], error) {
	return Page[ProtectableView]{}, errPending
}

// Protectable returns one protectable item.
func (s *Service) Protectable(ctx context.Context, ref Ref) (ProtectableView, error) {
	return ProtectableView{}, errPending
}

// DiscoverProtectable adds a machine by address to a container. The agent that enrols from that address or with that host name is bound to it.
func (s *Service) DiscoverProtectable(ctx context.Context, ref Ref, in DiscoverInput) (string, error) {
	return "", errPending
}

// PutPolicy creates or replaces a policy.
func (s *Service) PutPolicy(ctx context.Context, ref Ref, in PolicyInput) (string, error) {
	return "", errPending
}

// PatchPolicy changes a policy.
func (s *Service) PatchPolicy(ctx context.Context, ref Ref, in PolicyInput) (string, error) {
	return "", errPending
}

// Policy returns one policy.
func (s *Service) Policy(ctx context.Context, ref Ref) (dr.Policy, error) {
	return dr.Policy{}, errPending
}

// Policies lists a vault's policies by name.
func (s *Service) Policies(ctx context.Context, vaultID string, p Paging) (Page[dr.Policy], error) {
	return Page[dr.Policy]{}, errPending
}

// DeletePolicy removes a policy that nothing uses.
func (s *Service) DeletePolicy(ctx context.Context, ref Ref) (string, error) {
	return "", errPending
}

// PutMapping pairs a container with a target under a policy.
func (s *Service) PutMapping(ctx context.Context, ref Ref, in MappingInput) (string, error) {
	return "", errPending
}

// PatchMapping changes a mapping's provider-specific settings.
func (s *Service) PatchMapping(ctx context.Context, ref Ref, in json.RawMessage) (string, error) {
	return "", errPending
}

// Mapping returns one mapping.
func (s *Service) Mapping(ctx context.Context, ref Ref) (MappingView, error) {
	return MappingView{}, errPending
}

// Mappings lists the mappings of a container, or of the vault when ref.Container is empty.
func (s *Service) Mappings(ctx context.Context, ref Ref, p Paging) (Page[MappingView], error) {
	return Page[MappingView]{}, errPending
}

// RemoveMapping removes a mapping that no item uses. It serves remove and purge.
func (s *Service) RemoveMapping(ctx context.Context, ref Ref) (string, error) {
	return "", errPending
}

// Enable starts to protect a machine as a new item. The same request again returns the first one's job.
func (s *Service) Enable(ctx context.Context, ref Ref, in EnableInput) (string, error) {
	return "", errPending
}

// UpdateItem changes what a failover will use.
func (s *Service) UpdateItem(ctx context.Context, ref Ref, in UpdateInput) (string, error) {
	return "", errPending
}

// TestFailover opens a drill.
func (s *Service) TestFailover(ctx context.Context, ref Ref, in TestFailoverInput) (string, error) {
	return "", errPending
}

// TestFailoverCleanup ends a drill and leaves nothing of it.
func (s *Service) TestFailoverCleanup(ctx context.Context, ref Ref, in CleanupInput) (string, error) {
	return "", errPending
}

// PlannedFailover moves the machine without loss.
func (s *Service) PlannedFailover(ctx context.Context, ref Ref, in FailoverInput) (string, error) {
	return "", errPending
}

// UnplannedFailover starts the machine from a point, the source presumed lost.
func (s *Service) UnplannedFailover(ctx context.Context, ref Ref, in FailoverInput) (string, error) {
	return "", errPending
}

// ApplyRecoveryPoint starts a failed-over machine from another point.
func (s *Service) ApplyRecoveryPoint(ctx context.Context, ref Ref, in ApplyPointInput) (string, error) {
	return "", errPending
}

// FailoverCommit accepts a failover.
func (s *Service) FailoverCommit(ctx context.Context, ref Ref) (string, error) {
	return "", errPending
}

// FailoverCancel undoes a planned failover that was not committed.
func (s *Service) FailoverCancel(ctx context.Context, ref Ref) (string, error) {
	return "", errPending
}

// Reprotect replicates in the other direction.
func (s *Service) Reprotect(ctx context.Context, ref Ref, in ReprotectInput) (string, error) {
	return "", errPending
}

// RepairReplication compares the machine's disks with the newest point and sends what differs.
func (s *Service) RepairReplication(ctx context.Context, ref Ref) (string, error) {
	return "", errPending
}

// RemoveItem stops protecting a machine and drops its points.
func (s *Service) RemoveItem(ctx context.Context, ref Ref, in RemoveInput) (string, error) {
	return "", errPending
}

// PurgeItem removes an item whatever its state.
func (s *Service) PurgeItem(ctx context.Context, ref Ref) (string, error) {
	return "", errPending
}

// Item returns one protected item.
func (s *Service) Item(ctx context.Context, ref Ref) (ItemView, error) {
	return ItemView{}, errPending
}

// Items lists the protected items of a container, or of the vault when ref.Container is empty.
func (s *Service) Items(ctx context.Context, ref Ref, f ItemFilter, p Paging) (Page[ItemView], error) {
	return Page[ItemView]{}, errPending
}

// ItemByID returns the item as stored.
func (s *Service) ItemByID(ctx context.Context, id dr.ItemID) (dr.Item, error) {
	return dr.Item{}, errPending
}

// Points lists an item's recovery points, newest first.
func (s *Service) Points(ctx context.Context, ref Ref, p Paging) (Page[dr.Point], error) {
	return Page[dr.Point]{}, errPending
}

// Point returns one recovery point by its GUID.
func (s *Service) Point(ctx context.Context, ref Ref, pointID string) (dr.Point, error) {
	return dr.Point{}, errPending
}

// Jobs lists a vault's jobs, newest first.
func (s *Service) Jobs(ctx context.Context, vaultID string, f JobFilter, p Paging) (Page[JobView], error) {
	return Page[JobView]{}, errPending
}

// Job returns one job.
func (s *Service) Job(ctx context.Context, vaultID, jobID string) (JobView, error) {
	return JobView{}, errPending
}

// CancelJob asks a job to stop. It returns the job's id.
func (s *Service) CancelJob(ctx context.Context, vaultID, jobID string) (string, error) {
	return "", errPending
}

// RestartJob runs a failed job again. It returns the job's id.
func (s *Service) RestartJob(ctx context.Context, vaultID, jobID string) (string, error) {
	return "", errPending
}

// ResumeJob lets a suspended job go on. It returns the job's id.
func (s *Service) ResumeJob(ctx context.Context, vaultID, jobID, comments string) (string, error) {
	return "", errPending
}

// ExportJobs writes the jobs into an artifact of a job.
func (s *Service) ExportJobs(ctx context.Context, vaultID string, f JobFilter) (string, error) {
	return "", errPending
}

// OperationStatus is replicationOperationStatus/{jobID}.
func (s *Service) OperationStatus(ctx context.Context, vaultID, jobID string) (OperationStatus, error) {
	return OperationStatus{}, errPending
}

// OperationResult is operationresults/{jobID} of any resource.
func (s *Service) OperationResult(ctx context.Context, vaultID, jobID string) (OperationResult, error) {
	return OperationResult{}, errPending
}

// PutArtifact keeps a file with a job. At most MaxArtifact bytes.
func (s *Service) PutArtifact(ctx context.Context, jobID, name string, content []byte) error {
	return errPending
}

// Artifact returns a job's file.
func (s *Service) Artifact(ctx context.Context, vaultID, jobID, name string) ([]byte, error) {
	return nil, errPending
}

// Events lists a vault's events, newest first.
func (s *Service) Events(ctx context.Context, vaultID string, f EventFilter, p Paging) (Page[dr.Event], error) {
	return Page[dr.Event]{}, errPending
}

// Event returns one event by its name.
func (s *Service) Event(ctx context.Context, vaultID, name string) (dr.Event, error) {
	return dr.Event{}, errPending
}

// CreateRegistrationKey makes a key that lets one agent or replicator enrol before it expires.
func (s *Service) CreateRegistrationKey(ctx context.Context, in RegistrationKeyInput) (RegistrationKey, error) {
	return RegistrationKey{}, errPending
}

// EnrolAgent consumes a registration key and makes the agent and its protectable item, in one transaction. fingerprint is a hash of the caller's public key: the same caller may repeat a request whose answer was lost.
func (s *Service) EnrolAgent(ctx context.Context, key, fingerprint string, m dr.Machine) (Enrolled, error) {
	return Enrolled{}, errPending
}

// EnrolReplicator consumes a registration key and makes the replicator, and a provider in the key's fabric.
func (s *Service) EnrolReplicator(ctx context.Context, key, fingerprint string, r dr.Replicator) (Enrolled, error) {
	return Enrolled{}, errPending
}

// EnsureReplicator makes the replicator with r.ID unless it exists: the embedded one needs no key.
func (s *Service) EnsureReplicator(ctx context.Context, r dr.Replicator) error {
	return errPending
}

// Agent returns an enrolled agent.
func (s *Service) Agent(ctx context.Context, id string) (dr.Agent, error) {
	return dr.Agent{}, errPending
}

// AgentSeen records an agent's report: its heartbeat, its machine and what it tells of each item. A machine that is not an item's active one is recorded as a stranger and changes nothing else.
func (s *Service) AgentSeen(ctx context.Context, agentID string, version string, m dr.Machine, observed []dr.Observed) error {
	return errPending
}

// AgentItems returns the items that the agent's machine is, with their policies.
func (s *Service) AgentItems(ctx context.Context, agentID string) ([]AgentItem, error) {
	return nil, errPending
}

// Replicator returns an enrolled replicator.
func (s *Service) Replicator(ctx context.Context, id string) (dr.Replicator, error) {
	return dr.Replicator{}, errPending
}

// Replicators lists all replicators.
func (s *Service) Replicators(ctx context.Context) ([]dr.Replicator, error) {
	return nil, errPending
}

// ReplicatorSeen records a replicator's report, which is its heartbeat.
func (s *Service) ReplicatorSeen(ctx context.Context, r dr.Replicator) error {
	return errPending
}

// RecordPoints puts points into the index. With complete, points are all of the item's: those it leaves out are forgotten. The first point of a leg makes the item Protected.
func (s *Service) RecordPoints(ctx context.Context, vaultID string, item dr.ItemID, points []dr.Point, complete bool) error {
	return errPending
}
