package dr

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// SignalKind is a family of things that happen to an item.
type SignalKind string

const (
	Requested   SignalKind = "requested"   // a user asks for Op; Job will do it
	Succeeded   SignalKind = "succeeded"   // Job has done Op
	Failed      SignalKind = "failed"      // Job did not do Op, or was cancelled; Undo, when set, is the job that restores what it changed
	Undone      SignalKind = "undone"      // the undoing Job has ended
	SeedShipped SignalKind = "seedShipped" // the source has sent everything once
	FirstPoint  SignalKind = "firstPoint"  // a point of the running generation is durable
	ResyncBegan SignalKind = "resyncBegan" // tracking was lost; disks are being compared
	ResyncEnded SignalKind = "resyncEnded"
)

// Signal is what happened. Op and Job are set for the first three kinds, Leg only when an enable is requested. Driven tells that
// there is a driver for the leg that the table does not know of. Halted tells, when something is undone, that the point log is closed
// all the same.
type Signal struct {
	Kind   SignalKind
	Op     Operation
	Job    string
	Undo   string
	Leg    LegName
	Driven bool
	Halted bool
}

// Apply is the state machine: what state follows from sig, or a refusal that leaves the state as it was. A signal that tells
// what is known already (a second first point, the end of a job that is not the pending one) changes nothing and is no error:
// signals come at least once.
func Apply(s State, sig Signal, now time.Time) (State, *Error) {
	if sig.Kind == Requested {
		name := s.Leg
		if sig.Op == OpEnable && sig.Leg != "" {
			name = sig.Leg
		}
		l := LegByName(name)
		if l == nil {
			return s, &Error{Code: CodeInvalid, Message: fmt.Sprintf("unknown replication leg %q", name),
				PossibleCauses: "the provider's instanceType is not one this server knows", RecommendedAction: "send one of: " + providerList()}
		}
		if !l.Driver && !sig.Driven {
			return s, &Error{Code: CodeUnimplemented, Message: fmt.Sprintf("%s is not available for %s", sig.Op, l.Provider),
				PossibleCauses: "this server has no driver for the provider", RecommendedAction: "use provider InMageRcm"}
		}
		if r := l.rule(sig.Op, s.Phase); r != nil && r.Leg != "" && !LegByName(r.Leg).Driver && !sig.Driven {
			return s, &Error{Code: CodeUnimplemented, Message: fmt.Sprintf("%s of %s is not available in phase %s", sig.Op, l.Provider, s.Phase),
				PossibleCauses: "this server has no driver for the way back", RecommendedAction: "keep the machine running at the recovery site, or export a recovery point"}
		}
	}
	return step(s, sig, now)
}

// step is Apply without the question whether there is a driver.
func step(s State, sig Signal, now time.Time) (State, *Error) {
	next := s
	switch sig.Kind {
	case Requested:
		return request(s, sig, now)
	case Succeeded:
		if s.PendingJob != sig.Job || s.PendingJob == "" {
			return s, nil
		}
		next.PendingJob = ""
		leg := LegByName(s.Leg)
		from := s.Phase
		r := leg.rule(sig.Op, from)
		if r == nil {
			r = leg.ruleBegun(sig.Op, from)
		}
		if r == nil {
			return s, &Error{Code: CodeInternal, Message: fmt.Sprintf("%s succeeded in phase %s of %s, which does not allow it", sig.Op, from, s.Leg)}
		}
		if r.To != "" {
			next.Phase = r.To
		}
		if r.Leg != "" && r.Leg != s.Leg {
			next.Leg, next.TestFailover, next.Resync = r.Leg, DrillNone, false
		}
		switch sig.Op {
		case OpRepair:
			next.Halted = false
		case OpTestFailover:
			next.TestFailover = DrillOpen
		case OpTestCleanup:
			next.TestFailover = DrillCleaned
		}
	case Failed:
		if s.PendingJob != sig.Job || s.PendingJob == "" {
			return s, nil
		}
		next.PendingJob = sig.Undo
		if r := LegByName(s.Leg).ruleBegun(sig.Op, s.Phase); r != nil && r.Fail != "" {
			next.Phase = r.Fail
		}
	case Undone:
		if s.PendingJob != sig.Job {
			return s, nil
		}
		next.PendingJob, next.Halted = "", sig.Halted
	case SeedShipped:
		if s.Phase == PhaseInitialReplication {
			next.Phase = PhaseFirstPointPending
		}
	case FirstPoint:
		if s.Phase == PhaseInitialReplication || s.Phase == PhaseFirstPointPending {
			next.Phase = PhaseProtected
		}
	case ResyncBegan:
		if slices.Contains(replicating, s.Phase) {
			next.Resync = true
		}
	case ResyncEnded:
		next.Resync = false
	default:
		return s, &Error{Code: CodeInternal, Message: fmt.Sprintf("unknown signal %q", sig.Kind)}
	}
	if next.Phase != s.Phase || next.Leg != s.Leg {
		next.Since = now
	}
	if !slices.Contains(replicating, next.Phase) {
		next.Resync, next.Halted = false, false
	}
	return next, nil
}

