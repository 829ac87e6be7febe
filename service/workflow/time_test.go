package workflow_test

import (
	"encoding/json"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lifeboat-dr/lifeboat/service/control"
	"github.com/lifeboat-dr/lifeboat/service/dr"
	"github.com/lifeboat-dr/lifeboat/service/job"
	"github.com/lifeboat-dr/lifeboat/service/workflow"
)

// bubble runs fn in a world whose time passes by itself, with the engine's production settings.
func bubble(t *testing.T, fn func(w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := makeWorld(t.Context(), t, newMemQueue(5*time.Second), 5*time.Second, workflow.Options{})
		w.patience = 20 * time.Minute
		w.engine(w.store)
		fn(w)
	})
}

// codes lists the codes of what is wrong with the item, as the engine last judged it.
func (w *world) codes() (out []string) {
	for _, h := range w.item().Item.HealthErrors {
		out = append(out, h.Code)
	}
	return out
}

// events counts the events about the item that name the health error.
func (w *world) events(code string, severity dr.Severity) (n int) {
	w.t.Helper()
	page, err := w.control.Events(w.ctx, w.vault, control.EventFilter{Type: "VmHealth", Severity: string(severity), Code: dr.NamedGUID("event", code)}, control.Paging{})
	if err != nil {
		w.t.Fatal(err)
	}
	return len(page.Items)
}

func (w *world) quiet(silent bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.silent = silent
}

func TestASilentSourceIsReportedAndItsReturnToo(t *testing.T) {
	bubble(t, func(w *world) {
		w.enable()
		w.waitPhase(dr.LegInMageRcm, dr.PhaseProtected)
		time.Sleep(time.Minute)
		if got := w.codes(); len(got) != 0 {
			t.Fatalf("got %v of a healthy machine, want nothing", got)
		}
		w.quiet(true)
		time.Sleep(dr.HeartbeatLimit - 10*time.Second)
		if got := w.codes(); slices.Contains(got, dr.HealthNoHeartbeat) {
			t.Errorf("got %v before the limit, want nothing yet", got)
		}
		time.Sleep(30 * time.Second)
		if got := w.codes(); !slices.Contains(got, dr.HealthNoHeartbeat) || w.events(dr.HealthNoHeartbeat, dr.SeverityCritical) != 1 {
			t.Errorf("got %v and %d events after the limit, want it reported once", got, w.events(dr.HealthNoHeartbeat, dr.SeverityCritical))
		}
		time.Sleep(15 * time.Minute)
		if got := w.codes(); !slices.Contains(got, dr.HealthRPOBreach) || w.events(dr.HealthRPOBreach, dr.SeverityCritical) != 1 || w.events(dr.HealthNoHeartbeat, dr.SeverityCritical) != 1 {
			t.Errorf("got %v, want the RPO breach reported once besides", got)
		}
		w.mu.Lock()
		for _, g := range w.gens {
			g[1].points = 2 // lets the agent ship once more
		}
		w.mu.Unlock()
		w.quiet(false)
		time.Sleep(30 * time.Second)
		if got := w.codes(); len(got) != 0 || w.events(dr.HealthNoHeartbeat+"Cleared", dr.SeverityOK) != 1 {
			t.Errorf("got %v after it came back, want nothing and an event that says so", got)
		}
	})
}

func TestAnAgentThatNeverTakesUpReplicationFailsTheJob(t *testing.T) {
	bubble(t, func(w *world) {
		w.quiet(true)
		id, err := w.control.Enable(w.ctx, w.ref, w.enableInput())
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(14 * time.Minute)
		if v, err := w.control.Job(w.ctx, w.vault, id); err != nil || v.Job.State != job.InProgress {
			t.Fatalf("got %s, %v before the timeout, want it waiting", v.Job.State, err)
		}
		time.Sleep(2 * time.Minute)
		v, err := w.control.Job(w.ctx, w.vault, id)
		if err != nil || v.Job.State != job.Failed || len(v.Job.Errors) != 1 || v.Job.Errors[0].RecommendedAction == "" {
			t.Fatalf("got %+v, %v after the timeout, want it failed with a remedy", v.Job, err)
		}
		if got := w.item().Projection.ProtectionState; got != "EnablingFailed" {
			t.Errorf("got %s, want EnablingFailed", got)
		}
		// The agent comes back; the job is restarted from the task that failed.
		w.quiet(false)
		time.Sleep(time.Minute)
		w.ask(w.control.RestartJob(w.ctx, w.vault, id))
		w.waitPhase(dr.LegInMageRcm, dr.PhaseProtected)
	})
}

func TestAMasterTargetThatDoesNotAnswerDelaysAFailoverByTwoMinutesAtMost(t *testing.T) {
	bubble(t, func(w *world) {
		w.enable()
		w.waitPhase(dr.LegInMageRcm, dr.PhaseProtected)
		w.mu.Lock()
		w.deaf = true // its tasks are not leased, though it was heard of a moment ago
		w.mu.Unlock()
		time.Sleep(time.Second) // leases begun before run out
		began := time.Now()
		in := lost
		in.ProviderInput = json.RawMessage(`{"instanceType":"InMageRcm","performShutdown":"true"}`)
		w.ask(w.control.UnplannedFailover(w.ctx, w.ref, in))
		if took := time.Since(began); took < 2*time.Minute || took > 150*time.Second {
			t.Errorf("the failover took %s, want two minutes and little more", took)
		}
	})
}

func TestPointsArePrunedByPolicyAndTheJobIsNotListed(t *testing.T) {
	bubble(t, func(w *world) {
		w.enable()
		w.waitPhase(dr.LegInMageRcm, dr.PhaseProtected)
		time.Sleep(46 * time.Minute)
		w.mu.Lock()
		prunes := w.done[job.KindRepositoryPrune]
		w.mu.Unlock()
		if prunes != 3 {
			t.Errorf("got %d prunes in 46 minutes, want 3", prunes)
		}
		page, err := w.control.Jobs(w.ctx, w.vault, control.JobFilter{}, control.Paging{})
		if err != nil {
			t.Fatal(err)
		}
		for _, j := range page.Items {
			if j.Job.Plan == job.PlanPrune {
				t.Error("housekeeping is listed among the jobs")
			}
		}
	})
}
