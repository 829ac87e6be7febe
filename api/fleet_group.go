package api

import (
	"time"

	"github.com/lifeboat-dr/lifeboat/api/fleetoas"
	"github.com/lifeboat-dr/lifeboat/service/dr"
	"github.com/lifeboat-dr/lifeboat/service/fleet"
)

// maxGroupAddresses bounds what is kept of an agent's addresses: every member of its group is told them.
const maxGroupAddresses = 16

func groupStatusFromWire(g fleetoas.GroupStatus) *dr.GroupObserved {
	if g.GroupId == "" {
		return nil
	}
	out := &dr.GroupObserved{GroupID: g.GroupId, Coordinator: dr.ItemID(g.Coordinator), LastPointID: g.LastPointId, LastPointTime: g.LastPointTime.UTC()}
	for _, m := range g.Missed {
		out.Missed = append(out.Missed, dr.GroupMissed{Item: dr.ItemID(m.MachineId), Reason: m.Reason})
	}
	return out
}

func groupToWire(g *fleet.Group) fleetoas.Group {
	if g == nil {
		return fleetoas.Group{}
	}
	out := fleetoas.Group{Id: g.ID, Name: g.Name, IntervalSeconds: int(g.Interval / time.Second)}
	for _, m := range g.Members {
		addresses := m.Addresses
		if addresses == nil {
			addresses = []string{}
		}
		out.Members = append(out.Members, fleetoas.GroupMember{MachineId: string(m.Machine), AgentId: m.Agent, Name: m.Name, Addresses: addresses})
	}
	return out
}
