package dr

import "slices"

// Rule is a row of a leg's table: in the phases From a user may ask for Op; when its job has succeeded the item is in phase To
// of leg Leg.
type Rule struct {
	Op    Operation
	From  []Phase
	Begin Phase   // phase while the job runs; empty: From stays
	To    Phase   // empty: unchanged
	Fail  Phase   // phase when the job failed; empty: From stays
	Leg   LegName // empty: the same leg
	// Word is the operation's name in allowedOperations; empty: not listed.
	Word string
	// OnNeed lists and accepts the operation only while the item needs it: in resynchronisation, or halted.
	OnNeed bool
}

// Leg is a provider type and a direction, with everything that can happen in it.
type Leg struct {
	Name      LegName
	Provider  ProviderType
	Direction Direction
	// Driver tells that there is code behind the leg. Without it every operation refuses with CodeUnimplemented.
	Driver bool
	// ActiveBefore and ActiveAfter are activeLocation before and after a failover of this leg.
	ActiveBefore, ActiveAfter string
	Rules                     []Rule
	// Words overrides protectionState and its description for a phase.
	Words map[Phase]Word
}

// Word is a protectionState with its description.
type Word struct{ State, Description string }

// The wire's words for the phases (ref 6.1). A leg may differ.
var commonWords = map[Phase]Word{
	PhaseNone:               {"NotProtected", "NotProtected"},
	PhaseEnabling:           {"EnablingProtection", "Enabling protection"},
	PhaseEnableFailed:       {"EnablingFailed", "Enabling protection failed"},
	PhaseInitialReplication: {"InitialReplicationInProgress", "Initial replication is in progress"},
	PhaseFirstPointPending:  {"InitialReplicationRecoveryCompletionPending", "Waiting for first recovery point"},
	PhaseProtected:          {"Protected", "Protected"},
	PhasePlannedPending:     {"PlannedFailoverCommitRequired", "Planned failover finished"},
	PhaseUnplannedPending:   {"UnplannedFailoverCommitPendingStatesBegin", "Failover completed"},
	PhasePlannedCommitted:   {"PlannedFailoverStatesBegin", "Planned failover committed"},
	PhaseUnplannedCommitted: {"UnplannedFailoverCommitted", "Failover committed"},
	PhaseRemoved:            {"NotProtected", "NotProtected"},
}

// Names in allowedOperations, in the order clients are used to (official examples).
const (
	wordCompleteMigration = "CompleteMigration"
	wordRepair            = "RepairReplication"
	wordCommit            = "Commit"
	wordPlanned           = "PlannedFailover"
	wordUnplanned         = "UnplannedFailover"
	wordDisable           = "DisableProtection"
	wordTest              = "TestFailover"
	wordCleanup           = "TestFailoverCleanup"
	wordChangePit         = "ChangePit"
	wordReverse           = "ReverseReplicate"
	wordSwitch            = "SwitchProtection"
	wordCancel            = "CancelFailover"
	wordFailback          = "Failback"
)

var wordOrder = []string{wordCompleteMigration, wordRepair, wordCommit, wordPlanned, wordUnplanned, wordDisable, wordTest, wordChangePit,
	wordReverse, wordSwitch, wordCancel, wordFailback, wordCleanup}

var (
	replicating   = []Phase{PhaseInitialReplication, PhaseFirstPointPending, PhaseProtected}
	failedOver    = []Phase{PhasePlannedPending, PhaseUnplannedPending, PhasePlannedCommitted, PhaseUnplannedCommitted}
	beforeStart   = []Phase{PhaseEnabling, PhaseEnableFailed}
	everProtected = slices.Concat(beforeStart, replicating, failedOver)
)

// Rules that legs share.
func enable() Rule {
	return Rule{Op: OpEnable, From: []Phase{PhaseNone, PhaseEnableFailed}, Begin: PhaseEnabling, To: PhaseInitialReplication, Fail: PhaseEnableFailed}
}

func ending() []Rule {
	return []Rule{
		{Op: OpRemove, From: slices.Concat(beforeStart, replicating), To: PhaseRemoved, Word: wordDisable},
		{Op: OpRemove, From: failedOver, To: PhaseRemoved, Word: wordDisable},
		{Op: OpPurge, From: everProtected, To: PhaseRemoved},
	}
}

// repair is for an item that needs it; always has it whenever the item is protected, too (ref 6.4, 6.7, 6.10).
func repair(always bool) []Rule {
	if !always {
		return []Rule{{Op: OpRepair, From: replicating, Word: wordRepair, OnNeed: true}}
	}
	return []Rule{{Op: OpRepair, From: []Phase{PhaseProtected}, Word: wordRepair},
		{Op: OpRepair, From: []Phase{PhaseInitialReplication, PhaseFirstPointPending}, Word: wordRepair, OnNeed: true}}
}

// disks of a protected machine come and go (ref 6.3; that InMageRcm gives disks up is our extension).
func disks() []Rule {
	return []Rule{{Op: OpAddDisks, From: []Phase{PhaseProtected}}, {Op: OpRemoveDisks, From: []Phase{PhaseProtected}}}
}

