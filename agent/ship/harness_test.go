package ship_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/lifeboat-dr/lifeboat/agent/ship"
	"github.com/lifeboat-dr/lifeboat/agent/source"
	"github.com/lifeboat-dr/lifeboat/replicator/ingest"
	"github.com/lifeboat-dr/lifeboat/sdk/fleet"
)

const (
	vaultID    = "vault1"
	serverName = "vault1.data"
	agentID    = "agent1"
	machineID  = "machine1"
)

// site is a replicator with one vault, and what it takes to be its agent.
type site struct {
	t        testing.TB
	ca       *x509.Certificate
	caKey    *ecdsa.PrivateKey
	pool     *x509.CertPool
	agent    tls.Certificate
	grantKey ed25519.PrivateKey
	vault    *ingest.Vault
	server   *ingest.Server
	addr     string
	dir      string
	now      func() time.Time // the replicator's clock; nil for the real one
	stop     func()
	log      *slog.Logger

	mu     sync.Mutex // guards points
	points []ingest.Point
}

func newSite(t testing.TB, r ingest.Repository) *site { return newSiteAt(t, r, nil) }

func newSiteAt(t testing.TB, r ingest.Repository, now func() time.Time) *site {
	t.Helper()
	s := &site{t: t, dir: t.TempDir(), log: testLog(t), now: now}
	s.caKey = must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "vault CA"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign}
	s.ca = must(x509.ParseCertificate(must(x509.CreateCertificate(rand.Reader, tmpl, tmpl, &s.caKey.PublicKey, s.caKey))))
	s.pool = x509.NewCertPool()
	s.pool.AddCert(s.ca)
	s.agent = s.issue(agentID, "")
	pub, priv, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	s.grantKey = priv
	s.vault = &ingest.Vault{ID: vaultID, Certificate: s.issue("replicator", serverName), ClientCAs: s.pool, GrantKey: pub, Repository: r}
	s.start("127.0.0.1:0", 0)
	t.Cleanup(func() { s.stop() })
	return s
}

func randomBytes(n int) []byte {
	b := make([]byte, n)
	rand.Read(b)
	return b
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func testLog(t testing.TB) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
}

func (s *site) issue(cn, dns string) tls.Certificate {
	key := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: cn}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth}}
	if dns != "" {
		tmpl.DNSNames = []string{dns}
	}
	der := must(x509.CreateCertificate(rand.Reader, tmpl, s.ca, &key.PublicKey, s.caKey))
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// start runs the server; stop ends it as a clean shutdown would.
func (s *site) start(addr string, spoolLimit int64) {
	s.t.Helper()
	l, err := net.Listen("tcp", addr)
	if err != nil {
		s.t.Fatal(err)
	}
	s.addr = l.Addr().String()
	s.server, err = ingest.New(ingest.Config{
		Vault: func(name string) (*ingest.Vault, error) {
			if name != serverName {
				return nil, ingest.ErrNotServed
			}
			return s.vault, nil
		},
		Dir: s.dir, SpoolLimit: spoolLimit, Logger: s.log, Now: s.now,
		Committed: func(_ string, p ingest.Point) {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.points = append(s.points, p)
		},
	})
	if err != nil {
		s.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	srv := s.server
	go func() { done <- srv.Serve(ctx, l) }()
	var once sync.Once
	s.stop = func() {
		once.Do(func() {
			cancel()
			if err := <-done; err != nil {
				s.t.Errorf("serve: %v", err)
			}
		})
	}
}

func (s *site) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.points)
}

func (s *site) grant(generation int64, disks []source.Disk, change func(*fleet.GrantClaims)) string {
	s.t.Helper()
	c := fleet.GrantClaims{Vault: vaultID, Machine: machineID, Agent: agentID, Generation: generation, Exp: time.Now().Add(time.Hour).Unix()}
	for _, d := range disks {
		c.Disks = append(c.Disks, fleet.GrantDisk{Id: d.Id, SizeBytes: d.SizeBytes})
	}
	if change != nil {
		change(&c)
	}
	signer := must(jose.NewSigner(jose.SigningKey{Algorithm: jose.EdDSA, Key: s.grantKey}, nil))
	return must(must(signer.Sign(must(json.Marshal(c)))).CompactSerialize())
}

