package main

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/lifeboat-dr/lifeboat/sdk"
)

var pointColumns = []column[sdk.Point]{
	{"point", func(p sdk.Point) string { return p.Name }},
	{"time", func(p sdk.Point) string { return when(p.Properties.RecoveryPointTime) }},
	{"consistency", func(p sdk.Point) string { return p.Properties.RecoveryPointType }},
	{"generation", func(p sdk.Point) string { return number(p.Properties.Generation) }},
	{"sequence", func(p sdk.Point) string { return number(p.Properties.Sequence) }},
	{"changed", func(p sdk.Point) string { return sizeOf(p.Properties.ChangedBytes) }},
	{"stored", func(p sdk.Point) string { return sizeOf(p.Properties.StoredBytes) }},
}

func number(n *int64) string {
	if n == nil {
		return ""
	}
	return fmt.Sprint(*n)
}

// pointHelp tells how points are chosen.
const pointHelp = "latest, latest-app-consistent, a time such as 2026-01-31T10:00:00Z, or a point's name"

func (a *app) pointCommand() *cobra.Command {
	limit := 0
	list := a.onItem("list ITEM", "List the recovery points of a machine, newest first", func(ctx context.Context, c *sdk.Client, i sdk.ItemRef, _ []string) error {
		all := []sdk.Point{}
		for p, err := range c.Points(ctx, i) {
			if err != nil {
				return err
			}
			all = append(all, p)
			if len(all) == limit {
				break
			}
		}
		return showList(a, all, pointColumns)
	})
	list.Flags().IntVar(&limit, "limit", 0, "at most so many (0: all)")
	verify := a.startsOn("verify ITEM POINT", "Read everything a point consists of and check it", func(ctx context.Context, c *sdk.Client, i sdk.ItemRef, args []string) (*sdk.Operation, error) {
		p, err := c.FindPoint(ctx, i, args[1])
		if err != nil {
			return nil, err
		}
		return c.VerifyPoint(ctx, i, p.Name)
	})
	verify.Long = verify.Short + ".\n\nPOINT is " + pointHelp + "."
	var format, directory string
	formats := []string{"raw", "vhd", "qcow2", "vhdx", "vmdk"}
	export := a.startsOn("export ITEM POINT", "Write every disk of a point as an image, at the replicator", func(ctx context.Context, c *sdk.Client, i sdk.ItemRef, args []string) (*sdk.Operation, error) {
		if !slices.Contains(formats, format) {
			return nil, &usageError{fmt.Sprintf("--format is %q: use %s", format, strings.Join(formats, ", "))}
		}
		p, err := c.FindPoint(ctx, i, args[1])
		if err != nil {
			return nil, err
		}
		return c.ExportPoint(ctx, i, p.Name, format, directory)
	})
	export.Long = export.Short + ".\n\nPOINT is " + pointHelp + "."
	export.Flags().StringVar(&format, "format", "raw", strings.Join(formats, ", "))
	export.Flags().StringVar(&directory, "directory", "", "directory at the replicator that does the work (required)")
	must(export.MarkFlagRequired("directory"))
	must(export.RegisterFlagCompletionFunc("format", cobra.FixedCompletions(formats, cobra.ShellCompDirectiveNoFileComp)))
	return group("point", "Recovery points", list, verify, export)
}
