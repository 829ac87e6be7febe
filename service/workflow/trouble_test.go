package workflow_test

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/lifeboat-dr/lifeboat/service/control"
	"github.com/lifeboat-dr/lifeboat/service/dr"
	"github.com/lifeboat-dr/lifeboat/service/job"
	"github.com/lifeboat-dr/lifeboat/service/queue"
	"github.com/lifeboat-dr/lifeboat/service/store"
)

var (
	broken = queue.Failure{Code: string(dr.CodeInternal), Message: "it broke", PossibleCauses: "a test", RecommendedAction: "none"}
	away   = queue.Failure{Code: string(dr.CodeUnavailable), Message: "it is away"}
)

// protectedWorld is a world whose machine is protected.
func protectedWorld(t *testing.T) *world {
	t.Helper()
	w := newWorld(t)
	w.engine(w.store)
	w.enable()
	w.waitPhase(dr.LegInMageRcm, dr.PhaseProtected)
	return w
}

// failedBackWorld is a world whose machine runs at the recovery site and is protected towards home.
func failedBackWorld(t *testing.T) *world {
	t.Helper()
	w := protectedWorld(t)
	w.killHome()
	w.ask(w.control.UnplannedFailover(w.ctx, w.ref, lost))
	w.ask(w.control.Reprotect(w.ctx, w.ref, homeward))
	w.waitPhase(dr.LegInMageRcmFailback, dr.PhaseProtected)
	return w
}

// fails asks for an operation whose job must fail (and have said why), and waits until what it changed is restored.
func (w *world) fails(id string, err error) job.Job {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
	j := w.waitJob(id)
	if j.State != job.Failed || len(j.Errors) != 1 || j.Errors[0].TaskID == "" {
		w.t.Fatalf("got job %+v, want it failed with the task named", j)
	}
	w.waitFor("the item to be free", func() bool { return w.item().Item.State.PendingJob == "" })
	return j
}

func TestADrillThatCannotStartLeavesNothing(t *testing.T) {
	w := protectedWorld(t)
	w.fail(job.KindInstanceStart, broken)
	w.fails(w.control.TestFailover(w.ctx, w.ref, control.TestFailoverInput{}))
	v := w.item()
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.pins) != 0 || len(w.instances) != 0 || v.Item.TestInstance != nil || v.Projection.TestFailoverState != "None" || v.Item.State.Phase != dr.PhaseProtected {
		t.Errorf("got pins %v, instances %v, item %+v, want nothing left", w.pins, w.instances, v.Item)
	}
}

func TestAFailedFailoverLetsTheSourceGoOn(t *testing.T) {
	w := protectedWorld(t)
	w.fail(job.KindInstanceStart, broken)
	failed := w.fails(w.control.UnplannedFailover(w.ctx, w.ref, lost))
	v := w.item()
	if v.Item.State.Phase != dr.PhaseProtected || v.Item.Fenced || v.Item.Generation != 2 || v.Item.ActiveUUID != homeUUID || v.Item.FailoverInstance != nil {
		t.Fatalf("got %+v, want the source shipping into generation 2", v.Item)
	}
	w.waitFor("a point of generation 2", func() bool { p := w.item().LatestPoint; return p != nil && p.Generation == 2 })

	// The same job runs again, from its start.
	w.ask(w.control.RestartJob(w.ctx, w.vault, failed.ID))
	if v := w.item(); v.Item.State.Phase != dr.PhaseUnplannedPending || v.Item.FailoverPoint.Generation != 2 {
		t.Errorf("got %+v, want it failed over from generation 2", v.Item)
	}
}

func TestAPlannedFailoverThatFailsKeepsTheReplicaActive(t *testing.T) {
	for _, c := range []struct {
		kind       string
		generation int64 // after the undo
	}{
		{job.KindInstanceStop, 2}, {job.KindInstanceCapture, 2}, {job.KindGenerationClose, 3}, {job.KindHomeStop, 3}, {job.KindHomeWriteback, 3}, {job.KindHomeStart, 3},
	} {
		t.Run(c.kind, func(t *testing.T) {
			w := failedBackWorld(t)
			replica := w.item().Item.ActiveUUID
			w.fail(c.kind, broken)
			w.fails(w.control.PlannedFailover(w.ctx, w.ref, noLoss))
			v := w.item()
			if v.Item.State.Phase != dr.PhaseProtected || v.Item.Fenced || v.Item.Generation != c.generation || v.Item.ActiveUUID != replica || v.Item.PlannedFailoverStatus != "Failed" {
				t.Fatalf("got %+v, want the replica %s active on generation %d", v.Item, replica, c.generation)
			}
			if home, _ := w.homeNow(); home || w.running() != 1 {
				t.Errorf("got home running %v and %d machines running, want the replica alone", home, w.running())
			}
			w.ask(w.control.PlannedFailover(w.ctx, w.ref, noLoss))
		})
	}
}

