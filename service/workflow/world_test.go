package workflow_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/lifeboat-dr/lifeboat/service/control"
	"github.com/lifeboat-dr/lifeboat/service/dr"
	"github.com/lifeboat-dr/lifeboat/service/job"
	"github.com/lifeboat-dr/lifeboat/service/queue"
	"github.com/lifeboat-dr/lifeboat/service/queue/embedded"
	"github.com/lifeboat-dr/lifeboat/service/queue/redisqueue"
	"github.com/lifeboat-dr/lifeboat/service/store"
	"github.com/lifeboat-dr/lifeboat/service/store/sqlstore"
	"github.com/lifeboat-dr/lifeboat/service/workflow"
)

// patience bounds every wait of the tests in real time.
const patience = 60 * time.Second

const (
	homeUUID  = "11111111-aaaa-4aaa-8aaa-000000000001"
	homeStore = "store1"
	homeRep   = "replicator-home"
	mainRep   = "replicator-main"
)

// world is everything around the control plane: a bucket, a recovery site and a home site with one machine, played by a worker
// that keeps the behaviour of the real one (idempotent, refusing what cannot be) in a few maps.
type world struct {
	t       *testing.T
	ctx     context.Context
	store   store.Store
	queue   bothSides
	options workflow.Options // of engines
	round   time.Duration    // between reports
	// patience bounds every wait.
	patience time.Duration
	control  *control.Service
	vault    string
	ref      control.Ref // of the item
	agentID  string
	flush    func() error // the queue loses everything
	wraps    int          // recovery keys made; the test's goroutine

	mu        sync.Mutex // guards what follows
	gens      map[string]map[int64]*generation
	pins      map[string]job.PointRef // by owner
	instances map[string]*instance
	home      machine
	more      []*source    // machines beside the first
	trace     []string     // what workers did that an order matters for
	idle      []string     // capabilities that are reported and that no worker takes tasks of
	homePoint job.PointRef // what the home disks hold, after a write-back
	failures  map[string][]queue.Failure
	done      map[string]int
	silent    bool               // agents say nothing
	deaf      bool               // the master target takes no tasks
	dry       bool               // replicas' disks do not fill
	vaultFile string             // that the bucket holds, once one was written
	lame      bool               // agents report and capture nothing
	tell      func(*dr.Observed) // what an agent that may ship reports besides; may be nil
	answered  map[string]bool    // captures that were asked for and made
}

type generation struct {
	base   *job.PointRef
	points int64
	disks  map[int64][]string // of points, by sequence
	closed bool
}

// source is a machine at the home site beside the first.
type source struct {
	machine
	name, agentID string
	ref           control.Ref
	item          dr.ItemID
}

type machine struct {
	uuid    string
	running bool
}

type instance struct {
	machine
	network job.Network
	point   job.PointRef
	item    string
}

// bothSides of a queue.
type bothSides interface {
	queue.Control
	queue.Workers
}

// hurry is for engines in real time.
var hurry = workflow.Options{Tick: 20 * time.Millisecond, Housekeeping: 50 * time.Millisecond, RetryFirst: 10 * time.Millisecond, RetryMost: 50 * time.Millisecond}

// newWorld makes a world in real time, with an engine that is in a hurry.
func newWorld(t *testing.T) *world {
	t.Helper()
	t.Parallel() // most of the time is spent waiting
	ctx, stop := context.WithTimeout(t.Context(), 2*patience)
	t.Cleanup(stop)
	return makeWorld(ctx, t, newMemQueue(300*time.Millisecond), 15*time.Millisecond, hurry)
}

// newRedisWorld is newWorld on the queue of the embedded shape.
func newRedisWorld(t *testing.T) *world {
	t.Helper()
	t.Parallel()
	srv, err := embedded.Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := srv.Close(); err != nil {
			t.Error(err)
		}
	})
	ctx, stop := context.WithTimeout(t.Context(), 2*patience)
	t.Cleanup(stop)
	w := makeWorld(ctx, t, redisqueue.New(srv.Client(), redisqueue.Options{Lease: 300 * time.Millisecond}), 15*time.Millisecond, hurry)
	w.flush = func() error { return srv.Client().FlushAll(ctx).Err() }
	return w
}

