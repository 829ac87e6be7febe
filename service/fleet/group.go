package fleet

import (
	"context"
	"time"

	"github.com/lifeboat-dr/lifeboat/service/dr"
)

// Group is a consistency group as its members need to know it.
type Group struct {
	ID, Name string
	Interval time.Duration // between its points
	Members  []GroupMember // ordered by machine
}

// GroupMember is a machine of a group, the agent that captures it, and where that is reached.
type GroupMember struct {
	Machine   dr.ItemID
	Agent     string
	Name      string
	Addresses []string // host:port
}

// group returns what the item's agent is told of its group. The most frequent of the members' intervals is the group's.
func (s *Service) group(ctx context.Context, it dr.Item) (*Group, error) {
	members, err := s.control.GroupMembers(ctx, it)
	if err != nil {
		return nil, err
	}
	g := &Group{ID: dr.GroupID(it.Vault, it.MultiVMGroup), Name: it.MultiVMGroup}
	for _, m := range members {
		every := m.Policy.CrashConsistentEvery
		if every <= 0 {
			every = defaultCrashEvery
		}
		if g.Interval == 0 || every < g.Interval {
			g.Interval = every
		}
		g.Members = append(g.Members, GroupMember{Machine: m.Item.ID, Agent: m.Agent.ID, Name: m.Item.FriendlyName, Addresses: m.Agent.Machine.GroupAddresses})
	}
	return g, nil
}
