package main

import (
	"github.com/spf13/cobra"

	"github.com/lifeboat-dr/lifeboat/agent/guest"
	"github.com/lifeboat-dr/lifeboat/agent/source"
)

// lookCommand is for an initramfs: it needs no configuration, no state and no network there.
func lookCommand(load func() (guest.Config, error)) *cobra.Command {
	out := guest.EarlyLooks
	c := &cobra.Command{
		Use: "look", Short: "In an initramfs, before anything is mounted: note what the disks say of their last writes", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			cfg, err := load()
			if err != nil {
				return err
			}
			return source.SaveLooks(cfg.Source, out)
		},
	}
	c.Flags().StringVar(&out, "out", out, "file to write, on a filesystem that the booted system sees too")
	return c
}
