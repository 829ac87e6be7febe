package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
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
	"github.com/lifeboat-dr/lifeboat/service/workflow"
)

// drivenProviders are those that the control plane does not drive itself.
var drivenProviders = []dr.ProviderType{dr.ProviderInMageAzureV2, dr.ProviderInMage, dr.ProviderHyperVReplicaAzure, dr.ProviderHyperVReplica2012, dr.ProviderHyperVReplica2012R2, dr.ProviderA2A}

// legDriver plays the drivers of all other providers behind the queue, where real ones would stand: it does what it is asked at
// once, and the machines that it replicates get three points in each generation.
type legDriver struct {
	site  *site
	queue *redisqueue.Queue

	mu   sync.Mutex
	runs map[dr.ItemID]driven
	did  []string // legs and operations, in order
	last job.LegOperation
	held bool // nothing is copied
}

type driven struct {
	vault      string
	generation int64
	since      time.Time
}

func newLegDriver(t *testing.T) (*site, *legDriver) {
	t.Helper()
	srv, err := embedded.Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := srv.Close(); err != nil {
			t.Error(err)
		}
	})
	q := redisqueue.New(srv.Client(), redisqueue.Options{Lease: 2 * time.Second})
	s := newDrivenSite(t, drivenProviders)
	ctx, cancel := context.WithCancel(t.Context())
	var parts sync.WaitGroup
	engine := workflow.New(s.control.Store(), q, workflow.Options{Tick: 20 * time.Millisecond, Housekeeping: 50 * time.Millisecond, RetryFirst: 10 * time.Millisecond, RetryMost: 50 * time.Millisecond}, nil)
	parts.Go(func() { engine.Run(ctx) })
	t.Cleanup(func() { cancel(); parts.Wait() })
	return s, driveLegs(s, q)
}

// driveLegs lets the drivers of a site that was made for them work until the test ends.
func driveLegs(s *site, q *redisqueue.Queue) *legDriver {
	d := &legDriver{site: s, queue: q, runs: map[dr.ItemID]driven{}}
	ctx, cancel := context.WithCancel(s.t.Context())
	var parts sync.WaitGroup
	parts.Go(func() { d.work(ctx) })
	parts.Go(func() { d.replicate(ctx) })
	s.t.Cleanup(func() { cancel(); parts.Wait() })
	return d
}

func (d *legDriver) work(ctx context.Context) {
	var routes []queue.Route
	for _, p := range drivenProviders {
		routes = append(routes, queue.Route{Site: dr.SiteRecovery, Capability: job.At(job.CapabilityLeg, string(p))})
	}
	for ctx.Err() == nil {
		m, err := d.queue.Lease(ctx, "driver", routes, 100*time.Millisecond)
		if err != nil || m == nil {
			continue
		}
		var p job.LegOperation
		if err := json.Unmarshal(m.Payload, &p); err != nil || m.Kind != job.KindLegOperation {
			d.site.t.Errorf("task %s: %v", m.Kind, err)
		}
		out, err := json.Marshal(d.do(p))
		if err != nil {
			d.site.t.Errorf("encode: %v", err)
		}
		if err := d.queue.Finish(ctx, m, queue.Result{TaskID: m.TaskID, JobID: m.JobID, Token: m.Token, Output: out}); err != nil && !errors.Is(err, queue.ErrLeaseLost) && ctx.Err() == nil {
			d.site.t.Errorf("finish %s: %v", p.Operation, err)
		}
	}
}

func (d *legDriver) do(p job.LegOperation) job.LegDone {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.did, d.last = append(d.did, p.Leg+" "+p.Operation), p
	switch dr.Operation(p.Operation) {
	case dr.OpEnable:
		d.runs[dr.ItemID(p.MachineID)] = driven{p.VaultID, p.Generation, time.Now().UTC()}
		return job.LegDone{Disks: []job.LegDisk{{ID: "vda", SizeBytes: 1 << 30, IsOSDisk: true}}}
	case dr.OpReprotect:
		d.runs[dr.ItemID(p.MachineID)] = driven{p.VaultID, p.Generation, time.Now().UTC()}
	case dr.OpTestFailover, dr.OpPlannedFailover, dr.OpUnplannedFailover, dr.OpApplyRecoveryPoint:
		if p.Point == nil {
			d.site.t.Errorf("%s without a point", p.Operation)
		}
		return job.LegDone{Instance: "vm-" + p.MachineID}
	case dr.OpAddDisks:
		return job.LegDone{Disks: []job.LegDisk{{ID: "vda", SizeBytes: 1 << 30, IsOSDisk: true}, {ID: p.Disks[0], SizeBytes: 1 << 20}}}
	case dr.OpRemoveDisks:
		return job.LegDone{Disks: []job.LegDisk{{ID: "vda", SizeBytes: 1 << 30, IsOSDisk: true}}}
	case dr.OpRemove, dr.OpPurge:
		delete(d.runs, dr.ItemID(p.MachineID))
	}
	return job.LegDone{}
}

func (d *legDriver) replicate(ctx context.Context) {
	for ctx.Err() == nil {
		d.mu.Lock()
		runs := map[dr.ItemID]driven{}
		if !d.held {
			maps.Copy(runs, d.runs)
		}
		d.mu.Unlock()
		for id, r := range runs {
			var points []dr.Point
			for n := range int64(3) {
				points = append(points, dr.Point{Generation: r.generation, Sequence: n + 1, Time: r.since.Add(time.Duration(n) * time.Millisecond), Consistency: dr.CrashConsistent, ChangedBytes: 4096, StoredBytes: 1024})
			}
			if err := d.site.control.RecordPoints(ctx, r.vault, id, points, false); err != nil && ctx.Err() == nil && dr.CodeOf(err) != dr.CodeNotFound {
				d.site.t.Errorf("record points: %v", err)
			}
		}
		select {
		case <-ctx.Done():
		case <-time.After(15 * time.Millisecond):
		}
	}
}

// loseTracking makes the machines need a comparison, as their agents would say.
func (d *legDriver) loseTracking(ctx context.Context) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for id := range d.runs {
		err := d.site.control.Store().Update(ctx, func(tx store.Tx) error {
			it, err := control.LoadItem(tx, id)
			if err != nil {
				return err
			}
			next, refusal := dr.Apply(it.State, dr.Signal{Kind: dr.ResyncBegan}, time.Now())
			if refusal != nil {
				return refusal
			}
			it.State = next
			return control.SaveItem(tx, &it, time.Now())
		})
		if err != nil {
			d.site.t.Errorf("lose tracking: %v", err)
		}
	}
}

// hold stops or goes on with the copying.
func (d *legDriver) hold(held bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.held = held
}

// askedAll wants the driver to have been asked for every operation that the table has in the legs that begin with the provider's
// first: an update is none of its business, and a machine is removed once.
func (d *legDriver) askedAll(t *testing.T, p dr.ProviderType) {
	t.Helper()
	d.mu.Lock()
	defer d.mu.Unlock()
	legs := []dr.LegName{dr.FirstLeg(p).Name}
	for i := 0; i < len(legs); i++ {
		for _, r := range dr.LegByName(legs[i]).Rules {
			if r.Leg != "" && !slices.Contains(legs, r.Leg) {
				legs = append(legs, r.Leg)
			}
			if slices.Contains([]dr.Operation{dr.OpUpdate, dr.OpRemove, dr.OpPurge}, r.Op) {
				continue
			}
			if call := fmt.Sprintf("%s %s", legs[i], r.Op); !slices.Contains(d.did, call) {
				t.Errorf("the driver was never asked for %s, but for %v", call, d.did)
			}
		}
	}
}
