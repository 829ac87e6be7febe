package main

import (
	"context"
	"encoding/json"
	"encoding/pem"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/lifeboat-dr/lifeboat/api"
	"github.com/lifeboat-dr/lifeboat/service/control"
	"github.com/lifeboat-dr/lifeboat/service/dr"
	"github.com/lifeboat-dr/lifeboat/service/job"
	"github.com/lifeboat-dr/lifeboat/service/queue"
	"github.com/lifeboat-dr/lifeboat/service/queue/embedded"
	"github.com/lifeboat-dr/lifeboat/service/queue/redisqueue"
	"github.com/lifeboat-dr/lifeboat/service/store/sqlstore"
	"github.com/lifeboat-dr/lifeboat/service/workflow"
)

// stage is a server for one script: the real API, control plane, store, queue and engine. Only the data plane is played: a
// worker answers tasks at once, and the agent of whichever machine runs reports points.
type stage struct {
	t       *testing.T
	control *control.Service
	queue   *redisqueue.Queue
	web     *httptest.Server
	ctx     context.Context
	parts   sync.WaitGroup

	mu       sync.Mutex // guards what follows
	agent    string
	running  map[string]bool // SMBIOS UUIDs of the machines that run on the production network
	started  map[string]job.Hardware
	sequence map[int64]int64
	closed   map[int64]bool
	corrupt  bool // the next verification finds a bad byte
}

const (
	token     = "script-secret"
	homeUUID  = "11111111-2222-3333-4444-555555555555"
	datastore = "store1"
)

// serve starts a stage and leaves its token and its authority in dir, as lifeboatd does. end stops it.
func serve(t *testing.T, dir string) (st *stage, end func(), err error) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	db, err := sqlstore.OpenSQLite(ctx, filepath.Join(dir, "lifeboat.db"))
	if err != nil {
		cancel()
		return nil, nil, err
	}
	redis, err := embedded.Start()
	if err != nil {
		cancel()
		return nil, nil, errors.Join(err, db.Close())
	}
	st = &stage{t: t, ctx: ctx, running: map[string]bool{}, started: map[string]job.Hardware{}, sequence: map[int64]int64{}, closed: map[int64]bool{}}
	st.queue = redisqueue.New(redis.Client(), redisqueue.Options{Lease: 2 * time.Second})
	sealer, err := control.NewKeySealer([32]byte{1})
	if err == nil {
		st.control = control.New(control.Config{Store: db, Sealer: sealer, Progress: st.queue, BucketURL: func(id string) string { return "mem://" + id },
			MakeVault: func(string) (control.VaultSecrets, string, error) {
				return control.VaultSecrets{DataKey: make([]byte, 32), GrantKey: make([]byte, 32)}, "RECOVERY-KEY", nil
			},
			WrapKey: func(string, []byte) ([]byte, string, error) { return []byte("{}"), "ANOTHER-KEY", nil }})
		var h http.Handler
		h, err = api.New(api.Config{Control: st.control, PageSize: 2, Tokens: api.NewTokens(api.Token{Name: "script", Role: api.RoleContributor, Hash: api.HashToken(token)})})
		st.web = httptest.NewTLSServer(h)
	}
	if err != nil {
		cancel()
		return nil, nil, errors.Join(err, redis.Close(), db.Close())
	}
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: st.web.Certificate().Raw})
	err = errors.Join(os.WriteFile(filepath.Join(dir, "admin.token"), []byte(token+"\n"), 0o600), os.WriteFile(filepath.Join(dir, "ca.pem"), ca, 0o644))
	engine := workflow.New(db, st.queue, workflow.Options{Tick: 20 * time.Millisecond, Housekeeping: 50 * time.Millisecond, RetryFirst: 10 * time.Millisecond, RetryMost: 50 * time.Millisecond}, nil)
	st.parts.Go(func() { engine.Run(ctx) })
	st.parts.Go(st.work)
	st.parts.Go(st.live)
	return st, func() {
		cancel()
		st.web.Close()
		st.parts.Wait()
		if err := errors.Join(redis.Close(), db.Close()); err != nil {
			t.Errorf("stop the server: %v", err)
		}
	}, err
}

