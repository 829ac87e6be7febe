package workflow

import (
	"strings"

	"github.com/lifeboat-dr/lifeboat/service/control"
	"github.com/lifeboat-dr/lifeboat/service/dr"
	"github.com/lifeboat-dr/lifeboat/service/job"
)

// repositoryRoute goes to whoever reaches the vault's bucket.
func repositoryRoute(r *run) (string, string, error) { return r.siteOf(job.CapabilityRepository) }

// computeRoute goes to the replicator that holds the instance, when it takes tasks of its own, else to any at the site. A
// silent owner is waited for: another one would find nothing to stop and call that success.
func computeRoute(id func(r *run) string) func(r *run) (string, string, error) {
	return func(r *run) (string, string, error) {
		reps, err := control.LoadReplicators(r.tx)
		if err != nil {
			return "", "", err
		}
		instance := id(r)
		for _, rep := range reps {
			for _, i := range rep.Instances {
				if i.ID == instance && i.State != "missing" && rep.Serves(job.At(job.CapabilityCompute, rep.ID)) {
					return rep.Site, job.At(job.CapabilityCompute, rep.ID), nil
				}
			}
		}
		return r.siteOf(job.CapabilityCompute)
	}
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
