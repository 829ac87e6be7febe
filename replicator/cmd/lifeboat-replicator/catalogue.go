package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"gocloud.dev/blob"

	"github.com/lifeboat-dr/lifeboat/replicator/localbucket"
	"github.com/lifeboat-dr/lifeboat/replicator/repo"
	"github.com/lifeboat-dr/lifeboat/sdk/fleet"
)

// catalogue is what a bucket and its recovery key tell.
type catalogue struct {
	Vaults []catalogueVault `json:"vaults"`
}

type catalogueVault struct {
	ID       string             `json:"id"`
	Machines []catalogueMachine `json:"machines"`

	file        []byte
	key         repo.Key
	recoveryKey string
}

type catalogueMachine struct {
	ID          string                `json:"id"`
	Name        string                `json:"name"`
	Hardware    fleet.Machine         `json:"hardware"` // as its newest point describes it
	Generations []catalogueGeneration `json:"generations"`
	Points      []cataloguePoint      `json:"points"` // oldest first
	homeUUID    string                // in its oldest description
	// Problem tells why the machine's log cannot be read whole.
	Problem string `json:"problem,omitempty"`
}

type catalogueGeneration struct {
	Number int64  `json:"number"`
	Closed bool   `json:"closed"`
	Reason string `json:"reason,omitempty"`
}

type cataloguePoint struct {
	Generation   int64           `json:"generation"`
	Sequence     int64           `json:"sequence"`
	Time         time.Time       `json:"time"`
	Consistency  string          `json:"consistency"`
	ChangedBytes int64           `json:"changedBytes"`
	StoredBytes  int64           `json:"storedBytes"`
	Disks        []catalogueDisk `json:"disks"`
}

type catalogueDisk struct {
	ID        string `json:"id"`
	SizeBytes int64  `json:"sizeBytes"`
	OS        bool   `json:"os,omitempty"`
}

func catalogueCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "catalogue", Short: "Work on a bucket when lifeboatd is lost"}
	cmd.AddCommand(rebuildCommand())
	return cmd
}

