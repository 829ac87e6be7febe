package ship

import (
	"context"
	"errors"

	"github.com/lifeboat-dr/lifeboat/replicator/wire"
	"github.com/lifeboat-dr/lifeboat/sdk/fleet"
)

// Barrier makes one instant of the captures of several machines: those of a consistency group meet at it. A Protector without one
// captures its machine alone. Safe for concurrent use by several Protectors.
type Barrier interface {
	// Leads tells whether somebody calls for the captures of this machine (Protector.Call). It then captures by itself only when
	// nobody called for twice its interval.
	Leads(want fleet.Protection) bool
	// App is asked when a capture begins, of a machine whose applications can be quiesced, whether this capture does so; due tells
	// whether it is time by the machine's own schedule.
	App(want fleet.Protection, due bool) bool
	// Join is called once in a capture, when all is ready for the freeze. It returns the meeting that this capture is for, or nil when
	// it is the machine's own. It may wait for others; what is written meanwhile adds to the window.
	// With an error, which is logged, the capture is the machine's own as well.
	Join(ctx context.Context, want fleet.Protection) (Meeting, error)
}

// Meeting is one instant of a group as one of its machines sees it. One goroutine calls Frozen, Sealed, Held and Done, in this order. Any
// window that does not come so far goes straight to Done: a capture that is tried again is the machine's own.
//
// Frozen and Sealed are called while the machine's filesystems stand, those of the agent included: they write to no disk, log
// nothing, start no program, and end when ctx does, which is at the latest at the freeze deadline. An error of either makes the
// point the machine's own, which is made all the same.
type Meeting interface {
	// Frozen says that all filesystems of this machine stand. It returns when those of all members do.
	Frozen(ctx context.Context) error
	// Sealed says that this machine's epochs are sealed, and what is left of them is in memory. It returns when the machine may write
	// again.
	Sealed(ctx context.Context) error
	// Held says that the window has ended, and that nothing was written from before Frozen until after Sealed. It returns the id that
	// the points of this instant share, when all members said so.
	Held(ctx context.Context) (group string, err error)
	// Done tells how it ended: with a durable point of the group, or with why this machine has none in it. With an error, a point is
	// the machine's own.
	Done(point fleet.PointRef, err error)
}

// meeting is a Meeting or none, and what became of it. Its zero value is none.
type meeting struct {
	Meeting
	due  bool  // it has not been joined yet
	left error // why the point is the machine's own
}

func (m *meeting) frozen(ctx context.Context) {
	if m.Meeting != nil {
		m.left = m.Meeting.Frozen(ctx)
	}
}

func (m *meeting) sealed(ctx context.Context) {
	if m.Meeting != nil && m.left == nil {
		m.left = m.Meeting.Sealed(ctx)
	}
}

// group returns the id for the point; empty when it is the machine's own.
func (m *meeting) group(ctx context.Context) (id string) {
	if m.Meeting != nil && m.left == nil {
		id, m.left = m.Held(ctx)
	}
	return id
}

// done ends the meeting, once.
func (m *meeting) done(point wire.PointRef, err error) {
	if m.Meeting == nil {
		return
	}
	m.Done(fleet.PointRef{Generation: point.Generation, Sequence: point.Sequence}, errors.Join(m.left, err))
	*m = meeting{}
}

// join asks whether this capture is a group's, the first time it comes so far.
func (s *session) join(ctx context.Context, meet *meeting) {
	b := s.p.cfg.Barrier
	if b == nil || !meet.due {
		return
	}
	meet.due = false
	m, err := b.Join(ctx, s.desired())
	if err != nil {
		s.p.log.Warn("the group was not joined; this machine is captured alone", "err", err)
		return
	}
	if meet.Meeting = m; m != nil {
		select {
		case <-s.p.calls: // this is the capture that was called for
		default:
		}
	}
}

// Call has the machine captured as soon as it can be. It does not wait.
func (p *Protector) Call() {
	select {
	case p.calls <- struct{}{}:
	default:
	}
}

// head returns the newest point.
func (s *session) head() (p wire.PointRef) {
	if h := s.link.welcome.Head; h != nil {
		p = *h
	}
	return p
}
