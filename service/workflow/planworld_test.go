package workflow_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/lifeboat-dr/lifeboat/service/control"
	"github.com/lifeboat-dr/lifeboat/service/dr"
	"github.com/lifeboat-dr/lifeboat/service/job"
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
