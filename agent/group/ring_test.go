package group_test

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
	"fmt"
	"log/slog"
	"math/big"
	mrand "math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/lifeboat-dr/lifeboat/agent/group"
	"github.com/lifeboat-dr/lifeboat/replicator/ingest"
	"github.com/lifeboat-dr/lifeboat/replicator/localbucket"
	"github.com/lifeboat-dr/lifeboat/replicator/repo"
	"github.com/lifeboat-dr/lifeboat/sdk/fleet"
)

const (
	ringSize   = 16
	vaultID    = "vault1"
	serverName = "vault1.data"
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// ring is sixteen machines that pass counters around, their agents, and the replicator that takes their points.
type ring struct {
	*lab
	repo    *repo.Repository
	caKey   *ecdsa.PrivateKey
	ca      *x509.Certificate
	grants  ed25519.PrivateKey
	address string // of the replicator
	at      []int64
	apps    []*child
	agents  []*child

	mu     sync.Mutex // guards the rest
	groups map[string]map[int]repo.PointRef
	order  []string // of whole ones
	own    int      // points without a group
}

func machineName(i int) string { return fmt.Sprintf("m%02d", i) }

// newRing starts the ring. With clock its machines are captured by their clocks, which differ by up to that much.
func newRing(t *testing.T, clock time.Duration) *ring {
	t.Helper()
	r := &ring{lab: newLab(t, ringSize), groups: map[string]map[int]repo.PointRef{}}
	ctx := t.Context()
	r.caKey = must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "vault CA"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour), KeyUsage: x509.KeyUsageCertSign}
	r.ca = must(x509.ParseCertificate(must(x509.CreateCertificate(rand.Reader, tmpl, tmpl, &r.caKey.PublicKey, r.caKey))))
	r.replicator(ctx)
	g := group.Group{ID: "ring", Name: "ring", Interval: 600 * time.Millisecond, Hold: 6 * time.Second}
	for i := range ringSize {
		g.Members = append(g.Members, group.Peer{ID: machineName(i), Agent: machineName(i), Name: machineName(i), Addresses: []string{fmt.Sprintf("%s:%d", r.lab.address(i), group.DefaultPort)}})
		r.at = append(r.at, r.where(i))
	}
	for i := range ringSize {
		r.apps = append(r.apps, r.run(i, "app", r.setup(fmt.Sprintf("app%d.json", i), appSetup{Member: i, File: filepath.Join(r.mounts[i], ringFile),
			Listen: r.lab.address(i) + ":7001", Next: r.lab.address((i+1)%ringSize) + ":7001"})))
	}
	for i := range ringSize {
		if err := r.repo.OpenGeneration(ctx, machineName(i), 1, nil); err != nil {
			t.Fatal(err)
		}
		c := r.issue(machineName(i), "")
		r.agents = append(r.agents, r.run(i, "member", r.setup(fmt.Sprintf("member%d.json", i), memberSetup{State: filepath.Join(r.dir, fmt.Sprintf("state%d", i)), Disk: r.loops[i],
			CA: r.ca.Raw, Certificate: c.Certificate[0], Key: must(x509.MarshalPKCS8PrivateKey(c.PrivateKey)), Group: g, Clock: clock > 0, Fast: clock / ringSize * time.Duration(i*7%ringSize),
			Want: fleet.Protection{MachineId: machineName(i), Generation: 1, Disks: []string{"disk0"}, CrashConsistentSeconds: 3600, FreezeTimeoutSeconds: int(g.Hold / time.Second),
				Grant: r.grant(i), Replicators: []fleet.ReplicatorAddress{{Address: r.address, ServerName: serverName}}}})))
	}
	t.Cleanup(func() {
		if t.Failed() {
			for i := range min(3, ringSize) {
				t.Logf("agent %d:\n%s", i, r.agents[i].tail())
			}
		}
	})
	return r
}

func (r *ring) setup(name string, v any) string {
	path := filepath.Join(r.dir, name)
	if err := os.WriteFile(path, must(json.Marshal(v)), 0o600); err != nil {
		r.t.Fatal(err)
	}
	return path
}

func (r *ring) issue(cn, dns string) tls.Certificate {
	key := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(mrand.Int64()), Subject: pkix.Name{CommonName: cn}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	if dns != "" {
		tmpl.DNSNames, tmpl.ExtKeyUsage = []string{dns}, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	}
	return tls.Certificate{Certificate: [][]byte{must(x509.CreateCertificate(rand.Reader, tmpl, r.ca, &key.PublicKey, r.caKey))}, PrivateKey: key}
}

