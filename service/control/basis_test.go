package control_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/lifeboat-dr/lifeboat/service/control"
	"github.com/lifeboat-dr/lifeboat/service/dr"
	"github.com/lifeboat-dr/lifeboat/service/store"
)

// A view that is kept while its basis holds tells at every instant what a fresh one tells.
func TestAKeptItemFollowsTheClock(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		ref := f.fabric("site")
		ref.Name = "vm"
		start := time.Now().UTC()
		if err := f.store.Update(t.Context(), func(tx store.Tx) error {
			it := dr.Item{Meta: dr.Meta{Name: ref.Name}, ID: "i", Vault: ref.Vault, Fabric: ref.Fabric, Container: ref.Container, Generation: 1,
				State: dr.State{Leg: dr.LegInMageRcm, Phase: dr.PhaseProtected, Since: start.Add(-time.Hour)}}
			if err := control.SaveItem(tx, &it, start); err != nil {
				return err
			}
			_, err := tx.Put(control.KindObserved, "i", 0, dr.Observed{Item: "i", LastHeartbeat: start.Add(-dr.HeartbeatLimit + 5300*time.Millisecond)})
			return err
		}); err != nil {
			t.Fatal(err)
		}
		if err := f.RecordPoints(t.Context(), f.vault, "i", []dr.Point{{Generation: 1, Sequence: 1, Time: start.Add(-1700 * time.Millisecond), Consistency: dr.CrashConsistent}}, true); err != nil {
			t.Fatal(err)
		}
		var kept control.ItemView
		var basis *control.Basis
		spared, health := 0, map[string]int{}
		for range 200 {
			if basis != nil && basis.Holds(t.Context()) {
				spared++
			} else {
				ctx, b := f.Note(t.Context())
				v, err := f.Item(ctx, ref)
				if err != nil {
					t.Fatal(err)
				}
				kept, basis = v, b
			}
			now, err := f.Item(t.Context(), ref)
			if err != nil {
				t.Fatal(err)
			}
			health[now.Health]++
			if kept.Health != now.Health || !kept.RPOValid || kept.RPO/time.Second != now.RPO/time.Second || now.RPOAt.Sub(kept.RPOAt) >= time.Second {
				t.Fatalf("at %s got health %s and RPO %s of %s, want %s and %s", now.RPOAt, kept.Health, kept.RPO, kept.RPOAt, now.Health, now.RPO)
			}
			time.Sleep(100 * time.Millisecond)
		}
		if spared < 150 || health[dr.HealthNormal] == 0 || health[dr.HealthCritical] == 0 {
			t.Errorf("%d of 200 looks were spared, of health %v", spared, health)
		}
	})
}

func TestAKeptAnswerEndsWithAnUpdate(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	ctx, basis := f.Note(t.Context())
	if _, err := f.Vault(ctx, vaultKey); err != nil {
		t.Fatal(err)
	}
	f.fabric("site")
	if !basis.Holds(t.Context()) {
		t.Error("a vault does not hold after a fabric was made in it")
	}
	if _, err := f.PatchVault(t.Context(), vaultKey, control.VaultPatch{Tags: map[string]string{"a": "b"}}); err != nil {
		t.Fatal(err)
	}
	if basis.Holds(t.Context()) {
		t.Error("a vault holds after it was changed")
	}
}
