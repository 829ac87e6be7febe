package workflow_test

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lifeboat-dr/lifeboat/service/control"
	"github.com/lifeboat-dr/lifeboat/service/dr"
	"github.com/lifeboat-dr/lifeboat/service/job"
	"github.com/lifeboat-dr/lifeboat/service/store"
)

func TestAPlanHasAWholeLife(t *testing.T) {
	w := newRedisWorld(t)
	w.engine(w.store)
	w.machines(5)
	planLife(w, threeGroups(w))
}

// killing is a store that kills the engine right after the first save that follows a mark in the trace.
type killing struct {
	store.Store
	w     *world
	kill  func()
	marks *[]string // still to be met
}

func (k *killing) Update(ctx context.Context, fn func(store.Tx) error) error {
	err := k.Store.Update(ctx, fn)
	k.w.mu.Lock()
	defer k.w.mu.Unlock()
	if len(*k.marks) > 0 && slices.Contains(k.w.trace, (*k.marks)[0]) {
		*k.marks = (*k.marks)[1:]
		k.kill()
	}
	return err
}

// TestAPlanGoesOnAfterAKillInTheMiddleOfEachGroup kills the engine when one of two machines of a group was started, and when the
// others were prepared, and starts another.
func TestAPlanGoesOnAfterAKillInTheMiddleOfEachGroup(t *testing.T) {
	w := newWorld(t)
	marks := []string{}
	stopped, ended := make(chan struct{}), make(chan struct{})
	kills := 0
	go func() {
		defer close(ended)
		for {
			ctx, kill := context.WithCancel(w.ctx)
			done := w.runEngine(ctx, &killing{Store: w.store, w: w, marks: &marks, kill: kill})
			select {
			case <-stopped:
				kill()
				<-done
				return
			case <-done:
				kills++
				kill()
			}
		}
	}()
	w.machines(5)
	ref := threeGroups(w)
	w.killAll()
	w.mu.Lock()
	w.trace, marks = nil, []string{"fence vm3", "script first.sh", "start vm2", "start vm3", "start vm4"}
	w.mu.Unlock()
	id, err := w.control.FailOverPlan(w.ctx, ref, dr.OpUnplannedFailover, disasterInput)
	if err != nil {
		t.Fatal(err)
	}
	w.resume(id, "")
	w.ask(id, nil)
	close(stopped)
	<-ended
	if kills != 5 {
		t.Errorf("the engine was killed %d times, want 5", kills)
	}
	inOrder(t, w.traced(), []string{"fence vm1", "fence vm2", "fence vm3", "fence vm4", "fence vm5"}, []string{"script first.sh"}, []string{"start vm1", "start vm2"}, []string{"start vm3"},
		[]string{"start vm4", "start vm5"}, []string{"webhook https://chat.example.org/dr"})
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.instances) != 5 {
		t.Errorf("%d machines run, want 5", len(w.instances))
	}
}

func TestAPlanThatStopsPutsBackWhatWasNotStarted(t *testing.T) {
	w := newWorld(t)
	w.engine(w.store)
	w.machines(3)
	ref := w.plan(control.RecoveryPlanInput{}, boot(nil, nil, "vm1"), boot(nil, nil, "vm2"), boot([]dr.PlanAction{script("never.sh")}, nil, "vm3"))
	w.fail(job.KindInstanceStart, broken)
	id, err := w.control.FailOverPlan(w.ctx, ref, dr.OpUnplannedFailover, disasterInput)
	if err != nil {
		t.Fatal(err)
	}
	j := w.waitJob(id)
	if j.State != job.Failed || len(j.Errors) < 1 || !strings.Contains(j.Errors[0].Message, "vm1: it broke") {
		t.Fatalf("got job %s with errors %+v", j.State, j.Errors)
	}
	w.waitAll(dr.LegInMageRcm, dr.PhaseProtected)
	if got := w.traced(); slices.ContainsFunc(got, func(s string) bool { return strings.HasPrefix(s, "start") || strings.HasPrefix(s, "script") }) {
		t.Errorf("got %q, want nothing started", got)
	}
	if v := w.planView(ref); v.Plan.PendingJob != "" || v.Status != "Failed" {
		t.Errorf("got plan %+v", v)
	}
	// Restarted, it does what is left.
	if _, err := w.control.RestartJob(w.ctx, w.vault, id); err != nil {
		t.Fatal(err)
	}
	w.ask(id, nil)
	w.waitAll(dr.LegInMageRcm, dr.PhaseUnplannedPending)
}

