package ship_test

import (
	"testing"
	"time"

	"github.com/lifeboat-dr/lifeboat/agent/source"
	"github.com/lifeboat-dr/lifeboat/agent/throttle"
	"github.com/lifeboat-dr/lifeboat/sdk/fleet"
)

// allDay is a throttle that holds always.
func allDay(bytesPerSecond int64) fleet.Throttle {
	return fleet.Throttle{Zone: "UTC", Windows: []fleet.ThrottleWindow{{From: "00:00", To: "24:00", BytesPerSecond: bytesPerSecond}}}
}

func TestTheLowerOfBothThrottlesHolds(t *testing.T) {
	t.Parallel()
	const size, rate = 16 << 20, 8 << 20
	path := noise(t, size)
	src := source.Config{Disks: []source.Named{{ID: "disk0", Path: path, Stopped: true}}}
	for name, tc := range map[string]struct{ local, desired int64 }{
		"the agent's":  {rate, 10 * rate},
		"lifeboatd's":  {10 * rate, rate},
		"the only one": {-1, rate},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, newMemory())
			cfg, want := s.config(src), s.want(disksOf(t, src))
			if tc.local >= 0 {
				cfg.Throttle = new(throttle.Limiter)
				cfg.Throttle.Set(throttle.Schedule{Windows: []throttle.Window{{BytesPerSecond: tc.local}}})
			}
			want.Throttle = allDay(tc.desired)
			start := time.Now()
			a := s.run(cfg, want, nil)
			a.await("point", func(st fleet.ProtectionStatus) bool { return st.LastPoint.Sequence == 1 })
			// What is left to be paid for at the end is one message of at most a MiB for each of two workers.
			if took, least := time.Since(start), time.Duration(size-3<<20)*time.Second/rate; took < least {
				t.Errorf("16 MiB at 8 MiB/s took %v, want at least %v", took, least)
			}
			if st := a.Status(); st.ThrottleBytesPerSecond == nil || *st.ThrottleBytesPerSecond != rate || st.ChangedBytes != size || st.ShippedBytes != size {
				t.Errorf("got %+v, want the throttle in force and what was shipped", st)
			}
		})
	}
}

func TestAThrottleEndsWithoutANewSession(t *testing.T) {
	t.Parallel()
	const size = 4 << 20
	src := source.Config{Disks: []source.Named{{ID: "disk0", Path: noise(t, size), Stopped: true}}}
	m := newMemory()
	s := newSite(t, m)
	want := s.want(disksOf(t, src))
	want.Throttle = allDay(0)
	a := s.run(s.config(src), want, nil)
	a.await("session that is held", func(fleet.ProtectionStatus) bool { return m.sessions() == 1 })
	a.await("share of the time", func(st fleet.ProtectionStatus) bool { return st.ThrottledPercent > 50 })
	if got := m.putBytes("disk0"); got != 0 {
		t.Errorf("%d bytes went out though nothing may", got)
	}
	a.want.Throttle = fleet.Throttle{Zone: "Nowhere/Land"} // is logged, and changes nothing
	a.Set(a.want)
	if got := a.Status(); got.ThrottleBytesPerSecond == nil || *got.ThrottleBytesPerSecond != 0 {
		t.Errorf("got throttle %v after one that cannot be read, want the one before", got.ThrottleBytesPerSecond)
	}
	a.want.Throttle = fleet.Throttle{}
	a.Set(a.want)
	st := a.await("point", func(st fleet.ProtectionStatus) bool { return st.LastPoint.Sequence == 1 })
	if got := m.sessions(); got != 1 || st.ThrottleBytesPerSecond != nil {
		t.Errorf("got %d sessions and throttle %v, want the first session to go on without one", got, st.ThrottleBytesPerSecond)
	}
}

func TestAThrottledSessionIsStopped(t *testing.T) {
	t.Parallel()
	src := source.Config{Disks: []source.Named{{ID: "disk0", Path: noise(t, 4<<20), Stopped: true}}}
	m := newMemory()
	s := newSite(t, m)
	want := s.want(disksOf(t, src))
	want.Throttle = allDay(0)
	a := s.run(s.config(src), want, nil)
	a.await("share of the time", func(st fleet.ProtectionStatus) bool { return m.sessions() == 1 && st.ThrottledPercent > 50 })
	a.stop() // waits for Run
}
