package dr

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

func act(name string, kind ActionKind, types ...string) PlanAction {
	return PlanAction{Name: name, Kind: kind, PathSent: "x.sh", URL: "https://h/p", Types: types, Directions: []Direction{PrimaryToRecovery}}
}

// samplePlan has machines a to d in two Boot groups, and an action at every place.
func samplePlan(t *testing.T) RecoveryPlan {
	t.Helper()
	all := []string{"PlannedFailover", "UnplannedFailover", "TestFailover"}
	primary := act("at the primary side", ActionScript, all...)
	primary.Primary = true
	p := RecoveryPlan{Groups: []PlanGroup{
		{Kind: GroupBoot, Items: []ItemID{"a", "b"}, Before: []PlanAction{act("open", ActionScript, all...), primary}, After: []PlanAction{act("look", ActionManual, "TestFailover")}},
		{Kind: GroupBoot, Items: []ItemID{"c", "d"}, After: []PlanAction{act("tell", ActionWebhook, "unplannedfailover")}},
		{Kind: GroupShutdown, Before: []PlanAction{act("warn", ActionScript, all...)}},
	}}
	if err := p.Complete(); err != nil {
		t.Fatal(err)
	}
	return p
}

// told is a schedule in words.
func told(stages []Stage) (out []string) {
	actions := func(list []StageAction) {
		for _, a := range list {
			if a.Skip == "" {
				out = append(out, a.Name)
			} else {
				out = append(out, "skip "+a.Name)
			}
		}
	}
	for _, st := range stages {
		actions(st.Before)
		if len(st.Items) > 0 {
			out = append(out, fmt.Sprintf("%s %v", st.Kind, st.Items))
		}
		actions(st.After)
	}
	return out
}

