// Demo plays the life of one machine on this host for people to watch: a small Debian machine is protected, drilled, killed,
// recovered from its newest recovery point and brought home. It prints a timeline and what was measured, keeps the replica's
// screenshot, and leaves nothing running.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/lifeboat-dr/lifeboat/sdk/scenario/life"
	"github.com/lifeboat-dr/lifeboat/sdk/scenario/rig"
)

func main() {
	bin := flag.String("bin", "bin", "directory of the Lifeboat binaries")
	out := flag.String("out", "bin/demo", "directory for the replica's screenshot and console")
	separate := flag.Bool("separate", false, "run lifeboatd, Redis and two replicators as separate processes")
	disk := flag.Int64("disk", 256, "size of the machine's disk in MiB")
	limit := flag.Duration("limit", 10*time.Minute, "give up after this time")
	verbose := flag.Bool("v", false, "tell about every process started")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeoutCause(ctx, *limit, fmt.Errorf("the demo took longer than %s", *limit))
	defer cancel()
	if err := demo(ctx, *bin, *out, *separate, *disk<<20, *verbose); err != nil {
		fmt.Fprintln(os.Stderr, "demo failed:", err)
		os.Exit(1)
	}
}

// clock prints a timeline.
type clock struct {
	began time.Time
	tty   bool
	last  int
}

func (c *clock) tell(step, what string) {
	c.clear()
	fmt.Printf("%7.1fs  %-9s  %s\n", time.Since(c.began).Seconds(), step, what)
	c.last = -1
}

// progress shows work under way where somebody watches; a log needs only what came of it.
func (c *clock) progress(step string, percent int) {
	if c.tty && percent != c.last {
		c.clear()
		fmt.Printf("%7.1fs  %s: %d %%", time.Since(c.began).Seconds(), step, percent)
		c.last = percent
	}
}

func (c *clock) clear() {
	if c.tty {
		fmt.Print("\r\x1b[K")
	}
}

func isTerminal(f *os.File) bool {
	st, err := f.Stat()
	return err == nil && st.Mode()&os.ModeCharDevice != 0
}

func demo(ctx context.Context, bin, out string, separate bool, disk int64, verbose bool) (err error) {
	dir, err := os.MkdirTemp("", "lifeboat-demo-")
	if err != nil {
		return err
	}
	c := &clock{began: time.Now(), tty: isTerminal(os.Stdout)}
	opt := rig.Options{Dir: dir, Bin: bin}
	if verbose {
		opt.Logf = func(format string, args ...any) { c.tell("rig", fmt.Sprintf(format, args...)) }
	}
	r, err := rig.New(opt)
	if err != nil {
		return err
	}
	defer func() {
		if closing := r.Close(); closing != nil || err != nil {
			err = errors.Join(err, closing, fmt.Errorf("logs and disks are kept in %s", dir))
			return
		}
		err = os.RemoveAll(dir)
		if err == nil {
			fmt.Printf("\nNothing is left running; %s is gone.\n", dir)
		}
	}()
	start := r.StartEmbedded
	if separate {
		start = r.StartSeparate
	}
	plane, err := start(ctx)
	if err != nil {
		return err
	}
	c.tell("start", "Lifeboat answers at https://"+plane.Address)
	res, err := life.Play(ctx, life.Stage{Rig: r, Plane: plane}, life.Options{DiskBytes: disk, Tell: c.tell, Progress: c.progress, Evidence: out})
	if err != nil {
		return err
	}
	report(res, disk)
	return nil
}

func report(res life.Result, disk int64) {
	console, err := os.ReadFile(res.Serial)
	if err == nil {
		fmt.Printf("\nThe replica's console, from the failover (%s):\n", filepath.Base(res.Serial))
		for _, line := range life.Excerpt(string(console), 8) {
			fmt.Println("    |", line)
		}
	}
	fmt.Println()
	for _, row := range [][2]string{
		{"first copy", fmt.Sprintf("%s of a %s disk read, %s stored, Protected after %s", life.Size(res.InitialBytes), life.Size(disk), life.Size(res.InitialStored), life.Round(res.InitialReplication))},
		{"moved until the disaster", fmt.Sprintf("%s in %d more recovery points", life.Size(res.BytesOutbound), res.PointsOutbound)},
		{"drill", fmt.Sprintf("up %s after the request, %d records unbroken", life.Round(res.DrillRecovery), res.DrillRecords)},
		{"recovery time", fmt.Sprintf("%s from the request to the first line of userspace", life.Round(res.Recovery))},
		{"recovery point (RPO)", fmt.Sprintf("%s before the last write", life.Round(res.LostTime))},
		{"lost", fmt.Sprintf("%d of %d records, all written after the newest recovery point", res.LostRecords, res.WrittenAtHome)},
		{"moved home", fmt.Sprintf("%s, Protected the other way after %s", life.Size(res.BytesWayBack), life.Round(res.WayBack))},
		{"failback", fmt.Sprintf("up at home %s after the request, nothing lost", life.Round(res.FailBack))},
		{"protected again", fmt.Sprintf("after %s, %s moved", life.Round(res.Again), life.Size(res.BytesAgain))},
		{"at the end", fmt.Sprintf("%d records at home, numbers dense, every checksum right", res.FinalRecords)},
		{"screenshot", res.Screenshot},
	} {
		fmt.Printf("  %-25s %s\n", row[0], row[1])
	}
}
