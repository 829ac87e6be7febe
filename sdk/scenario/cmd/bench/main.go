// Command bench measures Lifeboat beside restic and beside the ceiling of this machine, in one run, and writes what it found
// as text with commit, machine and method.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/lifeboat-dr/lifeboat/sdk/scenario/bench"
)

func main() {
	bin := flag.String("bin", "bin", "directory of the binaries")
	out := flag.String("out", "docs/evidence", "directory of the report")
	rounds := flag.Int("rounds", 3, "how often each contender runs; they take turns")
	seed := flag.Uint64("seed", 1, "of the incompressible part of the image")
	work := flag.String("work", filepath.Join(os.TempDir(), "lifeboat-bench"), "working directory; needs 20 GB")
	only := flag.String("only", "", "copy, drill, freeze, delta, api or track; empty: all")
	pairs := flag.Int("pairs", 10, "of drills")
	captures := flag.Int("captures", 300, "at each rate of writing, for the length of freezes")
	minutes := flag.Duration("lag", 10*time.Minute, "how long the lag of points is watched at least")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	tree := commit(ctx) // before a report is written, which git may keep
	err := errors.Join(os.MkdirAll(*work, 0o755), os.MkdirAll(*out, 0o755))
	asked := func(part string) bool { return err == nil && (*only == "" || *only == part) }
	if asked("copy") {
		err = copies(ctx, tree, *bin, *out, *work, *rounds, *seed)
	}
	if asked("drill") {
		err = drills(ctx, tree, *bin, *out, *work, *pairs)
	}
	if asked("freeze") {
		err = freezes(ctx, tree, *bin, *out, *work, *captures, *minutes)
	}
	if asked("delta") {
		err = deltas(ctx, tree, *bin, *out, *work, 10)
	}
	if asked("api") {
		err = requests(ctx, tree, *out)
	}
	if asked("track") {
		err = tracking(ctx, tree, *out)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// copies compares first copies and restores and writes the report bench-first-copy.txt.
func copies(ctx context.Context, tree, bin, out, work string, rounds int, seed uint64) (err error) {
	report, err := os.Create(filepath.Join(out, "bench-first-copy.txt"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, report.Close()) }()
	w := io.MultiWriter(os.Stdout, report)
	image := filepath.Join(work, "image.raw")
	if err := bench.MakeImage(ctx, image, seed); err != nil {
		return fmt.Errorf("make the image: %w", err)
	}
	fmt.Fprintf(w, "First copy and restore of a 4 GiB image (60 %% files, 10 %% incompressible, seed %d), %d rounds, contenders take turns.\n", seed, rounds)
	fmt.Fprintf(w, "%s\nmachine: %s\ncommit: %s\n\n", time.Now().UTC().Format(time.RFC3339), bench.Machine(), tree)
	firsts := map[string][]bench.Cost{}
	restores := map[string][]bench.Cost{}
	for round := range rounds {
		for _, codec := range []string{"zstd", "s2"} {
			if err := warm(image); err != nil {
				return err
			}
			cost, err := bench.Ceiling(image, filepath.Join(work, "ceiling"), codec)
			if err != nil {
				return err
			}
			add(w, firsts, round, "ceiling "+codec, cost)
		}
		dir := filepath.Join(work, "restic")
		if err := os.RemoveAll(dir); err != nil {
			return err
		}
		restic := bench.Restic{Dir: filepath.Join(dir, "repo"), CacheDir: filepath.Join(dir, "cache")}
		if err := restic.Init(ctx); err != nil {
			return err
		}
		cost, err := restic.Backup(ctx, image)
		if err != nil {
			return err
		}
		add(w, firsts, round, "restic", cost)
		if cost, err = restic.Restore(ctx, filepath.Join(dir, "restored")); err != nil {
			return err
		}
		add(w, restores, round, "restic", cost)
		if err := os.RemoveAll(dir); err != nil {
			return err
		}
		for _, codec := range []string{"zstd", "s2"} {
			dir := filepath.Join(work, "lifeboat-"+codec)
			if err := os.RemoveAll(dir); err != nil {
				return err
			}
			c, err := bench.FirstCopy(ctx, bin, dir, image, codec)
			if err != nil {
				return fmt.Errorf("lifeboat with %s: %w", codec, err)
			}
			add(w, firsts, round, "lifeboat "+codec, c.First)
			fmt.Fprintf(w, "         of it agent: %5.1f s CPU, peak %d MiB; lifeboatd: %5.1f s CPU\n", c.AgentCPU.Seconds(), c.AgentPeak>>20, c.DaemonCPU.Seconds())
			add(w, restores, round, "lifeboat "+codec, c.Restore)
			if err := os.RemoveAll(dir); err != nil {
				return err
			}
		}
	}
	summary(w, firsts, restores)
	return nil
}

// add keeps one cost and tells it.
func add(w io.Writer, all map[string][]bench.Cost, round int, name string, c bench.Cost) {
	all[name] = append(all[name], c)
	fmt.Fprintf(w, "round %d  %-14s %6.2f s  CPU %5.1f s  peak %4d MiB  stored %.2f GB\n", round+1, name, c.Wall.Seconds(), c.CPU.Seconds(), c.PeakRSS>>20, float64(c.Stored)/1e9)
}

func summary(w io.Writer, copies, restores map[string][]bench.Cost) {
	median := func(all map[string][]bench.Cost, name string) float64 {
		return bench.SpreadOf(all[name]).Median.Seconds()
	}
	fmt.Fprintln(w, "\nmedians (minimum to maximum)")
	for _, name := range []string{"ceiling zstd", "ceiling s2", "restic", "lifeboat zstd", "lifeboat s2"} {
		fmt.Fprintf(w, "first copy  %-14s %s\n", name, bench.SpreadOf(copies[name]))
	}
	for _, name := range []string{"restic", "lifeboat zstd", "lifeboat s2"} {
		fmt.Fprintf(w, "restore     %-14s %s\n", name, bench.SpreadOf(restores[name]))
	}
	fmt.Fprintln(w, "\nratios of medians, and their goals")
	goal := func(what string, ratio, limit float64) {
		verdict := "met"
		if ratio > limit {
			verdict = "MISSED"
		}
		fmt.Fprintf(w, "%-42s %.2f  goal <= %.2f  %s\n", what, ratio, limit, verdict)
	}
	goal("first copy, zstd, of restic's time", median(copies, "lifeboat zstd")/median(copies, "restic"), 0.7)
	goal("first copy, zstd, of the ceiling", median(copies, "lifeboat zstd")/median(copies, "ceiling zstd"), 1.4)
	goal("first copy, s2, of restic's time", median(copies, "lifeboat s2")/median(copies, "restic"), 0.5)
	goal("restore, zstd, of restic's time", median(restores, "lifeboat zstd")/median(restores, "restic"), 1.0/3)
}

// warm reads the image once, so that nobody pays for a cold cache.
func warm(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	_, err = io.Copy(io.Discard, f)
	return err
}

// commit names the tree that is measured; reports that differ from what git keeps do not make it another one.
func commit(ctx context.Context) string {
	name, err := exec.CommandContext(ctx, "git", "describe", "--tags", "--always").Output()
	if err != nil {
		return "unknown"
	}
	changed, err := exec.CommandContext(ctx, "git", "status", "--porcelain", "--", ":/", ":(exclude,top)docs/evidence").Output()
	if err != nil || len(changed) > 0 {
		return strings.TrimSpace(string(name)) + "-dirty"
	}
	return strings.TrimSpace(string(name))
}
