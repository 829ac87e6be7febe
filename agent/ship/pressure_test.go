package ship_test

import (
	"crypto/rand"
	"path/filepath"
	"testing"
	"time"

	"github.com/lifeboat-dr/lifeboat/agent/source"
	"github.com/lifeboat-dr/lifeboat/agent/track/kernel"
	"github.com/lifeboat-dr/lifeboat/agent/track/tracktest/loopdisk"
	"github.com/lifeboat-dr/lifeboat/replicator/ingest"
)

// A machine that writes far more than may be sent: its writes go on as if there were no agent, the agent's memory does not grow,
// no more goes out than the throttle allows, and when the machine rests replication catches up by itself.
func TestMoreChurnThanBandwidthCostsOnlyTheRPO(t *testing.T) {
	t.Parallel()
	const (
		size, region = 256 << 20, 32 << 20
		rate         = 4 << 20 // bytes per second that may be sent
		memory       = 150_000_000
		batch        = 1 << 20
		lasts        = 5 * time.Second
	)
	d := loopdisk.New(t, size)
	s := newSite(t, ingest.FromRepo(openTestRepository(t, t.TempDir())))
	src := source.Config{Disks: []source.Named{{ID: "disk0", Path: d.Path}}}
	want := s.want(disksOf(t, src))
	want.CrashConsistentSeconds, want.Throttle = 1, allDay(rate)
	state := filepath.Join(s.dir, "agent")
	t.Cleanup(func() { // after the agent was killed
		if err := kernel.New(state, s.log).Destroy(); err != nil {
			t.Error(err)
		}
	})
	p := start(t, "agent", writeSetup(t, agentSetup{State: state, Source: src, CA: s.ca.Raw, Identity: packed(s.agent), Want: want, Tracked: true}))
	until(t, "first point", func() bool { return s.count() >= 1 })
	begun := time.Now()
	var written int64
	var slowest time.Duration
	pace := time.NewTicker(25 * time.Millisecond) // 40 MiB/s
	defer pace.Stop()
	for b := make([]byte, batch); time.Since(begun) < lasts; <-pace.C {
		rand.Read(b)
		start := time.Now()
		if _, err := d.WriteAt(b, written%region); err != nil {
			t.Fatal(err)
		}
		slowest = max(slowest, time.Since(start))
		written += batch
	}
	pressed := s.count()
	until(t, "point after the machine came to rest", func() bool { return s.count() > pressed+1 })
	caught := time.Since(begun)
	held := peak(t, p.Process.Pid)
	t.Logf("%d MiB written in %v, the slowest MiB in %v; %d points meanwhile; caught up after %v; the agent held %d MB at most", written>>20, lasts, slowest, pressed, caught, held/1_000_000)
	if held > memory {
		t.Errorf("the agent held %d bytes, want at most %d", held, memory)
	}
	if written < 2*rate*int64(lasts/time.Second) {
		t.Errorf("the machine wrote %d MiB: too little to be more than may be sent", written>>20)
	}
	// All of the region has to go out at least once after it was written last.
	if least := (region - 4*batch) / rate * time.Second; caught < least {
		t.Errorf("caught up after %v: faster than the throttle allows (%v)", caught, least)
	}
}
