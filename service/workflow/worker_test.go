package workflow_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/lifeboat-dr/lifeboat/service/dr"
	"github.com/lifeboat-dr/lifeboat/service/job"
	"github.com/lifeboat-dr/lifeboat/service/queue"
)

// work is a worker: it leases tasks and does them.
func (w *world) work(ctx context.Context) {
	routes := []queue.Route{{Site: dr.SiteRecovery, Capability: job.CapabilityRepository}, {Site: dr.SiteRecovery, Capability: job.CapabilityCompute},
		{Site: dr.SiteRecovery, Capability: job.CapabilityScript}, {Site: dr.SiteRecovery, Capability: job.At(job.CapabilityScript, runner)}, {Site: dr.SiteRecovery, Capability: job.CapabilityWebhook},
		{Site: dr.SiteHome, Capability: job.CapabilityWriteback}}
	for ctx.Err() == nil {
		w.mu.Lock()
		take := routes
		if w.deaf {
			take = routes[:5]
		}
		w.mu.Unlock()
		d, err := w.queue.Lease(ctx, "worker", take, 100*time.Millisecond)
		if err != nil || d == nil {
			continue
		}
		out, failure := w.do(d.Message)
		if d.Cancelled {
			failure = &queue.Failure{Code: string(dr.CodeConflict), Message: "cancelled"}
		}
		r := queue.Result{TaskID: d.TaskID, JobID: d.JobID, Token: d.Token, Failure: failure}
		if failure == nil {
			r.Output, err = json.Marshal(out)
			if err != nil {
				w.t.Errorf("encode output of %s: %v", d.Kind, err)
			}
		}
		if err := w.queue.Finish(ctx, d, r); err != nil && !errors.Is(err, queue.ErrLeaseLost) && ctx.Err() == nil {
			w.t.Errorf("finish %s: %v", d.Kind, err)
		}
	}
}

// fail lets the next tasks of the kind fail.
func (w *world) fail(kind string, fs ...queue.Failure) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.failures[kind] = fs
}

func refuse(code dr.Code, format string, a ...any) *queue.Failure {
	return &queue.Failure{Code: string(code), Message: fmt.Sprintf(format, a...)}
}

func read[T any](w *world, m queue.Message) T {
	var p T
	if err := json.Unmarshal(m.Payload, &p); err != nil {
		w.t.Errorf("payload of %s: %v", m.Kind, err)
	}
	return p
}

// do does one task on the maps.
func (w *world) do(m queue.Message) (any, *queue.Failure) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.done[m.Kind]++
	if fs := w.failures[m.Kind]; len(fs) > 0 {
		w.failures[m.Kind] = fs[1:]
		return nil, &fs[0]
	}
	switch m.Kind {
	case job.KindGenerationOpen:
		p := read[job.GenerationOpen](w, m)
		return w.openGeneration(p)
	case job.KindGenerationClose:
		p := read[job.GenerationClose](w, m)
		g := w.gens[p.MachineID][p.Generation]
		if g == nil {
			return nil, refuse(dr.CodeNotFound, "generation %d was never opened", p.Generation)
		}
		if !g.closed {
			w.trace = append(w.trace, "fence "+w.nameOf(p.MachineID))
		}
		g.closed = true
		out := job.GenerationClosed{}
		if g.points > 0 {
			out.Last = &job.PointRef{Generation: p.Generation, Sequence: g.points}
		}
		return out, nil
	case job.KindPointPin:
		p := read[job.PointPin](w, m)
		if g := w.gens[p.MachineID][p.Point.Generation]; g == nil || p.Point.Sequence < 1 || p.Point.Sequence > g.points {
			return nil, refuse(dr.CodeNotFound, "there is no point %+v", p.Point)
		}
		w.pins[p.Owner] = p.Point
		return job.Empty{}, nil
	case job.KindPointVerify, job.KindPointExport:
		p := read[job.PointVerify](w, m)
		held := false
		for _, point := range w.pins {
			held = held || point == p.Point
		}
		if !held {
			w.t.Errorf("%s: point %+v may be pruned beneath it", m.Kind, p.Point)
		}
		return job.Empty{}, nil
	case job.KindVaultFileWrite:
		w.vaultFile = string(read[job.VaultFileWrite](w, m).File)
		return job.Empty{}, nil
	case job.KindPointUnpin:
		delete(w.pins, read[job.PointPin](w, m).Owner)
		return job.Empty{}, nil
	case job.KindInstanceStart:
		return w.startInstance(read[job.InstanceStart](w, m))
	case job.KindInstanceStop:
		p := read[job.InstanceStop](w, m)
		i := w.instances[p.InstanceID]
		if i == nil {
			return nil, refuse(dr.CodeNotFound, "there is no instance %s", p.InstanceID)
		}
		i.running = false
		return job.Empty{}, nil
	case job.KindInstanceDestroy:
		delete(w.instances, read[job.InstanceDestroy](w, m).InstanceID)
		return job.Empty{}, nil
	case job.KindInstanceCapture:
		p := read[job.InstanceCapture](w, m)
		i, g := w.instances[p.InstanceID], w.gens[p.MachineID][p.Generation]
		if i == nil || i.running || g == nil || g.closed {
			return nil, refuse(dr.CodeConflict, "instance %s cannot be captured into generation %d", p.InstanceID, p.Generation)
		}
		g.points++
		return job.Captured{Point: job.PointRef{Generation: p.Generation, Sequence: g.points}, Time: time.Now()}, nil
	case job.KindHomeStop:
		p := read[job.HomeMachine](w, m)
		w.trace = append(w.trace, "stop "+w.nameOf(p.MachineID))
		w.homeOf(p.UUID).running = false
		return job.Empty{}, nil
	case job.KindScriptRun:
		p := read[job.ScriptRun](w, m)
		w.trace = append(w.trace, "script "+p.Script)
		return job.ScriptRan{Output: "ran with " + string(p.Context), Runner: runner}, nil
	case job.KindWebhookCall:
		p := read[job.WebhookCall](w, m)
		w.trace = append(w.trace, "webhook "+p.URL)
		return job.WebhookCalled{Status: 200, Output: "thanks", Tries: 1}, nil
	case job.KindHomeCapture:
		p := read[job.HomeCapture](w, m)
		g := w.gens[p.MachineID][p.Generation]
		if w.home.running || g == nil || g.closed || p.UUID != homeUUID || p.Datastore != homeStore || len(p.Disks) != 2 || !p.Disks[0].OS {
			return nil, refuse(dr.CodeConflict, "home machine cannot be captured: %+v", p)
		}
		g.points++
		return job.Captured{Point: job.PointRef{Generation: p.Generation, Sequence: g.points}, Time: time.Now()}, nil
	case job.KindHomeWriteback:
		p := read[job.HomeWriteback](w, m)
		if h := w.homeOf(p.UUID); h.running || h.uuid != p.UUID || p.Datastore != homeStore {
			return nil, refuse(dr.CodeConflict, "home machine %s in %s cannot be written", p.UUID, p.Datastore)
		}
		w.homePoint = p.Point
		return job.WrittenBack{ComparedBytes: 100, WrittenBytes: 1}, nil
	case job.KindHomeStart:
		p := read[job.HomeMachine](w, m)
		for id, i := range w.instances {
			if i.running && i.item == p.MachineID {
				w.t.Errorf("home is started while instance %s runs", id)
			}
		}
		w.homeOf(p.UUID).running = true
		w.trace = append(w.trace, "home "+w.nameOf(p.MachineID))
		return job.InstanceStarted{Accelerator: "tcg"}, nil
	case job.KindMachineDelete:
		p := read[job.MachineDelete](w, m)
		delete(w.gens, p.MachineID)
		return job.Empty{}, nil
	case job.KindRepositoryPrune, job.KindRepositoryReport:
		return job.Empty{}, nil
	}
	return nil, refuse(dr.CodeUnimplemented, "no such kind %s", m.Kind)
}

