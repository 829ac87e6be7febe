package control_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/lifeboat-dr/lifeboat/service/control"
	"github.com/lifeboat-dr/lifeboat/service/dr"
	"github.com/lifeboat-dr/lifeboat/service/job"
	"github.com/lifeboat-dr/lifeboat/service/store"
	"github.com/lifeboat-dr/lifeboat/service/store/sqlstore"
	"github.com/lifeboat-dr/lifeboat/service/store/storetest"
)

// crowd fills a vault of its own on PostgreSQL with n items, each with a job that has ended, and a few that have not.
func crowd(b *testing.B, s *control.Service, db store.Store, name string, n int) (vault string) {
	b.Helper()
	must := func(err error) {
		b.Helper()
		if err != nil {
			b.Fatal(err)
		}
	}
	v, err := s.PutVault(b.Context(), dr.VaultKey{Subscription: "s", ResourceGroup: "g", Name: name}, control.VaultInput{Location: "here"})
	must(err)
	fabric := control.Ref{Vault: v.Vault.ID, Fabric: "site"}
	_, err = s.PutFabric(b.Context(), fabric, control.FabricInput{Kind: dr.FabricInMageRcm})
	must(err)
	containers, err := s.Containers(b.Context(), fabric, control.Paging{})
	must(err)
	container := containers.Items[0].Container.Name
	now := time.Now().UTC()
	const batch = 500
	for from := 0; from < n; from += batch {
		must(db.Update(b.Context(), func(tx store.Tx) error {
			for i := from; i < min(n, from+batch); i++ {
				item := fmt.Sprintf("vm%06d", i)
				it := dr.Item{Meta: dr.Meta{Name: item}, ID: dr.ItemID(dr.NamedGUID(name, item)), Vault: v.Vault.ID, Fabric: "site", Container: container, AgentID: "agent-" + item}
				if err := control.SaveItem(tx, &it, now); err != nil {
					return err
				}
				j := job.Job{ID: idAt(now.Add(time.Duration(i-n) * time.Second)), Vault: v.Vault.ID, Plan: job.PlanEnable, State: job.Succeeded, Item: string(it.ID), Started: now}
				if i%(max(1, n/50)) == 0 {
					j.State = job.Failed
				}
				if err := control.SaveJob(tx, &j); err != nil {
					return err
				}
			}
			return nil
		}))
	}
	return v.Vault.ID
}

// BenchmarkVaultSize asks the same of a vault of one page of items and of one of 100,000: what is asked must not cost more for
// what is not asked for.
func BenchmarkVaultSize(b *testing.B) {
	db, err := sqlstore.OpenPostgres(b.Context(), storetest.StartPostgres(b).URL)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = db.Close() })
	sealer, err := control.NewKeySealer([32]byte{7})
	if err != nil {
		b.Fatal(err)
	}
	s := control.New(control.Config{Store: db, Sealer: sealer, BucketURL: func(id string) string { return "mem://" + id },
		MakeVault: func(string) (control.VaultSecrets, string, error) { return control.VaultSecrets{}, "", nil }})
	for _, size := range []int{100, 100_000} {
		vault := crowd(b, s, db, fmt.Sprint(size), size)
		containers, err := s.Containers(b.Context(), control.Ref{Vault: vault, Fabric: "site"}, control.Paging{})
		if err != nil {
			b.Fatal(err)
		}
		container := containers.Items[0].Container.Name
		in := control.Ref{Vault: vault}
		at := func(i int) string { return fmt.Sprintf("site/%s/vm%06d", container, i) }
		for _, c := range []struct {
			name string
			ask  func() (int, error)
			want int
		}{
			{"first-page", func() (int, error) {
				p, err := s.Items(b.Context(), in, control.ItemFilter{}, control.Paging{Limit: 100})
				return len(p.Items), err
			}, 100},
			{"last-page", func() (int, error) {
				after := at(size - 101)
				if size == 100 {
					after = ""
				}
				p, err := s.Items(b.Context(), in, control.ItemFilter{}, control.Paging{After: after, Limit: 100})
				return len(p.Items), err
			}, 100},
			{"get", func() (int, error) {
				_, err := s.Item(b.Context(), control.Ref{Vault: vault, Fabric: "site", Container: container, Name: fmt.Sprintf("vm%06d", size/2)})
				return 1, err
			}, 1},
			{"jobs-by-state", func() (int, error) {
				p, err := s.Jobs(b.Context(), vault, control.JobFilter{States: []job.State{job.Failed}}, control.Paging{Limit: 100})
				return len(p.Items), err
			}, 50},
			{"jobs-by-time", func() (int, error) {
				p, err := s.Jobs(b.Context(), vault, control.JobFilter{To: time.Now().Add(time.Hour), From: time.Now().Add(-time.Hour)}, control.Paging{Limit: 100})
				return len(p.Items), err
			}, 100},
			{"container", func() (int, error) {
				p, err := s.Containers(b.Context(), control.Ref{Vault: vault, Fabric: "site"}, control.Paging{})
				return len(p.Items), err
			}, 1},
		} {
			b.Run(fmt.Sprintf("%s/items=%d", c.name, size), func(b *testing.B) {
				var took []time.Duration
				for b.Loop() {
					began := time.Now()
					got, err := c.ask()
					if err != nil || got != c.want {
						b.Fatalf("got %d, %v, want %d", got, err, c.want)
					}
					took = append(took, time.Since(began))
				}
				slices.Sort(took)
				b.ReportMetric(float64(took[len(took)*99/100])/float64(time.Millisecond), "p99-ms")
			})
		}
	}
}
