package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/lifeboat-dr/lifeboat/sdk/scenario/bench"
)

// percentile returns the smallest value that p percent of them do not exceed.
func percentile[T cmp.Ordered](values []T, p int) T {
	s := slices.Sorted(slices.Values(values))
	return s[max(0, (len(s)*p+99)/100-1)]
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

func verdict(met bool) string {
	if met {
		return "met"
	}
	return "MISSED"
}

// freezes has a machine captured every five seconds while it writes 20 and then 100 MB/s, measures a bare freeze and thaw of the same
// filesystem between any two captures, and writes the report bench-freeze.txt.
func freezes(ctx context.Context, tree, bin, out, work string, captures int, minutes time.Duration) (err error) {
	report, err := os.Create(filepath.Join(out, "bench-freeze.txt"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, report.Close()) }()
	w := io.MultiWriter(os.Stdout, report)
	fmt.Fprintf(w, "A machine with ext4 on a loop device of 4 GiB writes 64 KiB at random places, buffered, and syncs a record twenty times a second.\n"+
		"A point every 5 s by policy; between any two a bare freeze and thaw. %d captures at each rate, at least %s at 20 MB/s.\n", captures, minutes)
	fmt.Fprintf(w, "%s\nmachine: %s\ncommit: %s\n", time.Now().UTC().Format(time.RFC3339), bench.Machine(), tree)
	for _, rate := range []int64{20, 100} {
		if rate != 20 {
			minutes = 0
		}
		if err := freeze(ctx, w, bin, filepath.Join(work, "freeze"), rate, captures, minutes); err != nil {
			return fmt.Errorf("at %d MB/s: %w", rate, err)
		}
	}
	return nil
}

func freeze(ctx context.Context, w io.Writer, bin, dir string, rate int64, captures int, least time.Duration) (err error) {
	if err := errors.Join(os.RemoveAll(dir), os.MkdirAll(dir, 0o755)); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	disk, err := bench.NewDisk(ctx, dir, "disk", 4<<30, true)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, disk.Close()) }()
	stop, err := disk.Churn(rate*1e6, uint64(rate))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stop()) }()
	l, err := bench.NewLive(ctx, bin, filepath.Join(dir, "lifeboat"), 5, map[string]*bench.Disk{"machine": disk})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	first, err := l.Taken("machine")
	if err != nil {
		return err
	}
	skip := len(first) + 2 // until the first copy is behind it
	cpu, err := l.AgentCPU("machine")
	if err != nil {
		return err
	}
	start := time.Now()
	var bare []time.Duration
	var taken []bench.Taken
	for seen := skip; len(taken) < captures || time.Since(start) < least; {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
		all, err := l.Taken("machine")
		if err != nil {
			return err
		}
		if len(all) <= seen { // half a second after a point is long before the next one
			continue
		}
		seen, taken = len(all), all[skip:]
		took, err := disk.BareFreeze()
		if errors.Is(err, bench.ErrFrozen) {
			continue
		}
		if err != nil {
			return err
		}
		bare = append(bare, took)
	}
	used, err := l.AgentCPU("machine")
	if err != nil {
		return err
	}
	peak, err := l.AgentPeak("machine")
	if err != nil {
		return err
	}
	var windows []time.Duration
	var shipped int64
	for _, t := range taken {
		windows, shipped = append(windows, t.Freeze), shipped+t.Shipped
	}
	lags := bench.Lags(taken)
	fmt.Fprintf(w, "\n%d MB/s: %d captures in %s, %d bare freezes\n", rate, len(windows), time.Since(start).Round(time.Second), len(bare))
	for name, v := range map[string][]time.Duration{"freeze": windows, "bare": bare} {
		fmt.Fprintf(w, "  %-6s p50 %6.1f ms  p90 %6.1f ms  p99 %6.1f ms  max %6.1f ms\n", name, ms(percentile(v, 50)), ms(percentile(v, 90)), ms(percentile(v, 99)), ms(slices.Max(v)))
	}
	fmt.Fprintf(w, "  lag    p50 %6.2f s   p99 %6.2f s   max %6.2f s\n", percentile(lags, 50).Seconds(), percentile(lags, 99).Seconds(), slices.Max(lags).Seconds())
	fmt.Fprintf(w, "  shipped %.2f GB, agent %.2f s of CPU a GB, peak %d MiB\n", float64(shipped)/1e9, (used-cpu).Seconds()/(float64(shipped)/1e9), peak>>20)
	limit := map[int64]time.Duration{20: 100 * time.Millisecond, 100: 250 * time.Millisecond}[rate]
	limit = max(limit, percentile(bare, 99)*3/2)
	if rate == 20 {
		fmt.Fprintf(w, "  goal: p50 <= 60 ms  %s\n", verdict(percentile(windows, 50) <= 60*time.Millisecond))
		fmt.Fprintf(w, "  goal: lag p99 < 15 s  %s\n", verdict(percentile(lags, 99) < 15*time.Second))
	}
	fmt.Fprintf(w, "  goal: p99 <= %.0f ms  %s\n", ms(limit), verdict(percentile(windows, 99) <= limit))
	return nil
}

