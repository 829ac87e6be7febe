package node

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"gocloud.dev/blob"
	"gocloud.dev/blob/memblob"

	"github.com/lifeboat-dr/lifeboat/replicator/faultbucket/faulttest"
	"github.com/lifeboat-dr/lifeboat/replicator/repo"
	"github.com/lifeboat-dr/lifeboat/replicator/worker"
	"github.com/lifeboat-dr/lifeboat/sdk/fleet"
)

// listener is a lifeboatd that takes every report.
type listener struct {
	t     *testing.T
	lists map[string][]fleet.Point // the newest complete list, by machine
}

func (l *listener) Do(r *http.Request) (*http.Response, error) {
	var report fleet.PointReport
	if err := json.NewDecoder(r.Body).Decode(&report); err != nil || !report.Complete {
		l.t.Errorf("got the report %+v, %v, want a complete list", report, err)
	}
	l.lists[report.MachineId] = report.Points
	return &http.Response{StatusCode: http.StatusNoContent, Body: http.NoBody}, nil
}

func fillMachines(t *testing.T, b *blob.Bucket) {
	t.Helper()
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	ctx := t.Context()
	r, err := repo.Open(ctx, b, "v", repo.Key{1}, nil, repo.Options{})
	check(err)
	for _, m := range []string{"m1", "m2"} {
		check(r.OpenGeneration(ctx, m, 1, nil))
		w, err := r.NewWriter(ctx, m, 1, []repo.DiskInfo{{ID: "d", Size: 1 << 20}}, repo.WriterOptions{Workers: 1})
		check(err)
		for range 3 {
			_, err := w.Commit(ctx, repo.Commit{Time: time.Now(), Consistency: "CrashConsistent"})
			check(err)
		}
		check(w.Close())
	}
}

// TestEveryBucketCallOfAReconciliationMayFail reports the complete lists of all machines over every kind of fault. A list that is
// not complete would take points out of lifeboatd's index: it is right, or it is not sent.
func TestEveryBucketCallOfAReconciliationMayFail(t *testing.T) {
	t.Parallel()
	from := memblob.OpenBucket(nil)
	defer from.Close()
	synctest.Test(t, func(t *testing.T) { fillMachines(t, from) })
	t.Run("calls", func(t *testing.T) {
		faulttest.EveryCall(t, 15, func(t *testing.T, run *faulttest.Run) {
			ctx, cancel := context.WithCancel(t.Context())
			inner := memblob.OpenBucket(nil)
			defer inner.Close()
			b := run.Bucket(inner)
			run.Fill(t, b, from)
			r, err := repo.Open(ctx, b, "v", repo.Key{1}, nil, repo.Options{})
			if err != nil {
				t.Fatal(err)
			}
			v := &worker.Vault{ID: "v", Repository: r}
			l := &listener{t: t, lists: map[string][]fleet.Point{}}
			client, err := fleet.NewClientWithResponses("http://lifeboatd.test", fleet.WithHTTPClient(l))
			if err != nil {
				t.Fatal(err)
			}
			x := newIndex(client, slog.New(slog.DiscardHandler))
			ended := make(chan struct{})
			go func() {
				defer close(ended)
				x.run(ctx)
			}()
			defer func() {
				cancel()
				<-ended
			}()
			run.Arm()
			x.reconcile(ctx, v)
			told := x.ReportMachine(ctx, v, "m2") // answered after the lists before it
			run.Disarm()
			if told != nil && (run.Counts() || !run.Lasts() && !run.Flips()) {
				t.Errorf("got %v, want it tried again", told)
			}
			if told != nil && !run.Flips() {
				if f := worker.FailureOf(told); f.Code != "unavailable" && f.Code != "exhausted" {
					t.Errorf("got %v, told as %+v", told, f)
				}
			}
			for m, points := range l.lists {
				if len(points) != 3 && (!run.Flips() || !run.Lasts()) { // an entry that never verifies is no point
					t.Errorf("after %v machine %s was reported with %d points, want 3", told, m, len(points))
				}
			}
			x.reconcile(ctx, v)
			if err := x.ReportMachine(ctx, v, "m1"); err != nil {
				t.Errorf("when the bucket is well again: %v", err)
			}
			if len(l.lists["m1"]) != 3 || len(l.lists["m2"]) != 3 {
				t.Errorf("when the bucket is well again: got the lists %v", l.lists)
			}
		})
	})
}
