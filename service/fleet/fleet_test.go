package fleet_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lifeboat-dr/lifeboat/service/control"
	"github.com/lifeboat-dr/lifeboat/service/dr"
	"github.com/lifeboat-dr/lifeboat/service/fleet"
	"github.com/lifeboat-dr/lifeboat/service/keyfile"
	"github.com/lifeboat-dr/lifeboat/service/queue/embedded"
	"github.com/lifeboat-dr/lifeboat/service/queue/redisqueue"
	"github.com/lifeboat-dr/lifeboat/service/store"
	"github.com/lifeboat-dr/lifeboat/service/store/sqlstore"
)

const (
	sourceUUID  = "11111111-2222-3333-4444-555555555555"
	replicaUUID = "99999999-2222-3333-4444-555555555555"
)

// world is a control plane with one vault and one site.
type world struct {
	t         *testing.T
	ctx       context.Context
	store     store.Store
	control   *control.Service
	fleet     *fleet.Service
	vault     dr.Vault
	container control.Ref
}

func newWorld(t *testing.T) *world {
	t.Helper()
	ctx, stop := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(stop)
	dir := t.TempDir()
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
	w := &world{t: t, ctx: ctx, store: db, control: control.New(control.Config{Store: db, Sealer: seal, MakeVault: makeVault,
		BucketURL: func(string) string { return "mem://" }})}
	w.fleet, err = fleet.Open(ctx, fleet.Config{Control: w.control, Store: db, Sealer: seal, Workers: redisqueue.New(redis.Client(), redisqueue.Options{}),
		RedisAddress: "redis.example:6379", Watched: []store.Kind{control.KindItem}})
	if err != nil {
		t.Fatal(err)
	}
	put, err := w.control.PutVault(ctx, dr.VaultKey{Subscription: "s", ResourceGroup: "g", Name: "v"}, control.VaultInput{Location: "here"})
	if err != nil {
		t.Fatal(err)
	}
	w.vault = put.Vault
	site := control.Ref{Vault: w.vault.ID, Fabric: "home"}
	must(t)(w.control.PutFabric(ctx, site, control.FabricInput{Kind: dr.FabricInMageRcm}))
	must(t)(w.control.PutPolicy(ctx, control.Ref{Vault: w.vault.ID, Name: "p"}, control.PolicyInput{ProviderSpecificInput: json.RawMessage(
		`{"instanceType":"InMageRcm","crashConsistentFrequencyInMinutes":5,"appConsistentFrequencyInMinutes":60,"recoveryPointHistoryInMinutes":1440,"enableMultiVmSync":"false"}`)}))
	containers, err := w.control.Containers(ctx, site, control.Paging{})
	if err != nil || len(containers.Items) != 1 {
		t.Fatalf("Containers: got %v, %v, want one", containers.Items, err)
	}
	w.container = control.Ref{Vault: w.vault.ID, Fabric: "home", Container: containers.Items[0].Container.Name}
	mapping := w.container
	mapping.Name = "m"
	must(t)(w.control.PutMapping(ctx, mapping, control.MappingInput{PolicyID: "/x/replicationPolicies/p", TargetContainerID: "Microsoft Azure"}))
	return w
}

func must(t *testing.T) func(string, error) {
	t.Helper()
	return func(_ string, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
}

func makeVault(vaultID string) (control.VaultSecrets, string, error) {
	certificate, key, err := fleet.NewAuthority("vault "+vaultID, time.Now())
	return control.VaultSecrets{DataKey: make([]byte, 32), VaultFile: []byte("{}"), CACertificate: certificate, CAKey: key, GrantKey: slices.Repeat([]byte{7}, 32)}, "RECOVERY", err
}

func request(t *testing.T) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}))
}