func (r *ring) grant(i int) string {
	signer := must(jose.NewSigner(jose.SigningKey{Algorithm: jose.EdDSA, Key: r.grants}, nil))
	return must(must(signer.Sign(must(json.Marshal(fleet.GrantClaims{Vault: vaultID, Machine: machineName(i), Agent: machineName(i), Generation: 1,
		Exp: time.Now().Add(24 * time.Hour).Unix(), Disks: []fleet.GrantDisk{{Id: "disk0", SizeBytes: 16 << 20}}})))).CompactSerialize())
}

// replicator takes the agents' data in this process.
func (r *ring) replicator(ctx context.Context) {
	r.t.Helper()
	pub, priv, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		r.t.Fatal(err)
	}
	r.grants = priv
	bucket := must(localbucket.Open(filepath.Join(r.dir, "bucket")))
	r.t.Cleanup(func() { bucket.Close() })
	key := repo.Key{1, 2, 3}
	file := must(repo.NewVaultFile(vaultID, key, repo.NewRecoveryKey()))
	r.repo = must(repo.Open(ctx, bucket, vaultID, key, file, repo.Options{}))
	pool := x509.NewCertPool()
	pool.AddCert(r.ca)
	v := &ingest.Vault{ID: vaultID, Certificate: r.issue("replicator", serverName), ClientCAs: pool, GrantKey: pub, Repository: ingest.FromRepo(r.repo)}
	srv := must(ingest.New(ingest.Config{Vault: func(string) (*ingest.Vault, error) { return v, nil }, Dir: filepath.Join(r.dir, "spool"), Committed: r.committed, Logger: slog.New(slog.DiscardHandler)}))
	l := must(net.Listen("tcp", r.net+"1:0"))
	r.address = l.Addr().String()
	sctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- srv.Serve(sctx, l) }()
	r.t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			r.t.Errorf("serve: %v", err)
		}
	})
}

func (r *ring) committed(_ string, p ingest.Point) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if p.GroupID == "" {
		r.own++
		return
	}
	if r.groups[p.GroupID] == nil {
		r.groups[p.GroupID] = map[int]repo.PointRef{}
	}
	i := must(strconv.Atoi(p.Machine[1:]))
	r.groups[p.GroupID][i] = p.PointRef
	if len(r.groups[p.GroupID]) == ringSize {
		r.order = append(r.order, p.GroupID)
	}
}

// whole returns the ids of the group's points that all machines have, in their order.
func (r *ring) whole() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]string(nil), r.order...)
}

// judge reads a group's points, of all machines or of some, and returns where a receiver has a newer number than its sender, and
// the sum of all numbers.
func (r *ring) judge(id string) (sum uint64, wrong []string) {
	r.t.Helper()
	r.mu.Lock()
	refs := map[int]repo.PointRef{}
	for i, ref := range r.groups[id] {
		refs[i] = ref
	}
	r.mu.Unlock()
	got := map[int]counters{}
	for i, ref := range refs {
		s, err := r.repo.OpenPoint(r.t.Context(), machineName(i), ref)
		if err != nil {
			r.t.Fatal(err)
		}
		d := must(s.Disk("disk0"))
		b := make([]byte, blockSize)
		if err := d.ReadAt(r.t.Context(), b, r.at[i]); err != nil {
			r.t.Fatal(err)
		}
		_ = s.Close()
		c, err := decodeCounters(b)
		if err != nil || c.member != i {
			r.t.Fatalf("point %s of machine %d: %v", id, i, err)
		}
		got[i] = c
	}
	for i, c := range got {
		sender, ok := got[(i+ringSize-1)%ringSize]
		for k := range tokens {
			sum += c.recv[k]
			if ok && c.recv[k] > sender.sent[k] {
				wrong = append(wrong, fmt.Sprintf("machine %d has %d of token %d, %d sent %d", i, c.recv[k], k, sender.member, sender.sent[k]))
			}
		}
	}
	return sum, wrong
}

// harm does the nth bad thing to the ring and undoes it, and says what.
func (r *ring) harm(n int, rng *mrand.Rand) string {
	i, for1 := rng.IntN(ringSize), time.Duration(100+rng.IntN(1400))*time.Millisecond
	switch n % 5 {
	case 0:
		r.agents[i].kill()
		time.Sleep(for1)
		r.agents[i].start()
		return fmt.Sprintf("agent %d was killed", i)
	case 1:
		r.apps[i].kill()
		time.Sleep(for1)
		r.apps[i].start()
		return fmt.Sprintf("the application of %d was killed", i)
	case 2:
		j := (i + 1 + rng.IntN(ringSize-1)) % ringSize
		r.cut(i, j)
		time.Sleep(for1)
		r.mend(i, j)
		return fmt.Sprintf("the link of %d and %d was cut for %s", i, j, for1)
	case 3:
		r.unplug(i, true)
		time.Sleep(for1)
		r.unplug(i, false)
		return fmt.Sprintf("%d was off the network for %s", i, for1)
	default:
		for1 *= 4
		r.agents[i].signal(syscall.SIGSTOP)
		time.Sleep(for1)
		r.agents[i].signal(syscall.SIGCONT)
		return fmt.Sprintf("agent %d stood still for %s", i, for1)
	}
}

