package workflow

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/lifeboat-dr/lifeboat/service/control"
	"github.com/lifeboat-dr/lifeboat/service/dr"
	"github.com/lifeboat-dr/lifeboat/service/job"
)

func init() {
	plan := job.PlanPlannedFailover
	register(plan, "PlannedFailoverPreflightChecksTask", step{control: failbackPreflight})
	register(plan, job.StepLastDelta, step{control: lastDelta})
	register(plan, job.StepStopSource, step{payload: func(r *run) (any, error) {
		return job.InstanceStop{Machine: r.machine(), InstanceID: r.work.Old.ID, Timeout: r.opt.StopTimeout}, nil
	}, route: computeRoute(func(r *run) string { return idOf(r.work.Old) })})
	register(plan, job.StepCapture, step{payload: func(r *run) (any, error) {
		p := job.InstanceCapture{Machine: r.machine(), InstanceID: r.work.Old.ID, Generation: r.item.Generation}
		for _, d := range r.item.Disks {
			p.Disks = append(p.Disks, d.ID)
		}
		return p, nil
	}, route: computeRoute(func(r *run) string { return idOf(r.work.Old) }), apply: func(r *run, output json.RawMessage) error {
		out, err := decode[job.Captured](output)
		r.work.Point = refOf(out.Point)
		return err
	}})
	closing := fence("planned failover")
	fenced := closing.apply
	closing.apply = func(r *run, output json.RawMessage) error {
		if err := fenced(r, output); err != nil {
			return err
		}
		if r.item.LastPoint != r.work.Point { // an agent that should be off has shipped since
			return r.note("LateWriter", dr.SeverityWarning, fmt.Sprintf("recovery point %d/%d came after the final capture %d/%d of %s; the final capture is used",
				r.item.LastPoint.Generation, r.item.LastPoint.Sequence, r.work.Point.Generation, r.work.Point.Sequence, r.item.FriendlyName))
		}
		return nil
	}
	register(plan, job.StepFence, closing)
	register(plan, job.StepStopHome, step{payload: func(r *run) (any, error) { return r.home(), nil }, route: homeRoute})
	register(plan, job.StepWriteback, step{payload: func(r *run) (any, error) {
		return job.HomeWriteback{HomeMachine: r.home(), Point: ref(r.work.Point)}, nil
	}, route: homeRoute, apply: func(r *run, output json.RawMessage) error {
		out, err := decode[job.WrittenBack](output)
		if err != nil {
			return err
		}
		return r.note("WrittenBack", dr.SeverityInfo, fmt.Sprintf("%d bytes of %s were compared, %d bytes differed and were written home", out.ComparedBytes, r.item.FriendlyName, out.WrittenBytes))
	}})
	register(plan, job.StepStartHome, step{payload: func(r *run) (any, error) {
		h := r.home()
		h.Probe = job.Probe{Timeout: r.opt.ProbeTimeout}
		return h, nil
	}, route: homeRoute, apply: homeUp})

	plan = job.PlanCancelFailover
	register(plan, job.StepPreflight, step{control: func(r *run) (outcome, error) {
		if r.job.UndoOf == "" {
			r.work.Old = r.item.FailoverInstance
			r.work.Tried[job.StepStartHome], r.work.Tried[job.StepStopSource] = true, true
		}
		return done, nil
	}})
	register(plan, job.StepStopHome, step{payload: func(r *run) (any, error) {
		if !r.work.tried(homeStarted) && r.job.UndoOf != "" {
			return nil, nil
		}
		h := r.home()
		h.Force = true
		return h, nil
	}, route: homeRoute})
	register(plan, job.StepFence, fenceIfTried("cancelled failover"))
	register(plan, job.StepOpenGeneration, reopen())
	register(plan, job.StepStartReplica, step{payload: func(r *run) (any, error) {
		if r.work.Old == nil || !r.work.tried(job.StepStopSource) {
			return nil, nil
		}
		// It exists, so that its own disks count and not the point.
		return r.startPayload(r.work.Old, job.NetworkProduction), nil
	}, route: computeRoute(func(r *run) string { return idOf(r.work.Old) })})
	register(plan, job.StepResume, step{control: func(r *run) (outcome, error) {
		r.item.HomeInstance, r.item.FailoverPoint = nil, dr.PointRef{}
		r.item.PlannedFailoverStatus = "Cancelled"
		if r.job.UndoOf != "" {
			r.item.PlannedFailoverStatus = "Failed"
		}
		return r.resumeSource(idUUID(r.work.Old))
	}})
}

// homeStarted is the step of the planned failover that starts the home machine; the undo asks whether it was tried.
const homeStarted = job.StepStartHome

func idUUID(i *dr.Instance) string {
	if i == nil {
		return ""
	}
	return i.UUID
}

// home names the production machine for a master target.
func (r *run) home() job.HomeMachine {
	return job.HomeMachine{Machine: r.machine(), UUID: r.item.HomeUUID, Datastore: r.item.Datastore, Timeout: r.opt.StopTimeout}
}

// failbackPreflight checks that there is a way home before anything is stopped.
func failbackPreflight(r *run) (outcome, error) {
	if r.item.FailoverInstance == nil {
		return failed(dr.CodeConflict, fmt.Sprintf("%s has no replica at the recovery site", r.item.FriendlyName), "it was destroyed outside", "purge the item and protect the machine anew"), nil
	}
	rep, _, err := r.homeMachine()
	if err != nil {
		return done, err
	}
	if rep == nil {
		return failed(dr.CodeConflict, fmt.Sprintf("no master target reaches the home machine of %s (SMBIOS UUID %s, datastore %s)", r.item.FriendlyName, r.item.HomeUUID, r.item.Datastore),
			"the master target is down, or the machine's definition was removed", "start the master target, check the datastore, then try again"), nil
	}
	r.work.Old, r.work.Active = r.item.FailoverInstance, r.item.ActiveUUID
	r.item.PlannedFailoverStarted, r.item.PlannedFailoverStatus = r.now, "Unknown"
	r.item.SourceMustStop = false // it is about to be started
	r.change()
	return done, nil
}

// lastDelta lets the running machine send what it has, so that little is left once it stands still.
func lastDelta(r *run) (outcome, error) {
	o, err := control.LoadObserved(r.tx, r.item.ID)
	if err != nil {
		return done, err
	}
	if r.work.CaptureID == "" {
		if r.now.Sub(o.LastHeartbeat) > dr.HeartbeatLimit {
			return skipped, nil // the stopped disks give everything
		}
		r.askCapture()
		return waiting, nil
	}
	if r.captured(o) {
		return done, nil
	}
	if r.waited() > r.opt.CaptureWait {
		return skipped, nil
	}
	return waiting, nil
}

func homeUp(r *run, output json.RawMessage) error {
	out, err := decode[job.InstanceStarted](output)
	if err != nil {
		return err
	}
	r.item.HomeInstance = &dr.Instance{ID: r.item.HomeUUID, UUID: r.item.HomeUUID, Generation: r.work.Point.Generation, Sequence: r.work.Point.Sequence, Site: r.task.Site,
		Address: out.Address, Started: r.now}
	r.item.ActiveUUID, r.item.FailoverPoint, r.item.PlannedFailoverStatus = r.item.HomeUUID, r.work.Point, "Succeeded"
	r.change()
	return r.note("HomeStarted", dr.SeverityInfo, fmt.Sprintf("%s runs at home again, %s after the request", r.item.FriendlyName, r.now.Sub(r.job.Started).Round(time.Millisecond)))
}
