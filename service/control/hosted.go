package control

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/lifeboat-dr/lifeboat/service/dr"
	"github.com/lifeboat-dr/lifeboat/service/store"
)

// hostAgent are the providers whose machines are protected by an agent on their hypervisor.
var hostAgent = []dr.ProviderType{dr.ProviderHyperVReplicaAzure}

const (
	// seenEvery is how often it is noted that a machine is still there.
	seenEvery = time.Minute
	// forgetHosted is after how long an unprotected machine is forgotten that its hypervisor does not tell of any more: one that is
	// off looks the same as one that was deleted.
	forgetHosted = 24 * time.Hour
)

// enrolHost makes the agent of a hypervisor a provider of its fabric.
func enrolHost(tx store.Tx, a *dr.Agent, now time.Time) error {
	f, err := load[dr.Fabric](tx, KindFabric, fold(a.Vault, a.Fabric))
	if err != nil {
		return err
	}
	containers, err := all[dr.Container](tx, KindContainer, under(a.Vault, a.Fabric))
	if err != nil {
		return err
	}
	if f.Kind != dr.FabricHyperVSite || len(containers) == 0 {
		return &dr.Error{Code: dr.CodeConflict, Message: fmt.Sprintf("fabric %s is of kind %s, which has no hypervisors", f.Name, f.Kind), PossibleCauses: "the registration key was made at another kind of fabric",
			RecommendedAction: "create a registration key at a HyperVSite fabric, or install the agent in the machines"}
	}
	a.Container = containers[0].Name
	p := dr.Provider{Meta: dr.Meta{Name: a.ID}, ID: a.ID, Vault: a.Vault, Fabric: f.Name, AgentID: a.ID, Hostname: a.Hostname}
	return save(tx, KindProvider, fold(p.Vault, p.Fabric, p.Name), &p, now)
}

// hostedName is the name of a machine's protectable item: the same under all hypervisors of the site, so that a machine may move.
func hostedName(vault, fabric, uuid string) string {
	return dr.NamedGUID("hosted machine", fold(vault, fabric), strings.ToLower(uuid))
}

// hostedSeen takes what a hypervisor tells of its machines.
func hostedSeen(tx store.Tx, a *dr.Agent, hosted []dr.HostedMachine, now time.Time) error {
	seen := map[string]bool{}
	for _, h := range hosted {
		if h.Machine.ProductUUID == "" {
			continue
		}
		name := hostedName(a.Vault, a.Fabric, h.Machine.ProductUUID)
		seen[name] = true
		if err := hostedMachine(tx, a, name, h.Machine, now); err != nil {
			return err
		}
	}
	known, err := all[dr.ProtectableItem](tx, KindProtectable, under(a.Vault, a.Fabric, a.Container))
	for _, p := range known {
		if p.AgentID != a.ID || p.ProtectedAs != "" || seen[p.Name] || now.Sub(p.LastSeen) < forgetHosted {
			continue
		}
		if err := tx.Delete(KindProtectable, fold(p.Vault, p.Fabric, p.Container, p.Name), p.Version); err != nil {
			return err
		}
	}
	return err
}

// hostedMachine notes one machine, where there is something to note. One that another hypervisor had moves here.
func hostedMachine(tx store.Tx, a *dr.Agent, name string, m dr.Machine, now time.Time) error {
	key := fold(a.Vault, a.Fabric, a.Container, name)
	p, ok, err := find[dr.ProtectableItem](tx, KindProtectable, key)
	if err != nil {
		return err
	}
	observed, err := json.Marshal(m)
	if err != nil {
		return err
	}
	if ok && p.AgentID == a.ID && bytes.Equal(p.Observed, observed) && now.Sub(p.LastSeen) < seenEvery {
		return nil
	}
	if !ok {
		p = dr.ProtectableItem{Meta: dr.Meta{Name: name}, ID: name, Vault: a.Vault, Fabric: a.Fabric, Container: a.Container}
	}
	if p.AgentID != a.ID && p.ProtectedAs != "" {
		if err := handOver(tx, p.ProtectedAs, a.ID, now); err != nil {
			return err
		}
	}
	p.FriendlyName, p.AgentID, p.OSType, p.Observed, p.LastSeen = m.Hostname, a.ID, or(m.OSType, p.OSType), observed, now
	return save(tx, KindProtectable, key, &p, now)
}

// handOver gives an item to another agent.
func handOver(tx store.Tx, id dr.ItemID, agentID string, now time.Time) error {
	it, err := LoadItem(tx, id)
	if err != nil {
		return err
	}
	if err := tx.Delete(KindAgentItem, it.AgentID+"/"+string(it.ID), -1); err != nil {
		return err
	}
	it.AgentID = agentID
	if _, err := tx.Put(KindAgentItem, agentID+"/"+string(it.ID), -1, itemRef(&it).itemKey()); err != nil {
		return err
	}
	return SaveItem(tx, &it, now)
}

// SourceMachine returns an item's production machine as its agent last saw it, from inside or from its hypervisor.
func SourceMachine(tx store.Tx, it *dr.Item, a dr.Agent) (dr.Machine, error) {
	if !a.Machine.Hypervisor {
		return a.Machine, nil
	}
	p, err := load[dr.ProtectableItem](tx, KindProtectable, fold(it.Vault, it.Fabric, it.Container, it.ProtectableItem))
	if err != nil {
		return dr.Machine{}, err
	}
	return machineOf(p, a)
}

// machineOf returns the machine that a protectable item stands for.
func machineOf(p dr.ProtectableItem, a dr.Agent) (m dr.Machine, err error) {
	if !a.Machine.Hypervisor {
		return a.Machine, nil
	}
	if err := json.Unmarshal(p.Observed, &m); err != nil {
		return m, fmt.Errorf("decode what was seen of machine %s: %w", p.Name, err)
	}
	return m, nil
}

// onHypervisor looks at one item of a hypervisor's agent: the machine as it was told, whether it is the one that may ship, and
// whether there is something to record. A machine that failed over is off at home as long as nobody starts it.
func onHypervisor(it *dr.Item, hosted []dr.HostedMachine) (m dr.Machine, mine, record bool) {
	mine = strings.EqualFold(it.ActiveUUID, it.HomeUUID)
	i := slices.IndexFunc(hosted, func(h dr.HostedMachine) bool { return strings.EqualFold(h.Machine.ProductUUID, it.HomeUUID) })
	if i < 0 {
		return dr.Machine{ProductUUID: it.HomeUUID}, mine, mine
	}
	return hosted[i].Machine, mine, mine || hosted[i].Running
}
