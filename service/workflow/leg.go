package workflow

import (
	"encoding/json"
	"fmt"

	"github.com/lifeboat-dr/lifeboat/service/control"
	"github.com/lifeboat-dr/lifeboat/service/dr"
	"github.com/lifeboat-dr/lifeboat/service/job"
)

// Legs whose data plane is a driver of its own: the driver does the operation, the item learns what came of it.
func init() {
	for _, op := range dr.Operations {
		plan := job.LegPlan(string(op))
		if job.PlanByName(plan) == nil {
			continue // done without the driver
		}
		if op != dr.OpPurge {
			register(plan, job.StepPreflight, step{control: legChecks})
		}
		register(plan, job.StepLeg, step{payload: legPayload, route: legRoute, apply: legDone})
		switch op {
		case dr.OpRemove:
			register(plan, job.StepFinish, step{control: func(r *run) (outcome, error) { return done, r.forget() }})
		case dr.OpPurge:
			register(plan, job.StepFinish, step{control: purge})
		}
	}
}

// legRoute goes to the driver of the provider.
func legRoute(r *run) (string, string, error) {
	return r.siteOf(job.At(job.CapabilityLeg, string(dr.Project(r.item.State).Provider)))
}

// legChecks settles the point and the generation that the operation is about.
func legChecks(r *run) (outcome, error) {
	r.work.Generation, r.work.Old = max(1, r.item.Generation), r.item.FailoverInstance
	switch dr.Operation(r.job.Operation) {
	case dr.OpTestFailover, dr.OpUnplannedFailover, dr.OpPlannedFailover:
		point, refusal, err := r.pointNow()
		if err != nil || refusal != nil {
			return outcome{err: refusal}, err
		}
		r.work.Point, r.work.Instance = point, newInstance(point)
		return done, r.chooseNetwork()
	case dr.OpApplyRecoveryPoint:
		r.work.Point, r.work.Instance = r.req.Point, newInstance(r.req.Point)
		return done, r.chooseNetwork()
	case dr.OpReprotect:
		if r.item.FailoverPoint.IsZero() {
			return failed(dr.CodeConflict, fmt.Sprintf("%s was not failed over from a point", r.item.FriendlyName), "an earlier job was interrupted", "fail over again"), nil
		}
		r.work.Point, r.work.Generation = r.item.FailoverPoint, r.item.Generation+1
	}
	return done, nil
}

// chooseNetwork settles where the machine that is to be started is attached.
func (r *run) chooseNetwork() error {
	if r.req.NoNetwork {
		return nil
	}
	network, by, err := control.RecoveryNetwork(r.tx, r.item, dr.Operation(r.job.Operation), r.req.Network)
	r.work.Network = network
	if err != nil || by == "" {
		return err
	}
	return r.note("NetworkMapped", dr.SeverityInfo, fmt.Sprintf("%s is attached to network %s, as network mapping %s has it", r.item.FriendlyName, network, by))
}

func legPayload(r *run) (any, error) {
	p := job.LegOperation{Machine: r.machine(), Leg: string(r.item.State.Leg), Operation: r.job.Operation, FriendlyName: r.item.FriendlyName, Generation: r.work.Generation,
		Shutdown: r.req.Shutdown, Network: r.work.Network}
	for _, d := range r.req.Disks {
		p.Disks = append(p.Disks, d.ID)
	}
	if !r.work.Point.IsZero() {
		point := ref(r.work.Point)
		p.Point = &point
	}
	switch op := dr.Operation(r.job.Operation); op {
	case dr.OpEnable, dr.OpAddDisks, dr.OpReprotect:
		var err error
		p.Storage, err = control.ReplicaStorage(r.tx, r.item, op)
		return p, err
	}
	return p, nil
}

// legDone takes the driver's answer.
func legDone(r *run, output json.RawMessage) error {
	out, err := decode[job.LegDone](output)
	if err != nil {
		return err
	}
	if r.gone {
		return nil
	}
	if i := r.work.Instance; i != nil {
		i.Started, i.Address = r.now, out.Address
		if out.Instance != "" {
			i.ID = out.Instance
		}
	}
	home := dr.Project(r.item.State).Direction == dr.RecoveryToPrimary
	switch dr.Operation(r.job.Operation) {
	case dr.OpEnable:
		r.item.Disks = disksOf(out)
		r.openAs(r.work.Generation, dr.PointRef{})
	case dr.OpAddDisks, dr.OpRemoveDisks:
		r.item.Disks = disksOf(out)
	case dr.OpTestFailover:
		r.item.TestInstance = r.work.Instance
	case dr.OpTestCleanup:
		r.item.TestInstance = nil
	case dr.OpPlannedFailover, dr.OpUnplannedFailover, dr.OpApplyRecoveryPoint:
		r.item.FailoverPoint, r.item.FailoverInstance = r.work.Point, r.work.Instance
	case dr.OpCancelFailover:
		r.item.FailoverPoint, r.item.FailoverInstance = dr.PointRef{}, nil
	case dr.OpCommit:
		if home {
			r.item.FailoverInstance = nil
		}
	case dr.OpRepair:
		r.item.State.Resync = false
	case dr.OpReprotect:
		r.openAs(r.work.Generation, r.work.Point)
		r.item.InternalID = newID()
		if r.req.Policy != "" {
			r.item.PolicyName = r.req.Policy
		}
	}
	r.change()
	return nil
}

func disksOf(out job.LegDone) (disks []dr.Disk) {
	for _, d := range out.Disks {
		disks = append(disks, dr.Disk{ID: d.ID, SizeBytes: d.SizeBytes, IsOSDisk: d.IsOSDisk})
	}
	return disks
}
