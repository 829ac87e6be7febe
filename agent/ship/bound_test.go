package ship_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/lifeboat-dr/lifeboat/agent/source"
	"github.com/lifeboat-dr/lifeboat/replicator/ingest"
)

// peak returns the most memory a process ever held, in bytes.
func peak(t *testing.T, pid int) int64 {
	t.Helper()
	for line := range strings.Lines(string(read(t, fmt.Sprintf("/proc/%d/status", pid)))) {
		var kib int64
		if n, _ := fmt.Sscanf(line, "VmHWM: %d kB", &kib); n == 1 {
			return kib << 10
		}
	}
	t.Fatal("no VmHWM")
	return 0
}

func TestMemoryIsBoundedWhateverTheDisksSize(t *testing.T) {
	t.Parallel()
	const size, data, limit = 64 << 30, 96 << 20, 96 << 20
	path := noise(t, data)
	f := must(os.OpenFile(path, os.O_RDWR, 0))
	defer f.Close()
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	must(f.WriteAt([]byte("the end"), size-4096))
	r := openTestRepository(t, t.TempDir())
	s := newSite(t, ingest.FromRepo(r))
	src := source.Config{Disks: []source.Named{{ID: "disk0", Path: path, Stopped: true}}}
	want := s.want(disksOf(t, src))
	want.CrashConsistentSeconds = 1
	start0 := time.Now()
	p := start(t, "agent", writeSetup(t, agentSetup{State: filepath.Join(s.dir, "agent"), Source: src, CA: s.ca.Raw, Identity: packed(s.agent), Want: want}))
	until(t, "two points", func() bool { return s.count() >= 2 })
	t.Logf("two points of a disk of 64 GiB took %v", time.Since(start0))
	if got := peak(t, p.Process.Pid); got > limit {
		t.Errorf("the agent held %d MiB, want at most %d", got>>20, limit>>20)
	} else {
		t.Logf("the agent held %d MiB at most", got>>20)
	}
}
