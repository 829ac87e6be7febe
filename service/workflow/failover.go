package workflow

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/lifeboat-dr/lifeboat/service/control"
	"github.com/lifeboat-dr/lifeboat/service/dr"
	"github.com/lifeboat-dr/lifeboat/service/job"
)

func init() {
	register(job.PlanUnplannedFailover, "UnplannedFailoverPreflightChecksTask", step{control: failoverPreflight})
	register(job.PlanUnplannedFailover, job.StepSyncSource, step{control: syncSource})
	register(job.PlanUnplannedFailover, job.StepShutdownSource, step{payload: shutdownSource, route: homeRoute,
		patience: func(o Options) time.Duration { return o.ShutdownWait },
		apply: func(r *run, _ json.RawMessage) error {
			r.item.SourceShutdownNote = "The source virtual machine was shut down."
			r.change()
			return nil
		},
		excuse: func(r *run, f job.Error) {
			r.item.SourceShutdownNote = "The source virtual machine was not shut down: " + f.Message
			r.change()
			r.inform(r.item.SourceShutdownNote, "it or its host does not answer, or its guest ignores the request", "make sure that nobody uses it any more")
		}})
	register(job.PlanUnplannedFailover, job.StepCapture, step{payload: captureStopped, route: homeRoute,
		patience: func(o Options) time.Duration { return o.ShutdownWait },
		excuse: func(r *run, f job.Error) {
			r.inform("What was written between the last recovery point and the shutdown was not captured: "+f.Message, or(f.PossibleCauses, "the disks are too large for the time there is, or cannot be read from outside"),
				"compare the recovery point's time with the time of the shutdown")
		}})
	register(job.PlanUnplannedFailover, job.StepFence, fence("unplanned failover"))
	register(job.PlanUnplannedFailover, job.StepChoosePoint, step{control: failoverChoose})
	register(job.PlanUnplannedFailover, job.StepPin, holdFailoverPoint())
	register(job.PlanUnplannedFailover, job.StepStartReplica, step{payload: startReplica, route: computeRoute(startedID), apply: replicaUp})

	register(job.PlanUndoUnplanned, job.StepDestroyReplica, step{payload: func(r *run) (any, error) {
		if r.work.Instance == nil || !r.work.tried(job.StepStartReplica) {
			return nil, nil
		}
		return job.InstanceDestroy{Machine: r.machine(), InstanceID: r.work.Instance.ID}, nil
	}, route: computeRoute(startedID)})
	register(job.PlanUndoUnplanned, job.StepUnpin, step{payload: func(r *run) (any, error) {
		if r.work.Instance == nil || !r.work.tried(job.StepPin) {
			return nil, nil
		}
		return unpin(r, r.work.Instance), nil
	}})
	register(job.PlanUndoUnplanned, job.StepFence, fenceIfTried("undone failover"))
	register(job.PlanUndoUnplanned, job.StepOpenGeneration, reopen())
	register(job.PlanUndoUnplanned, job.StepResume, step{control: func(r *run) (outcome, error) {
		r.item.FailoverInstance, r.item.FailoverPoint = nil, dr.PointRef{}
		r.startAgain()
		return r.resumeSource(r.work.Active)
	}})

	register(job.PlanApplyPoint, job.StepPreflight, step{control: applyPreflight})
	register(job.PlanApplyPoint, job.StepDestroyReplica, step{payload: destroyPayload(func(r *run) *dr.Instance { return r.work.Old }), route: computeRoute(func(r *run) string { return idOf(r.work.Old) })})
	register(job.PlanApplyPoint, job.StepUnpin, step{payload: unpinPayload(func(r *run) *dr.Instance { return r.work.Old })})
	register(job.PlanApplyPoint, job.StepPin, step{payload: pinPayload, apply: func(r *run, _ json.RawMessage) error {
		r.work.Instance.Pinned = true
		r.item.FailoverInstance, r.item.FailoverPoint = r.work.Instance, r.work.Point
		r.change()
		return nil
	}})
	register(job.PlanApplyPoint, job.StepStartReplica, step{payload: startReplica, route: computeRoute(startedID), apply: replicaUp})

	for _, plan := range []string{job.PlanCommit, job.PlanCommitFailback} {
		register(plan, job.StepPreflight, step{control: commitPreflight})
		register(plan, job.StepCommit, step{control: commit})
		register(plan, job.StepUnpin, releaseOld())
	}
	register(job.PlanCommit, job.StepWaitHydrated, step{control: waitHydrated})
	register(job.PlanCommitFailback, job.StepDestroyReplica, destroyOld())
}

// holdFailoverPoint pins the point that the replica starts from.
func holdFailoverPoint() step {
	return step{payload: pinPayload, apply: func(r *run, _ json.RawMessage) error {
		r.work.Instance.Pinned = true
		r.item.FailoverInstance = r.work.Instance
		r.change()
		return nil
	}}
}

