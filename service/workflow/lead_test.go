package workflow_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lifeboat-dr/lifeboat/service/control"
	"github.com/lifeboat-dr/lifeboat/service/dr"
	"github.com/lifeboat-dr/lifeboat/service/store"
	"github.com/lifeboat-dr/lifeboat/service/workflow"
)

// held is a store of an engine whose process can be held up: its saves wait until it goes on.
type held struct {
	store.Store
	hold    atomic.Pointer[chan struct{}]
	saved   atomic.Int64 // jobs
	refused atomic.Int64
}

func (h *held) Update(ctx context.Context, fn func(store.Tx) error) error {
	if gate := h.hold.Load(); gate != nil {
		<-*gate
		ctx = context.WithoutCancel(ctx) // what was held up at this point goes on
	}
	var c *countingTx
	err := h.Store.Update(ctx, func(tx store.Tx) error {
		c = &countingTx{Tx: tx}
		return fn(c)
	})
	switch {
	case err == nil && c.saved:
		h.saved.Add(1)
	case err != nil && !errors.Is(err, context.Canceled):
		h.refused.Add(1)
	}
	return err
}

func TestAnEngineThatWasHeldUpSavesNothingMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := makeWorld(t.Context(), t, newMemQueue(5*time.Second), time.Second, workflow.Options{})
		w.patience = 20 * time.Minute
		first, second := &held{Store: w.store}, &held{Store: w.store}
		w.engineWith(first, workflow.Options{Name: "first"})
		synctest.Wait()
		w.engineWith(second, workflow.Options{Name: "second"})
		w.enable()
		w.waitPhase(dr.LegInMageRcm, dr.PhaseProtected)
		if first.saved.Load() == 0 || second.saved.Load() != 0 {
			t.Fatalf("the engines saved %d and %d jobs, want all by the first", first.saved.Load(), second.saved.Load())
		}

		gate := make(chan struct{})
		first.hold.Store(&gate)
		began := time.Now()
		w.ask(w.control.TestFailover(w.ctx, w.ref, control.TestFailoverInput{NetworkType: "VmNetworkAsInput"}))
		if took := time.Since(began); took > 15*time.Second || second.saved.Load() == 0 {
			t.Errorf("the second engine saved %d jobs and the drill took %s, want it to take over within seconds", second.saved.Load(), took)
		}
		before := first.saved.Load()
		first.hold.Store(nil)
		close(gate)
		time.Sleep(10 * time.Second)
		if first.saved.Load() != before || first.refused.Load() == 0 {
			t.Errorf("the first engine saved %d jobs after it was deposed and was refused %d times", first.saved.Load()-before, first.refused.Load())
		}
	})
}

func TestAnEngineThatStopsIsFollowedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := makeWorld(t.Context(), t, newMemQueue(5*time.Second), time.Second, workflow.Options{})
		w.patience = 20 * time.Minute
		first, second := &held{Store: w.store}, &held{Store: w.store}
		stop := w.engineWith(first, workflow.Options{Name: "first"})
		synctest.Wait()
		w.engineWith(second, workflow.Options{Name: "second"})
		stop()
		w.enable()
		time.Sleep(time.Second)
		if second.saved.Load() == 0 {
			t.Error("the second engine did not begin")
		}
	})
}
