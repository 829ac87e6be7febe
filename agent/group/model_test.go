package group

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// world is everything there is in one round: the coordinator, the members, and what is on its way between them. Every order of
// deliveries, losses, deaths and dead-lines is one path through the worlds that can be reached.
type world struct {
	course  course
	crashed bool // the coordinator, and the member with it
	members [3]modelMember
	met     bool // at one moment all stood
}

// Progress of a member's own capture.
const (
	preparing = iota
	joined
	stood
	copied
	thawedNow
	done // or dead, or the machine's own from here on: no label can come of it
)

type modelMember struct {
	state    state
	capture  int
	frozen   bool // whether writes really wait
	content  byte // changes whenever writes go on
	copied   byte // content when it was sealed
	metAt    byte // content at the moment all stood
	label    bool
	down, up []kind // orders to it, answers from it
	cut      bool   // the connection is broken: what is under way may still arrive
	heardCut [2]bool
}

// rules are what a variant does worse.
type rules struct {
	clock     bool // a member that stands seals and thaws on its own, as by a clock, and takes the id
	trusting  bool // a member that was thawed by its dead-man says that it stood
	labelSoon bool // a member takes the group's id when it is ordered to thaw
}

// key is the same for worlds that differ in nothing, or only in which of the members that do not coordinate is which.
func (w *world) key() string {
	flags := func(bits ...bool) (b byte) {
		for i, set := range bits {
			if set {
				b |= 1 << i
			}
		}
		return b
	}
	var parts [len(w.members)]string
	for i, m := range w.members {
		b := []byte{byte(w.course.got[i]), byte(m.state), byte(m.capture), m.content<<2 | m.copied<<1 | m.metAt,
			flags(w.course.missed[i] != "", m.frozen, m.label, m.cut, m.heardCut[0], m.heardCut[1]), byte(len(m.down))}
		for _, k := range slices.Concat(m.down, m.up) {
			b = append(b, byte(k))
		}
		parts[i] = string(append(b, 0xff))
	}
	slices.Sort(parts[1:])
	return string([]byte{byte(w.course.order), flags(w.crashed, w.met)}) + strings.Join(parts[:], "")
}

func (w *world) copy() *world {
	c := *w
	c.course.got, c.course.missed = slices.Clone(w.course.got), slices.Clone(w.course.missed)
	for i := range c.members {
		c.members[i].down, c.members[i].up = slices.Clone(w.members[i].down), slices.Clone(w.members[i].up)
	}
	return &c
}

func (w *world) order(k kind) {
	if k == 0 || w.crashed {
		return
	}
	for i := range w.members {
		if m := &w.members[i]; !m.cut {
			m.down = append(m.down, k)
		}
	}
}

func (m *modelMember) happen(e event, r rules) {
	if r.labelSoon && e == onThaw && m.state == holding || e == onWhole && m.state == proved {
		m.label = true
	}
	s := move(m.state, e)
	m.state = s.to
	if s.say != 0 && !m.cut {
		m.up = append(m.up, s.say)
	}
}

func b2i(b bool) byte {
	if b {
		return 1
	}
	return 0
}

func (m *modelMember) thawNow() (held bool) {
	held, m.frozen = m.frozen, false
	m.content = 1
	return held
}