func TestWhatIsAwayIsTriedAgain(t *testing.T) {
	w := protectedWorld(t)
	w.fail(job.KindInstanceStart, away, away, away)
	j := w.ask(w.control.TestFailover(w.ctx, w.ref, control.TestFailoverInput{}))
	if got := j.Task(job.StepBootTest); got.Retries != 3 || got.Attempt != 4 {
		t.Errorf("got %d retries in %d attempts, want 3 in 4", got.Retries, got.Attempt)
	}
}

func TestRetriesEnd(t *testing.T) {
	w := newWorld(t)
	w.options.Retries = 2
	w.engine(w.store)
	w.enable()
	w.waitPhase(dr.LegInMageRcm, dr.PhaseProtected)
	w.fail(job.KindPointPin, away, away, away)
	w.fails(w.control.TestFailover(w.ctx, w.ref, control.TestFailoverInput{}))
}

func TestAQueueThatForgotEverythingCostsTimeOnly(t *testing.T) {
	w := newRedisWorld(t)
	stop := w.engine(w.store)
	w.enable()
	w.waitPhase(dr.LegInMageRcm, dr.PhaseProtected)
	for range 5 {
		id, err := w.control.TestFailover(w.ctx, w.ref, control.TestFailoverInput{})
		if err != nil {
			t.Fatal(err)
		}
		if err := w.flush(); err != nil {
			t.Fatal(err)
		}
		w.ask(id, nil)
		w.ask(w.control.TestFailoverCleanup(w.ctx, w.ref, control.CleanupInput{}))
	}
	stop()
}

func TestACancelledFailoverIsUndone(t *testing.T) {
	w := protectedWorld(t)
	w.fail(job.KindInstanceStart, slices.Repeat([]queue.Failure{away}, 1000)...)
	id, err := w.control.UnplannedFailover(w.ctx, w.ref, lost)
	if err != nil {
		t.Fatal(err)
	}
	w.waitFor("the replica to be tried", func() bool {
		v, err := w.control.Job(w.ctx, w.vault, id)
		return err == nil && v.Job.Task(job.StepStartReplica).Retries > 0
	})
	if _, err := w.control.CancelJob(w.ctx, w.vault, id); err != nil {
		t.Fatal(err)
	}
	if j := w.waitJob(id); j.State != job.Cancelled {
		t.Fatalf("got %s, want Cancelled", j.State)
	}
	w.waitFor("the item to be free", func() bool { return w.item().Item.State.PendingJob == "" })
	if v := w.item(); v.Item.State.Phase != dr.PhaseProtected || v.Item.Fenced {
		t.Errorf("got %+v, want it protected", v.Item)
	}
}

func TestPurgeIsTheWayOutOfARunningJob(t *testing.T) {
	w := protectedWorld(t)
	w.fail(job.KindPointPin, slices.Repeat([]queue.Failure{away}, 1000)...)
	running, err := w.control.UnplannedFailover(w.ctx, w.ref, lost)
	if err != nil {
		t.Fatal(err)
	}
	w.waitJob(w.ask(w.control.PurgeItem(w.ctx, w.ref)).ID)
	if _, err := w.control.Item(w.ctx, w.ref); dr.CodeOf(err) != dr.CodeNotFound {
		t.Errorf("got %v, want the item gone", err)
	}
	if j := w.waitJob(running); j.State != job.Cancelled {
		t.Errorf("got %s, want the running job cancelled", j.State)
	}
	// The machine can be protected again.
	w.fail(job.KindPointPin)
	w.enable()
	w.waitPhase(dr.LegInMageRcm, dr.PhaseProtected)
}

func TestASourceThatComesBackIsAStranger(t *testing.T) {
	w := protectedWorld(t)
	w.killHome()
	w.ask(w.control.UnplannedFailover(w.ctx, w.ref, lost))
	w.mu.Lock()
	w.home.running = true
	w.mu.Unlock()
	w.waitFor("the stranger to be noticed", func() bool { return w.item().Observed.StrangerUUID == homeUUID })
	it := w.item().Item
	if it.MayShip(homeUUID) {
		t.Error("a source whose generation is closed may ship")
	}
	w.waitFor("the event", func() bool {
		page, err := w.control.Events(w.ctx, w.vault, control.EventFilter{Type: "VmHealth"}, control.Paging{})
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range page.Items {
			if len(e.HealthErrors) == 1 && e.HealthErrors[0].Code == dr.HealthStranger {
				return true
			}
		}
		return false
	})
}

