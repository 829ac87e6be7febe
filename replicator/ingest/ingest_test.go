package ingest_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"math/big"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/lifeboat-dr/lifeboat/replicator/block"
	"github.com/lifeboat-dr/lifeboat/replicator/ingest"
	"github.com/lifeboat-dr/lifeboat/replicator/localbucket"
	"github.com/lifeboat-dr/lifeboat/replicator/repo"
	"github.com/lifeboat-dr/lifeboat/replicator/wire"
	"github.com/lifeboat-dr/lifeboat/sdk/fleet"
)

const (
	vaultID    = "vault1"
	serverName = "vault1.data"
	machineID  = "machine1"
	agentID    = "agent1"
	diskSize   = 64<<20 + 512
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// authority signs what a test needs.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pool *x509.CertPool
}

func newAuthority() *authority {
	key := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "CA"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign}
	a := &authority{key: key, pool: x509.NewCertPool()}
	a.cert = must(x509.ParseCertificate(must(x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key))))
	a.pool.AddCert(a.cert)
	return a
}

func (a *authority) issue(cn string) tls.Certificate {
	key := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: cn}, DNSNames: []string{serverName}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth}}
	return tls.Certificate{Certificate: [][]byte{must(x509.CreateCertificate(rand.Reader, tmpl, a.cert, &key.PublicKey, a.key))}, PrivateKey: key}
}

// rig is a server on a repository in a directory.
type rig struct {
	t      *testing.T
	ca     *authority
	grants ed25519.PrivateKey
	repo   *repo.Repository
	server *ingest.Server
	addr   string

	mu     sync.Mutex // guards points
	points []repo.Point
}

func newRig(t *testing.T, change func(*ingest.Config, *ingest.Vault)) *rig {
	t.Helper()
	ctx := context.Background()
	b, err := localbucket.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	file := must(repo.NewVaultFile(vaultID, repo.Key{1}, repo.NewRecoveryKey()))
	r := &rig{t: t, ca: newAuthority()}
	if r.repo, err = repo.Open(ctx, b, vaultID, repo.Key{1}, file, repo.Options{}); err != nil {
		t.Fatal(err)
	}
	if err := r.repo.OpenGeneration(ctx, machineID, 1, nil); err != nil {
		t.Fatal(err)
	}
	pub, priv, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	r.grants = priv
	v := &ingest.Vault{ID: vaultID, Certificate: r.ca.issue("replicator"), ClientCAs: r.ca.pool, GrantKey: pub, Repository: ingest.FromRepo(r.repo)}
	cfg := ingest.Config{
		Vault: func(name string) (*ingest.Vault, error) {
			if name != serverName {
				return nil, ingest.ErrNotServed
			}
			return v, nil
		},
		Dir: t.TempDir(), Logger: slog.New(slog.NewTextHandler(t.Output(), nil)),
		Committed: func(_ string, p repo.Point) {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.points = append(r.points, p)
		},
	}
	if change != nil {
		change(&cfg, v)
	}
	if r.server, err = ingest.New(cfg); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r.addr = l.Addr().String()
	sctx, cancel := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- r.server.Serve(sctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("serve: %v", err)
		}
		if n := r.server.Stats(); n.Sessions != 0 || n.SpoolBytes != 0 {
			t.Errorf("after the server ended: %+v", n)
		}
	})
	return r
}

func (r *rig) claims() fleet.GrantClaims {
	return fleet.GrantClaims{Vault: vaultID, Machine: machineID, Agent: agentID, Generation: 1, Exp: time.Now().Add(time.Hour).Unix(),
		Disks: []fleet.GrantDisk{{Id: "disk0", SizeBytes: diskSize}}}
}

func sign(key ed25519.PrivateKey, c fleet.GrantClaims) string {
	s := must(jose.NewSigner(jose.SigningKey{Algorithm: jose.EdDSA, Key: key}, nil))
	return must(must(s.Sign(must(json.Marshal(c)))).CompactSerialize())
}

func (r *rig) hello() *wire.Hello {
	return &wire.Hello{Grant: sign(r.grants, r.claims()), Machine: machineID, Generation: 1, Disks: []wire.Disk{{ID: "disk0", Size: diskSize, OS: true}}}
}

// client is an agent that does as it is told.
type client struct {
	*wire.Conn
	t    *testing.T
	conn *tls.Conn
	seq  uint64
}