func TestAPlanThatGoesOnStartsTheOthersAndFails(t *testing.T) {
	w := newWorld(t)
	w.engine(w.store)
	w.machines(3)
	ref := w.plan(control.RecoveryPlanInput{OnFailure: dr.ContinueOnFailure, ParallelStarts: 1}, boot(nil, nil, "vm1", "vm2"), boot([]dr.PlanAction{script("fails.sh")}, nil, "vm3"))
	w.fail(job.KindInstanceStart, broken)
	w.fail(job.KindScriptRun, broken)
	id, err := w.control.FailOverPlan(w.ctx, ref, dr.OpTestFailover, drillInput)
	if err != nil {
		t.Fatal(err)
	}
	j := w.waitJob(id)
	if j.State != job.Failed || len(j.Errors) != 3 {
		t.Fatalf("got job %s with errors %+v", j.State, j.Errors)
	}
	w.mu.Lock()
	if len(w.instances) != 2 || !w.home.running {
		t.Errorf("%d machines run, want 2 beside production", len(w.instances))
	}
	w.mu.Unlock()
	w.waitFor("vm1 to be free", func() bool { return w.item().Item.State.PendingJob == "" })
	if _, err := w.control.RestartJob(w.ctx, w.vault, id); err != nil {
		t.Fatal(err)
	}
	w.ask(id, nil)
	w.mu.Lock()
	if len(w.instances) != 3 {
		t.Errorf("%d machines run after the restart, want 3", len(w.instances))
	}
	w.mu.Unlock()
	w.ask(w.control.CleanUpPlan(w.ctx, ref, control.CleanupInput{}))
}

func TestACancelledPlanPutsBackWhatWasNotStarted(t *testing.T) {
	w := newWorld(t)
	w.engine(w.store)
	w.machines(3)
	w.killAll()
	ref := w.plan(control.RecoveryPlanInput{}, boot(nil, []dr.PlanAction{{Name: "look", Kind: dr.ActionManual, Types: always, Directions: []dr.Direction{dr.PrimaryToRecovery}}}, "vm1"), boot(nil, nil, "vm2", "vm3"))
	id, err := w.control.FailOverPlan(w.ctx, ref, dr.OpUnplannedFailover, disasterInput)
	if err != nil {
		t.Fatal(err)
	}
	w.waitFor("the pause", func() bool {
		v, err := w.control.Job(w.ctx, w.vault, id)
		return err == nil && v.Job.State == job.Suspended
	})
	if _, err := w.control.FailOverPlan(w.ctx, ref, dr.OpTestFailover, drillInput); dr.CodeOf(err) != dr.CodeConflict {
		t.Errorf("got %v, want a second operation refused", err)
	}
	if again, err := w.control.FailOverPlan(w.ctx, ref, dr.OpUnplannedFailover, disasterInput); err != nil || again != id {
		t.Errorf("got job %s, %v, want the same request to find its job", again, err)
	}
	if _, err := w.control.CancelJob(w.ctx, w.vault, id); err != nil {
		t.Fatal(err)
	}
	if j := w.waitJob(id); j.State != job.Cancelled {
		t.Errorf("got job %s, want it cancelled", j.State)
	}
	w.waitFor("the others to be put back", func() bool {
		for _, s := range w.more {
			v, err := w.control.Item(w.ctx, s.ref)
			if err != nil || v.Item.State.PendingJob != "" || v.Item.State.Phase != dr.PhaseProtected || v.Item.Fenced {
				return false
			}
		}
		return w.item().Item.State.Phase == dr.PhaseUnplannedPending
	})
}

