// Package identity owns who the agent is: its key, which never leaves the machine, the certificate lifeboatd gave for it, and the
// authority by which it knows lifeboatd. It enrols, renews and keeps them in one file that only root reads.
package identity

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/lifeboat-dr/lifeboat/sdk/fleet"
)

// ServerName is the name in lifeboatd's certificate, whatever address it is reached under.
const ServerName = "lifeboatd"

// ErrNone is what Load returns before the agent was enrolled.
var ErrNone = errors.New("identity: not enrolled")

// Identity is an enrolled agent. Safe for concurrent use.
type Identity struct {
	path string

	mu   sync.Mutex // guards the rest
	kept kept
	cert tls.Certificate
	leaf *x509.Certificate
	ca   *x509.CertPool
}

// kept is the file. An enrolment under way has a key and no certificate.
type kept struct {
	ID          string `json:"id,omitempty"`
	VaultID     string `json:"vaultId,omitempty"`
	Server      string `json:"server"`
	ServerCA    string `json:"serverCa,omitempty"` // PEM of what lifeboatd is pinned to
	Key         string `json:"key"`                // PEM
	Certificate string `json:"certificate,omitempty"`
	CA          string `json:"ca,omitempty"` // PEM of the vault's authority
}

func file(stateDir string) string { return filepath.Join(stateDir, "identity.json") }

// Load reads the identity from the state directory. ErrNone when there is none.
func Load(stateDir string) (*Identity, error) {
	k, err := read(file(stateDir))
	if err != nil {
		return nil, err
	}
	if k.Certificate == "" {
		return nil, ErrNone
	}
	i := &Identity{path: file(stateDir)}
	return i, i.adopt(k)
}

func read(path string) (k kept, err error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return kept{}, ErrNone
	}
	if err == nil {
		err = json.Unmarshal(b, &k)
	}
	if err != nil {
		return kept{}, fmt.Errorf("read identity: %w", err)
	}
	return k, nil
}