func (st *stage) machine(uuid string) dr.Machine {
	return dr.Machine{Hostname: "web01", ProductUUID: uuid, Platform: "vm", OSType: "Linux", OSName: "Debian 13", CPUs: 2, MemoryBytes: 1 << 30, Firmware: "bios",
		Disks: []dr.MachineDisk{{ID: "vda", Path: "/dev/vda", SizeBytes: 1 << 30, SectorSize: 512, IsOSDisk: true, Mounts: []string{"/"}}}}
}

// enrol lets the machine's agent enrol with a key, and report from now on.
func (st *stage) enrol(key string) error {
	e, err := st.control.EnrolAgent(st.ctx, key, "fingerprint", st.machine(homeUUID))
	st.mu.Lock()
	defer st.mu.Unlock()
	st.agent, st.running[homeUUID] = e.ID, true
	return err
}

// live lets replicators and agents report until the stage ends.
func (st *stage) live() {
	for st.ctx.Err() == nil {
		if err := st.round(); err != nil && st.ctx.Err() == nil && dr.CodeOf(err) != dr.CodeNotFound {
			st.t.Errorf("report: %v", err)
		}
		select {
		case <-st.ctx.Done():
		case <-time.After(15 * time.Millisecond):
		}
	}
}

func (st *stage) round() error {
	st.mu.Lock()
	replicator := dr.Replicator{ID: "main", Hostname: "main", Site: dr.SiteRecovery, Roles: []string{dr.RoleProcessServer}, DataAddress: "192.0.2.1:9443",
		Capabilities: []string{job.CapabilityRepository, job.CapabilityCompute, job.CapabilityWebhook, job.At(job.CapabilityScript, "cellar")}}
	for id := range st.started {
		replicator.Instances = append(replicator.Instances, dr.InstanceReport{ID: id, State: "running", HydratedPercent: 100})
	}
	agent, uuids := st.agent, []string{}
	for uuid := range st.running {
		uuids = append(uuids, uuid)
	}
	st.mu.Unlock()
	home := dr.Replicator{ID: "home", Hostname: "home", Site: dr.SiteHome, Roles: []string{dr.RoleMasterTarget}, Capabilities: []string{job.CapabilityWriteback},
		Datastores: []dr.Datastore{{Name: datastore}}, VMs: []dr.VM{{UUID: homeUUID, Name: "web01", Datastore: datastore}}}
	for _, r := range []dr.Replicator{replicator, home} {
		if err := errors.Join(st.control.EnsureReplicator(st.ctx, r), st.control.ReplicatorSeen(st.ctx, r)); err != nil {
			return err
		}
	}
	for _, uuid := range uuids {
		if err := st.report(agent, uuid); err != nil {
			return err
		}
	}
	return nil
}

func (st *stage) report(agent, uuid string) error {
	items, err := st.control.AgentItems(st.ctx, agent)
	if err != nil {
		return err
	}
	observed := []dr.Observed{}
	for _, it := range items {
		i := it.Item
		if i.Generation == 0 || !i.MayShip(uuid) {
			continue
		}
		if p, ok := st.ship(i.Generation); ok {
			if err := st.control.RecordPoints(st.ctx, i.Vault, i.ID, []dr.Point{p}, false); err != nil {
				return err
			}
		}
		observed = append(observed, dr.Observed{Item: i.ID, Generation: i.Generation, Phase: "delta", ProgressPercent: 100, LastCaptureID: i.CaptureID})
	}
	return st.control.AgentSeen(st.ctx, agent, "0.1.0", st.machine(uuid), observed)
}

// ship takes up to three points a generation: more than a page of them.
func (st *stage) ship(gen int64) (dr.Point, bool) {
	st.mu.Lock()
	defer st.mu.Unlock()
	n, open := st.sequence[gen]
	if !open || st.closed[gen] || n >= 3 {
		return dr.Point{}, false
	}
	st.sequence[gen] = n + 1
	return dr.Point{Generation: gen, Sequence: n + 1, Time: time.Now().UTC(), Consistency: dr.CrashConsistent, ChangedBytes: 4096, StoredBytes: 1024}, true
}