func request(s State, sig Signal, now time.Time) (State, *Error) {
	next := s
	if sig.Op == OpEnable && s.Phase == PhaseNone {
		next.Leg = sig.Leg
	}
	l := LegByName(next.Leg)
	if l == nil {
		return s, &Error{Code: CodeConflict, Message: "the machine is not protected", PossibleCauses: "protection was never enabled, or was removed",
			RecommendedAction: "enable protection first"}
	}
	r := l.rule(sig.Op, s.Phase)
	if r == nil {
		return s, l.refuse(sig.Op, s)
	}
	if sig.Op != OpPurge { // purge is the way out of anything
		if s.PendingJob != "" {
			return s, &Error{Code: CodeConflict, Message: fmt.Sprintf("%s cannot start: job %s is running on this machine", sig.Op, s.PendingJob),
				PossibleCauses: "another operation has not ended", RecommendedAction: "wait for the job, or cancel it, and try again"}
		}
		if err := refuseDrill(sig.Op, s); err != nil {
			return s, err
		}
		if !r.needed(s) {
			return s, &Error{Code: CodeConflict, Message: fmt.Sprintf("%s is not needed", sig.Op), PossibleCauses: "replication goes on, and no disk has to be compared",
				RecommendedAction: "nothing needs to be done; allowedOperations lists the operation when it is needed"}
		}
	}
	next.PendingJob = sig.Job
	if r.Begin != "" {
		next.Phase = r.Begin
	}
	if next.Phase != s.Phase || next.Leg != s.Leg {
		next.Since = now
	}
	return next, nil
}

// refuseDrill keeps an open drill and everything else apart: it must be cleaned up first.
func refuseDrill(op Operation, s State) *Error {
	open := s.TestFailover == DrillOpen
	switch {
	case op == OpTestCleanup && !open:
		return &Error{Code: CodeConflict, Message: "there is no test failover to clean up", PossibleCauses: "none was started, or it was cleaned up already",
			RecommendedAction: "nothing needs to be done"}
	case open && op != OpTestCleanup && op != OpUpdate:
		return &Error{Code: CodeConflict, Message: fmt.Sprintf("%s cannot start: a test failover is open", op),
			PossibleCauses: "the test machine has not been cleaned up", RecommendedAction: "call testFailoverCleanup, then try again"}
	}
	return nil
}

// needed tells whether s is one in which the rule's operation is good for something.
func (r *Rule) needed(s State) bool { return !r.OnNeed || s.Resync || s.Halted }

// refuse tells why op is not possible in s and where it would be.
func (l *Leg) refuse(op Operation, s State) *Error {
	var from []string
	for _, r := range l.Rules {
		if r.Op == op {
			for _, p := range r.From {
				if p != PhaseNone {
					from = append(from, l.word(p).State)
				}
			}
		}
	}
	e := &Error{Code: CodeConflict, Message: fmt.Sprintf("%s is not allowed for a %s machine in state %s", op, l.Provider, l.word(s.Phase).State)}
	if len(from) == 0 && op != OpEnable {
		e.PossibleCauses = fmt.Sprintf("%s has no %s in this direction", l.Provider, op)
		e.RecommendedAction = "use one of the operations in allowedOperations: " + strings.Join(Project(s).AllowedOperations, ", ")
		return e
	}
	e.PossibleCauses = "the machine is at another point of its life than the caller thinks"
	if op == OpEnable {
		e.PossibleCauses = "the machine is protected already"
		e.RecommendedAction = "remove the protected item first, or leave it as it is"
		return e
	}
	e.RecommendedAction = "wait for or bring it to one of: " + strings.Join(slices.Compact(from), ", ")
	return e
}

// ruleBegun returns the row for op whose job puts the item into phase while it runs.
func (l *Leg) ruleBegun(op Operation, phase Phase) *Rule {
	for i := range l.Rules {
		if l.Rules[i].Op == op && l.Rules[i].Begin == phase && phase != "" {
			return &l.Rules[i]
		}
	}
	return nil
}

func providerList() string {
	var names []string
	for _, l := range Legs {
		if FirstLeg(l.Provider) == LegByName(l.Name) {
			names = append(names, string(l.Provider))
		}
	}
	return strings.Join(names, ", ")
}