// adopt makes k the identity.
func (i *Identity) adopt(k kept) error {
	cert, err := tls.X509KeyPair([]byte(k.Certificate), []byte(k.Key))
	if err != nil {
		return fmt.Errorf("identity: %w", err)
	}
	leaf, err := x509.ParseCertificate(cert.Certificate[0])
	if err != nil {
		return fmt.Errorf("identity: %w", err)
	}
	ca := x509.NewCertPool()
	if !ca.AppendCertsFromPEM([]byte(k.CA)) {
		return errors.New("identity: the vault's authority is no certificate")
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.kept, i.cert, i.leaf, i.ca = k, cert, leaf, ca
	return nil
}

// ID returns the agent's id.
func (i *Identity) ID() string {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.kept.ID
}

// Server returns the address the agent enrolled with.
func (i *Identity) Server() string {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.kept.Server
}

// Data returns the client certificate and the authority for sessions with replicators.
func (i *Identity) Data() (tls.Certificate, *x509.CertPool, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.cert, i.ca, nil
}

// Client returns a client of the control protocol that shows the current certificate. address replaces the one enrolled with,
// unless empty.
func (i *Identity) Client(address string) (*fleet.ClientWithResponses, error) {
	i.mu.Lock()
	k := i.kept
	i.mu.Unlock()
	if address == "" {
		address = k.Server
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM([]byte(k.ServerCA)) {
		return nil, errors.New("identity: lifeboatd's authority is no certificate")
	}
	return client(address, &tls.Config{
		MinVersion: tls.VersionTLS13, ServerName: ServerName, RootCAs: pool,
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			i.mu.Lock()
			defer i.mu.Unlock()
			c := i.cert
			return &c, nil
		},
	})
}

func client(address string, conf *tls.Config) (*fleet.ClientWithResponses, error) {
	h := &http.Client{Transport: &http.Transport{
		TLSClientConfig: conf, ForceAttemptHTTP2: true, TLSHandshakeTimeout: 15 * time.Second, IdleConnTimeout: 2 * time.Minute,
		Proxy: http.ProxyFromEnvironment,
	}}
	return fleet.NewClientWithResponses("https://"+strings.TrimPrefix(address, "https://"), fleet.WithHTTPClient(h))
}

// Server is lifeboatd, or a relay to it, and how to know it.
type Server struct {
	Address  string // host:port
	CAFile   string // PEM of its authority; or
	CASHA256 string // the fingerprint of a certificate in its chain, hexadecimal, with or without colons
}

// pin returns the TLS configuration for enrolment and a function that tells, after a call, the PEM to know lifeboatd by.
func (s Server) pin() (*tls.Config, func() string, error) {
	switch {
	case s.CAFile != "":
		b, err := os.ReadFile(s.CAFile)
		if err != nil {
			return nil, nil, fmt.Errorf("read lifeboatd's authority: %w", err)
		}
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(b) {
			return nil, nil, fmt.Errorf("%s holds no certificate", s.CAFile)
		}
		return &tls.Config{MinVersion: tls.VersionTLS13, ServerName: ServerName, RootCAs: pool}, func() string { return string(b) }, nil
	case s.CASHA256 != "":
		want, err := hex.DecodeString(strings.ToLower(strings.ReplaceAll(s.CASHA256, ":", "")))
		if err != nil || len(want) != sha256.Size {
			return nil, nil, fmt.Errorf("fingerprint %q is not SHA-256 in hexadecimal", s.CASHA256)
		}
		var mu sync.Mutex
		var found *x509.Certificate
		return &tls.Config{
				MinVersion: tls.VersionTLS13, ServerName: ServerName,
				InsecureSkipVerify: true, // VerifyConnection does it, from the pinned certificate on
				VerifyConnection: func(cs tls.ConnectionState) error {
					pinned, err := verifyPinned(cs.PeerCertificates, want)
					if err != nil {
						return err
					}
					mu.Lock()
					found = pinned
					mu.Unlock()
					return nil
				},
			}, func() string {
				mu.Lock()
				defer mu.Unlock()
				return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: found.Raw}))
			}, nil
	}
	return nil, nil, errors.New("say how to know lifeboatd: a CA file or a fingerprint")
}

// verifyPinned finds the certificate with the fingerprint in a server's chain and verifies the server from it on.
func verifyPinned(chain []*x509.Certificate, want []byte) (*x509.Certificate, error) {
	for _, c := range chain {
		sum := sha256.Sum256(c.Raw)
		if string(sum[:]) != string(want) {
			continue
		}
		roots, rest := x509.NewCertPool(), x509.NewCertPool()
		roots.AddCert(c)
		for _, i := range chain[1:] {
			rest.AddCert(i)
		}
		_, err := chain[0].Verify(x509.VerifyOptions{Roots: roots, Intermediates: rest, DNSName: ServerName})
		return c, err
	}
	return nil, errors.New("no certificate of the server has the given fingerprint: it is another server, or its authority was replaced")
}

// Enrol trades the registration key for an identity and keeps it in the state directory. An enrolment whose answer was lost may be
// repeated with the same key: the certificate request is the same.
func Enrol(ctx context.Context, stateDir string, s Server, registrationKey string, m fleet.Machine) (*Identity, error) {
	conf, authority, err := s.pin()
	if err != nil {
		return nil, err
	}
	c, err := client(s.Address, conf)
	if err != nil {
		return nil, err
	}
	k, err := read(file(stateDir))
	if err != nil && !errors.Is(err, ErrNone) || k.Key == "" || k.Certificate != "" {
		k = kept{}
		if k.Key, err = newKey(); err != nil {
			return nil, err
		}
	}
	k.Server = s.Address
	if err := k.write(file(stateDir)); err != nil {
		return nil, err
	}
	csr, err := request(k.Key, m.Hostname)
	if err != nil {
		return nil, err
	}
	r, err := c.EnrollWithResponse(ctx, fleet.EnrollRequest{RegistrationKey: registrationKey, Role: fleet.Agent, Csr: csr, Hostname: m.Hostname, Machine: m})
	if err != nil {
		return nil, fmt.Errorf("enrol with %s: %w", s.Address, err)
	}
	if r.JSON200 == nil {
		return nil, fmt.Errorf("enrol with %s: %w", s.Address, Refusal(r.HTTPResponse, r.JSONDefault))
	}
	k.ServerCA = authority()
	return take(stateDir, k, r.JSON200)
}

