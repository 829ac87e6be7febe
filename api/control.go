package api

import (
	"context"
	"encoding/json"

	"github.com/lifeboat-dr/lifeboat/service/control"
	"github.com/lifeboat-dr/lifeboat/service/dr"
)

// Control is what the resource model needs of the control plane; *control.Service is it. Methods that change something return
// the name of the job that does it, or "" when it is done already; the job can be read when they return. Errors are *dr.Error;
// any other is taken for an internal fault.
type Control interface {
	// Note returns a context under which Vault, Container and Item note what they are made of.
	Note(ctx context.Context) (context.Context, *control.Basis)

	PutVault(ctx context.Context, key dr.VaultKey, in control.VaultInput) (control.PutVault, error)
	PatchVault(ctx context.Context, key dr.VaultKey, in control.VaultPatch) (dr.Vault, error)
	DeleteVaultIf(ctx context.Context, key dr.VaultKey, want control.Precondition) error
	Vault(ctx context.Context, key dr.VaultKey) (dr.Vault, error)
	Vaults(ctx context.Context, subscription, resourceGroup string, p control.Paging) (control.Page[dr.Vault], error)
	VaultHealth(ctx context.Context, vaultID string) (control.VaultHealth, error)
	ReissueRecoveryKey(ctx context.Context, vaultID string) (jobID, recoveryKey string, err error)
	RefreshVaultHealth(ctx context.Context, vaultID string) (string, error)

	PutFabric(ctx context.Context, ref control.Ref, in control.FabricInput) (string, error)
	Fabric(ctx context.Context, ref control.Ref) (control.FabricView, error)
	Fabrics(ctx context.Context, vaultID string, p control.Paging) (control.Page[control.FabricView], error)
	RemoveFabric(ctx context.Context, ref control.Ref) (string, error)
	CheckFabricConsistency(ctx context.Context, ref control.Ref) (string, error)
	MigrateToAad(ctx context.Context, ref control.Ref) (string, error)
	RenewCertificate(ctx context.Context, ref control.Ref, kind string) (string, error)
	ReassociateGateway(ctx context.Context, ref control.Ref, in control.ReassociateInput) (string, error)
	CreateRegistrationKey(ctx context.Context, in control.RegistrationKeyInput) (control.RegistrationKey, error)

	Provider(ctx context.Context, ref control.Ref) (control.ProviderView, error)
	Providers(ctx context.Context, ref control.Ref, p control.Paging) (control.Page[control.ProviderView], error)
	PutProvider(ctx context.Context, ref control.Ref, in control.ProviderInput) (string, error)
	RemoveProvider(ctx context.Context, ref control.Ref) (string, error)
	RefreshProvider(ctx context.Context, ref control.Ref) (string, error)

	Container(ctx context.Context, ref control.Ref) (control.ContainerView, error)
	Containers(ctx context.Context, ref control.Ref, p control.Paging) (control.Page[control.ContainerView], error)
	PutContainer(ctx context.Context, ref control.Ref, providers []string) (string, error)
	RemoveContainer(ctx context.Context, ref control.Ref) (string, error)
	SwitchProtection(ctx context.Context, ref control.Ref, item string, in json.RawMessage) (string, error)
	Protectable(ctx context.Context, ref control.Ref) (control.ProtectableView, error)
	Protectables(ctx context.Context, ref control.Ref, state string, p control.Paging) (control.Page[control.ProtectableView], error)
	DiscoverProtectable(ctx context.Context, ref control.Ref, in control.DiscoverInput) (string, error)

	PutPolicy(ctx context.Context, ref control.Ref, in control.PolicyInput) (string, error)
	PatchPolicy(ctx context.Context, ref control.Ref, in control.PolicyInput) (string, error)
	Policy(ctx context.Context, ref control.Ref) (dr.Policy, error)
	PutRecoveryPlan(ctx context.Context, ref control.Ref, in control.RecoveryPlanInput) (string, error)
	PatchRecoveryPlan(ctx context.Context, ref control.Ref, in control.RecoveryPlanInput) (string, error)
	DeleteRecoveryPlan(ctx context.Context, ref control.Ref) (string, error)
	RecoveryPlan(ctx context.Context, ref control.Ref) (control.RecoveryPlanView, error)
	RecoveryPlans(ctx context.Context, vaultID string, p control.Paging) (control.Page[control.RecoveryPlanView], error)
	FailOverPlan(ctx context.Context, ref control.Ref, op dr.Operation, in control.RecoveryPlanFailoverInput) (string, error)
	CleanUpPlan(ctx context.Context, ref control.Ref, in control.CleanupInput) (string, error)
	CommitPlan(ctx context.Context, ref control.Ref) (string, error)
	CancelPlan(ctx context.Context, ref control.Ref) (string, error)
	ReprotectPlan(ctx context.Context, ref control.Ref) (string, error)
	Policies(ctx context.Context, vaultID string, p control.Paging) (control.Page[dr.Policy], error)
	DeletePolicy(ctx context.Context, ref control.Ref) (string, error)

	PutMapping(ctx context.Context, ref control.Ref, in control.MappingInput) (string, error)
	PatchMapping(ctx context.Context, ref control.Ref, in json.RawMessage) (string, error)
	Mapping(ctx context.Context, ref control.Ref) (control.MappingView, error)
	Mappings(ctx context.Context, ref control.Ref, p control.Paging) (control.Page[control.MappingView], error)
	RemoveMapping(ctx context.Context, ref control.Ref) (string, error)

	Enable(ctx context.Context, ref control.Ref, in control.EnableInput) (string, error)
	UpdateItem(ctx context.Context, ref control.Ref, in control.UpdateInput) (string, error)
	TestFailover(ctx context.Context, ref control.Ref, in control.TestFailoverInput) (string, error)
	TestFailoverCleanup(ctx context.Context, ref control.Ref, in control.CleanupInput) (string, error)
	PlannedFailover(ctx context.Context, ref control.Ref, in control.FailoverInput) (string, error)
	UnplannedFailover(ctx context.Context, ref control.Ref, in control.FailoverInput) (string, error)
	ApplyRecoveryPoint(ctx context.Context, ref control.Ref, in control.ApplyPointInput) (string, error)
	FailoverCommit(ctx context.Context, ref control.Ref) (string, error)
	FailoverCancel(ctx context.Context, ref control.Ref) (string, error)
	Reprotect(ctx context.Context, ref control.Ref, in control.ReprotectInput) (string, error)
	RepairReplication(ctx context.Context, ref control.Ref) (string, error)
	RemoveItem(ctx context.Context, ref control.Ref, in control.RemoveInput) (string, error)
	PurgeItem(ctx context.Context, ref control.Ref) (string, error)
	AddDisks(ctx context.Context, ref control.Ref, in json.RawMessage) (string, error)
	RemoveDisks(ctx context.Context, ref control.Ref, in json.RawMessage) (string, error)
	ResolveHealthErrors(ctx context.Context, ref control.Ref, in control.HealthResolution) (string, error)
	SwitchProvider(ctx context.Context, ref control.Ref, in control.ProviderSwitch) (string, error)
	UpdateAppliance(ctx context.Context, ref control.Ref, in control.ApplianceInput) (string, error)
	UpdateMobilityService(ctx context.Context, ref control.Ref) (string, error)
	ReinstallMobilityService(ctx context.Context, ref control.Ref) (string, error)
	CaptureNow(ctx context.Context, ref control.Ref) (string, error)
	Item(ctx context.Context, ref control.Ref) (control.ItemView, error)
	Items(ctx context.Context, ref control.Ref, f control.ItemFilter, p control.Paging) (control.Page[control.ItemView], error)

	Point(ctx context.Context, ref control.Ref, pointID string) (dr.Point, error)
	Points(ctx context.Context, ref control.Ref, p control.Paging) (control.Page[dr.Point], error)
	VerifyPoint(ctx context.Context, ref control.Ref, pointID string) (string, error)
	ExportPoint(ctx context.Context, ref control.Ref, pointID, format, directory string) (string, error)

	Job(ctx context.Context, vaultID, jobID string) (control.JobView, error)
	Jobs(ctx context.Context, vaultID string, f control.JobFilter, p control.Paging) (control.Page[control.JobView], error)
	ExportJobs(ctx context.Context, vaultID string, in control.ExportInput) (string, error)
	CancelJob(ctx context.Context, vaultID, jobID string) (string, error)
	RestartJob(ctx context.Context, vaultID, jobID string) (string, error)
	ResumeJob(ctx context.Context, vaultID, jobID, comments string) (string, error)
	OperationStatus(ctx context.Context, vaultID, jobID string) (control.OperationStatus, error)
	OperationResult(ctx context.Context, vaultID, jobID string) (control.OperationResult, error)
	Artifact(ctx context.Context, vaultID, jobID, name string) ([]byte, error)

	Event(ctx context.Context, vaultID, name string) (dr.Event, error)
	Events(ctx context.Context, vaultID string, f control.EventFilter, p control.Paging) (control.Page[dr.Event], error)

	Sites
	VaultExtras
}