func (r *rig) connect(cert tls.Certificate, name string) (*client, error) {
	conn, err := tls.Dial("tcp", r.addr, &tls.Config{MinVersion: tls.VersionTLS13, ServerName: name, RootCAs: r.ca.pool, Certificates: []tls.Certificate{cert}})
	if err != nil {
		return nil, err
	}
	r.t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(30 * time.Second))
	c := &client{Conn: wire.NewConn(conn), t: r.t, conn: conn}
	if err := c.SendPreface(); err != nil {
		return nil, err
	}
	return c, nil
}

// open says hello and returns the answer.
func (r *rig) open(h *wire.Hello) (*client, wire.Message) {
	r.t.Helper()
	c, err := r.connect(r.ca.issue(agentID), serverName)
	if err != nil {
		r.t.Fatal(err)
	}
	if err := c.Send(h); err != nil {
		r.t.Fatal(err)
	}
	if err := c.ReceivePreface(); err != nil {
		r.t.Fatal(err)
	}
	m, err := c.Receive()
	if err != nil {
		r.t.Fatal(err)
	}
	return c, m
}

func (r *rig) welcome() (*client, *wire.Welcome) {
	r.t.Helper()
	c, m := r.open(r.hello())
	w, ok := m.(*wire.Welcome)
	if !ok {
		r.t.Fatalf("got %+v, want a welcome", m)
	}
	return c, w
}

// next returns the next message but heartbeats, and acknowledgements unless asked for.
func (c *client) next() (wire.Message, error) {
	for {
		m, err := c.Receive()
		if _, ok := m.(*wire.Heartbeat); !ok {
			return m, err
		}
	}
}

func want[T wire.Message](c *client) T {
	c.t.Helper()
	for {
		m, err := c.next()
		if err != nil {
			c.t.Fatalf("waiting for %T: %v", *new(T), err)
		}
		if m, ok := m.(T); ok {
			return m
		}
		if _, ok := m.(*wire.Ack); !ok {
			c.t.Fatalf("got %T %+v, want %T", m, m, *new(T))
		}
	}
}

func (c *client) put(key block.SumKey, off int64, b []byte) {
	c.t.Helper()
	c.seq++
	var sums []block.Sum
	for i := 0; i < len(b); i += block.Size {
		sums = append(sums, key.Of(b[i:min(i+block.Size, len(b))]))
	}
	if err := c.Send(&wire.Data{Sequence: c.seq, Extents: []block.Extent{{Offset: off, Length: int64(len(b))}}, Sums: sums, Bytes: b}); err != nil {
		c.t.Fatal(err)
	}
}

func (c *client) seal() {
	c.t.Helper()
	if err := c.Send(&wire.Seal{Sequence: c.seq, Time: time.Now(), Consistency: "CrashConsistent"}); err != nil {
		c.t.Fatal(err)
	}
}

func noise(n int) []byte {
	b := make([]byte, n)
	rand.Read(b)
	return b
}

