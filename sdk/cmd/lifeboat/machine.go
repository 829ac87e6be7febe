package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/lifeboat-dr/lifeboat/sdk"
	"github.com/lifeboat-dr/lifeboat/sdk/oas"
)

func discovered(m sdk.Machine) oas.VMwareVirtualMachineDetails {
	d, err := m.Properties.CustomDetails.AsVMwareVirtualMachineDetails()
	if err != nil {
		return oas.VMwareVirtualMachineDetails{} // another kind of machine has none of these
	}
	return d
}

var machineColumns = []column[sdk.Machine]{
	{"name", func(m sdk.Machine) string { return name(m.Properties.FriendlyName, m.Name) }},
	{"status", func(m sdk.Machine) string { return m.Properties.ProtectionStatus }},
	{"agent", func(m sdk.Machine) string {
		if d := discovered(m); d.AgentInstalled == "true" {
			return name(d.AgentVersion, "yes")
		}
		return "none"
	}},
	{"address", func(m sdk.Machine) string { return discovered(m).IpAddress }},
	{"os", func(m sdk.Machine) string { return discovered(m).OsType }},
	{"disks", func(m sdk.Machine) string { return fmt.Sprint(len(discovered(m).DiskDetails)) }},
	{"missing", func(m sdk.Machine) string { return strings.Join(m.Properties.ProtectionReadinessErrors, "; ") }},
	{"id", func(m sdk.Machine) string { return m.Name }},
}

func (a *app) machineCommand() *cobra.Command {
	var fabric, state, address, system string
	list := verb("list", "List the machines that can be protected", func(ctx context.Context, _ []string) error {
		if state != "" && !strings.EqualFold(state, "Protected") && !strings.EqualFold(state, "Unprotected") {
			return &usageError{fmt.Sprintf("--state is %q: use Protected or Unprotected", state)}
		}
		c, container, err := a.container(ctx, fabric)
		if err != nil {
			return err
		}
		all, err := sdk.Collect(c.Machines(ctx, container, state))
		if err != nil {
			return err
		}
		return showList(a, all, machineColumns)
	})
	list.Flags().StringVar(&state, "state", "", "Protected or Unprotected")
	add := verb("add NAME", "Make a machine known before its agent has enrolled", func(ctx context.Context, args []string) error {
		c, container, err := a.container(ctx, fabric)
		if err != nil {
			return err
		}
		op, err := c.AddMachine(ctx, container, args[0], address, system)
		if err := done(ctx, op, err); err != nil {
			return err
		}
		m, err := c.FindMachine(ctx, container, args[0])
		if err != nil {
			return err
		}
		return showOne(a, m, machineColumns)
	})
	add.Flags().StringVar(&address, "address", "", "address or host name by which the machine's agent will make itself known (required)")
	add.Flags().StringVar(&system, "os", "Linux", "Linux or Windows")
	must(add.MarkFlagRequired("address"))
	for _, c := range []*cobra.Command{list, add} {
		c.Flags().StringVar(&fabric, "fabric", "", "site of the machine (default: the only one)")
	}
	return group("machine", "Machines that can be protected", list, add)
}

func (a *app) container(ctx context.Context, fabric string) (*sdk.Client, sdk.ContainerRef, error) {
	c, err := a.client(ctx)
	if err != nil {
		return nil, sdk.ContainerRef{}, err
	}
	if fabric, err = a.chosenFabric(ctx, c, fabric); err != nil {
		return nil, sdk.ContainerRef{}, err
	}
	container, err := c.OnlyContainer(ctx, fabric)
	return c, container, err
}
