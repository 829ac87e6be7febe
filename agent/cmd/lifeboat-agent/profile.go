package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/lifeboat-dr/lifeboat/agent/guest"
	"github.com/lifeboat-dr/lifeboat/agent/profile"
	"github.com/lifeboat-dr/lifeboat/agent/source"
	"github.com/lifeboat-dr/lifeboat/agent/throttle"
	"github.com/lifeboat-dr/lifeboat/agent/track/kernel"
)

func profileCommand(load func() (guest.Config, error)) *cobra.Command {
	var length time.Duration
	var cfg profile.Config
	var bandwidths []string
	var format string
	c := &cobra.Command{
		Use:   "profile DEVICE",
		Short: "Watch a disk before protecting it: churn, compressibility, what is written again, the RPO a bandwidth allows, storage per day",
		Long: "Watches a disk and tells what protecting it will cost. Nothing is sent and nothing is written to the disk; the machine need not be enrolled. " +
			"Interrupt it for the result so far. Watch for long enough to see the busiest hour, such as a night with its backup.",
		Example: "  lifeboat-agent profile /dev/vda --for 24h --bandwidth 50M --bandwidth 400Mbit",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if format != "table" && format != "json" {
				return fmt.Errorf("-o %s: write table or json", format)
			}
			if length <= 0 || cfg.Every < time.Second || cfg.PointEvery < cfg.Every {
				return errors.New("--for must be more than 0, --every at least 1s, and --point-every at least as long as --every")
			}
			for _, b := range bandwidths {
				n, err := throttle.ParseRate(b)
				if err != nil {
					return err
				}
				if n == 0 {
					return errors.New("--bandwidth 0 sends nothing")
				}
				cfg.Bandwidths = append(cfg.Bandwidths, n)
			}
			g, err := load()
			if err != nil {
				return err
			}
			log := slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), &slog.HandlerOptions{Level: slog.LevelWarn}))
			lower(log)
			r, err := watch(cmd.Context(), g, cfg, args[0], length, cmd.ErrOrStderr(), log)
			if err != nil {
				return err
			}
			if format == "json" {
				e := json.NewEncoder(cmd.OutOrStdout())
				e.SetIndent("", "  ")
				return e.Encode(r)
			}
			return r.WriteText(cmd.OutOrStdout())
		},
	}
	f := c.Flags()
	f.DurationVar(&length, "for", 10*time.Minute, "how long to watch")
	f.StringArrayVar(&bandwidths, "bandwidth", nil, "reckon the RPO for this bandwidth: bytes per second such as 50M, or bits such as 400Mbit (may be repeated; default 10, 100 and 1000 Mbit)")
	f.DurationVar(&cfg.PointEvery, "point-every", 5*time.Minute, "time between recovery points, as the policy will say")
	f.DurationVar(&cfg.Every, "every", 5*time.Second, "what is written again within this time counts once")
	f.StringVarP(&format, "output", "o", "table", "table or json")
	return c
}

// watch profiles a disk of this machine, or an image file. What it needs beside the disk lies below the agent's state directory.
func watch(ctx context.Context, g guest.Config, cfg profile.Config, path string, length time.Duration, say io.Writer, log *slog.Logger) (r profile.Report, err error) {
	found, err := source.Disks(source.Config{Disks: []source.Named{{ID: "profile", Path: path}}, Root: g.Source.Root})
	if err != nil {
		return r, err
	}
	dir := filepath.Join(g.StateDir, "profile")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return r, fmt.Errorf("make a directory for the profile: %w", err)
	}
	trackers := kernel.New(dir, log)
	defer func() { err = errors.Join(err, trackers.Destroy(), os.RemoveAll(dir)) }()
	t, err := trackers.Open(ctx, "profile", found[0])
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, t.Close()) }()
	if t.Whole {
		_, _ = fmt.Fprintf(say, "%s cannot be tracked; it is read as a whole, again and again\n", path) // the result is what counts
	}
	p, err := profile.Start(ctx, cfg, found[0], t, dir)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, p.Close()) }()
	_, _ = fmt.Fprintf(say, "watching %s for %s; interrupt for the result so far\n", path, length) // as above
	if err := p.Watch(ctx, length); err != nil {
		return r, err
	}
	return p.Report()
}
