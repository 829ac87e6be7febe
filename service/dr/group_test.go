package dr

import (
	"slices"
	"strings"
	"testing"
	"time"
)

func member() (Item, Policy) {
	return Item{ID: "i1", Vault: "v", AgentID: "a1", Generation: 1, MultiVMGroup: "Shop", State: State{Leg: LegInMageRcm, Phase: PhaseProtected}}, Policy{MultiVMSync: true}
}

func TestOnlyAProtectedMachineIsCapturedWithItsGroup(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*Item, *Policy)
		want   bool
	}{
		"protected":                       {func(*Item, *Policy) {}, true},
		"in no group":                     {func(i *Item, _ *Policy) { i.MultiVMGroup = "" }, false},
		"its policy says each by itself":  {func(_ *Item, p *Policy) { p.MultiVMSync = false }, false},
		"still copied for the first time": {func(i *Item, _ *Policy) { i.State.Phase = PhaseInitialReplication }, false},
		"failed over":                     {func(i *Item, _ *Policy) { i.State.Phase = PhaseUnplannedPending }, false},
		"fenced":                          {func(i *Item, _ *Policy) { i.Fenced = true }, false},
	} {
		i, p := member()
		c.change(&i, &p)
		if got := i.InGroup(p); got != c.want {
			t.Errorf("%s: got %v, want %v", name, got, c.want)
		}
	}
}

func TestHealthNamesTheMembersThatMissed(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	i, p := member()
	i.State.Since = now
	e := Evidence{Item: &i, Policy: p, Observed: Observed{LastHeartbeat: now, Group: &GroupObserved{GroupID: GroupID("v", "shop"),
		Missed: []GroupMissed{{Item: "i2", Name: "db01", Reason: "it was not frozen in time"}, {Item: "i3", Reason: "it was not reached"}}}}}
	health, errs := Judge(e, now)
	at := slices.IndexFunc(errs, func(h HealthError) bool { return h.Code == HealthGroupMissed })
	if at < 0 || health != HealthWarning {
		t.Fatalf("got %s, %+v", health, errs)
	}
	for _, want := range []string{"db01 (it was not frozen in time)", "i3 (it was not reached)"} {
		if !strings.Contains(errs[at].Message, want) {
			t.Errorf("%q does not say %q", errs[at].Message, want)
		}
	}
	e.Observed.Group.GroupID = "the group it was in before"
	if _, errs = Judge(e, now); slices.ContainsFunc(errs, func(h HealthError) bool { return h.Code == HealthGroupMissed }) {
		t.Error("another group's misses are told")
	}
}
