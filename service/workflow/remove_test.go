package workflow_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/lifeboat-dr/lifeboat/service/control"
	"github.com/lifeboat-dr/lifeboat/service/dr"
	"github.com/lifeboat-dr/lifeboat/service/job"
	"github.com/lifeboat-dr/lifeboat/service/queue"
)

// superseded waits until the job has ended and checks that it says who took over.
func (w *world) superseded(id, by string) {
	w.t.Helper()
	j := w.waitJob(id)
	if j.State != job.Cancelled || len(j.Errors) != 1 || !strings.Contains(j.Errors[0].Message, by) || j.Errors[0].Level != dr.LevelWarning {
		w.t.Errorf("got job %s %s with %+v, want it cancelled with a warning that names job %s", j.Scenario, j.State, j.Errors, by)
	}
}

// waitTask waits until the job works on the task.
func (w *world) waitTask(id, task string) {
	w.t.Helper()
	w.waitFor("task "+task, func() bool {
		v, err := w.control.Job(w.ctx, w.vault, id)
		return err == nil && v.Job.Task(task).State == job.InProgress
	})
}

func (w *world) setDry(dry bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.dry = dry
}

func TestRemovalTakesOverFromACommitThatWaits(t *testing.T) {
	for name, remove := range map[string]func(*world) (string, error){
		"disable": func(w *world) (string, error) { return w.control.RemoveItem(w.ctx, w.ref, control.RemoveInput{}) },
		"purge":   func(w *world) (string, error) { return w.control.PurgeItem(w.ctx, w.ref) },
	} {
		t.Run(name, func(t *testing.T) {
			w := protectedWorld(t)
			w.killHome()
			w.setDry(true)
			w.ask(w.control.UnplannedFailover(w.ctx, w.ref, lost))
			commit := w.ask(w.control.FailoverCommit(w.ctx, w.ref))
			w.waitTask(commit.ID, job.StepWaitHydrated)
			id, err := remove(w)
			if err != nil {
				t.Fatal(err)
			}
			w.superseded(commit.ID, id)
			if st, err := w.control.OperationStatus(w.ctx, w.vault, commit.ID); err != nil || st.Status != "Succeeded" {
				t.Errorf("got %+v, %v, want the commit itself to count as done", st, err)
			}
			w.setDry(false)
			if j := w.waitJob(id); j.State != job.Succeeded {
				t.Errorf("got %s with %+v, want the removal done", j.State, j.Errors)
			}
		})
	}
}

func TestRemovalTakesOverFromWorkBeside(t *testing.T) {
	w := protectedWorld(t)
	w.mu.Lock()
	w.silent = true // nobody answers the capture
	w.mu.Unlock()
	capture, err := w.control.CaptureNow(w.ctx, w.ref)
	if err != nil {
		t.Fatal(err)
	}
	w.waitTask(capture, job.StepCaptureNow)
	w.fail(job.KindPointVerify, slices.Repeat([]queue.Failure{away}, 1000)...)
	verify, err := w.control.VerifyPoint(w.ctx, w.ref, w.item().LatestPoint.ID)
	if err != nil {
		t.Fatal(err)
	}
	w.waitTask(verify, job.StepVerify)
	id, err := w.control.RemoveItem(w.ctx, w.ref, control.RemoveInput{})
	if err != nil {
		t.Fatal(err)
	}
	w.superseded(capture, id)
	w.superseded(verify, id)
	if j := w.waitJob(id); j.State != job.Succeeded {
		t.Errorf("got %s with %+v, want the removal done", j.State, j.Errors)
	}
}

func TestNothingBeginsBesideARemoval(t *testing.T) {
	w := protectedWorld(t)
	point := w.item().LatestPoint.ID
	w.fail(job.KindGenerationClose, slices.Repeat([]queue.Failure{away}, 1000)...)
	id, err := w.control.RemoveItem(w.ctx, w.ref, control.RemoveInput{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = w.control.VerifyPoint(w.ctx, w.ref, point)
	if dr.CodeOf(err) != dr.CodeConflict || !strings.Contains(err.Error(), id) {
		t.Errorf("got %v, want a refusal that names job %s", err, id)
	}
}

func TestRemovalAtHomeLeavesNoReplicaBehind(t *testing.T) {
	for name, remove := range map[string]func(*world) (string, error){
		"disable": func(w *world) (string, error) { return w.control.RemoveItem(w.ctx, w.ref, control.RemoveInput{}) },
		"purge":   func(w *world) (string, error) { return w.control.PurgeItem(w.ctx, w.ref) },
	} {
		t.Run(name, func(t *testing.T) {
			w := failedBackWorld(t)
			w.ask(w.control.PlannedFailover(w.ctx, w.ref, noLoss))
			w.fail(job.KindInstanceDestroy, away, away, away)
			commit := w.ask(w.control.FailoverCommit(w.ctx, w.ref))
			id, err := remove(w)
			if err != nil {
				t.Fatal(err)
			}
			w.waitJob(commit.ID)
			if j := w.waitJob(id); j.State != job.Succeeded {
				t.Fatalf("got %s with %+v, want the removal done", j.State, j.Errors)
			}
			w.mu.Lock()
			defer w.mu.Unlock()
			if len(w.instances) != 0 || !w.home.running {
				t.Errorf("got instances %v and home running %v, want the machine at home alone", w.instances, w.home.running)
			}
		})
	}
}