func parse(t *testing.T, text string) *x509.Certificate {
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

func machine(uuid string) dr.Machine {
	return dr.Machine{Hostname: "web01", ProductUUID: uuid, Platform: "vm", OSType: "Linux", CPUs: 1, MemoryBytes: 1 << 28, Firmware: "bios",
		Disks: []dr.MachineDisk{{ID: "disk0", SizeBytes: 1 << 28, IsOSDisk: true}}}
}

func (w *world) key(role string) string {
	w.t.Helper()
	k, err := w.control.CreateRegistrationKey(w.ctx, control.RegistrationKeyInput{Vault: w.vault.ID, Fabric: "home", Role: role})
	if err != nil {
		w.t.Fatal(err)
	}
	return k.Key
}

// enrolAgent enrols an agent and returns who it is by its certificate.
func (w *world) enrolAgent() fleet.Caller {
	w.t.Helper()
	e, err := w.fleet.Enrol(w.ctx, fleet.EnrolRequest{RegistrationKey: w.key("agent"), Role: fleet.RoleAgent, CSR: request(w.t), Hostname: "web01", Machine: machine(sourceUUID)})
	if err != nil {
		w.t.Fatal(err)
	}
	c, err := w.fleet.Authenticate(w.ctx, parse(w.t, e.Certificate))
	if err != nil {
		w.t.Fatal(err)
	}
	if c.ID != e.ID || c.Role != fleet.RoleAgent || c.Vault != w.vault.ID {
		w.t.Fatalf("Authenticate: got %+v, want agent %s of vault %s", c, e.ID, w.vault.ID)
	}
	return c
}

func (w *world) enrolReplicator() fleet.Caller {
	w.t.Helper()
	e, err := w.fleet.EnrolEmbedded(w.ctx, dr.Replicator{ID: "0b5e4a14-0000-4000-8000-000000000001", Hostname: "r", Site: dr.SiteRecovery}, request(w.t))
	if err != nil {
		w.t.Fatal(err)
	}
	c, err := w.fleet.Authenticate(w.ctx, parse(w.t, e.Certificate))
	if err != nil || c.Role != fleet.RoleReplicator {
		w.t.Fatalf("Authenticate: got %+v, %v, want a replicator", c, err)
	}
	return c
}

func replicatorReport() fleet.ReplicatorReport {
	return fleet.ReplicatorReport{Replicator: dr.Replicator{Hostname: "r", Site: dr.SiteRecovery, Roles: []string{dr.RoleProcessServer},
		Capabilities: []string{"repository"}, DataAddress: "192.0.2.1:9443,10.0.2.2:9443"}}
}

// protect makes the agent's machine a protected item with an open generation.
func (w *world) protect(agent fleet.Caller) dr.ItemID {
	w.t.Helper()
	list, err := w.control.Protectables(w.ctx, w.container, "", control.Paging{})
	if err != nil || len(list.Items) != 1 {
		w.t.Fatalf("Protectables: got %v, %v, want one", list.Items, err)
	}
	ref := w.container
	ref.Name = "web01"
	must(w.t)(w.control.Enable(w.ctx, ref, control.EnableInput{PolicyID: "/x/replicationPolicies/p", ProtectableItemID: "/x/" + list.Items[0].Item.Name,
		ProviderInput: json.RawMessage(`{"instanceType":"InMageRcm","fabricDiscoveryMachineId":"` + agent.ID + `"}`)}))
	v, err := w.control.Item(w.ctx, ref)
	if err != nil {
		w.t.Fatal(err)
	}
	w.change(v.Item.ID, func(it *dr.Item) {
		it.Generation, it.Disks = 1, []dr.Disk{{ID: "disk0", SizeBytes: 1 << 28, IsOSDisk: true}}
	})
	return v.Item.ID
}

func (w *world) change(id dr.ItemID, f func(*dr.Item)) {
	w.t.Helper()
	err := w.store.Update(w.ctx, func(tx store.Tx) error {
		it, err := control.LoadItem(tx, id)
		if err != nil {
			return err
		}
		f(&it)
		return control.SaveItem(tx, &it, time.Now())
	})
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) sync(c fleet.Caller, uuid string, revision int64, wait time.Duration) fleet.AgentDesired {
	w.t.Helper()
	d, err := w.fleet.SyncAgent(w.ctx, c, fleet.AgentReport{Version: "1", Revision: revision, Machine: machine(uuid)}, wait)
	if err != nil {
		w.t.Fatal(err)
	}
	return d
}

func TestARegistrationKeyLetsOneMachineIn(t *testing.T) {
	w := newWorld(t)
	key, csr := w.key("agent"), request(t)
	r := fleet.EnrolRequest{RegistrationKey: key, Role: fleet.RoleAgent, CSR: csr, Hostname: "web01", Machine: machine(sourceUUID)}
	first, err := w.fleet.Enrol(w.ctx, r)
	if err != nil {
		t.Fatal(err)
	}
	again, err := w.fleet.Enrol(w.ctx, r) // the answer was lost
	if err != nil || again.ID != first.ID {
		t.Fatalf("Enrol again with the same request: got %s, %v, want %s", again.ID, err, first.ID)
	}
	r.CSR = request(t)
	if _, err := w.fleet.Enrol(w.ctx, r); err == nil {
		t.Fatal("Enrol with a used key: got in")
	}
	for name, bad := range map[string]fleet.EnrolRequest{
		"no request":       {RegistrationKey: w.key("agent"), Role: fleet.RoleAgent, Hostname: "x", Machine: machine(sourceUUID)},
		"no machine":       {RegistrationKey: w.key("agent"), Role: fleet.RoleAgent, CSR: csr, Hostname: "x"},
		"unknown role":     {RegistrationKey: w.key("agent"), Role: "admin", CSR: csr, Hostname: "x"},
		"unknown site":     {RegistrationKey: w.key("replicator"), Role: fleet.RoleReplicator, CSR: csr, Hostname: "x", Site: "moon"},
		"key of an agent":  {RegistrationKey: w.key("agent"), Role: fleet.RoleReplicator, CSR: csr, Hostname: "x", Site: dr.SiteHome},
		"key made up":      {RegistrationKey: "made-up", Role: fleet.RoleAgent, CSR: csr, Hostname: "x", Machine: machine(sourceUUID)},
		"unsigned request": {RegistrationKey: w.key("agent"), Role: fleet.RoleAgent, CSR: strings.Replace(csr, "MI", "MJ", 1), Hostname: "x", Machine: machine(sourceUUID)},
	} {
		if _, err := w.fleet.Enrol(w.ctx, bad); err == nil || dr.CodeOf(err) == dr.CodeInternal {
			t.Errorf("Enrol, %s: got %v, want a clear refusal", name, err)
		}
	}
}

func TestACertificateIsGoodForItsOwnRoleAndVault(t *testing.T) {
	w := newWorld(t)
	agent, replicator := w.enrolAgent(), w.enrolReplicator()
	if _, err := w.fleet.SyncReplicator(w.ctx, agent, replicatorReport(), 0); dr.CodeOf(err) != dr.CodeForbidden {
		t.Errorf("SyncReplicator by an agent: got %v, want it forbidden", err)
	}
	if _, err := w.fleet.SyncAgent(w.ctx, replicator, fleet.AgentReport{}, 0); dr.CodeOf(err) != dr.CodeForbidden {
		t.Errorf("SyncAgent by a replicator: got %v, want it forbidden", err)
	}
	if _, err := w.fleet.Lease(w.ctx, agent, []fleet.Route{{Site: "recovery", Capability: "repository"}}, 0); dr.CodeOf(err) != dr.CodeForbidden {
		t.Errorf("Lease by an agent: got %v, want it forbidden", err)
	}
	e, err := w.fleet.Renew(w.ctx, agent, request(t))
	if err != nil {
		t.Fatal(err)
	}
	if c, err := w.fleet.Authenticate(w.ctx, parse(t, e.Certificate)); err != nil || c != agent {
		t.Errorf("Authenticate with the renewed certificate: got %+v, %v, want %+v", c, err, agent)
	}
	other, err := w.control.PutVault(w.ctx, dr.VaultKey{Subscription: "s", ResourceGroup: "g", Name: "other"}, control.VaultInput{Location: "here"})
	if err != nil {
		t.Fatal(err)
	}
	secrets, err := w.control.VaultSecrets(w.ctx, other.Vault.ID)
	if err != nil {
		t.Fatal(err)
	}
	ca, err := fleet.LoadAuthority(secrets.CACertificate, secrets.CAKey)
	if err != nil {
		t.Fatal(err)
	}
	req, err := fleet.ParseRequest(request(t))
	if err != nil {
		t.Fatal(err)
	}
	forged, _, err := ca.SignClient(req, agent.ID, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.fleet.Authenticate(w.ctx, parse(t, forged)); dr.CodeOf(err) != dr.CodeUnauthenticated {
		t.Errorf("Authenticate with another vault's certificate for this agent's id: got %v, want it refused", err)
	}
	if _, err := w.fleet.Authenticate(w.ctx, nil); dr.CodeOf(err) != dr.CodeUnauthenticated {
		t.Errorf("Authenticate without a certificate: got %v", err)
	}
}

func TestAnAgentIsToldWhatToProtect(t *testing.T) {
	w := newWorld(t)
	agent, replicator := w.enrolAgent(), w.enrolReplicator()
	if _, err := w.fleet.SyncReplicator(w.ctx, replicator, replicatorReport(), 0); err != nil {
		t.Fatal(err)
	}
	if d := w.sync(agent, sourceUUID, 0, 0); len(d.Protections) != 0 || d.Unregistered {
		t.Fatalf("before enable: got %+v, want nothing", d)
	}
	id := w.protect(agent)
	d := w.sync(agent, sourceUUID, 0, 0)
	if len(d.Protections) != 1 {
		t.Fatalf("got %+v, want one protection", d)
	}
	p := d.Protections[0]
	if p.Machine != id || p.Generation != 1 || p.Fenced || !slices.Equal(p.Disks, []string{"disk0"}) || p.CrashConsistentEvery != 5*time.Minute || p.AppConsistentEvery != time.Hour {
		t.Fatalf("got %+v", p)
	}
	name := fleet.ServerName(replicator.ID, w.vault.ID)
	if !slices.Equal(p.Replicators, []fleet.Address{{Address: "192.0.2.1:9443", ServerName: name}, {Address: "10.0.2.2:9443", ServerName: name}}) {
		t.Fatalf("replicators: got %+v", p.Replicators)
	}
	claims := verifyGrant(t, p.Grant)
	if claims.Vault != w.vault.ID || claims.Machine != string(id) || claims.Agent != agent.ID || claims.Generation != 1 ||
		!slices.Equal(claims.Disks, []fleet.GrantDisk{{ID: "disk0", SizeBytes: 1 << 28}}) {
		t.Fatalf("grant: got %+v", claims)
	}
	if left := time.Until(time.Unix(claims.Expires, 0)); left < 30*time.Minute || left > time.Hour {
		t.Fatalf("grant is valid for %v, want between 30 min and 1 h", left)
	}
	if again := w.sync(agent, sourceUUID, d.Revision, 0); again.Revision != d.Revision {
		t.Fatal("the revision changed although nothing did")
	}
}

func verifyGrant(t *testing.T, grant string) (c fleet.Claims) {
	t.Helper()
	parts := strings.Split(grant, ".")
	if len(parts) != 3 {
		t.Fatalf("grant %q has %d parts", grant, len(parts))
	}
	sig, err := base64.RawURLEncoding.DecodeString(parts[2])
	if err != nil {
		t.Fatal(err)
	}
	if !ed25519.Verify(fleet.GrantPublicKey(slices.Repeat([]byte{7}, 32)), []byte(parts[0]+"."+parts[1]), sig) {
		t.Fatal("the grant's signature is wrong")
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(payload, &c); err != nil {
		t.Fatal(err)
	}
	return c
}

func TestAMachineThatMayNotShipIsFenced(t *testing.T) {
	w := newWorld(t)
	agent := w.enrolAgent()
	id := w.protect(agent)
	fenced := func(uuid string) bool {
		t.Helper()
		p := w.sync(agent, uuid, 0, 0).Protections[0]
		if p.Fenced && (p.Grant != "" || len(p.Replicators) != 0) {
			t.Fatalf("fenced, with a grant or an address: %+v", p)
		}
		return p.Fenced
	}
	if fenced(sourceUUID) || !fenced(replicaUUID) {
		t.Fatal("at home: the source must ship and its replica must not")
	}
	w.change(id, func(it *dr.Item) { it.Fenced = true })
	if !fenced(sourceUUID) || !fenced(replicaUUID) {
		t.Fatal("between generations: nobody may ship")
	}
	w.change(id, func(it *dr.Item) { it.Fenced, it.Generation, it.ActiveUUID = false, 2, replicaUUID })
	if !fenced(sourceUUID) || fenced(strings.ToUpper(replicaUUID)) {
		t.Fatal("after reprotect: the replica must ship and the source that came back must not")
	}
	stops := func(uuid string) bool { return w.sync(agent, uuid, 0, 0).Protections[0].Stop }
	if stops(sourceUUID) {
		t.Error("a source whose shutdown was not asked for shall stop")
	}
	w.change(id, func(it *dr.Item) { it.SourceMustStop = true })
	if !stops(sourceUUID) || stops(replicaUUID) {
		t.Error("the shutdown was asked for: the source that came back shall stop and the replica shall not")
	}
}

func TestALongPollEndsWithTheChange(t *testing.T) {
	w := newWorld(t)
	agent := w.enrolAgent()
	id := w.protect(agent)
	have := w.sync(agent, sourceUUID, 0, 0)
	got := make(chan fleet.AgentDesired, 1)
	go func() {
		d, err := w.fleet.SyncAgent(w.ctx, agent, fleet.AgentReport{Version: "1", Revision: have.Revision, Machine: machine(sourceUUID)}, 20*time.Second)
		if err != nil {
			t.Errorf("SyncAgent: %v", err)
		}
		got <- d
	}()
	w.change(id, func(it *dr.Item) { it.CaptureID = "now" })
	begin := time.Now()
	d := <-got
	if d.Revision == have.Revision || d.Protections[0].CaptureID != "now" {
		t.Fatalf("got %+v, want the capture that was asked for", d)
	}
	if took := time.Since(begin); took > 5*time.Second {
		t.Fatalf("the change was told after %v", took)
	}

	go func() {
		d, err := w.fleet.SyncAgent(w.ctx, agent, fleet.AgentReport{Version: "1", Revision: d.Revision, Machine: machine(sourceUUID)}, 20*time.Second)
		if err != nil {
			t.Errorf("SyncAgent: %v", err)
		}
		got <- d
	}()
	begin = time.Now()
	w.fleet.Drain()
	<-got
	if took := time.Since(begin); took > 5*time.Second {
		t.Fatalf("the poll ended %v after the drain", took)
	}
}

func TestAReplicatorIsGivenTheVaults(t *testing.T) {
	w := newWorld(t)
	replicator := w.enrolReplicator()
	report := replicatorReport()
	d, err := w.fleet.SyncReplicator(w.ctx, replicator, report, 0)
	if err != nil {
		t.Fatal(err)
	}
	if len(d.Vaults) != 1 || d.RedisAddress != "redis.example:6379" {
		t.Fatalf("got %d vaults, redis %q", len(d.Vaults), d.RedisAddress)
	}
	v := d.Vaults[0]
	if v.ID != w.vault.ID || len(v.DataKey) != 32 || v.BucketURL != "mem://" {
		t.Fatalf("got vault %s, bucket %s, a key of %d bytes", v.ID, v.BucketURL, len(v.DataKey))
	}
	if _, err := tls.X509KeyPair([]byte(v.ServerCertificate), []byte(v.ServerKey)); err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(v.CACertificate))
	if _, err := parse(t, v.ServerCertificate).Verify(x509.VerifyOptions{DNSName: v.ServerName, Roots: roots}); err != nil {
		t.Fatal(err)
	}
	report.Revision = d.Revision
	again, err := w.fleet.SyncReplicator(w.ctx, replicator, report, 0)
	if err != nil || again.Revision != d.Revision {
		t.Fatalf("again: got revision %d, %v, want %d", again.Revision, err, d.Revision)
	}
	report.Replicator.Site = dr.SiteHome
	away, err := w.fleet.SyncReplicator(w.ctx, replicator, report, 0)
	if err != nil || away.RedisAddress != "" {
		t.Fatalf("at the source site: got redis %q, %v, want none", away.RedisAddress, err)
	}
}
