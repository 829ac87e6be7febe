package sdk

import (
	"context"
	"fmt"
	"iter"
	"net/http"
	"strings"

	"github.com/lifeboat-dr/lifeboat/sdk/oas"
)

// Item reads a protected machine.
func (c *Client) Item(ctx context.Context, i ItemRef) (Item, error) {
	return decode[Item](c.api.ReplicationProtectedItemsGet(ctx, c.subscription, c.group, c.v, i.Fabric, i.Container, i.Name, nil))
}

// Items lists the protected machines of the vault, or of one fabric when it is named.
func (c *Client) Items(ctx context.Context, fabric string) iter.Seq2[Item, error] {
	p := &oas.ReplicationProtectedItemsListParams{Filter: filter("sourceFabricName", fabric)}
	return pages[Item](ctx, c, func() (*http.Response, error) {
		return c.api.ReplicationProtectedItemsList(ctx, c.subscription, c.group, c.v, p)
	})
}

// FindItem is the protected machine with a name, its own or the one for people, in the vault or in one fabric.
func (c *Client) FindItem(ctx context.Context, fabric, name string) (Item, error) {
	var found []Item
	for i, err := range c.Items(ctx, fabric) {
		if err != nil {
			return Item{}, err
		}
		if strings.EqualFold(i.Name, name) || strings.EqualFold(i.Properties.FriendlyName, name) || strings.EqualFold(i.Id, name) {
			found = append(found, i)
		}
	}
	switch len(found) {
	case 0:
		return Item{}, notFound("protected machine", name, "vault "+c.v, "list the protected machines")
	case 1:
		return found[0], nil
	}
	return Item{}, ambiguous(fmt.Sprintf("%d protected machines are called %q", len(found), name), "they are in several fabrics", "name the fabric")
}

// EnableInput says how a machine is protected.
type EnableInput struct {
	Machine       string // id of the machine
	Policy        string // name of a policy that the container is mapped to
	TargetName    string // of the machine started in a failover; empty takes the machine's
	TargetNetwork string
	TestNetwork   string
	ProcessServer string   // replicator that takes the data; empty lets the server choose
	Disks         []string // ids of the disks to protect; empty takes all
	Group         string   // consistency group: its machines are captured at one moment, if their policies say so; not of ProviderHost
	Provider      string   // ProviderGuest or ProviderHost; empty is ProviderGuest
}

// Enable protects a machine.
func (c *Client) Enable(ctx context.Context, i ItemRef, in EnableInput) (*Operation, error) {
	if in.Provider == ProviderHost {
		return c.enableHosted(ctx, i, in)
	}
	provider := oas.InMageRcmEnableProtectionInput{InstanceType: ProviderGuest, FabricDiscoveryMachineId: in.Machine, ProcessServerId: or(in.ProcessServer, "any"),
		TargetResourceGroupId: "/subscriptions/" + c.subscription + "/resourceGroups/" + c.group, TargetVmName: in.TargetName, TargetNetworkId: in.TargetNetwork, TestNetworkId: in.TestNetwork, MultiVmGroupName: in.Group}
	for _, d := range in.Disks {
		provider.DisksToInclude = append(provider.DisksToInclude, oas.InMageRcmDiskInput{DiskId: d, DiskType: oas.StandardSSDLRS, LogStorageAccountId: "default"})
	}
	body := oas.EnableProtectionInput{Properties: oas.EnableProtectionInputProperties{PolicyId: c.policyID(in.Policy), ProtectableItemId: in.Machine}}
	if err := body.Properties.ProviderSpecificDetails.FromInMageRcmEnableProtectionInput(provider); err != nil {
		return nil, err
	}
	return c.begin(c.api.ReplicationProtectedItemsCreate(ctx, c.subscription, c.group, c.v, i.Fabric, i.Container, i.Name, nil, body))
}

