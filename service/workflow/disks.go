package workflow

import (
	"fmt"
	"slices"
	"strings"

	"github.com/lifeboat-dr/lifeboat/service/dr"
	"github.com/lifeboat-dr/lifeboat/service/job"
)

func init() {
	register(job.PlanAddDisks, job.StepConfigure, step{control: addDisks})
	register(job.PlanRemoveDisks, job.StepConfigure, step{control: removeDisks})
}

// addDisks desires that the agent replicates more disks. Their first copy is the agent's business; a point that has them tells when
// it is done.
func addDisks(r *run) (outcome, error) {
	for _, d := range r.req.Disks {
		if !slices.ContainsFunc(r.item.Disks, func(k dr.Disk) bool { return k.ID == d.ID }) {
			d.Seeding = true
			r.item.Disks = append(r.item.Disks, d)
		}
	}
	r.change()
	return done, r.note("DisksAdded", dr.SeverityInfo, fmt.Sprintf("%s of %s are replicated from now on; the next recovery point has them", named(r.req.Disks), r.item.FriendlyName))
}

// removeDisks desires that the agent replicates fewer disks. Points that have them keep them.
func removeDisks(r *run) (outcome, error) {
	r.item.Disks = slices.DeleteFunc(r.item.Disks, func(k dr.Disk) bool {
		return slices.ContainsFunc(r.req.Disks, func(d dr.Disk) bool { return k.ID == d.ID })
	})
	r.change()
	return done, r.note("DisksRemoved", dr.SeverityWarning, fmt.Sprintf("%s of %s are no longer replicated; older recovery points keep them", named(r.req.Disks), r.item.FriendlyName))
}

func named(disks []dr.Disk) string {
	names := make([]string, len(disks))
	for i, d := range disks {
		names[i] = d.ID
	}
	return "Disks " + strings.Join(names, ", ")
}

// keepDisks leaves out the protected disks that a machine started from a point does not have, because they were added later. A disk
// that it has and that was given up since stays without protection.
func (r *run) keepDisks(i *dr.Instance) error {
	if i == nil || len(i.Disks) == 0 {
		return nil
	}
	var kept, lost []dr.Disk
	for _, d := range r.item.Disks {
		if slices.Contains(i.Disks, d.ID) {
			kept = append(kept, d)
		} else {
			lost = append(lost, d)
		}
	}
	r.item.Disks = kept
	if len(lost) == 0 {
		return nil
	}
	return r.note("DisksLeftBehind", dr.SeverityWarning, fmt.Sprintf("%s are not replicated any more: the recovery point that %s was started from does not have them", named(lost), r.item.FriendlyName))
}
