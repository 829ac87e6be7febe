package group

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"
)

// member is one machine's membership: its part in the round that is under way, and that round itself when this member leads it.
// Methods whose names end in Locked expect the lock.
type member struct {
	node *Node
	log  *slog.Logger

	mu     sync.Mutex // guards the rest; nothing waits under it
	group  Group
	call   func() error
	self   int
	term   uint64 // the highest heard of
	leader int    // who is expected to call for the next round
	appDue bool   // it is time for this machine's applications to be quiesced
	app    bool   // the next round is to quiesce applications: it is time for a member's
	began  time.Time
	alarm  *time.Timer
	part   *part  // nil in no round
	round  *round // nil when no round is led from here
	status Status
	gone   bool
}

// part is this member's part in one round.
type part struct {
	state  state
	id     string
	term   uint64
	app    bool  // the round quiesces applications
	by     int   // who coordinates
	link   *link // to the coordinator; nil: this member itself
	limit  *time.Timer
	moved  chan struct{} // closed and replaced when something changed
	over   bool
	won    bool     // the point has the group's id
	missed []Missed // why not
}

// round is a round that this member coordinates.
type round struct {
	*course
	id    string
	term  uint64
	app   bool
	links []*link // by member; nil for itself, and those not reached
	limit *time.Timer
}

func newMember(n *Node, w Membership, self int) *member {
	m := &member{node: n, log: n.cfg.Log.With("group", w.Group.ID), group: w.Group, call: w.Call, self: self, status: Status{Group: w.Group.ID}}
	m.alarm = time.AfterFunc(n.limits.first+m.turn(), m.due)
	return m
}

// turn is how long this member lets others take the lead.
func (m *member) turn() time.Duration {
	n := len(m.group.Members)
	return m.node.limits.patience * time.Duration((m.self-m.leader+n)%n)
}

// set takes what is desired now. A round goes on only under the list of members with which it began.
func (m *member) set(w Membership, self int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.call = w.Call
	same := m.group.roster() == w.Group.roster()
	sooner := w.Group.Interval < m.group.Interval
	if !same {
		m.endLocked("the members of the group changed")
	}
	m.group, m.self = w.Group, self
	if !same {
		m.leader, m.term, m.status.Group = 0, 0, w.Group.ID
		m.alarm.Reset(m.node.limits.first + m.turn())
		return
	}
	if sooner && m.part == nil {
		m.alarm.Reset(m.node.limits.first + m.turn())
	}
}

// leave ends the membership.
func (m *member) leave(why string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.gone = true
	m.endLocked(why)
	m.alarm.Stop()
}

// endLocked ends whatever is under way.
func (m *member) endLocked(why string) {
	if p := m.part; p != nil {
		m.happenLocked(p, onFailed, why, nil)
	}
	if r := m.round; r != nil {
		m.orderLocked(r, r.miss(m.self, why))
		m.orderLocked(r, r.late())
	}
}

// due begins a round, unless one is under way.
func (m *member) due() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.gone {
		return
	}
	if m.part != nil || m.round != nil {
		m.alarm.Reset(m.group.Interval + m.turn())
		return
	}
	if m.leader != m.self || m.term == 0 {
		m.leader = m.self
		m.term++
	}
	var id [16]byte
	_, _ = rand.Read(id[:]) // never fails
	r := &round{course: newCourse(len(m.group.Members)), id: hex.EncodeToString(id[:]), term: m.term, app: m.app, links: make([]*link, len(m.group.Members))}
	m.round, m.app = r, false
	r.limit = time.AfterFunc(m.node.limits.gather, func() { m.late(r) })
	g, self := m.group, m.self
	for i := range g.Members {
		if i != m.self {
			m.node.wg.Go(func() { m.coordinate(r, g, self, i) })
		}
	}
	m.inviteLocked(nil, m.self, message{Round: r.id, Term: r.term, App: r.app})
}

