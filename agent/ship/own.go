package ship

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/lifeboat-dr/lifeboat/agent/source"
)

// own counts what this process writes to the disks it protects, which must then be shipped like anything else. In each epoch that is
// bounded by what was written to the disks: a page of known sums and one of their checksums, 8 KiB, for each MiB of the disk that was
// touched, and some KiB for the memo and the files' headers.
type own struct {
	dir    string // the state's
	before int64
}

// since returns the bytes written since it was called last: none when the state lies on no filesystem of the protected disks.
func (o *own) since(protected []source.Filesystem) int64 {
	now := written()
	n := now - o.before
	o.before = now
	var st unix.Stat_t
	if unix.Stat(o.dir, &st) != nil {
		return 0
	}
	dev := fmt.Sprintf("%d:%d", unix.Major(st.Dev), unix.Minor(st.Dev))
	if !slices.ContainsFunc(protected, func(f source.Filesystem) bool {
		var at unix.Stat_t // btrfs has numbers that mountinfo does not tell
		return f.Device == dev || unix.Stat(f.Path, &at) == nil && at.Dev == st.Dev
	}) {
		return 0
	}
	return max(0, n)
}

// written returns how much this process has written to disks, by the kernel's count of pages it made dirty.
func written() int64 {
	b, err := os.ReadFile("/proc/self/io")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(strings.TrimSpace(line), "write_bytes: "); ok {
			n, _ := strconv.ParseInt(v, 10, 64)
			return n
		}
	}
	return 0
}
