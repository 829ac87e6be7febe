package guest_test

import (
	"bytes"
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
	"log/slog"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lifeboat-dr/lifeboat/agent/guest"
	"github.com/lifeboat-dr/lifeboat/agent/identity"
	"github.com/lifeboat-dr/lifeboat/agent/source"
	"github.com/lifeboat-dr/lifeboat/sdk/fleet"
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// authority is lifeboatd's and the vault's in one.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority() *authority {
	a := &authority{key: must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "CA"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign}
	a.cert = must(x509.ParseCertificate(must(x509.CreateCertificate(rand.Reader, tmpl, tmpl, &a.key.PublicKey, a.key))))
	return a
}

func (a *authority) pem() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw})
}

func (a *authority) sign(cn string, pub any, life time.Duration) []byte {
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: cn}, DNSNames: []string{identity.ServerName},
		NotBefore: time.Now().Add(-time.Second), NotAfter: time.Now().Add(life), KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth}}
	return must(x509.CreateCertificate(rand.Reader, tmpl, a.cert, pub, a.key))
}

// lifeboatd answers agents as a test wants.
type lifeboatd struct {
	*authority
	addr string
	life time.Duration // of certificates

	mu       sync.Mutex // guards the rest
	enrolled int
	renewed  int
	csrs     map[string]bool
	lose     int // answers to enrolments that get lost
	reports  []fleet.AgentReport
	desired  fleet.AgentDesired
	changed  chan struct{}
}

func newLifeboatd(t *testing.T) *lifeboatd {
	t.Helper()
	l := &lifeboatd{authority: newAuthority(), life: time.Hour, csrs: map[string]bool{}, changed: make(chan struct{})}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /fleet/v1/enroll", l.enroll)
	mux.HandleFunc("POST /fleet/v1/renew", l.renew)
	mux.HandleFunc("POST /fleet/v1/agents/sync", l.sync)
	s := httptest.NewUnstartedServer(mux)
	key := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	s.TLS = &tls.Config{MinVersion: tls.VersionTLS13, ClientAuth: tls.RequestClientCert,
		Certificates: []tls.Certificate{{Certificate: [][]byte{l.sign("lifeboatd", &key.PublicKey, time.Hour), l.cert.Raw}, PrivateKey: key}}}
	s.EnableHTTP2 = true
	s.StartTLS()
	t.Cleanup(s.Close)
	t.Cleanup(s.CloseClientConnections)
	l.addr = s.Listener.Addr().String()
	return l
}

func answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v)
}

func refuse(w http.ResponseWriter, status int, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(fleet.ErrorBody{Error: fleet.Error{Code: "invalid", Message: message}})
}

func (l *lifeboatd) certify(id, csr string) fleet.Enrollment {
	block, _ := pem.Decode([]byte(csr))
	r := must(x509.ParseCertificateRequest(block.Bytes))
	der := l.sign(id, r.PublicKey, l.life)
	return fleet.Enrollment{Id: id, VaultId: "v", Certificate: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})), CaCertificate: string(l.pem())}
}

