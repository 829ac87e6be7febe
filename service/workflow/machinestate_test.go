package workflow_test

import (
	"testing"
	"time"

	"github.com/lifeboat-dr/lifeboat/service/dr"
)

func TestTheStateOfMachinesIsReadForMetrics(t *testing.T) {
	bubble(t, func(w *world) {
		w.enable()
		w.waitPhase(dr.LegInMageRcm, dr.PhaseProtected)
		w.mu.Lock()
		w.lame = true
		w.mu.Unlock()
		w.tells(func(o *dr.Observed) { o.Churn = 42 })
		time.Sleep(2 * time.Minute)
		states, more, err := w.control.MachineStates(w.ctx, 10)
		if err != nil || len(states) != 1 || more != 0 {
			t.Fatalf("got %+v, %d more, %v; want one machine", states, more, err)
		}
		s, it := states[0], w.item()
		if s.ID != it.Item.ID || s.Name != it.Item.FriendlyName || s.Vault == "" || s.Health != dr.HealthNormal || s.Observed.Churn != 42 || !s.HasPoint || s.Lag < 2*time.Minute || s.Lag > 3*time.Minute {
			t.Errorf("got %+v", s)
		}
		if states, more, err = w.control.MachineStates(w.ctx, 0); err != nil || len(states) != 0 || more != 1 {
			t.Errorf("got %+v, %d more, %v; want one more than may be shown", states, more, err)
		}
	})
}