// homeOf is the home machine with the UUID.
func (w *world) homeOf(uuid string) *machine {
	for _, s := range w.more {
		if s.uuid == uuid {
			return &s.machine
		}
	}
	return &w.home
}

// nameOf is the name of the machine that an item protects.
func (w *world) nameOf(item string) string {
	for _, s := range w.more {
		if string(s.item) == item {
			return s.name
		}
	}
	return "vm1"
}

func (w *world) openGeneration(p job.GenerationOpen) (any, *queue.Failure) {
	gens := w.gens[p.MachineID]
	if gens == nil {
		gens = map[int64]*generation{}
		w.gens[p.MachineID] = gens
	}
	if old := gens[p.Generation]; old != nil {
		if (old.base == nil) != (p.Base == nil) || old.base != nil && *old.base != *p.Base {
			return nil, refuse(dr.CodeConflict, "generation %d is open on another base", p.Generation)
		}
		return job.Empty{}, nil
	}
	if before := gens[p.Generation-1]; p.Generation > 1 && (before == nil || !before.closed) {
		return nil, refuse(dr.CodeConflict, "generation %d is not closed", p.Generation-1)
	}
	gens[p.Generation] = &generation{base: p.Base}
	return job.Empty{}, nil
}

func (w *world) startInstance(p job.InstanceStart) (any, *queue.Failure) {
	i := w.instances[p.InstanceID]
	if i == nil {
		if w.pins[p.InstanceID] != p.Point {
			w.t.Errorf("instance %s is started from %+v, which is not held for it", p.InstanceID, p.Point)
		}
		if p.Hardware.OSDisk != "os" || p.Hardware.Disks[0] != "os" || p.Hardware.UUID == homeUUID {
			w.t.Errorf("instance %s has unexpected hardware %+v", p.InstanceID, p.Hardware)
		}
		i = &instance{machine: machine{uuid: p.Hardware.UUID}, network: p.Hardware.Network, point: p.Point, item: p.MachineID}
		w.instances[p.InstanceID] = i
	}
	if p.Hydrate != (p.Hardware.Network == job.NetworkProduction) {
		w.t.Errorf("instance %s: hydrate %v on network %s", p.InstanceID, p.Hydrate, p.Hardware.Network)
	}
	if !i.running {
		w.trace = append(w.trace, "start "+w.nameOf(p.MachineID))
	}
	i.running = true
	return job.InstanceStarted{InstanceID: p.InstanceID, Accelerator: "tcg", Disks: w.gens[p.MachineID][p.Point.Generation].disks[p.Point.Sequence]}, nil
}
