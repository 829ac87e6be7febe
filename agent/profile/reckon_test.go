package profile

import (
	"math"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/lifeboat-dr/lifeboat/agent/track"
	"github.com/lifeboat-dr/lifeboat/replicator/block"
)

// steady returns epochs of five seconds with so many bytes per second.
func steady(length time.Duration, perSecond int64) (es []epoch) {
	for range int(length / (5 * time.Second)) {
		es = append(es, epoch{span: 5 * time.Second, changed: 5 * perSecond})
	}
	return es
}

func TestTheRPOThatABandwidthAllows(t *testing.T) {
	t.Parallel()
	const mb = 1_000_000
	burst := append(steady(time.Minute, 100*mb), steady(9*time.Minute, 0)...) // 6 GB in ten minutes
	for name, c := range map[string]struct {
		epochs     []epoch
		bandwidth  int64
		every      time.Duration
		sent       float64
		rpo, worst float64
		used       int64
	}{
		"enough at all times":           {steady(time.Hour, 10*mb), 20 * mb, 5 * time.Minute, 1, 300, 300, 50},
		"too little":                    {steady(time.Hour, 10*mb), 5 * mb, 5 * time.Minute, 1, 0, 0, 200},
		"zeros are not sent":            {steady(time.Hour, 10*mb), 8 * mb, 5 * time.Minute, 0.5, 300, 300, 63},
		"a burst is over by the point":  {burst, 20 * mb, 5 * time.Minute, 1, 300, 300, 50},
		"a burst that a point is after": {burst, 20 * mb, time.Minute, 1, 60, 60 + 240, 50}, // 80 MB/s wait for a minute, and take 240 s to go
		"less than a point":             {steady(time.Minute, 10*mb), 20 * mb, 5 * time.Minute, 1, 300, 300, 50},
		"nothing changes":               {steady(time.Hour, 0), 1, 5 * time.Minute, 1, 300, 300, 0},
		"nothing seen":                  {nil, 1, 5 * time.Minute, 1, 0, 0, 0},
	} {
		got := link(c.epochs, c.bandwidth, c.every, c.sent)
		if got.UsedPercent != c.used || (got.RPOSeconds == nil) != (c.rpo == 0) || got.RPOSeconds != nil && (math.Abs(*got.RPOSeconds-c.rpo) > 1e-6 || math.Abs(*got.RPOWorstSeconds-c.worst) > 1e-6) {
			t.Errorf("%s: got %+v (%v, %v), want %+v", name, got, got.RPOSeconds, got.RPOWorstSeconds, c)
		}
	}
}

func TestSamplesAreDrawnFromWhatChanged(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var es []block.Extent
		at := int64(0)
		for range rapid.IntRange(0, 50).Draw(t, "extents") {
			at += block.Size * rapid.Int64Range(1, 300).Draw(t, "gap")
			e := block.Extent{Offset: at, Length: block.Size * rapid.Int64Range(1, 300).Draw(t, "blocks")}
			es, at = append(es, e), e.End()
		}
		limit := piece * rapid.Int64Range(1, 64).Draw(t, "pieces")
		all := track.Bytes(es)
		got := choose(es, limit)
		if n := track.Bytes(got); n > limit || all > 0 && n == 0 || all <= limit && n != all {
			t.Fatalf("chose %d of %d bytes with a limit of %d", n, all, limit)
		}
		end := int64(0)
		for _, g := range got {
			inside := false
			for _, e := range es {
				inside = inside || g.Offset >= e.Offset && g.End() <= e.End()
			}
			if g.Offset < end || g.Length > piece || g.Length <= 0 || g.Offset%block.Size != 0 || !inside {
				t.Fatalf("chose %+v after %d of %+v", g, end, es)
			}
			end = g.End()
		}
	})
}

func TestSizesForPeople(t *testing.T) {
	t.Parallel()
	for n, want := range map[float64]string{0: "0 B", 999: "999 B", 999.6: "1.0 kB", 1500: "1.5 kB", 99_949: "99.9 kB", 99_960: "100 kB", 68_719_476_736: "68.7 GB", 2e18: "2000 PB"} {
		if got := size(n); got != want {
			t.Errorf("%v: got %s, want %s", n, got, want)
		}
	}
}
