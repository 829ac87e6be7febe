package workflow

import (
	"context"
	"errors"
	"slices"

	"github.com/lifeboat-dr/lifeboat/service/control"
	"github.com/lifeboat-dr/lifeboat/service/store"
)

// probe tries a transaction without saving: it tells whether it would save. Most open jobs wait most of the time, and a
// transaction that only reads, many jobs at once, costs a small part of one that may write.
type probe struct {
	store.Tx
	saves bool
}

var errProbe = errors.New("workflow: this would be saved")

func (p *probe) Put(store.Kind, string, int64, any) (int64, error) {
	p.saves = true
	return 0, errProbe
}

func (p *probe) Delete(store.Kind, string, int64) error {
	p.saves = true
	return errProbe
}

// probed is how many jobs are looked at in one transaction.
const probed = 64

// advanceAll moves every open job as far as it goes now.
func (e *Engine) advanceAll(ctx context.Context) {
	ids, err := e.openJobs(ctx)
	if err != nil {
		e.complain(ctx, "open jobs were not read", err)
		return
	}
	for some := range slices.Chunk(ids, probed) {
		due, err := e.due(ctx, some)
		if err != nil {
			e.complain(ctx, "open jobs were not looked at", err)
			return
		}
		for _, id := range due {
			if ctx.Err() != nil {
				return
			}
			if err := e.advance(ctx, id); err != nil {
				e.complain(ctx, "job was not moved", err, "job", id)
			}
		}
	}
}

func (e *Engine) openJobs(ctx context.Context) (ids []string, err error) {
	err = e.store.View(ctx, func(tx store.Tx) error {
		ids, err = control.OpenJobs(tx)
		return err
	})
	return ids, err
}

// due returns the jobs that can be moved now. What cannot be told is due: the real transaction tells what is wrong.
func (e *Engine) due(ctx context.Context, ids []string) (due []string, err error) {
	err = e.store.View(ctx, func(tx store.Tx) error {
		due = due[:0]
		for _, id := range ids {
			p := &probe{Tx: tx}
			var n next
			r, err := e.load(p, id)
			if err == nil && r != nil {
				n, err = e.move(r)
			}
			if err != nil || p.saves || n != (next{}) {
				due = append(due, id)
			}
		}
		return nil
	})
	return due, err
}