func makeWorld(ctx context.Context, t *testing.T, q bothSides, round time.Duration, opt workflow.Options) *world {
	t.Helper()
	st, err := sqlstore.OpenSQLite(ctx, filepath.Join(t.TempDir(), "lifeboat.db"))
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, ctx: ctx, store: st, queue: q, round: round, patience: patience, options: opt,
		gens: map[string]map[int64]*generation{}, pins: map[string]job.PointRef{}, instances: map[string]*instance{}, home: machine{homeUUID, true},
		failures: map[string][]queue.Failure{}, done: map[string]int{}, answered: map[string]bool{}}
	sealer, err := control.NewKeySealer([32]byte{1})
	if err != nil {
		t.Fatal(err)
	}
	w.control = control.New(control.Config{Store: st, Sealer: sealer, BucketURL: func(id string) string { return "mem://" + id }, Progress: w.queue,
		MakeVault: func(string) (control.VaultSecrets, string, error) {
			return control.VaultSecrets{DataKey: make([]byte, 32), VaultFile: []byte("first")}, "recovery-key", nil
		},
		WrapKey: func(string, []byte) ([]byte, string, error) {
			w.wraps++
			return fmt.Appendf(nil, "file %d", w.wraps), fmt.Sprintf("key %d", w.wraps), nil
		}})
	w.build()
	var wg sync.WaitGroup
	run, cancel := context.WithCancel(ctx)
	for range 2 {
		wg.Go(func() { w.work(run) })
	}
	wg.Go(func() { w.live(run) })
	t.Cleanup(func() {
		cancel()
		wg.Wait()
		if err := st.Close(); err != nil {
			t.Error(err)
		}
	})
	return w
}

// build makes vault, fabric, policies, mapping, replicators and an enrolled agent.
func (w *world) build() {
	w.t.Helper()
	must := func(err error) {
		w.t.Helper()
		if err != nil {
			w.t.Fatal(err)
		}
	}
	v, err := w.control.PutVault(w.ctx, dr.VaultKey{Subscription: "s", ResourceGroup: "g", Name: "v"}, control.VaultInput{Location: "here"})
	must(err)
	w.vault = v.Vault.ID
	fabric := control.Ref{Vault: w.vault, Fabric: "site"}
	_, err = w.control.PutFabric(w.ctx, fabric, control.FabricInput{Kind: dr.FabricInMageRcm})
	must(err)
	containers, err := w.control.Containers(w.ctx, fabric, control.Paging{})
	must(err)
	w.ref = control.Ref{Vault: w.vault, Fabric: "site", Container: containers.Items[0].Container.Name, Name: "vm1"}
	_, err = w.control.PutPolicy(w.ctx, control.Ref{Vault: w.vault, Name: "p"}, control.PolicyInput{ProviderSpecificInput: json.RawMessage(`{"instanceType":"InMageRcm"}`)})
	must(err)
	mapping := w.ref
	mapping.Name = "m"
	_, err = w.control.PutMapping(w.ctx, mapping, control.MappingInput{PolicyID: "/x/replicationPolicies/p"})
	must(err)
	for _, r := range []dr.Replicator{
		{ID: mainRep, Hostname: "main", Site: dr.SiteRecovery, Roles: []string{dr.RoleProcessServer}, Capabilities: []string{job.CapabilityRepository, job.CapabilityCompute}},
		{ID: homeRep, Hostname: "home", Site: dr.SiteHome, Roles: []string{dr.RoleMasterTarget}, Capabilities: []string{job.CapabilityWriteback}},
	} {
		must(w.control.EnsureReplicator(w.ctx, r))
	}
	must(w.report())
	key, err := w.control.CreateRegistrationKey(w.ctx, control.RegistrationKeyInput{Vault: w.vault, Fabric: "site", Role: control.RoleAgent})
	must(err)
	who, err := w.control.EnrolAgent(w.ctx, key.Key, "fingerprint", w.machine(homeUUID))
	must(err)
	w.agentID = who.ID
}

