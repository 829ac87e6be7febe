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

// tracking measures what tracking changes costs the machine, and writes the report bench-track.txt. The benchmark is the tracker's
// own, which may look into the kernel.
func tracking(ctx context.Context, tree, out string) (err error) {
	report, err := os.Create(filepath.Join(out, "bench-track.txt"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, report.Close()) }()
	w := io.MultiWriter(os.Stdout, report)
	fmt.Fprintln(w, "Tracking of changes by programs in the kernel, on loop devices over files in the page cache.")
	fmt.Fprintf(w, "%s\nmachine: %s\ncommit: %s\n\n", time.Now().UTC().Format(time.RFC3339), bench.Machine(), tree)
	cmd := exec.CommandContext(ctx, "go", "test", "-run", "^$", "-bench", "^BenchmarkTracker$", "-benchtime", "1x", "-timeout", "30m", "./agent/track/soak")
	cmd.Stdout, cmd.Stderr = w, os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("measure the tracking of changes: %w", err)
	}
	return nil
}
