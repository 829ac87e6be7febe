package workflow_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lifeboat-dr/lifeboat/service/control"
	"github.com/lifeboat-dr/lifeboat/service/dr"
)

// tells has the agents report more from now on.
func (w *world) tells(more func(*dr.Observed)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.tell = more
}

func TestAThrottleThatIsTooLowIsReportedBeforeAndWithTheBreach(t *testing.T) {
	bubble(t, func(w *world) {
		w.enable()
		w.waitPhase(dr.LegInMageRcm, dr.PhaseProtected)
		w.mu.Lock()
		w.lame = true
		w.mu.Unlock()
		limit := int64(1_000_000)
		w.tells(func(o *dr.Observed) { o.ThrottledPercent, o.Throttle, o.Churn = 97, &limit, 4_000_000 })
		time.Sleep(10 * time.Minute)
		if got := w.codes(); len(got) != 0 {
			t.Errorf("got %v before two intervals have passed, want nothing yet", got)
		}
		time.Sleep(time.Minute)
		if got := w.codes(); !slices.Equal(got, []string{dr.HealthChurn}) || w.events(dr.HealthChurn, dr.SeverityWarning) != 1 {
			t.Errorf("got %v and %d events, want it reported once", got, w.events(dr.HealthChurn, dr.SeverityWarning))
		}
		time.Sleep(5 * time.Minute)
		if got := w.codes(); !slices.Equal(got, []string{dr.HealthRPOBreach, dr.HealthChurn}) || w.events(dr.HealthRPOBreach, dr.SeverityCritical) != 1 {
			t.Errorf("got %v, want the breach besides", got)
		}
		if h := w.item().HealthErrors[0]; !strings.Contains(h.PossibleCauses, "1.0 MB/s") || !strings.Contains(h.RecommendedAction, "raise the throttle") {
			t.Errorf("got %+v, want the breach to name the throttle", h)
		}
		w.mu.Lock()
		w.lame = false
		for _, g := range w.gens {
			g[1].points = 2 // lets the agent ship once more
		}
		w.mu.Unlock()
		time.Sleep(30 * time.Second)
		if got := w.codes(); len(got) != 0 || w.events(dr.HealthChurn+"Cleared", dr.SeverityOK) != 1 || w.events(dr.HealthRPOBreach+"Cleared", dr.SeverityOK) != 1 {
			t.Errorf("got %v after a point, want nothing and events that say so", got)
		}
	})
}

func TestAResyncIsReportedWithItsReasonHoweverShort(t *testing.T) {
	bubble(t, func(w *world) {
		w.enable()
		w.waitPhase(dr.LegInMageRcm, dr.PhaseProtected)
		const reason = "disk vda: the kernel counted writes that were not marked"
		began := time.Now()
		w.tells(func(o *dr.Observed) { o.Phase, o.ResyncReason, o.ResyncTime = "resync", reason, began })
		time.Sleep(time.Minute)
		v := w.item()
		if len(v.HealthErrors) != 1 || v.HealthErrors[0].Code != dr.HealthResync || v.HealthErrors[0].PossibleCauses != reason {
			t.Errorf("got %+v, want the resync and why", v.HealthErrors)
		}
		w.tells(func(o *dr.Observed) { o.ResyncReason, o.ResyncTime = reason, began })
		time.Sleep(time.Minute)
		w.resyncEvents(1, 1, reason)
		w.tells(func(o *dr.Observed) { o.ResyncReason, o.ResyncTime = "the second", began.Add(time.Minute) }) // ended before the next report
		time.Sleep(time.Minute)
		w.resyncEvents(2, 2, "the second")
	})
}

// resyncEvents compares the number of events that a resync began and ended, and the newest one's reason.
func (w *world) resyncEvents(began, ended int, reason string) {
	w.t.Helper()
	if b, e := w.events("Resync", dr.SeverityWarning), w.events("ResyncDone", dr.SeverityOK); b != began || e != ended {
		w.t.Errorf("got %d events that one began and %d that it ended, want %d and %d", b, e, began, ended)
	}
	page, err := w.control.Events(w.ctx, w.vault, control.EventFilter{Type: "VmHealth", Code: dr.NamedGUID("event", "Resync")}, control.Paging{})
	if err != nil || len(page.Items) == 0 {
		w.t.Fatal(page, err)
	}
	e := page.Items[0]
	if !strings.Contains(e.Description, reason) || len(e.HealthErrors) != 1 || e.HealthErrors[0].PossibleCauses != reason || e.HealthErrors[0].RecommendedAction == "" {
		w.t.Errorf("got %+v, want its reason", e)
	}
}
