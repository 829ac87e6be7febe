package bench

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Cost is what one run took.
type Cost struct {
	Wall     time.Duration
	CPU      time.Duration // user and system
	PeakRSS  int64         // bytes
	Stored   int64         // bytes on the target, where the run stores something
	Requests int64         // bucket requests, where they are counted
}

// Measure runs a command to its end.
func Measure(ctx context.Context, env []string, name string, args ...string) (Cost, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(os.Environ(), env...)
	start := time.Now()
	out, err := cmd.CombinedOutput()
	cost := Cost{Wall: time.Since(start)}
	if err != nil {
		return cost, fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, out)
	}
	usage := cmd.ProcessState.SysUsage().(*syscall.Rusage)
	cost.CPU = cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	cost.PeakRSS = usage.Maxrss << 10
	return cost, nil
}

// PeakRSS reads the largest resident size a running process had, in bytes.
func PeakRSS(pid int) (int64, error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			kib, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
			return kib << 10, err
		}
	}
	return 0, fmt.Errorf("process %d tells no peak memory", pid)
}

// Spread is the minimum, median and maximum of some runs' wall times.
type Spread struct{ Min, Median, Max time.Duration }

// SpreadOf needs at least one cost. The median of an even number is the mean of the middle two.
func SpreadOf(costs []Cost) Spread {
	walls := make([]time.Duration, len(costs))
	for i, c := range costs {
		walls[i] = c.Wall
	}
	slices.Sort(walls)
	n := len(walls)
	return Spread{Min: walls[0], Median: (walls[(n-1)/2] + walls[n/2]) / 2, Max: walls[n-1]}
}

func (s Spread) String() string {
	return fmt.Sprintf("%.2f s (%.2f to %.2f)", s.Median.Seconds(), s.Min.Seconds(), s.Max.Seconds())
}

// selfCPU is how much processor time this process has used.
func selfCPU() (time.Duration, error) {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0, fmt.Errorf("ask for the processor time used: %w", err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()), nil
}

// cpuTime reads how much processor time a running process has used, from fields 14 and 15 of its stat line (proc(5)).
func cpuTime(pid int) (time.Duration, error) {
	line, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	_, rest, ok := strings.Cut(string(line), ") ")
	fields := strings.Fields(rest)
	if !ok || len(fields) < 13 {
		return 0, fmt.Errorf("process %d has a strange stat line", pid)
	}
	var ticks int64
	for _, field := range fields[11:13] {
		n, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return 0, err
		}
		ticks += n
	}
	return time.Duration(ticks) * time.Second / 100, nil
}
