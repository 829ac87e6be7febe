package fleet

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/lifeboat-dr/lifeboat/service/control"
	"github.com/lifeboat-dr/lifeboat/service/dr"
)

const (
	// freezeTimeout bounds the freeze window of a capture; past it the capture is refused.
	freezeTimeout = 10 * time.Second
	// defaultCrashEvery is the interval of points where the policy names none.
	defaultCrashEvery = 5 * time.Minute
	// silentAfter is how long a replicator may be silent before agents are sent to others first. Its long poll is shorter.
	silentAfter = 90 * time.Second
)

// AgentReport is what an agent observes.
type AgentReport struct {
	Version  string
	Revision int64 // of the desired state it acts on; 0 for none
	Machine  dr.Machine
	Observed []dr.Observed
	Hosted   []dr.HostedMachine // of a hypervisor
}

// AgentDesired is what an agent should do. Revision changes with the content.
type AgentDesired struct {
	Revision     int64 `json:"-"`
	Protections  []Protection
	Unregistered bool
}

// Protection is one machine an agent protects, or, when Fenced, must not.
type Protection struct {
	Machine              dr.ItemID
	Generation           int64
	Disks                []string
	CrashConsistentEvery time.Duration
	AppConsistentEvery   time.Duration
	FreezeTimeout        time.Duration
	Replicators          []Address
	Grant                string
	GrantExpires         time.Time
	CaptureID            string
	ResyncID             string
	Fenced               bool
	MachineUUID          string // of the machine, for an agent on a hypervisor
	Shutdown             bool   // shut it down for the capture that CaptureID asks for
	Group                *Group // nil: the machine is captured by itself
	Throttle             dr.Throttle
	Stop                 bool // Fenced, and the machine shall shut itself down
}

// Address of a replicator's data port, and the TLS server name that selects the vault there.
type Address struct{ Address, ServerName string }

// SyncAgent records a report and returns what is desired: at once when that is not what the agent acts on, else when it
// changes or after wait.
func (s *Service) SyncAgent(ctx context.Context, c Caller, r AgentReport, wait time.Duration) (AgentDesired, error) {
	if err := c.allow(RoleAgent); err != nil {
		return AgentDesired{}, err
	}
	if err := s.control.AgentSeen(ctx, c.ID, r.Version, r.Machine, r.Observed, r.Hosted...); err != nil {
		return AgentDesired{}, err
	}
	return longPoll(ctx, s, wait, func(ctx context.Context) (AgentDesired, bool, error) {
		d, err := s.agentDesired(ctx, c, r.Machine.ProductUUID)
		return d, d.Revision != r.Revision, err
	})
}

func (s *Service) agentDesired(ctx context.Context, c Caller, productUUID string) (AgentDesired, error) {
	agent, err := s.control.Agent(ctx, c.ID)
	if err != nil {
		return AgentDesired{}, err
	}
	d := AgentDesired{Unregistered: agent.Unregistered}
	if !agent.Unregistered {
		items, err := s.control.AgentItems(ctx, c.ID)
		if err != nil {
			return AgentDesired{}, err
		}
		if agent.Machine.Hypervisor {
			productUUID = ""
		}
		if d.Protections, err = s.protections(ctx, c, items, productUUID); err != nil {
			return AgentDesired{}, err
		}
	}
	d.Revision, err = revisionOf(d)
	return d, err
}

// protections are for the agent in the machine with the UUID, or, when that is empty, for one on a hypervisor.
func (s *Service) protections(ctx context.Context, c Caller, items []control.AgentItem, productUUID string) ([]Protection, error) {
	var replicators []dr.Replicator
	var secrets control.VaultSecrets
	var out []Protection
	for _, it := range items {
		if it.Item.Generation == 0 {
			continue // its point log is not open yet
		}
		p := Protection{Machine: it.Item.ID, Generation: it.Item.Generation, Disks: []string{}}
		for _, disk := range it.Item.Disks {
			p.Disks = append(p.Disks, disk.ID)
		}
		uuid := productUUID
		if uuid == "" {
			uuid, p.MachineUUID = it.Item.HomeUUID, it.Item.HomeUUID
		}
		if !it.Item.MayShip(uuid) {
			p.Fenced, p.Stop = true, it.Item.MustStop(productUUID) // an agent on a hypervisor has no UUID and must not stop its host
			out = append(out, p)
			continue
		}
		if replicators == nil {
			var err error
			if replicators, err = s.control.Replicators(ctx); err != nil {
				return nil, err
			}
			if secrets, err = s.control.VaultSecrets(ctx, it.Item.Vault); err != nil {
				return nil, err
			}
		}
		p.CrashConsistentEvery = it.Policy.CrashConsistentEvery
		if p.CrashConsistentEvery <= 0 {
			p.CrashConsistentEvery = defaultCrashEvery
		}
		p.AppConsistentEvery = it.Policy.AppConsistentEvery
		p.FreezeTimeout, p.Throttle = freezeTimeout, it.Policy.Throttle
		p.CaptureID, p.ResyncID, p.Shutdown = it.Item.CaptureID, it.Item.ResyncID, it.Item.StopSource
		p.Replicators = s.processServers(replicators, it.Item)
		var err error
		if it.Item.InGroup(it.Policy) {
			if p.Group, err = s.group(ctx, it.Item); err != nil {
				return nil, err
			}
		}
		if p.Grant, p.GrantExpires, err = s.grant(secrets, c, it.Item); err != nil {
			return nil, err
		}
		out = append(out, p)
	}
	return out, nil
}

func (s *Service) grant(secrets control.VaultSecrets, c Caller, item dr.Item) (string, time.Time, error) {
	issued, expires := grantTimes(s.now())
	claims := Claims{Vault: item.Vault, Machine: string(item.ID), Agent: c.ID, Generation: item.Generation, IssuedAt: issued.Unix(), Expires: expires.Unix()}
	for _, d := range item.Disks {
		claims.Disks = append(claims.Disks, GrantDisk{ID: d.ID, SizeBytes: d.SizeBytes})
	}
	jws, err := SignGrant(secrets.GrantKey, claims)
	return jws, expires, err
}

// processServers returns the data addresses an agent may ship to: those that were heard of lately first, and of these the one
// that the user chose. A replicator may have several addresses, because not everyone sees it under the same one.
func (s *Service) processServers(all []dr.Replicator, item dr.Item) []Address {
	now := s.now()
	sorted := slices.Clone(all)
	rank := func(r dr.Replicator) int {
		switch {
		case now.Sub(r.LastHeartbeat) > silentAfter:
			return 2
		case strings.EqualFold(r.ID, item.ProcessServer):
			return 0
		}
		return 1
	}
	slices.SortStableFunc(sorted, func(a, b dr.Replicator) int {
		if d := rank(a) - rank(b); d != 0 {
			return d
		}
		return strings.Compare(a.ID, b.ID)
	})
	out := []Address{}
	for _, r := range sorted {
		if !r.HasRole(dr.RoleProcessServer) {
			continue
		}
		for a := range strings.SplitSeq(r.DataAddress, ",") {
			if a != "" {
				out = append(out, Address{Address: a, ServerName: ServerName(r.ID, item.Vault)})
			}
		}
	}
	return out
}
