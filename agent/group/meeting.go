package group

import (
	"context"
	"fmt"
)

// Meeting is the moment of a round as one capture sees it. One goroutine calls Frozen, Sealed, Held and Done, in this order; a
// capture that does not come so far calls Done. Frozen and Sealed write nothing to any disk but what Config.Log writes, and stay
// within half of the group's hold.
type Meeting struct {
	m *member
	p *part
}

// join says Ready in the round that asks for this capture, and waits until all have.
func (m *member) join(ctx context.Context) (*Meeting, error) {
	m.mu.Lock()
	p := m.part
	if p == nil || p.state != invited {
		m.mu.Unlock()
		return nil, nil
	}
	m.happenLocked(p, onReady, "", nil)
	m.mu.Unlock()
	w := &Meeting{m, p}
	if err := w.wait(ctx, freezing); err != nil {
		return nil, err
	}
	return w, nil
}

// wait returns when the part has come as far as to, or is over.
func (w *Meeting) wait(ctx context.Context, to state) error {
	for {
		w.m.mu.Lock()
		reached, over, won, moved := w.p.state >= to, w.p.over, w.p.won, w.p.moved
		w.m.mu.Unlock()
		switch {
		case won:
			return nil
		case over:
			return w.missed()
		case reached:
			return nil
		}
		select {
		case <-moved:
		case <-ctx.Done():
			w.fail(fmt.Sprintf("its capture was ended: %v", context.Cause(ctx)))
			return w.missed()
		}
	}
}

func (w *Meeting) missed() error {
	w.m.mu.Lock()
	defer w.m.mu.Unlock()
	return w.m.missedLocked(w.p)
}

func (w *Meeting) happen(e event, why string) {
	w.m.mu.Lock()
	defer w.m.mu.Unlock()
	w.m.happenLocked(w.p, e, why, nil)
}

func (w *Meeting) fail(why string) { w.happen(onFailed, why) }

// Frozen says that all filesystems of this machine stand, and returns when those of all members do.
func (w *Meeting) Frozen(ctx context.Context) error {
	w.happen(onFrozen, "")
	return w.wait(ctx, sealing)
}

// Sealed says that this machine's epochs are sealed, and returns when those of all members are.
func (w *Meeting) Sealed(ctx context.Context) error {
	w.happen(onSealed, "")
	return w.wait(ctx, thawing)
}

// Held says that this machine stood from before Frozen until after Sealed, as the one who thawed it can prove. It returns the id for
// the point when all members said so, and otherwise why there is none.
func (w *Meeting) Held(ctx context.Context) (id string, err error) {
	w.happen(onThawed, "")
	if err := w.wait(ctx, lastState+1); err != nil {
		return "", err
	}
	return w.p.id, nil
}

// Done ends the meeting. Without a call of Held before, the round ends for all, with err as the reason.
func (w *Meeting) Done(err error) {
	why := "its capture ended early"
	if err != nil {
		why = err.Error()
	}
	w.fail(why)
}