func (l *lifeboatd) enroll(w http.ResponseWriter, r *http.Request) {
	var q fleet.EnrollRequest
	if json.NewDecoder(r.Body).Decode(&q) != nil || q.RegistrationKey != "key" {
		refuse(w, http.StatusBadRequest, "the registration key is wrong")
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.enrolled++
	block, _ := pem.Decode([]byte(q.Csr))
	l.csrs[string(must(x509.MarshalPKIXPublicKey(must(x509.ParseCertificateRequest(block.Bytes)).PublicKey)))] = true
	if l.lose > 0 {
		l.lose--
		refuse(w, http.StatusServiceUnavailable, "lost")
		return
	}
	answer(w, l.certify("agent-1", q.Csr))
}

func (l *lifeboatd) renew(w http.ResponseWriter, r *http.Request) {
	var q fleet.RenewRequest
	if json.NewDecoder(r.Body).Decode(&q) != nil || len(r.TLS.PeerCertificates) == 0 {
		refuse(w, http.StatusBadRequest, "bad")
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.renewed++
	l.life = time.Hour
	answer(w, l.certify(r.TLS.PeerCertificates[0].Subject.CommonName, q.Csr))
}

func (l *lifeboatd) sync(w http.ResponseWriter, r *http.Request) {
	var q fleet.AgentReport
	if json.NewDecoder(r.Body).Decode(&q) != nil || len(r.TLS.PeerCertificates) == 0 || r.TLS.PeerCertificates[0].Subject.CommonName != "agent-1" {
		refuse(w, http.StatusUnauthorized, "who are you")
		return
	}
	l.mu.Lock()
	l.reports = append(l.reports, q)
	d, changed := l.desired, l.changed
	l.mu.Unlock()
	if wait := r.URL.Query().Get("waitSeconds"); d.Revision == q.Revision && wait != "" && wait != "0" {
		select {
		case <-changed:
		case <-r.Context().Done():
			return
		case <-time.After(5 * time.Second):
		}
		l.mu.Lock()
		d = l.desired
		l.mu.Unlock()
	}
	answer(w, d)
}

func (l *lifeboatd) set(d fleet.AgentDesired) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.desired = d
	close(l.changed)
	l.changed = make(chan struct{})
}

// seen waits for a report.
func (l *lifeboatd) seen(t *testing.T, what string, ok func(fleet.AgentReport) bool) {
	t.Helper()
	until(t, "report of "+what, func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		n := len(l.reports)
		return n > 0 && ok(l.reports[n-1])
	})
}

// until waits for what nobody announces.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for end := time.After(time.Minute); !ok(); {
		select {
		case <-tick.C:
		case <-end:
			t.Fatalf("no %s within a minute", what)
		}
	}
}

func (l *lifeboatd) config(t *testing.T) guest.Config {
	t.Helper()
	dir := t.TempDir()
	ca, disk := filepath.Join(dir, "ca.pem"), filepath.Join(dir, "disk.img")
	if err := errors.Join(os.WriteFile(ca, l.pem(), 0o600), os.WriteFile(disk, make([]byte, 4096), 0o600)); err != nil {
		t.Fatal(err)
	}
	return guest.Config{
		StateDir: filepath.Join(dir, "state"), Server: identity.Server{Address: l.addr, CAFile: ca}, RegistrationKey: "key", Version: "test",
		Source: source.Config{Disks: []source.Named{{ID: "disk0", Path: disk, Stopped: true}}, ProductUUID: "u-1", Hostname: "web1"},
		Log:    slog.New(slog.NewTextHandler(t.Output(), nil)),
	}
}

// run starts an agent; the returned function stops it and returns its error.
func run(t *testing.T, cfg guest.Config) func() error {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- guest.Run(ctx, cfg) }()
	var once sync.Once
	var err error
	stop := func() error {
		once.Do(func() {
			cancel()
			err = <-done
		})
		return err
	}
	t.Cleanup(func() { _ = stop() })
	return stop
}

func TestAgentEnrolsReportsAndObeys(t *testing.T) {
	t.Parallel()
	l := newLifeboatd(t)
	cfg := l.config(t)
	stop := run(t, cfg)
	l.seen(t, "the machine", func(r fleet.AgentReport) bool {
		return r.Machine.ProductUuid == "u-1" && r.Machine.Hostname == "web1" && len(r.Machine.Disks) == 1 && r.Machine.Disks[0].Id == "disk0" && len(r.Protections) == 0
	})
	l.set(fleet.AgentDesired{Revision: 7, Protections: []fleet.Protection{{MachineId: "m1", Generation: 1, Disks: []string{"disk0"}, Fenced: true}}})
	l.seen(t, "a fenced protection", func(r fleet.AgentReport) bool {
		return r.Revision == 7 && len(r.Protections) == 1 && r.Protections[0].MachineId == "m1" && r.Protections[0].Phase == fleet.Fenced
	})
	l.set(fleet.AgentDesired{Revision: 8, Protections: []fleet.Protection{}})
	l.seen(t, "no protection", func(r fleet.AgentReport) bool { return r.Revision == 8 && len(r.Protections) == 0 })
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	cfg.RegistrationKey = "" // it is enrolled
	stop = run(t, cfg)
	l.mu.Lock()
	l.reports = nil
	l.mu.Unlock()
	l.seen(t, "the machine again", func(fleet.AgentReport) bool { return true })
	l.set(fleet.AgentDesired{Revision: 9, Protections: []fleet.Protection{}, Unregistered: true})
	until(t, "end of the identity", func() bool {
		_, err := os.Stat(filepath.Join(cfg.StateDir, "identity.json"))
		return err != nil
	})
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.enrolled != 1 {
		t.Errorf("enrolled %d times", l.enrolled)
	}
}

