package bench

import (
	"fmt"
	"os"
	"runtime"
	"strings"
)

// Machine says in one line what this machine is.
func Machine() string {
	model, memory, kernel := "unknown processor", "?", "unknown kernel"
	if info, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		if _, rest, ok := strings.Cut(string(info), "model name\t: "); ok {
			model, _, _ = strings.Cut(rest, "\n")
		}
	}
	if info, err := os.ReadFile("/proc/meminfo"); err == nil {
		if fields := strings.Fields(string(info)); len(fields) > 1 {
			memory = fields[1]
		}
	}
	if release, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		kernel = strings.TrimSpace(string(release))
	}
	return fmt.Sprintf("%d processors (%s), %s kB, Linux %s, %s", runtime.NumCPU(), model, memory, kernel, runtime.Version())
}
