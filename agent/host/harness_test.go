package host

import (
	"bufio"
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
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/lifeboat-dr/lifeboat/agent/ship"
	"github.com/lifeboat-dr/lifeboat/replicator/ingest"
	"github.com/lifeboat-dr/lifeboat/replicator/localbucket"
	"github.com/lifeboat-dr/lifeboat/replicator/repo"
	"github.com/lifeboat-dr/lifeboat/sdk/fleet"
)

const (
	vaultID    = "vault1"
	serverName = "vault1.data"
	agentID    = "agent1"
	machineID  = "machine1"
	webUUID    = "5f0ef7a2-1f9e-4f1c-9f52-3d5a3c0b7a01"
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// site is a replicator with one vault, and what it takes to be its agent.
type site struct {
	ca       *x509.Certificate
	caKey    *ecdsa.PrivateKey
	pool     *x509.CertPool
	agent    tls.Certificate
	grantKey ed25519.PrivateKey
	repo     *repo.Repository
	addr     string
	log      *slog.Logger

	mu     sync.Mutex // guards points
	points []ingest.Point
}

func newSite(t *testing.T, dir string) *site {
	t.Helper()
	s := &site{log: slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn})), caKey: must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "vault CA"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(3 * time.Hour), KeyUsage: x509.KeyUsageCertSign}
	s.ca = must(x509.ParseCertificate(must(x509.CreateCertificate(rand.Reader, tmpl, tmpl, &s.caKey.PublicKey, s.caKey))))
	s.pool = x509.NewCertPool()
	s.pool.AddCert(s.ca)
	s.agent = s.issue(agentID, "")
	pub, priv, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	s.grantKey = priv
	ctx := context.Background()
	key := repo.Key{1, 2, 3}
	b := must(localbucket.Open(filepath.Join(dir, "bucket")))
	s.repo = must(repo.Open(ctx, b, vaultID, key, must(repo.NewVaultFile(vaultID, key, repo.NewRecoveryKey())), repo.Options{}))
	if err := s.repo.OpenGeneration(ctx, machineID, 1, nil); err != nil {
		t.Fatal(err)
	}
	v := &ingest.Vault{ID: vaultID, Certificate: s.issue("replicator", serverName), ClientCAs: s.pool, GrantKey: pub, Repository: ingest.FromRepo(s.repo)}
	l := must(net.Listen("tcp", "127.0.0.1:0"))
	s.addr = l.Addr().String()
	srv := must(ingest.New(ingest.Config{Vault: func(string) (*ingest.Vault, error) { return v, nil }, Dir: filepath.Join(dir, "spool"), Logger: s.log,
		Committed: func(_ string, p ingest.Point) {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.points = append(s.points, p)
		}}))
	sctx, cancel := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- srv.Serve(sctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	return s
}

func (s *site) issue(cn, dns string) tls.Certificate {
	key := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: cn}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(3 * time.Hour), KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth}}
	if dns != "" {
		tmpl.DNSNames = []string{dns}
	}
	der := must(x509.CreateCertificate(rand.Reader, tmpl, s.ca, &key.PublicKey, s.caKey))
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// want is what lifeboatd would desire for a machine of this host.
func (s *site) want(m fleet.Machine) fleet.Protection {
	c := fleet.GrantClaims{Vault: vaultID, Machine: machineID, Agent: agentID, Generation: 1, Exp: time.Now().Add(3 * time.Hour).Unix()}
	p := fleet.Protection{MachineId: machineID, MachineUuid: m.ProductUuid, Generation: 1, CrashConsistentSeconds: 3600,
		Replicators: []fleet.ReplicatorAddress{{Address: s.addr, ServerName: serverName}}}
	for _, d := range m.Disks {
		c.Disks = append(c.Disks, fleet.GrantDisk{Id: d.Id, SizeBytes: d.SizeBytes})
		p.Disks = append(p.Disks, d.Id)
	}
	signer := must(jose.NewSigner(jose.SigningKey{Algorithm: jose.EdDSA, Key: s.grantKey}, nil))
	p.Grant = must(must(signer.Sign(must(json.Marshal(c)))).CompactSerialize())
	return p
}

// protector replicates a machine of a host, in this process.
type protector struct {
	*ship.Protector
	t    *testing.T
	make func() *ship.Protector
	want fleet.Protection
	stop func()
	n    int
}

func (s *site) protect(t *testing.T, dir string, h ship.Host, want fleet.Protection) *protector {
	p := &protector{t: t, want: want}
	p.make = func() *ship.Protector {
		return must(ship.New(ship.Config{StateDir: dir, Host: h, Log: s.log, Version: "test",
			Identity: func() (tls.Certificate, *x509.CertPool, error) { return s.agent, s.pool, nil }}, p.want))
	}
	p.run()
	t.Cleanup(func() { p.stop() })
	return p
}

