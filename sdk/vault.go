package sdk

import (
	"context"
	"iter"
	"net/http"

	"github.com/lifeboat-dr/lifeboat/sdk/oas"
)

// Resources, as the server sends them.
type (
	// Vault is the top of the tree.
	Vault = oas.Vault
	// Fabric is a site.
	Fabric = oas.Fabric
	// Container is a group of machines of a fabric.
	Container = oas.ProtectionContainer
	// Machine is a machine that can be protected.
	Machine = oas.ProtectableItem
	// Policy is replication settings.
	Policy = oas.Policy
	// Mapping puts the machines of a container under a policy.
	Mapping = oas.ProtectionContainerMapping
	// RecoveryPlan is an ordered list of groups of machines, with actions between them.
	RecoveryPlan = oas.RecoveryPlan
	// Item is a protected machine.
	Item = oas.ReplicationProtectedItem
	// Point is a recovery point.
	Point = oas.RecoveryPoint
	// Job is one asynchronous operation.
	Job = oas.Job
	// Artifact is what a job kept.
	Artifact = oas.JobArtifact
	// Event is something a person may want to know.
	Event = oas.Event
	// Health is the health of everything in a vault.
	Health = oas.VaultHealthDetails
	// RegistrationKey is what an agent or a replicator enrols with, once.
	RegistrationKey = oas.RegistrationKey
)

// recoveryKeyHeader carries a new recovery key, once.
const recoveryKeyHeader = "Lifeboat-Recovery-Key"

// CreateVault creates the client's vault. recoveryKey is what reads the bucket when everything else is lost; the server shows
// it in this one answer and never again. It is empty when the vault was there before. An answer that is lost on its way takes
// the key with it, so this request is never repeated by itself; ReissueRecoveryKey makes another key then.
func (c *Client) CreateVault(ctx context.Context, location string, tags map[string]string) (v Vault, recoveryKey string, _ error) {
	in := oas.Vault{Location: location, Tags: tags, Sku: oas.Sku{Name: "Standard"}}
	resp, err := c.api.VaultsCreateOrUpdate(once(ctx), c.subscription, c.group, c.v, nil, in)
	if err == nil {
		recoveryKey = resp.Header.Get(recoveryKeyHeader)
	}
	v, err = decode[Vault](resp, err)
	return v, recoveryKey, err
}

// ReissueRecoveryKey makes a new recovery key for the client's vault, for one that was lost or that somebody may have seen. The
// server shows it in this one answer. It opens the bucket when the operation has succeeded, and the key before no longer does;
// until then, or when the operation fails, keep both. The request is never repeated by itself; after a lost answer ask again.
func (c *Client) ReissueRecoveryKey(ctx context.Context) (recoveryKey string, _ *Operation, _ error) {
	resp, err := c.api.VaultsReissueRecoveryKey(once(ctx), c.subscription, c.group, c.v, nil)
	if err == nil {
		recoveryKey = resp.Header.Get(recoveryKeyHeader)
	}
	op, err := c.begin(resp, err)
	return recoveryKey, op, err
}

// Vault reads the client's vault.
func (c *Client) Vault(ctx context.Context) (Vault, error) {
	return decode[Vault](c.api.VaultsGet(ctx, c.subscription, c.group, c.v, nil))
}

// Vaults lists the vaults of the client's resource group.
func (c *Client) Vaults(ctx context.Context) iter.Seq2[Vault, error] {
	return pages[Vault](ctx, c, func() (*http.Response, error) {
		return c.api.VaultsListByResourceGroup(ctx, c.subscription, c.group, nil)
	})
}

// DeleteVault deletes the client's vault, which must be empty. Its bucket stays as it is.
func (c *Client) DeleteVault(ctx context.Context) error {
	_, err := c.begin(c.api.VaultsDelete(ctx, c.subscription, c.group, c.v, nil))
	return err
}

// Health reads the health of everything in the vault.
func (c *Client) Health(ctx context.Context) (Health, error) {
	return decode[Health](c.api.ReplicationVaultHealthGet(ctx, c.subscription, c.group, c.v, nil))
}

// EventFilter narrows a list of events; empty fields do not.
type EventFilter struct{ Severity, Type, Object string }

// Events lists events, newest first.
func (c *Client) Events(ctx context.Context, f EventFilter) iter.Seq2[Event, error] {
	p := &oas.ReplicationEventsListParams{Filter: filter("severity", f.Severity, "eventType", f.Type, "affectedObjectFriendlyName", f.Object)}
	return pages[Event](ctx, c, func() (*http.Response, error) {
		return c.api.ReplicationEventsList(ctx, c.subscription, c.group, c.v, p)
	})
}
