package dr

import (
	"fmt"
	"slices"
	"strings"
)

// PlanRun is an operation on a whole plan.
type PlanRun struct {
	Op        Operation
	Direction Direction // of a failover or drill
	Shutdown  bool      // unplanned failover: the sources are to be shut down first
}

// StageKind says how far a stage takes its machines. A failover is three stages of the same operation on a machine.
type StageKind string

const (
	StageShutdown StageKind = "shutdown" // until the source is off
	StageFailover StageKind = "failover" // until everything is ready but the start
	StageBoot     StageKind = "boot"     // until it is up
	StageWhole    StageKind = "whole"    // the whole operation at once
)

// Stage is a part of an operation on a plan: actions, then machines in parallel, then actions. A stage begins when the one before
// has ended.
type Stage struct {
	Kind   StageKind
	Group  int // index in RecoveryPlan.Groups; shown to people counted from 1
	Before []StageAction
	Items  []ItemID
	After  []StageAction
}

// StageAction is an action that takes part in an operation; Skip tells why it is not done all the same.
type StageAction struct {
	PlanAction
	Skip string
}

// Words of failoverTypes that an operation answers to.
var failoverType = map[Operation]string{OpTestFailover: wordTest, OpPlannedFailover: wordPlanned, OpUnplannedFailover: wordUnplanned}

// PlanOperations are the operations that a plan has, in the order of a machine's life.
var PlanOperations = []Operation{OpTestFailover, OpTestCleanup, OpPlannedFailover, OpUnplannedFailover, OpCommit, OpCancelFailover, OpReprotect}

// Expand tells what an operation on the plan does, in order. Stages without machines and actions are left out.
//
// A drill has no stage that stops sources, and does nothing at the primary side: nothing of it may touch production.
// What takes machines back (a cleanup, a cancel) goes through the groups from the last to the first.
func (p *RecoveryPlan) Expand(run PlanRun) []Stage {
	var out []Stage
	if failoverType[run.Op] == "" {
		for i, g := range p.Groups {
			if len(g.Items) > 0 {
				out = append(out, Stage{Kind: StageWhole, Group: i, Items: slices.Clone(g.Items)})
			}
		}
		if run.Op == OpTestCleanup || run.Op == OpCancelFailover {
			slices.Reverse(out)
		}
		return out
	}
	for i, g := range p.Groups {
		st := Stage{Group: i, Before: run.actions(g.Before), After: run.actions(g.After)}
		switch g.Kind {
		case GroupShutdown:
			if run.Op == OpTestFailover {
				continue
			}
			st.Kind = StageShutdown
			if run.Op == OpPlannedFailover || run.Shutdown {
				st.Items = p.Items()
			}
		case GroupFailover:
			st.Kind, st.Items = StageFailover, p.Items()
		case GroupBoot:
			st.Kind, st.Items = StageBoot, slices.Clone(g.Items)
		}
		if len(st.Items)+len(st.Before)+len(st.After) > 0 {
			out = append(out, st)
		}
	}
	return out
}

// actions picks those that answer to the operation and its direction.
func (r PlanRun) actions(list []PlanAction) (out []StageAction) {
	word := failoverType[r.Op]
	for _, a := range list {
		if !slices.ContainsFunc(a.Types, func(t string) bool { return strings.EqualFold(t, word) }) || !slices.Contains(a.Directions, r.Direction) {
			continue
		}
		s := StageAction{PlanAction: a}
		if a.Primary && a.Kind != ActionManual && r.Op == OpTestFailover {
			s.Skip = "a test failover does nothing at the primary side"
		}
		out = append(out, s)
	}
	return out
}

// Part says what an item does in an operation on its plan.
type Part string

const (
	PartActs    Part = "acts"        // the operation runs on it
	PartDone    Part = "AlreadyDone" // it is where the operation leads to
	PartBlocked Part = "NotAllowed"  // its state does not allow the operation
)

// PartOf tells which part an item in state s has in the operation, and why when it has none. driven is Item.Driven.
func (r PlanRun) PartOf(s State, driven bool) (Part, *Error) {
	if r.alreadyDone(s) {
		return PartDone, nil
	}
	if failoverType[r.Op] != "" {
		if d := directionOf(r.Op, s); d != "" && d != r.Direction {
			return PartBlocked, &Error{Code: CodeConflict, Message: fmt.Sprintf("%s cannot go %s: it replicates %s now", r.Op, r.Direction, d),
				PossibleCauses: "the machine was failed over before", RecommendedAction: fmt.Sprintf("ask for failoverDirection %s", d)}
		}
	}
	if _, refusal := Apply(s, Signal{Kind: Requested, Op: r.Op, Job: "plan", Driven: driven}, s.Since); refusal != nil {
		return PartBlocked, refusal
	}
	return PartActs, nil
}

// alreadyDone tells whether the operation would find nothing to do, as after a plan's job that failed half-way.
func (r PlanRun) alreadyDone(s State) bool {
	l := LegByName(s.Leg)
	if l == nil || s.PendingJob != "" {
		return false
	}
	switch r.Op {
	case OpTestFailover:
		return s.TestFailover == DrillOpen
	case OpTestCleanup:
		return s.TestFailover != DrillOpen
	case OpPlannedFailover, OpUnplannedFailover:
		return FailedOver(s.Phase) && l.Direction == r.Direction
	case OpCommit:
		return !CommitPending(s.Phase)
	case OpCancelFailover:
		return s.Phase == PhaseProtected && l.rule(OpPlannedFailover, s.Phase) != nil
	case OpReprotect:
		return Replicates(s.Phase)
	}
	return false
}

// directionOf is the direction that a failover of an item in state s goes; empty when there is none.
func directionOf(op Operation, s State) Direction {
	l := LegByName(s.Leg)
	if l == nil {
		return ""
	}
	if r := l.rule(op, s.Phase); r != nil && r.Leg != "" {
		l = LegByName(r.Leg)
	}
	return l.Direction
}

// planWords maps what items allow to what a plan allows.
var planWords = map[string]string{wordPlanned: wordPlanned, wordFailback: wordPlanned, wordUnplanned: wordUnplanned, wordTest: wordTest, wordCleanup: wordCleanup,
	wordCommit: wordCommit, wordCancel: wordCancel, wordReverse: wordReverse, wordSwitch: wordReverse}

var planWordOrder = []string{wordPlanned, wordUnplanned, wordTest, wordCleanup, wordCommit, wordCancel, wordReverse}

// PlanAllows lists what may be asked of a plan with items in the states: what at least one of them allows. Never nil.
func PlanAllows(states []State) []string {
	out := []string{}
	for _, s := range states {
		for _, w := range Project(s).AllowedOperations {
			if word := planWords[w]; word != "" && !slices.Contains(out, word) {
				out = append(out, word)
			}
		}
	}
	slices.SortFunc(out, func(a, b string) int { return slices.Index(planWordOrder, a) - slices.Index(planWordOrder, b) })
	return out
}
