package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/lifeboat-dr/lifeboat/replicator/chunk"
	"github.com/lifeboat-dr/lifeboat/replicator/node"
	"github.com/lifeboat-dr/lifeboat/replicator/node/program"
)

func runCommand() *cobra.Command {
	var c config
	cmd := &cobra.Command{
		Use:   "run --server HOST:PORT",
		Short: "Run the replicator; the first start enrols it with a one-time registration key",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := c.load(cmd); err != nil {
				return err
			}
			return run(cmd.Context(), c)
		},
	}
	c.flags(cmd)
	return cmd
}

func run(ctx context.Context, c config) (err error) {
	log := program.Logger(c.Log, c.Verbose)
	if err := os.MkdirAll(c.StateDir, 0o700); err != nil {
		return fmt.Errorf("make state directory: %w", err)
	}
	address, err := node.Address(c.Server)
	if err != nil {
		return err
	}
	dial := node.DialTCP(address)
	identity, err := identify(ctx, c, dial, log)
	if err != nil {
		return err
	}
	client, closeIdle, err := node.NewClient(dial, identity)
	if err != nil {
		return err
	}
	defer closeIdle()
	codec, err := chunk.ParseCodec(c.Compression)
	if err != nil {
		return err
	}
	cfg := node.Config{Client: client, Identity: identity, StateDir: c.StateDir, Hostname: c.Hostname, Site: c.Site, Roles: c.Roles, Version: version,
		SpoolLimit: c.SpoolLimit, Codec: codec, Datastores: c.Datastores, DialServer: dial, OpenQueue: program.OpenQueue, Log: log}
	if slices.Contains(c.Roles, node.RoleProcessServer) {
		if cfg.Data, err = net.Listen("tcp", c.DataListen); err != nil {
			return fmt.Errorf("listen for replication data: %w", err)
		}
		defer func() { _ = cfg.Data.Close() }() // closed by the node in the good case
		addresses := c.DataAddress
		if len(addresses) == 0 {
			if addresses, err = node.Advertised(cfg.Data); err != nil {
				return err
			}
		}
		cfg.DataAddress = strings.Join(addresses, ",")
	}
	if c.ControlListen != "" {
		if cfg.Control, err = net.Listen("tcp", c.ControlListen); err != nil {
			return fmt.Errorf("listen for agents: %w", err)
		}
		defer func() { _ = cfg.Control.Close() }() // as above
		if cfg.ControlAddress = c.ControlAddress; cfg.ControlAddress == "" {
			addresses, err := node.Advertised(cfg.Control)
			if err != nil {
				return err
			}
			cfg.ControlAddress = addresses[0]
		}
	}
	if slices.Contains(c.Roles, node.RoleMasterTarget) {
		cfg.Compute = program.Compute(c.StateDir, c.Datastores, c.ForwardPort, log)
	}
	if cfg.Scripts, err = program.Scripts(c.Runner, c.Scripts); err != nil {
		return err
	}
	n, err := node.New(cfg)
	if err != nil {
		return err
	}
	log.Info("replicator is up", "id", identity.ID(), "server", address, "data", cfg.DataAddress, "control", cfg.ControlAddress, "version", version)
	err = n.Run(ctx)
	log.Info("replicator stopped")
	return err
}

// identify returns the identity in the state directory, or enrols. A server that is not up yet is waited for.
func identify(ctx context.Context, c config, dial node.Dialer, log *slog.Logger) (*node.Identity, error) {
	identity, err := node.LoadIdentity(c.StateDir)
	if !errors.Is(err, node.ErrNotEnrolled) {
		return identity, err
	}
	key, err := c.registrationKey()
	if err != nil {
		return nil, fmt.Errorf("read registration key: %w", err)
	}
	if key == "" {
		return nil, errors.New("this replicator is not enrolled yet: a registration key is needed (--registration-key-file or " + keyVariable + ")")
	}
	e := node.Enrolment{Dial: dial, RegistrationKey: key, Hostname: c.Hostname, Site: c.Site, CASHA256: c.CASHA256}
	if c.CAFile != "" {
		raw, err := os.ReadFile(c.CAFile)
		if err != nil {
			return nil, err
		}
		e.CA = string(raw)
	}
	for {
		identity, err = node.Enrol(ctx, c.StateDir, e)
		var netErr net.Error
		if err == nil || ctx.Err() != nil || !errors.As(err, &netErr) {
			return identity, err
		}
		log.Warn("lifeboatd cannot be reached yet", "err", err)
		select {
		case <-ctx.Done():
		case <-time.After(time.Second):
		}
	}
}
