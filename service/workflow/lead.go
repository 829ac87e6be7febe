package workflow

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/lifeboat-dr/lifeboat/service/store"
)

// KindEngine are the two documents by which the engines on a store agree who leads. The term changes only with the leader, so
// that the leader's transactions, which all read it, do not collide with its beats.
const KindEngine store.Kind = "engine" // "term", "beat"

const (
	termKey = "term"
	beatKey = "beat"
)

// term is who leads. Its number is the fencing token: it grows with every leader, and is no less than the time in milliseconds, so
// that a queue that outlives the store takes the terms of the next one.
type term struct {
	Number int64
	Name   string
}

// beat is the leader's sign of life. What counts is that it changes, so that no two clocks are compared.
type beat struct {
	Number   int64 // of the term
	Count    int64
	Resigned bool
}

// errDeposed means that another engine leads by now. Nothing of the transaction was saved.
var errDeposed = errors.New("workflow: another engine leads")

// campaign waits until this engine leads and returns the number of its term; 0 when ctx ended. At its first call an engine takes
// over at once from one of its own name, because that one's process has ended.
func (e *Engine) campaign(ctx context.Context, first bool) int64 {
	changed, stop := e.store.Subscribe(KindEngine)
	defer stop()
	tick := time.NewTicker(e.opt.Lease / 4)
	defer tick.Stop()
	var seen beat
	var since time.Time
	for ctx.Err() == nil {
		lead, sign, err := e.leader(ctx)
		if now := time.Now(); err == nil {
			if since.IsZero() || sign != seen {
				seen, since = sign, now
			}
			vacant := lead.Number == 0 || sign.Resigned || first && lead.Name == e.opt.Name || now.Sub(since) >= e.opt.Lease
			if vacant {
				var number int64
				if number, err = e.take(ctx, lead, sign); number != 0 {
					return number
				}
			}
		}
		if err != nil {
			e.complain(ctx, "leadership was not looked at", err)
		}
		select {
		case <-ctx.Done():
		case <-changed:
		case <-tick.C:
		}
	}
	return 0
}

// leader reads who leads and the last sign of life.
func (e *Engine) leader(ctx context.Context) (lead term, sign beat, err error) {
	err = e.store.View(ctx, func(tx store.Tx) error {
		lead, sign, err = readLeader(tx)
		return err
	})
	return lead, sign, err
}

func readLeader(tx store.Tx) (lead term, sign beat, err error) {
	if _, err := tx.Get(KindEngine, termKey, &lead); err != nil && !errors.Is(err, store.ErrNotFound) {
		return lead, sign, err
	}
	if _, err := tx.Get(KindEngine, beatKey, &sign); err != nil && !errors.Is(err, store.ErrNotFound) {
		return lead, sign, err
	}
	return lead, sign, nil
}

// take begins a term of this engine and returns its number; 0 when anything changed since lead and sign were read.
func (e *Engine) take(ctx context.Context, lead term, sign beat) (number int64, err error) {
	err = e.store.Update(ctx, func(tx store.Tx) error {
		number = 0
		l, s, err := readLeader(tx)
		if err != nil || l != lead || s != sign {
			return err
		}
		number = max(lead.Number+1, e.now().UnixMilli())
		if _, err := tx.Put(KindEngine, termKey, -1, term{Number: number, Name: e.opt.Name}); err != nil {
			return err
		}
		_, err = tx.Put(KindEngine, beatKey, -1, beat{Number: number})
		return err
	})
	if err != nil {
		return 0, err
	}
	return number, nil
}

// lead works as the leader until ctx ends or another engine leads, then lets the next one begin at once.
func (e *Engine) lead(parent context.Context, number int64) {
	ctx, depose := context.WithCancel(parent)
	defer depose()
	e.number, e.depose = number, depose
	e.log.InfoContext(ctx, "engine leads", "name", e.opt.Name, "term", number)
	var parts sync.WaitGroup
	parts.Go(func() { e.live(ctx) })
	parts.Go(func() { e.takeResults(ctx) })
	parts.Go(func() { e.keepHouse(ctx) })
	parts.Go(func() { e.moveJobs(ctx) })
	parts.Wait()
	if parent.Err() == nil {
		e.log.WarnContext(parent, "engine leads no longer", "name", e.opt.Name, "term", number)
		return
	}
	last, cancel := context.WithTimeout(context.WithoutCancel(parent), e.opt.Lease)
	defer cancel()
	if err := e.sign(last, beat{Number: number, Resigned: true}); err != nil && !errors.Is(err, errDeposed) {
		e.log.WarnContext(last, "leadership was not laid down, it ends with its lease", "err", err)
	}
}

// live gives signs of life until ctx ends.
func (e *Engine) live(ctx context.Context) {
	tick := time.NewTicker(e.opt.Lease / 4)
	defer tick.Stop()
	for n := int64(1); ; n++ {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if err := e.sign(ctx, beat{Number: e.number, Count: n}); err != nil {
			e.complain(ctx, "no sign of life was given", err)
		}
	}
}

func (e *Engine) sign(ctx context.Context, b beat) error {
	return e.update(ctx, func(tx store.Tx) error {
		_, err := tx.Put(KindEngine, beatKey, -1, b)
		return err
	})
}

// update is Update of the store for the leader: in the transaction of an engine that was deposed nothing happens. All that an
// engine saves goes through here.
func (e *Engine) update(ctx context.Context, fn func(store.Tx) error) error {
	err := e.store.Update(ctx, func(tx store.Tx) error {
		var now term
		if _, err := tx.Get(KindEngine, termKey, &now); err != nil {
			return err
		}
		if now.Number != e.number {
			return errDeposed
		}
		return fn(tx)
	})
	if errors.Is(err, errDeposed) {
		e.depose()
	}
	return err
}
