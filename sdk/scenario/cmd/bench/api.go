package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/lifeboat-dr/lifeboat/sdk/scenario/bench"
)

// requests measures lifeboatd's REST API in a vault of 100,000 machines and beside a bare handler, and writes the report
// bench-api.txt. The benchmark is lifeboatd's own, which may fill its database.
func requests(ctx context.Context, tree, out string) (err error) {
	report, err := os.Create(filepath.Join(out, "bench-api.txt"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, report.Close()) }()
	w := io.MultiWriter(os.Stdout, report)
	fmt.Fprintln(w, "Requests over HTTPS to a lifeboatd that protects 100 machines and to one that protects 100,000, each on a SQLite database of its own, in turns;")
	fmt.Fprintln(w, "then to the larger one and to a bare chi handler that returns the same header and bytes, in turns of half a second, 8 clients at once.")
	fmt.Fprintln(w, "One item, one vault: the same again and again, as clients poll. Each another: none was asked for before. PostgreSQL: a lifeboatd of 100 machines on a server of this machine.")
	fmt.Fprintf(w, "%s\nmachine: %s\ncommit: %s\n\n", time.Now().UTC().Format(time.RFC3339), bench.Machine(), tree)
	cmd := exec.CommandContext(ctx, "go", "test", "-run", "^$", "-bench", "^BenchmarkAPI$", "-benchtime", "1x", "-timeout", "30m", "./service/cmd/lifeboatd")
	cmd.Stdout, cmd.Stderr = w, os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("measure the API: %w", err)
	}
	return nil
}
