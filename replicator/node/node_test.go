package node_test

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"net"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/lifeboat-dr/lifeboat/api"
	"github.com/lifeboat-dr/lifeboat/replicator/localbucket"
	"github.com/lifeboat-dr/lifeboat/replicator/node"
	"github.com/lifeboat-dr/lifeboat/replicator/repo"
	"github.com/lifeboat-dr/lifeboat/service/control"
	"github.com/lifeboat-dr/lifeboat/service/dr"
	"github.com/lifeboat-dr/lifeboat/service/fleet"
	"github.com/lifeboat-dr/lifeboat/service/job"
	"github.com/lifeboat-dr/lifeboat/service/keyfile"
	"github.com/lifeboat-dr/lifeboat/service/queue"
	"github.com/lifeboat-dr/lifeboat/service/queue/embedded"
	"github.com/lifeboat-dr/lifeboat/service/queue/redisqueue"
	"github.com/lifeboat-dr/lifeboat/service/store/sqlstore"
)

var dataKey = repo.Key(sha256.Sum256([]byte("data key")))

// plane is a control plane on loopback with one vault.
type plane struct {
	t       *testing.T
	ctx     context.Context
	control *control.Service
	queue   *redisqueue.Queue
	bucket  string // directory
	address string
	ca      string
	vault   dr.Vault
}

func newPlane(t *testing.T) *plane {
	t.Helper()
	ctx, stop := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(stop)
	dir := t.TempDir()
	p := &plane{t: t, ctx: ctx, bucket: filepath.Join(dir, "bucket")}
	db, err := sqlstore.OpenSQLite(ctx, filepath.Join(dir, "db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	seal, err := keyfile.Open(filepath.Join(dir, "key"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = seal.Close() })
	redis, err := embedded.Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = redis.Close() })
	p.queue = redisqueue.New(redis.Client(), redisqueue.Options{})
	p.control = control.New(control.Config{Store: db, Sealer: seal, BucketURL: func(string) string { return (&url.URL{Scheme: "file", Path: p.bucket}).String() },
		MakeVault: func(id string) (control.VaultSecrets, string, error) {
			certificate, key, err := fleet.NewAuthority("vault", time.Now())
			if err != nil {
				return control.VaultSecrets{}, "", err
			}
			recovery := repo.NewRecoveryKey()
			file, err := repo.NewVaultFile(id, dataKey, recovery)
			return control.VaultSecrets{DataKey: dataKey[:], VaultFile: file, CACertificate: certificate, CAKey: key, GrantKey: make([]byte, 32)}, recovery, err
		}})
	svc, err := fleet.Open(ctx, fleet.Config{Control: p.control, Store: db, Sealer: seal, Workers: p.queue})
	if err != nil {
		t.Fatal(err)
	}
	p.ca = svc.Authority().Certificate()
	certificate, key, _, err := svc.Authority().IssueServer([]string{node.ServerName}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.X509KeyPair([]byte(certificate+p.ca), []byte(key))
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewUnstartedServer(api.NewFleetHandler(svc, nil))
	srv.TLS = &tls.Config{Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequestClientCert}
	srv.EnableHTTP2 = true
	srv.StartTLS()
	t.Cleanup(func() { svc.Drain(); srv.Close() })
	p.address = srv.Listener.Addr().String()
	put, err := p.control.PutVault(ctx, dr.VaultKey{Subscription: "s", ResourceGroup: "g", Name: "v"}, control.VaultInput{Location: "here"})
	if err != nil {
		t.Fatal(err)
	}
	p.vault = put.Vault
	if _, err := p.control.PutFabric(ctx, control.Ref{Vault: p.vault.ID, Fabric: "home"}, control.FabricInput{Kind: dr.FabricInMageRcm}); err != nil {
		t.Fatal(err)
	}
	return p
}

func (p *plane) key() string {
	p.t.Helper()
	k, err := p.control.CreateRegistrationKey(p.ctx, control.RegistrationKeyInput{Vault: p.vault.ID, Fabric: "home", Role: "replicator"})
	if err != nil {
		p.t.Fatal(err)
	}
	return k.Key
}

func (p *plane) fingerprint() string {
	block, _ := pem.Decode([]byte(p.ca))
	sum := sha256.Sum256(block.Bytes)
	return hex.EncodeToString(sum[:])
}

func (p *plane) enrol(stateDir string) *node.Identity {
	p.t.Helper()
	i, err := node.Enrol(p.ctx, stateDir, node.Enrolment{Dial: node.DialTCP(p.address), RegistrationKey: p.key(), Hostname: "r1", Site: "recovery", CASHA256: p.fingerprint()})
	if err != nil {
		p.t.Fatal(err)
	}
	return i
}

// run runs a process server until the returned function.
func (p *plane) run(stateDir string, i *node.Identity) (stop func()) {
	p.t.Helper()
	client, closeIdle, err := node.NewClient(node.DialTCP(p.address), i)
	if err != nil {
		p.t.Fatal(err)
	}
	data, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		p.t.Fatal(err)
	}
	n, err := node.New(node.Config{Client: client, Identity: i, StateDir: stateDir, Hostname: "r1", Site: "recovery", Roles: []string{node.RoleProcessServer},
		Version: "test", Data: data, DataAddress: data.Addr().String()})
	if err != nil {
		p.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(p.ctx)
	done := make(chan error, 1)
	go func() { done <- n.Run(ctx) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			p.t.Errorf("Run: %v", err)
		}
		closeIdle()
	}
	p.t.Cleanup(stop)
	select {
	case <-n.Synced():
	case err := <-done:
		p.t.Fatalf("Run: %v", err)
	case <-p.ctx.Done():
		p.t.Fatal("the node did not sync")
	}
	return stop
}