func update() Rule { return Rule{Op: OpUpdate, From: slices.Concat(replicating, failedOver)} }

func drill() []Rule {
	return []Rule{
		{Op: OpTestFailover, From: []Phase{PhaseProtected}, Word: wordTest},
		{Op: OpTestCleanup, From: []Phase{PhaseProtected}, Word: wordCleanup},
	}
}

func planned() []Rule {
	return []Rule{
		{Op: OpPlannedFailover, From: []Phase{PhaseProtected}, To: PhasePlannedPending, Word: wordPlanned},
		{Op: OpCommit, From: []Phase{PhasePlannedPending}, To: PhasePlannedCommitted, Word: wordCommit},
	}
}

func unplanned() []Rule {
	return []Rule{
		{Op: OpUnplannedFailover, From: []Phase{PhaseProtected}, To: PhaseUnplannedPending, Word: wordUnplanned},
		{Op: OpCommit, From: []Phase{PhaseUnplannedPending}, To: PhaseUnplannedCommitted, Word: wordCommit},
	}
}

func changePit(from ...Phase) Rule {
	return Rule{Op: OpApplyRecoveryPoint, From: from, Word: wordChangePit}
}

func reprotect(word string, leg LegName, to Phase, from ...Phase) Rule {
	return Rule{Op: OpReprotect, From: from, Leg: leg, To: to, Word: word}
}

// rules joins single rules and groups of them.
func rules(parts ...any) []Rule {
	var out []Rule
	for _, p := range parts {
		switch p := p.(type) {
		case Rule:
			out = append(out, p)
		case []Rule:
			out = append(out, p...)
		}
	}
	return out
}

// Legs is the table: what the six systems of the field differ in. Sources: ref 6.4 to 6.10 and section 6.3.
var Legs = []Leg{
	{
		Name: LegInMageRcm, Provider: ProviderInMageRcm, Direction: PrimaryToRecovery, Driver: true, ActiveBefore: "Primary", ActiveAfter: "Recovery",
		Rules: rules(enable(), drill(), unplanned(), changePit(PhaseUnplannedPending),
			// An uncommitted failover is committed by the reprotect.
			reprotect(wordSwitch, LegInMageRcmFailback, PhaseInitialReplication, PhaseUnplannedPending, PhaseUnplannedCommitted),
			repair(false), update(), disks(), ending()),
	},
	{
		// Failback is a planned failover that can be cancelled until commit. No drill and no unplanned failover (ref 6.7).
		Name: LegInMageRcmFailback, Provider: ProviderInMageRcmFailback, Direction: RecoveryToPrimary, Driver: true, ActiveBefore: "Primary", ActiveAfter: "Recovery",
		Rules: rules(planned(),
			Rule{Op: OpCancelFailover, From: []Phase{PhasePlannedPending}, To: PhaseProtected, Word: wordCancel},
			reprotect(wordSwitch, LegInMageRcm, PhaseInitialReplication, PhasePlannedPending, PhasePlannedCommitted),
			repair(false), ending()),
		Words: map[Phase]Word{PhasePlannedPending: {"CommitPendingStatesBegin", "Planned failover finished"}},
	},
	{
		Name: LegInMageAzureV2, Provider: ProviderInMageAzureV2, Direction: PrimaryToRecovery, ActiveBefore: "Primary", ActiveAfter: "Recovery",
		Rules: rules(enable(), drill(), unplanned(), changePit(PhaseUnplannedPending),
			reprotect(wordReverse, LegInMageFailback, PhaseInitialReplication, PhaseUnplannedCommitted), repair(false), update(), ending()),
	},
	{
		// Failback cannot be cancelled in the classic architecture (ref 6.6).
		Name: LegInMageFailback, Provider: ProviderInMage, Direction: RecoveryToPrimary, ActiveBefore: "Recovery", ActiveAfter: "Primary",
		Rules: rules(unplanned(), reprotect(wordReverse, LegInMageAzureV2, PhaseInitialReplication, PhaseUnplannedCommitted), repair(false), ending()),
	},
	{
		// Scout, site to site: undocumented (ref 6.9); planned failover left out by our choice.
		Name: LegScout, Provider: ProviderInMage, Direction: PrimaryToRecovery, ActiveBefore: "Primary", ActiveAfter: "Recovery",
		Rules: rules(enable(), drill(), unplanned(), changePit(PhaseUnplannedPending),
			reprotect(wordReverse, LegScoutFailback, PhaseInitialReplication, PhaseUnplannedCommitted), repair(false), ending()),
	},
	{
		Name: LegScoutFailback, Provider: ProviderInMage, Direction: RecoveryToPrimary, ActiveBefore: "Recovery", ActiveAfter: "Primary",
		Rules: rules(drill(), unplanned(), changePit(PhaseUnplannedPending),
			reprotect(wordReverse, LegScout, PhaseInitialReplication, PhaseUnplannedCommitted), repair(false), ending()),
	},
	{
		// Failback is a planned failover in the other direction, from the committed phases: there is no reverse replication to
		// wait for, it carries its own synchronisation (ref 6.5).
		Name: LegHyperVAzure, Provider: ProviderHyperVReplicaAzure, Direction: PrimaryToRecovery, Driver: true, ActiveBefore: "Primary", ActiveAfter: "Recovery",
		Rules: rules(enable(), drill(), planned(), unplanned(), changePit(PhasePlannedPending, PhaseUnplannedPending),
			Rule{Op: OpPlannedFailover, From: []Phase{PhasePlannedCommitted, PhaseUnplannedCommitted}, Leg: LegHyperVAzureBack, To: PhasePlannedPending, Word: wordFailback},
			repair(false), update(), ending()),
	},
	{
		Name: LegHyperVAzureBack, Provider: ProviderHyperVReplicaAzure, Direction: RecoveryToPrimary, ActiveBefore: "Recovery", ActiveAfter: "Primary",
		Rules: rules(Rule{Op: OpCommit, From: []Phase{PhasePlannedPending}, To: PhasePlannedCommitted, Word: wordCommit},
			reprotect(wordReverse, LegHyperVAzure, PhaseInitialReplication, PhasePlannedCommitted), ending()),
	},
	hyperVReplica(LegHyperV2012, ProviderHyperVReplica2012, PrimaryToRecovery, LegHyperV2012Back, true),
	hyperVReplica(LegHyperV2012Back, ProviderHyperVReplica2012, RecoveryToPrimary, LegHyperV2012, false),
	hyperVReplica(LegHyperV2012R2, ProviderHyperVReplica2012R2, PrimaryToRecovery, LegHyperV2012R2Back, true),
	hyperVReplica(LegHyperV2012R2Back, ProviderHyperVReplica2012R2, RecoveryToPrimary, LegHyperV2012R2, false),
	{
		Name: LegA2A, Provider: ProviderA2A, Direction: PrimaryToRecovery, ActiveBefore: "Primary", ActiveAfter: "Recovery",
		Rules: rules(enable(), drill(), unplanned(), changePit(PhaseUnplannedPending),
			reprotect(wordSwitch, LegA2AReverse, PhaseInitialReplication, PhaseUnplannedCommitted), repair(true), update(), disks(), ending()),
		Words: map[Phase]Word{PhaseInitialReplication: {"UnprotectedStatesBegin", "Synchronizing"}},
	},
	{
		Name: LegA2AReverse, Provider: ProviderA2A, Direction: RecoveryToPrimary, ActiveBefore: "Recovery", ActiveAfter: "Primary",
		Rules: rules(drill(), unplanned(), changePit(PhaseUnplannedPending),
			reprotect(wordSwitch, LegA2A, PhaseInitialReplication, PhaseUnplannedCommitted), repair(true), update(), disks(), ending()),
		Words: map[Phase]Word{PhaseInitialReplication: {"UnprotectedStatesBegin", "Synchronizing"}},
	},
}

