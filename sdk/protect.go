package sdk

import (
	"context"
	"strings"
)

// ProtectInput says what Protect is to do. Only Machine is required.
type ProtectInput struct {
	Machine string // name of the machine, its own or the one for people
	Fabric  string // empty takes the vault's only fabric
	Policy  string // made with Settings when it is not there; empty takes the container's only one, or "default"
	// Settings are of the policy, should it be made.
	Settings PolicySettings
	// Item is the name of the protected machine; empty takes the machine's.
	Item string
	// Enable is the rest; its Machine and Policy are filled in.
	Enable EnableInput
}

// defaultPolicy is the name of the policy that Protect makes when it is told nothing.
const defaultPolicy = "default"

// Protect does the whole chore of protecting a machine: it finds the machine in the fabric's only container, makes the policy
// and the mapping that are missing, and enables protection. What was made stays when a later step is refused, and is found
// again the next time.
func (c *Client) Protect(ctx context.Context, in ProtectInput) (ItemRef, *Operation, error) {
	find := c.OnlyFabric
	if in.Fabric != "" {
		find = func(ctx context.Context) (Fabric, error) { return c.Fabric(ctx, in.Fabric) }
	}
	f, err := find(ctx)
	if err != nil {
		return ItemRef{}, nil, err
	}
	in.Fabric = f.Name
	if kind, err := f.Properties.CustomDetails.Discriminator(); err == nil && kind == FabricHost {
		in.Enable.Provider, in.Settings.Host = ProviderHost, true
	}
	container, err := c.OnlyContainer(ctx, in.Fabric)
	if err != nil {
		return ItemRef{}, nil, err
	}
	m, err := c.FindMachine(ctx, container, in.Machine)
	if err != nil {
		return ItemRef{}, nil, err
	}
	if in.Enable.Policy, err = c.mapped(ctx, container, in); err != nil {
		return ItemRef{}, nil, err
	}
	in.Enable.Machine = m.Id
	ref := ItemRef{container.Fabric, container.Name, or(in.Item, or(m.Properties.FriendlyName, m.Name))}
	op, err := c.Enable(ctx, ref, in.Enable)
	return ref, op, err
}

// mapped is the name of a policy that the container is under, after it was put there if need be.
func (c *Client) mapped(ctx context.Context, container ContainerRef, in ProtectInput) (string, error) {
	var forward []string
	for m, err := range c.Mappings(ctx, container) {
		if err != nil {
			return "", err
		}
		if kind, err := m.Properties.ProviderSpecificDetails.Discriminator(); err == nil && kind == or(in.Enable.Provider, ProviderGuest) {
			forward = append(forward, nameOf(m.Properties.PolicyId))
		}
	}
	policy := in.Policy
	if policy == "" {
		switch len(forward) {
		case 0:
			policy = defaultPolicy
		case 1:
			return forward[0], nil
		default:
			return "", ambiguous("the container is under several policies", "they are "+strings.Join(forward, ", "), "name one of them")
		}
	}
	for _, name := range forward {
		if strings.EqualFold(name, policy) {
			return name, nil
		}
	}
	if _, err := c.Policy(ctx, policy); IsNotFound(err) {
		if err := c.done(ctx)(c.CreatePolicy(ctx, policy, in.Settings)); err != nil {
			return "", err
		}
	} else if err != nil {
		return "", err
	}
	return policy, c.done(ctx)(c.CreateMapping(ctx, container, policy, policy))
}

// done waits for an operation that was just begun.
func (c *Client) done(ctx context.Context) func(*Operation, error) error {
	return func(o *Operation, err error) error {
		if err == nil {
			_, err = o.Wait(ctx, nil)
		}
		return err
	}
}