func TestEnrolmentKnowsTheServer(t *testing.T) {
	p := newPlane(t)
	dir := t.TempDir()
	e := node.Enrolment{Dial: node.DialTCP(p.address), RegistrationKey: p.key(), Hostname: "r1", Site: "recovery"}
	if _, err := node.Enrol(p.ctx, dir, e); err == nil {
		t.Error("enrolled at a server it knows nothing of")
	}
	e.CASHA256 = strings.Repeat("00", 32)
	if _, err := node.Enrol(p.ctx, dir, e); err == nil {
		t.Error("enrolled at a server with another authority")
	}
	foreign, _, err := fleet.NewAuthority("someone else", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	e.CASHA256, e.CA = "", foreign
	if _, err := node.Enrol(p.ctx, dir, e); err == nil {
		t.Error("enrolled at a server with another authority's certificate")
	}
	if _, err := node.LoadIdentity(dir); !errors.Is(err, node.ErrNotEnrolled) {
		t.Errorf("after refusals: got %v, want not enrolled", err)
	}
	e.CA, e.CASHA256 = "", p.fingerprint()
	i, err := node.Enrol(p.ctx, dir, e) // the key was not used up by the attempts above
	if err != nil {
		t.Fatal(err)
	}
	again, err := node.LoadIdentity(dir)
	if err != nil || again.ID() != i.ID() || again.ServerCA() != p.ca {
		t.Errorf("LoadIdentity: got %v, want the identity with the pinned authority", err)
	}
	info, err := os.Stat(filepath.Join(dir, "identity.json"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("identity.json: got %v, %v, want mode 0600", info, err)
	}
	if _, err := node.Enrol(p.ctx, t.TempDir(), e); err == nil {
		t.Error("a second replicator enrolled with a used key")
	}
}

func TestANodeServesVaultsDoesTasksAndReportsPoints(t *testing.T) {
	p := newPlane(t)
	state := t.TempDir()
	i := p.enrol(state)
	stop := p.run(state, i)

	rep, err := p.control.Replicator(p.ctx, i.ID())
	if err != nil || rep.Hostname != "r1" || !rep.HasRole(dr.RoleProcessServer) || !rep.Serves(job.At(job.CapabilityRepository, i.ID())) || rep.Serves(job.CapabilityCompute) {
		t.Fatalf("Replicator: got %+v, %v", rep, err)
	}
	payload, err := json.Marshal(job.GenerationOpen{Machine: job.Machine{VaultID: p.vault.ID, MachineID: "m1"}, Generation: 1})
	if err != nil {
		t.Fatal(err)
	}
	done := func(id, kind string) queue.Result {
		t.Helper()
		err := p.queue.Enqueue(p.ctx, queue.Message{TaskID: id, JobID: "j", Kind: kind, Attempt: 1, Payload: payload,
			Route: queue.Route{Site: "recovery", Capability: job.CapabilityRepository}})
		if err != nil {
			t.Fatal(err)
		}
		rs, err := p.queue.Results(p.ctx, 20*time.Second)
		if err != nil || len(rs) != 1 {
			t.Fatalf("Results: got %v, %v, want one", rs, err)
		}
		if err := p.queue.Acknowledge(p.ctx, rs); err != nil {
			t.Fatal(err)
		}
		return rs[0]
	}
	if r := done("t1", job.KindGenerationOpen); r.Failure != nil {
		t.Fatalf("open generation: got %+v", r.Failure)
	}
	if r := done("t2", job.KindInstanceStart); r.Failure == nil || r.Failure.Code != "unimplemented" {
		t.Fatalf("start without a hypervisor: got %+v, want it refused", r.Failure)
	}
	b, err := localbucket.Open(p.bucket)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = b.Close() }()
	r, err := repo.Open(p.ctx, b, p.vault.ID, dataKey, nil, repo.Options{})
	if err != nil {
		t.Fatal(err)
	}
	gens, err := r.Generations(p.ctx, "m1")
	if err != nil || len(gens) != 1 || gens[0].Closed {
		t.Fatalf("Generations: got %+v, %v, want one that is open", gens, err)
	}
	stop()

	if _, err := node.LoadIdentity(state); err != nil {
		t.Fatal(err)
	}
	p.run(state, i) // the state directory is free again
}

func TestTwoNodesDoNotShareAStateDirectory(t *testing.T) {
	p := newPlane(t)
	state := t.TempDir()
	i := p.enrol(state)
	p.run(state, i)
	client, closeIdle, err := node.NewClient(node.DialTCP(p.address), i)
	if err != nil {
		t.Fatal(err)
	}
	defer closeIdle()
	n, err := node.New(node.Config{Client: client, Identity: i, StateDir: state, Hostname: "r1", Site: "recovery", Roles: []string{node.RoleProcessServer}})
	if err != nil {
		t.Fatal(err)
	}
	if err := n.Run(p.ctx); err == nil {
		t.Fatal("a second node ran on the directory")
	}
}

func TestAddress(t *testing.T) {
	for in, want := range map[string]string{"h": "h:443", "h:8443": "h:8443", "https://h": "h:443", "https://h:1/": "h:1", "[::1]": "[::1]:443", "http://h": "", "ftp://h": ""} {
		got, err := node.Address(in)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("Address(%q): got %q, %v, want %q", in, got, err, want)
		}
	}
}
