package dr

import (
	"fmt"
	"strings"
	"time"
)

// GroupID names the consistency group of a vault whose members were enabled with the name. Case does not matter.
func GroupID(vault, name string) string {
	return NamedGUID("group", strings.ToLower(vault), strings.ToLower(name))
}

// InGroup tells whether the machine is to be captured together with its consistency group now. One that is still being copied for
// the first time, or runs at the other site, would only keep the others from their points.
func (i *Item) InGroup(p Policy) bool {
	return i.MultiVMGroup != "" && p.MultiVMSync && i.State.Phase == PhaseProtected && !i.Fenced && i.Generation > 0 && i.AgentID != ""
}

// GroupObserved is how the last round of a machine's consistency group went, as its agent told.
type GroupObserved struct {
	GroupID       string
	Coordinator   ItemID // whose agent led it
	LastPointID   string // Point.GroupID of the last round that all members took part in; empty before the first
	LastPointTime time.Time
	Missed        []GroupMissed // empty when the last round gave a point of the group
}

// GroupMissed is a member without which a round gave no point of the group.
type GroupMissed struct {
	Item   ItemID
	Name   string // for people; empty when the item is not there any more
	Reason string
}

// groupError tells that the group's last round gave no point of the group.
func groupError(e Evidence) (HealthError, bool) {
	g := e.Observed.Group
	if g == nil || len(g.Missed) == 0 || !e.Item.InGroup(e.Policy) || g.GroupID != GroupID(e.Item.Vault, e.Item.MultiVMGroup) {
		return HealthError{}, false
	}
	var who []string
	for _, m := range g.Missed {
		name := m.Name
		if name == "" {
			name = string(m.Item)
		}
		who = append(who, fmt.Sprintf("%s (%s)", name, m.Reason))
	}
	since := "there is none yet"
	if !g.LastPointTime.IsZero() {
		since = "the newest is of " + g.LastPointTime.UTC().Format(time.RFC3339)
	}
	return HealthError{Code: HealthGroupMissed, Level: LevelWarning, Category: CategoryReplication,
		Message:           fmt.Sprintf("the last capture of consistency group %s gave no common point; missed: %s; %s", e.Item.MultiVMGroup, strings.Join(who, ", "), since),
		Summary:           "The consistency group gets no common points.",
		PossibleCauses:    "a member is switched off or being resynchronised, its agent is stopped, or members cannot reach each other on TCP port 20004",
		RecommendedAction: "look at the members that are named; disable the replication of one that shall stay away, and the others get common points again"}, true
}
