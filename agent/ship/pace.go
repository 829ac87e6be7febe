package ship

import (
	"sync"
	"time"

	"github.com/lifeboat-dr/lifeboat/agent/throttle"
	"github.com/lifeboat-dr/lifeboat/sdk/fleet"
)

// pace knows how fast a machine changes, how fast that goes out and what holds it back. Safe for concurrent use.
type pace struct {
	local   *throttle.Limiter  // of all protections of this agent; may be nil
	desired throttle.Limiter   // of this one, as lifeboatd says
	blocked throttle.Stopwatch // by the replicator or the network

	mu               sync.Mutex // guards the rest
	changed, shipped int64      // bytes since the agent started
	base             int64      // changed at the newest point
	point            time.Time  // the instant of the newest point made here
	churn            int64      // bytes per second between the newest two
	old, recent      mark
}

// mark is how long sending had been held back at a time.
type mark struct {
	at                time.Time
	throttled, waited time.Duration
}

// markEvery is the age of the younger mark at which it becomes the older one. What is told covers one to two of them.
const markEvery = time.Minute

// follow makes the throttle that lifeboatd desires the one in force.
func (p *pace) follow(t fleet.Throttle) error {
	s, err := throttle.FromWire(t)
	if err != nil {
		return err
	}
	p.desired.Set(s)
	return nil
}

// take waits until n bytes may be sent. It returns false when stop was closed before.
func (p *pace) take(n int64, stop <-chan struct{}) bool {
	return p.local.Take(n, stop) && p.desired.Take(n, stop)
}

// add counts what a pass found and had sent.
func (p *pace) add(changed, shipped int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.changed, p.shipped = p.changed+changed, p.shipped+shipped
}

// durable records that a point of the given instant was made.
func (p *pace) durable(instant time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if span := instant.Sub(p.point); !p.point.IsZero() && span > 0 {
		p.churn = int64(float64(p.changed-p.base) / span.Seconds())
	}
	p.base, p.point = p.changed, instant
}

// tell adds what is known to a report.
func (p *pace) tell(s *fleet.ProtectionStatus) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := mark{time.Now(), p.local.Held() + p.desired.Held(), p.blocked.Total()}
	if p.old.at.IsZero() {
		p.old, p.recent = now, now
	}
	if now.at.Sub(p.recent.at) >= markEvery {
		p.old, p.recent = p.recent, now
	}
	s.ChangedBytes, s.ShippedBytes, s.ChurnBytesPerSecond = p.changed, p.shipped, p.churn
	s.ThrottledPercent = share(now.throttled-p.old.throttled, now.at.Sub(p.old.at))
	s.BlockedPercent = share(now.waited-p.old.waited, now.at.Sub(p.old.at))
	s.ThrottleBytesPerSecond = nil
	limit := p.local.Limit()
	if d := p.desired.Limit(); limit.None || !d.None && d.BytesPerSecond < limit.BytesPerSecond {
		limit = d
	}
	if !limit.None {
		s.ThrottleBytesPerSecond = &limit.BytesPerSecond
	}
}

func share(part, of time.Duration) int {
	if of <= 0 {
		return 0
	}
	return int(min(100, 100*part/of))
}

// obey throttles as lifeboatd desires. A schedule that cannot be read changes nothing: lifeboatd has checked it, but this machine
// may know fewer time zones.
func (p *Protector) obey(t fleet.Throttle) {
	if err := p.pace.follow(t); err != nil {
		p.log.Error("the throttle that lifeboatd desires was not understood; the one before stays in force", "err", err)
	}
}