// Sites is what sites consist of besides machines. The network, or class of storage, that a mapping belongs to is named beside
// the mapping's Ref.
type Sites interface {
	PutVCenter(ctx context.Context, ref control.Ref, in control.VCenterInput) (string, error)
	PatchVCenter(ctx context.Context, ref control.Ref, in control.VCenterInput) (string, error)
	VCenter(ctx context.Context, ref control.Ref) (control.VCenterView, error)
	VCenters(ctx context.Context, ref control.Ref, p control.Paging) (control.Page[control.VCenterView], error)
	RemoveVCenter(ctx context.Context, ref control.Ref) (string, error)

	Network(ctx context.Context, ref control.Ref) (control.NetworkView, error)
	Networks(ctx context.Context, ref control.Ref, p control.Paging) (control.Page[control.NetworkView], error)
	LogicalNetwork(ctx context.Context, ref control.Ref) (dr.LogicalNetwork, error)
	LogicalNetworks(ctx context.Context, ref control.Ref, p control.Paging) (control.Page[dr.LogicalNetwork], error)
	PutNetworkMapping(ctx context.Context, ref control.Ref, network string, in control.NetworkMappingInput) (string, error)
	PatchNetworkMapping(ctx context.Context, ref control.Ref, network string, in control.NetworkMappingInput) (string, error)
	NetworkMapping(ctx context.Context, ref control.Ref, network string) (control.NetworkMappingView, error)
	NetworkMappings(ctx context.Context, ref control.Ref, network string, p control.Paging) (control.Page[control.NetworkMappingView], error)
	RemoveNetworkMapping(ctx context.Context, ref control.Ref, network string) (string, error)

	StorageClassification(ctx context.Context, ref control.Ref) (dr.StorageClassification, error)
	StorageClassifications(ctx context.Context, ref control.Ref, p control.Paging) (control.Page[dr.StorageClassification], error)
	PutStorageMapping(ctx context.Context, ref control.Ref, class, targetID string) (string, error)
	StorageMapping(ctx context.Context, ref control.Ref, class string) (dr.StorageMapping, error)
	StorageMappings(ctx context.Context, ref control.Ref, class string, p control.Paging) (control.Page[dr.StorageMapping], error)
	RemoveStorageMapping(ctx context.Context, ref control.Ref, class string) (string, error)
}