// successors returns every world that one thing happening leads to.
func (w *world) successors(r rules) (out []*world) {
	with := func(f func(*world)) {
		c := w.copy()
		f(c)
		if all := func() bool {
			for _, m := range c.members {
				if !m.frozen {
					return false
				}
			}
			return true
		}(); all && !c.met {
			c.met = true
			for i := range c.members {
				c.members[i].metAt = c.members[i].content
			}
		}
		if c.course.over() || c.crashed { // what members say, who missed and why decides nothing any more
			clear(c.course.got)
			clear(c.course.missed)
			for i := range c.members {
				c.members[i].up, c.members[i].heardCut[0] = nil, true
			}
		}
		for i := range c.members { // what is ordered does nothing to a capture that is the machine's own
			if m := &c.members[i]; m.state == idle && (m.capture != preparing || m.heardCut[1]) {
				m.capture, m.down, m.heardCut[1], m.copied = done, nil, true, m.copied&b2i(m.label)
			}
		}
		for i := range c.course.missed {
			if c.course.missed[i] != "" {
				c.course.missed[i] = "x"
			}
		}
		out = append(out, c)
	}
	if !w.crashed {
		with(func(c *world) {
			c.crashed = true
			for i := range c.members {
				c.members[i].cut = true
			}
			c.members[0].die()
		})
		if !w.course.over() {
			with(func(c *world) { c.order(c.course.late()) })
		}
	}
	for i := range w.members {
		m := w.members[i]
		one := func(f func(*modelMember)) { with(func(c *world) { f(&c.members[i]) }) }
		// What is on its way arrives, or is lost with the connection.
		if len(m.up) > 0 && !w.crashed {
			with(func(c *world) {
				k := c.members[i].up[0]
				c.members[i].up = c.members[i].up[1:]
				if k == abort {
					c.order(c.course.miss(i, "x"))
					return
				}
				c.order(c.course.heard(i, k))
			})
		}
		if len(m.down) > 0 && m.capture != done {
			one(func(m *modelMember) {
				k := m.down[0]
				m.down = m.down[1:]
				m.happen(onOrder[k], r)
			})
		}
		if !m.cut {
			one(func(m *modelMember) { m.cut = true })
		}
		if m.cut && len(m.up)+len(m.down) > 0 {
			one(func(m *modelMember) { m.up, m.down = nil, nil })
		}
		if m.cut && !m.heardCut[0] && !w.crashed && len(m.up) == 0 {
			with(func(c *world) {
				c.members[i].heardCut[0] = true
				c.order(c.course.miss(i, "x"))
			})
		}
		if m.cut && !m.heardCut[1] && m.capture != done && len(m.down) == 0 {
			one(func(m *modelMember) { m.heardCut[1] = true; m.happen(onAbort, r) })
		}
		// The dead-man loses patience, the member dies, it waited too long, its capture fails.
		if m.frozen {
			one(func(m *modelMember) { m.thawNow() })
		}
		if m.capture == done {
			continue
		}
		one(func(m *modelMember) { m.die() })
		if m.state != idle {
			one(func(m *modelMember) { m.happen(onAbort, r); m.cut = true; m.heardCut[1] = true; m.down = nil })
		}
		// Its capture goes on.
		switch {
		case m.capture == preparing && m.state == invited:
			one(func(m *modelMember) { m.capture = joined; m.happen(onReady, r) })
		case m.capture == joined && m.state == freezing:
			one(func(m *modelMember) { m.capture, m.frozen = stood, true })
			one(func(m *modelMember) { m.capture = done; m.happen(onFailed, r) })
		case m.capture == stood && m.state == freezing:
			one(func(m *modelMember) { m.happen(onFrozen, r) })
		case r.clock && m.capture == stood:
			one(func(m *modelMember) {
				m.copied, m.label = m.content, true
				m.thawNow()
				m.capture = thawedNow
			})
		case m.capture == stood && m.state == sealing:
			one(func(m *modelMember) {
				m.capture, m.copied = copied, m.content
				m.happen(onSealed, r)
			})
		case m.capture == copied && m.state == thawing:
			one(func(m *modelMember) {
				m.capture = thawedNow
				if m.thawNow() || r.trusting {
					m.happen(onThawed, r)
				} else {
					m.happen(onFailed, r)
				}
			})
		}
	}
	return out
}

// die ends the member's process; what it froze is thawed by the dead-man.
func (m *modelMember) die() {
	if m.frozen {
		m.thawNow()
	}
	m.state, m.capture, m.cut, m.heardCut[1] = idle, done, true, true
}

// broken tells what is wrong with the world, or nothing.
func (w *world) broken() string {
	for i, m := range w.members {
		if m.label && (!w.met || m.copied != m.metAt) {
			return fmt.Sprintf("member %d gave its point the group's id, but met=%v and it copied %d where %d was at that moment", i, w.met, m.copied, m.metAt)
		}
	}
	return ""
}

// explore visits all worlds that can be reached and returns how many there are, those in which all members got the id, and the first that is broken.
func explore(r rules) (worlds, labelled int, broken string) {
	first := &world{course: *newCourse(len(world{}.members))}
	first.order(prepare)
	seen := map[string]struct{}{first.key(): {}}
	todo := []*world{first}
	for len(todo) > 0 {
		w := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if b := w.broken(); b != "" {
			return len(seen), labelled, b
		}
		all := true
		for _, m := range w.members {
			all = all && m.label
		}
		if all {
			labelled++
		}
		for _, s := range w.successors(r) {
			k := s.key()
			if _, ok := seen[k]; !ok {
				seen[k] = struct{}{}
				todo = append(todo, s)
			}
		}
	}
	return len(seen), labelled, ""
}

func TestNoOrderOfLossesAndDeathsLabelsAPointThatIsOfNoCommonMoment(t *testing.T) {
	worlds, labelled, broken := explore(rules{})
	if broken != "" {
		t.Fatal(broken)
	}
	t.Logf("%d worlds, %d of them with a point of the group", worlds, labelled)
	if labelled == 0 {
		t.Error("no path leads to a point of the group")
	}
}

func TestTheModelCatchesWorseProtocols(t *testing.T) {
	for name, r := range map[string]rules{
		"sealing when it is time, without waiting for the others": {clock: true},
		"believing a member that its dead-man thawed":             {trusting: true},
		"giving the id before all members proved that they stood": {labelSoon: true},
	} {
		t.Run(name, func(t *testing.T) {
			if _, _, broken := explore(r); broken == "" {
				t.Error("not caught")
			} else {
				t.Log(broken)
			}
		})
	}
}