func rebuildCommand() *cobra.Command {
	var bucket, key, keyFile, output, dataDir string
	cmd := &cobra.Command{
		Use:   "rebuild --bucket URL",
		Short: "List the machines and recovery points of a bucket, or make a lifeboatd data directory of them",
		Long: `Reads machines and recovery points back from nothing but a bucket and the vault's recovery key.

With --data-dir a directory for lifeboatd is made, in which the vault, its machines and their points are there again and can be
failed over: start lifeboatd with it and with the same --bucket.

A machine whose log cannot be read is listed with the reason and left out of the data directory; the command then ends with an
error, but does all the rest. Points whose log entry does not verify are told on standard error.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if bucket == "" {
				return errors.New("--bucket is required")
			}
			if output != "table" && output != "json" {
				return fmt.Errorf("-o is table or json, not %q", output)
			}
			if key == "" {
				var err error
				if key, err = readSecret(keyFile); err != nil {
					return fmt.Errorf("read recovery key: %w", err)
				}
			}
			if key == "" {
				return errors.New("the vault's recovery key is required (--recovery-key-file, - for standard input)")
			}
			log := slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), nil)) // tells what of a log does not verify
			c, err := readCatalogue(cmd.Context(), bucket, key, log)
			if err != nil {
				return err
			}
			if dataDir != "" {
				if err := rebuildDataDir(cmd.Context(), dataDir, bucket, c); err != nil {
					return fmt.Errorf("rebuild data directory: %w", err)
				}
			}
			if output == "json" {
				e := json.NewEncoder(cmd.OutOrStdout())
				e.SetIndent("", "  ")
				err = e.Encode(c)
			} else {
				err = c.table(cmd.OutOrStdout())
			}
			return errors.Join(err, c.problems())
		},
	}
	f := cmd.Flags()
	f.StringVar(&bucket, "bucket", "", "URL of the bucket, such as file:///var/lib/lifeboat/bucket")
	f.StringVar(&key, "recovery-key", "", "the vault's recovery key; prefer the file: the process list shows flags")
	f.StringVar(&keyFile, "recovery-key-file", "", "file with the recovery key; - for standard input")
	f.StringVarP(&output, "output", "o", "table", "table or json")
	f.StringVar(&dataDir, "data-dir", "", "make a new lifeboatd data directory here")
	return cmd
}

// problems names the machines that could not be read.
func (c catalogue) problems() error {
	var errs []error
	for _, v := range c.Vaults {
		for _, m := range v.Machines {
			if m.Problem != "" {
				errs = append(errs, fmt.Errorf("machine %s of vault %s is not recovered: %s", m.ID, v.ID, m.Problem))
			}
		}
	}
	return errors.Join(errs...)
}

// readCatalogue is catalogueOf for the bucket of a URL.
func readCatalogue(ctx context.Context, url, recoveryKey string, log *slog.Logger) (c catalogue, err error) {
	b, err := localbucket.OpenURL(ctx, url)
	if err != nil {
		return catalogue{}, fmt.Errorf("open bucket: %w", err)
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	if c, err = catalogueOf(ctx, b, recoveryKey, log); err != nil {
		return catalogue{}, fmt.Errorf("bucket %s: %w", url, err)
	}
	return c, nil
}

// catalogueOf reads the vaults of a bucket that the recovery key opens; at least one, else ErrRecoveryKey. A machine whose log
// cannot be read does not hide the others.
func catalogueOf(ctx context.Context, b *blob.Bucket, recoveryKey string, log *slog.Logger) (c catalogue, err error) {
	ids, err := repo.Vaults(ctx, b)
	if err != nil {
		return catalogue{}, fmt.Errorf("list vaults: %w", err)
	}
	var others error
	for _, id := range ids {
		v := catalogueVault{ID: id, Machines: []catalogueMachine{}, recoveryKey: recoveryKey}
		if v.file, err = repo.VaultFile(ctx, b, id); err != nil {
			return catalogue{}, fmt.Errorf("read vault %s: %w", id, err)
		}
		if _, v.key, err = repo.Unwrap(v.file, recoveryKey); err != nil {
			others = errors.Join(others, fmt.Errorf("vault %s: %w", id, err))
			continue // another vault in the same bucket
		}
		r, err := repo.Open(ctx, b, id, v.key, nil, repo.Options{Logger: log})
		if err != nil {
			return catalogue{}, fmt.Errorf("open vault %s: %w", id, err)
		}
		machines, err := r.Machines(ctx)
		if err != nil {
			return catalogue{}, fmt.Errorf("list machines of vault %s: %w", id, err)
		}
		for _, m := range machines {
			v.Machines = append(v.Machines, readMachine(ctx, r, m))
		}
		c.Vaults = append(c.Vaults, v)
	}
	if len(c.Vaults) == 0 {
		if others == nil {
			return catalogue{}, errors.New("it holds no vault")
		}
		return catalogue{}, fmt.Errorf("the recovery key opens no vault: %w", others)
	}
	return c, nil
}

func readMachine(ctx context.Context, r *repo.Repository, id string) catalogueMachine {
	m := catalogueMachine{ID: id, Generations: []catalogueGeneration{}, Points: []cataloguePoint{}}
	points, err := r.Points(ctx, id)
	if err == nil {
		var gens []repo.Generation
		gens, err = r.Generations(ctx, id)
		for _, g := range gens {
			m.Generations = append(m.Generations, catalogueGeneration{Number: g.Number, Closed: g.Closed, Reason: g.Reason})
		}
	}
	if err != nil {
		m.Problem = err.Error()
	}
	for _, p := range points {
		x := cataloguePoint{Generation: p.Generation, Sequence: p.Sequence, Time: p.Time, Consistency: p.Consistency, ChangedBytes: p.ChangedBytes, StoredBytes: p.StoredBytes}
		for _, d := range p.Disks {
			x.Disks = append(x.Disks, catalogueDisk{ID: d.ID, SizeBytes: d.Size, OS: d.OS})
		}
		m.Points = append(m.Points, x)
		if len(p.Hardware) > 0 { // the newest description that can be read
			var h fleet.Machine
			if json.Unmarshal(p.Hardware, &h) == nil {
				m.Hardware, m.Name = h, h.Hostname
				if m.homeUUID == "" {
					m.homeUUID = h.ProductUuid
				}
			}
		}
	}
	if m.Name == "" {
		m.Name = id
	}
	return m
}

func (c catalogue) table(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	for _, v := range c.Vaults {
		fmt.Fprintf(t, "vault %s\n\nMACHINE\tID\tPOINTS\tOLDEST\tNEWEST\tDISKS\tSTATE\n", v.ID)
		for _, m := range v.Machines {
			fmt.Fprintf(t, "%s\t%s\t%d\t%s\t%s\t%s\t%s\n", m.Name, m.ID, len(m.Points), m.when(0), m.when(len(m.Points)-1), m.disks(), m.state())
		}
		fmt.Fprintf(t, "\nMACHINE\tPOINT\tTIME\tCONSISTENCY\tCHANGED\tSTORED\n")
		for _, m := range v.Machines {
			for _, p := range m.Points {
				fmt.Fprintf(t, "%s\t%d/%d\t%s\t%s\t%s\t%s\n", m.Name, p.Generation, p.Sequence, p.Time.UTC().Format(time.RFC3339), p.Consistency, size(p.ChangedBytes), size(p.StoredBytes))
			}
		}
		fmt.Fprintln(t)
	}
	return t.Flush()
}

func (m catalogueMachine) when(i int) string {
	if i < 0 || i >= len(m.Points) {
		return "-"
	}
	return m.Points[i].Time.UTC().Format(time.RFC3339)
}

func (m catalogueMachine) disks() string {
	if len(m.Points) == 0 {
		return "-"
	}
	var parts []string
	for _, d := range m.Points[len(m.Points)-1].Disks {
		parts = append(parts, d.ID+" "+size(d.SizeBytes))
	}
	return strings.Join(parts, ", ")
}

func (m catalogueMachine) state() string {
	if m.Problem != "" {
		return m.Problem
	}
	if n := len(m.Generations); n > 0 && m.Generations[n-1].Closed {
		return "closed: " + m.Generations[n-1].Reason
	}
	return "open"
}

// size shows bytes in binary units.
func size(n int64) string {
	const units = "KMGTPE"
	if n < 1024 {
		return fmt.Sprintf("%d B", n)
	}
	f, i := float64(n)/1024, 0
	for f >= 1024 && i < len(units)-1 {
		f, i = f/1024, i+1
	}
	return fmt.Sprintf("%.1f %ciB", f, units[i])
}
