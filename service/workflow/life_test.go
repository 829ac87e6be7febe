package workflow_test

import (
	"context"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/lifeboat-dr/lifeboat/service/control"
	"github.com/lifeboat-dr/lifeboat/service/dr"
	"github.com/lifeboat-dr/lifeboat/service/store"
)

func TestAWholeLife(t *testing.T) {
	w := newRedisWorld(t)
	w.engine(w.store)
	wholeLife(w)
}

// wholeLife protects the machine, drills it, loses it, brings it home and protects it again.
func wholeLife(w *world) {
	t := w.t
	t.Helper()
	w.enable()
	w.waitPhase(dr.LegInMageRcm, dr.PhaseProtected)

	w.ask(w.control.TestFailover(w.ctx, w.ref, control.TestFailoverInput{NetworkType: "VmNetworkAsInput"}))
	v := w.item()
	if v.Projection.TestFailoverState != "WaitingForCompletion" || v.Item.TestInstance == nil || v.Item.CurrentScenario.Name != "TestFailover" {
		t.Fatalf("got %+v, want an open drill", v.Item)
	}
	w.ask(w.control.TestFailoverCleanup(w.ctx, w.ref, control.CleanupInput{}))
	w.mu.Lock()
	if len(w.instances) != 0 || len(w.pins) != 0 {
		t.Errorf("got instances %v and pins %v after cleanup, want none", w.instances, w.pins)
	}
	w.mu.Unlock()
	if v := w.item(); v.Item.LastTestFailover.IsZero() || v.Item.TestInstance != nil || v.Item.CurrentScenario.JobID != "" {
		t.Errorf("got %+v, want the drill over", v.Item)
	}

	w.killHome()
	w.ask(w.control.UnplannedFailover(w.ctx, w.ref, lost))
	v = w.item()
	if v.Projection.ActiveLocation != "Recovery" || !v.Item.Fenced || v.Item.ActiveUUID == homeUUID || v.FailoverPointID == "" || w.running() != 1 {
		t.Fatalf("got %+v and %d machines running, want it failed over", v.Item, w.running())
	}
	first := v.Item.FailoverInstance.ID
	w.ask(w.control.ApplyRecoveryPoint(w.ctx, w.ref, control.ApplyPointInput{RecoveryPointID: dr.PointID(v.Item.ID, dr.PointRef{Generation: 1, Sequence: 1})}))
	v = w.item()
	if v.Item.FailoverInstance.ID == first || v.Item.FailoverPoint != (dr.PointRef{Generation: 1, Sequence: 1}) || w.running() != 1 {
		t.Fatalf("got %+v, want another replica from the first point", v.Item)
	}
	w.waitJob(w.ask(w.control.FailoverCommit(w.ctx, w.ref)).ID)
	w.mu.Lock()
	if len(w.pins) != 0 {
		t.Errorf("got pins %v after commit of a hydrated replica, want none", w.pins)
	}
	w.mu.Unlock()

	w.ask(w.control.Reprotect(w.ctx, w.ref, homeward))
	w.waitPhase(dr.LegInMageRcmFailback, dr.PhaseProtected)
	v = w.item()
	if v.Item.Generation != 2 || v.Item.BasePoint != (dr.PointRef{Generation: 1, Sequence: 1}) || v.Item.Fenced {
		t.Fatalf("got %+v, want generation 2 on the point it was failed over from", v.Item)
	}

	w.ask(w.control.PlannedFailover(w.ctx, w.ref, noLoss))
	v = w.item()
	if on, at := w.homeNow(); !on || w.running() != 1 || v.Item.ActiveUUID != homeUUID || v.Item.PlannedFailoverStatus != "Succeeded" || at != v.Item.FailoverPoint {
		t.Fatalf("got %+v, home disks at %+v, want the machine home", v.Item, at)
	}
	w.ask(w.control.FailoverCancel(w.ctx, w.ref))
	v = w.item()
	if on, _ := w.homeNow(); on || w.running() != 1 || v.Item.State.Phase != dr.PhaseProtected || v.Item.Generation != 3 || v.Item.Fenced || v.Item.ActiveUUID == homeUUID {
		t.Fatalf("got %+v, want the replica active again on generation 3", v.Item)
	}
	w.ask(w.control.PlannedFailover(w.ctx, w.ref, noLoss))
	w.waitJob(w.ask(w.control.FailoverCommit(w.ctx, w.ref)).ID)
	w.mu.Lock()
	if len(w.instances) != 0 {
		t.Errorf("got instances %v after the failback was committed, want none", w.instances)
	}
	w.mu.Unlock()

	w.ask(w.control.Reprotect(w.ctx, w.ref, forward))
	w.waitPhase(dr.LegInMageRcm, dr.PhaseProtected)
	v = w.item()
	if v.Item.Generation != 4 || v.Item.ActiveUUID != homeUUID || v.Item.HomeInstance != nil || v.Item.FailoverInstance != nil || v.Item.BasePoint.Generation != 3 {
		t.Fatalf("got %+v, want the first leg on generation 4", v.Item)
	}

	id := string(v.Item.ID)
	w.ask(w.control.RemoveItem(w.ctx, w.ref, control.RemoveInput{}))
	if _, err := w.control.Item(w.ctx, w.ref); dr.CodeOf(err) != dr.CodeNotFound {
		t.Errorf("got %v, want the item gone", err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.gens[id] != nil {
		t.Error("the machine's data is still in the bucket")
	}
}

// deadly is a store whose saves kill whoever saves, now and then, right after the save and before anything that follows it.
type deadly struct {
	store.Store
	mu   sync.Mutex
	rnd  *rand.Rand
	kill func()
	n    *int
}

func (d *deadly) Update(ctx context.Context, fn func(store.Tx) error) error {
	saved := false
	err := d.Store.Update(ctx, func(tx store.Tx) error {
		counting := &countingTx{Tx: tx}
		err := fn(counting)
		saved = counting.saved
		return err
	})
	d.mu.Lock()
	defer d.mu.Unlock()
	if err == nil && saved && d.rnd.IntN(100) < 40 {
		d.kill()
		*d.n++
	}
	return err
}

type countingTx struct {
	store.Tx
	saved bool
}

func (c *countingTx) Put(kind store.Kind, key string, expect int64, doc any) (int64, error) {
	c.saved = c.saved || kind == control.KindJob
	return c.Tx.Put(kind, key, expect, doc)
}

// TestTheEngineMayBeKilledAnywhere kills the engine after a random 40 % of its saves, before it could do what comes next, and
// starts another. The life must come out the same.
func TestTheEngineMayBeKilledAnywhere(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	w := newWorld(t)
	rnd := rand.New(rand.NewPCG(seed, 1))
	kills := 0
	stopped, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			ctx, kill := context.WithCancel(w.ctx)
			ended := w.runEngine(ctx, &deadly{Store: w.store, rnd: rnd, n: &kills, kill: kill})
			select {
			case <-stopped:
				kill()
				<-ended
				return
			case <-ended:
				kill()
			}
		}
	}()
	wholeLife(w)
	close(stopped)
	<-done
	t.Logf("%d kills", kills)
	if kills < 20 {
		t.Errorf("got %d kills, want at least 20", kills)
	}
}
