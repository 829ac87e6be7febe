package main

import (
	"encoding/json"
	"errors"
	"log/slog"
	"os"

	"github.com/spf13/cobra"

	"github.com/lifeboat-dr/lifeboat/agent/guest"
	"github.com/lifeboat-dr/lifeboat/agent/host"
	"github.com/lifeboat-dr/lifeboat/agent/identity"
	"github.com/lifeboat-dr/lifeboat/agent/priority"
	"github.com/lifeboat-dr/lifeboat/agent/quiesce"
	"github.com/lifeboat-dr/lifeboat/agent/source"
)

const (
	deadman     = "deadman"
	defaultFile = "/etc/lifeboat/agent.yaml"
)

func command() *cobra.Command {
	root := &cobra.Command{
		Use: "lifeboat-agent", Short: "Replicates this machine to a Lifeboat vault", Version: version,
		SilenceUsage: true, SilenceErrors: true,
	}
	var path string
	var disks []string
	var flags file
	f := root.PersistentFlags()
	f.StringVar(&path, "config", defaultFile, "configuration file")
	f.StringVar(&flags.StateDir, "state-dir", "", "directory of the agent's state")
	f.StringVar(&flags.Server, "server", "", "address of lifeboatd or of a replicator that relays to it, host:port")
	f.StringVar(&flags.CAFile, "ca-file", "", "PEM file of lifeboatd's authority")
	f.StringVar(&flags.CASHA256, "ca-sha256", "", "SHA-256 fingerprint of lifeboatd's authority, instead of a file")
	f.StringArrayVar(&disks, "disk", nil, "protect this block device or image file instead of all disks: id=/path (may be repeated)")
	f.StringVar(&flags.Platform, "platform", "", "vm or physical, instead of what is found")
	f.StringVar(&flags.ProductUUID, "product-uuid", "", "the machine's UUID, instead of the firmware's")
	load := func() (guest.Config, error) {
		c, err := readFile(path, root.PersistentFlags().Changed("config"))
		if err != nil {
			return guest.Config{}, err
		}
		if err := c.override(flags, disks); err != nil {
			return guest.Config{}, err
		}
		gate := quiesce.NewGate(os.Stderr)
		level := new(slog.LevelVar)
		if err := level.UnmarshalText([]byte(c.LogLevel)); err != nil {
			return guest.Config{}, err
		}
		g := c.guest()
		if g.Throttle, err = c.Throttle.limiter(); err != nil {
			return guest.Config{}, err
		}
		g.Gate, g.Version = gate, version
		g.Log = slog.New(slog.NewTextHandler(gate, &slog.HandlerOptions{Level: level}))
		g.Deadman = []string{"/proc/self/exe", deadman} // whatever became of the file since
		if len(c.Host.Sockets) > 0 {
			h, err := host.New(host.Config{StateDir: c.StateDir, Sockets: c.Host.Sockets, Dir: c.Host.FleecingDir, Reserve: c.Host.ReserveBytes, Log: g.Log})
			if err != nil {
				return guest.Config{}, err
			}
			g.Hypervisor = h
		}
		return g, nil
	}
	root.AddCommand(guestCommand(load), hostCommand(load), enrollCommand(load), disksCommand(load), lookCommand(load), profileCommand(load), &cobra.Command{
		Use: deadman, Hidden: true, Args: cobra.NoArgs, RunE: func(*cobra.Command, []string) error { return quiesce.RunDeadman() },
	})
	return root
}

func guestCommand(load func() (guest.Config, error)) *cobra.Command {
	return &cobra.Command{
		Use: "guest", Short: "Protect this machine until stopped; enrols first if the configuration holds a registration key", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := load()
			if err != nil {
				return err
			}
			if cfg.Hypervisor != nil {
				return errors.New("the configuration is that of a hypervisor: run «lifeboat-agent host»")
			}
			lower(cfg.Log)
			return guest.Run(cmd.Context(), cfg)
		},
	}
}

func hostCommand(load func() (guest.Config, error)) *cobra.Command {
	return &cobra.Command{
		Use: "host", Short: "Protect the machines that run on this host under QEMU, from outside, until stopped", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := load()
			if err != nil {
				return err
			}
			h, ok := cfg.Hypervisor.(*host.Hypervisor)
			if !ok {
				return errors.New("the configuration names no machines: set host.sockets")
			}
			lower(cfg.Log)
			return host.Run(cmd.Context(), cfg, h)
		},
	}
}

// lower puts the agent behind the machine's own work.
func lower(log *slog.Logger) {
	if err := priority.Lower(); err != nil {
		log.Warn("the agent runs with more priority than it should", "err", err)
	}
}

func enrollCommand(load func() (guest.Config, error)) *cobra.Command {
	var key, keyFile string
	var force bool
	c := &cobra.Command{
		Use: "enroll", Short: "Trade a one-time registration key for this machine's identity", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := load()
			if err != nil {
				return err
			}
			if key != "" {
				cfg.RegistrationKey = key
			}
			if keyFile != "" {
				if cfg.RegistrationKey, err = readKey(keyFile); err != nil {
					return err
				}
			}
			if cfg.RegistrationKey == "" || cfg.Server.Address == "" {
				return errors.New("a server and a registration key are needed")
			}
			if id, err := identity.Load(cfg.StateDir); err == nil && !force {
				return errors.New("this machine is enrolled as " + id.ID() + " already; --force replaces that identity")
			}
			id, err := guest.Enrol(cmd.Context(), cfg)
			if err != nil {
				return err
			}
			cmd.Println("enrolled as", id.ID())
			return nil
		},
	}
	c.Flags().StringVar(&key, "key", "", "registration key; on a shared machine prefer --key-file, the process list shows arguments")
	c.Flags().StringVar(&keyFile, "key-file", "", "file with the registration key; - for standard input")
	c.Flags().BoolVar(&force, "force", false, "replace an identity that is there")
	return c
}

func disksCommand(load func() (guest.Config, error)) *cobra.Command {
	return &cobra.Command{
		Use: "disks", Short: "List the disks of this machine as JSON, and why one cannot be protected", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := load()
			if err != nil {
				return err
			}
			d, err := source.Disks(cfg.Source)
			if err != nil {
				return err
			}
			e := json.NewEncoder(cmd.OutOrStdout())
			e.SetIndent("", "  ")
			return e.Encode(source.Machine(cfg.Source, d).Disks)
		},
	}
}
