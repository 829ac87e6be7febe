package repo

import (
	"slices"
	"time"

	"github.com/lifeboat-dr/lifeboat/replicator/manifest"
)

// appConsistent is the Consistency of points whose applications were quiesced. Only Prune looks at it: the newest such point
// is kept.
const appConsistent = "applicationConsistent"

func (k Retention) withDefaults() Retention {
	if k.All == 0 {
		k.All = 2 * time.Hour
	}
	if k.Hourly == 0 {
		k.Hourly = 24 * time.Hour
	}
	k.Grace = max(k.Grace, minGrace)
	return k
}

// choose tells which of the points, ascending by generation and sequence, age alone keeps: all younger than All; up to Hourly
// the newest of every hour and up to Daily the newest of every day, an app-consistent one first; the newest of all and the
// newest app-consistent one whatever their age.
func (k Retention) choose(points []*manifest.Entry, now time.Time) map[PointRef]bool {
	keep := make(map[PointRef]bool)
	taken := make(map[time.Time]bool) // hours
	days := make(map[time.Time]bool)
	add := func(e *manifest.Entry) { keep[refOf(e)] = true }
	newest, newestApp := true, true
	for _, app := range []bool{true, false} {
		for _, e := range slices.Backward(points) {
			if (e.Consistency == appConsistent) != app {
				continue
			}
			if app && newestApp {
				add(e)
				newestApp = false
			}
			age := now.Sub(e.Time)
			hour, day := e.Time.UTC().Truncate(time.Hour), e.Time.UTC().Truncate(24*time.Hour)
			switch {
			case age < k.All:
				add(e)
			case age < k.Hourly && !taken[hour]:
				add(e)
				taken[hour], days[day] = true, true
			case age >= k.Hourly && age < k.Daily && !days[day]:
				add(e)
				days[day] = true
			}
		}
	}
	for _, e := range slices.Backward(points) {
		if newest {
			add(e)
			newest = false
		}
	}
	return keep
}

func refOf(e *manifest.Entry) PointRef { return PointRef{e.Generation, e.Sequence} }
