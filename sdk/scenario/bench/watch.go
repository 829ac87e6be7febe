package bench

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/lifeboat-dr/lifeboat/sdk/scenario/rig"
)

// watch ends a measurement when a process that it needs ends: nothing else would, because whoever waits for Lifeboat takes one
// that does not answer for one that is being started again.
type watch struct {
	ctx    context.Context // of the measurement
	cancel context.CancelCauseFunc
	wg     sync.WaitGroup
}

// newWatch returns the context to measure under and its watch, which has to be ended.
func newWatch(ctx context.Context) (context.Context, *watch) {
	w := new(watch)
	w.ctx, w.cancel = context.WithCancelCause(ctx)
	return w.ctx, w
}

// process watches the running life of p.
func (w *watch) process(p *rig.Process) {
	done := p.Done()
	w.wg.Go(func() {
		select {
		case <-done:
			w.cancel(fmt.Errorf("%s ended while it was measured; the end of its log:\n%s", p.Name, p.Tail(40)))
		case <-w.ctx.Done():
		}
	})
}

// end stops watching. err is what the measurement returned; the end of a process explains it.
func (w *watch) end(err error) error {
	cause := context.Cause(w.ctx)
	w.cancel(nil)
	w.wg.Wait()
	if err != nil && cause != nil && !errors.Is(err, cause) {
		return errors.Join(err, cause)
	}
	return err
}