func (p *protector) run() {
	p.Protector = p.make()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func(sp *ship.Protector) { done <- sp.Run(ctx) }(p.Protector)
	p.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			p.t.Error(err)
		}
	})
}

// restart is that of the agent.
func (p *protector) restart() {
	p.stop()
	p.run()
}

// capture asks for a point and waits for it.
func (p *protector) capture() (st fleet.ProtectionStatus) {
	p.t.Helper()
	p.n++
	p.want.CaptureId = fmt.Sprintf("capture-%d", p.n)
	p.Set(p.want)
	until(p.t, p.want.CaptureId, func() bool {
		st = p.Status()
		return st.LastCaptureId == p.want.CaptureId
	})
	return st
}

func (s *site) committed() []ingest.Point {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]ingest.Point(nil), s.points...)
}

// restore writes a disk of a point to a file.
func (s *site) restore(ctx context.Context, point repo.PointRef, disk, path string, size int64) error {
	o, err := s.repo.OpenPoint(ctx, machineID, point)
	if err != nil {
		return err
	}
	defer func() { _ = o.Close() }()
	d, err := o.Disk(disk)
	if err != nil {
		return err
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	if err := f.Truncate(size); err != nil {
		return err
	}
	p := make([]byte, 1<<20)
	zero := make([]byte, 1<<20)
	for off := int64(0); off < size; off += int64(len(p)) {
		q := p[:min(int64(len(p)), size-off)]
		if err := d.ReadAt(ctx, q, off); err != nil {
			return err
		}
		if !bytes.Equal(q, zero[:len(q)]) {
			if _, err := f.WriteAt(q, off); err != nil {
				return err
			}
		}
	}
	return f.Close()
}

// vm is a machine under QEMU.
type vm struct {
	t   *testing.T
	dir string
	cmd *exec.Cmd
}

// start runs a machine from raw images. More arguments come last.
func start(t *testing.T, dir, uuid string, images []string, more ...string) *vm {
	t.Helper()
	args := []string{"-nodefaults", "-no-user-config", "-accel", "tcg", "-machine", "q35", "-cpu", "qemu64,+rdrand,+ssse3,+sse4.1,+sse4.2,+popcnt", "-m", "256", "-smp", "1",
		"-name", "guest=web01", "-uuid", uuid, "-display", "none", "-vga", "std", "-serial", "file:" + filepath.Join(dir, "serial"),
		"-netdev", "user,id=n0", "-device", "virtio-net-pci,netdev=n0,romfile=,mac=52:54:00:aa:bb:01"}
	for _, name := range []string{"qmp", "other"} {
		args = append(args, "-qmp", "unix:"+filepath.Join(dir, name)+".sock,server=on,wait=off")
	}
	for i, image := range images {
		args = append(args, "-drive", fmt.Sprintf("file=%s,format=raw,if=none,id=d%d,discard=unmap", image, i), "-device", fmt.Sprintf("virtio-blk-pci,drive=d%d,serial=disk%d,bootindex=%d", i, i, i))
	}
	v := &vm{t: t, dir: dir, cmd: exec.Command("qemu-system-x86_64", append(args, more...)...)}
	v.cmd.Stderr = os.Stderr
	if err := v.cmd.Start(); err != nil {
		t.Fatalf("%v; install the package qemu-system-x86", err)
	}
	t.Cleanup(v.kill)
	return v
}

func (v *vm) kill() {
	_ = v.cmd.Process.Kill()
	_ = v.cmd.Wait()
}

// await waits until the console has shown a word at least so often.
func (v *vm) await(word string, times int) {
	v.t.Helper()
	until(v.t, fmt.Sprintf("%q on the console", word), func() bool {
		b, _ := os.ReadFile(filepath.Join(v.dir, "serial"))
		return strings.Count(string(b), word) >= times
	})
}

// do runs a command through the second monitor.
func (v *vm) do(command string) string {
	v.t.Helper()
	c, err := net.Dial("unix", filepath.Join(v.dir, "other.sock"))
	if err != nil {
		v.t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	r := bufio.NewReader(c)
	last := ""
	for _, line := range []string{"", `{"execute":"qmp_capabilities"}`, `{"execute":"` + command + `"}`} {
		if line != "" {
			if _, err := fmt.Fprintln(c, line); err != nil {
				v.t.Fatal(err)
			}
		}
		for {
			if last, err = r.ReadString('\n'); err != nil {
				v.t.Fatal(err)
			}
			if !strings.Contains(last, `"event"`) {
				break
			}
		}
	}
	return last
}

// until waits for what nobody announces.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for end := time.After(3 * time.Minute); !ok(); {
		select {
		case <-tick.C:
		case <-end:
			t.Fatalf("no %s within three minutes", what)
		}
	}
}