func failoverPreflight(r *run) (outcome, error) {
	r.work.Active = r.item.ActiveUUID
	r.item.SourceShutdownNote = "Shutting the source down was not asked for."
	r.item.SourceMustStop = r.req.Shutdown
	r.change()
	return done, nil
}

// syncSource asks a source that answers for what was written since its newest point, so that a shutdown loses nothing that could
// have been kept. The failover goes on without when there is no answer: the source may be lost.
func syncSource(r *run) (outcome, error) {
	if !r.req.Shutdown {
		return skipped, nil
	}
	o, err := control.LoadObserved(r.tx, r.item.ID)
	if err != nil {
		return done, err
	}
	var trouble string
	switch {
	case r.item.Fenced:
		trouble = "its recovery point log is closed"
	case r.work.CaptureID == "" && r.now.Sub(o.LastHeartbeat) <= dr.HeartbeatLimit:
		if r.item.StopSource, err = r.hosted(); err != nil { // who is there can shut it down first
			return done, err
		}
		r.askCapture()
		return waiting, nil
	case r.work.CaptureID == "":
		trouble = "its agent was last heard of at " + o.LastHeartbeat.Format(time.DateTime)
	case r.captured(o):
		if r.item.StopSource {
			r.item.SourceShutdownNote = "The source virtual machine was shut down, and its disks were captured after that."
			r.change()
		}
		return done, nil
	case r.waited() > r.opt.AnswerWait && o.LastHeartbeat.Before(r.task.Started):
		trouble = fmt.Sprintf("its agent did not answer within %s", r.opt.AnswerWait)
	case r.waited() > r.opt.ShutdownWait:
		trouble = fmt.Sprintf("its agent completed no recovery point within %s", r.opt.ShutdownWait)
	default:
		return waiting, nil
	}
	r.inform(fmt.Sprintf("The latest changes of %s were not synchronized: %s. The failover goes on with what was sent before.", r.item.FriendlyName, trouble),
		"the source is lost, cut off, or too busy", "compare the recovery point's time with the last change you know of")
	return done, nil
}

// shutdownSource shuts the production machine down if it was asked for and somebody sees it. Whatever comes of it, the failover
// goes on: the source is presumed lost.
func shutdownSource(r *run) (any, error) {
	if !r.req.Shutdown || r.item.StopSource { // the agent on its hypervisor was asked
		return nil, nil
	}
	rep, vm, err := r.homeMachine()
	if err != nil {
		return nil, err
	}
	if rep == nil {
		r.item.SourceShutdownNote = "The source machine was not shut down: no master target sees it. Its agent shuts it down if it is heard of again."
		r.change()
		return nil, nil
	}
	return job.HomeMachine{Machine: r.machine(), UUID: vm.UUID, Datastore: vm.Datastore, Timeout: r.opt.ShutdownWait / 2}, nil
}

// captureStopped takes what was written between the last capture and the shutdown, when the source was shut down.
func captureStopped(r *run) (any, error) {
	if stopped := r.job.Task(job.StepShutdownSource); stopped == nil || stopped.Skipped || r.item.Fenced {
		return nil, nil
	}
	_, vm, err := r.homeMachine()
	if err != nil || vm.UUID == "" {
		return nil, err // nobody sees it any more
	}
	p := job.HomeCapture{HomeMachine: job.HomeMachine{Machine: r.machine(), UUID: vm.UUID, Datastore: vm.Datastore}, Generation: r.item.Generation}
	for _, d := range r.item.Disks {
		p.Disks = append(p.Disks, job.HomeDisk{ID: d.ID, SizeBytes: d.SizeBytes, OS: d.IsOSDisk})
	}
	return p, nil
}

