package control

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/lifeboat-dr/lifeboat/service/dr"
	"github.com/lifeboat-dr/lifeboat/service/job"
	"github.com/lifeboat-dr/lifeboat/service/store"
)

// Points lists an item's recovery points, newest first.
func (s *Service) Points(ctx context.Context, ref Ref, p Paging) (out Page[dr.Point], err error) {
	out.Items = []dr.Point{}
	err = s.store.View(ctx, func(tx store.Tx) error {
		out = Page[dr.Point]{Items: []dr.Point{}}
		it, err := load[dr.Item](tx, KindItem, ref.itemKey())
		if err != nil {
			return err
		}
		prefix, limit, last := string(it.ID)+"/", p.limit(), ""
		return tx.List(KindPoint, prefix, p.after(prefix), limit+1, func(key string, _ int64, decode func(any) error) error {
			if len(out.Items) == limit {
				out.Next = strings.TrimPrefix(last, prefix)
				return nil
			}
			var v dr.Point
			if err := decode(&v); err != nil {
				return err
			}
			out.Items, last = append(out.Items, v), key
			return nil
		})
	})
	return out, err
}

// Point returns one recovery point by its GUID.
func (s *Service) Point(ctx context.Context, ref Ref, pointID string) (p dr.Point, err error) {
	err = s.store.View(ctx, func(tx store.Tx) error {
		it, err := load[dr.Item](tx, KindItem, ref.itemKey())
		if err != nil {
			return err
		}
		p, err = LoadPointByID(tx, it.ID, pointID)
		return err
	})
	return p, err
}

// RecordPoints puts points into the index. With complete, points are all of the item's: those it leaves out are forgotten. The
// first point of a leg makes the item Protected. Points of an item that is not there any more are dropped.
func (s *Service) RecordPoints(ctx context.Context, vaultID string, item dr.ItemID, points []dr.Point, complete bool) error {
	return s.store.Update(ctx, func(tx store.Tx) error {
		now := s.now()
		it, err := LoadItem(tx, item)
		if dr.CodeOf(err) == dr.CodeNotFound {
			return nil
		}
		if err != nil {
			return err
		}
		if it.Vault != vaultID {
			return &dr.Error{Code: dr.CodeInvalid, Message: fmt.Sprintf("machine %s is not of vault %s", item, vaultID), PossibleCauses: "the report mixes vaults", RecommendedAction: "report each vault's points by themselves"}
		}
		for _, p := range points {
			if err := recordPoint(tx, &it, p); err != nil {
				return err
			}
		}
		if complete {
			if err := forgetOthers(tx, it.ID, points, now); err != nil {
				return err
			}
		}
		before := it.State
		if err := noticeFirstPoint(tx, &it, now); err != nil {
			return err
		}
		seeded, err := noticeSeeds(tx, &it, points, now)
		if err != nil {
			return err
		}
		if it.State == before && !seeded {
			return nil
		}
		return SaveItem(tx, &it, now)
	})
}

func recordPoint(tx store.Tx, it *dr.Item, p dr.Point) error {
	item := it.ID
	p.Item, p.ID, p.Provider = item, dr.PointID(item, p.Ref()), dr.Project(it.State).Provider
	if p.Generation < 1 || p.Sequence < 1 {
		return &dr.Error{Code: dr.CodeInvalid, Message: fmt.Sprintf("%d/%d is not the place of a point", p.Generation, p.Sequence), PossibleCauses: "the report is malformed", RecommendedAction: "report generations and sequences from 1"}
	}
	if old, ok, err := LoadPoint(tx, item, p.Ref()); err != nil || ok && old.ID == p.ID && old.Time.Equal(p.Time) && old.StoredBytes == p.StoredBytes {
		return err
	}
	if _, err := tx.Put(KindPoint, pointKey(item, p.Ref()), -1, p); err != nil {
		return err
	}
	_, err := tx.Put(KindPointID, string(item)+"/"+p.ID, -1, p.Ref())
	return err
}

// lateList is how long a complete list may be under way.
const lateList = 10 * time.Minute

