package ship_test

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/lifeboat-dr/lifeboat/agent/ship"
	"github.com/lifeboat-dr/lifeboat/agent/source"
	"github.com/lifeboat-dr/lifeboat/agent/track/kernel"
	"github.com/lifeboat-dr/lifeboat/sdk/fleet"
)

// restarts is an agent on a raw disk that is stopped and started.
type restarts struct {
	*site
	t       *testing.T
	backing string
	src     source.Config
	disk    *os.File
	r       *memory
	cfg     ship.Config
	k       *kernel.Trackers
}

func newRestarts(t *testing.T, size int64) *restarts {
	t.Helper()
	x := &restarts{t: t, r: newMemory()}
	x.backing, x.src = rawDisk(t, size)
	x.disk = must(os.OpenFile(x.src.Disks[0].Path, os.O_WRONLY|syscall.O_SYNC, 0))
	t.Cleanup(func() { _ = x.disk.Close() })
	x.site = newSite(t, x.r)
	x.cfg = x.tracked(x.src)
	x.k = x.cfg.Trackers.(*kernel.Trackers)
	return x
}

// capture starts an agent, has it make one point beside those that it makes by itself, and stops it.
func (x *restarts) capture(id string) fleet.ProtectionStatus {
	x.t.Helper()
	want := x.want(disksOf(x.t, x.src))
	want.CaptureId = id
	a := x.run(x.cfg, want, nil)
	st := a.await("point "+id, func(st fleet.ProtectionStatus) bool { return st.LastCaptureId == id })
	a.stop()
	sameImage(x.t, "point "+id, x.r.point(x.t, x.count()).images["disk0"], read(x.t, x.backing))
	return st
}

// uncaptured runs an agent until it has shipped so many bytes more that are in no point, and stops it.
func (x *restarts) uncaptured(at, n int64) {
	x.t.Helper()
	want := x.want(disksOf(x.t, x.src))
	want.CrashConsistentSeconds = 20 // changes flow every two seconds
	put := x.r.putBytes("disk0")
	a := x.run(x.cfg, want, nil)
	a.await("delta", func(st fleet.ProtectionStatus) bool { return st.Phase == fleet.Delta })
	must(x.disk.WriteAt(randomBytes(int(n)), at))
	until(x.t, "changes on their way", func() bool { return x.r.putBytes("disk0") >= put+n })
	a.stop()
}

func TestCleanStopIsFollowedByDeltas(t *testing.T) {
	t.Parallel()
	const size, piece = 64 << 20, 2 << 20
	for name, reboot := range map[string]bool{"while the tracking goes on": false, "when it was ended": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			x := newRestarts(t, size)
			x.capture("one")
			put := x.r.putBytes("disk0")
			x.uncaptured(10<<20, piece)
			written := int64(piece)
			if reboot {
				forget(t, x.k)
			} else {
				must(x.disk.WriteAt(randomBytes(piece), 20<<20))
				written += piece
			}
			st := x.capture("two")
			if st.ResyncReason != "" {
				t.Errorf("the disk was compared: %s", st.ResyncReason)
			}
			if got := x.r.putBytes("disk0") - put; got != written {
				t.Errorf("%d bytes were shipped, want %d", got, written)
			}
			if st.TotalBytes > 2*piece {
				t.Errorf("a pass looked at %d bytes", st.TotalBytes)
			}
		})
	}
}

func TestWhatNobodyTrackedIsCompared(t *testing.T) {
	t.Parallel()
	const size = 32 << 20
	changed := func(x *restarts, at int64) { must(x.disk.WriteAt(randomBytes(4096), at)) }
	for name, tc := range map[string]struct {
		between func(*testing.T, *restarts)
		reason  string
	}{
		"written while no agent ran": {
			between: func(t *testing.T, x *restarts) {
				forget(t, x.k)
				changed(x, 5<<20)
			}, reason: "4096 bytes were written while no agent ran"},
		"the change log is lost": {
			between: func(t *testing.T, x *restarts) {
				if err := os.Remove(filepath.Join(x.cfg.StateDir, machineID, "disk0.hrl")); err != nil {
					t.Fatal(err)
				}
				changed(x, 5<<20)
			}, reason: "before it had compared the disk"},
		"an agent that began to track was killed before it had compared": {
			between: func(t *testing.T, x *restarts) {
				forget(t, x.k)
				changed(x, 5<<20)
				want := x.want(disksOf(t, x.src))
				want.CaptureId = "killed"
				p := start(t, "agent", writeSetup(t, agentSetup{State: x.cfg.StateDir, Source: x.src, CA: x.ca.Raw, Identity: packed(x.agent),
					Want: want, Tracked: true, Hang: true}))
				p.says("frozen")
				p.kill()
				until(t, "end of the session", func() bool { return x.server.Stats().Sessions == 0 })
				changed(x, 6<<20)
			}, reason: "before it had compared the disk"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			x := newRestarts(t, size)
			x.capture("one")
			put := x.r.putBytes("disk0")
			tc.between(t, x)
			st := x.capture("two")
			if !strings.Contains(st.ResyncReason, tc.reason) {
				t.Errorf("got reason %q, want %q", st.ResyncReason, tc.reason)
			}
			if got := x.r.putBytes("disk0") - put; got > 2*4096 {
				t.Errorf("%d bytes were shipped", got)
			}
		})
	}
}

func TestAgentKilledInTheWindowThawsAndGoesOn(t *testing.T) {
	t.Parallel()
	m := newMachine(t, 64<<20)
	m.write()
	r := newMemory()
	s := newSite(t, r)
	state := filepath.Join(s.dir, "agent")
	t.Cleanup(func() { forget(t, kernel.New(state, s.log)) })
	want := s.want(disksOf(t, m.source))
	setup := agentSetup{State: state, Source: m.source, CA: s.ca.Raw, Identity: packed(s.agent), Want: want, Tracked: true}
	p := start(t, "agent", writeSetup(t, setup))
	until(t, "first point", func() bool { // remembered last, when all is settled
		_, err := os.Stat(filepath.Join(state, machineID, "protection.json"))
		return err == nil
	})
	p.end()
	setup.Hang, setup.Want.CaptureId = true, "never made"
	p = start(t, "agent", writeSetup(t, setup))
	p.says("frozen")
	p.kill() // returns when the dead-man is gone, too
	if err := os.WriteFile(filepath.Join(m.mount, "x"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	until(t, "end of the session", func() bool { return s.server.Stats().Sessions == 0 })
	synced := m.stop()
	put := r.putBytes("disk0")
	setup.Hang, setup.Want.CaptureId = false, "made"
	p = start(t, "agent", writeSetup(t, setup))
	until(t, "point", func() bool { return s.count() == 2 })
	read := diskRead(t, p.Process.Pid)
	p.end()
	checkImage(t, r.point(t, 2).images["disk0"], synced)
	t.Logf("read %d bytes, shipped %d", read, r.putBytes("disk0")-put)
	if read > 32<<20 {
		t.Errorf("the agent after the one that was killed read %d bytes of %d: it did not trust the tracking that went on", read, 64<<20)
	}
}
