package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/lifeboat-dr/lifeboat/sdk/scenario/bench"
)

// drills compares drills of the same guest on a small and on a large disk, in pairs that change their order, and writes the
// report bench-drill.txt.
func drills(ctx context.Context, tree, bin, out, work string, pairs int) (err error) {
	report, err := os.Create(filepath.Join(out, "bench-drill.txt"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, report.Close()) }()
	w := io.MultiWriter(os.Stdout, report)
	fmt.Fprintf(w, "Drill of the same guest on a 1 GiB and on a 64 GiB disk, %d interleaved pairs.\nFrom the API call to the first line of the guest's userspace; bucket traffic until the machine counts as up.\n", pairs)
	fmt.Fprintf(w, "%s\nmachine: %s\ncommit: %s\n\n", time.Now().UTC().Format(time.RFC3339), bench.Machine(), tree)
	dir := filepath.Join(work, "drills")
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	d, err := bench.NewDrills(ctx, bin, dir, map[string]int64{"small": 1 << 30, "large": 64 << 30})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.Close(), os.RemoveAll(dir)) }()
	var ratios, requests, bytes []float64
	for pair := range pairs {
		names := []string{"small", "large"}
		if pair%2 == 1 {
			slices.Reverse(names)
		}
		one := map[string]bench.Drill{}
		for _, name := range names {
			if one[name], err = d.Run(ctx, name); err != nil {
				return fmt.Errorf("drill of the %s disk: %w", name, err)
			}
		}
		small, large := one["small"], one["large"]
		fmt.Fprintf(w, "pair %2d  1 GiB: %5.2f s, %4d requests, %8d bytes   64 GiB: %5.2f s, %4d requests, %8d bytes\n", pair+1,
			small.FirstLine.Seconds(), small.Requests, small.Bytes, large.FirstLine.Seconds(), large.Requests, large.Bytes)
		ratios = append(ratios, large.FirstLine.Seconds()/small.FirstLine.Seconds())
		requests = append(requests, float64(large.Requests)/float64(small.Requests))
		bytes = append(bytes, float64(large.Bytes)/float64(small.Bytes))
	}
	fmt.Fprintln(w, "\nmedian ratios, 64 GiB to 1 GiB, and their goals")
	verdict := func(met bool) string {
		if met {
			return "met"
		}
		return "MISSED"
	}
	t, r, b := middle(ratios), middle(requests), middle(bytes)
	fmt.Fprintf(w, "time to the first userspace line  %.2f  goal <= 1.20         %s\n", t, verdict(t <= 1.2))
	fmt.Fprintf(w, "bucket requests                   %.2f  goal within 10 %%     %s\n", r, verdict(math.Abs(r-1) <= 0.1))
	fmt.Fprintf(w, "bucket bytes                      %.2f  goal within 10 %%     %s\n", b, verdict(math.Abs(b-1) <= 0.1))
	return nil
}

// middle is the median of at least one number.
func middle(all []float64) float64 {
	sorted := slices.Sorted(slices.Values(all))
	n := len(sorted)
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}
