package control_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/lifeboat-dr/lifeboat/service/control"
	"github.com/lifeboat-dr/lifeboat/service/dr"
	"github.com/lifeboat-dr/lifeboat/service/job"
	"github.com/lifeboat-dr/lifeboat/service/store"
)

// counting counts the reads of views and the documents they decode.
type counting struct {
	store.Store
	reads, decoded int
}

func (c *counting) View(ctx context.Context, fn func(store.Tx) error) error {
	return c.Store.View(ctx, func(tx store.Tx) error { return fn(countedTx{tx, c}) })
}

type countedTx struct {
	store.Tx
	c *counting
}

func (t countedTx) Get(kind store.Kind, key string, dst any) (int64, error) {
	t.c.reads++
	t.c.decoded++
	return t.Tx.Get(kind, key, dst)
}

func (t countedTx) List(kind store.Kind, prefix, after string, limit int, fn func(string, int64, func(any) error) error) error {
	t.c.reads++
	return t.Tx.List(kind, prefix, after, limit, func(key string, version int64, decode func(any) error) error {
		return fn(key, version, func(dst any) error { t.c.decoded++; return decode(dst) })
	})
}

// manyItems protects machines that have points each, and returns a service that counts what it reads.
func manyItems(t testing.TB, f fixture, machines, points int) (*control.Service, *counting, control.Ref) {
	t.Helper()
	ref := f.fabric("site")
	f.policy("p", "InMageRcm")
	m := ref
	m.Name = "m"
	f.must(f.PutMapping(t.Context(), m, control.MappingInput{PolicyID: "p"}))
	if err := f.EnsureReplicator(t.Context(), dr.Replicator{ID: "r", Hostname: "r", Site: dr.SiteRecovery, Roles: []string{dr.RoleProcessServer}, Capabilities: []string{job.CapabilityRepository}}); err != nil {
		t.Fatal(err)
	}
	for i := range machines {
		host := fmt.Sprintf("vm%04d", i)
		f.enrol("site", host, "uuid-"+host)
	}
	page, err := f.Protectables(t.Context(), ref, "", control.Paging{})
	if err != nil || len(page.Items) != machines {
		t.Fatalf("got %d machines, %v, want %d", len(page.Items), err, machines)
	}
	for _, p := range page.Items {
		item := ref
		item.Name = p.Item.FriendlyName
		in := f.enableInput(ref)
		in.ProviderInput = fmt.Appendf(nil, `{"instanceType":"InMageRcm","fabricDiscoveryMachineId":"%s"}`, p.Item.Name)
		f.must(f.Enable(t.Context(), item, in))
		v, err := f.Item(t.Context(), item)
		if err != nil {
			t.Fatal(err)
		}
		var ps []dr.Point
		for n := range points {
			ps = append(ps, dr.Point{Generation: 1, Sequence: int64(n + 1), Time: time.Unix(int64(n), 0), Consistency: dr.CrashConsistent})
		}
		if err := f.RecordPoints(t.Context(), f.vault, v.Item.ID, ps, true); err != nil {
			t.Fatal(err)
		}
	}
	c := &counting{Store: f.store}
	return control.New(control.Config{Store: c}), c, ref
}

func TestAnItemIsReadWithoutReadingItsPoints(t *testing.T) {
	t.Parallel()
	s, c, ref := manyItems(t, newFixture(t), 10, 50)
	item := ref
	item.Name = "vm0003"
	v, err := s.Item(t.Context(), item)
	if err != nil || v.LatestPoint == nil || v.LatestPoint.Sequence != 50 || v.Policy.Name != "p" || v.Fabric.Name != "site" || v.ProcessServer == nil {
		t.Fatalf("got %+v, %v, want the whole view", v, err)
	}
	if c.reads > 9 || c.decoded > 10 {
		t.Errorf("an item took %d reads and %d documents, want at most 9 and 10", c.reads, c.decoded)
	}
	c.reads, c.decoded = 0, 0
	page, err := s.Items(t.Context(), ref, control.ItemFilter{}, control.Paging{})
	if err != nil || len(page.Items) != 10 || page.Items[9].LatestPoint.Sequence != 50 || page.Items[9].Fabric.Name != "site" || page.Items[9].ProcessServer == nil {
		t.Fatalf("got %+v, %v, want ten items", page, err)
	}
	if c.reads > 7+10*4 {
		t.Errorf("ten items took %d reads, want at most 47", c.reads)
	}
}

func BenchmarkItems(b *testing.B) {
	s, _, ref := manyItems(b, newFixture(b), 50, 288)
	for b.Loop() {
		if _, err := s.Items(b.Context(), ref, control.ItemFilter{}, control.Paging{}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkItem(b *testing.B) {
	s, _, ref := manyItems(b, newFixture(b), 1, 288)
	ref.Name = "vm0000"
	for b.Loop() {
		if _, err := s.Item(b.Context(), ref); err != nil {
			b.Fatal(err)
		}
	}
}
