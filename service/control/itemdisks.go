package control

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/lifeboat-dr/lifeboat/service/dr"
	"github.com/lifeboat-dr/lifeboat/service/job"
	"github.com/lifeboat-dr/lifeboat/service/store"
)

// AddDisks replicates further disks of a protected machine. They get their first copy while the others go on; the next point has all.
func (s *Service) AddDisks(ctx context.Context, ref Ref, in json.RawMessage) (string, error) {
	return s.act(ctx, ref, dr.OpAddDisks, fixed(job.PlanAddDisks), func(tx store.Tx, it *dr.Item, r *Request) error {
		return prepareDisks(tx, it, "addDisks", in, r, addable)
	})
}

// RemoveDisks stops replicating disks of a protected machine. Points that have them keep them, later ones are without.
func (s *Service) RemoveDisks(ctx context.Context, ref Ref, in json.RawMessage) (string, error) {
	return s.act(ctx, ref, dr.OpRemoveDisks, fixed(job.PlanRemoveDisks), func(tx store.Tx, it *dr.Item, r *Request) error {
		return prepareDisks(tx, it, "removeDisks", in, r, removable)
	})
}

// changesDisks are the providers whose machines can gain and lose disks.
var changesDisks = []dr.ProviderType{dr.ProviderInMageRcm, dr.ProviderA2A}

// prepareDisks finds the disks that the request names; each is judged by check, given the machine's disks as far as its agent tells.
func prepareDisks(tx store.Tx, it *dr.Item, action string, in json.RawMessage, r *Request, check func(it *dr.Item, seen []dr.MachineDisk, d *dr.Disk) error) error {
	if err := requireProvider(it, action, in, changesDisks); err != nil {
		return err
	}
	asked, err := askedDisks(in)
	if err != nil {
		return err
	}
	var seen []dr.MachineDisk
	if it.AgentID != "" {
		a, err := LoadAgent(tx, it.AgentID)
		if err != nil {
			return err
		}
		seen = a.Machine.Disks
	}
	for _, d := range asked {
		if err := check(it, seen, &d); err != nil {
			return err
		}
		if !slices.ContainsFunc(r.Disks, func(k dr.Disk) bool { return k.ID == d.ID }) {
			r.Disks = append(r.Disks, d)
		}
	}
	return nil
}

// askedDisks reads the disks that the input of either action of either provider names, at least one.
func askedDisks(in json.RawMessage) (out []dr.Disk, err error) {
	var body struct {
		Disks, VMDisks, VMManagedDisks          []json.RawMessage
		DiskIDs, VMDisksURIs, VMManagedDisksIDs []string
	}
	if len(in) > 0 {
		if err := json.Unmarshal(in, &body); err != nil {
			return nil, &dr.Error{Code: dr.CodeInvalid, Message: "providerSpecificDetails is malformed", PossibleCauses: "a list of disks is not one", RecommendedAction: "send the lists that the provider's input has", Err: err}
		}
	}
	for _, d := range slices.Concat(body.Disks, body.VMManagedDisks, body.VMDisks) {
		out = append(out, dr.Disk{ID: firstField(d, "diskId", "diskUri"), Input: d})
	}
	for _, id := range slices.Concat(body.DiskIDs, body.VMManagedDisksIDs, body.VMDisksURIs) {
		out = append(out, dr.Disk{ID: id})
	}
	if len(out) == 0 || slices.ContainsFunc(out, func(d dr.Disk) bool { return d.ID == "" }) {
		return nil, &dr.Error{Code: dr.CodeInvalid, Message: "the request names no disk", PossibleCauses: "the list of disks is missing or empty, or a disk has no id", RecommendedAction: "send the ids of the disks, as the protected item's details have them"}
	}
	return out, nil
}

func sameDisk(id string) func(dr.Disk) bool {
	return func(d dr.Disk) bool { return strings.EqualFold(d.ID, id) }
}

// addable completes a disk that is to be added from what the machine's agent saw.
func addable(it *dr.Item, seen []dr.MachineDisk, d *dr.Disk) error {
	if slices.ContainsFunc(it.Disks, sameDisk(d.ID)) {
		return &dr.Error{Code: dr.CodeConflict, Message: fmt.Sprintf("disk %s of %s is protected already", d.ID, it.FriendlyName), PossibleCauses: "the request was sent before, or the disk was chosen when protection was enabled",
			RecommendedAction: "choose disks from unprotectedDisks of the item"}
	}
	if it.Driven {
		return nil // its driver knows the machine
	}
	i := slices.IndexFunc(seen, func(m dr.MachineDisk) bool { return strings.EqualFold(m.ID, d.ID) })
	if i < 0 {
		return &dr.Error{Code: dr.CodeInvalid, Message: fmt.Sprintf("%s has no disk %q", it.FriendlyName, d.ID), PossibleCauses: "the id is misspelled, or the agent has not seen the disk yet",
			RecommendedAction: "choose disks from unprotectedDisks of the item"}
	}
	if why := seen[i].UnsupportedReason; why != "" {
		return &dr.Error{Code: dr.CodeConflict, Message: fmt.Sprintf("disk %s cannot be protected: %s", seen[i].ID, why), PossibleCauses: "the agent cannot read or track it",
			RecommendedAction: "change the disk so that it can be protected, or leave it out"}
	}
	d.ID, d.SizeBytes = seen[i].ID, seen[i].SizeBytes
	return nil
}

// removable completes a disk that is to be removed from what is protected.
func removable(it *dr.Item, _ []dr.MachineDisk, d *dr.Disk) error {
	i := slices.IndexFunc(it.Disks, sameDisk(d.ID))
	if i < 0 {
		return &dr.Error{Code: dr.CodeInvalid, Message: fmt.Sprintf("disk %q of %s is not protected", d.ID, it.FriendlyName), PossibleCauses: "the id is misspelled, or the disk was removed already",
			RecommendedAction: "choose disks from protectedDisks of the item"}
	}
	if it.Disks[i].IsOSDisk {
		return &dr.Error{Code: dr.CodeConflict, Message: fmt.Sprintf("disk %s is what %s boots from", it.Disks[i].ID, it.FriendlyName), PossibleCauses: "without it no recovery point could be started",
			RecommendedAction: "keep the disk protected, or remove the protected item"}
	}
	d.ID = it.Disks[i].ID
	return nil
}
