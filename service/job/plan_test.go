package job

import "testing"

func TestPlansAreWellFormed(t *testing.T) {
	names := map[string]bool{}
	for _, p := range Plans {
		if names[p.Name] {
			t.Errorf("two plans are called %s", p.Name)
		}
		names[p.Name] = true
		if p.Scenario == "" || p.FriendlyName == "" || len(p.Steps) == 0 {
			t.Errorf("plan %s lacks a scenario, a name or steps", p.Name)
		}
		if p.Undo != "" && PlanByName(p.Undo) == nil {
			t.Errorf("plan %s is undone by %s, which does not exist", p.Name, p.Undo)
		}
		ids := map[string]bool{}
		for _, s := range p.Steps {
			if ids[s.ID] || s.ID == "" || s.Name == "" || s.FriendlyName == "" {
				t.Errorf("plan %s: step %+v lacks a name or repeats an id", p.Name, s)
			}
			ids[s.ID] = true
		}
	}
}

func TestCurrentIsTheFirstTaskThatHasNotSucceeded(t *testing.T) {
	j := Job{Tasks: PlanByName(PlanEnable).Tasks()}
	for i := range j.Tasks {
		if got := j.Current(); got != &j.Tasks[i] {
			t.Fatalf("got %v, want task %d", got, i)
		}
		j.Tasks[i].State = Succeeded
	}
	if got := j.Current(); got != nil {
		t.Errorf("got %v, want none", got)
	}
}