func TestPointIsCommittedAndToldBeforeDurable(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	c, w := r.welcome()
	if w.Head != nil || !w.Clean {
		t.Errorf("got head %v, clean %v for a machine without points", w.Head, w.Clean)
	}
	b := noise(1 << 20)
	c.put(w.SumKeys[0], 1<<20, b)
	c.put(w.SumKeys[0], diskSize-512, b[:512])
	if a := want[*wire.Ack](c); a.Sequence == 0 || a.Sequence > 2 {
		t.Errorf("got an acknowledgement of %d", a.Sequence)
	}
	c.seal()
	d := want[*wire.Durable](c)
	if d.Point != (wire.PointRef{Generation: 1, Sequence: 1}) {
		t.Errorf("got point %+v", d.Point)
	}
	r.mu.Lock()
	if len(r.points) != 1 || r.points[0].Sequence != 1 || r.points[0].Machine != machineID {
		t.Errorf("the sink was told %+v before Durable", r.points)
	}
	r.mu.Unlock()
	points, err := r.repo.Points(context.Background(), machineID)
	if err != nil || len(points) != 1 {
		t.Errorf("got %d points and %v after Durable", len(points), err)
	}
	if err := c.Send(&wire.SumsRequest{First: 256, Count: 256}); err != nil {
		t.Fatal(err)
	}
	for i, s := range want[*wire.Sums](c).Sums {
		if s != w.SumKeys[0].Of(b[i*block.Size:(i+1)*block.Size]) {
			t.Fatalf("sum of block %d differs", 256+i)
		}
	}
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	_, stranger, _ := ed25519.GenerateKey(rand.Reader)
	for name, tc := range map[string]struct {
		change func(*wire.Hello, *fleet.GrantClaims)
		key    ed25519.PrivateKey
		code   string
		want   string
	}{
		"a grant of another vault's key":  {key: stranger, code: wire.CodePrecondition, want: "signature"},
		"a grant that expired":            {change: func(_ *wire.Hello, c *fleet.GrantClaims) { c.Exp = time.Now().Unix() - 1 }, code: wire.CodePrecondition, want: "expired"},
		"a grant for another vault":       {change: func(_ *wire.Hello, c *fleet.GrantClaims) { c.Vault = "x" }, code: wire.CodePrecondition, want: "another vault"},
		"a grant for another agent":       {change: func(_ *wire.Hello, c *fleet.GrantClaims) { c.Agent = "x" }, code: wire.CodePrecondition, want: "certificate names"},
		"a grant for another machine":     {change: func(_ *wire.Hello, c *fleet.GrantClaims) { c.Machine = "x" }, code: wire.CodePrecondition, want: "machine"},
		"a grant for another generation":  {change: func(_ *wire.Hello, c *fleet.GrantClaims) { c.Generation = 2 }, code: wire.CodePrecondition, want: "generation"},
		"a disk the grant does not cover": {change: func(h *wire.Hello, _ *fleet.GrantClaims) { h.Disks[0].ID = "x" }, code: wire.CodePrecondition, want: "does not cover"},
		"a disk twice": {change: func(h *wire.Hello, c *fleet.GrantClaims) {
			h.Disks = append(h.Disks, h.Disks[0])
			c.Disks = append(c.Disks, fleet.GrantDisk{Id: "y", SizeBytes: diskSize})
		}, code: wire.CodePrecondition, want: "does not cover"},
		"a disk of another size": {change: func(h *wire.Hello, _ *fleet.GrantClaims) { h.Disks[0].Size = 4096 }, code: wire.CodePrecondition, want: "bytes"},
		"fewer disks than granted": {change: func(_ *wire.Hello, c *fleet.GrantClaims) {
			c.Disks = append(c.Disks, fleet.GrantDisk{Id: "y", SizeBytes: 1})
		}, code: wire.CodePrecondition, want: "disks"},
		"no disks":                           {change: func(h *wire.Hello, c *fleet.GrantClaims) { h.Disks, c.Disks = nil, nil }, code: wire.CodeInvalid, want: "starts with"},
		"a generation that was never opened": {change: func(h *wire.Hello, c *fleet.GrantClaims) { h.Generation, c.Generation = 2, 2 }, code: wire.CodeUnavailable, want: "not open yet"},
		"a token that is none":               {change: func(h *wire.Hello, _ *fleet.GrantClaims) { h.Grant = "x" }, code: wire.CodePrecondition, want: "signed token"},
		"a token without a signature (none)": {change: func(h *wire.Hello, _ *fleet.GrantClaims) { h.Grant = "eyJhbGciOiJub25lIn0.e30." }, code: wire.CodePrecondition, want: "signed token"},
	} {
		t.Run(name, func(t *testing.T) {
			h, c, key := r.hello(), r.claims(), r.grants
			raw := h.Grant
			if tc.change != nil {
				tc.change(h, &c)
			}
			if tc.key != nil {
				key = tc.key
			}
			if h.Grant == raw {
				h.Grant = sign(key, c)
			}
			_, m := r.open(h)
			f, ok := m.(*wire.Refuse)
			if !ok {
				t.Fatalf("got %+v, want a refusal", m)
			}
			if f.Code != tc.code || !strings.Contains(f.Message, tc.want) {
				t.Errorf("got %s: %q, want %s with %q", f.Code, f.Message, tc.code, tc.want)
			}
		})
	}
	t.Run("a certificate of another authority", func(t *testing.T) {
		c, err := r.connect(newAuthority().issue(agentID), serverName)
		if err == nil {
			err = c.Send(r.hello())
		}
		if err == nil {
			err = c.ReceivePreface()
		}
		if err == nil {
			t.Error("the session was opened")
		}
	})
	t.Run("a server name of no vault", func(t *testing.T) {
		if _, err := r.connect(r.ca.issue(agentID), "other.data"); err == nil {
			t.Error("the handshake went through")
		}
	})
	t.Run("a generation that is closed", func(t *testing.T) {
		if _, err := r.repo.CloseGeneration(context.Background(), machineID, 1, "test"); err != nil {
			t.Fatal(err)
		}
		_, m := r.open(r.hello())
		if f, ok := m.(*wire.Refuse); !ok || f.Code != wire.CodeFenced {
			t.Errorf("got %+v, want a refusal as fenced", m)
		}
	})
}

