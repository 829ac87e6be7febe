package leasequeue_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"testing"
	"time"

	"github.com/lifeboat-dr/lifeboat/api"
	"github.com/lifeboat-dr/lifeboat/replicator/node"
	"github.com/lifeboat-dr/lifeboat/replicator/worker/leasequeue"
	sdk "github.com/lifeboat-dr/lifeboat/sdk/fleet"
	"github.com/lifeboat-dr/lifeboat/service/control"
	"github.com/lifeboat-dr/lifeboat/service/dr"
	"github.com/lifeboat-dr/lifeboat/service/fleet"
	"github.com/lifeboat-dr/lifeboat/service/queue/embedded"
	"github.com/lifeboat-dr/lifeboat/service/queue/queuetest"
	"github.com/lifeboat-dr/lifeboat/service/queue/redisqueue"
	"github.com/lifeboat-dr/lifeboat/service/store/sqlstore"
)

// plainSealer keeps secrets as they are: the store goes with the test.
type plainSealer struct{}

func (plainSealer) Seal(plain []byte, purpose string) ([]byte, error) {
	return append([]byte(purpose+"\x00"), plain...), nil
}

func (plainSealer) Open(sealed []byte, purpose string) ([]byte, error) {
	if len(sealed) <= len(purpose) || string(sealed[:len(purpose)]) != purpose {
		return nil, errors.New("sealed for another purpose")
	}
	return sealed[len(purpose)+1:], nil
}

// replicatorOnly is a control plane that knows one replicator and nothing else.
type replicatorOnly struct {
	fleet.Control
	replicator dr.Replicator
}

func (c *replicatorOnly) EnsureReplicator(_ context.Context, r dr.Replicator) error {
	c.replicator = r
	return nil
}

func (c *replicatorOnly) Replicator(_ context.Context, id string) (dr.Replicator, error) {
	if id != c.replicator.ID {
		return dr.Replicator{}, &dr.Error{Code: dr.CodeNotFound, Message: "no such replicator"}
	}
	return c.replicator, nil
}

func (c *replicatorOnly) Agent(context.Context, string) (dr.Agent, error) {
	return dr.Agent{}, &dr.Error{Code: dr.CodeNotFound, Message: "no such agent"}
}

var _ fleet.Control = (*control.Service)(nil)

// start serves the lease endpoint of a fresh queue over TLS and returns a client of it.
func start(t *testing.T, lease time.Duration) (*leasequeue.Queue, *redisqueue.Queue, *embedded.Server) {
	t.Helper()
	ctx := t.Context()
	redis, err := embedded.Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = redis.Close() })
	db, err := sqlstore.OpenSQLite(ctx, filepath.Join(t.TempDir(), "db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	q := redisqueue.New(redis.Client(), redisqueue.Options{Lease: lease})
	ctl := &replicatorOnly{}
	svc, err := fleet.Open(ctx, fleet.Config{Control: ctl, Store: db, Sealer: plainSealer{}, Workers: q})
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewUnstartedServer(api.NewFleetHandler(svc, nil))
	certificate, key, _, err := svc.Authority().IssueServer([]string{node.ServerName}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.X509KeyPair([]byte(certificate), []byte(key))
	if err != nil {
		t.Fatal(err)
	}
	srv.TLS = &tls.Config{Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequestClientCert}
	srv.EnableHTTP2 = true
	srv.StartTLS()
	t.Cleanup(func() { svc.Drain(); srv.Close() })

	clientKey, csr, err := node.NewKey("r1")
	if err != nil {
		t.Fatal(err)
	}
	e, err := svc.EnrolEmbedded(ctx, dr.Replicator{ID: "r1", Site: "recovery", Capabilities: []string{"repository", "compute", "writeback"}}, csr)
	if err != nil {
		t.Fatal(err)
	}
	identity, err := node.NewIdentity("", clientKey, sdk.Enrollment{Id: e.ID, Certificate: e.Certificate, CaCertificate: e.CACertificate}, svc.Authority().Certificate())
	if err != nil {
		t.Fatal(err)
	}
	client, closeIdle, err := node.NewClient(node.DialTCP(srv.Listener.Addr().String()), identity)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(closeIdle)
	return leasequeue.New(client), q, redis
}

func TestSuiteThroughTheLeaseEndpoint(t *testing.T) {
	const lease = 600 * time.Millisecond
	queuetest.Run(t, func(t *testing.T) queuetest.Harness {
		workers, q, redis := start(t, lease)
		return queuetest.Harness{Workers: workers, Control: q, Lease: lease, Flush: func(ctx context.Context) error { return redis.Client().FlushAll(ctx).Err() }}
	})
}

func TestTasksOfAnotherSiteAreRefused(t *testing.T) {
	workers, _, _ := start(t, time.Second)
	_, err := workers.Lease(t.Context(), "w", []fleet.Route{{Site: "home", Capability: "repository"}}, 0)
	refused, ok := errors.AsType[*leasequeue.RefusedError](err)
	if !ok || refused.Status != http.StatusForbidden || refused.Code != string(dr.CodeForbidden) {
		t.Fatalf("Lease: got %v, want it forbidden", err)
	}
}

func TestAStrangerIsRefused(t *testing.T) {
	redis, err := embedded.Start()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = redis.Close() }()
	db, err := sqlstore.OpenSQLite(t.Context(), filepath.Join(t.TempDir(), "db"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	svc, err := fleet.Open(t.Context(), fleet.Config{Control: &replicatorOnly{}, Store: db, Sealer: plainSealer{}, Workers: redisqueue.New(redis.Client(), redisqueue.Options{})})
	if err != nil {
		t.Fatal(err)
	}
	foreignCA, foreignKey, err := fleet.NewAuthority("someone else", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	foreign, err := fleet.LoadAuthority(foreignCA, foreignKey)
	if err != nil {
		t.Fatal(err)
	}
	_, csr, err := node.NewKey("r1")
	if err != nil {
		t.Fatal(err)
	}
	req, err := fleet.ParseRequest(csr)
	if err != nil {
		t.Fatal(err)
	}
	for name, ca := range map[string]*fleet.Authority{"of another authority": foreign, "of ours, for nobody we know": svc.Authority()} {
		t.Run(name, func(t *testing.T) {
			text, _, err := ca.SignClient(req, "r9", time.Now())
			if err != nil {
				t.Fatal(err)
			}
			if _, err := svc.Authenticate(t.Context(), certificate(t, text)); dr.CodeOf(err) != dr.CodeUnauthenticated {
				t.Fatalf("Authenticate: got %v, want unauthenticated", err)
			}
		})
	}
}

func certificate(t *testing.T, text string) *x509.Certificate {
	t.Helper()
	block, _ := pem.Decode([]byte(text))
	if block == nil {
		t.Fatal("no PEM")
	}
	c, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return c
}
