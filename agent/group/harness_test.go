package group

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	crand "crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"testing"
	"time"
)

// authority signs agents' certificates as a vault's does: for clients only.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pool *x509.CertPool
}

func newAuthority(tb testing.TB) *authority {
	tb.Helper()
	a := &authority{key: newKey(tb), pool: x509.NewCertPool()}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "vault"}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(24 * time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	a.cert = a.sign(tb, tmpl, tmpl, &a.key.PublicKey)
	a.pool.AddCert(a.cert)
	return a
}

func newKey(tb testing.TB) *ecdsa.PrivateKey {
	tb.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), crand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	return k
}

func (a *authority) sign(tb testing.TB, tmpl, parent *x509.Certificate, key *ecdsa.PublicKey) *x509.Certificate {
	tb.Helper()
	der, err := x509.CreateCertificate(crand.Reader, tmpl, parent, key, a.key)
	if err != nil {
		tb.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		tb.Fatal(err)
	}
	return c
}

// agent returns the identity of an agent.
func (a *authority) agent(tb testing.TB, name string) func() (tls.Certificate, *x509.CertPool, error) {
	tb.Helper()
	k := newKey(tb)
	c := a.sign(tb, &x509.Certificate{SerialNumber: big.NewInt(rand.Int64()), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(24 * time.Hour), KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}, a.cert, &k.PublicKey)
	return func() (tls.Certificate, *x509.CertPool, error) {
		return tls.Certificate{Certificate: [][]byte{c.Raw}, PrivateKey: k}, a.pool, nil
	}
}

// capture is what one call for a capture led to. Times are of one clock.
type capture struct {
	frozen, thawed time.Time // zero if it never came so far
	held           bool
	app            bool
	id             string
	err            error
}

// machine is a member whose disk is a number that grows whenever it is not frozen. Its captures are as a protector makes them.
type machine struct {
	name  string
	node  *Node
	calls chan struct{}
	done  chan struct{}
	stop  context.CancelFunc
	hold  time.Duration
	pace  func() time.Duration // how long each part of its captures takes

	mu       sync.Mutex // guards the rest
	captures []capture
	refuse   error // why it cannot be captured now
	appDue   bool  // it is time to quiesce its applications
}

func (m *machine) call() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.refuse != nil {
		return m.refuse
	}
	select {
	case m.calls <- struct{}{}:
	default:
	}
	return nil
}

func (m *machine) run(ctx context.Context) {
	defer close(m.done)
	for {
		select {
		case <-ctx.Done():
			return
		case <-m.calls:
			c := m.capture(ctx)
			m.mu.Lock()
			m.captures = append(m.captures, c)
			m.mu.Unlock()
		}
	}
}

func (m *machine) capture(ctx context.Context) (c capture) {
	m.mu.Lock()
	due := m.appDue
	m.mu.Unlock()
	if c.app = m.node.App(m.name, due); c.app {
		m.mu.Lock()
		m.appDue = false
		m.mu.Unlock()
	}
	time.Sleep(m.pace())
	meet, err := m.node.Join(ctx, m.name)
	if err != nil || meet == nil {
		c.err = err
		return c
	}
	c.frozen = time.Now()
	wctx, cancel := context.WithTimeout(ctx, m.hold)
	defer cancel()
	// The dead-man thaws at the hold whatever else happens. In this model its thaw is at a time that is known.
	end := c.frozen.Add(m.hold)
	time.Sleep(m.pace())
	left := meet.Frozen(wctx)
	time.Sleep(m.pace())
	if left == nil {
		left = meet.Sealed(wctx)
	}
	c.thawed = time.Now()
	c.held = c.thawed.Before(end)
	if !c.held {
		c.thawed = end
		left = errors.Join(left, errors.New("its dead-man thawed it"))
	}
	if left == nil {
		c.id, left = meet.Held(ctx)
	}
	meet.Done(left)
	c.err = left
	return c
}

func (m *machine) close() {
	m.stop()
	<-m.done
	m.node.Close()
}

// points returns the captures that have the group's id, by id.
func (m *machine) points() map[string]capture {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := map[string]capture{}
	for _, c := range m.captures {
		if c.id != "" {
			out[c.id] = c
		}
	}
	return out
}

// cluster is a group of machines.
type cluster struct {
	tb       testing.TB
	ca       *authority
	names    []string
	machines []*machine
	group    Group
	config   func(i int) Config
}

func names(n int) (out []string) {
	for i := range n {
		out = append(out, fmt.Sprintf("m%02d", i))
	}
	return out
}

