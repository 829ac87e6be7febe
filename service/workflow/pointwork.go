package workflow

import (
	"fmt"
	"time"

	"github.com/lifeboat-dr/lifeboat/service/control"
	"github.com/lifeboat-dr/lifeboat/service/dr"
	"github.com/lifeboat-dr/lifeboat/service/job"
)

func init() {
	register(job.PlanCapture, job.StepCaptureNow, step{control: captureNow})
	for _, plan := range []string{job.PlanVerifyPoint, job.PlanExportPoint} {
		register(plan, job.StepPin, step{payload: holdPoint})
	}
	register(job.PlanReleasePoint, job.StepUnpin, step{payload: func(r *run) (any, error) { return r.pin(), nil }})
	register(job.PlanVerifyPoint, job.StepVerify, step{payload: func(r *run) (any, error) {
		return job.PointVerify{Machine: r.machine(), Point: ref(r.req.Point)}, nil
	}})
	register(job.PlanVerifyPoint, job.StepVerdict, step{control: verdict})
	register(job.PlanExportPoint, job.StepExport, step{payload: func(r *run) (any, error) {
		return job.PointExport{Machine: r.machine(), Point: ref(r.req.Point), Format: r.req.Format, Directory: r.req.Directory}, nil
	}})
}

// holdPoint keeps the point while it is read, so that no prune drops it meanwhile. The owner is new each time the job runs: the
// release of the run before may still be under way.
func holdPoint(r *run) (any, error) {
	if r.work.Pin == "" {
		r.work.Pin = newID()
	}
	return r.pin(), nil
}

func (r *run) pin() job.PointPin {
	return job.PointPin{Machine: r.machine(), Point: ref(r.req.Point), Owner: r.work.Pin}
}

// askCapture asks the agent for a capture. Whoever asked before is answered by it, too.
func (r *run) askCapture() {
	r.work.CaptureID = newID()
	r.item.CaptureID = r.work.CaptureID
	r.change()
}

// captured tells whether the capture that was asked for is durable. The agent answers only the last request it sees; a capture
// that was asked for later holds all that ours would.
func (r *run) captured(o dr.Observed) bool {
	return o.LastCaptureID != "" && (o.LastCaptureID == r.work.CaptureID || o.LastCaptureID == r.item.CaptureID)
}

// captureNow asks the agent for a capture and waits until its point is in the index.
func captureNow(r *run) (outcome, error) {
	if !dr.Replicates(r.item.State.Phase) || r.item.Fenced {
		return failed(dr.CodeConflict, fmt.Sprintf("%s stopped replicating before the point was taken", r.item.FriendlyName), "it was failed over, or its protection ended", "look at the item's jobs"), nil
	}
	o, err := control.LoadObserved(r.tx, r.item.ID)
	if err != nil {
		return done, err
	}
	if r.work.CaptureID == "" {
		newest, err := control.NewestPoint(r.tx, r.item.ID, nil)
		if err != nil {
			return done, err
		}
		if newest != nil {
			r.work.Point = newest.Ref()
		}
		r.askCapture()
		return waiting, nil
	}
	if r.captured(o) {
		newest, err := control.NewestPoint(r.tx, r.item.ID, nil)
		if err != nil {
			return done, err
		}
		if newest != nil && newest.Ref() != r.work.Point {
			return done, nil
		}
	}
	if r.waited() > r.opt.CaptureWait {
		return failed(dr.CodeUnavailable, fmt.Sprintf("the agent of %s made no recovery point within %s", r.item.FriendlyName, r.waited().Round(time.Second)),
			"the machine is down, its agent cannot reach its process server, or the capture was refused", "look at the item's health errors and at the agent's log, then ask again"), nil
	}
	return waiting, nil
}

// verdict fails the job when the worker found bytes that are not what was written.
func verdict(r *run) (outcome, error) {
	var out job.PointVerified
	for _, t := range r.job.Tasks {
		if t.ID == job.StepVerify {
			var err error
			if out, err = decode[job.PointVerified](t.Output); err != nil {
				return done, err
			}
		}
	}
	if out.BadDisk == "" {
		return done, nil
	}
	message := fmt.Sprintf("the recovery point is corrupt at bytes %d to %d of disk %s", out.BadStart, out.BadStart+out.BadBytes, out.BadDisk)
	if err := r.note("PointCorrupt", dr.SeverityCritical, message); err != nil {
		return done, err
	}
	return failed(dr.CodeCorrupt, message, "the bucket returned bytes other than those that were stored", "use the recovery point before it, and keep the bucket as it is for examination"), nil
}
