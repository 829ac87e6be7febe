package workflow

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/lifeboat-dr/lifeboat/service/control"
	"github.com/lifeboat-dr/lifeboat/service/dr"
	"github.com/lifeboat-dr/lifeboat/service/job"
)

func init() {
	register(job.PlanEnable, job.StepPreflight, step{control: enablePreflight})
	register(job.PlanEnable, job.StepOpenGeneration, openGeneration())
	register(job.PlanEnable, job.StepConfigure, step{control: enableConfigure})
	register(job.PlanRepair, job.StepPreflight, step{control: repairPreflight})
	register(job.PlanRepair, job.StepOpenGeneration, openGeneration())
	register(job.PlanRepair, job.StepResume, step{control: resume})
}

// enablePreflight checks the machine and settles which disks are protected.
func enablePreflight(r *run) (outcome, error) {
	a, err := control.LoadAgent(r.tx, r.item.AgentID)
	if dr.CodeOf(err) == dr.CodeNotFound || err == nil && a.Unregistered {
		return failed(dr.CodeConflict, fmt.Sprintf("machine %s has no agent", r.item.FriendlyName), "its agent was unregistered", "enrol the agent again"), nil
	}
	if err != nil {
		return done, err
	}
	if r.now.Sub(a.LastHeartbeat) > dr.HeartbeatLimit {
		return failed(dr.CodeConflict, fmt.Sprintf("the agent of %s was last heard of at %s", r.item.FriendlyName, a.LastHeartbeat.Format("2006-01-02 15:04:05")),
			"the machine or its agent is down, or its way to the configuration server is cut", "start the agent, then restart the job"), nil
	}
	m, err := control.SourceMachine(r.tx, r.item, a)
	if err != nil {
		return done, err
	}
	disks, refusal := chooseDisks(m.Disks, r.item.EnableInput)
	if refusal != nil {
		return outcome{err: refusal}, nil
	}
	r.item.Disks, r.item.Hardware = disks, m.Hardware()
	r.item.HomeUUID, r.item.ActiveUUID = m.ProductUUID, m.ProductUUID
	r.change()
	r.work.Generation = max(1, r.item.Generation)
	return done, nil
}

// wantedDisk is a disk that a request names: by an object with its id, or by the id alone, as machines of hypervisors are.
type wantedDisk struct{ DiskID string }

func (w *wantedDisk) UnmarshalJSON(b []byte) error {
	if json.Unmarshal(b, &w.DiskID) == nil {
		return nil
	}
	var o struct {
		DiskID string `json:"diskId"`
	}
	err := json.Unmarshal(b, &o)
	w.DiskID = o.DiskID
	return err
}

// chooseDisks settles which of the machine's disks are protected, the OS disk first. Those named in the request must be there and
// fit; without names every disk that fits is taken.
func chooseDisks(all []dr.MachineDisk, input json.RawMessage) ([]dr.Disk, *dr.Error) {
	var in struct {
		DisksToInclude []wantedDisk `json:"disksToInclude"`
		Managed        []wantedDisk `json:"disksToIncludeForManagedDisks"`
	}
	if len(input) > 0 {
		if err := json.Unmarshal(input, &in); err != nil {
			return nil, &dr.Error{Code: dr.CodeInvalid, Message: "disksToInclude is malformed", PossibleCauses: "it is not a list of objects with diskId", RecommendedAction: "send disksToInclude as a list, or leave it out", Err: err}
		}
	}
	in.DisksToInclude = append(in.DisksToInclude, in.Managed...)
	var out []dr.Disk
	for _, want := range in.DisksToInclude {
		i := slices.IndexFunc(all, func(d dr.MachineDisk) bool { return strings.EqualFold(d.ID, want.DiskID) })
		if i < 0 {
			return nil, &dr.Error{Code: dr.CodeInvalid, Message: fmt.Sprintf("the machine has no disk %q", want.DiskID), PossibleCauses: "the id is misspelled, or the disk was removed", RecommendedAction: "send ids of the protectable item's disks"}
		}
		if all[i].UnsupportedReason != "" {
			return nil, unsupported(all[i])
		}
		if slices.ContainsFunc(out, func(d dr.Disk) bool { return d.ID == all[i].ID }) {
			continue
		}
		out = append(out, dr.Disk{ID: all[i].ID, SizeBytes: all[i].SizeBytes, IsOSDisk: all[i].IsOSDisk})
	}
	if len(in.DisksToInclude) == 0 {
		for _, d := range all {
			switch {
			case d.UnsupportedReason == "":
				out = append(out, dr.Disk{ID: d.ID, SizeBytes: d.SizeBytes, IsOSDisk: d.IsOSDisk})
			case d.IsOSDisk:
				return nil, unsupported(d)
			}
		}
	}
	if len(out) == 0 {
		return nil, &dr.Error{Code: dr.CodeConflict, Message: "the machine has no disk that can be protected", PossibleCauses: "the agent sees no disks, or none is supported", RecommendedAction: "look at the protectable item's disks for the reasons"}
	}
	if !slices.ContainsFunc(out, func(d dr.Disk) bool { return d.IsOSDisk }) {
		out[0].IsOSDisk = true
	}
	slices.SortStableFunc(out, func(a, b dr.Disk) int {
		switch {
		case a.IsOSDisk == b.IsOSDisk:
			return 0
		case a.IsOSDisk:
			return -1
		}
		return 1
	})
	return out, nil
}

