package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/lifeboat-dr/lifeboat/sdk"
)

func fabricKind(f sdk.Fabric) string {
	kind, err := f.Properties.CustomDetails.Discriminator()
	if err != nil {
		return "" // a fabric without details
	}
	return kind
}

var fabricColumns = []column[sdk.Fabric]{
	{"name", func(f sdk.Fabric) string { return f.Name }},
	{"kind", fabricKind},
	{"health", func(f sdk.Fabric) string { return f.Properties.Health }},
	{"replicators", func(f sdk.Fabric) string { return strings.Join(replicators(f), ", ") }},
	{"agents", func(f sdk.Fabric) string {
		d, err := f.Properties.CustomDetails.AsInMageRcmFabricSpecificDetails()
		if err != nil {
			return "" // another kind of site
		}
		return fmt.Sprint(len(d.AgentDetails))
	}},
}

func replicators(f sdk.Fabric) (names []string) {
	d, err := f.Properties.CustomDetails.AsInMageRcmFabricSpecificDetails()
	if err != nil {
		return nil // another kind of site
	}
	for _, p := range d.ProcessServers {
		names = append(names, name(p.Name, p.Id))
	}
	return names
}

var fabricDetails = append(fabricColumns[:len(fabricColumns):len(fabricColumns)],
	column[sdk.Fabric]{"master targets", func(f sdk.Fabric) string {
		d, err := f.Properties.CustomDetails.AsInMageRcmFabricSpecificDetails()
		if err != nil {
			return "" // another kind of site
		}
		var list []string
		for _, t := range d.ReprotectAgents {
			list = append(list, fmt.Sprintf("%s (datastores: %s)", name(t.Name, t.Id), strings.Join(t.AccessibleDatastores, ", ")))
		}
		return strings.Join(list, "; ")
	}},
	column[sdk.Fabric]{"problems", func(f sdk.Fabric) string {
		var list []string
		for _, e := range f.Properties.HealthErrorDetails {
			list = append(list, e.ErrorMessage)
		}
		return strings.Join(list, "; ")
	}},
	column[sdk.Fabric]{"id", func(f sdk.Fabric) string { return f.Id }})

func (a *app) fabricCommand() *cobra.Command {
	var kind string
	create := verb("create NAME", "Create a site", func(ctx context.Context, args []string) error {
		c, err := a.client(ctx)
		if err != nil {
			return err
		}
		op, err := c.CreateFabric(ctx, args[0], kind)
		if err := done(ctx, op, err); err != nil {
			return err
		}
		f, err := c.Fabric(ctx, args[0])
		if err != nil {
			return err
		}
		return showOne(a, f, fabricDetails)
	})
	create.Flags().StringVar(&kind, "kind", sdk.ProviderGuest, "kind of site: InMageRcm for machines with the guest agent")
	list := verb("list", "List the sites of the vault", func(ctx context.Context, _ []string) error {
		c, err := a.client(ctx)
		if err != nil {
			return err
		}
		all, err := sdk.Collect(c.Fabrics(ctx))
		if err != nil {
			return err
		}
		return showList(a, all, fabricColumns)
	})
	show := verb("show NAME", "Show a site and what is enrolled in it", func(ctx context.Context, args []string) error {
		c, err := a.client(ctx)
		if err != nil {
			return err
		}
		f, err := c.Fabric(ctx, args[0])
		if err != nil {
			return err
		}
		return showOne(a, f, fabricDetails)
	})
	remove := verb("delete NAME", "Delete a site in which no machine is protected", func(ctx context.Context, args []string) error {
		c, err := a.client(ctx)
		if err != nil {
			return err
		}
		if err := c.ClearFabric(ctx, args[0]); err != nil {
			return err
		}
		op, err := c.DeleteFabric(ctx, args[0])
		return done(ctx, op, err)
	})
	return group("fabric", "Sites", create, list, show, remove)
}

func (a *app) keyCommand() *cobra.Command {
	var fabric, role string
	create := verb("create", "Make a key with which one agent or replicator may enrol, once", func(ctx context.Context, _ []string) error {
		if role != "agent" && role != "replicator" {
			return &usageError{fmt.Sprintf("--role is %q: use agent or replicator", role)}
		}
		c, err := a.client(ctx)
		if err != nil {
			return err
		}
		if fabric, err = a.chosenFabric(ctx, c, fabric); err != nil {
			return err
		}
		k, err := c.CreateRegistrationKey(ctx, fabric, role)
		if err != nil {
			return err
		}
		return showOne(a, k, []column[sdk.RegistrationKey]{
			{"registration key", func(k sdk.RegistrationKey) string { return k.RegistrationKey }},
			{"valid until", func(k sdk.RegistrationKey) string { return when(k.ValidUntil) }},
			{"control address", func(k sdk.RegistrationKey) string { return k.ControlAddress }},
			{"CA SHA-256", func(k sdk.RegistrationKey) string { return k.CaSha256 }},
		})
	})
	create.Flags().StringVar(&fabric, "fabric", "", "site to enrol in (default: the only one)")
	create.Flags().StringVar(&role, "role", "agent", "agent or replicator")
	must(create.RegisterFlagCompletionFunc("role", cobra.FixedCompletions([]string{"agent", "replicator"}, cobra.ShellCompDirectiveNoFileComp)))
	return group("registration-key", "Keys with which agents and replicators enrol", create)
}

// chosenFabric is the fabric that was named, or the only one.
func (a *app) chosenFabric(ctx context.Context, c *sdk.Client, named string) (string, error) {
	if named != "" {
		return named, nil
	}
	f, err := c.OnlyFabric(ctx)
	return f.Name, err
}