// work answers tasks until the stage ends.
func (st *stage) work() {
	routes := []queue.Route{{Site: dr.SiteRecovery, Capability: job.CapabilityRepository}, {Site: dr.SiteRecovery, Capability: job.CapabilityCompute}, {Site: dr.SiteHome, Capability: job.CapabilityWriteback},
		{Site: dr.SiteRecovery, Capability: job.CapabilityWebhook}, {Site: dr.SiteRecovery, Capability: job.At(job.CapabilityScript, "cellar")}}
	for st.ctx.Err() == nil {
		d, err := st.queue.Lease(st.ctx, "worker", routes, 100*time.Millisecond)
		if err != nil || d == nil {
			continue
		}
		result := queue.Result{TaskID: d.TaskID, JobID: d.JobID, Token: d.Token}
		out, failure := st.do(d.Message)
		if result.Failure = failure; failure == nil {
			if result.Output, err = json.Marshal(out); err != nil {
				st.t.Errorf("encode the output of %s: %v", d.Kind, err)
			}
		}
		if err := st.queue.Finish(st.ctx, d, result); err != nil && !errors.Is(err, queue.ErrLeaseLost) && st.ctx.Err() == nil {
			st.t.Errorf("finish %s: %v", d.Kind, err)
		}
	}
}

func payload[T any](st *stage, m queue.Message) (p T) {
	if err := json.Unmarshal(m.Payload, &p); err != nil {
		st.t.Errorf("payload of %s: %v", m.Kind, err)
	}
	return p
}

func (st *stage) do(m queue.Message) (any, *queue.Failure) {
	st.mu.Lock()
	defer st.mu.Unlock()
	switch m.Kind {
	case job.KindGenerationOpen:
		st.sequence[payload[job.GenerationOpen](st, m).Generation] += 0
	case job.KindGenerationClose:
		gen := payload[job.GenerationClose](st, m).Generation
		st.closed[gen] = true
		if n := st.sequence[gen]; n > 0 {
			return job.GenerationClosed{Last: &job.PointRef{Generation: gen, Sequence: n}}, nil
		}
		return job.GenerationClosed{}, nil
	case job.KindInstanceStart:
		p := payload[job.InstanceStart](st, m)
		st.started[p.InstanceID] = p.Hardware
		if p.Hardware.Network == job.NetworkProduction {
			st.running[p.Hardware.UUID] = true
		}
		return job.InstanceStarted{InstanceID: p.InstanceID, Accelerator: "tcg"}, nil
	case job.KindInstanceStop:
		st.stop(payload[job.InstanceStop](st, m).InstanceID)
	case job.KindInstanceDestroy:
		st.stop(payload[job.InstanceDestroy](st, m).InstanceID)
	case job.KindInstanceCapture:
		gen := payload[job.InstanceCapture](st, m).Generation
		st.sequence[gen]++
		return job.Captured{Point: job.PointRef{Generation: gen, Sequence: st.sequence[gen]}, Time: time.Now().UTC()}, nil
	case job.KindHomeStop:
		delete(st.running, homeUUID)
	case job.KindHomeWriteback:
		return job.WrittenBack{ComparedBytes: 100, WrittenBytes: 1}, nil
	case job.KindHomeStart:
		st.running[homeUUID] = true
		return job.InstanceStarted{Accelerator: "tcg"}, nil
	case job.KindScriptRun:
		return job.ScriptRan{Output: "opened", Runner: "cellar"}, nil
	case job.KindWebhookCall:
		return job.WebhookCalled{Status: 200, Tries: 1}, nil
	case job.KindPointVerify:
		if st.corrupt {
			return nil, &queue.Failure{Code: "corrupt", Message: "disk vda has a bad byte at 4096", PossibleCauses: "the bucket changed what it holds", RecommendedAction: "use the point before"}
		}
		return job.PointVerified{Bytes: 1 << 20}, nil
	}
	return job.Empty{}, nil
}

func (st *stage) stop(instance string) {
	delete(st.running, st.started[instance].UUID)
	delete(st.started, instance)
}