// coordinate brings one member into the round and hears what it says.
func (m *member) coordinate(r *round, g Group, self, i int) {
	l, err := m.node.reach(g, g.Members[self].ID, g.Members[i])
	if err == nil && !m.node.track(l.conn) {
		_ = l.conn.Close()
		err = errors.New("this agent has too many connections")
	}
	if err != nil {
		m.heard(r, i, message{Kind: abort, Reason: err.Error()})
		return
	}
	defer m.node.untrack(l.conn)
	m.node.wg.Go(l.write)
	m.mu.Lock()
	if m.round != r {
		l.cut()
	} else {
		r.links[i] = l
		l.send(message{Kind: prepare, Round: r.id, Term: r.term, App: r.app})
	}
	m.mu.Unlock()
	for {
		a, err := read(l.in)
		if err != nil {
			m.heard(r, i, message{Kind: abort, Reason: fmt.Sprintf("its connection was lost: %v", err)})
			m.mu.Lock()
			l.cut()
			m.mu.Unlock()
			return
		}
		m.heard(r, i, a)
	}
}

// heard takes a member's answer.
func (m *member) heard(r *round, i int, a message) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.heardLocked(r, i, a)
}

func (m *member) heardLocked(r *round, i int, a message) {
	if m.round != r {
		return
	}
	if a.Term > m.term {
		m.term = a.Term
	}
	if a.Kind == abort {
		m.orderLocked(r, r.miss(i, a.Reason))
		return
	}
	if a.App && !r.app { // the next round, then, for all together
		m.app = true
	}
	m.orderLocked(r, r.heard(i, a.Kind))
}

// late ends a step of the round that took too long.
func (m *member) late(r *round) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.round == r {
		m.orderLocked(r, r.late())
	}
}

// orderLocked gives an order to all members; 0 is none.
func (m *member) orderLocked(r *round, k kind) {
	if k == 0 || m.round != r {
		return
	}
	o := message{Kind: k, Term: m.term, App: (k == whole || k == abort) && m.app}
	switch k {
	case freeze, seal:
		r.limit.Reset(m.group.Hold / 4) // the two together leave members half of their limit
	case thaw:
		r.limit.Reset(m.node.limits.prove)
	default:
		r.limit.Stop()
		m.round = nil
		for i, why := range r.missed {
			if why != "" {
				o.Missed = append(o.Missed, Missed{Member: m.group.Members[i].ID, Reason: brief(why)})
			}
		}
	}
	for _, l := range r.links {
		if l != nil {
			l.send(o)
			if r.over() {
				l.finish()
			}
		}
	}
	if p := m.part; p != nil && p.id == r.id {
		m.happenLocked(p, onOrder[k], "", o.Missed)
	}
}

// missedLocked tells why a part ended without the group's id, for people.
func (m *member) missedLocked(p *part) error {
	e := &MissedError{Group: m.group.Name}
	for _, x := range p.missed {
		for _, peer := range m.group.Members {
			if peer.ID == x.Member {
				x.Member = peer.Name
			}
		}
		e.Missed = append(e.Missed, x)
	}
	return e
}

func brief(s string) string { return s[:min(len(s), maxText)] }

// invited takes a coordinator's Prepare.
func (m *member) invited(l *link, from int, o message) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.inviteLocked(l, from, o)
}

// inviteLocked promises this member to one coordinator. While nothing is frozen, one of a higher term, or of the same term and
// earlier in the order, is preferred: so two that began at the same time do not keep each other from it.
func (m *member) inviteLocked(l *link, from int, o message) {
	why := ""
	p := m.part
	switch {
	case m.gone:
		why = "it left the group"
	case o.Term < m.term:
		why = fmt.Sprintf("the term %d is over", o.Term)
	case p == nil:
	case p.state > waiting || o.Term == p.term && from >= p.by:
		why = fmt.Sprintf("it is in a round of %s", m.group.Members[p.by].Name)
	default:
		m.happenLocked(p, onFailed, fmt.Sprintf("it went over to a round of %s", m.group.Members[from].Name), nil)
	}
	if why != "" {
		l.send(message{Kind: abort, Term: m.term, Reason: why})
		l.finish()
		return
	}
	m.term, m.leader, m.began = o.Term, from, time.Now()
	m.app = m.app && !o.App
	p = &part{id: o.Round, term: o.Term, app: o.App, by: from, link: l, moved: make(chan struct{})}
	m.part = p
	p.limit = time.AfterFunc(time.Hour, func() { m.waited(p) })
	m.happenLocked(p, onPrepare, "", nil)
	if m.part != p {
		return
	}
	if err := m.call(); err != nil {
		m.happenLocked(p, onFailed, err.Error(), nil)
	}
}