func (c *Client) enableHosted(ctx context.Context, i ItemRef, in EnableInput) (*Operation, error) {
	body := oas.EnableProtectionInput{Properties: oas.EnableProtectionInputProperties{PolicyId: c.policyID(in.Policy), ProtectableItemId: in.Machine}}
	err := body.Properties.ProviderSpecificDetails.FromHyperVReplicaAzureEnableProtectionInput(oas.HyperVReplicaAzureEnableProtectionInput{InstanceType: ProviderHost,
		DisksToInclude: in.Disks, TargetAzureVmName: in.TargetName, TargetAzureNetworkId: in.TargetNetwork})
	if err != nil {
		return nil, err
	}
	return c.begin(c.api.ReplicationProtectedItemsCreate(ctx, c.subscription, c.group, c.v, i.Fabric, i.Container, i.Name, nil, body))
}

// Remove ends the protection of a machine and drops its points.
func (c *Client) Remove(ctx context.Context, i ItemRef) (*Operation, error) {
	in := oas.DisableProtectionInput{Properties: oas.DisableProtectionInputProperties{DisableProtectionReason: oas.DisableProtectionInputPropertiesDisableProtectionReasonNotSpecified}}
	return c.begin(c.api.ReplicationProtectedItemsDelete(ctx, c.subscription, c.group, c.v, i.Fabric, i.Container, i.Name, nil, in))
}

// Purge forgets a protected machine whatever its state, without a word to its agent.
func (c *Client) Purge(ctx context.Context, i ItemRef) (*Operation, error) {
	return c.begin(c.api.ReplicationProtectedItemsPurge(ctx, c.subscription, c.group, c.v, i.Fabric, i.Container, i.Name, nil))
}

// AddDisks replicates further disks of a machine of ProviderGuest; the next point has them.
func (c *Client) AddDisks(ctx context.Context, i ItemRef, disks ...string) (*Operation, error) {
	provider := oas.InMageRcmAddDisksInput{InstanceType: ProviderGuest, Disks: []oas.InMageRcmDiskInput{}}
	for _, d := range disks {
		provider.Disks = append(provider.Disks, oas.InMageRcmDiskInput{DiskId: d, DiskType: oas.StandardSSDLRS, LogStorageAccountId: "default"})
	}
	var body oas.AddDisksInput
	if err := body.Properties.ProviderSpecificDetails.FromInMageRcmAddDisksInput(provider); err != nil {
		return nil, err
	}
	return c.begin(c.api.ReplicationProtectedItemsAddDisks(ctx, c.subscription, c.group, c.v, i.Fabric, i.Container, i.Name, nil, body))
}

// RemoveDisks stops replicating disks of a machine of ProviderGuest; points that have them keep them.
func (c *Client) RemoveDisks(ctx context.Context, i ItemRef, disks ...string) (*Operation, error) {
	var body oas.RemoveDisksInput
	if err := body.Properties.ProviderSpecificDetails.FromInMageRcmRemoveDisksInput(oas.InMageRcmRemoveDisksInput{InstanceType: ProviderGuest, DiskIds: disks}); err != nil {
		return nil, err
	}
	return c.begin(c.api.ReplicationProtectedItemsRemoveDisks(ctx, c.subscription, c.group, c.v, i.Fabric, i.Container, i.Name, nil, body))
}

// Repair compares the machine's disks with its newest point and sends what differs. It is refused when there is no need of it:
// allowedOperations tells.
func (c *Client) Repair(ctx context.Context, i ItemRef) (*Operation, error) {
	return c.begin(c.api.ReplicationProtectedItemsRepairReplication(ctx, c.subscription, c.group, c.v, i.Fabric, i.Container, i.Name, nil))
}

// Capture takes a recovery point now.
func (c *Client) Capture(ctx context.Context, i ItemRef) (*Operation, error) {
	return c.begin(c.api.ReplicationProtectedItemsCaptureNow(ctx, c.subscription, c.group, c.v, i.Fabric, i.Container, i.Name, nil))
}

// ProviderOf is the provider type of the leg that an item is on, such as ProviderGuest.
func ProviderOf(i Item) string {
	kind, err := i.Properties.ProviderSpecificDetails.Discriminator()
	if err != nil {
		return "" // an item without details has no provider
	}
	return kind
}