// freezes returns how long filesystems stood, as the agents measured it, from the shortest to the longest.
func (r *ring) freezes() (out []time.Duration) {
	r.t.Helper()
	for _, a := range r.agents {
		b, err := os.ReadFile(a.log)
		if err != nil {
			r.t.Fatal(err)
		}
		for _, m := range froze.FindAllSubmatch(b, -1) {
			out = append(out, time.Duration(must(strconv.Atoi(string(m[1]))))*time.Microsecond)
		}
	}
	if len(out) == 0 {
		r.t.Fatal("no agent said how long it froze its filesystem")
	}
	slices.Sort(out)
	return out
}

var froze = regexp.MustCompile(`msg=froze micros=([0-9]+)`)

func number(t *testing.T, name string, def uint64) uint64 {
	t.Helper()
	s := os.Getenv(name)
	if s == "" {
		return def
	}
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}

// Sixteen machines in network namespaces pass numbers around, write them to their filesystems, and are captured as a group into a
// real repository, while agents and applications are killed, agents stand still and links are cut. LIFEBOAT_GROUP_POINTS says how
// many points of the whole group there are to be, LIFEBOAT_GROUP_SEED repeats a run's harm.
func TestNoReceiverIsNewerThanItsSenderInAPointOfTheGroup(t *testing.T) {
	want := int(number(t, "LIFEBOAT_GROUP_POINTS", 20))
	seed := number(t, "LIFEBOAT_GROUP_SEED", mrand.Uint64())
	t.Logf("LIFEBOAT_GROUP_SEED=%d", seed)
	rng := mrand.New(mrand.NewPCG(seed, 0))
	r := newRing(t, 0)
	until := func(what string, n int) {
		t.Helper()
		for end := time.Now().Add(3 * time.Minute); len(r.whole()) < n; time.Sleep(20 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("%s: not within three minutes; %d whole points, %d of single machines", what, len(r.whole()), r.own)
			}
		}
	}
	until("the first points of the whole group", 2)
	judged, moved, last, harms := 0, 0, uint64(0), 0
	begin := time.Now()
	for moved < want {
		time.Sleep(time.Duration(rng.IntN(2000)) * time.Millisecond) // anywhere in a round
		what := r.harm(harms, rng)
		harms++
		t.Log(what)
		until("points of the whole group after "+what, len(r.whole())+1+rng.IntN(2))
		for _, id := range r.whole()[judged:] {
			sum, wrong := r.judge(id)
			if len(wrong) > 0 {
				t.Fatalf("point %s: %v", id, wrong)
			}
			if sum < last {
				t.Errorf("point %s is older than the one before", id)
			}
			if sum > last { // a ring that an application is missing from stands still, and says nothing
				moved++
			}
			judged, last = judged+1, sum
		}
	}
	r.mu.Lock()
	partial, own := 0, r.own
	var ids []string
	for id, refs := range r.groups {
		if len(refs) < ringSize {
			partial++
			ids = append(ids, id)
		}
	}
	r.mu.Unlock()
	for _, id := range ids { // what some of the machines have fits together as well
		if _, wrong := r.judge(id); len(wrong) > 0 {
			t.Fatalf("part of point %s: %v", id, wrong)
		}
	}
	stood := r.freezes()
	t.Logf("machines stood for %s in the middle, %s at the 99th of a hundred, %s at most, over %d captures", stood[len(stood)/2], stood[len(stood)*99/100], stood[len(stood)-1], len(stood))
	t.Logf("%d points of the whole group in %s, none with a receiver newer than its sender; the numbers moved before %d of them, to a sum of %d; %d points of some of its machines, %d of single ones; harmed %d times",
		judged, time.Since(begin).Round(time.Second), moved, last, partial, own, harms)
}

// The same ring, with machines that are captured when their clocks say so. Where all clocks agree, freezes that are longer than they are
// apart hide that nobody waited for anybody; clocks of machines agree to a second, on a good day.
func TestTheRingCatchesPointsThatAreTakenByTheClock(t *testing.T) {
	r := newRing(t, time.Second)
	judged := 0
	for end := time.Now().Add(3 * time.Minute); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		for _, id := range r.whole()[judged:] {
			judged++
			if _, wrong := r.judge(id); len(wrong) > 0 {
				t.Logf("caught in point %d: %d receivers newer than their senders, such as: %s", judged, len(wrong), wrong[0])
				return
			}
		}
		if judged >= 20 {
			break
		}
	}
	t.Fatalf("%d points by the clock, and none was caught", judged)
}
