// Command lifeboatd is the vault: the REST API, the fleet protocol for agents and replicators, and the orchestration, with a
// replicator of all roles in the same process unless it is told otherwise.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/lifeboat-dr/lifeboat/replicator/localbucket"
	"github.com/lifeboat-dr/lifeboat/replicator/restore"
)

var version = "dev" // set by the linker

func main() {
	syscall.Umask(0o077) // the database and the spool hold what is nobody else's business
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := command().ExecuteContext(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "lifeboatd:", err)
		os.Exit(1)
	}
}

func command() *cobra.Command {
	var c config
	root := &cobra.Command{
		Use:           "lifeboatd --data-dir DIR",
		Short:         "Run the Lifeboat vault",
		Version:       version,
		Args:          cobra.NoArgs,
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := c.load(cmd); err != nil {
				return err
			}
			return run(cmd.Context(), c)
		},
	}
	c.flags(root)
	root.AddCommand(&cobra.Command{
		Use:    "disk-server",
		Short:  "Serve the disks of a recovery point to a machine; started by the replicator",
		Args:   cobra.NoArgs,
		Hidden: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return restore.ServeDisks(cmd.Context(), os.Stdin, restore.PointOpener(localbucket.OpenURL))
		},
	})
	return root
}
