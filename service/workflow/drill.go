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
	register(job.PlanTestFailover, "TestFailoverPreflightChecksTask", step{control: drillPreflight})
	register(job.PlanTestFailover, "BeginTestFailoverTask", step{payload: pinPayload})
	register(job.PlanTestFailover, job.StepPrepareTest, step{control: func(r *run) (outcome, error) {
		r.item.TestInstance = r.work.Instance
		r.item.TestInstance.Pinned = true
		r.change()
		return done, nil
	}})
	register(job.PlanTestFailover, job.StepBootTest, step{payload: drillBoot, route: computeRoute(startedID), apply: func(r *run, output json.RawMessage) error {
		return r.instanceUp(r.item.TestInstance, output)
	}})

	end := step{payload: destroyPayload(func(r *run) *dr.Instance { return r.item.TestInstance }), route: computeRoute(func(r *run) string { return idOf(r.item.TestInstance) })}
	register(job.PlanTestCleanup, "TestFailoverCleanupPreflightChecksTask", step{control: func(r *run) (outcome, error) {
		r.work.Old = r.item.TestInstance
		return done, nil
	}})
	register(job.PlanTestCleanup, job.StepEndTest, end)
	register(job.PlanTestCleanup, job.StepCleanupTest, step{payload: unpinPayload(func(r *run) *dr.Instance { return r.work.Old }), apply: forgetTest})

	// The undo of a drill that did not start knows its instance from the job it undoes.
	register(job.PlanUndoTestFailover, job.StepEndTest, step{payload: func(r *run) (any, error) {
		if r.work.Instance == nil || !r.work.tried(job.StepBootTest) {
			return nil, nil
		}
		return job.InstanceDestroy{Machine: r.machine(), InstanceID: r.work.Instance.ID}, nil
	}, route: computeRoute(startedID)})
	register(job.PlanUndoTestFailover, job.StepCleanupTest, step{payload: func(r *run) (any, error) {
		if r.work.Instance == nil || !r.work.tried("BeginTestFailoverTask") {
			return nil, nil
		}
		return unpin(r, r.work.Instance), nil
	}, apply: forgetTest})
}

func startedID(r *run) string { return idOf(r.work.Instance) }

func idOf(i *dr.Instance) string {
	if i == nil {
		return ""
	}
	return i.ID
}

func forgetTest(r *run, _ json.RawMessage) error {
	r.item.TestInstance = nil
	r.change()
	return nil
}

// drillPreflight chooses the point and names the machine to be.
func drillPreflight(r *run) (outcome, error) {
	point, refusal, err := r.pointNow()
	if err != nil || refusal != nil {
		return outcome{err: refusal}, err
	}
	r.work.Point = point
	r.work.Instance = newInstance(point)
	return done, nil
}

// newInstance names a machine to be started from a point. Its SMBIOS UUID is its own, so that the agent in it can tell which
// side it is on.
func newInstance(p dr.PointRef) *dr.Instance {
	return &dr.Instance{ID: newID(), UUID: newID(), Generation: p.Generation, Sequence: p.Sequence, Site: dr.SiteRecovery}
}

func pointOf(i *dr.Instance) dr.PointRef {
	return dr.PointRef{Generation: i.Generation, Sequence: i.Sequence}
}

// pointNow is the request's point, or the newest there is.
func (r *run) pointNow() (dr.PointRef, *dr.Error, error) {
	if !r.req.Point.IsZero() {
		return r.req.Point, nil, nil
	}
	newest, err := control.NewestPoint(r.tx, r.item.ID, nil)
	if err != nil {
		return dr.PointRef{}, nil, err
	}
	if newest == nil {
		return dr.PointRef{}, &dr.Error{Code: dr.CodeConflict, Message: fmt.Sprintf("%s has no recovery point", r.item.FriendlyName), PossibleCauses: "all points were pruned", RecommendedAction: "wait for the next recovery point"}, nil
	}
	return newest.Ref(), nil, nil
}

func pinPayload(r *run) (any, error) {
	return job.PointPin{Machine: r.machine(), Point: ref(pointOf(r.work.Instance)), Owner: r.work.Instance.ID}, nil
}

func unpin(r *run, i *dr.Instance) any {
	return job.PointPin{Machine: r.machine(), Point: ref(pointOf(i)), Owner: i.ID}
}

// unpinPayload releases the point that an instance holds.
func unpinPayload(of func(r *run) *dr.Instance) func(r *run) (any, error) {
	return func(r *run) (any, error) {
		i := of(r)
		if i == nil || !i.Pinned {
			return nil, nil
		}
		return unpin(r, i), nil
	}
}

func destroyPayload(of func(r *run) *dr.Instance) func(r *run) (any, error) {
	return func(r *run) (any, error) {
		i := of(r)
		if i == nil {
			return nil, nil
		}
		return job.InstanceDestroy{Machine: r.machine(), InstanceID: i.ID}, nil
	}
}

func drillBoot(r *run) (any, error) {
	p := r.startPayload(r.work.Instance, job.NetworkIsolated)
	p.Hardware.Name += "-test"
	return p, nil
}

// startPayload starts the instance with the item's hardware.
func (r *run) startPayload(i *dr.Instance, n job.Network) job.InstanceStart {
	if r.req.NoNetwork {
		n = job.NetworkNone
	}
	hw := r.item.TargetHardware()
	h := job.Hardware{Name: r.item.TargetName, UUID: i.UUID, CPUs: max(1, hw.CPUs), MemoryBytes: hw.MemoryBytes, Firmware: hw.Firmware, MACs: hw.MACs, Network: n}
	if h.Firmware == "" {
		h.Firmware = "bios"
	}
	for _, d := range r.item.Disks {
		h.Disks = append(h.Disks, d.ID)
		if d.IsOSDisk && h.OSDisk == "" {
			h.OSDisk = d.ID
		}
	}
	return job.InstanceStart{Machine: r.machine(), InstanceID: i.ID, Point: ref(pointOf(i)), Hardware: h, Hydrate: n == job.NetworkProduction,
		Probe: job.Probe{Timeout: r.opt.ProbeTimeout}, Deadline: r.opt.ProbeTimeout + 5*time.Minute}
}

// instanceUp records that an instance runs.
func (r *run) instanceUp(i *dr.Instance, output json.RawMessage) error {
	out, err := decode[job.InstanceStarted](output)
	if err != nil {
		return err
	}
	if i.Started.IsZero() {
		i.Started = r.now
	}
	i.Address, i.Site, i.Disks = out.Address, r.task.Site, out.Disks
	r.change()
	took := r.now.Sub(r.job.Started).Round(time.Millisecond)
	return r.note("InstanceStarted", dr.SeverityInfo, fmt.Sprintf("%s runs from recovery point %d/%d (%s): started in %s, up after another %s, %s after the request",
		r.item.FriendlyName, i.Generation, i.Sequence, out.Accelerator, out.StartTook.Round(time.Millisecond), out.ProbeTook.Round(time.Millisecond), took))
}
