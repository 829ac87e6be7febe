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
	"log/slog"
	"math/big"
	"net"
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
		sums = append(sums, block.NewSummer(key).Of(b[i:min(i+block.Size, len(b))]))
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