func (w *world) machine(uuid string) dr.Machine { return w.machineNamed("vm1", uuid) }

func (w *world) machineNamed(name, uuid string) dr.Machine {
	return dr.Machine{Hostname: name, ProductUUID: uuid, Platform: "vm", OSType: "Linux", CPUs: 1, MemoryBytes: 1 << 28, Firmware: "bios",
		Disks: []dr.MachineDisk{{ID: "data", SizeBytes: 1 << 20}, {ID: "os", SizeBytes: 1 << 30, IsOSDisk: true}, {ID: "cd", UnsupportedReason: "removable"}}}
}

// engine runs an engine until the test ends, or stop is called.
func (w *world) engine(s store.Store) (stop func()) {
	return w.engineWith(s, w.options)
}

func (w *world) engineWith(s store.Store, opt workflow.Options) (stop func()) {
	ctx, cancel := context.WithCancel(w.ctx)
	ended := w.runEngineWith(ctx, s, opt)
	stop = func() { cancel(); <-ended }
	w.t.Cleanup(stop)
	return stop
}

// runEngine runs an engine until ctx ends; the channel is closed when it has stopped.
func (w *world) runEngine(ctx context.Context, s store.Store) <-chan struct{} {
	return w.runEngineWith(ctx, s, w.options)
}

func (w *world) runEngineWith(ctx context.Context, s store.Store, opt workflow.Options) <-chan struct{} {
	e := workflow.New(s, w.queue, opt, nil)
	ended := make(chan struct{})
	go func() { defer close(ended); e.Run(ctx) }()
	return ended
}

