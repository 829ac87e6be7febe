package group

import (
	"errors"
	"fmt"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// fault is what happens to one write of one end of the first connection from the coordinator to its first member. Every message is
// a write of its own, and so are the steps of the handshake.
type fault struct {
	end   int // 0 the coordinator's, 1 the member's
	write int
	what  string
}

const (
	cutBefore = "the link is cut before it"
	cutAfter  = "the link is cut after it"
	short     = "it is a second late"
	long      = "it is eleven seconds late"
	swallow   = "it and all that follows is swallowed"
	kill      = "its sender is killed before it"
)

// lossy applies one fault to a network.
type lossy struct {
	pipes
	f      fault
	onKill func(end int)

	mu     sync.Mutex // guards the rest
	begun  bool
	fired  bool
	writes [2]int
	open   map[string][]net.Conn // by machine, to kill it with
}

func (n *lossy) wrapped(from, to string, a, b net.Conn) (net.Conn, net.Conn) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.open[from], n.open[to] = append(n.open[from], a), append(n.open[to], b)
	if n.begun || from != "m00" || to != "m01" {
		return a, b
	}
	n.begun = true
	return &lossyEnd{Conn: a, n: n, end: 0}, &lossyEnd{Conn: b, n: n, end: 1}
}

// cut breaks all connections of a machine, as its death does.
func (n *lossy) cut(name string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, c := range n.open[name] {
		c.Close()
	}
	n.open[name] = nil
}

type lossyEnd struct {
	net.Conn
	n    *lossy
	end  int
	void bool // of the one who writes
}

func (c *lossyEnd) Write(p []byte) (int, error) {
	c.n.mu.Lock()
	at := c.n.writes[c.end]
	c.n.writes[c.end]++
	now := c.end == c.n.f.end && at == c.n.f.write
	c.n.fired = c.n.fired || now
	c.n.mu.Unlock()
	if !now {
		if c.void {
			return len(p), nil
		}
		return c.Conn.Write(p)
	}
	switch c.n.f.what {
	case cutBefore:
		c.Conn.Close()
	case cutAfter:
		defer c.Conn.Close()
	case short:
		time.Sleep(time.Second)
	case long:
		time.Sleep(11 * time.Second)
	case swallow:
		c.void = true
		return len(p), nil
	case kill:
		c.n.onKill(c.end)
		return 0, errors.New("killed")
	}
	return c.Conn.Write(p)
}

// play runs a group of three, with a fault in its first round, until it has a whole point after that.
func play(t *testing.T, f fault) (writes [2]int) {
	n := &lossy{f: f, open: map[string][]net.Conn{}}
	n.wrap = n.wrapped
	g := Group{ID: "g", Name: "shop", Interval: 30 * time.Second, Hold: 8 * time.Second}
	for _, name := range names(3) {
		g.Members = append(g.Members, Peer{ID: name, Agent: name, Name: name, Addresses: []string{name}})
	}
	var c *cluster
	killed := make(chan int, 1)
	n.onKill = func(end int) {
		n.cut(names(2)[end])
		killed <- end
	}
	c = newCluster(t, 3, g, func(i int) Config {
		return Config{Address: names(3)[i], listen: n.listen, dial: n.dial}
	})
	defer c.close()
	if f.what == kill {
		end := <-killed
		c.machines[end].close()
		time.Sleep(20 * time.Second)
		c.start(end, c.ca.agent(t, c.names[end]))
	}
	began := time.Now()
	n.mu.Lock()
	pending := f.write >= 0 && !n.fired
	n.mu.Unlock()
	for pending && time.Since(began) < time.Minute {
		time.Sleep(100 * time.Millisecond)
		n.mu.Lock()
		pending = !n.fired
		n.mu.Unlock()
	}
	if pending {
		t.Errorf("the fault never came")
	}
	time.Sleep(10 * time.Second) // whatever round it was in is over
	before := len(c.whole())
	until(t, 5*time.Minute, "a whole point after the fault", func() bool { return len(c.whole()) > before })
	c.check()
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.writes
}

func TestWhateverBecomesOfAMessageAGroupsPointIsOfOneMoment(t *testing.T) {
	var writes [2]int
	synctest.Test(t, func(t *testing.T) { writes = play(t, fault{write: -1}) })
	if t.Failed() {
		return
	}
	// Of the coordinator: its half of the handshake in two, Hello, Prepare, Freeze, Seal, Thaw, Whole. Of the member: its half of the
	// handshake, preface, Hello, Accept, Ready, Frozen, Sealed, Thawed. The end of the connection may follow.
	const each = 8
	if writes[0] < each || writes[1] < each {
		t.Fatalf("the coordinator wrote %d times, the member %d times", writes[0], writes[1])
	}
	for _, what := range []string{cutBefore, cutAfter, short, long, swallow, kill} {
		for end := range writes {
			for w := range each {
				t.Run(fmt.Sprintf("%s, end %d, write %d", what, end, w), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) { play(t, fault{end: end, write: w, what: what}) })
				})
			}
		}
	}
}
