package workflow

import (
	"strings"

	"github.com/lifeboat-dr/lifeboat/service/control"
	"github.com/lifeboat-dr/lifeboat/service/dr"
	"github.com/lifeboat-dr/lifeboat/service/job"
)

func init() {
	testInstance := func(r *run) *dr.Instance { return r.item.TestInstance }
	endTest := step{payload: destroyPayload(testInstance), route: computeRoute(func(r *run) string { return idOf(r.item.TestInstance) })}

	register(job.PlanRemove, job.StepPreflight, step{control: func(r *run) (outcome, error) {
		r.work.Old = r.item.FailoverInstance
		// Data is deleted only when nobody reads or holds it for another job.
		running, err := control.SupersedeJobs(r.tx, r.item, r.job, r.now)
		if running > 0 {
			return waiting, err
		}
		return done, err
	}})
	register(job.PlanRemove, job.StepFence, fence("protection disabled"))
	register(job.PlanRemove, job.StepEndTest, endTest)
	destroyLeft := destroyOld()
	destroyLeft.payload = destroyPayload((*run).leftBehind)
	register(job.PlanRemove, job.StepDestroyReplica, destroyLeft)
	register(job.PlanRemove, job.StepWaitHydrated, step{control: waitHydrated})
	register(job.PlanRemove, job.StepDeleteData, step{payload: deleteData})
	register(job.PlanRemove, job.StepFinish, step{control: func(r *run) (outcome, error) {
		return done, r.forget()
	}})

	register(job.PlanPurge, job.StepFinish, step{control: purge})
	register(job.PlanPurge, job.StepFence, fence("purged"))
	register(job.PlanPurge, job.StepEndTest, endTest)
	register(job.PlanPurge, job.StepDestroyReplica, destroyOld())
	register(job.PlanPurge, job.StepDeleteData, step{payload: func(r *run) (any, error) {
		hydrated, err := r.hydrated(r.item.FailoverInstance)
		if err != nil || !hydrated {
			return nil, err // a running machine still reads its disks from there
		}
		return deleteData(r)
	}})

	register(job.PlanPrune, job.StepPrune, step{payload: func(r *run) (any, error) {
		p, err := control.LoadPolicy(r.tx, r.item.Vault, r.item.PolicyName)
		if err != nil || p.Retention <= 0 {
			return nil, err
		}
		return job.Prune{Machine: r.machine(), Retention: p.Retention, Now: r.now}, nil
	}})
	for _, plan := range []string{job.PlanPrune, job.PlanCheckConsistency} {
		register(plan, job.StepReport, step{payload: func(r *run) (any, error) { return job.RepositoryReport{Machine: r.machine()}, nil }})
	}
}

func deleteData(r *run) (any, error) {
	if r.item.Generation == 0 {
		return nil, nil
	}
	return job.MachineDelete{Machine: r.machine()}, nil
}

// forget removes the item from the store. The job goes on with the item as it was.
func (r *run) forget() error {
	r.work.Item = r.item
	if err := control.Settle(r.tx, r.job, r.item, r.now); err != nil {
		return err
	}
	if _, err := control.SupersedeJobs(r.tx, r.item, r.job, r.now); err != nil {
		return err
	}
	r.dirtyItem = false
	return control.DeleteItem(r.tx, r.item, r.now)
}

// leftBehind is the replica of a machine that runs at home again; nil when there is none. It was stopped for good, and the job
// that would have destroyed it goes with the item.
func (r *run) leftBehind() *dr.Instance {
	if s := r.item.State; s.Leg == dr.LegInMageRcmFailback && dr.FailedOver(s.Phase) {
		return r.item.FailoverInstance
	}
	return nil
}

// purge removes the item at once; what is left in the bucket and on hosts is cleaned up behind, as far as they can be reached.
func purge(r *run) (outcome, error) {
	r.work.Old = r.leftBehind()
	if i := r.item.FailoverInstance; i != nil && i.Started.IsZero() {
		r.item.TestInstance = i // it was being started when the purge came: it goes too
		r.item.FailoverInstance = nil
	}
	if hydrated, err := r.hydrated(r.item.FailoverInstance); err != nil {
		return done, err
	} else if !hydrated && r.work.Old == nil {
		if err := r.note("PurgeKeptData", dr.SeverityWarning, "The recovery points of "+r.item.FriendlyName+" stay in the bucket: its replica still reads its disks from them"); err != nil {
			return done, err
		}
	}
	return done, r.forget()
}

// hydrated tells whether an instance can do without the repository. No instance can.
func (r *run) hydrated(i *dr.Instance) (bool, error) {
	if i == nil || !i.Pinned {
		return true, nil
	}
	reps, err := control.LoadReplicators(r.tx)
	if err != nil {
		return false, err
	}
	for _, rep := range reps {
		for _, at := range rep.Instances {
			if at.ID == i.ID && at.HydratedPercent >= 100 {
				return true, nil
			}
		}
	}
	return false, nil
}

func sameUUID(a, b string) bool { return a != "" && strings.EqualFold(a, b) }
