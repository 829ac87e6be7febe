package workflow

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/lifeboat-dr/lifeboat/service/control"
	"github.com/lifeboat-dr/lifeboat/service/dr"
	"github.com/lifeboat-dr/lifeboat/service/job"
)

// The planned failover of a machine that an agent on its hypervisor replicates: the agent shuts the guest down, takes the last capture
// from the stopped disks, and nothing is lost. Where the guest does not shut down it fails, and the source stays active.
func init() {
	plan := job.PlanPlannedFromHost
	register(plan, "PlannedFailoverPreflightChecksTask", step{control: hostPreflight})
	register(plan, job.StepStopSource, step{control: stopAtHost})
	register(plan, job.StepFence, fence("planned failover"))
	register(plan, job.StepChoosePoint, step{control: failoverChoose})
	register(plan, job.StepPin, holdFailoverPoint())
	register(plan, job.StepStartReplica, step{payload: startReplica, route: computeRoute(startedID), apply: func(r *run, output json.RawMessage) error {
		r.item.PlannedFailoverStatus = "Succeeded"
		return replicaUp(r, output)
	}})
}

// hosted tells whether an agent on the machine's hypervisor replicates it.
func (r *run) hosted() (bool, error) {
	if r.item.AgentID == "" {
		return false, nil
	}
	a, err := control.LoadAgent(r.tx, r.item.AgentID)
	if dr.CodeOf(err) == dr.CodeNotFound {
		return false, nil
	}
	return a.Machine.Hypervisor, err
}

// hostPreflight checks that somebody can shut the machine down before anything is stopped.
func hostPreflight(r *run) (outcome, error) {
	hosted, err := r.hosted()
	if err != nil {
		return done, err
	}
	o, err := control.LoadObserved(r.tx, r.item.ID)
	if err != nil {
		return done, err
	}
	if !hosted || r.now.Sub(o.LastHeartbeat) > dr.HeartbeatLimit {
		return failed(dr.CodeConflict, fmt.Sprintf("the agent on the host of %s was last heard of at %s", r.item.FriendlyName, o.LastHeartbeat.Format(time.DateTime)),
			"the host or its agent is down, or its way to the server is cut", "start the agent, or fail over unplanned"), nil
	}
	r.work.Active = r.item.ActiveUUID
	r.item.PlannedFailoverStarted, r.item.PlannedFailoverStatus = r.now, "Unknown"
	r.item.SourceShutdownNote = "The source virtual machine was not shut down."
	r.change()
	return done, nil
}

// stopAtHost asks for the shutdown and the capture after it, and waits for its point.
func stopAtHost(r *run) (outcome, error) {
	if r.work.CaptureID == "" {
		r.item.StopSource = true
		r.askCapture()
		return waiting, nil
	}
	o, err := control.LoadObserved(r.tx, r.item.ID)
	if err != nil {
		return done, err
	}
	if r.captured(o) {
		r.item.SourceShutdownNote = "The source virtual machine was shut down, and its disks were captured after that."
		r.change()
		return done, nil
	}
	limit := r.opt.StopTimeout + r.opt.CaptureWait
	if r.waited() <= limit {
		return waiting, nil
	}
	r.startAgain()
	r.item.PlannedFailoverStatus = "Failed"
	why, remedy := "its guest ignores the power button, or the disks are too large for the time there is", "shut the guest down from inside and try again, or fail over unplanned"
	if o.Fault != nil {
		why, remedy = o.Fault.Message, o.Fault.RecommendedAction
	}
	return failed(dr.CodeUnavailable, fmt.Sprintf("%s was not shut down and captured within %s", r.item.FriendlyName, limit), why, remedy), nil
}

// startAgain withdraws a shutdown. The capture that is asked for makes the agent look at once.
func (r *run) startAgain() {
	if r.item.StopSource {
		r.item.StopSource, r.item.CaptureID = false, newID()
		r.change()
	}
}
