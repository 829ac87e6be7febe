package fleet_test

import (
	"testing"
	"time"

	"github.com/lifeboat-dr/lifeboat/service/control"
	"github.com/lifeboat-dr/lifeboat/service/dr"
)

func TestPointsReachTheIndex(t *testing.T) {
	w := newWorld(t)
	agent, replicator := w.enrolAgent(), w.enrolReplicator()
	id := w.protect(agent)
	point := func(seq int64) dr.Point {
		return dr.Point{Item: id, Generation: 1, Sequence: seq, Time: time.Now().Add(-time.Hour), Consistency: dr.CrashConsistent}
	}
	if err := w.fleet.RecordPoints(w.ctx, replicator, w.vault.ID, "", []dr.Point{point(1), point(2)}, false); err != nil {
		t.Fatal(err)
	}
	if err := w.fleet.RecordPoints(w.ctx, replicator, w.vault.ID, id, []dr.Point{point(2), point(3)}, true); err != nil {
		t.Fatal(err)
	}
	ref := w.container
	ref.Name = "web01"
	page, err := w.control.Points(w.ctx, ref, control.Paging{})
	if err != nil || len(page.Items) != 2 || page.Items[0].Sequence != 3 || page.Items[1].Sequence != 2 {
		t.Fatalf("Points: got %+v, %v, want 3 and 2", page.Items, err)
	}
	fresh := point(4)
	fresh.Time = time.Now()
	if err := w.fleet.RecordPoints(w.ctx, replicator, w.vault.ID, "", []dr.Point{fresh}, false); err != nil {
		t.Fatal(err)
	}
	if err := w.fleet.RecordPoints(w.ctx, replicator, w.vault.ID, id, []dr.Point{point(3)}, true); err != nil { // read before 4 was committed
		t.Fatal(err)
	}
	page, err = w.control.Points(w.ctx, ref, control.Paging{})
	if err != nil || len(page.Items) != 2 || page.Items[0].Sequence != 4 || page.Items[1].Sequence != 3 {
		t.Fatalf("Points after a late list: got %+v, %v, want 4 and 3", page.Items, err)
	}
	other := point(4)
	other.Item = "another"
	for name, call := range map[string]func() error{
		"a complete list without a machine": func() error { return w.fleet.RecordPoints(w.ctx, replicator, w.vault.ID, "", nil, true) },
		"a complete list of two machines": func() error {
			return w.fleet.RecordPoints(w.ctx, replicator, w.vault.ID, id, []dr.Point{other}, true)
		},
		"a point of another vault": func() error { return w.fleet.RecordPoints(w.ctx, replicator, "x", "", []dr.Point{point(5)}, false) },
	} {
		if err := call(); dr.CodeOf(err) != dr.CodeInvalid {
			t.Errorf("%s: got %v, want it refused as invalid", name, err)
		}
	}
}
