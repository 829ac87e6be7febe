package workflow_test

import (
	"encoding/json"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lifeboat-dr/lifeboat/service/control"
	"github.com/lifeboat-dr/lifeboat/service/dr"
)

// hypervisor plays the agent on a hypervisor and the one machine there.
type hypervisor struct {
	w     *world
	agent string

	mu       sync.Mutex // guards the rest
	stubborn bool       // the guest ignores the power button
	off      bool
}

// newHypervisor puts the world's machine on a hypervisor, instead of an agent in it.
func newHypervisor(w *world) *hypervisor {
	w.t.Helper()
	h := &hypervisor{w: w}
	must := func(err error) {
		w.t.Helper()
		if err != nil {
			w.t.Fatal(err)
		}
	}
	fabric := control.Ref{Vault: w.vault, Fabric: "hosts"}
	_, err := w.control.PutFabric(w.ctx, fabric, control.FabricInput{Kind: dr.FabricHyperVSite})
	must(err)
	containers, err := w.control.Containers(w.ctx, fabric, control.Paging{})
	must(err)
	w.ref = control.Ref{Vault: w.vault, Fabric: "hosts", Container: containers.Items[0].Container.Name, Name: "vm2"}
	_, err = w.control.PutPolicy(w.ctx, control.Ref{Vault: w.vault, Name: "h"}, control.PolicyInput{ProviderSpecificInput: json.RawMessage(`{"instanceType":"HyperVReplicaAzure"}`)})
	must(err)
	mapping := w.ref
	mapping.Name = "m"
	_, err = w.control.PutMapping(w.ctx, mapping, control.MappingInput{PolicyID: "h", TargetContainerID: "Microsoft Azure"})
	must(err)
	key, err := w.control.CreateRegistrationKey(w.ctx, control.RegistrationKeyInput{Vault: w.vault, Fabric: "hosts", Role: control.RoleAgent})
	must(err)
	who, err := w.control.EnrolAgent(w.ctx, key.Key, "hypervisor", h.self())
	must(err)
	h.agent = who.ID
	must(h.round())
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(w.round)
		defer tick.Stop()
		for {
			select {
			case <-stop:
				return
			case <-tick.C:
			}
			if err := h.round(); err != nil && w.ctx.Err() == nil {
				w.t.Error(err)
				return
			}
		}
	}()
	w.t.Cleanup(func() {
		close(stop)
		<-done
	})
	machines, err := w.control.Protectables(w.ctx, w.ref, "", control.Paging{})
	if err != nil || len(machines.Items) != 1 {
		w.t.Fatalf("got %+v, %v, want one protectable item", machines, err)
	}
	w.ask(w.control.Enable(w.ctx, w.ref, control.EnableInput{PolicyID: "h", ProtectableItemID: machines.Items[0].Item.Name, ProviderInput: json.RawMessage(`{"instanceType":"HyperVReplicaAzure","disksToInclude":["os","data"]}`)}))
	w.waitPhase(dr.LegHyperVAzure, dr.PhaseProtected)
	return h
}

func (h *hypervisor) self() dr.Machine {
	return dr.Machine{Hostname: "kvm1", ProductUUID: "00000000-0000-0000-0000-0000000000ff", Hypervisor: true}
}

// round is what the agent does once: obey, ship, report.
func (h *hypervisor) round() error {
	items, err := h.w.control.AgentItems(h.w.ctx, h.agent)
	if err != nil {
		return err
	}
	var observed []dr.Observed
	for _, it := range items {
		if it.Item.Generation == 0 {
			continue
		}
		o := dr.Observed{Item: it.Item.ID, Generation: it.Item.Generation, Phase: "fenced"}
		if it.Item.MayShip(it.Item.HomeUUID) {
			o.Phase = "delta"
			h.mu.Lock()
			if it.Item.StopSource && h.stubborn {
				o.Fault = &dr.HealthError{Message: "the guest did not shut down", RecommendedAction: "shut it down"}
				h.mu.Unlock()
				observed = append(observed, o)
				continue
			}
			h.off = it.Item.StopSource
			h.mu.Unlock()
			if p, ok := h.w.ship(it.Item); ok {
				if err := h.w.control.RecordPoints(h.w.ctx, h.w.vault, it.Item.ID, []dr.Point{p}, false); err != nil {
					return err
				}
				o.LastCaptureID = it.Item.CaptureID
			}
		}
		observed = append(observed, o)
	}
	return h.w.control.AgentSeen(h.w.ctx, h.agent, "1", h.self(), observed, dr.HostedMachine{Machine: h.w.machineNamed("vm2", homeUUID), Running: !h.isOff()})
}

