package dr

import (
	"strings"
	"testing"
	"time"
)

func TestWhatHoldsReplicationBackIsNamedWithItsNumbers(t *testing.T) {
	limit := int64(1_500_000)
	now := start.Add(time.Hour)
	e := Evidence{Item: &Item{ID: "i", State: State{Leg: LegInMageRcm, Phase: PhaseProtected, Since: start}}, Policy: Policy{CrashConsistentEvery: time.Minute},
		Newest: &Point{Time: now.Add(-10 * time.Minute)}}
	for name, c := range map[string]struct {
		o    Observed
		want []string
	}{
		"a throttle":             {Observed{ThrottledPercent: 80, Throttle: &limit, Churn: 20_000_000}, []string{"throttle of 1.5 MB/s", "80%", "20.0 MB/s"}},
		"one that has just gone": {Observed{ThrottledPercent: 80, Churn: 999}, []string{"a throttle holds", "999 B/s"}},
		"the network":            {Observed{BlockedPercent: 100, Churn: 123_456_789_000}, []string{"network", "123 GB/s", "100%"}},
	} {
		c.o.LastHeartbeat = now
		e.Observed = c.o
		_, errs := Judge(e, now)
		if len(errs) != 1 || errs[0].Code != HealthChurn || !strings.Contains(errs[0].Message, "10m0s old") {
			t.Errorf("%s: got %+v", name, errs)
			continue
		}
		for _, w := range c.want {
			if !strings.Contains(errs[0].PossibleCauses, w) {
				t.Errorf("%s: got %q, want %q in it", name, errs[0].PossibleCauses, w)
			}
		}
	}
}
