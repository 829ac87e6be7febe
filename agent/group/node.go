package group

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"slices"
	"strconv"
	"sync"
	"time"
)

// maxConns bounds the connections that others hold to this member at once: each of a large group, several times.
const maxConns = 256

const defaultHold = 10 * time.Second

// Node is an agent's part in its groups. It listens while there is one. Make it with New, end it with Close. Its methods are safe
// for concurrent use.
type Node struct {
	cfg    Config
	limits limits
	wg     sync.WaitGroup // every goroutine

	mu       sync.Mutex         // guards the rest; a member's lock may be taken under it, never the other way
	members  map[string]*member // by machine
	listener net.Listener
	conns    map[net.Conn]bool
	closed   bool
}

// New returns a node without groups.
func New(cfg Config) *Node {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Address == "" {
		cfg.Address = net.JoinHostPort("", strconv.Itoa(DefaultPort))
	}
	if cfg.Changed == nil {
		cfg.Changed = func() {}
	}
	if cfg.listen == nil {
		cfg.listen = func(address string) (net.Listener, error) { return net.Listen("tcp", address) }
	}
	if cfg.dial == nil {
		cfg.dial = func(_, to string, limit time.Duration) (net.Conn, error) { return net.DialTimeout("tcp", to, limit) }
	}
	return &Node{cfg: cfg, limits: cfg.limits.orDefaults(), members: map[string]*member{}, conns: map[net.Conn]bool{}}
}

// Set replaces the memberships, by machine. A round that a change touches ends. The error tells that the port cannot be listened on;
// Set may be called again, with the same, to try anew.
func (n *Node) Set(want map[string]Membership) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return net.ErrClosed
	}
	for machine, m := range n.members {
		if _, ok := want[machine]; !ok {
			m.leave("it left the group")
			delete(n.members, machine)
		}
	}
	for machine, w := range want {
		if w.Group.Hold <= 0 {
			w.Group.Hold = defaultHold
		}
		self := slices.IndexFunc(w.Group.Members, func(p Peer) bool { return p.ID == machine })
		if self < 0 {
			n.cfg.Log.Error("a group does not have this machine among its members", "item", machine, "group", w.Group.ID)
			continue
		}
		if m := n.members[machine]; m != nil {
			m.set(w, self)
			continue
		}
		n.members[machine] = newMember(n, w, self)
	}
	switch {
	case len(n.members) == 0 && n.listener != nil:
		_ = n.listener.Close()
		n.listener = nil
	case len(n.members) > 0 && n.listener == nil:
		l, err := n.cfg.listen(n.cfg.Address)
		if err != nil {
			return err
		}
		n.listener = l
		n.wg.Go(func() { n.accept(l) })
	}
	return nil
}

func (n *Node) member(machine string) *member {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.members[machine]
}

// Leads tells whether the machine is a member: its captures are then called for.
func (n *Node) Leads(machine string) bool { return n.member(machine) != nil }

// Status returns how the machine's rounds go; ok is false when it is no member.
func (n *Node) Status(machine string) (s Status, ok bool) {
	m := n.member(machine)
	if m == nil {
		return Status{}, false
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	s = m.status
	s.Missed = slices.Clone(s.Missed)
	return s, true
}

// App decides for a capture that begins whether it quiesces applications. due tells whether it is time to by the machine's own
// schedule. In a round all do or none: a member for which it is time says so in the next round, and the one after that is for all.
func (n *Node) App(machine string, due bool) bool {
	m := n.member(machine)
	if m == nil {
		return due
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.part == nil || m.part.state != invited {
		m.appDue = false
		return due
	}
	m.appDue = due && !m.part.app
	return m.part.app
}

// Join is a capture's word that little is left to ship. It returns when all members have said so; nil when no round asks for this
// capture. After a *MissedError the capture is the machine's own.
func (n *Node) Join(ctx context.Context, machine string) (*Meeting, error) {
	m := n.member(machine)
	if m == nil {
		return nil, nil
	}
	return m.join(ctx)
}

// Close ends all rounds and waits until nothing of the node runs.
func (n *Node) Close() {
	n.mu.Lock()
	n.closed = true
	for _, m := range n.members {
		m.leave("its agent stopped")
	}
	n.members = map[string]*member{}
	if n.listener != nil {
		_ = n.listener.Close()
	}
	for c := range n.conns {
		_ = c.SetReadDeadline(time.Now()) // what was said last may still go out
	}
	n.mu.Unlock()
	n.wg.Wait()
}

// track keeps a connection in sight of Close; false when there are too many, or the node is closed.
func (n *Node) track(c net.Conn) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed || len(n.conns) >= 2*maxConns {
		return false
	}
	n.conns[c] = true
	return true
}

func (n *Node) untrack(c net.Conn) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.conns, c)
}

func (n *Node) accept(l net.Listener) {
	slots := make(chan struct{}, maxConns)
	for {
		c, err := l.Accept()
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case err != nil: // short of descriptors, or the peer went away
			n.cfg.Log.Warn("a member's connection was not taken", "err", err)
			time.Sleep(100 * time.Millisecond)
			continue
		}
		select {
		case slots <- struct{}{}:
		default:
			_ = c.Close()
			continue
		}
		n.wg.Go(func() {
			defer func() { <-slots }()
			defer c.Close()
			n.serve(c)
		})
	}
}

// serve takes a coordinator's connection: Hello, then the orders of one round.
func (n *Node) serve(raw net.Conn) {
	cert, ca, err := n.cfg.Identity()
	if err != nil {
		return
	}
	conn := tls.Server(raw, serverTLS(cert, ca))
	if !n.track(conn) {
		return
	}
	defer n.untrack(conn)
	_ = conn.SetDeadline(time.Now().Add(n.limits.reach))
	in := bufio.NewReader(conn)
	if readPreface(in) != nil {
		return
	}
	hi, err := read(in)
	if err != nil || hi.Kind != hello {
		return
	}
	l := newLink(conn, in)
	n.wg.Go(l.write)
	l.out <- preface()
	m, from, why := n.greeted(hi, conn.ConnectionState().PeerCertificates[0].Subject.CommonName)
	if why != "" {
		l.send(message{Kind: abort, Reason: why})
		l.finish()
		return
	}
	l.send(message{Kind: hello, Group: hi.Group, Roster: hi.Roster, From: hi.To, To: hi.From})
	first, err := read(in)
	if err != nil || first.Kind != prepare {
		l.cut()
		return
	}
	_ = conn.SetDeadline(time.Time{}) // every step has its own from here on
	m.invited(l, from, first)
	for {
		o, err := read(in)
		if err != nil {
			m.lost(l, err)
			return
		}
		m.ordered(l, o)
	}
}

// greeted finds the member that a Hello is for, and the place of the one who says it in the order; or why not.
func (n *Node) greeted(hi message, agent string) (m *member, from int, why string) {
	n.mu.Lock()
	m = n.members[hi.To]
	n.mu.Unlock()
	if m == nil {
		return nil, 0, "it is not in this group"
	}
	m.mu.Lock()
	g := m.group
	m.mu.Unlock()
	from = slices.IndexFunc(g.Members, func(p Peer) bool { return p.ID == hi.From })
	switch {
	case g.ID != hi.Group:
		return nil, 0, "it is not in this group"
	case from < 0 || g.Members[from].Agent != agent || hi.From == hi.To:
		return nil, 0, "it does not know this agent as a member"
	case g.roster() != hi.Roster:
		return nil, 0, "it knows another list of members"
	}
	return m, from, ""
}