// TestASourceThatWasToBeShutDownStopsWhenItComesBack fails over with the source lost, brings it back, and then brings the machine
// home: the machine that is started there for the failback must run on.
func TestASourceThatWasToBeShutDownStopsWhenItComesBack(t *testing.T) {
	w := protectedWorld(t)
	w.killHome()
	w.fail(job.KindHomeStop, broken) // what was lost is not shut down
	w.fail(job.KindHomeCapture, broken)
	in := lost
	in.ProviderInput = json.RawMessage(`{"instanceType":"InMageRcm","performShutdown":"true"}`)
	w.ask(w.control.UnplannedFailover(w.ctx, w.ref, in))
	w.mu.Lock()
	w.home.running = true
	w.mu.Unlock()
	w.waitFor("the source that came back to stop", func() bool { home, _ := w.homeNow(); return !home })
	if w.running() != 1 {
		t.Fatalf("%d machines run, want the replica alone", w.running())
	}
	w.ask(w.control.FailoverCommit(w.ctx, w.ref))
	w.ask(w.control.Reprotect(w.ctx, w.ref, homeward))
	w.waitPhase(dr.LegInMageRcmFailback, dr.PhaseProtected)
	w.ask(w.control.PlannedFailover(w.ctx, w.ref, noLoss))
	heard := w.item().Observed.LastHeartbeat
	w.waitFor("the machine at home to be heard", func() bool { return w.item().Observed.LastHeartbeat.After(heard) })
	if home, _ := w.homeNow(); !home || w.running() != 1 {
		t.Fatalf("the machine at home runs: %t, machines: %d; want it alone", home, w.running())
	}
}

func TestTheSourceIsShutDownWhenSomebodySeesIt(t *testing.T) {
	w := protectedWorld(t)
	in := lost
	in.ProviderInput = json.RawMessage(`{"instanceType":"InMageRcm","performShutdown":"true"}`)
	w.fail(job.KindHomeStop, broken)
	j := w.ask(w.control.UnplannedFailover(w.ctx, w.ref, in))
	if len(j.Errors) != 1 || j.Errors[0].TaskID != job.StepShutdownSource || j.Errors[0].Level != dr.LevelWarning {
		t.Errorf("got %+v, want a warning with the task that did not work", j.Errors)
	}
	if note := w.item().Item.SourceShutdownNote; !strings.Contains(note, "it broke") {
		t.Errorf("got note %q, want why the shutdown did not work", note)
	}
}

func TestAWayHomeThatDoesNotExistIsRefusedBeforeAnythingChanges(t *testing.T) {
	w := protectedWorld(t)
	w.killHome()
	w.ask(w.control.UnplannedFailover(w.ctx, w.ref, lost))
	before := w.item().Item.State
	for name, input := range map[string]string{
		"no master target of that name": `{"reprotectAgentId":"nobody","datastoreName":"` + homeStore + `"}`,
		"not a master target":           `{"reprotectAgentId":"` + mainRep + `","datastoreName":"` + homeStore + `"}`,
		"no such datastore":             `{"reprotectAgentId":"` + homeRep + `","datastoreName":"other"}`,
		"nothing named":                 `{}`,
	} {
		_, err := w.control.Reprotect(w.ctx, w.ref, control.ReprotectInput{ProviderInput: json.RawMessage(input)})
		if c := dr.CodeOf(err); c != dr.CodeInvalid && c != dr.CodeConflict {
			t.Errorf("%s: got %v, want a refusal", name, err)
		}
	}
	if got := w.item().Item.State; got != before {
		t.Errorf("got %+v after refusals, want %+v", got, before)
	}
}

func TestRepairOpensALogThatAFailedUndoLeftClosed(t *testing.T) {
	w := protectedWorld(t)
	w.fail(job.KindInstanceStart, broken)
	w.fail(job.KindGenerationOpen, broken) // of the undo
	w.fails(w.control.UnplannedFailover(w.ctx, w.ref, lost))
	v := w.item()
	if !v.Item.Fenced || v.Health != dr.HealthCritical {
		t.Fatalf("got %+v with health %s, want it fenced and critical", v.Item, v.Health)
	}
	w.ask(w.control.RepairReplication(w.ctx, w.ref))
	v = w.item()
	if v.Item.Fenced || v.Item.Generation != 2 || v.Item.ResyncID == "" {
		t.Errorf("got %+v, want generation 2 open and a comparison asked for", v.Item)
	}
}

func TestAVaultMayGoWhileAPurgeStillCleansUp(t *testing.T) {
	w := protectedWorld(t)
	w.fail(job.KindGenerationClose, slices.Repeat([]queue.Failure{away}, 1000)...)
	w.ask(w.control.PurgeItem(w.ctx, w.ref))
	mapping := w.ref
	mapping.Name = "m"
	w.ask(w.control.RemoveMapping(w.ctx, mapping))
	w.ask(w.control.RemoveFabric(w.ctx, w.ref))
	if err := w.control.DeleteVault(w.ctx, dr.VaultKey{Subscription: "s", ResourceGroup: "g", Name: "v"}); err != nil {
		t.Fatal(err)
	}
	if err := w.store.View(w.ctx, func(tx store.Tx) error {
		open, err := control.OpenJobs(tx)
		if len(open) > 0 {
			t.Errorf("got open jobs %v of a vault that is gone", open)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
}