// ordered takes an order of the coordinator.
func (m *member) ordered(l *link, o message) {
	m.mu.Lock()
	defer m.mu.Unlock()
	p := m.part
	if p == nil || p.link != l {
		return
	}
	m.term = max(m.term, o.Term)
	e, ok := onOrder[o.Kind]
	if !ok || e == onPrepare {
		m.happenLocked(p, onFailed, fmt.Sprintf("%s is no order", o.Kind), nil)
		return
	}
	m.app = m.app || o.App
	if e == onAbort && len(o.Missed) == 0 {
		o.Missed = []Missed{{Member: m.group.Members[p.by].ID, Reason: "it coordinated, and ended the round"}}
	}
	m.happenLocked(p, e, "", o.Missed)
}

// lost takes note that the connection to the coordinator is gone.
func (m *member) lost(l *link, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	l.cut()
	if p := m.part; p != nil && p.link == l {
		m.happenLocked(p, onAbort, "", []Missed{{Member: m.group.Members[p.by].ID, Reason: brief(fmt.Sprintf("it coordinated, and its connection was lost: %v", err))}})
	}
}

// waited ends a part that waited too long for an order.
func (m *member) waited(p *part) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.part != p {
		return
	}
	if p.state == invited || p.state == freezing || p.state == sealing || p.state == thawing {
		m.happenLocked(p, onFailed, "its capture took too long", nil)
		return
	}
	why := "it coordinated, and gave no order in time"
	m.happenLocked(p, onFailed, why, []Missed{{Member: m.group.Members[p.by].ID, Reason: why}})
}

// happenLocked moves this member's part. why is for the coordinator when it hears abort; missed names who is at fault, by default
// this member.
func (m *member) happenLocked(p *part, e event, why string, missed []Missed) {
	if m.part != p {
		return
	}
	from := p.state
	s := move(from, e)
	p.state = s.to
	switch s.to {
	case invited, waiting:
		p.limit.Reset(m.node.limits.gather + m.node.limits.reach)
	case freezing: // until half of the hold is over: the other half is for a capture that goes on as the machine's own
		p.limit.Reset(m.group.Hold / 2)
	case thawing:
		p.limit.Reset(m.group.Hold / 2)
	case proved:
		p.limit.Reset(m.node.limits.prove + time.Second)
	}
	if s.to == idle {
		p.limit.Stop()
		m.part, p.over, p.won = nil, true, from == proved && e == onWhole
		if !p.won {
			if s.say != 0 && why == "" {
				why = "it was given an order out of turn"
			}
			if len(missed) == 0 {
				missed = []Missed{{Member: m.group.Members[m.self].ID, Reason: brief(why)}}
			}
			p.missed = missed
		}
		m.endedLocked(p)
	}
	close(p.moved)
	p.moved = make(chan struct{})
	if s.say != 0 {
		m.sayLocked(p, message{Kind: s.say, Term: m.term, App: s.say == accept && m.appDue, Reason: brief(why)})
	}
	if p.over && p.link != nil {
		p.link.finish()
	}
}

func (m *member) sayLocked(p *part, a message) {
	if p.link != nil {
		p.link.send(a)
		return
	}
	if r := m.round; r != nil && r.id == p.id {
		m.heardLocked(r, m.self, a)
	}
}

// endedLocked records how a round went and sets the alarm for the next. After one that failed the next in the order leads: where a
// link is cut, another may reach all.
func (m *member) endedLocked(p *part) {
	m.status.Coordinator, m.status.Missed = m.group.Members[p.by].ID, p.missed
	if p.won {
		m.status.LastID, m.status.LastTime, m.leader = p.id, time.Now().UTC(), p.by
		m.log.Debug("the group was captured", "round", p.id)
	} else {
		m.leader = (p.by + 1) % len(m.group.Members)
		m.log.Debug("the group was not captured", "round", p.id, "err", m.missedLocked(p))
	}
	if !m.gone {
		m.alarm.Reset(max(0, m.group.Interval-time.Since(m.began)) + m.turn())
	}
	m.node.cfg.Changed()
}
