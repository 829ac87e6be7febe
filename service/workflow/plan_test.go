package workflow_test

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lifeboat-dr/lifeboat/service/control"
	"github.com/lifeboat-dr/lifeboat/service/dr"
	"github.com/lifeboat-dr/lifeboat/service/job"
	"github.com/lifeboat-dr/lifeboat/service/store"
)

// runner is the name of the runner at the recovery site.
const runner = "cellar"

// machines protects more machines: vm1 to vm<n> in all.
func (w *world) machines(n int) {
	w.t.Helper()
	w.enable()
	for i := 2; i <= n; i++ {
		s := &source{name: fmt.Sprintf("vm%d", i), machine: machine{uuid: fmt.Sprintf("11111111-aaaa-4aaa-8aaa-%012d", i), running: true}}
		s.ref = w.ref
		s.ref.Name = s.name
		key, err := w.control.CreateRegistrationKey(w.ctx, control.RegistrationKeyInput{Vault: w.vault, Fabric: "site", Role: control.RoleAgent})
		if err != nil {
			w.t.Fatal(err)
		}
		who, err := w.control.EnrolAgent(w.ctx, key.Key, "fingerprint-"+s.name, w.machineNamed(s.name, s.uuid))
		if err != nil {
			w.t.Fatal(err)
		}
		s.agentID = who.ID
		w.mu.Lock()
		w.more = append(w.more, s)
		w.mu.Unlock()
		w.ask(w.control.Enable(w.ctx, s.ref, control.EnableInput{PolicyID: "/x/replicationPolicies/p", ProviderInput: json.RawMessage(
			`{"instanceType":"InMageRcm","processServerId":"` + mainRep + `","targetResourceGroupId":"rg","targetVmName":"` + s.name + `-dr","fabricDiscoveryMachineId":"` + who.ID + `"}`)}))
		v, err := w.control.Item(w.ctx, s.ref)
		if err != nil {
			w.t.Fatal(err)
		}
		w.mu.Lock()
		s.item = v.Item.ID
		w.mu.Unlock()
	}
	w.waitAll(dr.LegInMageRcm, dr.PhaseProtected)
}

func (w *world) refs() []control.Ref {
	out := []control.Ref{w.ref}
	for _, s := range w.more {
		out = append(out, s.ref)
	}
	return out
}

// waitAll waits until every machine is in the phase and free.
func (w *world) waitAll(leg dr.LegName, phase dr.Phase) {
	w.t.Helper()
	for _, ref := range w.refs() {
		w.waitFor(fmt.Sprintf("%s: %s %s", ref.Name, leg, phase), func() bool {
			v, err := w.control.Item(w.ctx, ref)
			if err != nil {
				w.t.Fatal(err)
			}
			s := v.Item.State
			return s.Leg == leg && s.Phase == phase && s.PendingJob == ""
		})
	}
}

func (w *world) itemID(name string) string {
	return "/vaults/v/replicationFabrics/site/replicationProtectionContainers/" + w.ref.Container + "/replicationProtectedItems/" + name
}

var always = []string{"PlannedFailover", "UnplannedFailover", "TestFailover"}

func script(name string) dr.PlanAction {
	return dr.PlanAction{Name: name, Kind: dr.ActionScript, PathSent: name, Runner: runner, Types: always, Directions: []dr.Direction{dr.PrimaryToRecovery}}
}

func boot(before, after []dr.PlanAction, names ...string) func(w *world) control.RecoveryPlanGroup {
	return func(w *world) control.RecoveryPlanGroup {
		g := control.RecoveryPlanGroup{Kind: dr.GroupBoot, Before: before, After: after}
		for _, n := range names {
			g.Items = append(g.Items, control.RecoveryPlanItem{ID: w.itemID(n)})
		}
		return g
	}
}

// plan makes a recovery plan called shop.
func (w *world) plan(in control.RecoveryPlanInput, groups ...func(w *world) control.RecoveryPlanGroup) control.Ref {
	w.t.Helper()
	in.PrimaryFabricID, in.RecoveryFabricID = "/x/replicationFabrics/site", "Microsoft Azure"
	for _, g := range groups {
		in.Groups = append(in.Groups, g(w))
	}
	ref := control.Ref{Vault: w.vault, Name: "shop"}
	w.ask(w.control.PutRecoveryPlan(w.ctx, ref, in))
	return ref
}

func (w *world) planView(ref control.Ref) control.RecoveryPlanView {
	w.t.Helper()
	v, err := w.control.RecoveryPlan(w.ctx, ref)
	if err != nil {
		w.t.Fatal(err)
	}
	return v
}

// traced returns what workers did since the last call, and forgets it.
func (w *world) traced() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	out := w.trace
	w.trace = nil
	return out
}

// inOrder fails unless the groups of events came one after another, in any order within a group.
func inOrder(t *testing.T, got []string, groups ...[]string) {
	t.Helper()
	rest := got
	for _, g := range groups {
		if len(rest) < len(g) {
			t.Fatalf("got %q, want %q next", got, g)
		}
		part := slices.Sorted(slices.Values(rest[:len(g)]))
		if want := slices.Sorted(slices.Values(g)); !slices.Equal(part, want) {
			t.Fatalf("got %q, of which %q, want %q", got, part, want)
		}
		rest = rest[len(g):]
	}
	if len(rest) > 0 {
		t.Fatalf("got %q, want nothing after %q", got, got[:len(got)-len(rest)])
	}
}

var (
	drillInput    = control.RecoveryPlanFailoverInput{Direction: "PrimaryToRecovery", NetworkType: "VmNetworkAsInput"}
	disasterInput = control.RecoveryPlanFailoverInput{Direction: "PrimaryToRecovery", SourceSiteOperations: "NotRequired"}
	homeInput     = control.RecoveryPlanFailoverInput{Direction: "RecoveryToPrimary"}
)

