package api

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/lifeboat-dr/lifeboat/service/dr"
	"github.com/lifeboat-dr/lifeboat/service/job"
	"github.com/lifeboat-dr/lifeboat/service/queue"
	"github.com/lifeboat-dr/lifeboat/service/queue/embedded"
	"github.com/lifeboat-dr/lifeboat/service/queue/redisqueue"
	"github.com/lifeboat-dr/lifeboat/service/workflow"
)

// stage plays the data plane for a site: the engine is the real one; a worker answers its tasks at once, and the agents of the
// machines that run report and ship points. What the tasks do to bytes is tested where bytes are.
type stage struct {
	site  *site
	queue *redisqueue.Queue

	mu        sync.Mutex // guards what follows
	points    map[string]map[int64]int64
	closed    map[string]map[int64]bool
	instances map[string]job.Hardware // those that run
	owner     map[string]string       // machine of an instance
	homeRuns  bool
	agent     string
	captured  string           // the last capture that was asked for and made
	spacious  bool             // nothing is full any more
	pace      string           // phase that agents' first copies stay in; empty: they end at once
	plugged   []dr.MachineDisk // disks that the first machine has got since it enrolled
	more      []*other
}

// other is a machine at home beside the first.
type other struct {
	machine dr.Machine
	agent   string
	item    dr.ItemID
	runs    bool
}

const (
	runnerName = "cellar"

	mainReplicator = "replicator-main"
	homeReplicator = "replicator-home"
	datastore      = "store1"
)

// newStage is a site with a stage. Its engine runs until the test ends.
func newStage(t *testing.T) (*site, *stage) {
	t.Helper()
	return newDrivenStage(t, nil)
}

// newDrivenStage is a stage beside which drivers of providers may work.
func newDrivenStage(t *testing.T, drivers []dr.ProviderType) (*site, *stage) {
	t.Helper()
	srv, err := embedded.Start()
	if err != nil {
		t.Fatal(err)
	}
	st := &stage{queue: redisqueue.New(srv.Client(), redisqueue.Options{Lease: 2 * time.Second}), points: map[string]map[int64]int64{}, closed: map[string]map[int64]bool{},
		instances: map[string]job.Hardware{}, owner: map[string]string{}, homeRuns: true}
	t.Cleanup(func() {
		if err := srv.Close(); err != nil {
			t.Error(err)
		}
	})
	st.site = newDrivenSite(t, drivers)
	ctx, cancel := context.WithCancel(t.Context())
	var parts sync.WaitGroup
	engine := workflow.New(st.site.control.Store(), st.queue, workflow.Options{Tick: 20 * time.Millisecond, Housekeeping: 50 * time.Millisecond, RetryFirst: 10 * time.Millisecond, RetryMost: 50 * time.Millisecond}, nil)
	parts.Go(func() { engine.Run(ctx) })
	parts.Go(func() { st.work(ctx) })
	parts.Go(func() { st.live(ctx) })
	t.Cleanup(func() { cancel(); parts.Wait() })
	return st.site, st
}

