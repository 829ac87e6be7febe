package workflow_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/lifeboat-dr/lifeboat/service/control"
	"github.com/lifeboat-dr/lifeboat/service/dr"
	"github.com/lifeboat-dr/lifeboat/service/job"
)

// withShutdown is a failover of a source that is to be shut down first.
func withShutdown(more string) control.FailoverInput {
	in := lost
	in.ProviderInput = json.RawMessage(`{"instanceType":"InMageRcm","performShutdown":"true"` + more + `}`)
	return in
}

func TestAFailoverWithShutdownTakesTheLatestChangesOfALiveSource(t *testing.T) {
	for name, more := range map[string]string{"latest": "", "a point that was named": "1/2"} {
		t.Run(name, func(t *testing.T) {
			w := protectedWorld(t)
			w.waitFor("all points that are made unasked", func() bool { return w.item().LatestPoint.Sequence == 3 })
			want := dr.PointRef{Generation: 1, Sequence: 5} // the agent's last one, and one of the stopped disks
			if more != "" {
				want.Sequence = 2
				more = `,"recoveryPointId":"` + dr.PointID(w.item().Item.ID, want) + `"`
			}
			j := w.ask(w.control.UnplannedFailover(w.ctx, w.ref, withShutdown(more)))
			v := w.item()
			if v.Item.FailoverPoint != want || v.Item.LastPoint.Sequence != 5 || len(j.Errors) != 0 || j.Task(job.StepSyncSource).Skipped {
				t.Errorf("got point %+v of %+v with %+v, want %+v, and a last capture", v.Item.FailoverPoint, v.Item.LastPoint, j.Errors, want)
			}
			if home, _ := w.homeNow(); home {
				t.Error("the source was not shut down")
			}
		})
	}
}

func TestAStoppedSourceThatCannotBeReadIsFailedOverFromItsLastPoint(t *testing.T) {
	w := protectedWorld(t)
	w.waitFor("all points that are made unasked", func() bool { return w.item().LatestPoint.Sequence == 3 })
	w.fail(job.KindHomeCapture, broken)
	j := w.ask(w.control.UnplannedFailover(w.ctx, w.ref, withShutdown("")))
	if v := w.item(); v.Item.FailoverPoint != (dr.PointRef{Generation: 1, Sequence: 4}) {
		t.Errorf("got %+v, want the agent's last point", v.Item.FailoverPoint)
	}
	if len(j.Errors) != 1 || j.Errors[0].TaskID != job.StepCapture || j.Errors[0].Level != dr.LevelWarning || !strings.Contains(j.Errors[0].Message, "it broke") {
		t.Errorf("got %+v, want the task to say what was not captured", j.Errors)
	}
}

func TestASourceThatDoesNotAnswerDelaysAFailoverOnlySoLong(t *testing.T) {
	for name, c := range map[string]struct {
		trouble     func(w *world)
		least, most time.Duration
		says        string
	}{
		"it is gone":            {func(w *world) { w.killHome() }, 20 * time.Second, 40 * time.Second, "did not answer within 20s"},
		"it was gone for long":  {func(w *world) { w.killHome(); time.Sleep(2 * dr.HeartbeatLimit) }, 0, 20 * time.Second, "was last heard of at"},
		"it captures no points": {func(w *world) { w.mu.Lock(); w.lame = true; w.mu.Unlock() }, 2 * time.Minute, 150 * time.Second, "no recovery point within 2m0s"},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(w *world) {
				w.enable()
				w.waitPhase(dr.LegInMageRcm, dr.PhaseProtected)
				time.Sleep(time.Minute)
				c.trouble(w)
				began := time.Now()
				j := w.ask(w.control.UnplannedFailover(w.ctx, w.ref, withShutdown("")))
				if took := time.Since(began); took < c.least || took > c.most {
					t.Errorf("the failover took %s, want %s to %s", took, c.least, c.most)
				}
				if len(j.Errors) != 1 || j.Errors[0].TaskID != job.StepSyncSource || j.Errors[0].Level != dr.LevelWarning || !strings.Contains(j.Errors[0].Message, c.says) {
					t.Errorf("got %+v, want the task to say that %s", j.Errors, c.says)
				}
				if got := j.Task(job.StepSyncSource); got.State != job.Succeeded || got.Description != "CompletedWithInformation" {
					t.Errorf("got %+v, want the task completed with information", got)
				}
			})
		})
	}
}

// TestACaptureDoesNotQueueBehindOneThatNobodyAnswered asks while the agent is away, and again when it is back.
func TestACaptureDoesNotQueueBehindOneThatNobodyAnswered(t *testing.T) {
	bubble(t, func(w *world) {
		w.enable()
		w.waitPhase(dr.LegInMageRcm, dr.PhaseProtected)
		w.quiet(true)
		time.Sleep(time.Minute)
		first, err := w.control.CaptureNow(w.ctx, w.ref)
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Second)
		began := time.Now()
		second, err := w.control.CaptureNow(w.ctx, w.ref)
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Second)
		w.quiet(false)
		w.waitJob(second)
		if took := time.Since(began); took > 20*time.Second {
			t.Errorf("the second capture took %s, want it as soon as the agent answers", took)
		}
		for _, id := range []string{first, second} {
			if j := w.waitJob(id); j.State != job.Succeeded {
				t.Errorf("got %s with %+v, want it answered by the same capture", j.State, j.Errors)
			}
		}
	})
}