// resume waits until the job is suspended at a manual action and resumes it.
func (w *world) resume(id, comments string) {
	w.t.Helper()
	w.waitFor("a pause of job "+id, func() bool {
		v, err := w.control.Job(w.ctx, w.vault, id)
		if err != nil {
			w.t.Fatal(err)
		}
		if v.Job.State.Ended() {
			w.t.Fatalf("job %s has ended: %+v", id, v.Job.Errors)
		}
		if v.Job.State == job.Suspended && !slices.Equal(v.AllowedActions, []string{"Cancel", "Resume"}) {
			w.t.Fatalf("a suspended job allows %v", v.AllowedActions)
		}
		return v.Job.State == job.Suspended
	})
	if _, err := w.control.ResumeJob(w.ctx, w.vault, id, comments); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) killAll() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.home.running = false
	for _, s := range w.more {
		s.running = false
	}
}

func threeGroups(w *world) control.Ref {
	manual := dr.PlanAction{Name: "look", Kind: dr.ActionManual, Instructions: "look at it", Types: always, Directions: []dr.Direction{dr.PrimaryToRecovery}}
	hook := dr.PlanAction{Name: "tell", Kind: dr.ActionWebhook, URL: "https://chat.example.org/dr", Types: []string{"UnplannedFailover"}, Directions: []dr.Direction{dr.PrimaryToRecovery}}
	return w.plan(control.RecoveryPlanInput{ParallelStarts: 2}, boot([]dr.PlanAction{script("first.sh")}, nil, "vm1", "vm2"), boot([]dr.PlanAction{manual}, nil, "vm3"), boot(nil, []dr.PlanAction{hook}, "vm4", "vm5"))
}

// planLife drills, loses and brings home the machines of a plan with three groups.
func planLife(w *world, ref control.Ref) {
	t := w.t
	t.Helper()
	w.traced()
	id, err := w.control.FailOverPlan(w.ctx, ref, dr.OpTestFailover, drillInput)
	if err != nil {
		t.Fatal(err)
	}
	w.resume(id, "all well")
	drilled := w.ask(id, nil)
	v := w.planView(ref)
	if v.Status != "Suspended" || v.Description != "WaitingForStopTestFailover" || !slices.Equal(v.Allowed, []string{"TestFailoverCleanup"}) {
		t.Fatalf("got status %s (%s), allowed %v during a drill", v.Status, v.Description, v.Allowed)
	}
	inOrder(t, w.traced(), []string{"script first.sh"}, []string{"start vm1", "start vm2"}, []string{"start vm3"}, []string{"start vm4", "start vm5"})
	for _, task := range drilled.Tasks {
		if s := task.Stage; s != nil && s.Action != nil && s.Action.Kind == job.StageManual && s.Action.Observation != "all well" {
			t.Errorf("the observation is %q", s.Action.Observation)
		}
		if s := task.Stage; s != nil && s.Action != nil && s.Action.Kind == job.StageScript && !strings.Contains(string(task.Output), `\"FailoverType\":\"Test\"`) {
			t.Errorf("the script got %s", task.Output)
		}
	}
	w.ask(w.control.CleanUpPlan(w.ctx, ref, control.CleanupInput{Comments: "fine"}))
	w.mu.Lock()
	if len(w.instances) != 0 || len(w.pins) != 0 {
		t.Errorf("got instances %v and pins %v after cleanup, want none", w.instances, w.pins)
	}
	w.mu.Unlock()

	w.killAll()
	w.traced()
	id, err = w.control.FailOverPlan(w.ctx, ref, dr.OpUnplannedFailover, disasterInput)
	if err != nil {
		t.Fatal(err)
	}
	w.resume(id, "")
	w.ask(id, nil)
	all := []string{"fence vm1", "fence vm2", "fence vm3", "fence vm4", "fence vm5"}
	inOrder(t, w.traced(), all, []string{"script first.sh"}, []string{"start vm1", "start vm2"}, []string{"start vm3"}, []string{"start vm4", "start vm5"}, []string{"webhook https://chat.example.org/dr"})
	w.ask(w.control.CommitPlan(w.ctx, ref))
	w.ask(w.control.ReprotectPlan(w.ctx, ref))
	w.waitAll(dr.LegInMageRcmFailback, dr.PhaseProtected)

	w.traced()
	w.ask(w.control.FailOverPlan(w.ctx, ref, dr.OpPlannedFailover, homeInput))
	inOrder(t, slices.DeleteFunc(w.traced(), func(s string) bool { return !strings.HasPrefix(s, "home") }), []string{"home vm1", "home vm2"}, []string{"home vm3"}, []string{"home vm4", "home vm5"})
	w.ask(w.control.CancelPlan(w.ctx, ref))
	w.waitAll(dr.LegInMageRcmFailback, dr.PhaseProtected)
	w.ask(w.control.FailOverPlan(w.ctx, ref, dr.OpPlannedFailover, homeInput))
	w.ask(w.control.CommitPlan(w.ctx, ref))
	w.ask(w.control.ReprotectPlan(w.ctx, ref))
	w.waitAll(dr.LegInMageRcm, dr.PhaseProtected)
	w.ask(w.control.DeleteRecoveryPlan(w.ctx, ref))
}

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
	for deadline := time.Now().Add(patience); ; {
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
		if v.Job.State.Ended() {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the job has not ended\n%s", w.dump())
		}
		time.Sleep(time.Millisecond)
	}
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
			v, err := w.control.Item(w.ctx, r)
			return err == nil && v.Points == 3
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