func (h *hypervisor) isOff() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.off
}

func (h *hypervisor) be(stubborn bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.stubborn = stubborn
}

var moved = control.FailoverInput{Direction: "PrimaryToRecovery", ProviderInput: json.RawMessage(`{"instanceType":"HyperVReplicaAzure"}`)}

func newHostedWorld(t *testing.T) (*world, *hypervisor) {
	w := newWorld(t)
	opt := hurry
	opt.StopTimeout, opt.CaptureWait = 200*time.Millisecond, 200*time.Millisecond
	w.engineWith(w.store, opt)
	return w, newHypervisor(w)
}

func TestPlannedFailoverFromAHypervisor(t *testing.T) {
	w, h := newHostedWorld(t)
	h.be(true)
	id, err := w.control.PlannedFailover(w.ctx, w.ref, moved)
	if err != nil {
		t.Fatal(err)
	}
	if j := w.waitJob(id); len(j.Errors) == 0 || !strings.Contains(j.Errors[0].PossibleCauses, "did not shut down") {
		t.Errorf("got job %+v of a guest that ignores the power button", j)
	}
	w.waitPhase(dr.LegHyperVAzure, dr.PhaseProtected)
	if v := w.item(); v.Item.StopSource || v.Item.Fenced || v.Item.ActiveUUID != homeUUID || v.Item.PlannedFailoverStatus != "Failed" {
		t.Fatalf("got %+v, want the source active as before", v.Item)
	}
	h.be(false)
	w.ask(w.control.PlannedFailover(w.ctx, w.ref, moved))
	v := w.item()
	if !h.isOff() || !v.Item.Fenced || v.Item.ActiveUUID == homeUUID || v.Item.PlannedFailoverStatus != "Succeeded" || v.Projection.ActiveLocation != "Recovery" {
		t.Fatalf("got %+v, source off: %v; want it moved", v.Item, h.isOff())
	}
	w.ask(w.control.ApplyRecoveryPoint(w.ctx, w.ref, control.ApplyPointInput{RecoveryPointID: dr.PointID(v.Item.ID, dr.PointRef{Generation: 1, Sequence: 1})}))
	w.waitJob(w.ask(w.control.FailoverCommit(w.ctx, w.ref)).ID)
	if _, err := w.control.PlannedFailover(w.ctx, w.ref, control.FailoverInput{Direction: "RecoveryToPrimary", ProviderInput: json.RawMessage(`{"instanceType":"HyperVReplicaAzureFailback"}`)}); dr.CodeOf(err) != dr.CodeUnimplemented {
		t.Errorf("got %v for the way back, want that it is not implemented", err)
	}
}

func TestUnplannedFailoverShutsDownThroughTheHypervisor(t *testing.T) {
	w, h := newHostedWorld(t)
	w.ask(w.control.UnplannedFailover(w.ctx, w.ref, control.FailoverInput{Direction: "PrimaryToRecovery", SourceSiteOperations: "Required", ProviderInput: json.RawMessage(`{"instanceType":"HyperVReplicaAzure"}`)}))
	if v := w.item(); !h.isOff() || !strings.Contains(v.Item.SourceShutdownNote, "was shut down") {
		t.Errorf("got %+v, source off: %v", v.Item, h.isOff())
	}
}