func TestGenerationClosedUnderASessionFencesIt(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	c, w := r.welcome()
	c.put(w.SumKeys[0], 0, noise(4096))
	want[*wire.Ack](c)
	if _, err := r.repo.CloseGeneration(context.Background(), machineID, 1, "test"); err != nil {
		t.Fatal(err)
	}
	c.seal()
	if e := want[*wire.Error](c); e.Code != wire.CodeFenced {
		t.Errorf("got %+v, want fenced", e.Fault)
	}
	if points, err := r.repo.Points(context.Background(), machineID); err != nil || len(points) != 0 {
		t.Errorf("got %d points and %v", len(points), err)
	}
}

func TestSecondSessionDisplacesTheFirstAndGoesOn(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	first, w := r.welcome()
	b := noise(8192)
	first.put(w.SumKeys[0], 0, b)
	want[*wire.Ack](first)
	second, w2 := r.welcome()
	if e := want[*wire.Error](first); e.Code != wire.CodeConflict {
		t.Errorf("got %+v for the first session, want conflict", e.Fault)
	}
	if w2.Clean {
		t.Error("the second session was told that nothing is held beyond the head")
	}
	if err := second.Send(&wire.SumsRequest{Count: 2}); err != nil {
		t.Fatal(err)
	}
	if s := want[*wire.Sums](second).Sums; s[1] != w.SumKeys[0].Of(b[4096:]) {
		t.Error("what the first session shipped is not held")
	}
}

func TestBadMessagesEndTheSessionWithAReason(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	one := func(seq uint64, disk uint16, off int64) *wire.Data {
		return &wire.Data{Sequence: seq, Disk: disk, Extents: []block.Extent{{Offset: off, Length: 4096}}, Sums: make([]block.Sum, 1), Bytes: make([]byte, 4096)}
	}
	for name, tc := range map[string]struct {
		m    wire.Message
		want string
	}{
		"a number left out":             {one(2, 0, 0), "came after"},
		"a disk that is not there":      {one(1, 1, 0), "no disk"},
		"data beyond the disk":          {one(1, 0, diskSize-512), "does not fit"},
		"zeros beyond the disk":         {&wire.Zero{Sequence: 1, Extents: []block.Extent{{Offset: 0, Length: 1 << 40}}}, "does not fit"},
		"a short block inside the disk": {&wire.Zero{Sequence: 1, Extents: []block.Extent{{Offset: 0, Length: 512}}}, "does not fit"},
		"sums beyond the disk":          {&wire.SumsRequest{First: diskSize / 4096, Count: 2}, "no blocks"},
		"a seal of what was not sent":   {&wire.Seal{Sequence: 3, Time: time.Now(), Consistency: "CrashConsistent"}, "asked for"},
		"a seal without a time":         {&wire.Seal{Consistency: "CrashConsistent"}, "instant"},
		"an unknown consistency":        {&wire.Seal{Time: time.Now(), Consistency: "best"}, "consistency"},
		"a second hello":                {r.hello(), "does not belong"},
		"a grant for another machine":   {&wire.Grant{Grant: sign(r.grants, fleet.GrantClaims{Exp: time.Now().Add(time.Hour).Unix()})}, "grant was refused"},
	} {
		t.Run(name, func(t *testing.T) {
			c, _ := r.welcome()
			if err := c.Send(tc.m); err != nil {
				t.Fatal(err)
			}
			if e := want[*wire.Error](c); !strings.Contains(e.Message, tc.want) {
				t.Errorf("got %q, want %q in it", e.Message, tc.want)
			}
		})
	}
	t.Run("bytes that are no message", func(t *testing.T) {
		c, _ := r.welcome()
		if _, err := c.conn.Write([]byte(strings.Repeat("x", 64))); err != nil {
			t.Fatal(err)
		}
		if e := want[*wire.Error](c); e.Code != wire.CodeInvalid {
			t.Errorf("got %+v", e.Fault)
		}
	})
}

