package workflow

import (
	"strings"
	"time"

	"github.com/lifeboat-dr/lifeboat/service/control"
	"github.com/lifeboat-dr/lifeboat/service/dr"
	"github.com/lifeboat-dr/lifeboat/service/job"
)

// repositoryRoute goes to whoever reaches the vault's bucket.
func repositoryRoute(r *run) (string, string, error) { return r.siteOf(job.CapabilityRepository) }

// computeRoute goes to the replicator that holds the instance. Who is to start one is chosen once and saved with the instance:
// a task that is leased or put out again after a crash must reach the same host, because the machine may run there by then. A
// silent owner is waited for: another one would start the machine a second time, or find nothing to stop and call that success.
func computeRoute(id func(r *run) string) func(r *run) (string, string, error) {
	return func(r *run) (string, string, error) {
		reps, err := control.LoadReplicators(r.tx)
		if err != nil {
			return "", "", err
		}
		instance := id(r)
		owner := hostOf(reps, instance)
		for _, i := range r.copies(instance) {
			if owner == "" {
				owner = i.Replicator
			}
		}
		if owner == "" {
			owner = r.chooseHost(reps)
		}
		for _, rep := range reps {
			own := job.At(job.CapabilityCompute, rep.ID)
			if rep.ID != owner || !rep.Serves(own) {
				continue
			}
			for _, i := range r.copies(instance) {
				if i.Replicator != owner {
					i.Replicator = owner
					r.change()
				}
			}
			return rep.Site, own, nil
		}
		return r.siteOf(job.CapabilityCompute)
	}
}

// hostOf returns the replicator that says it has the instance.
func hostOf(reps []dr.Replicator, instance string) string {
	for _, rep := range reps {
		for _, i := range rep.Instances {
			if i.ID == instance && i.State != "missing" {
				return rep.ID
			}
		}
	}
	return ""
}

// copies are the records that the item and the job keep of an instance.
func (r *run) copies(id string) (out []*dr.Instance) {
	list := []*dr.Instance{r.work.Instance, r.work.Old}
	if r.item != nil {
		list = append(list, r.item.TestInstance, r.item.FailoverInstance, r.item.HomeInstance)
	}
	for _, i := range list {
		if i != nil && i.ID == id {
			out = append(out, i)
		}
	}
	return out
}

// heardLately is how long ago a replicator that works was heard of at most; it syncs every few seconds.
const heardLately = 30 * time.Second

// chooseHost picks who starts a machine: one that was heard of lately before all others, then one at the recovery site, then
// the one heard of last.
func (r *run) chooseHost(reps []dr.Replicator) string {
	var best *dr.Replicator
	better := func(a, b *dr.Replicator) bool {
		lateA, lateB := r.now.Sub(a.LastHeartbeat) > heardLately, r.now.Sub(b.LastHeartbeat) > heardLately
		awayA, awayB := a.Site != dr.SiteRecovery, b.Site != dr.SiteRecovery
		switch {
		case lateA != lateB:
			return lateB
		case awayA != awayB:
			return awayB
		}
		return a.LastHeartbeat.After(b.LastHeartbeat)
	}
	for i := range reps {
		rep := &reps[i]
		if rep.Serves(job.At(job.CapabilityCompute, rep.ID)) && (best == nil || better(rep, best)) {
			best = rep
		}
	}
	if best == nil {
		return ""
	}
	return best.ID
}

// homeRoute goes to the master target that the reprotect chose, or to one that sees the home machine.
func homeRoute(r *run) (string, string, error) {
	rep, _, err := r.homeMachine()
	if err != nil {
		return "", "", err
	}
	if rep == nil {
		return dr.SiteHome, job.CapabilityWriteback, nil
	}
	if own := job.At(job.CapabilityWriteback, rep.ID); rep.Serves(own) {
		return rep.Site, own, nil
	}
	return rep.Site, job.CapabilityWriteback, nil
}

// siteOf chooses a site for the capability: the recovery site when someone there serves it, else wherever someone does.
func (r *run) siteOf(capability string) (string, string, error) {
	reps, err := control.LoadReplicators(r.tx)
	if err != nil {
		return "", "", err
	}
	best, rank := dr.SiteRecovery, 0
	for _, rep := range reps {
		if !rep.Serves(capability) {
			continue
		}
		n := 1
		if r.alive(rep) {
			n += 2
		}
		if rep.Site == dr.SiteRecovery {
			n++
		}
		if n > rank {
			best, rank = rep.Site, n
		}
	}
	return best, capability, nil
}

func (r *run) alive(rep dr.Replicator) bool { return r.now.Sub(rep.LastHeartbeat) <= dr.HeartbeatLimit }

// homeMachine finds the item's production machine and the master target that can write to it; nil when nobody sees it.
func (r *run) homeMachine() (*dr.Replicator, dr.VM, error) {
	reps, err := control.LoadReplicators(r.tx)
	if err != nil {
		return nil, dr.VM{}, err
	}
	var found *dr.Replicator
	var machine dr.VM
	for i := range reps {
		vm, ok := reps[i].VM(r.item.HomeUUID)
		if !ok || !reps[i].HasRole(dr.RoleMasterTarget) || !r.alive(reps[i]) {
			continue
		}
		if r.item.Datastore != "" && !strings.EqualFold(vm.Datastore, r.item.Datastore) {
			continue
		}
		if found == nil || reps[i].ID == r.item.ReprotectAgent {
			found, machine = &reps[i], vm
		}
	}
	return found, machine, nil
}
