package node

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/lifeboat-dr/lifeboat/replicator/compute"
	"github.com/lifeboat-dr/lifeboat/replicator/worker"
	"github.com/lifeboat-dr/lifeboat/sdk/fleet"
)

// tendEvery is how often instances are looked after. A guest whose disk server died waits that long at most.
const tendEvery = 2 * time.Second

// reviver is a driver that can bring back what serves a running instance's disks, without touching its power.
type reviver interface {
	// Revive makes sure that a running instance's disks are served. It does nothing for one that is off or needs nothing.
	Revive(ctx context.Context, id string, server json.RawMessage) error
}

// homeLister is a driver that can list the home machines it could write to.
type homeLister interface {
	Homes(ctx context.Context) ([]compute.HomeMachine, error)
}

// tendInstances keeps what runs from recovery points running: disk servers that died are started again, and hydration that
// was asked for goes on. It finds instances by what the driver sees, so a restart of this process changes nothing for them.
func (n *Node) tendInstances(ctx context.Context) error {
	tick := time.NewTicker(tendEvery)
	defer tick.Stop()
	for {
		n.tendOnce(ctx)
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func (n *Node) tendOnce(ctx context.Context) {
	list, err := n.cfg.Compute.List(ctx)
	if err != nil {
		if ctx.Err() == nil {
			n.log.Warn("instances could not be listed", "err", err)
		}
		return
	}
	percent := map[string]int{}
	for _, i := range list {
		if i.State != compute.StateRunning || i.Hydrated || ctx.Err() != nil {
			continue
		}
		if r, ok := n.cfg.Compute.(reviver); ok {
			n.revive(ctx, r, i)
		}
		if i.Hydrate {
			h, err := n.cfg.Compute.Hydrate(ctx, i.ID)
			if err = errors.Join(err, h.Err); err != nil && ctx.Err() == nil {
				n.log.Warn("hydration of an instance does not go on", "instance", i.ID, "err", err)
			}
			percent[i.ID] = percentOf(h)
		}
	}
	n.mu.Lock()
	n.hydrated = percent
	n.mu.Unlock()
}

// percentOf a hydration; 100 only when it is complete.
func percentOf(h compute.Hydration) int {
	switch {
	case h.Complete:
		return 100
	case h.Total <= 0:
		return 0
	}
	return int(min(99, 100*h.Done/h.Total))
}

func (n *Node) revive(ctx context.Context, r reviver, i compute.Instance) {
	v := n.vaultOf(ctx, i.Machine)
	if v == nil {
		return // its vault is not served yet; next time
	}
	source, err := v.ServerSource(i.Machine, i.Point)
	if err == nil {
		err = r.Revive(ctx, i.ID, source)
	}
	if err != nil && ctx.Err() == nil {
		n.log.Error("disks of a running instance cannot be served", "instance", i.ID, "item", i.Machine, "err", err)
	}
}

// vaultOf finds the vault whose repository knows the machine. Machine names are unique over all vaults.
func (n *Node) vaultOf(ctx context.Context, machine string) *worker.Vault {
	for _, v := range n.vaults.all() {
		if gens, err := v.Repository.Generations(ctx, machine); err == nil && len(gens) > 0 {
			return v
		}
	}
	return nil
}

// hydration tells how much of an instance no longer needs the repository, in percent.
func (n *Node) hydration(i compute.Instance) int {
	if i.Hydrated {
		return 100
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	return min(n.hydrated[i.ID], 99)
}

var powerStates = map[compute.State]fleet.VirtualMachinePowerState{
	compute.StateRunning: fleet.On,
	compute.StateStopped: fleet.Off,
	compute.StateCrashed: fleet.Off,
}

// homeMachines are the machines in the datastores.
func (n *Node) homeMachines(ctx context.Context) []fleet.VirtualMachine {
	lister, ok := n.cfg.Compute.(homeLister)
	if !ok {
		return nil
	}
	homes, err := lister.Homes(ctx)
	if err != nil {
		n.log.Warn("home machines could not be listed", "err", err)
	}
	var out []fleet.VirtualMachine
	for _, h := range homes {
		power, known := powerStates[h.State]
		if !known {
			power = fleet.Unknown
		}
		out = append(out, fleet.VirtualMachine{Uuid: h.UUID, Name: h.Name, Datastore: h.Datastore, PowerState: power})
	}
	return out
}
