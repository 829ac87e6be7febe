package workflow_test

import (
	"slices"
	"testing"

	"github.com/lifeboat-dr/lifeboat/service/control"
	"github.com/lifeboat-dr/lifeboat/service/job"
	"github.com/lifeboat-dr/lifeboat/service/queue"
)

// released waits until no point is held.
func (w *world) released() {
	w.t.Helper()
	w.waitFor("the point to be released", func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		return len(w.pins) == 0
	})
}

func (w *world) held() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.pins) == 1
}

// TestAPointIsHeldWhileItIsRead checks, with the worker, that verify and export work on a point that no prune may drop, and that
// it is released whatever comes of them.
func TestAPointIsHeldWhileItIsRead(t *testing.T) {
	for kind, start := range map[string]func(*world) (string, error){
		job.KindPointVerify: func(w *world) (string, error) {
			return w.control.VerifyPoint(w.ctx, w.ref, w.item().LatestPoint.ID)
		},
		job.KindPointExport: func(w *world) (string, error) {
			return w.control.ExportPoint(w.ctx, w.ref, w.item().LatestPoint.ID, job.FormatRaw, "/somewhere")
		},
	} {
		t.Run(kind, func(t *testing.T) {
			w := protectedWorld(t)
			w.ask(start(w))
			w.released()

			w.fail(kind, broken)
			id, err := start(w)
			if err != nil {
				t.Fatal(err)
			}
			if j := w.waitJob(id); j.State != job.Failed {
				t.Fatalf("got %s, want it failed", j.State)
			}
			w.released()
			w.ask(w.control.RestartJob(w.ctx, w.vault, id)) // holds it anew
			w.released()

			w.fail(kind, slices.Repeat([]queue.Failure{away}, 1000)...)
			w.fail(job.KindPointUnpin, slices.Repeat([]queue.Failure{away}, 30)...) // longer than other tasks are retried
			if id, err = start(w); err != nil {
				t.Fatal(err)
			}
			w.waitFor("the point to be held", w.held)
			if _, err := w.control.CancelJob(w.ctx, w.vault, id); err != nil {
				t.Fatal(err)
			}
			if j := w.waitJob(id); j.State != job.Cancelled {
				t.Fatalf("got %s, want it cancelled", j.State)
			}
			w.released()

			page, err := w.control.Jobs(w.ctx, w.vault, control.JobFilter{}, control.Paging{})
			if err != nil {
				t.Fatal(err)
			}
			for _, j := range page.Items {
				if j.Job.Plan == job.PlanReleasePoint {
					t.Error("housekeeping is listed among the jobs")
				}
			}
		})
	}
}