func TestADrillOfAPlanNeverTouchesProduction(t *testing.T) {
	w := newWorld(t)
	w.engine(w.store)
	w.machines(2)
	primary := script("primary.sh")
	primary.Primary = true
	shutdown := func(*world) control.RecoveryPlanGroup {
		return control.RecoveryPlanGroup{Kind: dr.GroupShutdown, Before: []dr.PlanAction{script("stop.sh")}}
	}
	ref := w.plan(control.RecoveryPlanInput{}, shutdown, boot([]dr.PlanAction{primary}, nil, "vm1", "vm2"))
	j := w.ask(w.control.FailOverPlan(w.ctx, ref, dr.OpTestFailover, drillInput))
	inOrder(t, w.traced(), []string{"start vm1", "start vm2"})
	for _, task := range j.Tasks {
		if s := task.Stage; s != nil && s.Action != nil && (!task.Skipped || s.Action.Skip == "") {
			t.Errorf("task %+v was not skipped", task)
		}
	}
	if w.running() != 1 { // vm1 at home; no test machine is on that network
		t.Errorf("%d machines are on the production network", w.running())
	}
}

func TestAPlanWithoutItsRunnerTouchesNothing(t *testing.T) {
	w := newWorld(t)
	w.engine(w.store)
	w.machines(1)
	stranger := script("x.sh")
	stranger.Runner = "stranger"
	ref := w.plan(control.RecoveryPlanInput{OnFailure: dr.ContinueOnFailure}, boot(nil, []dr.PlanAction{stranger}, "vm1"))
	id, err := w.control.FailOverPlan(w.ctx, ref, dr.OpUnplannedFailover, disasterInput)
	if err != nil {
		t.Fatal(err)
	}
	if j := w.waitJob(id); j.State != job.Failed || !strings.Contains(j.Errors[0].Message, "stranger") {
		t.Errorf("got job %s, errors %+v", j.State, j.Errors)
	}
	if got := w.traced(); len(got) != 0 || w.item().Item.Fenced {
		t.Errorf("got %q, want nothing done", got)
	}
}

func TestAPlanStartsNoMoreThanItsLimitAtATime(t *testing.T) {
	w := newWorld(t)
	w.engine(w.store)
	w.machines(4)
	ref := w.plan(control.RecoveryPlanInput{ParallelStarts: 2}, boot(nil, nil, "vm1", "vm2", "vm3", "vm4"))
	id, err := w.control.FailOverPlan(w.ctx, ref, dr.OpTestFailover, drillInput)
	if err != nil {
		t.Fatal(err)
	}
	most := 0
	w.waitFor("end of the plan's job", func() bool {
		v, err := w.control.Job(w.ctx, w.vault, id)
		if err != nil {
			t.Fatal(err)
		}
		for _, task := range v.Job.Tasks {
			if task.Stage == nil {
				continue
			}
			n := 0
			for _, m := range task.Stage.Machines {
				if m.State == job.InProgress {
					n++
				}
			}
			most = max(most, n)
		}
		return v.Job.State.Ended()
	})
	if most != 2 {
		t.Errorf("%d machines were worked on at the same time, want 2", most)
	}
}

// TestMachinesOfAGroupStartFromTheirCommonPoint gives two machines three points each, of which the second is common.
func TestMachinesOfAGroupStartFromTheirCommonPoint(t *testing.T) {
	w := newWorld(t)
	w.engine(w.store)
	w.machines(2)
	ref := w.plan(control.RecoveryPlanInput{}, boot(nil, nil, "vm1", "vm2"))
	in := drillInput
	in.ProviderInput = []json.RawMessage{json.RawMessage(`{"instanceType":"InMageRcm","recoveryPointType":"Latest","useMultiVmSyncPoint":"true"}`)}
	for _, r := range w.refs() {
		w.waitFor("three points of "+r.Name, func() bool {
			points, err := w.control.Points(w.ctx, r, control.Paging{})
			return err == nil && len(points.Items) == 3
		})
	}
	w.quiet(true) // what agents report next would overwrite the points
	for n, r := range w.refs() {
		v, err := w.control.Item(w.ctx, r)
		if err != nil {
			t.Fatal(err)
		}
		it := v.Item
		it.MultiVMGroup = "Pair"
		if err := w.store.Update(w.ctx, func(tx store.Tx) error {
			loaded, err := control.LoadItem(tx, it.ID)
			if err != nil {
				return err
			}
			loaded.MultiVMGroup = "Pair"
			return control.SaveItem(tx, &loaded, time.Now())
		}); err != nil {
			t.Fatal(err)
		}
		if n == 1 {
			if _, err := w.control.FailOverPlan(w.ctx, ref, dr.OpTestFailover, in); dr.CodeOf(err) != dr.CodeConflict {
				t.Errorf("got %v, want a refusal without a common point", err)
			}
		}
		if err := w.control.RecordPoints(w.ctx, w.vault, it.ID, []dr.Point{{Generation: 1, Sequence: 2, Time: time.Now(), Consistency: dr.CrashConsistent, GroupID: "together"},
			{Generation: 1, Sequence: 3, Time: time.Now(), Consistency: dr.CrashConsistent, GroupID: fmt.Sprint("alone", n)}}, false); err != nil {
			t.Fatal(err)
		}
	}
	w.ask(w.control.FailOverPlan(w.ctx, ref, dr.OpTestFailover, in))
	w.mu.Lock()
	defer w.mu.Unlock()
	for id, i := range w.instances {
		if i.point != (job.PointRef{Generation: 1, Sequence: 2}) {
			t.Errorf("instance %s was started from %+v, want the common point", id, i.point)
		}
	}
	if len(w.instances) != 2 {
		t.Errorf("%d machines run, want 2", len(w.instances))
	}
}

