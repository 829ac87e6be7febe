package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/lifeboat-dr/lifeboat/sdk"
)

func (a *app) failoverCommand() *cobra.Command {
	var in sdk.FailoverInput
	var point, comments string
	choose := func(ctx context.Context, c *sdk.Client, i sdk.ItemRef) error {
		if point == "" || point == sdk.PointLatest {
			return nil // the server's choice, which is the newest at the time it starts
		}
		p, err := c.FindPoint(ctx, i, point)
		in.Point = p.Name
		return err
	}
	test := a.startsOn("test ITEM", "Start a drill on an isolated network; it lasts until its cleanup", func(ctx context.Context, c *sdk.Client, i sdk.ItemRef, _ []string) (*sdk.Operation, error) {
		if err := choose(ctx, c, i); err != nil {
			return nil, err
		}
		return c.TestFailover(ctx, i, in)
	})
	test.Flags().StringVar(&in.Network, "network", "", "isolated network (default: the machine's test network)")
	test.Flags().BoolVar(&in.Detached, "no-network", false, "without any network")
	cleanup := a.startsOn("cleanup ITEM", "End a drill and remove what it made", func(ctx context.Context, c *sdk.Client, i sdk.ItemRef, _ []string) (*sdk.Operation, error) {
		return c.CleanUp(ctx, i, comments)
	})
	cleanup.Flags().StringVar(&comments, "comments", "", "kept with the job")
	planned := a.startsOn("planned ITEM", "Move a machine without loss: shut down, last capture, start at the other side", func(ctx context.Context, c *sdk.Client, i sdk.ItemRef, _ []string) (*sdk.Operation, error) {
		return c.PlannedFailover(ctx, i)
	})
	unplanned := a.startsOn("unplanned ITEM", "Start a machine at the other side from a point, its source presumed lost", func(ctx context.Context, c *sdk.Client, i sdk.ItemRef, _ []string) (*sdk.Operation, error) {
		if err := choose(ctx, c, i); err != nil {
			return nil, err
		}
		return c.UnplannedFailover(ctx, i, in)
	})
	unplanned.Flags().BoolVar(&in.Shutdown, "shutdown", false, "ask the source for its latest changes and to shut down first, in case it lives")
	for _, c := range []*cobra.Command{test, unplanned} {
		c.Flags().StringVar(&point, "point", sdk.PointLatest, pointHelp)
	}
	change := a.startsOn("change-point ITEM POINT", "Start a failed-over machine from another point, before commit", func(ctx context.Context, c *sdk.Client, i sdk.ItemRef, args []string) (*sdk.Operation, error) {
		p, err := c.FindPoint(ctx, i, args[1])
		if err != nil {
			return nil, err
		}
		return c.ChangePoint(ctx, i, p.Name)
	})
	change.Long = change.Short + ".\n\nPOINT is " + pointHelp + "."
	commit := a.startsOn("commit ITEM", "Accept a failover", func(ctx context.Context, c *sdk.Client, i sdk.ItemRef, _ []string) (*sdk.Operation, error) {
		return c.Commit(ctx, i)
	})
	cancel := a.startsOn("cancel ITEM", "Undo a planned failover that was not committed", func(ctx context.Context, c *sdk.Client, i sdk.ItemRef, _ []string) (*sdk.Operation, error) {
		return c.CancelFailover(ctx, i)
	})
	var back sdk.ReprotectInput
	reprotect := a.startsOn("reprotect ITEM", "Replicate in the other direction from now on", func(ctx context.Context, c *sdk.Client, i sdk.ItemRef, _ []string) (*sdk.Operation, error) {
		return c.Reprotect(ctx, i, back)
	})
	reprotect.Flags().StringVar(&back.MasterTarget, "master-target", "", "homewards: replicator that writes the machine's disks (default: the only one)")
	reprotect.Flags().StringVar(&back.Datastore, "datastore", "", "homewards: its datastore that holds the machine (default: the only one)")
	reprotect.Flags().StringVar(&back.Policy, "policy", "", "policy of the new direction (forwards: the one used before)")
	return group("failover", "Drills, failover, failback", test, cleanup, planned, unplanned, change, commit, cancel, reprotect)
}
