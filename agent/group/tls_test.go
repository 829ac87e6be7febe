package group

import (
	"net"
	"testing"
	"time"
)

// loopback returns a group of n on ports of this host that are free, and the listeners that keep them so.
func loopback(t *testing.T, n int) (Group, []net.Listener) {
	t.Helper()
	g := Group{ID: "group-1", Name: "shop", Interval: 300 * time.Millisecond, Hold: 8 * time.Second}
	var ls []net.Listener
	for _, name := range names(n) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		ls = append(ls, l)
		g.Members = append(g.Members, Peer{ID: name, Agent: name, Name: name, Addresses: []string{l.Addr().String()}})
	}
	return g, ls
}

var quick = limits{reach: 5 * time.Second, gather: 10 * time.Second, prove: 5 * time.Second, patience: 500 * time.Millisecond, first: 50 * time.Millisecond}

func TestSixteenMembersMeetOverTLS(t *testing.T) {
	g, ls := loopback(t, 16)
	c := newCluster(t, 16, g, func(i int) Config {
		return Config{limits: quick, listen: func(string) (net.Listener, error) { return ls[i], nil }}
	})
	defer c.close()
	until(t, 60*time.Second, "five points of the whole group", func() bool { return len(c.whole()) >= 5 })
	c.check()
	for i, m := range c.machines {
		s, ok := m.node.Status(m.name)
		if !ok || s.LastID == "" {
			t.Errorf("member %d: status %+v", i, s)
		}
	}
}

func TestAStrangersCertificateIsNotLetIn(t *testing.T) {
	g, ls := loopback(t, 3)
	stranger := newAuthority(t).agent(t, "m02")
	c := newCluster(t, 3, g, func(i int) Config {
		return Config{limits: quick, listen: func(string) (net.Listener, error) { return ls[i], nil }}
	})
	defer c.close()
	until(t, 60*time.Second, "a point of the whole group", func() bool { return len(c.whole()) >= 1 })
	c.machines[2].close()
	before := len(c.machines[0].points())
	l, err := net.Listen("tcp", g.Members[2].Addresses[0])
	if err != nil {
		t.Fatal(err)
	}
	ls[2] = l
	c.start(2, stranger)
	until(t, 60*time.Second, "rounds that name m02", func() bool {
		s, _ := c.machines[0].node.Status("m00")
		return len(s.Missed) == 1 && s.Missed[0].Member == "m02"
	})
	if got := len(c.machines[2].points()); got != 0 {
		t.Errorf("the stranger has %d points of the group", got)
	}
	if got := len(c.machines[0].points()); got > before+1 { // one may have been under way
		t.Errorf("%d points of the group were made without m02", got-before)
	}
	c.check()
}

func TestAMemberThatCannotBeCapturedIsNamedAndTheOthersGoOnAlone(t *testing.T) {
	g, ls := loopback(t, 4)
	c := newCluster(t, 4, g, func(i int) Config {
		return Config{limits: quick, listen: func(string) (net.Listener, error) { return ls[i], nil }}
	})
	defer c.close()
	until(t, 60*time.Second, "a point of the whole group", func() bool { return len(c.whole()) >= 1 })
	const why = "it is being resynchronised"
	m := c.machines[3]
	m.mu.Lock()
	m.refuse = errString(why)
	m.mu.Unlock()
	for i := range 3 {
		until(t, 60*time.Second, "member 3 is named with its reason", func() bool {
			s, _ := c.machines[i].node.Status(c.names[i])
			return len(s.Missed) == 1 && s.Missed[0] == (Missed{Member: "m03", Reason: why})
		})
		m := c.machines[i]
		own := func() (n int) {
			m.mu.Lock()
			defer m.mu.Unlock()
			for _, x := range m.captures {
				if x.id == "" {
					n++
				}
			}
			return n
		}
		n := own()
		until(t, 60*time.Second, "captures go on", func() bool { return own() > n })
	}
	whole := len(c.whole())
	m.mu.Lock()
	m.refuse = nil
	m.mu.Unlock()
	until(t, 60*time.Second, "points of the group again", func() bool { return len(c.whole()) > whole })
	c.check()
}

func TestAMemberIsFoundAmongAddressesThatLeadNowhereOrToOthers(t *testing.T) {
	g, ls := loopback(t, 3)
	silent, err := net.Listen("tcp", "127.0.0.1:0") // takes connections and says nothing
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	first := g.Members[0].Addresses[0]
	for i := range g.Members { // every machine says that it can be reached at the first one's address, too
		g.Members[i].Addresses = append([]string{silent.Addr().String(), first, "127.0.0.1:1"}, g.Members[i].Addresses...)
	}
	c := newCluster(t, 3, g, func(i int) Config {
		return Config{limits: quick, listen: func(string) (net.Listener, error) { return ls[i], nil }}
	})
	defer c.close()
	until(t, 60*time.Second, "two points of the whole group", func() bool { return len(c.whole()) >= 2 })
	c.check()
}

func TestApplicationsAreQuiescedByAllMembersInOneRound(t *testing.T) {
	g, ls := loopback(t, 3)
	c := newCluster(t, 3, g, func(i int) Config {
		return Config{limits: quick, listen: func(string) (net.Listener, error) { return ls[i], nil }}
	})
	defer c.close()
	app := func() (ids map[string]int) {
		ids = map[string]int{}
		for _, m := range c.machines {
			for id, x := range m.points() {
				if x.app {
					ids[id]++
				}
			}
		}
		return ids
	}
	for _, i := range []int{1, 2, 0} { // time for one of them makes it time for all, and only once
		until(t, 60*time.Second, "a point of the whole group", func() bool { return len(c.whole()) > 0 })
		before := len(app())
		m := c.machines[i]
		m.mu.Lock()
		m.appDue = true
		m.mu.Unlock()
		until(t, 60*time.Second, "a point with applications at rest", func() bool { return len(app()) > before })
		n := len(c.whole())
		until(t, 60*time.Second, "two more points", func() bool { return len(c.whole()) > n+1 })
		ids := app()
		if len(ids) != before+1 {
			t.Errorf("applications were quiesced in %d rounds, want %d", len(ids), before+1)
		}
		for id, n := range ids {
			if n != 3 {
				t.Errorf("%d members quiesced their applications in round %s, want 3", n, id)
			}
		}
	}
}

type errString string

func (e errString) Error() string { return string(e) }
