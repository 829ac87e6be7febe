package dr

import (
	"fmt"
	"slices"
	"testing"
	"time"
)

var (
	signalKinds = []SignalKind{Requested, Succeeded, Failed, Undone, SeedShipped, FirstPoint, ResyncBegan, ResyncEnded}
	start       = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
)

// allStates is every state of every leg.
func allStates() []State {
	var out []State
	for _, l := range Legs {
		for _, p := range Phases {
			for _, d := range []TestFailover{DrillNone, DrillOpen, DrillCleaned} {
				for _, job := range []string{"", "job-1"} {
					for _, resync := range []bool{false, true} {
						for _, halted := range []bool{false, true} {
							out = append(out, State{Leg: l.Name, Phase: p, TestFailover: d, PendingJob: job, Resync: resync, Halted: halted, Since: start})
						}
					}
				}
			}
		}
	}
	return out
}

func TestEveryStateAndSignalEitherMovesOrIsRefusedWithCauseAndRemedy(t *testing.T) {
	now := start.Add(time.Hour)
	pairs := 0
	for _, s := range allStates() {
		for _, k := range signalKinds {
			for _, op := range Operations {
				for _, job := range []string{"job-1", "job-2"} {
					sig := Signal{Kind: k, Op: op, Job: job, Leg: s.Leg}
					next, err := step(s, sig, now)
					pairs++
					where := fmt.Sprintf("%+v, %+v", s, sig)
					if err != nil {
						if next != s {
							t.Fatalf("%s: refused, but the state became %+v", where, next)
						}
						if err.Code == CodeInternal && k == Succeeded {
							continue // a job for what the table does not allow was never started
						}
						if err.Code != CodeConflict || err.PossibleCauses == "" || err.RecommendedAction == "" || err.Message == "" {
							t.Fatalf("%s: refusal %+v lacks code, cause or remedy", where, err)
						}
						continue
					}
					checkState(t, where, s, sig, next)
				}
			}
		}
	}
	t.Logf("%d pairs", pairs)
}

func checkState(t *testing.T, where string, s State, sig Signal, next State) {
	t.Helper()
	if LegByName(next.Leg) == nil || !slices.Contains(Phases, next.Phase) {
		t.Fatalf("%s: leads to the unknown %+v", where, next)
	}
	if next.Phase != s.Phase && !next.Since.After(s.Since) {
		t.Fatalf("%s: the phase changed to %s without a new Since", where, next.Phase)
	}
	if sig.Kind == Requested && next.PendingJob != sig.Job {
		t.Fatalf("%s: accepted without its job pending: %+v", where, next)
	}
	if sig.Kind == Requested && s.PendingJob != "" && sig.Op != OpPurge {
		t.Fatalf("%s: accepted beside the pending job", where)
	}
	if sig.Kind == Requested && s.TestFailover == DrillOpen && !slices.Contains([]Operation{OpTestCleanup, OpUpdate, OpPurge}, sig.Op) {
		t.Fatalf("%s: accepted beside an open drill", where)
	}
	if s.Phase == PhaseRemoved && next.Phase != PhaseRemoved {
		t.Fatalf("%s: rose from removed to %+v", where, next)
	}
	if (sig.Kind == Succeeded || sig.Kind == Failed || sig.Kind == Undone) && s.PendingJob != sig.Job && next != s {
		t.Fatalf("%s: a job that is not pending changed the state to %+v", where, next)
	}
	if FailedOver(next.Phase) && !FailedOver(s.Phase) && sig.Kind != Succeeded {
		t.Fatalf("%s: failed over without a job's success", where)
	}
	if next.Phase == PhaseProtected && !Replicates(s.Phase) && sig.Kind != Succeeded {
		t.Fatalf("%s: protected without a point", where)
	}
}

func TestLegsWithoutADriverRefuseEverything(t *testing.T) {
	for _, s := range allStates() {
		if LegByName(s.Leg).Driver {
			continue
		}
		for _, op := range Operations {
			if _, err := Apply(s, Signal{Kind: Requested, Op: op, Job: "job-2", Leg: s.Leg}, start); err == nil || err.Code != CodeUnimplemented {
				t.Fatalf("%+v %s: got %v, want a refusal with %s", s, op, err, CodeUnimplemented)
			}
		}
	}
}

func TestAllowedOperationsAreExactlyThoseThatAreAccepted(t *testing.T) {
	verbs := map[string]Operation{wordRepair: OpRepair, wordCommit: OpCommit, wordPlanned: OpPlannedFailover, wordUnplanned: OpUnplannedFailover,
		wordDisable: OpRemove, wordCompleteMigration: OpRemove, wordTest: OpTestFailover, wordCleanup: OpTestCleanup, wordChangePit: OpApplyRecoveryPoint,
		wordReverse: OpReprotect, wordSwitch: OpReprotect, wordCancel: OpCancelFailover, wordFailback: OpPlannedFailover}
	for _, s := range allStates() {
		listed := map[Operation]bool{}
		for _, w := range Project(s).AllowedOperations {
			op, ok := verbs[w]
			if !ok {
				t.Fatalf("%+v lists the unknown %q", s, w)
			}
			listed[op] = true
			if _, err := step(s, Signal{Kind: Requested, Op: op, Job: "job-2"}, start); err != nil {
				t.Fatalf("%+v lists %s, which is refused: %v", s, w, err)
			}
		}
		if s.PendingJob != "" && len(listed) > 0 {
			t.Fatalf("%+v lists operations while a job runs", s)
		}
		for _, op := range Operations {
			_, err := step(s, Signal{Kind: Requested, Op: op, Job: "job-2"}, start)
			unlisted := slices.Contains([]Operation{OpEnable, OpUpdate, OpAddDisks, OpRemoveDisks, OpPurge}, op) // the wire has no words for them
			if err == nil && !listed[op] && !unlisted {
				t.Fatalf("%+v accepts %s and does not list it", s, op)
			}
		}
	}
}