// live lets replicators and agents report until ctx ends.
func (st *stage) live(ctx context.Context) {
	for ctx.Err() == nil {
		if err := st.round(ctx); err != nil && ctx.Err() == nil && dr.CodeOf(err) != dr.CodeNotFound {
			st.site.t.Errorf("report: %v", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(15 * time.Millisecond):
		}
	}
}

func (st *stage) round(ctx context.Context) error {
	st.mu.Lock()
	main := dr.Replicator{ID: mainReplicator, Hostname: "main", Site: dr.SiteRecovery, AgentVersion: "0.1.0", Roles: []string{dr.RoleProcessServer, dr.RoleConfigurationServer},
		Capabilities: []string{job.CapabilityRepository, job.CapabilityCompute, job.CapabilityWebhook, job.At(job.CapabilityScript, runnerName)}, DataAddress: "192.0.2.1:9443"}
	uuids := []string{}
	for id, h := range st.instances {
		main.Instances = append(main.Instances, dr.InstanceReport{ID: id, State: "running", HydratedPercent: 100})
		if h.Network == job.NetworkProduction {
			uuids = append(uuids, h.UUID)
		}
	}
	if st.homeRuns {
		uuids = append(uuids, testMachine.ProductUUID)
	}
	agent := st.agent
	plugged := slices.Clone(st.plugged)
	others := st.voices()
	st.mu.Unlock()
	home := dr.Replicator{ID: homeReplicator, Hostname: "home", Site: dr.SiteHome, AgentVersion: "0.1.0", Roles: []string{dr.RoleMasterTarget}, Capabilities: []string{job.CapabilityWriteback},
		Datastores: []dr.Datastore{{Name: datastore}}, VMs: []dr.VM{{UUID: testMachine.ProductUUID, Name: "web01", Datastore: datastore}}}
	for _, o := range others {
		home.VMs = append(home.VMs, dr.VM{UUID: o.home, Name: o.machine.Hostname, Datastore: datastore})
	}
	for _, r := range []dr.Replicator{main, home} {
		if err := errors.Join(st.site.control.EnsureReplicator(ctx, r), st.site.control.ReplicatorSeen(ctx, r)); err != nil {
			return err
		}
	}
	for _, o := range others {
		if o.machine.ProductUUID == "" {
			continue
		}
		if err := st.report(ctx, o.agent, o.machine); err != nil {
			return err
		}
	}
	if agent == "" {
		return nil
	}
	for _, uuid := range uuids {
		if slices.ContainsFunc(others, func(v voice) bool { return v.machine.ProductUUID == uuid }) {
			continue
		}
		m := testMachine
		m.ProductUUID, m.Disks = uuid, append(slices.Clip(m.Disks), plugged...)
		if err := st.report(ctx, agent, m); err != nil {
			return err
		}
	}
	return nil
}

// voice is an agent of another machine, in whichever machine runs on a network that it can report from; without an SMBIOS UUID
// none does.
type voice struct {
	agent, home string
	machine     dr.Machine
}

func (st *stage) voices() (out []voice) {
	for _, o := range st.more {
		v := voice{agent: o.agent, home: o.machine.ProductUUID, machine: o.machine}
		if !o.runs {
			v.machine.ProductUUID = ""
		}
		for id, h := range st.instances {
			if h.Network == job.NetworkProduction && st.owner[id] == string(o.item) {
				v.machine.ProductUUID = h.UUID
			}
		}
		out = append(out, v)
	}
	return out
}

// report is one poll of the agent in the machine.
func (st *stage) report(ctx context.Context, agent string, m dr.Machine) error {
	items, err := st.site.control.AgentItems(ctx, agent)
	if err != nil {
		return err
	}
	observed := []dr.Observed{}
	for _, it := range items {
		i := it.Item
		if i.Generation == 0 || !i.MayShip(m.ProductUUID) {
			continue
		}
		o := dr.Observed{Item: i.ID, Generation: i.Generation, Phase: "delta", ProgressPercent: 100, LastCaptureID: i.CaptureID}
		st.linger(&o)
		if p, ok := st.ship(string(i.ID), i.Generation, i.CaptureID); ok {
			for _, d := range i.Disks {
				p.Disks = append(p.Disks, d.ID)
			}
			if err := st.site.control.RecordPoints(ctx, i.Vault, i.ID, []dr.Point{p}, false); err != nil {
				return err
			}
		}
		observed = append(observed, o)
	}
	return st.site.control.AgentSeen(ctx, agent, "0.1.0", m, observed)
}

// ship makes a few points of a generation, and one for every capture that is asked for.
func (st *stage) ship(machine string, gen int64, capture string) (dr.Point, bool) {
	st.mu.Lock()
	defer st.mu.Unlock()
	n, open := st.points[machine][gen]
	if !open || st.pace != "" || st.closed[machine][gen] || n >= 3 && capture == st.captured {
		return dr.Point{}, false
	}
	st.captured = capture
	st.points[machine][gen] = n + 1
	return dr.Point{Generation: gen, Sequence: n + 1, Time: time.Now().UTC(), Consistency: dr.CrashConsistent, ChangedBytes: 4096, StoredBytes: 1024}, true
}

// hold keeps the copies that begin from now on in a phase, before their first point, or lets all of them end.
func (st *stage) hold(phase string) {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.pace = phase
}

// linger makes a report one of a copy that is held.
func (st *stage) linger(o *dr.Observed) {
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.pace != "" {
		o.Phase = st.pace
	}
	if o.Phase == copying {
		o.ProgressPercent = 40
	}
}

// work answers tasks until ctx ends.
func (st *stage) work(ctx context.Context) {
	routes := []queue.Route{{Site: dr.SiteRecovery, Capability: job.CapabilityRepository}, {Site: dr.SiteRecovery, Capability: job.CapabilityCompute}, {Site: dr.SiteHome, Capability: job.CapabilityWriteback},
		{Site: dr.SiteRecovery, Capability: job.CapabilityWebhook}, {Site: dr.SiteRecovery, Capability: job.At(job.CapabilityScript, runnerName)}}
	for ctx.Err() == nil {
		d, err := st.queue.Lease(ctx, "worker", routes, 100*time.Millisecond)
		if err != nil || d == nil {
			continue
		}
		result := queue.Result{TaskID: d.TaskID, JobID: d.JobID, Token: d.Token}
		if result.Failure = st.fault(d.Message); result.Failure == nil {
			if result.Output, err = json.Marshal(st.do(d.Message)); err != nil {
				st.site.t.Errorf("encode the output of %s: %v", d.Kind, err)
			}
		}
		if err := st.queue.Finish(ctx, d, result); err != nil && !errors.Is(err, queue.ErrLeaseLost) && ctx.Err() == nil {
			st.site.t.Errorf("finish %s: %v", d.Kind, err)
		}
	}
}

// Directories that an export fails in.
const fullDirectory = "/full"

// fault is what goes wrong with a task.
func (st *stage) fault(m queue.Message) *queue.Failure {
	st.mu.Lock()
	defer st.mu.Unlock()
	if m.Kind == job.KindPointExport && decode[job.PointExport](st, m).Directory == fullDirectory && !st.spacious {
		return &queue.Failure{Code: string(dr.CodeExhausted), Message: "there is no space left in " + fullDirectory, PossibleCauses: "the disk is full", RecommendedAction: "free space or choose another directory"}
	}
	return nil
}

// free makes space in the full directory.
func (st *stage) free() {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.spacious = true
}

func decode[T any](st *stage, m queue.Message) (p T) {
	if err := json.Unmarshal(m.Payload, &p); err != nil {
		st.site.t.Errorf("payload of %s: %v", m.Kind, err)
	}
	return p
}

func (st *stage) do(m queue.Message) any {
	st.mu.Lock()
	defer st.mu.Unlock()
	switch m.Kind {
	case job.KindGenerationOpen:
		p := decode[job.GenerationOpen](st, m)
		if st.points[p.MachineID] == nil {
			st.points[p.MachineID], st.closed[p.MachineID] = map[int64]int64{}, map[int64]bool{}
		}
		st.points[p.MachineID][p.Generation] += 0
	case job.KindGenerationClose:
		p := decode[job.GenerationClose](st, m)
		st.closed[p.MachineID][p.Generation] = true
		if n := st.points[p.MachineID][p.Generation]; n > 0 {
			return job.GenerationClosed{Last: &job.PointRef{Generation: p.Generation, Sequence: n}}
		}
		return job.GenerationClosed{}
	case job.KindInstanceStart:
		p := decode[job.InstanceStart](st, m)
		st.instances[p.InstanceID], st.owner[p.InstanceID] = p.Hardware, p.MachineID
		return job.InstanceStarted{InstanceID: p.InstanceID, Accelerator: "tcg"}
	case job.KindInstanceStop:
		delete(st.instances, decode[job.InstanceStop](st, m).InstanceID)
	case job.KindInstanceDestroy:
		delete(st.instances, decode[job.InstanceDestroy](st, m).InstanceID)
	case job.KindInstanceCapture:
		p := decode[job.InstanceCapture](st, m)
		st.points[p.MachineID][p.Generation]++
		return job.Captured{Point: job.PointRef{Generation: p.Generation, Sequence: st.points[p.MachineID][p.Generation]}, Time: time.Now().UTC()}
	case job.KindHomeStop:
		*st.homeOf(decode[job.HomeMachine](st, m).UUID) = false
	case job.KindScriptRun:
		return job.ScriptRan{Output: "opened", Runner: runnerName}
	case job.KindWebhookCall:
		return job.WebhookCalled{Status: 202, Output: "thanks", Tries: 1}
	case job.KindHomeWriteback:
		return job.WrittenBack{ComparedBytes: 100, WrittenBytes: 1}
	case job.KindHomeStart:
		*st.homeOf(decode[job.HomeMachine](st, m).UUID) = true
		return job.InstanceStarted{Accelerator: "tcg"}
	case job.KindPointVerify:
		return job.PointVerified{Bytes: 1 << 20}
	}
	return job.Empty{}
}

// enrol lets the machine's agent enrol and report from now on.
func (st *stage) enrol(container string) string {
	item, agent := st.site.enrol(container)
	st.mu.Lock()
	defer st.mu.Unlock()
	st.agent = agent
	return item
}

// plug puts a disk into the first machine.
func (st *stage) plug(d dr.MachineDisk) {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.plugged = append(st.plugged, d)
}

// lose makes the production machine vanish.
func (st *stage) lose() {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.homeRuns = false
	for _, o := range st.more {
		o.runs = false
	}
}

// homeOf tells whether the home machine with the UUID runs.
func (st *stage) homeOf(uuid string) *bool {
	for _, o := range st.more {
		if o.machine.ProductUUID == uuid {
			return &o.runs
		}
	}
	return &st.homeRuns
}

// another enrols one more machine, which runs at home, and returns the name of its protectable item.
func (st *stage) another(name, uuid string) *other {
	st.site.t.Helper()
	key := st.site.must(200, "POST", fabricURL+"/generateRegistrationKey", `{"properties":{"role":"agent"}}`)
	o := &other{machine: testMachine, runs: true}
	o.machine.Hostname, o.machine.ProductUUID = name, uuid
	e, err := st.site.control.EnrolAgent(st.site.t.Context(), key.at("registrationKey").(string), "fingerprint-"+name, o.machine)
	if err != nil {
		st.site.t.Fatal(err)
	}
	o.agent = e.ID
	st.mu.Lock()
	defer st.mu.Unlock()
	st.more = append(st.more, o)
	return o
}
