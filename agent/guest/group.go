package guest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"time"

	"github.com/lifeboat-dr/lifeboat/agent/group"
	"github.com/lifeboat-dr/lifeboat/agent/ship"
	"github.com/lifeboat-dr/lifeboat/sdk/fleet"
)

// maxAddresses is how many addresses lifeboatd takes.
const maxAddresses = 16

// Group says where members of a consistency group reach this agent. The zero value: at every address of the machine, on
// group.DefaultPort.
type Group struct {
	Listen    string   // host:port, either may be empty
	Addresses []string // host:port told to other members, where they do not reach it as it sees itself
}

// Check tells whether the settings can be meant.
func (g Group) Check() error {
	if _, _, err := g.listen(); err != nil {
		return fmt.Errorf("group listen address: %w", err)
	}
	for _, a := range g.Addresses {
		if _, _, err := net.SplitHostPort(a); err != nil {
			return fmt.Errorf("group address: %w", err)
		}
	}
	return nil
}

func (g Group) listen() (host, port string, err error) {
	if g.Listen != "" {
		if host, port, err = net.SplitHostPort(g.Listen); err != nil {
			return "", "", err
		}
	}
	if port == "" {
		port = strconv.Itoa(group.DefaultPort)
	}
	return host, port, nil
}

// told returns what other members are told, given the machine's addresses.
func (g Group) told(machine []string) (out []string) {
	host, port, err := g.listen()
	switch {
	case err != nil:
	case len(g.Addresses) > 0:
		out = g.Addresses
	case host != "":
		out = []string{net.JoinHostPort(host, port)}
	default:
		for _, ip := range machine {
			out = append(out, net.JoinHostPort(ip, port))
		}
	}
	return out[:min(len(out), maxAddresses)]
}

// node returns this agent's part in groups.
func (a *agent) node() *group.Node {
	host, port, err := a.cfg.Group.listen()
	if err != nil {
		port = strconv.Itoa(group.DefaultPort)
	}
	return group.New(group.Config{Self: a.id.ID(), Identity: a.id.Data, Address: net.JoinHostPort(host, port), Log: a.log, Changed: a.tell})
}

// setGroups lets the machines meet the groups that are desired for them.
func (a *agent) setGroups(d *fleet.AgentDesired) {
	want := map[string]group.Membership{}
	for _, p := range d.Protections {
		if x := a.running[p.MachineId]; x != nil && p.Group.Id != "" && !p.Fenced {
			want[p.MachineId] = group.Membership{Group: groupOf(p), Call: x.call}
		}
	}
	if err := a.groups.Set(want); err != nil {
		a.log.Error("other members of the consistency group cannot reach this machine", "err", err)
	}
}

func groupOf(p fleet.Protection) group.Group {
	g := group.Group{ID: p.Group.Id, Name: p.Group.Name, Interval: time.Duration(max(1, p.Group.IntervalSeconds)) * time.Second,
		Hold: time.Duration(p.FreezeTimeoutSeconds) * time.Second}
	for _, m := range p.Group.Members {
		g.Members = append(g.Members, group.Peer{ID: m.MachineId, Agent: m.AgentId, Name: m.Name, Addresses: m.Addresses})
	}
	return g
}

// call has the machine captured, or tells why it cannot be now.
func (p *protection) call() error {
	switch s := p.Status(); s.Phase {
	case fleet.Delta, fleet.Capturing:
		p.Call()
		return nil
	case fleet.InitialReplication:
		return errors.New("it is being copied for the first time")
	case fleet.Resync:
		return errors.New("it is being resynchronised")
	case fleet.Fenced:
		return errors.New("it is fenced")
	default:
		return errors.New("it has no connection to a replicator")
	}
}

// groupStatus adds to a protection's status how its group's last round went.
func (a *agent) groupStatus(s *fleet.ProtectionStatus) {
	g, ok := a.groups.Status(s.MachineId)
	if !ok {
		return
	}
	s.Group = fleet.GroupStatus{GroupId: g.Group, Coordinator: g.Coordinator, LastPointId: g.LastID, LastPointTime: g.LastTime}
	for _, m := range g.Missed {
		s.Group.Missed = append(s.Group.Missed, fleet.GroupMissed{MachineId: m.Member, Reason: m.Reason})
	}
}

// barrier is how a protector's captures meet those of others.
type barrier struct{ node *group.Node }

func (b barrier) Leads(want fleet.Protection) bool { return b.node.Leads(want.MachineId) }

func (b barrier) App(want fleet.Protection, due bool) bool { return b.node.App(want.MachineId, due) }

func (b barrier) Join(ctx context.Context, want fleet.Protection) (ship.Meeting, error) {
	m, err := b.node.Join(ctx, want.MachineId)
	if m == nil || err != nil {
		return nil, err
	}
	return meeting{m}, nil
}

type meeting struct{ *group.Meeting }

func (m meeting) Done(_ fleet.PointRef, err error) { m.Meeting.Done(err) }