func TestAScriptThatNobodyTakesEndsWithItsTimeout(t *testing.T) {
	bubble(t, func(w *world) {
		w.mu.Lock()
		w.idle = []string{job.At(job.CapabilityScript, "asleep")}
		w.mu.Unlock()
		w.machines(1)
		a := script("x.sh")
		a.Runner, a.TimeoutSent = "Asleep", "PT5M"
		ref := w.plan(control.RecoveryPlanInput{}, boot([]dr.PlanAction{a}, nil, "vm1"))
		begun := time.Now()
		id, err := w.control.FailOverPlan(w.ctx, ref, dr.OpTestFailover, drillInput)
		if err != nil {
			t.Fatal(err)
		}
		j := w.waitJob(id)
		if took := time.Since(begun); j.State != job.Failed || took < 5*time.Minute || took > 7*time.Minute {
			t.Errorf("the job is %s after %s, errors %+v", j.State, took, j.Errors)
		}
	})
}

func TestAPauseIsAnEvent(t *testing.T) {
	w := newWorld(t)
	w.engine(w.store)
	w.machines(1)
	ref := w.plan(control.RecoveryPlanInput{}, boot([]dr.PlanAction{{Name: "look", Kind: dr.ActionManual, Types: always, Directions: []dr.Direction{dr.PrimaryToRecovery}}}, nil, "vm1"))
	id, err := w.control.FailOverPlan(w.ctx, ref, dr.OpTestFailover, drillInput)
	if err != nil {
		t.Fatal(err)
	}
	w.resume(id, "")
	w.ask(id, nil)
	page, err := w.control.Events(w.ctx, w.vault, control.EventFilter{Type: "JobStatus", Severity: string(dr.SeverityWarning)}, control.Paging{})
	if err != nil || len(page.Items) != 1 || !strings.Contains(page.Items[0].Description, "waits for a person: look") {
		t.Errorf("got events %+v, %v", page.Items, err)
	}
}

// TestAPlansEngineMayBeKilledAnywhere kills the engine after a random 40 % of its saves, before it could do what comes next, through
// the whole life of a plan. Nothing is done twice, nothing left out, and the order holds.
func TestAPlansEngineMayBeKilledAnywhere(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	w := newWorld(t)
	rnd := rand.New(rand.NewPCG(seed, 1))
	kills := 0
	stopped, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			ctx, kill := context.WithCancel(w.ctx)
			done := w.runEngine(ctx, &deadly{Store: w.store, rnd: rnd, n: &kills, kill: kill})
			select {
			case <-stopped:
				kill()
				<-done
				return
			case <-done:
				kill()
			}
		}
	}()
	w.machines(5)
	planLife(w, threeGroups(w))
	close(stopped)
	<-ended
	t.Logf("%d kills", kills)
	if kills < 100 {
		t.Errorf("got %d kills, want at least 100", kills)
	}
}
