package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/lifeboat-dr/lifeboat/service/control"
	"github.com/lifeboat-dr/lifeboat/service/dr"
	"github.com/lifeboat-dr/lifeboat/service/job"
	"github.com/lifeboat-dr/lifeboat/service/keyfile"
	"github.com/lifeboat-dr/lifeboat/service/queue"
	"github.com/lifeboat-dr/lifeboat/service/queue/redisqueue"
	"github.com/lifeboat-dr/lifeboat/service/store/sqlstore"
)

// play is the data plane behind the replicas: a worker that answers tasks and counts them, and agents that report and ship. It is
// on the same PostgreSQL and Redis and is never killed, so that whatever is done twice or never is the replicas' fault.
type play struct {
	t       *testing.T
	store   *sqlstore.Store
	control *control.Service
	queue   *redisqueue.Queue

	mu       sync.Mutex // guards what follows
	machines []*played
	of       map[string]*played // by item
	points   map[string]int64   // by machine and generation
	closed   map[string]bool
	running  map[string]bool // instances
	tasks    map[string]int  // how often each was delivered
}

// played is a machine, at home or recovered, and the agent in it.
type played struct {
	machine  dr.Machine
	agent    string
	runs     bool
	captured string
}

// voice is an agent that can be heard, as its machine is now.
type voice struct {
	*played
	now dr.Machine
}

func newPlay(t *testing.T, database, redis, key string) *play {
	t.Helper()
	db, err := sqlstore.OpenPostgres(t.Context(), database)
	if err != nil {
		t.Fatal(err)
	}
	seal, err := keyfile.Open(key)
	if err != nil {
		t.Fatal(err)
	}
	rdb, err := redisqueue.Dial(redis)
	if err != nil {
		t.Fatal(err)
	}
	p := &play{t: t, store: db, queue: redisqueue.New(rdb, redisqueue.Options{}), of: map[string]*played{}, points: map[string]int64{}, closed: map[string]bool{}, running: map[string]bool{}, tasks: map[string]int{}}
	p.control = control.New(control.Config{Store: db, Sealer: seal, MakeVault: makeVault, BucketURL: func(string) string { return "mem://" }})
	ctx, cancel := context.WithCancel(t.Context())
	var parts sync.WaitGroup
	parts.Go(func() { p.work(ctx) })
	parts.Go(func() { p.live(ctx) })
	t.Cleanup(func() {
		cancel()
		parts.Wait()
		if err := errors.Join(rdb.Close(), seal.Close(), db.Close()); err != nil {
			t.Error(err)
		}
	})
	return p
}

