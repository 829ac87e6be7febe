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
	PutVault(ctx context.Context, key dr.VaultKey, in control.VaultInput) (control.PutVault, error)
	PatchVault(ctx context.Context, key dr.VaultKey, in control.VaultPatch) (dr.Vault, error)
	DeleteVault(ctx context.Context, key dr.VaultKey) error
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
	CreateRegistrationKey(ctx context.Context, in control.RegistrationKeyInput) (control.RegistrationKey, error)

	Provider(ctx context.Context, ref control.Ref) (control.ProviderView, error)
	Providers(ctx context.Context, ref control.Ref, p control.Paging) (control.Page[control.ProviderView], error)
	RemoveProvider(ctx context.Context, ref control.Ref) (string, error)
	RefreshProvider(ctx context.Context, ref control.Ref) (string, error)

	Container(ctx context.Context, ref control.Ref) (control.ContainerView, error)
	Containers(ctx context.Context, ref control.Ref, p control.Paging) (control.Page[control.ContainerView], error)
	Protectable(ctx context.Context, ref control.Ref) (control.ProtectableView, error)
	Protectables(ctx context.Context, ref control.Ref, state string, p control.Paging) (control.Page[control.ProtectableView], error)
	DiscoverProtectable(ctx context.Context, ref control.Ref, in control.DiscoverInput) (string, error)

	PutPolicy(ctx context.Context, ref control.Ref, in control.PolicyInput) (string, error)
	PatchPolicy(ctx context.Context, ref control.Ref, in control.PolicyInput) (string, error)
	Policy(ctx context.Context, ref control.Ref) (dr.Policy, error)
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
	CaptureNow(ctx context.Context, ref control.Ref) (string, error)
	Item(ctx context.Context, ref control.Ref) (control.ItemView, error)
	Items(ctx context.Context, ref control.Ref, f control.ItemFilter, p control.Paging) (control.Page[control.ItemView], error)

	Point(ctx context.Context, ref control.Ref, pointID string) (dr.Point, error)
	Points(ctx context.Context, ref control.Ref, p control.Paging) (control.Page[dr.Point], error)
	VerifyPoint(ctx context.Context, ref control.Ref, pointID string) (string, error)
	ExportPoint(ctx context.Context, ref control.Ref, pointID, format, directory string) (string, error)

	Job(ctx context.Context, vaultID, jobID string) (control.JobView, error)
	Jobs(ctx context.Context, vaultID string, f control.JobFilter, p control.Paging) (control.Page[control.JobView], error)
	CancelJob(ctx context.Context, vaultID, jobID string) (string, error)
	RestartJob(ctx context.Context, vaultID, jobID string) (string, error)
	ResumeJob(ctx context.Context, vaultID, jobID, comments string) (string, error)
	OperationStatus(ctx context.Context, vaultID, jobID string) (control.OperationStatus, error)
	OperationResult(ctx context.Context, vaultID, jobID string) (control.OperationResult, error)
	Artifact(ctx context.Context, vaultID, jobID, name string) ([]byte, error)

	Event(ctx context.Context, vaultID, name string) (dr.Event, error)
	Events(ctx context.Context, vaultID string, f control.EventFilter, p control.Paging) (control.Page[dr.Event], error)
}