func take(stateDir string, k kept, e *fleet.Enrollment) (*Identity, error) {
	k.ID, k.VaultID, k.Certificate, k.CA = e.Id, e.VaultId, e.Certificate, e.CaCertificate
	i := &Identity{path: file(stateDir)}
	if err := i.adopt(k); err != nil {
		return nil, err
	}
	return i, k.write(i.path)
}

// RenewAt returns when the certificate should be renewed: after two thirds of its life.
func (i *Identity) RenewAt() time.Time {
	i.mu.Lock()
	defer i.mu.Unlock()
	life := i.leaf.NotAfter.Sub(i.leaf.NotBefore)
	return i.leaf.NotBefore.Add(life / 3 * 2)
}

// Renew replaces key and certificate.
func (i *Identity) Renew(ctx context.Context, c *fleet.ClientWithResponses) error {
	i.mu.Lock()
	k := i.kept
	i.mu.Unlock()
	var err error
	if k.Key, err = newKey(); err != nil {
		return err
	}
	csr, err := request(k.Key, k.ID)
	if err != nil {
		return err
	}
	r, err := c.RenewWithResponse(ctx, fleet.RenewRequest{Csr: csr})
	if err != nil {
		return fmt.Errorf("renew certificate: %w", err)
	}
	if r.JSON200 == nil {
		return fmt.Errorf("renew certificate: %w", Refusal(r.HTTPResponse, r.JSONDefault))
	}
	if r.JSON200.Id != k.ID {
		return fmt.Errorf("renew certificate: it names %q, not %q", r.JSON200.Id, k.ID)
	}
	k.Certificate, k.CA = r.JSON200.Certificate, r.JSON200.CaCertificate
	if err := i.adopt(k); err != nil {
		return err
	}
	return k.write(i.path)
}

// Forget removes the identity from the state directory.
func (i *Identity) Forget() error { return os.Remove(i.path) }

func newKey() (string, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return "", err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return "", err
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})), nil
}

func request(keyPEM, name string) (string, error) {
	block, _ := pem.Decode([]byte(keyPEM))
	if block == nil {
		return "", errors.New("identity: the key is not PEM")
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return "", fmt.Errorf("identity: %w", err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: name}}, key)
	if err != nil {
		return "", fmt.Errorf("make certificate request: %w", err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})), nil
}

// write replaces the file as a whole, synced.
func (k kept) write(path string) error {
	b, err := json.MarshalIndent(k, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("keep identity: %w", err)
	}
	tmp := path + ".new"
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("keep identity: %w", err)
	}
	_, err = f.Write(b)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("keep identity: %w", err)
	}
	if err := os.Rename(tmp, path); err != nil {
		return fmt.Errorf("keep identity: %w", err)
	}
	d, err := os.Open(filepath.Dir(path))
	if err != nil {
		return fmt.Errorf("keep identity: %w", err)
	}
	if err := errors.Join(d.Sync(), d.Close()); err != nil {
		return fmt.Errorf("keep identity: %w", err)
	}
	return nil
}

// RefusedError is an answer of lifeboatd that is no success.
type RefusedError struct {
	Status int
	Fault  fleet.Error
}

func (e *RefusedError) Error() string {
	s := e.Fault.Message
	if s == "" {
		s = "lifeboatd answered " + http.StatusText(e.Status)
	}
	if e.Fault.RecommendedAction != "" {
		s += " " + e.Fault.RecommendedAction
	}
	return s
}

// Refusal makes an error of an answer that is no success.
func Refusal(r *http.Response, body *fleet.Refused) error {
	e := &RefusedError{}
	if r != nil {
		e.Status = r.StatusCode
	}
	if body != nil {
		e.Fault = body.Error
	}
	return e
}
