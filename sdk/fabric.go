package sdk

import (
	"context"
	"fmt"
	"iter"
	"net/http"
	"strings"

	"github.com/lifeboat-dr/lifeboat/sdk/oas"
)

// ProviderGuest is the provider type of machines with the guest agent, ProviderGuestBack that of their way home.
const (
	ProviderGuest     = "InMageRcm"
	ProviderGuestBack = "InMageRcmFailback"
	// ProviderHost is that of machines that an agent on their hypervisor replicates, in a fabric of kind FabricHost.
	ProviderHost = "HyperVReplicaAzure"
	FabricHost   = "HyperVSite"
)

// CreateFabric creates a site. kind is an instanceType; empty means a site of machines with the guest agent.
func (c *Client) CreateFabric(ctx context.Context, name, kind string) (*Operation, error) {
	in := oas.FabricCreationInput{}
	if err := in.Properties.CustomDetails.FromOtherFabricCreationInput(oas.OtherFabricCreationInput{InstanceType: or(kind, ProviderGuest)}); err != nil {
		return nil, err
	}
	return c.begin(c.api.ReplicationFabricsCreate(ctx, c.subscription, c.group, c.v, name, nil, in))
}

// Fabric reads a site.
func (c *Client) Fabric(ctx context.Context, name string) (Fabric, error) {
	return decode[Fabric](c.api.ReplicationFabricsGet(ctx, c.subscription, c.group, c.v, name, nil))
}

// Fabrics lists the sites of the vault.
func (c *Client) Fabrics(ctx context.Context) iter.Seq2[Fabric, error] {
	return pages[Fabric](ctx, c, func() (*http.Response, error) {
		return c.api.ReplicationFabricsList(ctx, c.subscription, c.group, c.v, nil)
	})
}

// DeleteFabric removes a site that no machine is protected in.
func (c *Client) DeleteFabric(ctx context.Context, name string) (*Operation, error) {
	return c.begin(c.api.ReplicationFabricsDelete(ctx, c.subscription, c.group, c.v, name, nil))
}

// ClearFabric takes the containers of a site off their policies, as its removal asks for. It does nothing while machines are
// protected in it.
func (c *Client) ClearFabric(ctx context.Context, name string) error {
	containers, err := Collect(c.Containers(ctx, name))
	if err != nil {
		return err
	}
	for _, k := range containers {
		if n := k.Properties.ProtectedItemCount; n != nil && *n > 0 {
			return nil
		}
	}
	for _, k := range containers {
		ref := ContainerRef{name, k.Name}
		mappings, err := Collect(c.Mappings(ctx, ref))
		if err != nil {
			return err
		}
		for _, m := range mappings {
			if err := c.done(ctx)(c.DeleteMapping(ctx, ref, m.Name)); err != nil {
				return err
			}
		}
	}
	return nil
}

// CreateRegistrationKey makes a key with which one part of the site may enrol once. role is agent or replicator.
func (c *Client) CreateRegistrationKey(ctx context.Context, fabric, role string) (RegistrationKey, error) {
	in := oas.GenerateRegistrationKeyInput{Properties: oas.GenerateRegistrationKeyInputProperties{Role: oas.GenerateRegistrationKeyInputPropertiesRole(role)}}
	return decode[RegistrationKey](c.api.ReplicationFabricsGenerateRegistrationKey(ctx, c.subscription, c.group, c.v, fabric, nil, in))
}

// OnlyFabric is the vault's fabric when it has just one. Otherwise it is an *Error with CodeNotFound or CodeAmbiguous.
func (c *Client) OnlyFabric(ctx context.Context) (Fabric, error) {
	all, err := Collect(c.Fabrics(ctx))
	if err != nil {
		return Fabric{}, err
	}
	switch len(all) {
	case 0:
		return Fabric{}, &Error{Code: CodeNotFound, Message: "vault " + c.v + " has no fabric", PossibleCauses: "none was created yet", RecommendedAction: "create a fabric"}
	case 1:
		return all[0], nil
	}
	names := make([]string, len(all))
	for i, f := range all {
		names[i] = f.Name
	}
	return Fabric{}, ambiguous("vault "+c.v+" has several fabrics", "they are "+strings.Join(names, ", "), "name one of them")
}

// Containers lists the containers of a fabric.
func (c *Client) Containers(ctx context.Context, fabric string) iter.Seq2[Container, error] {
	return pages[Container](ctx, c, func() (*http.Response, error) {
		return c.api.ReplicationProtectionContainersListByReplicationFabrics(ctx, c.subscription, c.group, c.v, fabric, nil)
	})
}

// OnlyContainer is the fabric's container when it has just one, as sites of machines with the guest agent have.
func (c *Client) OnlyContainer(ctx context.Context, fabric string) (ContainerRef, error) {
	all, err := Collect(c.Containers(ctx, fabric))
	if err != nil {
		return ContainerRef{}, err
	}
	if len(all) != 1 {
		return ContainerRef{}, ambiguous(fmt.Sprintf("fabric %s has %d containers", fabric, len(all)), "only a fabric with one container chooses by itself", "name the container")
	}
	return ContainerRef{fabric, all[0].Name}, nil
}

// AddMachine makes a machine known by its address. os is Linux or Windows.
func (c *Client) AddMachine(ctx context.Context, in ContainerRef, name, address, os string) (*Operation, error) {
	body := oas.DiscoverProtectableItemRequest{Properties: oas.DiscoverProtectableItemRequestProperties{FriendlyName: name, IpAddress: address, OsType: os}}
	return c.begin(c.api.ReplicationProtectionContainersDiscoverProtectableItem(ctx, c.subscription, c.group, c.v, in.Fabric, in.Name, nil, body))
}

// Machines lists the machines of a container. state is Protected, Unprotected, or empty for both.
func (c *Client) Machines(ctx context.Context, in ContainerRef, state string) iter.Seq2[Machine, error] {
	p := &oas.ReplicationProtectableItemsListByReplicationProtectionContainersParams{Filter: filter("state", state)}
	return pages[Machine](ctx, c, func() (*http.Response, error) {
		return c.api.ReplicationProtectableItemsListByReplicationProtectionContainers(ctx, c.subscription, c.group, c.v, in.Fabric, in.Name, p)
	})
}

// FindMachine is the machine of a container with a name, its own or the one for people.
func (c *Client) FindMachine(ctx context.Context, in ContainerRef, name string) (Machine, error) {
	var found []Machine
	for m, err := range c.Machines(ctx, in, "") {
		if err != nil {
			return Machine{}, err
		}
		if strings.EqualFold(m.Name, name) {
			return m, nil
		}
		if strings.EqualFold(m.Properties.FriendlyName, name) {
			found = append(found, m)
		}
	}
	switch len(found) {
	case 0:
		return Machine{}, notFound("machine", name, "fabric "+in.Fabric, "enrol its agent, or add it by its address; then list the machines")
	case 1:
		return found[0], nil
	}
	return Machine{}, ambiguous(fmt.Sprintf("%d machines are called %q", len(found), name), "friendly names need not differ", "use the machine's name, as the list of machines has it")
}

// filter joins properties with values as the server reads them. Pairs without a value are left out.
func filter(pairs ...string) string {
	var b []string
	for i := 0; i+1 < len(pairs); i += 2 {
		if v := pairs[i+1]; v != "" {
			b = append(b, pairs[i]+" eq '"+strings.ReplaceAll(v, "'", "''")+"'")
		}
	}
	return strings.Join(b, " and ")
}
