package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/lifeboat-dr/lifeboat/sdk"
)

// replication is what the two directions of a machine with the guest agent tell alike.
type replication struct {
	percent   *int32
	lag       *int64 // seconds
	lastPoint time.Time
}

func replicationOf(i sdk.Item) replication {
	d := i.Properties.ProviderSpecificDetails
	switch sdk.ProviderOf(i) {
	case sdk.ProviderGuest:
		if v, err := d.AsInMageRcmReplicationDetails(); err == nil {
			return replication{v.InitialReplicationProgressPercentage, v.LastRpoInSeconds, v.LastRecoveryPointReceived}
		}
	case sdk.ProviderGuestBack:
		if v, err := d.AsInMageRcmFailbackReplicationDetails(); err == nil {
			return replication{percent: v.InitialReplicationProgressPercentage}
		}
	}
	return replication{}
}

var itemColumns = []column[sdk.Item]{
	{"name", func(i sdk.Item) string { return i.Name }},
	{"state", itemState},
	{"health", func(i sdk.Item) string { return i.Properties.ReplicationHealth }},
	{"runs at", runsAt},
	{"rpo lag", func(i sdk.Item) string {
		if lag := replicationOf(i).lag; lag != nil && !replicationOf(i).lastPoint.IsZero() {
			return (time.Duration(*lag) * time.Second).String()
		}
		return ""
	}},
	{"policy", func(i sdk.Item) string { return i.Properties.PolicyFriendlyName }},
	{"fabric", func(i sdk.Item) string {
		ref, err := sdk.RefOf(i)
		if err != nil {
			return ""
		}
		return ref.Fabric
	}},
}

// recoverySite is what the field calls this server's own site.
const recoverySite = "Microsoft Azure"

// runsAt names the site where the machine runs. The field's activeLocation changes its sense with the direction.
func runsAt(i sdk.Item) string {
	site := i.Properties.PrimaryFabricFriendlyName
	if i.Properties.ActiveLocation == "Recovery" {
		site = i.Properties.RecoveryFabricFriendlyName
	}
	if site == recoverySite {
		return "recovery site"
	}
	return site
}

// itemState is the state for people, with the progress of a first copy.
func itemState(i sdk.Item) string {
	text := name(i.Properties.ProtectionStateDescription, i.Properties.ProtectionState)
	if p := replicationOf(i).percent; p != nil && *p > 0 && *p < 100 {
		text += fmt.Sprintf(" (%d %%)", *p)
	}
	return text
}

var itemDetails = append(itemColumns[:len(itemColumns):len(itemColumns)],
	column[sdk.Item]{"protection state", func(i sdk.Item) string { return i.Properties.ProtectionState }},
	column[sdk.Item]{"provider", sdk.ProviderOf},
	column[sdk.Item]{"newest point", func(i sdk.Item) string { return when(replicationOf(i).lastPoint) }},
	column[sdk.Item]{"test failover", func(i sdk.Item) string { return i.Properties.TestFailoverState }},
	column[sdk.Item]{"running", func(i sdk.Item) string {
		s := i.Properties.CurrentScenario
		if s.ScenarioName == "" || s.ScenarioName == "None" {
			return ""
		}
		return s.ScenarioName + ", job " + s.JobId[strings.LastIndex(s.JobId, "/")+1:]
	}},
	column[sdk.Item]{"allowed now", func(i sdk.Item) string { return strings.Join(i.Properties.AllowedOperations, ", ") }},
	column[sdk.Item]{"last drill", func(i sdk.Item) string { return when(i.Properties.LastSuccessfulTestFailoverTime) }},
	column[sdk.Item]{"last failover", func(i sdk.Item) string { return when(i.Properties.LastSuccessfulFailoverTime) }},
	column[sdk.Item]{"problems", func(i sdk.Item) string {
		var list []string
		for _, e := range i.Properties.HealthErrors {
			list = append(list, strings.TrimSuffix(e.ErrorMessage, ".")+". "+e.RecommendedAction)
		}
		return strings.Join(list, "; ")
	}},
	column[sdk.Item]{"id", func(i sdk.Item) string { return i.Id }})

// onItem is a verb whose first argument is a protected machine.
func (a *app) onItem(use, short string, do func(ctx context.Context, c *sdk.Client, i sdk.ItemRef, args []string) error) *cobra.Command {
	var fabric string
	cmd := verb(use, short, func(ctx context.Context, args []string) error {
		c, err := a.client(ctx)
		if err != nil {
			return err
		}
		item, err := c.FindItem(ctx, fabric, args[0])
		if err != nil {
			return err
		}
		ref, err := sdk.RefOf(item)
		if err != nil {
			return err
		}
		return do(ctx, c, ref, args)
	})
	cmd.Flags().StringVar(&fabric, "fabric", "", "site of the machine, when its name occurs in several")
	cmd.ValidArgsFunction = a.completeItems
	return cmd
}

