package node

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/lifeboat-dr/lifeboat/sdk/fleet"
)

// Identity is who a replicator is to lifeboatd: a client certificate whose common name is its id, and its key. Safe for
// concurrent use.
type Identity struct {
	path string // empty: kept in memory only

	mu      sync.Mutex
	stored  storedIdentity
	current tls.Certificate
}

// storedIdentity is identity.json in the state directory; it holds the key and is for its owner only.
type storedIdentity struct {
	ID          string    `json:"id"`
	Certificate string    `json:"certificate"`
	Key         string    `json:"key"`
	CA          string    `json:"ca"`     // signed Certificate
	Server      string    `json:"server"` // authority of lifeboatd's own certificate
	Expires     time.Time `json:"expires"`
}

const identityFile = "identity.json"

// ErrNotEnrolled means that the state directory holds no identity yet.
var ErrNotEnrolled = errors.New("node: not enrolled")

// LoadIdentity reads the identity in a state directory, else ErrNotEnrolled.
func LoadIdentity(stateDir string) (*Identity, error) {
	i := &Identity{path: filepath.Join(stateDir, identityFile)}
	raw, err := os.ReadFile(i.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, ErrNotEnrolled
	}
	if err != nil {
		return nil, fmt.Errorf("read identity: %w", err)
	}
	if err := json.Unmarshal(raw, &i.stored); err != nil {
		return nil, fmt.Errorf("read identity %s: %w", i.path, err)
	}
	if i.current, err = tls.X509KeyPair([]byte(i.stored.Certificate), []byte(i.stored.Key)); err != nil {
		return nil, fmt.Errorf("read identity %s: %w", i.path, err)
	}
	return i, nil
}

// NewKey makes a key and a certificate request for it, both PEM.
func NewKey(hostname string) (key, csr string, err error) {
	priv, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return "", "", fmt.Errorf("make key: %w", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(priv)
	if err != nil {
		return "", "", fmt.Errorf("encode key: %w", err)
	}
	req, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: hostname}}, priv)
	if err != nil {
		return "", "", fmt.Errorf("make certificate request: %w", err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})),
		string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: req})), nil
}

// NewIdentity returns an identity of an enrolment. stateDir empty keeps it in memory only. serverCA is the authority, PEM, that
// lifeboatd's certificate is checked against.
func NewIdentity(stateDir, key string, e fleet.Enrollment, serverCA string) (*Identity, error) {
	i := &Identity{}
	if stateDir != "" {
		i.path = filepath.Join(stateDir, identityFile)
	}
	return i, i.replace(storedIdentity{ID: e.Id, Certificate: e.Certificate, Key: key, CA: e.CaCertificate, Server: serverCA, Expires: e.Expires})
}

func (i *Identity) replace(s storedIdentity) error {
	current, err := tls.X509KeyPair([]byte(s.Certificate), []byte(s.Key))
	if err != nil {
		return fmt.Errorf("use new certificate: %w", err)
	}
	if i.path != "" {
		if err := writeSecret(i.path, s); err != nil {
			return fmt.Errorf("keep identity: %w", err)
		}
	}
	i.mu.Lock()
	i.stored, i.current = s, current
	i.mu.Unlock()
	return nil
}

// ID is the replicator's id.
func (i *Identity) ID() string {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.stored.ID
}

// ServerCA is the authority, PEM, that lifeboatd's certificate is checked against.
func (i *Identity) ServerCA() string {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.stored.Server
}

// ClientCertificate is for tls.Config.GetClientCertificate.
func (i *Identity) ClientCertificate(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	c := i.current
	return &c, nil
}

// keepFresh renews the certificate when two thirds of its life are over.
func (i *Identity) keepFresh(client *fleet.ClientWithResponses, log *slog.Logger) func(context.Context) error {
	return func(ctx context.Context) error {
		for ctx.Err() == nil {
			wait := time.Hour
			if i.due(time.Now()) {
				if err := i.renew(ctx, client); err != nil && ctx.Err() == nil {
					log.Warn("client certificate could not be renewed yet", "err", err)
					wait = time.Minute
				}
			}
			pause(ctx, wait)
		}
		return nil
	}
}

func (i *Identity) due(now time.Time) bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	leaf := i.current.Leaf
	if leaf == nil {
		return false
	}
	return now.After(leaf.NotAfter.Add(-leaf.NotAfter.Sub(leaf.NotBefore) / 3))
}

func (i *Identity) renew(ctx context.Context, client *fleet.ClientWithResponses) error {
	i.mu.Lock()
	s := i.stored
	i.mu.Unlock()
	key, csr, err := NewKey(s.ID)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	resp, err := client.RenewWithResponse(ctx, fleet.RenewRequest{Csr: csr})
	if err != nil {
		return err
	}
	if resp.JSON200 == nil {
		return refused(resp.StatusCode(), resp.JSONDefault)
	}
	s.Certificate, s.Key, s.CA, s.Expires = resp.JSON200.Certificate, key, resp.JSON200.CaCertificate, resp.JSON200.Expires
	return i.replace(s)
}

// writeSecret replaces a file by v as JSON, for its owner only, so that a crash leaves the old or the new one whole.
func writeSecret(path string, v any) (err error) {
	raw, err := json.Marshal(v)
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*") // made with mode 0600
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name())
		}
	}()
	_, err = f.Write(raw)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
