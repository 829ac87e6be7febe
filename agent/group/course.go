package group

import "fmt"

// course is a round as its coordinator sees it: what was ordered last, and who answered. It decides and does nothing itself.
//
// The order of a round: prepare, freeze, seal, thaw, whole. Each is given when every member has answered the one before; a member
// that does not answer, or not as it should, ends the round with abort. So when seal is given all members have said that they stand,
// and a member that stands when it receives seal stood when the last one began to.
type course struct {
	order  kind     // the last one; whole and abort end the round
	got    []kind   // the last answer of each member; 0 for none
	missed []string // why a member missed; empty if it did not
}

// answers says which answer an order waits for, and next which order follows when all have given it.
var (
	answers = map[kind]kind{prepare: ready, freeze: frozen, seal: sealed, thaw: thawed}
	next    = map[kind]kind{prepare: freeze, freeze: seal, seal: thaw, thaw: whole}
	// lateWords say of a member what it did not do in time.
	lateWords = map[kind]string{prepare: "its capture was not ready in time", freeze: "it was not frozen in time",
		seal: "it was not sealed in time", thaw: "it did not say in time that it stood until the end"}
)

func newCourse(members int) *course {
	return &course{order: prepare, got: make([]kind, members), missed: make([]string, members)}
}

func (c *course) over() bool { return c.order == whole || c.order == abort }

// heard takes an answer and returns the order to give now; 0 for none.
func (c *course) heard(member int, k kind) kind {
	switch {
	case c.over():
		return 0
	case c.order == prepare && k == accept && c.got[member] == 0:
	case k == answers[c.order] && c.got[member] == before[k]:
	default:
		return c.miss(member, fmt.Sprintf("it said %s when %s was asked", k, c.order))
	}
	c.got[member] = k
	return c.settle()
}

// before says which answer an answer follows.
var before = map[kind]kind{ready: accept, frozen: ready, sealed: frozen, thawed: sealed}

// miss takes note that a member is out, and returns the order to give now.
func (c *course) miss(member int, why string) kind {
	if c.over() {
		return 0
	}
	if c.missed[member] == "" {
		c.missed[member] = why
	}
	return c.settle()
}

// late ends a step that took too long.
func (c *course) late() kind {
	if c.over() {
		return 0
	}
	for i, k := range c.got {
		if k != answers[c.order] && c.missed[i] == "" {
			c.missed[i] = lateWords[c.order]
		}
	}
	return c.settle()
}

func (c *course) settle() kind {
	out, all := false, true
	for i, k := range c.got {
		switch {
		case c.missed[i] != "":
			out = true
		case k == 0: // not reached yet: another to be named, perhaps
			return 0
		}
		all = all && k == answers[c.order]
	}
	switch {
	case out:
		c.order = abort
	case all:
		c.order = next[c.order]
	default:
		return 0
	}
	return c.order
}