// forgetOthers drops the points that a complete list leaves out. One that was captured lately and is newer than all in the list
// stays: with several replicators, a list that was read before its commit may arrive after its own report. Prune never drops
// the newest point, so the next list decides.
func forgetOthers(tx store.Tx, item dr.ItemID, points []dr.Point, now time.Time) error {
	var newest dr.PointRef
	for _, p := range points {
		if r := p.Ref(); r.Generation > newest.Generation || r.Generation == newest.Generation && r.Sequence > newest.Sequence {
			newest = r
		}
	}
	return tx.List(KindPoint, string(item)+"/", "", 0, func(key string, _ int64, decode func(any) error) error {
		var p dr.Point
		if err := decode(&p); err != nil {
			return err
		}
		if slices.ContainsFunc(points, func(q dr.Point) bool { return q.Ref() == p.Ref() }) {
			return nil
		}
		newer := p.Generation > newest.Generation || p.Generation == newest.Generation && p.Sequence > newest.Sequence
		if newer && now.Sub(p.Time) < lateList {
			return nil
		}
		return forgetPoint(tx, item, p)
	})
}

func forgetPoint(tx store.Tx, item dr.ItemID, p dr.Point) error {
	if err := tx.Delete(KindPoint, pointKey(item, p.Ref()), -1); err != nil {
		return err
	}
	if err := tx.Delete(KindPointID, string(item)+"/"+p.ID, -1); err != nil && !errors.Is(err, store.ErrNotFound) {
		return err
	}
	return nil
}

// RecordDamage takes points whose entries in the bucket do not verify any more out of the index, with a critical event for each:
// nobody can recover from them. Places that the index does not know are not spoken of.
func (s *Service) RecordDamage(ctx context.Context, vaultID string, item dr.ItemID, places []dr.PointRef) error {
	if len(places) == 0 {
		return nil
	}
	return s.store.Update(ctx, func(tx store.Tx) error {
		it, err := LoadItem(tx, item)
		if dr.CodeOf(err) == dr.CodeNotFound || err == nil && it.Vault != vaultID {
			return nil // RecordPoints, which follows, refuses another vault's
		}
		if err != nil {
			return err
		}
		for _, r := range places {
			p, ok, err := LoadPoint(tx, item, r)
			if err != nil {
				return err
			}
			if !ok {
				continue
			}
			if err := forgetPoint(tx, item, p); err != nil {
				return err
			}
			text := fmt.Sprintf("The recovery point of %s of %s is lost: its entry in the bucket does not verify", it.FriendlyName, p.Time.UTC().Format(time.DateTime))
			e := ItemEvent(&it, "PointDamaged", dr.SeverityCritical, text)
			e.HealthErrors = []dr.HealthError{{ID: dr.NamedGUID("health", p.ID), Code: "RecoveryPointDamaged", Level: dr.LevelError, Category: dr.CategoryReplication, Message: text, Summary: text, Created: s.now(),
				PossibleCauses:    "the bucket returned bytes other than those that were stored, or somebody changed them",
				RecommendedAction: "keep the bucket as it is for examination, verify the points before and after it, and use one of those", Source: "Replicator", EntityID: string(it.ID)}}
			if err := SaveEvent(tx, &e, s.now()); err != nil {
				return err
			}
		}
		return nil
	})
}

// noticeSeeds sees that added disks are in a point of the running generation, and so have their first copy. The caller saves the item.
func noticeSeeds(tx store.Tx, it *dr.Item, points []dr.Point, now time.Time) (changed bool, err error) {
	for i := range it.Disks {
		d := &it.Disks[i]
		if !d.Seeding || !slices.ContainsFunc(points, func(p dr.Point) bool { return p.Generation == it.Generation && slices.Contains(p.Disks, d.ID) }) {
			continue
		}
		d.Seeding, changed = false, true
		e := ItemEvent(it, "DiskProtected", dr.SeverityOK, fmt.Sprintf("Disk %s of %s is in a recovery point", d.ID, it.FriendlyName))
		if err := SaveEvent(tx, &e, now); err != nil {
			return changed, err
		}
	}
	return changed, nil
}

// noticeFirstPoint makes the item Protected when its running generation holds a point. The caller saves the item.
func noticeFirstPoint(tx store.Tx, it *dr.Item, now time.Time) error {
	newest, err := NewestPoint(tx, it.ID, nil)
	if err != nil || newest == nil || newest.Generation != it.Generation {
		return err
	}
	next, refusal := dr.Apply(it.State, dr.Signal{Kind: dr.FirstPoint}, now)
	if refusal != nil {
		return refusal
	}
	if next.Phase == it.State.Phase {
		return nil
	}
	it.State = next
	j := newJob(context.Background(), it.Vault, job.PlanFinalize, itemTarget(it), now)
	j.Item = string(it.ID)
	return saveDone(tx, j, now)
}
