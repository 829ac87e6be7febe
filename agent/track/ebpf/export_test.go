package ebpf

import (
	"context"
	"errors"

	"github.com/lifeboat-dr/lifeboat/replicator/block"
)

// SealWithoutDrain is a Seal that does not wait for the writes in flight, and so is wrong.
func (t *Tracker) SealWithoutDrain(context.Context) ([]block.Extent, error) { return t.collect() }

// Undrainable makes the tracker believe that its disk cannot be drained.
func (t *Tracker) Undrainable() { t.state.drains = 0 }

// Blind makes the programs miss what is written to the disk until the returned function is called.
func (t *Tracker) Blind() (see func() error, err error) {
	t.m.hide(t.state.dev, t.slot)
	return func() error { return t.m.show(t.state.dev, t.slot) }, t.m.grace()
}

// LoseCompletions stops marks at completion, as if the kernel lost all of these events.
func (m *Machine) LoseCompletions() error {
	l := m.links["complete"]
	delete(m.links, "complete")
	return errors.Join(l.Unpin(), l.Close())
}

// Pass counts a command that is passed through to the disk.
func (t *Tracker) Pass() { t.m.tallies[t.slot*t.m.cpus].unknown++ }