// want is what lifeboatd would desire for the disks.
func (s *site) want(disks []source.Disk) fleet.Protection {
	p := fleet.Protection{MachineId: machineID, Generation: 1, CrashConsistentSeconds: 3600, FreezeTimeoutSeconds: 20,
		Grant: s.grant(1, disks, nil), Replicators: []fleet.ReplicatorAddress{{Address: s.addr, ServerName: serverName}}}
	for _, d := range disks {
		p.Disks = append(p.Disks, d.Id)
	}
	return p
}

// agent is a Protector in this process.
type agent struct {
	*ship.Protector
	t    testing.TB
	want fleet.Protection
	stop func()
	n    int
}

func (s *site) config(src source.Config) ship.Config {
	return ship.Config{
		StateDir: filepath.Join(s.dir, "agent"), Source: src, Deadman: []string{must(os.Executable()), "deadman"}, Log: s.log, Version: "test",
		Identity: func() (tls.Certificate, *x509.CertPool, error) { return s.agent, s.pool, nil },
	}
}

func (s *site) run(cfg ship.Config, want fleet.Protection, before func(*ship.Protector)) *agent {
	s.t.Helper()
	p, err := ship.New(cfg, want)
	if err != nil {
		s.t.Fatal(err)
	}
	p.Print()
	p.Hurry()
	if before != nil {
		before(p)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	var once sync.Once
	a := &agent{Protector: p, t: s.t, want: want, stop: func() {
		once.Do(func() {
			cancel()
			if err := <-done; err != nil {
				s.t.Errorf("run: %v", err)
			}
		})
	}}
	s.t.Cleanup(a.stop)
	return a
}

// await waits until the status satisfies ok.
func (a *agent) await(what string, ok func(fleet.ProtectionStatus) bool) (st fleet.ProtectionStatus) {
	a.t.Helper()
	defer func() {
		if a.t.Failed() {
			a.t.Logf("status while waiting for %s: %+v", what, st)
		}
	}()
	until(a.t, what, func() bool {
		st = a.Status()
		return ok(st)
	})
	return st
}

// until waits for what nobody announces. Two minutes are a lot on an idle machine, and not on a loaded one.
func until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for end := time.After(2 * time.Minute); !ok(); {
		select {
		case <-tick.C:
		case <-end:
			t.Fatalf("no %s within two minutes", what)
		}
	}
}

// capture asks for a point and waits for it.
func (a *agent) capture() fleet.ProtectionStatus {
	a.t.Helper()
	a.n++
	a.want.CaptureId = fmt.Sprintf("capture-%d", a.n)
	a.Set(a.want)
	return a.await("point", func(s fleet.ProtectionStatus) bool { return s.LastCaptureId == a.want.CaptureId })
}

func disksOf(t testing.TB, c source.Config) []source.Disk {
	t.Helper()
	d, err := source.Disks(c)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func command(t *testing.T, name string, args ...string) string {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		t.Fatalf("%s is missing: install e2fsprogs, xfsprogs and mount (Debian)", name)
	}
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

// writeScript writes a script that can be run at once: no child forked meanwhile holds it open for writing.
func writeScript(t *testing.T, dir, name, text string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+text+"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	return path
}

func sameImage(t *testing.T, what string, got, want []byte) {
	t.Helper()
	if bytes.Equal(got, want) {
		return
	}
	n, first := 0, -1
	for off := 0; off < len(want) && off < len(got); off += 4096 {
		end := min(off+4096, len(want), len(got))
		if !bytes.Equal(got[off:end], want[off:end]) {
			if n++; first < 0 {
				first = off
			}
		}
	}
	t.Fatalf("%s: %d blocks of %d and %d bytes differ, the first at %d", what, n, len(got), len(want), first)
}
