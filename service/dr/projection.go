package dr

import "slices"

// Projection is what clients see of a State. The strings are those of the wire (ref 6.1).
type Projection struct {
	Provider                     ProviderType
	Direction                    Direction
	ProtectionState              string
	ProtectionStateDescription   string
	ActiveLocation               string
	TestFailoverState            string
	TestFailoverStateDescription string
	AllowedOperations            []string // never nil
}

// Project shows a state to clients.
func Project(s State) Projection {
	p := Projection{ActiveLocation: "Primary", TestFailoverState: "None", TestFailoverStateDescription: "None", AllowedOperations: []string{}}
	l := LegByName(s.Leg)
	if l == nil {
		w := commonWords[PhaseNone]
		p.ProtectionState, p.ProtectionStateDescription = w.State, w.Description
		return p
	}
	w := l.word(s.Phase)
	p.Provider, p.Direction = l.Provider, l.Direction
	p.ProtectionState, p.ProtectionStateDescription = w.State, w.Description
	p.ActiveLocation = l.ActiveBefore
	if FailedOver(s.Phase) {
		p.ActiveLocation = l.ActiveAfter
	}
	switch s.TestFailover {
	case DrillOpen:
		p.TestFailoverState, p.TestFailoverStateDescription = "WaitingForCompletion", "Waiting for user input"
		p.ProtectionStateDescription = "Cleanup test failover pending"
	case DrillCleaned:
		p.TestFailoverState, p.TestFailoverStateDescription = "MarkedForDeletion", "Cleaning up test environment"
	}
	p.AllowedOperations = allowed(l, s)
	return p
}

// allowed lists what may be asked for now. While a job runs nothing is listed; purge, update and enable are never listed, their
// verbs being plain DELETE, PATCH and PUT, and the wire has no words for adding and removing disks.
func allowed(l *Leg, s State) []string {
	words := []string{}
	if s.PendingJob != "" {
		return words
	}
	for _, r := range l.Rules {
		if r.Word == "" || !slices.Contains(r.From, s.Phase) || !r.needed(s) {
			continue
		}
		if refuseDrill(r.Op, s) != nil || s.TestFailover == DrillOpen && r.Op != OpTestCleanup {
			continue
		}
		words = append(words, r.Word)
		if r.Op == OpRemove && FailedOver(s.Phase) {
			words = append(words, wordCompleteMigration)
		}
	}
	slices.SortFunc(words, func(a, b string) int { return slices.Index(wordOrder, a) - slices.Index(wordOrder, b) })
	return slices.Compact(words)
}

// FailedOver tells whether the machine runs at the other side of its leg.
func FailedOver(p Phase) bool { return slices.Contains(failedOver, p) }

// Replicates tells whether changes of the machine are to be sent in the phase.
func Replicates(p Phase) bool { return slices.Contains(replicating, p) }

// CommitPending tells whether a failover waits for commit in the phase.
func CommitPending(p Phase) bool { return p == PhasePlannedPending || p == PhaseUnplannedPending }
