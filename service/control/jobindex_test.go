package control_test

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/lifeboat-dr/lifeboat/service/control"
	"github.com/lifeboat-dr/lifeboat/service/job"
	"github.com/lifeboat-dr/lifeboat/service/store"
)

// idAt makes a job's id as one made at a time has it.
func idAt(at time.Time) string {
	id := uuid.Must(uuid.NewV7())
	for i, ms := 5, at.UnixMilli(); i >= 0; i, ms = i-1, ms>>8 {
		id[i] = byte(ms)
	}
	return id.String()
}

func TestFilteredJobsAreThoseThatAScanFinds(t *testing.T) {
	f := newFixture(t)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 1))
	states := []job.State{job.NotStarted, job.InProgress, job.Succeeded, job.Failed, job.Cancelled, job.Suspended, job.Cancelling}
	begin := time.Now().Add(-24 * time.Hour).UTC().Truncate(time.Millisecond)
	var jobs []job.Job
	if err := f.store.Update(t.Context(), func(tx store.Tx) error {
		jobs = nil
		for i := range 400 {
			at := begin.Add(time.Duration(rnd.IntN(24*3600)) * time.Second)
			j := job.Job{ID: idAt(at), Vault: f.vault, Plan: job.PlanPurge, State: states[rnd.IntN(len(states))], TargetType: []string{"ProtectionEntity", "Server"}[i%2], Created: at, Started: at, Internal: rnd.IntN(10) == 0}
			if j.Internal && j.State == job.Succeeded {
				continue // is not kept
			}
			if err := control.SaveJob(tx, &j); err != nil {
				return err
			}
			if rnd.IntN(2) == 0 { // it moves on
				j.State = states[rnd.IntN(len(states)-2)]
				if err := control.SaveJob(tx, &j); err != nil {
					return err
				}
			}
			if !j.Internal {
				jobs = append(jobs, j)
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	slices.SortFunc(jobs, func(a, b job.Job) int { return strings.Compare(b.ID, a.ID) })
	for range 300 {
		var in control.JobFilter
		for _, s := range states {
			if rnd.IntN(4) == 0 {
				in.States = append(in.States, s)
			}
		}
		if rnd.IntN(2) == 0 {
			in.From = begin.Add(time.Duration(rnd.IntN(24)) * time.Hour)
		}
		if rnd.IntN(2) == 0 {
			in.To = begin.Add(time.Duration(rnd.IntN(24)) * time.Hour)
		}
		if rnd.IntN(3) == 0 {
			in.AffectedObjects = []string{"server"}
		}
		var want, got []string
		for _, j := range jobs {
			if (len(in.States) == 0 || slices.Contains(in.States, j.State)) && (in.From.IsZero() || !j.Started.Before(in.From)) && (in.To.IsZero() || !j.Started.After(in.To)) &&
				(len(in.AffectedObjects) == 0 || j.TargetType == "Server") {
				want = append(want, j.ID)
			}
		}
		p := control.Paging{Limit: 1 + rnd.IntN(90)}
		for {
			page, err := f.Jobs(t.Context(), f.vault, in, p)
			if err != nil {
				t.Fatal(err)
			}
			if len(page.Items) > p.Limit {
				t.Errorf("got a page of %d, want at most %d", len(page.Items), p.Limit)
			}
			for _, v := range page.Items {
				got = append(got, v.Job.ID)
			}
			if p.After = page.Next; p.After == "" {
				break
			}
		}
		if !slices.Equal(got, want) {
			t.Fatalf("filter %+v by %d: got %d jobs %v, want %d %v", in, p.Limit, len(got), got, len(want), want)
		}
	}
}

func TestJobsFromBeforeTheIndexAreFound(t *testing.T) {
	f := newFixture(t)
	const n = 1200
	if err := f.store.Update(t.Context(), func(tx store.Tx) error {
		for i := range n {
			j := job.Job{ID: idAt(time.Now().Add(time.Duration(i-n) * time.Second)), Vault: f.vault, Plan: job.PlanPurge, State: job.Failed, Started: time.Now()}
			if err := control.SaveJob(tx, &j); err != nil {
				return err
			}
		}
		// As if there had been no index: entries and marks go.
		if err := tx.List(control.KindJobState, "", "", 0, func(key string, _ int64, _ func(any) error) error {
			return tx.Delete(control.KindJobState, key, -1)
		}); err != nil {
			return err
		}
		return tx.List(control.KindJob, "", "", 0, func(key string, version int64, decode func(any) error) error {
			var j job.Job
			if err := decode(&j); err != nil {
				return err
			}
			j.Indexed = ""
			_, err := tx.Put(control.KindJob, key, version, j)
			return err
		})
	}); err != nil {
		t.Fatal(err)
	}
	failed := func() (n int) {
		t.Helper()
		u, err := f.VaultUsage(t.Context(), f.vault)
		if err != nil {
			t.Fatal(err)
		}
		return u.FailedJobs
	}
	if got := failed(); got != 0 {
		t.Fatalf("got %d jobs without an index, want none: the test shows nothing", got)
	}
	for range 2 {
		if err := f.IndexJobs(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := failed(); got != n {
			t.Errorf("got %d failed jobs, want %d", got, n)
		}
	}
}