// startsOn is onItem for verbs that start an operation.
func (a *app) startsOn(use, short string, start func(ctx context.Context, c *sdk.Client, i sdk.ItemRef, args []string) (*sdk.Operation, error)) *cobra.Command {
	var w waiting
	return w.flags(a.onItem(use, short, func(ctx context.Context, c *sdk.Client, i sdk.ItemRef, args []string) error {
		op, err := start(ctx, c, i, args)
		return a.finish(ctx, w, op, err)
	}))
}

// completeItems gives the shell the names of protected machines; what goes wrong gives it none.
func (a *app) completeItems(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	ctx, cancel := context.WithTimeout(cmd.Context(), 5*time.Second)
	defer cancel()
	var names []string
	if len(args) == 0 {
		if c, err := a.client(ctx); err == nil {
			for i, err := range c.Items(ctx, "") {
				if err != nil {
					break
				}
				names = append(names, i.Name)
			}
		}
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

func (a *app) itemCommand() *cobra.Command {
	var fabric string
	list := verb("list", "List the protected machines", func(ctx context.Context, _ []string) error {
		c, err := a.client(ctx)
		if err != nil {
			return err
		}
		all, err := sdk.Collect(c.Items(ctx, fabric))
		if err != nil {
			return err
		}
		return showList(a, all, itemColumns)
	})
	list.Flags().StringVar(&fabric, "fabric", "", "only of this site")
	show := a.onItem("show ITEM", "Show a protected machine, and what may be done with it now", func(ctx context.Context, c *sdk.Client, i sdk.ItemRef, _ []string) error {
		item, err := c.Item(ctx, i)
		if err != nil {
			return err
		}
		return showOne(a, item, itemDetails)
	})
	force := false
	remove := a.startsOn("remove ITEM", "End the protection of a machine and drop its points", func(ctx context.Context, c *sdk.Client, i sdk.ItemRef, _ []string) (*sdk.Operation, error) {
		if force {
			return c.Purge(ctx, i)
		}
		return c.Remove(ctx, i)
	})
	remove.Flags().BoolVar(&force, "force", false, "forget the machine whatever its state, without a word to its agent")
	repair := a.startsOn("repair ITEM", "Compare the machine's disks with its newest point and send what differs", func(ctx context.Context, c *sdk.Client, i sdk.ItemRef, _ []string) (*sdk.Operation, error) {
		return c.Repair(ctx, i)
	})
	capture := a.startsOn("capture ITEM", "Take a recovery point now", func(ctx context.Context, c *sdk.Client, i sdk.ItemRef, _ []string) (*sdk.Operation, error) {
		return c.Capture(ctx, i)
	})
	return group("item", "Protected machines", a.protectCommand(), list, show, remove, repair, capture)
}

func (a *app) protectCommand() *cobra.Command {
	var in sdk.ProtectInput
	var settings policyFlags
	var w waiting
	cmd := w.flags(verb("protect MACHINE", "Protect a machine; makes the policy and the mapping that are missing", func(ctx context.Context, args []string) error {
		s, err := settings.settings()
		if err != nil {
			return err
		}
		c, err := a.client(ctx)
		if err != nil {
			return err
		}
		s.MultiVM = s.MultiVM || in.Enable.Group != ""
		in.Machine, in.Settings = args[0], s
		_, op, err := c.Protect(ctx, in)
		return a.finish(ctx, w, op, err)
	}))
	f := cmd.Flags()
	f.StringVar(&in.Fabric, "fabric", "", "site of the machine (default: the only one)")
	f.StringVar(&in.Policy, "policy", "", `policy; made with the settings below when it is not there (default: the one the site is under, or "default")`)
	f.StringVar(&in.Item, "name", "", "name of the protected machine (default: the machine's)")
	f.StringVar(&in.Enable.TargetName, "target-name", "", "name of the machine that a failover starts (default: the machine's)")
	f.StringVar(&in.Enable.TargetNetwork, "target-network", "", "network of that machine")
	f.StringVar(&in.Enable.TestNetwork, "test-network", "", "isolated network of drills")
	f.StringVar(&in.Enable.ProcessServer, "process-server", "", "replicator that takes the machine's data (default: the server chooses)")
	f.StringSliceVar(&in.Enable.Disks, "disk", nil, "id of a disk to protect; may be given again (default: all)")
	f.StringVar(&in.Enable.Group, "consistency-group", "", "name of the group whose machines are captured at one moment; a policy that is made here says so")
	settings.flags(cmd)
	return cmd
}