// VaultExtras is what hangs on a vault besides its fabrics, items and jobs. None of it makes jobs of its own.
type VaultExtras interface {
	PutAlertSetting(ctx context.Context, vaultID, name string, in control.AlertInput) (dr.AlertSetting, error)
	AlertSetting(ctx context.Context, vaultID, name string) (dr.AlertSetting, error)
	PutVaultSetting(ctx context.Context, vaultID, name string, in control.VaultSetting) (control.VaultSetting, error)
	VaultSetting(ctx context.Context, vaultID, name string) (control.VaultSetting, error)
	VaultSettings(ctx context.Context, vaultID string) ([]control.VaultSetting, error)

	PutIntent(ctx context.Context, vaultID, name string, in control.IntentInput) (control.IntentView, error)
	Intent(ctx context.Context, vaultID, name string) (control.IntentView, error)
	Intents(ctx context.Context, vaultID string, p control.Paging) (control.Page[control.IntentView], error)
	Eligibility(ctx context.Context, subscription, resourceGroup, machine string) ([]dr.Obstacle, error)

	VaultUsage(ctx context.Context, vaultID string) (control.VaultUsage, error)
	PutExtendedInfo(ctx context.Context, vaultID string, in control.ExtendedInfo, merge bool) (control.ExtendedInfo, int64, error)
	ExtendedInfo(ctx context.Context, vaultID string) (control.ExtendedInfo, int64, error)
	PutCredential(ctx context.Context, vaultID, name string, certificate []byte) error
	Unregister(ctx context.Context, vaultID, name string) error
	VaultNameFree(ctx context.Context, key dr.VaultKey) (free bool, reason, message string, err error)
}