// live lets agents and replicators report and ship, as their polls would.
func (w *world) live(ctx context.Context) {
	for ctx.Err() == nil {
		if err := errors.Join(w.report(), w.agents()); err != nil && ctx.Err() == nil && dr.CodeOf(err) != dr.CodeNotFound {
			w.t.Errorf("report: %v", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(w.round):
		}
	}
}

// report posts what the replicators see.
func (w *world) report() error {
	w.mu.Lock()
	main := dr.Replicator{ID: mainRep, Hostname: "main", Site: dr.SiteRecovery, Roles: []string{dr.RoleProcessServer}, Capabilities: []string{job.CapabilityRepository, job.CapabilityCompute,
		job.CapabilityWebhook, job.CapabilityScript, job.At(job.CapabilityScript, runner)}}
	main.Capabilities = append(main.Capabilities, w.idle...)
	for id, i := range w.instances {
		state := "stopped"
		if i.running {
			state = "running"
		}
		hydrated := 100
		if w.dry {
			hydrated = 10
		}
		main.Instances = append(main.Instances, dr.InstanceReport{ID: id, State: state, HydratedPercent: hydrated})
	}
	home := dr.Replicator{ID: homeRep, Hostname: "home", Site: dr.SiteHome, Roles: []string{dr.RoleMasterTarget}, Capabilities: []string{job.CapabilityWriteback},
		Datastores: []dr.Datastore{{Name: homeStore}}, VMs: []dr.VM{{UUID: homeUUID, Name: "vm1", Datastore: homeStore}}}
	for _, s := range w.more {
		home.VMs = append(home.VMs, dr.VM{UUID: s.uuid, Name: s.name, Datastore: homeStore})
	}
	w.mu.Unlock()
	return errors.Join(w.control.ReplicatorSeen(w.ctx, main), w.control.ReplicatorSeen(w.ctx, home))
}

// agents lets the agent in every machine that runs (but for isolated ones) do one round: report, and ship a point if it may.
func (w *world) agents() error {
	if w.agentID == "" {
		return nil
	}
	w.mu.Lock()
	type voice struct{ agent, name, uuid string }
	var voices []voice
	if w.home.running && !w.silent {
		voices = append(voices, voice{w.agentID, "vm1", w.home.uuid})
	}
	for _, s := range w.more {
		if s.running && !w.silent {
			voices = append(voices, voice{s.agentID, s.name, s.uuid})
		}
	}
	for _, i := range w.instances {
		if !i.running || i.network != job.NetworkProduction || w.silent {
			continue
		}
		v := voice{w.agentID, "vm1", i.uuid}
		for _, s := range w.more {
			if string(s.item) == i.item {
				v.agent, v.name = s.agentID, s.name
			}
		}
		voices = append(voices, v)
	}
	w.mu.Unlock()
	for _, v := range voices {
		if err := w.agent(v.agent, v.name, v.uuid); err != nil {
			return err
		}
	}
	return nil
}

func (w *world) agent(id, name, uuid string) error {
	items, err := w.control.AgentItems(w.ctx, id)
	if err != nil {
		return err
	}
	var observed []dr.Observed
	for _, it := range items {
		if it.Item.Generation == 0 {
			continue
		}
		if it.Item.MustStop(uuid) {
			w.stop(uuid)
		}
		o := dr.Observed{Item: it.Item.ID, Generation: it.Item.Generation, Phase: "fenced"}
		if it.Item.MayShip(uuid) {
			o.Phase, o.ProgressPercent = "delta", 100
			if p, ok := w.ship(it.Item); ok {
				if err := w.control.RecordPoints(w.ctx, w.vault, it.Item.ID, []dr.Point{p}, false); err != nil {
					return err
				}
				o.LastCaptureID = it.Item.CaptureID
			}
			w.mu.Lock()
			if w.tell != nil {
				w.tell(&o)
			}
			w.mu.Unlock()
		}
		observed = append(observed, o)
	}
	return w.control.AgentSeen(w.ctx, id, "1", w.machineNamed(name, uuid), observed)
}

// ship adds a point to the item's generation if that is open: a few, and one for each capture that is asked for.
func (w *world) ship(it dr.Item) (dr.Point, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	machine, gen := string(it.ID), it.Generation
	g := w.gens[machine][gen]
	if w.lame {
		return dr.Point{}, false
	}
	asked := it.CaptureID != "" && !w.answered[it.CaptureID]
	if g != nil && !g.closed {
		w.answered[it.CaptureID] = true
	}
	if g == nil || g.closed || g.points >= 3 && !asked {
		return dr.Point{Generation: gen, Sequence: 1, Time: time.Now().UTC(), Consistency: dr.CrashConsistent}, g != nil && g.points > 0
	}
	g.points++
	var disks []string
	for _, d := range it.Disks {
		disks = append(disks, d.ID)
	}
	if g.disks == nil {
		g.disks = map[int64][]string{}
	}
	g.disks[g.points] = disks
	return dr.Point{Generation: gen, Sequence: g.points, Time: time.Now().UTC(), Consistency: dr.CrashConsistent, Disks: disks}, true
}

func (w *world) item() control.ItemView {
	w.t.Helper()
	v, err := w.control.Item(w.ctx, w.ref)
	if err != nil {
		w.t.Fatal(err)
	}
	return v
}

// waitFor waits until cond holds. It looks whenever something was saved; what workers do to the world beside that is seen at the
// next of their rounds.
func (w *world) waitFor(what string, cond func() bool) {
	w.t.Helper()
	changed, stop := w.store.Subscribe(control.KindJob, control.KindItem, control.KindObserved, control.KindPoint, control.KindEvent, control.KindRecoveryPlan, control.KindVault, control.KindVaultSecrets)
	defer stop()
	round := time.NewTicker(w.round)
	defer round.Stop()
	limit := time.NewTimer(w.patience)
	defer limit.Stop()
	for !cond() {
		select {
		case <-changed:
		case <-round.C:
		case <-limit.C:
			w.t.Fatalf("waited %s for: %s\n%s", w.patience, what, w.dump())
		}
	}
}

func (w *world) dump() string {
	v, err := w.control.Item(w.ctx, w.ref)
	jobs, _ := w.control.Jobs(w.ctx, w.vault, control.JobFilter{}, control.Paging{Limit: 3})
	s := fmt.Sprintf("item %+v %v\n", v.Item, err)
	for _, j := range jobs.Items {
		s += fmt.Sprintf("job %s %s %v\n", j.Job.Scenario, j.Job.State, j.Job.Errors)
		for _, t := range j.Job.Tasks {
			s += fmt.Sprintf("  %s %s attempt %d retries %d\n", t.ID, t.State, t.Attempt, t.Retries)
		}
	}
	return s
}

func (w *world) waitPhase(leg dr.LegName, phase dr.Phase) {
	w.t.Helper()
	w.waitFor(fmt.Sprintf("%s %s", leg, phase), func() bool {
		s := w.item().Item.State
		return s.Leg == leg && s.Phase == phase && s.PendingJob == ""
	})
}

// waitJob waits until the job has ended.
func (w *world) waitJob(id string) job.Job {
	w.t.Helper()
	var v control.JobView
	w.waitFor("end of job "+id, func() bool {
		var err error
		v, err = w.control.Job(w.ctx, w.vault, id)
		if err != nil {
			w.t.Fatal(err)
		}
		return v.Job.State.Ended()
	})
	return v.Job
}

// do runs an operation and waits until it counts as done.
func (w *world) ask(id string, err error) job.Job {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
	w.waitFor("operation of job "+id, func() bool {
		st, err := w.control.OperationStatus(w.ctx, w.vault, id)
		if err != nil {
			w.t.Fatal(err)
		}
		if st.Status == "Failed" || st.Status == "Canceled" {
			w.t.Fatalf("job %s: %+v", id, st.Error)
		}
		return st.Status == "Succeeded"
	})
	v, err := w.control.Job(w.ctx, w.vault, id)
	if err != nil {
		w.t.Fatal(err)
	}
	return v.Job
}

func (w *world) enable() {
	w.t.Helper()
	w.ask(w.control.Enable(w.ctx, w.ref, w.enableInput()))
}

func (w *world) enableInput() control.EnableInput {
	machines, err := w.control.Protectables(w.ctx, w.ref, "", control.Paging{})
	if err != nil || len(machines.Items) != 1 {
		w.t.Fatalf("got %+v, %v, want one protectable item", machines, err)
	}
	return control.EnableInput{PolicyID: "/x/replicationPolicies/p", ProviderInput: json.RawMessage(
		`{"instanceType":"InMageRcm","processServerId":"` + mainRep + `","targetResourceGroupId":"rg","targetVmName":"vm1-dr","fabricDiscoveryMachineId":"/y/` + machines.Items[0].Item.Name + `"}`)}
}

var (
	homeward = control.ReprotectInput{Direction: "RecoveryToPrimary", ProviderInput: json.RawMessage(`{"instanceType":"InMageRcm","reprotectAgentId":"` + homeRep + `","datastoreName":"` + homeStore + `","logStorageAccountId":"x"}`)}
	forward  = control.ReprotectInput{Direction: "PrimaryToRecovery", ProviderInput: json.RawMessage(`{"instanceType":"InMageRcmFailback","policyId":"/x/p","processServerId":"x"}`)}
	noLoss   = control.FailoverInput{Direction: "RecoveryToPrimary", ProviderInput: json.RawMessage(`{"instanceType":"InMageRcmFailback","recoveryPointType":"CrashConsistent"}`)}
	lost     = control.FailoverInput{Direction: "PrimaryToRecovery", ProviderInput: json.RawMessage(`{"instanceType":"InMageRcm","performShutdown":"false"}`)}
)

// killHome makes the production machine vanish.
func (w *world) killHome() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.home.running = false
}

// stop makes the machine shut itself down: whichever has that SMBIOS UUID.
func (w *world) stop(uuid string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.home.uuid == uuid {
		w.home.running = false
	}
	for _, i := range w.instances {
		if i.uuid == uuid {
			i.running = false
		}
	}
}

// homeNow tells whether the production machine runs, and which point its disks were written from.
func (w *world) homeNow() (bool, dr.PointRef) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.home.running, dr.PointRef(w.homePoint)
}

// running counts machines that run on a network others can reach.
func (w *world) running() (n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.home.running {
		n++
	}
	for _, i := range w.instances {
		if i.running && i.network == job.NetworkProduction {
			n++
		}
	}
	return n
}
