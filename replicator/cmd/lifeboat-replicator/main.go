// Command lifeboat-replicator is the data plane at a site: it takes replication data in, starts and writes back machines, and
// relays agents to lifeboatd, by its roles. It also rebuilds a lost catalogue from a bucket and its recovery key.
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
	syscall.Umask(0o077) // the spool and the instances hold what is nobody else's business
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := command().ExecuteContext(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "lifeboat-replicator:", err)
		os.Exit(1)
	}
}

func command() *cobra.Command {
	root := &cobra.Command{
		Use:           "lifeboat-replicator",
		Short:         "Replicate and recover machines for a Lifeboat vault",
		Version:       version,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.AddCommand(runCommand(), catalogueCommand(), &cobra.Command{
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