// hyperVReplica is a leg between two VMM sites. After a planned failover both sides hold the same disks, so that reversing needs
// no copy; after an unplanned one it does.
func hyperVReplica(name LegName, p ProviderType, d Direction, other LegName, first bool) Leg {
	l := Leg{Name: name, Provider: p, Direction: d, ActiveBefore: "Primary", ActiveAfter: "Recovery",
		Rules: rules(drill(), planned(), unplanned(),
			reprotect(wordReverse, other, PhaseProtected, PhasePlannedCommitted),
			reprotect(wordReverse, other, PhaseInitialReplication, PhaseUnplannedCommitted), repair(false), ending())}
	if first {
		l.Rules = append([]Rule{enable()}, l.Rules...)
	} else {
		l.ActiveBefore, l.ActiveAfter = "Recovery", "Primary"
	}
	return l
}

// LegByName returns the leg, or nil.
func LegByName(name LegName) *Leg {
	for i := range Legs {
		if Legs[i].Name == name {
			return &Legs[i]
		}
	}
	return nil
}

// FirstLeg returns the leg that enabling protection with the provider begins, or nil.
func FirstLeg(p ProviderType) *Leg {
	for i := range Legs {
		if Legs[i].Provider == p && slices.ContainsFunc(Legs[i].Rules, func(r Rule) bool { return r.Op == OpEnable }) {
			return &Legs[i]
		}
	}
	return nil
}

// rule returns the row for op in phase, or nil.
func (l *Leg) rule(op Operation, phase Phase) *Rule {
	for i := range l.Rules {
		if l.Rules[i].Op == op && slices.Contains(l.Rules[i].From, phase) {
			return &l.Rules[i]
		}
	}
	return nil
}

// Next returns the leg and phase that op leads to from phase; ok is false when the leg does not allow it.
func (l *Leg) Next(op Operation, phase Phase) (leg LegName, to Phase, ok bool) {
	r := l.rule(op, phase)
	if r == nil {
		return "", "", false
	}
	leg, to = r.Leg, r.To
	if leg == "" {
		leg = l.Name
	}
	if to == "" {
		to = phase
	}
	return leg, to, true
}

// word returns what the wire calls the phase.
func (l *Leg) word(p Phase) Word {
	if w, ok := l.Words[p]; ok {
		return w
	}
	return commonWords[p]
}