func TestProjectionsAreThoseOfTheReference(t *testing.T) {
	cases := []struct {
		name   string
		state  State
		state1 string
		active string
		ops    []string
	}{
		{"RCM in initial replication", State{Leg: LegInMageRcm, Phase: PhaseInitialReplication}, "InitialReplicationInProgress", "Primary", []string{"DisableProtection"}},
		{"RCM protected", State{Leg: LegInMageRcm, Phase: PhaseProtected}, "Protected", "Primary", []string{"UnplannedFailover", "DisableProtection", "TestFailover"}},
		{"RCM in resynchronisation", State{Leg: LegInMageRcm, Phase: PhaseProtected, Resync: true}, "Protected", "Primary", []string{"RepairReplication", "UnplannedFailover", "DisableProtection", "TestFailover"}},
		{"RCM whose point log stayed closed", State{Leg: LegInMageRcm, Phase: PhaseProtected, Halted: true}, "Protected", "Primary", []string{"RepairReplication", "UnplannedFailover", "DisableProtection", "TestFailover"}},
		{"RCM with an open drill", State{Leg: LegInMageRcm, Phase: PhaseProtected, TestFailover: DrillOpen}, "Protected", "Primary", []string{"TestFailoverCleanup"}},
		{"RCM failed over", State{Leg: LegInMageRcm, Phase: PhaseUnplannedPending}, "UnplannedFailoverCommitPendingStatesBegin", "Recovery",
			[]string{"CompleteMigration", "Commit", "DisableProtection", "ChangePit", "SwitchProtection"}},
		{"RCM failback protected", State{Leg: LegInMageRcmFailback, Phase: PhaseProtected}, "Protected", "Primary", []string{"PlannedFailover", "DisableProtection"}},
		{"RCM failback failed over", State{Leg: LegInMageRcmFailback, Phase: PhasePlannedPending}, "CommitPendingStatesBegin", "Recovery",
			[]string{"CompleteMigration", "Commit", "DisableProtection", "SwitchProtection", "CancelFailover"}},
		{"Hyper-V to Azure protected", State{Leg: LegHyperVAzure, Phase: PhaseProtected}, "Protected", "Primary", []string{"PlannedFailover", "UnplannedFailover", "DisableProtection", "TestFailover"}},
		{"Hyper-V to Azure failed over as planned", State{Leg: LegHyperVAzure, Phase: PhasePlannedPending}, "PlannedFailoverCommitRequired", "Recovery",
			[]string{"CompleteMigration", "Commit", "DisableProtection", "ChangePit"}},
		{"Hyper-V to Azure committed", State{Leg: LegHyperVAzure, Phase: PhasePlannedCommitted}, "PlannedFailoverStatesBegin", "Recovery", []string{"CompleteMigration", "DisableProtection", "Failback"}},
		{"A2A protected", State{Leg: LegA2A, Phase: PhaseProtected}, "Protected", "Primary", []string{"RepairReplication", "UnplannedFailover", "DisableProtection", "TestFailover"}},
	}
	for _, c := range cases {
		p := Project(c.state)
		if p.ProtectionState != c.state1 || p.ActiveLocation != c.active || !slices.Equal(p.AllowedOperations, c.ops) {
			t.Errorf("%s: got %s, %s, %v, want %s, %s, %v", c.name, p.ProtectionState, p.ActiveLocation, p.AllowedOperations, c.state1, c.active, c.ops)
		}
	}
}

func TestAWholeLifeRunsThroughTheTable(t *testing.T) {
	s := State{}
	now := start
	do := func(op Operation) {
		t.Helper()
		now = now.Add(time.Minute)
		var err *Error
		if s, err = Apply(s, Signal{Kind: Requested, Op: op, Job: "j", Leg: LegInMageRcm}, now); err != nil {
			t.Fatalf("%s: %v", op, err)
		}
		if s, err = Apply(s, Signal{Kind: Succeeded, Op: op, Job: "j"}, now); err != nil {
			t.Fatalf("%s: %v", op, err)
		}
	}
	point := func() {
		t.Helper()
		s, _ = Apply(s, Signal{Kind: SeedShipped}, now)
		s, _ = Apply(s, Signal{Kind: FirstPoint}, now)
		if s.Phase != PhaseProtected {
			t.Fatalf("got phase %s after the first point, want protected", s.Phase)
		}
	}
	do(OpEnable)
	point()
	do(OpTestFailover)
	do(OpTestCleanup)
	do(OpUnplannedFailover)
	do(OpApplyRecoveryPoint)
	do(OpCommit)
	do(OpReprotect)
	point()
	do(OpPlannedFailover)
	do(OpCancelFailover)
	do(OpPlannedFailover)
	do(OpReprotect)
	if s.Leg != LegInMageRcm || s.Phase != PhaseInitialReplication || s.TestFailover != DrillNone {
		t.Fatalf("got %+v after coming home, want the first leg in initial replication", s)
	}
	point()
	do(OpRemove)
	if s.Phase != PhaseRemoved {
		t.Fatalf("got %s, want removed", s.Phase)
	}
}
