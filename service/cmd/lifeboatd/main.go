// Command lifeboatd is the vault: the REST API, the fleet protocol for agents and replicators, and the orchestration, with a
// replicator of all roles in the same process unless it is told otherwise.
package main

import (
	_ "time/tzdata" // throttles name time zones, which a small machine may not have

	"github.com/spf13/cobra"

	"github.com/lifeboat-dr/lifeboat/replicator/node/program"
)

var version = "dev" // set by the linker

func main() { program.Main(command()) }

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
	root.AddCommand(program.DiskServer())
	return root
}