func TestAPlanExpandsIntoAnOrderedSchedule(t *testing.T) {
	for name, c := range map[string]struct {
		run  PlanRun
		want []string
	}{
		"a drill stops nothing and skips the primary side": {PlanRun{Op: OpTestFailover, Direction: PrimaryToRecovery},
			[]string{"failover [a b c d]", "open", "skip at the primary side", "boot [a b]", "look", "boot [c d]"}},
		"a planned failover stops all machines first": {PlanRun{Op: OpPlannedFailover, Direction: PrimaryToRecovery},
			[]string{"warn", "shutdown [a b c d]", "failover [a b c d]", "open", "at the primary side", "boot [a b]", "boot [c d]"}},
		"an unplanned failover leaves lost sources alone": {PlanRun{Op: OpUnplannedFailover, Direction: PrimaryToRecovery},
			[]string{"warn", "failover [a b c d]", "open", "at the primary side", "boot [a b]", "boot [c d]", "tell"}},
		"an unplanned failover stops sources when asked to": {PlanRun{Op: OpUnplannedFailover, Direction: PrimaryToRecovery, Shutdown: true},
			[]string{"warn", "shutdown [a b c d]", "failover [a b c d]", "open", "at the primary side", "boot [a b]", "boot [c d]", "tell"}},
		"actions of the other direction are left out": {PlanRun{Op: OpPlannedFailover, Direction: RecoveryToPrimary},
			[]string{"shutdown [a b c d]", "failover [a b c d]", "boot [a b]", "boot [c d]"}},
		"a cleanup begins with the last group": {PlanRun{Op: OpTestCleanup}, []string{"whole [c d]", "whole [a b]"}},
		"a cancel begins with the last group":  {PlanRun{Op: OpCancelFailover}, []string{"whole [c d]", "whole [a b]"}},
		"a commit goes through the groups":     {PlanRun{Op: OpCommit}, []string{"whole [a b]", "whole [c d]"}},
		"a reprotect goes through the groups":  {PlanRun{Op: OpReprotect}, []string{"whole [a b]", "whole [c d]"}},
	} {
		t.Run(name, func(t *testing.T) {
			p := samplePlan(t)
			if got := told(p.Expand(c.run)); !slices.Equal(got, c.want) {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

// TestNothingOfADrillIsAtThePrimarySide walks every place that an action can have.
func TestNothingOfADrillIsAtThePrimarySide(t *testing.T) {
	for _, g := range []GroupKind{GroupShutdown, GroupFailover, GroupBoot} {
		for _, kind := range []ActionKind{ActionScript, ActionWebhook} {
			a := act("x", kind, "TestFailover")
			a.Primary = true
			p := RecoveryPlan{Groups: []PlanGroup{{Kind: GroupBoot, Items: []ItemID{"a"}}, {Kind: g, Before: []PlanAction{a}, After: []PlanAction{a}}}}
			if err := p.Complete(); err != nil {
				t.Fatal(err)
			}
			for _, st := range p.Expand(PlanRun{Op: OpTestFailover, Direction: PrimaryToRecovery}) {
				if st.Kind == StageShutdown {
					t.Errorf("a drill has stage %+v", st)
				}
				for _, s := range slices.Concat(st.Before, st.After) {
					if s.Skip == "" {
						t.Errorf("%s in group %s is done", kind, g)
					}
				}
			}
		}
	}
}

func TestAPlanIsCompleted(t *testing.T) {
	p := samplePlan(t)
	kinds := []GroupKind{}
	for _, g := range p.Groups {
		kinds = append(kinds, g.Kind)
	}
	if !slices.Equal(kinds, []GroupKind{GroupShutdown, GroupFailover, GroupBoot, GroupBoot}) {
		t.Errorf("got groups %v", kinds)
	}
	if p.OnFailure != StopOnFailure || p.ParallelStarts != 10 || p.DeploymentModel != "ResourceManager" {
		t.Errorf("got %+v, want the defaults", p)
	}
	again := p
	if err := again.Complete(); err != nil || !reflect.DeepEqual(again, p) {
		t.Errorf("completing twice is not completing once: %v, %+v", err, again)
	}
	if got := p.Items(); !slices.Equal(got, []ItemID{"a", "b", "c", "d"}) {
		t.Errorf("got items %v", got)
	}
}

func TestAPlanThatCannotBeCarriedOutIsRefused(t *testing.T) {
	one := []PlanGroup{{Kind: GroupBoot, Items: []ItemID{"a"}}}
	with := func(a PlanAction) []PlanGroup {
		return []PlanGroup{{Kind: GroupBoot, Items: []ItemID{"a"}, Before: []PlanAction{a}}}
	}
	script := func(path, runner, timeout string) []PlanGroup {
		a := act("x", ActionScript, "TestFailover")
		a.PathSent, a.Runner, a.TimeoutSent = path, runner, timeout
		return with(a)
	}
	hook := act("x", ActionWebhook, "TestFailover")
	hook.URL = "/subscriptions/s/resourceGroups/g/providers/Microsoft.Automation/automationAccounts/a/runbooks/r"
	many := make([]PlanGroup, MaxPlanGroups+1)
	for i := range many {
		many[i] = PlanGroup{Kind: GroupBoot, Items: []ItemID{ItemID(fmt.Sprint(i))}}
	}
	for name, c := range map[string]struct {
		groups []PlanGroup
		says   string
	}{
		"no group":                  {nil, "no machine"},
		"no machine":                {[]PlanGroup{{Kind: GroupBoot}}, "no machine"},
		"a machine twice":           {append(one, one...), "twice"},
		"an unknown group":          {append(one, PlanGroup{Kind: "Other"}), "Other"},
		"machines in Shutdown":      {append(one, PlanGroup{Kind: GroupShutdown, Items: []ItemID{"b"}}), "holds machines"},
		"two Failover groups":       {append(one, PlanGroup{Kind: GroupFailover}, PlanGroup{Kind: GroupFailover}), "two groups"},
		"too many groups":           {many, "101 groups"},
		"a runbook of the cloud":    {with(hook), "no URL"},
		"no name":                   {with(PlanAction{Kind: ActionManual}), "no name"},
		"a path above":              {script("../x.sh", "", ""), "not below"},
		"a path above, in the end":  {script(`a\..\..\x.sh`, "", ""), "not below"},
		"an absolute path":          {script("/etc/x.sh", "", ""), "not below"},
		"no path":                   {script("", "", ""), "not below"},
		"a share without a path":    {script(`\\runner`, "", ""), "not below"},
		"two runners":               {script(`\\one\x.sh`, "two", ""), "two runners"},
		"a timeout that is none":    {script("x.sh", "", "soon"), "timeout"},
		"a timeout of nothing":      {script("x.sh", "", "0"), "timeout"},
		"a timeout of two days":     {script("x.sh", "", "1.23:00:00"), "timeout"},
		"a timeout before it began": {script("x.sh", "", "-5"), "timeout"},
	} {
		t.Run(name, func(t *testing.T) {
			p := RecoveryPlan{Groups: slices.Clone(c.groups)}
			err := p.Complete()
			if err == nil || err.Code != CodeInvalid || !strings.Contains(err.Message, c.says) || err.RecommendedAction == "" {
				t.Errorf("got %+v, want a refusal that says %q", err, c.says)
			}
		})
	}
}

func TestAScriptsPathMayNameItsRunner(t *testing.T) {
	for sent, want := range map[string][2]string{`\\cellar\fail\over.ps1`: {"cellar", "fail/over.ps1"}, "//cellar/x.sh": {"cellar", "x.sh"}, "./a/../x.sh": {"", "x.sh"}} {
		a := act("x", ActionScript)
		a.PathSent = sent
		if err := a.complete(); err != nil || a.Runner != want[0] || a.Path != want[1] {
			t.Errorf("%s: got runner %q, path %q, %v; want %q", sent, a.Runner, a.Path, err, want)
		}
	}
}

func TestTimeoutsAreReadAsClientsWriteThem(t *testing.T) {
	for sent, want := range map[string]time.Duration{"": 10 * time.Minute, "PT5M": 5 * time.Minute, "pt1h30m": 90 * time.Minute, "00:02:30": 150 * time.Second, "1.00:00:00": 24 * time.Hour, "90": 90 * time.Second} {
		if got, ok := parseTimeout(sent); !ok || got != want {
			t.Errorf("%q: got %s, %v, want %s", sent, got, ok, want)
		}
	}
}

func TestAMachineTakesThePartThatItsStateAllows(t *testing.T) {
	now := time.Now()
	in := func(leg LegName, p Phase, drill TestFailover) State {
		return State{Leg: leg, Phase: p, TestFailover: drill, Since: now}
	}
	there, back := PlanRun{Op: OpUnplannedFailover, Direction: PrimaryToRecovery}, PlanRun{Op: OpPlannedFailover, Direction: RecoveryToPrimary}
	for name, c := range map[string]struct {
		run  PlanRun
		s    State
		want Part
	}{
		"a protected machine fails over":             {there, in(LegInMageRcm, PhaseProtected, DrillNone), PartActs},
		"a failed-over one is there":                 {there, in(LegInMageRcm, PhaseUnplannedPending, DrillNone), PartDone},
		"one that replicates home cannot":            {there, in(LegInMageRcmFailback, PhaseProtected, DrillNone), PartBlocked},
		"one that is copied first cannot":            {there, in(LegInMageRcm, PhaseInitialReplication, DrillNone), PartBlocked},
		"one in a drill cannot":                      {there, in(LegInMageRcm, PhaseProtected, DrillOpen), PartBlocked},
		"one that replicates home goes home":         {back, in(LegInMageRcmFailback, PhaseProtected, DrillNone), PartActs},
		"one that is home is there":                  {back, in(LegInMageRcmFailback, PhasePlannedPending, DrillNone), PartDone},
		"one that never left cannot go home":         {back, in(LegInMageRcm, PhaseProtected, DrillNone), PartBlocked},
		"an open drill is open":                      {PlanRun{Op: OpTestFailover, Direction: PrimaryToRecovery}, in(LegInMageRcm, PhaseProtected, DrillOpen), PartDone},
		"an open drill is cleaned up":                {PlanRun{Op: OpTestCleanup}, in(LegInMageRcm, PhaseProtected, DrillOpen), PartActs},
		"without a drill nothing is cleaned up":      {PlanRun{Op: OpTestCleanup}, in(LegInMageRcm, PhaseProtected, DrillNone), PartDone},
		"a failover is committed":                    {PlanRun{Op: OpCommit}, in(LegInMageRcm, PhaseUnplannedPending, DrillNone), PartActs},
		"a committed one is committed":               {PlanRun{Op: OpCommit}, in(LegInMageRcm, PhaseUnplannedCommitted, DrillNone), PartDone},
		"a failback is cancelled":                    {PlanRun{Op: OpCancelFailover}, in(LegInMageRcmFailback, PhasePlannedPending, DrillNone), PartActs},
		"an unplanned failover cannot be cancelled":  {PlanRun{Op: OpCancelFailover}, in(LegInMageRcm, PhaseUnplannedPending, DrillNone), PartBlocked},
		"a committed one is reprotected":             {PlanRun{Op: OpReprotect}, in(LegInMageRcm, PhaseUnplannedCommitted, DrillNone), PartActs},
		"one that replicates is protected already":   {PlanRun{Op: OpReprotect}, in(LegInMageRcm, PhaseProtected, DrillNone), PartDone},
		"a leg without a driver cannot do anything":  {there, in(LegScout, PhaseProtected, DrillNone), PartBlocked},
		"a machine that another job works on cannot": {there, State{Leg: LegInMageRcm, Phase: PhaseProtected, PendingJob: "j"}, PartBlocked},
	} {
		t.Run(name, func(t *testing.T) {
			got, refusal := c.run.PartOf(c.s, false)
			if got != c.want || (refusal != nil) != (c.want == PartBlocked) {
				t.Errorf("got %s, %v, want %s", got, refusal, c.want)
			}
		})
	}
}

func TestAPlanAllowsWhatOneOfItsMachinesAllows(t *testing.T) {
	protected, over := State{Leg: LegInMageRcm, Phase: PhaseProtected}, State{Leg: LegInMageRcm, Phase: PhaseUnplannedCommitted}
	if got, want := PlanAllows([]State{over, protected}), []string{"UnplannedFailover", "TestFailover", "ReverseReplicate"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if got := PlanAllows(nil); got == nil || len(got) > 0 {
		t.Errorf("got %#v, want an empty list", got)
	}
}

func TestAPlanMayBeLargerThanTheFieldsLimits(t *testing.T) {
	var p RecoveryPlan
	for g := range 20 {
		group := PlanGroup{Kind: GroupBoot}
		for i := range 50 {
			group.Items = append(group.Items, ItemID(fmt.Sprintf("%d-%d", g, i)))
		}
		p.Groups = append(p.Groups, group)
	}
	if err := p.Complete(); err != nil || len(p.Items()) != 1000 {
		t.Fatalf("got %d machines, %v", len(p.Items()), err)
	}
	if n := len(p.Expand(PlanRun{Op: OpUnplannedFailover, Direction: PrimaryToRecovery})); n != 21 {
		t.Errorf("got %d stages, want the failover and 20 groups", n)
	}
}
