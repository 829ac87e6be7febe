package workflow

import (
	"testing"

	"github.com/lifeboat-dr/lifeboat/service/job"
)

func TestEveryTaskOfEveryPlanHasCode(t *testing.T) {
	used := map[stepKey]bool{}
	for _, p := range job.Plans {
		if len(p.Steps) == 1 && p.Steps[0].ID == job.StepFinish && p.Steps[0].Kind == "" {
			continue // done in the transaction of the use case
		}
		for _, s := range p.Steps {
			k := stepKey{p.Name, s.ID}
			used[k] = true
			code, ok := steps[k]
			switch {
			case !ok:
				t.Errorf("plan %s: there is no code for %s", p.Name, s.ID)
			case (code.control != nil) != (s.Kind == ""):
				t.Errorf("plan %s: %s has kind %q, which does not fit its code", p.Name, s.ID, s.Kind)
			case code.control == nil && code.payload == nil:
				t.Errorf("plan %s: %s does nothing", p.Name, s.ID)
			case (code.patience != nil) && code.excuse == nil:
				t.Errorf("plan %s: %s has patience and no excuse", p.Name, s.ID)
			}
		}
	}
	for k := range steps {
		if !used[k] {
			t.Errorf("code for %s of plan %s is used by no plan", k.id, k.plan)
		}
	}
}
