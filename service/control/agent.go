package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/lifeboat-dr/lifeboat/service/dr"
	"github.com/lifeboat-dr/lifeboat/service/store"
)

// EnrolAgent consumes a registration key and makes the agent and its protectable item, in one transaction. fingerprint is a hash
// of the caller's public key: the same caller may repeat a request whose answer was lost.
func (s *Service) EnrolAgent(ctx context.Context, key, fingerprint string, m dr.Machine) (out Enrolled, err error) {
	err = s.store.Update(ctx, func(tx store.Tx) error {
		now := s.now()
		k, used, err := ConsumeRegistrationKey(tx, key, RoleAgent, fingerprint, now)
		if err != nil {
			return err
		}
		out = Enrolled{ID: used, Vault: k.Vault}
		if used != "" {
			return nil
		}
		a := dr.Agent{Meta: dr.Meta{}, ID: newID(), Vault: k.Vault, Fabric: k.Fabric, Hostname: m.Hostname, Machine: m, Enrolled: now, LastHeartbeat: now}
		a.Name, k.UsedAs, out.ID = a.ID, a.ID, a.ID
		if err := save(tx, KindRegistrationKey, k.ID, &k, now); err != nil {
			return err
		}
		register := bindMachine
		if m.Hypervisor {
			register = enrolHost
		}
		if err := register(tx, &a, now); err != nil {
			return err
		}
		return save(tx, KindAgent, a.ID, &a, now)
	})
	return out, err
}

// bindMachine finds the protectable item that the agent's machine is, or makes it. A machine that enrols again (its agent's
// directory was lost) takes its own item over from the agent it was.
func bindMachine(tx store.Tx, a *dr.Agent, now time.Time) error {
	containers, err := all[dr.Container](tx, KindContainer, under(a.Vault, a.Fabric))
	if err != nil {
		return err
	}
	if len(containers) == 0 {
		return &dr.Error{Code: dr.CodeConflict, Message: fmt.Sprintf("fabric %s has no container for machines", a.Fabric), PossibleCauses: "the fabric's kind finds its machines otherwise, or it was removed",
			RecommendedAction: "create a registration key at an InMageRcm fabric"}
	}
	p := dr.ProtectableItem{Vault: a.Vault, Fabric: a.Fabric, Container: containers[0].Name, FriendlyName: a.Hostname}
	known, err := knownMachine(tx, under(a.Vault, a.Fabric), a.Machine)
	if err != nil {
		return err
	}
	if known != "" {
		if p, err = load[dr.ProtectableItem](tx, KindProtectable, known); err != nil {
			return err
		}
		if err := retire(tx, &p, a, now); err != nil {
			return err
		}
	} else {
		p.ID = newID()
		p.Name = p.ID
	}
	observed, err := json.Marshal(a.Machine)
	if err != nil {
		return err
	}
	p.AgentID, p.OSType, p.Physical, p.Observed, p.LastSeen = a.ID, or(a.Machine.OSType, p.OSType), a.Machine.Platform == "physical", observed, now
	if p.Address == "" && len(a.Machine.IPAddresses) > 0 {
		p.Address = a.Machine.IPAddresses[0]
	}
	a.ProtectableItem, a.Container = p.Name, p.Container
	return save(tx, KindProtectable, fold(p.Vault, p.Fabric, p.Container, p.Name), &p, now)
}

// likeness is what of a protectable item tells which machine it is.
type likeness struct {
	AgentID, Address, FriendlyName string
	Observed                       json.RawMessage
}

// is tells whether a protectable item is the machine: by SMBIOS UUID once an agent had enrolled, else by the address or name under
// which it was added.
func (p *likeness) is(m dr.Machine) bool {
	if p.AgentID != "" {
		var old struct{ ProductUUID string }
		return json.Unmarshal(p.Observed, &old) == nil && old.ProductUUID != "" && strings.EqualFold(old.ProductUUID, m.ProductUUID)
	}
	return p.Address != "" && (slices.Contains(m.IPAddresses, p.Address) || strings.EqualFold(p.Address, m.Hostname)) || strings.EqualFold(p.FriendlyName, m.Hostname)
}

