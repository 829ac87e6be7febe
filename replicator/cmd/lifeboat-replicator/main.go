// Command lifeboat-replicator is the data plane at a site: it takes replication data in, starts and writes back machines, and
// relays agents to lifeboatd, by its roles. It also rebuilds a lost catalogue from a bucket and its recovery key.
package main

import (
	"github.com/spf13/cobra"

	"github.com/lifeboat-dr/lifeboat/replicator/node/program"
)

var version = "dev" // set by the linker

func main() { program.Main(command()) }

func command() *cobra.Command {
	root := &cobra.Command{
		Use:           "lifeboat-replicator",
		Short:         "Replicate and recover machines for a Lifeboat vault",
		Version:       version,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.AddCommand(runCommand(), catalogueCommand(), program.DiskServer())
	return root
}