func TestEnrolmentIsRepeatedWithTheSameKeyPair(t *testing.T) {
	t.Parallel()
	l := newLifeboatd(t)
	l.lose = 1
	run(t, l.config(t))
	l.seen(t, "the machine", func(fleet.AgentReport) bool { return true })
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.enrolled != 2 || len(l.csrs) != 1 {
		t.Errorf("%d enrolments with %d key pairs, want 2 with 1", l.enrolled, len(l.csrs))
	}
}

func TestWrongRegistrationKeyEndsTheAgent(t *testing.T) {
	t.Parallel()
	l := newLifeboatd(t)
	cfg := l.config(t)
	cfg.RegistrationKey = "stale"
	err := guest.Run(context.Background(), cfg)
	if err == nil || !strings.Contains(err.Error(), "registration key is wrong") {
		t.Errorf("got %v", err)
	}
	cfg.RegistrationKey = ""
	if err := guest.Run(context.Background(), cfg); !errors.Is(err, identity.ErrNone) {
		t.Errorf("got %v, want ErrNone", err)
	}
}

func TestLifeboatdIsKnownByFileOrFingerprint(t *testing.T) {
	t.Parallel()
	l, other := newLifeboatd(t), newAuthority()
	sum := sha256.Sum256(l.cert.Raw)
	colons := strings.ToUpper(string(bytes.Join(func() (parts [][]byte) {
		for _, b := range sum {
			parts = append(parts, []byte(hex.EncodeToString([]byte{b})))
		}
		return parts
	}(), []byte(":"))))
	wrong := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(wrong, other.pem(), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		server identity.Server
		ok     bool
	}{
		"the authority's fingerprint":   {identity.Server{CASHA256: hex.EncodeToString(sum[:])}, true},
		"a fingerprint with colons":     {identity.Server{CASHA256: colons}, true},
		"the fingerprint of another":    {identity.Server{CASHA256: strings.Repeat("00", 32)}, false},
		"half a fingerprint":            {identity.Server{CASHA256: "abcd"}, false},
		"the file of another authority": {identity.Server{CAFile: wrong}, false},
		"nothing":                       {identity.Server{}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg := l.config(t)
			tc.server.Address = l.addr
			cfg.Server = tc.server
			_, err := guest.Enrol(context.Background(), cfg)
			if (err == nil) != tc.ok {
				t.Fatalf("got %v", err)
			}
			if !tc.ok {
				return
			}
			id, err := identity.Load(cfg.StateDir)
			if err != nil {
				t.Fatal(err)
			}
			c, err := id.Client("")
			if err != nil {
				t.Fatal(err)
			}
			if r, err := c.SyncAgentWithResponse(context.Background(), nil, fleet.AgentReport{}); err != nil || r.JSON200 == nil {
				t.Errorf("a call with what was kept: %v", err)
			}
		})
	}
}

func TestCertificateIsRenewedBeforeItExpires(t *testing.T) {
	t.Parallel()
	l := newLifeboatd(t)
	l.life = 2 * time.Second
	cfg := l.config(t)
	run(t, cfg)
	until(t, "renewal", func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		return l.renewed > 0
	})
	l.mu.Lock()
	l.reports = nil
	l.mu.Unlock()
	l.set(fleet.AgentDesired{Revision: 3, Protections: []fleet.Protection{}})
	l.seen(t, "the machine after renewal", func(r fleet.AgentReport) bool { return r.Revision == 3 })
}
