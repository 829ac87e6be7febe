package control

import (
	"fmt"
	"strings"

	"github.com/lifeboat-dr/lifeboat/service/dr"
	"github.com/lifeboat-dr/lifeboat/service/store"
)

// commonPoints finds, for every consistency group with machines of the providers that are to start together, the newest point that
// all its machines in the plan have. A group without one is refused: its machines would not fit each other.
func commonPoints(tx store.Tx, p *dr.RecoveryPlan, kinds map[string]string, together map[string]bool) (map[string]string, error) {
	items, err := planItems(tx, p)
	if err != nil {
		return nil, err
	}
	groups := map[string][]dr.Item{}
	for _, it := range items {
		if it.MultiVMGroup != "" && together[string(dr.Project(it.State).Provider)] {
			name := strings.ToLower(it.MultiVMGroup)
			groups[name] = append(groups[name], it)
		}
	}
	out := map[string]string{}
	for name, members := range groups {
		appOnly := strings.EqualFold(kinds[string(dr.Project(members[0].State).Provider)], string(PointAppConsistent))
		have := map[string]int{}
		for _, it := range members {
			points, err := groupPoints(tx, it.ID, appOnly)
			if err != nil {
				return nil, err
			}
			for _, p := range points {
				have[p.GroupID]++
			}
		}
		newest, err := NewestPoint(tx, members[0].ID, func(p dr.Point) bool { return p.GroupID != "" && have[p.GroupID] == len(members) })
		if err != nil {
			return nil, err
		}
		if newest == nil {
			return nil, &dr.Error{Code: dr.CodeConflict, Message: fmt.Sprintf("the %d machines of consistency group %s have no point in common", len(members), members[0].MultiVMGroup),
				PossibleCauses: "none was taken yet, one of them missed all, or they were pruned", RecommendedAction: "wait for a common point, or leave useMultiVmSyncPoint out"}
		}
		out[name] = newest.GroupID
	}
	return out, nil
}

// groupPoints lists an item's points that belong to a point of its group, one for each.
func groupPoints(tx store.Tx, id dr.ItemID, appOnly bool) (out []dr.Point, err error) {
	seen := map[string]bool{}
	_, err = NewestPoint(tx, id, func(p dr.Point) bool {
		if p.GroupID != "" && !seen[p.GroupID] && (!appOnly || p.Consistency == dr.ApplicationConsistent) {
			seen[p.GroupID] = true
			out = append(out, p)
		}
		return false
	})
	return out, err
}

// chooseGroupPoint chooses the machine's part of its group's common point; ok is false when it starts from a point of its own.
func chooseGroupPoint(tx store.Tx, q *PlanRequest, it *dr.Item, r *Request) (ok bool, err error) {
	group := q.GroupPoints[strings.ToLower(it.MultiVMGroup)]
	if group == "" {
		return false, nil
	}
	p, err := NewestPoint(tx, it.ID, func(p dr.Point) bool { return p.GroupID == group })
	if err == nil && p == nil {
		err = &dr.Error{Code: dr.CodeConflict, Message: fmt.Sprintf("the common point of %s is gone", it.FriendlyName), PossibleCauses: "it was pruned while the plan ran", RecommendedAction: "start the plan's operation anew"}
	}
	if err != nil {
		return true, err
	}
	r.Point, r.PointChoice = p.Ref(), PointProcessed
	return true, nil
}
