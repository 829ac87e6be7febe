package workflow

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/lifeboat-dr/lifeboat/service/control"
	"github.com/lifeboat-dr/lifeboat/service/dr"
	"github.com/lifeboat-dr/lifeboat/service/job"
	"github.com/lifeboat-dr/lifeboat/service/store"
)

// housePage is how many items are looked at in one transaction.
const housePage = 100

// maxPrunes bounds how many items are pruned at a time: all items of a vault may become due at once.
const maxPrunes = 64

// house is how far the housekeeping of a term is. Its rounds go through all items, page by page; a round that takes longer than
// there is time for goes on at the next tick.
type house struct {
	after  string // where the round goes on
	round  int64
	pruned map[dr.ItemID]pruning
}

type pruning struct {
	last  time.Time
	round int64 // that met the item
}

// keepHouse judges health and starts prunes until ctx ends.
func (e *Engine) keepHouse(ctx context.Context) {
	h := &house{pruned: map[dr.ItemID]pruning{}}
	tick := time.NewTicker(e.opt.Housekeeping)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		for began := time.Now(); ctx.Err() == nil && time.Since(began) < e.opt.Housekeeping/2; {
			if !e.sweep(ctx, h) {
				break
			}
		}
	}
}

// sweep does the next page of a round and tells whether there is another.
func (e *Engine) sweep(ctx context.Context, h *house) bool {
	items, odd, last, err := e.survey(ctx, h.after)
	if err != nil {
		e.complain(ctx, "items were not read", err)
		return false
	}
	for _, id := range odd {
		if err := e.update(ctx, func(tx store.Tx) error { return e.judge(tx, id) }); err != nil {
			e.complain(ctx, "health was not judged", err, "item", id)
		}
	}
	e.schedulePrunes(ctx, h, items)
	if h.after = last; last != "" {
		return true
	}
	for id, p := range h.pruned {
		if p.round != h.round {
			delete(h.pruned, id) // gone
		}
	}
	h.round++
	return false
}

// survey reads a page of items and tells those whose health is not what was judged last.
func (e *Engine) survey(ctx context.Context, after string) (ids, odd []dr.ItemID, last string, err error) {
	err = e.store.View(ctx, func(tx store.Tx) error {
		var items []dr.Item
		if items, last, err = control.SomeItems(tx, after, housePage); err != nil {
			return err
		}
		ids, odd = nil, nil
		for i := range items {
			evidence, err := control.EvidenceFor(tx, &items[i])
			if err != nil {
				return err
			}
			ids = append(ids, items[i].ID)
			_, errs := dr.Judge(evidence, e.now())
			same := func(a, b dr.HealthError) bool { return a.Code == b.Code }
			if !slices.EqualFunc(errs, items[i].HealthErrors, same) {
				odd = append(odd, items[i].ID)
			}
		}
		return nil
	})
	return ids, odd, last, err
}

// judge judges the health of an item and writes an event when something begins or ends to be wrong.
func (e *Engine) judge(tx store.Tx, id dr.ItemID) error {
	it, err := control.LoadItem(tx, id)
	if dr.CodeOf(err) == dr.CodeNotFound {
		return nil
	}
	if err != nil {
		return err
	}
	evidence, err := control.EvidenceFor(tx, &it)
	if err != nil {
		return err
	}
	now := e.now()
	_, errs := dr.Judge(evidence, now)
	has := func(list []dr.HealthError, code string) bool {
		return slices.ContainsFunc(list, func(h dr.HealthError) bool { return h.Code == code })
	}
	changed := false
	for i := range errs {
		if has(it.HealthErrors, errs[i].Code) {
			continue
		}
		changed = true
		severity := dr.SeverityWarning
		if errs[i].Level == dr.LevelError {
			severity = dr.SeverityCritical
		}
		ev := control.ItemEvent(&it, errs[i].Code, severity, errs[i].Summary)
		ev.HealthErrors = []dr.HealthError{errs[i]}
		if err := control.SaveEvent(tx, &ev, now); err != nil {
			return err
		}
	}
	for _, old := range it.HealthErrors {
		if has(errs, old.Code) {
			continue
		}
		changed = true
		ev := control.ItemEvent(&it, old.Code+"Cleared", dr.SeverityOK, fmt.Sprintf("No longer: %s", old.Summary))
		if err := control.SaveEvent(tx, &ev, now); err != nil {
			return err
		}
	}
	if !changed {
		return nil
	}
	it.HealthErrors = errs
	return control.SaveItem(tx, &it, now)
}

// schedulePrunes starts a prune of the items whose last one is long ago.
func (e *Engine) schedulePrunes(ctx context.Context, h *house, items []dr.ItemID) {
	var due []dr.ItemID
	for _, id := range items {
		now := e.now()
		p, ok := h.pruned[id]
		if !ok {
			p.last = now // counted from the begin of the term, so that restarts do not pile prunes up
		}
		p.round = h.round
		h.pruned[id] = p
		if now.Sub(p.last) >= e.opt.PruneEvery {
			due = append(due, id)
		}
	}
	if len(due) == 0 {
		return
	}
	open, err := e.openPrunes(ctx)
	if err != nil {
		e.complain(ctx, "open jobs were not read", err)
		return
	}
	for _, id := range due {
		if len(open) >= maxPrunes {
			return
		}
		h.pruned[id] = pruning{last: e.now(), round: h.round}
		if open[id] {
			continue
		}
		open[id] = true
		if err := e.update(ctx, func(tx store.Tx) error { return startPrune(tx, id, e.now()) }); err != nil {
			e.complain(ctx, "prune was not started", err, "item", id)
		}
	}
}

// openPrunes are the items that are being pruned.
func (e *Engine) openPrunes(ctx context.Context) (items map[dr.ItemID]bool, err error) {
	err = e.store.View(ctx, func(tx store.Tx) error {
		items = map[dr.ItemID]bool{}
		ids, err := control.OpenJobs(tx)
		if err != nil {
			return err
		}
		for _, id := range ids {
			j, ok, err := control.LoadOpenJob(tx, id)
			if err != nil {
				return err
			}
			if ok && j.Plan == job.PlanPrune {
				items[dr.ItemID(j.Item)] = true
			}
		}
		return nil
	})
	return items, err
}

func startPrune(tx store.Tx, id dr.ItemID, now time.Time) error {
	it, err := control.LoadItem(tx, id)
	if dr.CodeOf(err) == dr.CodeNotFound {
		return nil
	}
	// After a failover retention stands still: the reprotect builds on the chosen point, which need not be the newest.
	if err != nil || it.Generation == 0 || it.State.PendingJob != "" || !dr.Replicates(it.State.Phase) {
		return err
	}
	j, err := control.NewItemJob(&it, job.PlanPrune, "", control.Request{}, now)
	if err != nil {
		return err
	}
	j.Internal = true
	return control.SaveJob(tx, j)
}
