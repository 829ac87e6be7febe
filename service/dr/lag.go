package dr

import (
	"fmt"
	"time"
)

const (
	// lateAfter and lateGrace: a point is late when the newest one is older than so many intervals and this.
	lateAfter = 2
	lateGrace = 30 * time.Second
	// heldMost is the share of the time, in percent, from which sending is what holds replication back.
	heldMost = 50
)

// bottleneck is what keeps a machine's points from being younger, as far as its agent's numbers tell.
type bottleneck struct {
	sending        bool // more changes than goes out
	causes, action string
}

func findBottleneck(o Observed) bottleneck {
	switch {
	case o.ThrottledPercent >= heldMost && o.ThrottledPercent >= o.BlockedPercent:
		limit := "a throttle"
		if o.Throttle != nil {
			limit = "a throttle of " + rate(*o.Throttle)
		}
		return bottleneck{true, fmt.Sprintf("%s holds sending back for %d%% of the time, and the machine changes %s", limit, o.ThrottledPercent, rate(o.Churn)),
			"raise the throttle in the policy or in the agent's configuration, let it end earlier, or leave busy scratch disks out"}
	case o.BlockedPercent >= heldMost:
		return bottleneck{true, fmt.Sprintf("the network or the process server takes less than the machine changes (%s); sending waits for them for %d%% of the time", rate(o.Churn), o.BlockedPercent),
			"check the process server's load and space and the network to it, give the machine another process server, or leave busy scratch disks out"}
	}
	return bottleneck{causes: "the agent is stopped, captures are refused, or the disks are slow to read",
		action: "read the item's other health errors and the agent's log"}
}

// rate names bytes per second for people.
func rate(n int64) string {
	v, unit := float64(n), "B/s"
	for _, next := range []string{"kB/s", "MB/s", "GB/s"} {
		if v < 1000 {
			break
		}
		v, unit = v/1000, next
	}
	if unit == "B/s" || v >= 100 {
		return fmt.Sprintf("%.0f %s", v, unit)
	}
	return fmt.Sprintf("%.1f %s", v, unit)
}

// late tells of points that come less often than the policy asks, before that breaches its RPO. An agent that is not heard of is
// reported as such instead, and a comparison takes its time.
func late(e Evidence, now time.Time) (HealthError, bool) {
	lag, ok := RPOLag(e, now)
	every := e.Policy.CrashConsistentEvery
	if !ok || every <= 0 || e.Item.State.Phase != PhaseProtected || e.Item.State.Resync || now.Sub(lastHeard(e)) > HeartbeatLimit || lag <= lateAfter*every+lateGrace {
		return HealthError{}, false
	}
	b := findBottleneck(e.Observed)
	h := HealthError{Code: HealthPointsLate, Level: LevelWarning, Category: CategoryReplication,
		Message:        fmt.Sprintf("the newest recovery point is %s old, though one is to be made every %s", lag.Round(time.Second), every),
		Summary:        "Recovery points come later than the policy asks.",
		PossibleCauses: b.causes, RecommendedAction: b.action}
	if b.sending {
		h.Code, h.Summary = HealthChurn, "The machine changes faster than its changes can be sent."
	}
	return h, true
}