// deltas compares what a change of 40 MiB costs on disks of 1, 16 and 64 GiB, and writes the report bench-delta.txt.
func deltas(ctx context.Context, tree, bin, out, work string, rounds int) (err error) {
	report, err := os.Create(filepath.Join(out, "bench-delta.txt"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, report.Close()) }()
	w := io.MultiWriter(os.Stdout, report)
	fmt.Fprintf(w, "640 pieces of 64 KiB written at random places of raw disks of 1, 16 and 64 GiB, then a capture; %d rounds, in which the disks take turns.\nTime: the agent's, from the request until the point is durable.\n", rounds)
	fmt.Fprintf(w, "%s\nmachine: %s\ncommit: %s\n\n", time.Now().UTC().Format(time.RFC3339), bench.Machine(), tree)
	dir := filepath.Join(work, "delta")
	if err := errors.Join(os.RemoveAll(dir), os.MkdirAll(dir, 0o755)); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	names, disks := []string{"1", "16", "64"}, map[string]*bench.Disk{}
	for i, name := range names {
		if disks[name], err = bench.NewDisk(ctx, dir, "disk"+name, []int64{1, 16, 64}[i]<<30, false); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, disks[name].Close()) }()
	}
	l, err := bench.NewLive(ctx, bin, filepath.Join(dir, "lifeboat"), 0, disks)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	times, bytes, cpus := map[string][]time.Duration{}, map[string][]int64{}, map[string][]float64{}
	for round := range rounds {
		for i := range names {
			name := names[(i+round)%len(names)]
			if err := disks[name].Scatter(640, uint64(round)); err != nil {
				return err
			}
			before, err := l.AgentCPU(name)
			if err != nil {
				return err
			}
			t, err := l.Capture(ctx, name)
			if err != nil {
				return err
			}
			after, err := l.AgentCPU(name)
			if err != nil {
				return err
			}
			times[name], bytes[name] = append(times[name], t.Took), append(bytes[name], t.Shipped)
			cpus[name] = append(cpus[name], (after-before).Seconds()/(float64(t.Shipped)/1e9))
			fmt.Fprintf(w, "round %2d  %2s GiB  %6.1f ms  %d bytes\n", round+1, name, ms(t.Took), t.Shipped)
		}
	}
	fmt.Fprintln(w, "\nmedians")
	for _, name := range names {
		peak, err := l.AgentPeak(name)
		if err != nil {
			return err
		}
		fmt.Fprintf(w, "%2s GiB  %6.1f ms  %d bytes  agent %.1f s of CPU a GB shipped, peak %d MiB\n", name, ms(percentile(times[name], 50)), percentile(bytes[name], 50), percentile(cpus[name], 50), peak>>20)
	}
	fmt.Fprintln(w, "\nratios of medians, and their goals")
	for _, name := range names[1:] {
		t, b := ms(percentile(times[name], 50))/ms(percentile(times["1"], 50)), float64(percentile(bytes[name], 50))/float64(percentile(bytes["1"], 50))
		fmt.Fprintf(w, "%2s GiB to 1 GiB: time %.2f  goal 0.80 to 1.20  %s; bytes %.2f  goal 0.80 to 1.20  %s\n", name, t, verdict(t >= 0.8 && t <= 1.2), b, verdict(b >= 0.8 && b <= 1.2))
	}
	return nil
}