func unsupported(d dr.MachineDisk) *dr.Error {
	return &dr.Error{Code: dr.CodeConflict, Message: fmt.Sprintf("disk %s cannot be protected: %s", d.ID, d.UnsupportedReason), PossibleCauses: "the agent cannot read or track it",
		RecommendedAction: "leave the disk out with disksToInclude, or change it so that it can be protected"}
}

// openGeneration opens work.Generation on top of the item's last point; there is nothing to do when work.Generation is 0.
func openGeneration() step {
	return step{
		payload: func(r *run) (any, error) {
			if r.work.Generation == 0 {
				return nil, nil
			}
			p := job.GenerationOpen{Machine: r.machine(), Generation: r.work.Generation}
			if !r.work.Point.IsZero() {
				base := ref(r.work.Point)
				p.Base = &base
			}
			return p, nil
		},
		apply: func(r *run, _ json.RawMessage) error {
			if r.job.Plan == job.PlanEnable {
				r.item.Generation = r.work.Generation
				r.change()
			}
			return nil
		},
	}
}

// enableConfigure waits until the agent works on the generation.
func enableConfigure(r *run) (outcome, error) {
	if r.item.Acknowledged >= r.item.Generation {
		return done, nil
	}
	if r.waited() > r.opt.AgentTimeout {
		return failed(dr.CodeUnavailable, fmt.Sprintf("the agent of %s has not taken up replication within %s", r.item.FriendlyName, r.opt.AgentTimeout),
			"the agent is stopped, or cannot reach lifeboatd", "look at the agent's log on the machine, then restart the job"), nil
	}
	return waiting, nil
}

// repairPreflight opens the point log again if a failed failover left it closed.
func repairPreflight(r *run) (outcome, error) {
	r.work.Generation = 0
	if r.item.Fenced {
		r.work.Generation, r.work.Point = r.item.Generation+1, r.item.LastPoint
	}
	return done, nil
}

// resume lets the active machine ship again: into the generation that was opened, or the one that never was closed. A repair also
// asks it to compare everything.
func resume(r *run) (outcome, error) {
	if r.work.Generation > 0 {
		r.openAs(r.work.Generation, r.work.Point)
	}
	if r.job.Plan == job.PlanRepair {
		r.item.ResyncID = newID()
	}
	if r.work.Active != "" {
		r.item.ActiveUUID = r.work.Active
	}
	r.change()
	return done, nil
}

// openAs records that a generation is open on base.
func (r *run) openAs(generation int64, base dr.PointRef) {
	r.item.Generation, r.item.BasePoint, r.item.LastPoint, r.item.Fenced = generation, base, dr.PointRef{}, false
	r.change()
}
