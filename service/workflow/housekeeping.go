package workflow

import (
	"context"
	"fmt"
	"slices"

	"github.com/lifeboat-dr/lifeboat/service/control"
	"github.com/lifeboat-dr/lifeboat/service/dr"
	"github.com/lifeboat-dr/lifeboat/service/job"
	"github.com/lifeboat-dr/lifeboat/service/store"
)

// judgeAll judges the health of every item and writes an event when something begins or ends to be wrong.
func (e *Engine) judgeAll(ctx context.Context) {
	items, err := e.items(ctx)
	if err != nil {
		e.complain(ctx, "items were not read", err)
		return
	}
	for _, it := range items {
		if err := e.store.Update(ctx, func(tx store.Tx) error { return e.judge(tx, it.ID) }); err != nil {
			e.complain(ctx, "health was not judged", err, "item", it.ID)
		}
	}
}

func (e *Engine) items(ctx context.Context) (items []dr.Item, err error) {
	err = e.store.View(ctx, func(tx store.Tx) error {
		items, err = control.AllItems(tx)
		return err
	})
	return items, err
}

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

// schedulePrunes starts a prune of every item whose last one is long ago.
func (e *Engine) schedulePrunes(ctx context.Context) {
	items, err := e.items(ctx)
	if err != nil {
		e.complain(ctx, "items were not read", err)
		return
	}
	for _, it := range items {
		now := e.now()
		if last, ok := e.pruned[it.ID]; !ok {
			e.pruned[it.ID] = now // counted from our start, so that restarts do not pile prunes up
			continue
		} else if now.Sub(last) < e.opt.PruneEvery {
			continue
		}
		e.pruned[it.ID] = now
		if err := e.store.Update(ctx, func(tx store.Tx) error { return startPrune(tx, it.ID, e) }); err != nil {
			e.complain(ctx, "prune was not started", err, "item", it.ID)
		}
	}
}

func startPrune(tx store.Tx, id dr.ItemID, e *Engine) error {
	it, err := control.LoadItem(tx, id)
	if dr.CodeOf(err) == dr.CodeNotFound {
		return nil
	}
	// After a failover retention stands still: the reprotect builds on the chosen point, which need not be the newest.
	if err != nil || it.Generation == 0 || it.State.PendingJob != "" || !dr.Replicates(it.State.Phase) {
		return err
	}
	open, err := control.OpenJobs(tx)
	if err != nil {
		return err
	}
	for _, other := range open {
		j, ok, err := control.LoadOpenJob(tx, other)
		if err != nil {
			return err
		}
		if ok && j.Plan == job.PlanPrune && j.Item == string(id) {
			return nil
		}
	}
	j, err := control.NewItemJob(&it, job.PlanPrune, "", control.Request{}, e.now())
	if err != nil {
		return err
	}
	j.Internal = true
	return control.SaveJob(tx, j)
}