func or(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// fence closes the running generation: from then on no late writer can add a point.
func fence(reason string) step {
	return step{
		payload: func(r *run) (any, error) {
			if r.item.Fenced || r.item.Generation == 0 {
				return nil, nil
			}
			return job.GenerationClose{Machine: r.machine(), Generation: r.item.Generation, Reason: reason}, nil
		},
		apply: func(r *run, output json.RawMessage) error {
			out, err := decode[job.GenerationClosed](output)
			if err != nil {
				return err
			}
			r.item.Fenced, r.item.LastPoint = true, r.item.BasePoint
			if out.Last != nil {
				r.item.LastPoint = refOf(*out.Last)
			}
			r.change()
			return nil
		},
	}
}

// fenceIfTried closes the generation when the undone job may have closed it without our knowing.
func fenceIfTried(reason string) step {
	s := fence(reason)
	close := s.payload
	s.payload = func(r *run) (any, error) {
		if !r.work.tried(job.StepFence) {
			return nil, nil
		}
		return close(r)
	}
	return s
}

// reopen opens the next generation on the last point of the closed one, when it is closed.
func reopen() step {
	return step{
		payload: func(r *run) (any, error) {
			if !r.item.Fenced {
				return nil, nil
			}
			p := job.GenerationOpen{Machine: r.machine(), Generation: r.item.Generation + 1}
			if !r.item.LastPoint.IsZero() {
				base := ref(r.item.LastPoint)
				p.Base = &base
			}
			return p, nil
		},
		apply: func(r *run, _ json.RawMessage) error {
			r.openAs(r.item.Generation+1, r.item.LastPoint)
			return nil
		},
	}
}

// resumeSource makes the machine that was active before the active one again.
func (r *run) resumeSource(uuid string) (outcome, error) {
	if uuid != "" {
		r.item.ActiveUUID = uuid
	}
	r.change()
	return done, nil
}

// failoverChoose settles the point. Asked for the latest, it takes what the source managed to send before the fence.
func failoverChoose(r *run) (outcome, error) {
	point := r.req.Point
	if point.IsZero() {
		point = r.item.LastPoint
	}
	if point.IsZero() {
		return failed(dr.CodeConflict, fmt.Sprintf("%s has no recovery point to start from", r.item.FriendlyName), "no point was ever completed", "wait for a recovery point before failing over"), nil
	}
	r.work.Point = point
	r.work.Instance = newInstance(point)
	if young := slices.DeleteFunc(slices.Clone(r.item.Disks), func(d dr.Disk) bool { return !d.Seeding }); len(young) > 0 {
		r.inform(fmt.Sprintf("%s were added lately and may be in no recovery point yet: the replica of %s is without those that are not", named(young), r.item.FriendlyName), "the failover came before their first copy had ended", "look at what was on them when the source is back")
	}
	return done, r.note("SourceShutdown", dr.SeverityInfo, r.item.SourceShutdownNote)
}

func startReplica(r *run) (any, error) {
	return r.startPayload(r.work.Instance, job.NetworkProduction), nil
}

func replicaUp(r *run, output json.RawMessage) error {
	if r.item.FailoverInstance == nil {
		r.item.FailoverInstance = r.work.Instance
	}
	r.item.FailoverPoint, r.item.ActiveUUID = r.work.Point, r.work.Instance.UUID
	return r.instanceUp(r.item.FailoverInstance, output)
}

// applyPreflight replaces the running replica by one from another point.
func applyPreflight(r *run) (outcome, error) {
	if _, ok, err := control.LoadPoint(r.tx, r.item.ID, r.req.Point); err != nil {
		return done, err
	} else if !ok {
		return failed(dr.CodeConflict, "the recovery point is gone", "it was pruned meanwhile", "choose another recovery point"), nil
	}
	r.work.Old, r.work.Point = r.item.FailoverInstance, r.req.Point
	r.work.Instance = newInstance(r.req.Point)
	return done, nil
}

func commitPreflight(r *run) (outcome, error) {
	r.work.Old = r.item.FailoverInstance
	return done, nil
}

// commit lets the operation count as done: what is left of the job nobody waits for.
func commit(r *run) (outcome, error) {
	if err := control.Settle(r.tx, r.job, r.item, r.now); err != nil {
		return done, err
	}
	r.item.HomeInstance = nil
	r.change()
	return done, nil
}

// waitHydrated waits until the replica's disks no longer need the repository, or the replica is gone.
func waitHydrated(r *run) (outcome, error) {
	old := r.work.Old
	if old == nil || !old.Pinned {
		return skipped, nil
	}
	reps, err := control.LoadReplicators(r.tx)
	if err != nil {
		return done, err
	}
	for _, rep := range reps {
		for _, i := range rep.Instances {
			if i.ID == old.ID && i.HydratedPercent >= 100 {
				return done, nil
			}
		}
	}
	if r.item.FailoverInstance == nil || r.item.FailoverInstance.ID != old.ID {
		return skipped, nil
	}
	return waiting, nil
}

// releaseOld lets go of the point that the replica in work.Old was started from.
func releaseOld() step {
	return step{payload: unpinPayload(func(r *run) *dr.Instance { return r.work.Old }), apply: func(r *run, _ json.RawMessage) error {
		if i := r.item.FailoverInstance; i != nil && r.work.Old != nil && i.ID == r.work.Old.ID {
			i.Pinned = false
			r.change()
		}
		return nil
	}}
}

// destroyOld removes the replica in work.Old: the machine is home again.
func destroyOld() step {
	return step{payload: destroyPayload(func(r *run) *dr.Instance { return r.work.Old }), route: computeRoute(func(r *run) string { return idOf(r.work.Old) }),
		apply: func(r *run, _ json.RawMessage) error {
			if i := r.item.FailoverInstance; i != nil && i.ID == idOf(r.work.Old) {
				r.item.FailoverInstance = nil
				r.change()
			}
			return nil
		}}
}
