package workflow

import (
	"fmt"

	"github.com/lifeboat-dr/lifeboat/service/control"
	"github.com/lifeboat-dr/lifeboat/service/dr"
	"github.com/lifeboat-dr/lifeboat/service/job"
)

const (
	reprotectPreflight = "SwitchReplicationGroupProtectionPreflightTask"
	reprotectOpen      = "GetSwitchProtectionRequirementsTask"
)

func init() {
	for _, plan := range []string{job.PlanReprotect, job.PlanReprotectForward} {
		register(plan, reprotectPreflight, step{control: reprotectChecks})
		register(plan, job.StepCommit, step{control: func(r *run) (outcome, error) {
			if !dr.CommitPending(r.item.State.Phase) {
				return skipped, nil // committed before
			}
			return done, nil
		}})
		register(plan, job.StepDiscoverReplica, step{control: waitForAgent})
		register(plan, reprotectOpen, openGeneration())
		register(plan, job.StepProtectReplica, step{control: protectReplica})
		register(plan, job.StepUnpin, releaseOld())
	}
	register(job.PlanReprotect, job.StepWaitHydrated, step{control: waitHydrated})
	register(job.PlanReprotectForward, job.StepDestroyReplica, destroyOld())
}

// reprotectChecks settles the next generation: it builds on the point the machine was failed over from, so that only what
// differs travels.
func reprotectChecks(r *run) (outcome, error) {
	if r.item.FailoverPoint.IsZero() {
		return failed(dr.CodeConflict, fmt.Sprintf("%s was not failed over from a point", r.item.FriendlyName), "an earlier job was interrupted", "fail over again"), nil
	}
	if r.job.Plan == job.PlanReprotect && r.item.FailoverInstance == nil {
		return failed(dr.CodeConflict, fmt.Sprintf("%s has no replica at the recovery site", r.item.FriendlyName), "it was destroyed", "fail over again"), nil
	}
	r.work.Old = r.item.FailoverInstance
	r.work.Generation, r.work.Point = r.item.Generation+1, r.item.FailoverPoint
	return done, nil
}

// waitForAgent waits until the agent in the machine that runs now has been heard of.
func waitForAgent(r *run) (outcome, error) {
	a, err := control.LoadAgent(r.tx, r.item.AgentID)
	if err != nil {
		return done, err
	}
	since := r.item.LastFailover
	if i := r.activeInstance(); i != nil && i.Started.After(since) {
		since = i.Started
	}
	o, err := control.LoadObserved(r.tx, r.item.ID)
	if err != nil {
		return done, err
	}
	heard := a.LastHeartbeat
	if o.LastHeartbeat.After(heard) {
		heard = o.LastHeartbeat
	}
	if heard.After(since) && r.now.Sub(heard) <= dr.HeartbeatLimit && sameUUID(a.Machine.ProductUUID, r.item.ActiveUUID) {
		return done, nil
	}
	if r.waited() > r.opt.AgentTimeout {
		return failed(dr.CodeUnavailable, fmt.Sprintf("the agent in the machine that runs %s now (SMBIOS UUID %s) was not heard of within %s", r.item.FriendlyName, r.item.ActiveUUID, r.opt.AgentTimeout),
			"the machine has no way to the configuration server, or its agent does not start", "look at the machine's console and network, then restart the job"), nil
	}
	return waiting, nil
}

func (r *run) activeInstance() *dr.Instance {
	for _, i := range []*dr.Instance{r.item.HomeInstance, r.item.FailoverInstance} {
		if i != nil && sameUUID(i.UUID, r.item.ActiveUUID) {
			return i
		}
	}
	return nil
}

// protectReplica switches the item to the other leg; from here on the operation counts as done.
func protectReplica(r *run) (outcome, error) {
	r.openAs(r.work.Generation, r.work.Point)
	if r.job.Plan == job.PlanReprotect {
		if err := r.keepDisks(r.item.FailoverInstance); err != nil {
			return done, err
		}
		r.item.ReprotectAgent, r.item.Datastore = r.req.MasterTarget, r.req.Datastore
	} else {
		r.item.HomeInstance, r.item.ReprotectAgent, r.item.Datastore = nil, "", ""
	}
	if r.req.Policy != "" {
		r.item.PolicyName = r.req.Policy
	}
	r.item.InternalID, r.item.PlannedFailoverStatus = newID(), "None"
	r.change()
	return done, control.Settle(r.tx, r.job, r.item, r.now)
}
