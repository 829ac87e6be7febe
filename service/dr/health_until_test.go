package dr

import (
	"math/rand/v2"
	"reflect"
	"testing"
	"time"
)

// What Judge and RPOLag tell stays the same until JudgedUntil, but for the time at which an error says it was found.
func TestAJudgementHoldsAsLongAsItIsSaidTo(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	random := rand.New(rand.NewPCG(seed, 0))
	now := time.Date(2026, 11, 23, 6, 0, 0, 123456789, time.UTC)
	// Near a limit and far from it, on whole and on broken seconds.
	ago := func(limit time.Duration) time.Time {
		d := time.Duration(random.Int64N(int64(3*time.Second))) - time.Second
		switch random.IntN(3) {
		case 0:
			d = time.Duration(random.Int64N(int64(2 * max(limit, time.Second))))
		case 1:
			d = d.Round(500 * time.Millisecond)
		}
		return now.Add(d - limit)
	}
	type told struct {
		health string
		errs   []HealthError
		lag    time.Duration
		valid  bool
	}
	tell := func(e Evidence, at time.Time) (x told) {
		x.health, x.errs = Judge(e, at)
		for i := range x.errs {
			x.errs[i].Created = time.Time{}
		}
		x.lag, x.valid = RPOLag(e, at)
		x.lag = x.lag.Truncate(time.Second)
		return x
	}
	changed := 0
	for range 20_000 {
		phases := []Phase{PhaseProtected, PhaseInitialReplication, PhaseUnplannedPending, PhaseNone}
		policy := Policy{RPOThreshold: []time.Duration{0, time.Second, 15 * time.Minute}[random.IntN(3)], AppConsistentEvery: []time.Duration{0, time.Second, time.Hour}[random.IntN(3)]}
		e := Evidence{Item: &Item{ID: "i", State: State{Leg: LegInMageRcm, Phase: phases[random.IntN(len(phases))], Since: ago(HeartbeatLimit)}}, Policy: policy}
		if random.IntN(2) == 0 {
			e.Observed.LastHeartbeat = ago(HeartbeatLimit)
		}
		if random.IntN(2) == 0 {
			e.Observed.StrangerUUID, e.Observed.StrangerSeen = "other", ago(HeartbeatLimit)
		}
		if random.IntN(4) > 0 {
			e.Newest = &Point{Time: ago(policy.RPOThreshold)}
		}
		if random.IntN(2) == 0 {
			e.NewestApp = &Point{Time: ago(2 * policy.AppConsistentEvery)}
		}
		until := JudgedUntil(e, now)
		if !until.After(now) || until.Sub(now) > time.Second {
			t.Fatalf("seed %d: got %s, want later than %s by a second at most", seed, until, now)
		}
		want := tell(e, now)
		for _, at := range []time.Time{now.Add(until.Sub(now) / 2), now.Add(time.Duration(random.Int64N(int64(until.Sub(now))))), until.Add(-1)} {
			if got := tell(e, at); !reflect.DeepEqual(got, want) {
				t.Fatalf("seed %d: %+v\nat %s got %+v\nat %s got %+v\nwhich was to hold until %s", seed, e, now, want, at, got, until)
			}
		}
		if !reflect.DeepEqual(tell(e, until), want) {
			changed++
		}
	}
	if changed < 1000 {
		t.Errorf("seed %d: only %d of 20000 judgements changed when they might", seed, changed)
	}
}