// add enrols a machine and returns the name of its protectable item.
func (p *play) add(ctx context.Context, vault, fabric, name string) (string, error) {
	key, err := p.control.CreateRegistrationKey(ctx, control.RegistrationKeyInput{Vault: vault, Fabric: fabric, Role: control.RoleAgent})
	if err != nil {
		return "", err
	}
	m := dr.Machine{Hostname: name, ProductUUID: dr.NamedGUID("machine", name), Platform: "vm", OSType: "Linux", CPUs: 1, MemoryBytes: 1 << 28, Firmware: "bios",
		Disks: []dr.MachineDisk{{ID: "vda", SizeBytes: 1 << 30, SectorSize: 512, IsOSDisk: true}}}
	who, err := p.control.EnrolAgent(ctx, key.Key, "fingerprint-"+name, m)
	if err != nil {
		return "", err
	}
	agent, err := p.control.Agent(ctx, who.ID)
	if err != nil {
		return "", err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.machines = append(p.machines, &played{machine: m, agent: who.ID, runs: true})
	return agent.ProtectableItem, nil
}

// lose makes a machine at home vanish.
func (p *play) lose(name string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, m := range p.machines {
		if m.machine.Hostname == name {
			m.runs = false
		}
	}
}

func (p *play) live(ctx context.Context) {
	for ctx.Err() == nil {
		if err := p.round(ctx); err != nil && ctx.Err() == nil && dr.CodeOf(err) != dr.CodeNotFound {
			p.t.Errorf("report: %v", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(200 * time.Millisecond):
		}
	}
}

func (p *play) round(ctx context.Context) error {
	main := dr.Replicator{ID: "replicator-main", Hostname: "main", Site: dr.SiteRecovery, AgentVersion: "1", Roles: []string{dr.RoleProcessServer}, Capabilities: []string{job.CapabilityRepository, job.CapabilityCompute},
		DataAddress: "192.0.2.1:9443"}
	p.mu.Lock()
	for id := range p.running {
		main.Instances = append(main.Instances, dr.InstanceReport{ID: id, State: "running", HydratedPercent: 100})
	}
	p.mu.Unlock()
	if err := errors.Join(p.control.EnsureReplicator(ctx, main), p.control.ReplicatorSeen(ctx, main)); err != nil {
		return err
	}
	p.mu.Lock()
	var voices []voice
	for _, m := range p.machines {
		if m.runs {
			voices = append(voices, voice{m, m.machine})
		}
	}
	p.mu.Unlock()
	for _, m := range voices {
		if err := p.report(ctx, m); err != nil {
			return err
		}
	}
	return nil
}

// report is one poll of an agent.
func (p *play) report(ctx context.Context, m voice) error {
	items, err := p.control.AgentItems(ctx, m.agent)
	if err != nil {
		return err
	}
	observed := []dr.Observed{}
	for _, it := range items {
		i := it.Item
		if i.Generation == 0 || !i.MayShip(m.now.ProductUUID) {
			continue
		}
		if point, ok := p.ship(m.played, string(i.ID), i.Generation, i.CaptureID); ok {
			if err := p.control.RecordPoints(ctx, i.Vault, i.ID, []dr.Point{point}, false); err != nil {
				return err
			}
		}
		observed = append(observed, dr.Observed{Item: i.ID, Generation: i.Generation, Phase: "delta", ProgressPercent: 100, LastCaptureID: i.CaptureID})
	}
	return p.control.AgentSeen(ctx, m.agent, "1", m.now, observed)
}

func generation(machine string, gen int64) string { return fmt.Sprintf("%s/%d", machine, gen) }

// ship makes two points of a generation, and one for every capture that is asked for.
func (p *play) ship(m *played, machine string, gen int64, capture string) (dr.Point, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.of[machine] = m
	at := generation(machine, gen)
	n, open := p.points[at]
	if !open || p.closed[at] || n >= 2 && capture == m.captured {
		return dr.Point{}, false
	}
	m.captured = capture
	p.points[at] = n + 1
	return dr.Point{Generation: gen, Sequence: n + 1, Time: time.Now().UTC(), Consistency: dr.CrashConsistent, ChangedBytes: 4096, StoredBytes: 1024}, true
}

// work answers tasks until ctx ends.
func (p *play) work(ctx context.Context) {
	routes := []queue.Route{{Site: dr.SiteRecovery, Capability: job.CapabilityRepository}, {Site: dr.SiteRecovery, Capability: job.CapabilityCompute}}
	for ctx.Err() == nil {
		d, err := p.queue.Lease(ctx, "worker", routes, time.Second)
		if err != nil || d == nil {
			continue
		}
		p.mu.Lock()
		p.tasks[d.TaskID]++
		p.mu.Unlock()
		out, err := p.do(d.Message)
		r := queue.Result{TaskID: d.TaskID, JobID: d.JobID, Token: d.Token, Output: out}
		if err != nil {
			p.t.Errorf("task %s: %v", d.TaskID, err)
		} else if err := p.queue.Finish(ctx, d, r); err != nil && ctx.Err() == nil {
			p.t.Errorf("finish %s of %s: %v", d.Kind, d.TaskID, err)
		}
	}
}

func (p *play) do(m queue.Message) (json.RawMessage, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var in struct { // what the payloads have in common
		MachineID  string `json:"machineId"`
		Generation int64  `json:"generation"`
		InstanceID string `json:"instanceId"`
		Hardware   job.Hardware
	}
	if err := json.Unmarshal(m.Payload, &in); err != nil {
		return nil, err
	}
	at := generation(in.MachineID, in.Generation)
	var out any = job.Empty{}
	switch m.Kind {
	case job.KindGenerationOpen:
		p.points[at] += 0
	case job.KindGenerationClose:
		p.closed[at] = true
		closed := job.GenerationClosed{}
		if n := p.points[at]; n > 0 {
			closed.Last = &job.PointRef{Generation: in.Generation, Sequence: n}
		}
		out = closed
	case job.KindInstanceDestroy:
		delete(p.running, in.InstanceID)
	case job.KindInstanceStart:
		p.running[in.InstanceID] = true
		if in.Hardware.Network == job.NetworkProduction { // the agent came along with the disks
			recovered := p.of[in.MachineID]
			recovered.machine.ProductUUID, recovered.runs = in.Hardware.UUID, true
		}
		out = job.InstanceStarted{InstanceID: in.InstanceID, Accelerator: "tcg"}
	}
	return json.Marshal(out)
}
