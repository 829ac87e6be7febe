package workflow

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/lifeboat-dr/lifeboat/service/control"
	"github.com/lifeboat-dr/lifeboat/service/dr"
	"github.com/lifeboat-dr/lifeboat/service/job"
	"github.com/lifeboat-dr/lifeboat/service/store"
	"github.com/lifeboat-dr/lifeboat/service/store/sqlstore"
)

// A machine is started by one host only, whatever happens on the way: the choice is saved with the instance.
func TestTheHostOfAnInstanceIsChosenOnce(t *testing.T) {
	db, err := sqlstore.OpenSQLite(t.Context(), filepath.Join(t.TempDir(), "db"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	now := time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)
	item := &dr.Item{}
	jobs := work{}
	put := func(id, site string, silent time.Duration, instances ...dr.InstanceReport) {
		t.Helper()
		rep := dr.Replicator{ID: id, Site: site, Capabilities: []string{job.CapabilityCompute, job.At(job.CapabilityCompute, id)}, LastHeartbeat: now.Add(-silent), Instances: instances}
		err := db.Update(t.Context(), func(tx store.Tx) error {
			_, err := tx.Put(control.KindReplicator, id, -1, rep)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	route := func() string {
		t.Helper()
		var capability string
		err := db.View(t.Context(), func(tx store.Tx) error {
			r := &run{tx: tx, now: now, item: item, work: jobs}
			var err error
			_, capability, err = computeRoute(func(*run) string { return "i1" })(r)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return capability
	}
	want := func(what, got, want string) {
		t.Helper()
		if got != want {
			t.Fatalf("%s: got %q, want %q", what, got, want)
		}
	}

	put("a", dr.SiteRecovery, 20*time.Second)
	put("b", dr.SiteRecovery, time.Second)
	put("home", dr.SiteHome, 0)
	put("dead", dr.SiteRecovery, 40*time.Second)
	item.TestInstance = &dr.Instance{ID: "i1"}
	jobs.Instance = &dr.Instance{ID: "i1"}
	want("the first choice", route(), "compute@b")
	want("the item", item.TestInstance.Replicator, "b")
	want("the job", jobs.Instance.Replicator, "b")

	put("a", dr.SiteRecovery, 0)
	put("b", dr.SiteRecovery, time.Hour)
	want("when the chosen one fell silent", route(), "compute@b")

	put("a", dr.SiteRecovery, 0, dr.InstanceReport{ID: "i1", State: "running"})
	want("when it runs elsewhere", route(), "compute@a")
	put("a", dr.SiteRecovery, 0)
	want("after that", route(), "compute@a")

	item.TestInstance = &dr.Instance{ID: "i1"}
	jobs.Instance = nil
	put("a", dr.SiteRecovery, time.Minute)
	want("when only the home site was heard of lately", route(), "compute@home")
}