func TestGrantEndsASessionUnlessRenewed(t *testing.T) {
	t.Parallel()
	var now struct {
		sync.Mutex
		at time.Time
	}
	now.at = time.Now()
	r := newRig(t, func(c *ingest.Config, _ *ingest.Vault) {
		c.Now = func() time.Time {
			now.Lock()
			defer now.Unlock()
			return now.at
		}
	})
	h := r.hello()
	c := r.claims()
	c.Exp = now.at.Unix() + 2
	h.Grant = sign(r.grants, c)
	a, _ := r.open(h)
	c.Exp = now.at.Unix() + 3600
	if err := a.Send(&wire.Grant{Grant: sign(r.grants, c)}); err != nil {
		t.Fatal(err)
	}
	_ = a.conn.SetReadDeadline(time.Now().Add(2500 * time.Millisecond))
	if m, err := a.next(); err == nil {
		t.Errorf("a renewed session got %+v", m)
	}
	b, _ := r.open(h) // displaces; its own grant is short
	if e := want[*wire.Error](b); !strings.Contains(e.Message, "expired") {
		t.Errorf("got %q", e.Message)
	}
}

func TestDropEndsTheSessionsOfAVault(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	c, _ := r.welcome()
	r.server.Drop("another")
	r.server.Drop(vaultID)
	if e := want[*wire.Error](c); e.Code != wire.CodeUnavailable {
		t.Errorf("got %+v", e.Fault)
	}
}

// gated is a repository whose writers reach the bucket only when let through.
type gated struct {
	ingest.Repository
	open chan struct{}
}

type gatedWriter struct {
	ingest.Writer
	open chan struct{}
}

func (g gated) NewWriter(ctx context.Context, machine string, gen int64, disks []ingest.DiskInfo, dir string) (ingest.Writer, error) {
	w, err := g.Repository.NewWriter(ctx, machine, gen, disks, dir)
	return gatedWriter{w, g.open}, err
}

func (g gatedWriter) Checkpoint(ctx context.Context) error {
	select {
	case <-g.open:
		return g.Writer.Checkpoint(ctx)
	case <-ctx.Done():
		return ctx.Err()
	}
}

func TestFullSpoolMakesAgentsWait(t *testing.T) {
	t.Parallel()
	open := make(chan struct{})
	r := newRig(t, func(c *ingest.Config, v *ingest.Vault) {
		c.SpoolLimit = 4 << 20
		v.Repository = gated{v.Repository, open}
	})
	c, w := r.welcome()
	const all = 32
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		for i := range all {
			b := noise(1 << 20)
			c.put(w.SumKeys[0], int64(i)<<20, b)
		}
	}()
	var acked uint64
	for acked < 4 { // what fits is taken in and synced
		acked = want[*wire.Ack](c).Sequence
	}
	if n := r.server.Stats().SpoolBytes; acked != 4 || n != 4<<20 {
		t.Errorf("got %d messages acknowledged and %d bytes in the spool, want 4 and %d", acked, n, 4<<20)
	}
	select {
	case <-sent:
		t.Error("everything was sent into a full spool")
	default:
	}
	close(open)
	for acked < all {
		acked = want[*wire.Ack](c).Sequence
		if n := r.server.Stats().SpoolBytes; n > 4<<20 {
			t.Fatalf("%d bytes in the spool, its limit is %d", n, 4<<20)
		}
	}
	<-sent
	c.seal()
	want[*wire.Durable](c)
	if n := r.server.Stats(); n.SpoolBytes != 0 || n.TotalBytes != all<<20 || n.Points != 1 {
		t.Errorf("got %+v after the point", n)
	}
}

func TestGarbageOnThePortDoesNoHarm(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	for range 20 {
		conn, err := net.Dial("tcp", r.addr)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = conn.Write(noise(300))
		_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
		if _, err := io.Copy(io.Discard, conn); err != nil && errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		_ = conn.Close()
	}
	r.welcome()
}