// knownMachine is the key of the first protectable item under prefix that is the machine, or empty.
func knownMachine(tx store.Tx, prefix string, m dr.Machine) (found string, err error) {
	enough := errors.New("enough")
	err = tx.List(KindProtectable, prefix, "", 0, func(key string, _ int64, decode func(any) error) error {
		var p likeness
		if err := decode(&p); err != nil || !p.is(m) {
			return err
		}
		found = key
		return enough
	})
	if errors.Is(err, enough) {
		err = nil
	}
	return found, err
}

// retire hands what an earlier agent of the machine had to the new one.
func retire(tx store.Tx, p *dr.ProtectableItem, a *dr.Agent, now time.Time) error {
	if p.AgentID == "" {
		return nil
	}
	old, ok, err := find[dr.Agent](tx, KindAgent, p.AgentID)
	if err != nil {
		return err
	}
	if ok {
		old.Unregistered = true
		if err := save(tx, KindAgent, old.ID, &old, now); err != nil {
			return err
		}
	}
	if p.ProtectedAs == "" {
		return nil
	}
	it, err := LoadItem(tx, p.ProtectedAs)
	if err != nil {
		return err
	}
	if err := tx.Delete(KindAgentItem, it.AgentID+"/"+string(it.ID), -1); err != nil {
		return err
	}
	it.AgentID = a.ID
	it.ResyncID = newID() // the new agent knows nothing of what was sent
	if _, err := tx.Put(KindAgentItem, a.ID+"/"+string(it.ID), -1, itemRef(&it).itemKey()); err != nil {
		return err
	}
	return SaveItem(tx, &it, now)
}

// Agent returns an enrolled agent.
func (s *Service) Agent(ctx context.Context, id string) (a dr.Agent, err error) {
	err = s.store.View(ctx, func(tx store.Tx) error {
		a, err = LoadAgent(tx, id)
		return err
	})
	return a, err
}

// AgentItems returns the items that the agent's machine is, with their policies.
func (s *Service) AgentItems(ctx context.Context, agentID string) (out []AgentItem, err error) {
	err = s.store.View(ctx, func(tx store.Tx) error {
		items, err := itemsOfAgent(tx, agentID)
		out = nil
		for _, it := range items {
			p, err := LoadPolicy(tx, it.Vault, it.PolicyName)
			if err != nil {
				return err
			}
			out = append(out, AgentItem{it, p})
		}
		return err
	})
	return out, err
}

func itemsOfAgent(tx store.Tx, agentID string) (out []dr.Item, err error) {
	err = tx.List(KindAgentItem, agentID+"/", "", 0, func(_ string, _ int64, decode func(any) error) error {
		var key string
		if err := decode(&key); err != nil {
			return err
		}
		it, err := load[dr.Item](tx, KindItem, key)
		out = append(out, it)
		return err
	})
	return out, err
}

// AgentSeen records an agent's report: its heartbeat, its machine, those that run on it when it is a hypervisor, and what it tells of
// each item. A machine that is not an item's active one is recorded as a stranger and changes nothing else.
func (s *Service) AgentSeen(ctx context.Context, agentID string, version string, m dr.Machine, observed []dr.Observed, hosted ...dr.HostedMachine) error {
	return s.store.Update(ctx, func(tx store.Tx) error {
		now := s.now()
		a, err := LoadAgent(tx, agentID)
		if err != nil {
			return err
		}
		items, err := itemsOfAgent(tx, agentID)
		if err != nil {
			return err
		}
		active := true
		for i := range items {
			it := &items[i]
			source, mine, record := m, strings.EqualFold(it.ActiveUUID, m.ProductUUID), true
			if m.Hypervisor {
				source, mine, record = onHypervisor(it, hosted)
			} else {
				active = active && mine
			}
			if !record {
				continue
			}
			at := slices.IndexFunc(observed, func(o dr.Observed) bool { return o.Item == it.ID })
			report := dr.Observed{Item: it.ID}
			if at >= 0 {
				report = observed[at]
			}
			if err := recordObserved(tx, it, report, at >= 0, mine, version, source, now); err != nil {
				return err
			}
		}
		if !active {
			return nil
		}
		a.AgentVersion, a.Machine, a.Hostname, a.LastHeartbeat = version, m, or(m.Hostname, a.Hostname), now
		if m.Hypervisor {
			if err := hostedSeen(tx, &a, hosted, now); err != nil {
				return err
			}
		}
		return save(tx, KindAgent, a.ID, &a, now)
	})
}

