package qemu

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/lifeboat-dr/lifeboat/replicator/compute"
)

// memoryFor refuses a machine that needs more memory than the host has to give. Without the check QEMU would be refused by the
// kernel only sometimes, and else push the host into swapping or worse.
func memoryFor(need int64) error {
	info, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return nil //nolint:nilerr // a host that does not tell is not refused
	}
	if free, ok := available(string(info)); ok && need > free {
		return fmt.Errorf("%w: the machine needs %d MiB, %d MiB are free", compute.ErrMemory, need>>20, free>>20)
	}
	return nil
}

// available adds what can be had without swapping out others to the free swap, from the text of /proc/meminfo (proc(5)).
func available(meminfo string) (bytes int64, ok bool) {
	for line := range strings.Lines(meminfo) {
		fields := strings.Fields(line)
		if len(fields) < 2 || fields[0] != "MemAvailable:" && fields[0] != "SwapFree:" {
			continue
		}
		kib, err := strconv.ParseInt(fields[1], 10, 64)
		if err != nil {
			return 0, false
		}
		bytes += kib << 10
		ok = ok || fields[0] == "MemAvailable:"
	}
	return bytes, ok
}