// newCluster starts n machines. config returns what is special of each node.
func newCluster(tb testing.TB, n int, g Group, config func(i int) Config) *cluster {
	tb.Helper()
	c := &cluster{tb: tb, ca: newAuthority(tb), names: names(n), group: g, config: config}
	for i := range n {
		c.machines = append(c.machines, nil)
		c.start(i, c.ca.agent(tb, c.names[i]))
	}
	return c
}

// start starts machine i anew.
func (c *cluster) start(i int, id func() (tls.Certificate, *x509.CertPool, error)) {
	c.tb.Helper()
	cfg := c.config(i)
	cfg.Self, cfg.Identity = c.names[i], id
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	ctx, cancel := context.WithCancel(context.Background())
	rng := rand.New(rand.NewPCG(uint64(i), 1))
	m := &machine{name: c.names[i], node: New(cfg), calls: make(chan struct{}, 1), done: make(chan struct{}), stop: cancel, hold: c.group.Hold,
		pace: func() time.Duration { return time.Duration(rng.Int64N(int64(5 * time.Millisecond))) }}
	c.machines[i] = m
	go m.run(ctx)
	if err := m.node.Set(map[string]Membership{m.name: {Group: c.group, Call: m.call}}); err != nil {
		c.tb.Fatal(err)
	}
}

func (c *cluster) close() {
	for _, m := range c.machines {
		m.close()
	}
}

// whole returns the ids that all machines but those left out have.
func (c *cluster) whole(without ...int) (out []string) {
	count, n := map[string]int{}, 0
	for i, m := range c.machines {
		if slices.Contains(without, i) {
			continue
		}
		n++
		for id := range m.points() {
			count[id]++
		}
	}
	for id, k := range count {
		if k == n {
			out = append(out, id)
		}
	}
	return out
}

// check holds that the machines that share an id all stood at one moment, and that nobody stood longer than it may.
func (c *cluster) check() {
	c.tb.Helper()
	byID := map[string][]capture{}
	for i, m := range c.machines {
		m.mu.Lock()
		for _, x := range m.captures {
			if took := x.thawed.Sub(x.frozen); took > c.group.Hold {
				c.tb.Errorf("machine %d stood for %s, longer than %s", i, took, c.group.Hold)
			}
			if x.id != "" {
				byID[x.id] = append(byID[x.id], x)
			}
		}
		m.mu.Unlock()
	}
	for id, xs := range byID {
		var last time.Time
		first := xs[0].thawed
		for _, x := range xs {
			if x.frozen.After(last) {
				last = x.frozen
			}
			if x.thawed.Before(first) {
				first = x.thawed
			}
			if !x.held {
				c.tb.Errorf("a machine that did not stand until the end gave its point the id %s", id)
			}
		}
		if !last.Before(first) {
			c.tb.Errorf("of the points %s one stood from %s, after another was thawed at %s", id, last, first)
		}
	}
}

// until waits until ok, and fails the test after limit.
func until(tb testing.TB, limit time.Duration, what string, ok func() bool) {
	tb.Helper()
	for end := time.Now().Add(limit); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			tb.Fatalf("not within %s: %s", limit, what)
		}
	}
}

// pipes is a network in memory.
type pipes struct {
	mu    sync.Mutex
	ports map[string]*pipeListener
	// wrap, if not nil, sees every connection's two ends.
	wrap func(from, to string, dialer, listener net.Conn) (net.Conn, net.Conn)
}

type pipeListener struct {
	n       *pipes
	address string
	conns   chan net.Conn
	closed  chan struct{}
	once    sync.Once
}

func (p *pipes) listen(address string) (net.Listener, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ports == nil {
		p.ports = map[string]*pipeListener{}
	}
	l := &pipeListener{n: p, address: address, conns: make(chan net.Conn), closed: make(chan struct{})}
	p.ports[address] = l
	return l, nil
}

func (p *pipes) dial(from, to string, limit time.Duration) (net.Conn, error) {
	p.mu.Lock()
	l := p.ports[to]
	p.mu.Unlock()
	if l == nil {
		return nil, errors.New("connection refused")
	}
	a, b := net.Pipe()
	if p.wrap != nil {
		a, b = p.wrap(from, to, a, b)
	}
	select {
	case l.conns <- b:
		return a, nil
	case <-l.closed:
		return nil, errors.New("connection refused")
	case <-time.After(limit):
		return nil, errors.New("timed out")
	}
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error {
	l.once.Do(func() {
		close(l.closed)
		l.n.mu.Lock()
		defer l.n.mu.Unlock()
		if l.n.ports[l.address] == l {
			delete(l.n.ports, l.address)
		}
	})
	return nil
}

func (l *pipeListener) Addr() net.Addr { return &net.UnixAddr{Name: l.address} }