func recordObserved(tx store.Tx, it *dr.Item, report dr.Observed, reported, mine bool, version string, m dr.Machine, now time.Time) error {
	old, err := LoadObserved(tx, it.ID)
	if err != nil {
		return err
	}
	switch {
	case !mine:
		old.Item, old.StrangerUUID, old.StrangerSeen = it.ID, m.ProductUUID, now
		report = old
	case !reported: // alive, and silent about this item
		old.Item, old.AgentVersion, old.LastHeartbeat = it.ID, version, now
		report = old
	default:
		report.StrangerUUID, report.StrangerSeen = old.StrangerUUID, old.StrangerSeen
		report.AgentVersion, report.LastHeartbeat = version, now
	}
	if err := nameMissed(tx, &report, it.Vault); err != nil {
		return err
	}
	if _, err := tx.Put(KindObserved, string(it.ID), -1, report); err != nil {
		return err
	}
	if !mine || !reported {
		return nil
	}
	return noticeProgress(tx, it, report, old.ResyncTime, m, now)
}

// Phases of ProtectionStatus in the fleet protocol.
const (
	phaseDelta  = "delta"
	phaseResync = "resync"
	phaseFenced = "fenced"
)

// noticeProgress lets the item follow what its agent tells. lastResync is when the last resync began that it told of before.
func noticeProgress(tx store.Tx, it *dr.Item, o dr.Observed, lastResync time.Time, m dr.Machine, now time.Time) error {
	before := it.State
	changed := false
	if o.Generation == it.Generation && it.Generation > it.Acknowledged && o.Phase != phaseFenced {
		it.Acknowledged, changed = it.Generation, true
	}
	var signals []dr.SignalKind
	if o.Generation == it.Generation && o.Phase == phaseDelta {
		signals = append(signals, dr.SeedShipped)
	}
	switch {
	case o.Phase == phaseResync && !it.State.Resync:
		signals = append(signals, dr.ResyncBegan)
	case o.Phase != phaseResync && it.State.Resync:
		signals = append(signals, dr.ResyncEnded)
	}
	for _, k := range signals {
		next, refusal := dr.Apply(it.State, dr.Signal{Kind: k}, now)
		if refusal != nil {
			return refusal
		}
		it.State = next
	}
	// One that began and ended between two reports is told of, too.
	began := it.State.Resync && !before.Resync || !before.Resync && o.ResyncTime.After(lastResync)
	ended := !it.State.Resync && (before.Resync || began)
	if err := resyncEvents(tx, it, o, began, ended, now); err != nil {
		return err
	}
	if hw := m.Hardware(); !sameHardware(hw, it.Hardware) && strings.EqualFold(m.ProductUUID, it.HomeUUID) {
		it.Hardware, changed = hw, true
	}
	if it.State == before && !changed {
		return nil
	}
	return SaveItem(tx, it, now)
}

func sameHardware(a, b dr.Hardware) bool {
	x, y := a, b
	x.MACs, y.MACs = nil, nil
	return x.CPUs == y.CPUs && x.MemoryBytes == y.MemoryBytes && x.Firmware == y.Firmware && x.OSType == y.OSType && x.OSName == y.OSName && slices.Equal(a.MACs, b.MACs)
}

func resyncEvents(tx store.Tx, it *dr.Item, o dr.Observed, began, ended bool, now time.Time) error {
	if began {
		e := ItemEvent(it, "Resync", dr.SeverityWarning, fmt.Sprintf("Resynchronization of %s began: %s", it.FriendlyName, o.ResyncCause()))
		e.HealthErrors = []dr.HealthError{dr.ResyncError(it, o, now)}
		if err := SaveEvent(tx, &e, now); err != nil {
			return err
		}
	}
	if !ended {
		return nil
	}
	e := ItemEvent(it, "ResyncDone", dr.SeverityOK, "Resynchronization of "+it.FriendlyName+" ended")
	return SaveEvent(tx, &e, now)
}
