package sdk_test

import (
	"context"
	"crypto/x509"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lifeboat-dr/lifeboat/api"
	"github.com/lifeboat-dr/lifeboat/sdk"
	"github.com/lifeboat-dr/lifeboat/service/control"
	"github.com/lifeboat-dr/lifeboat/service/dr"
	"github.com/lifeboat-dr/lifeboat/service/job"
	"github.com/lifeboat-dr/lifeboat/service/store"
	"github.com/lifeboat-dr/lifeboat/service/store/sqlstore"
)

// server is the real API on the real control plane and an SQLite file of its own, over TLS. No engine runs its jobs: tests end
// them as they need.
type server struct {
	control *control.Service
	web     *httptest.Server
	config  sdk.Config
}

const secret = "test-secret"

func newServer(t *testing.T) *server {
	t.Helper()
	db, err := sqlstore.OpenSQLite(t.Context(), filepath.Join(t.TempDir(), "lifeboat.db"))
	if err != nil {
		t.Fatal(err)
	}
	sealer, err := control.NewKeySealer([32]byte{1})
	if err != nil {
		t.Fatal(err)
	}
	ctl := control.New(control.Config{Store: db, Sealer: sealer, BucketURL: func(id string) string { return "mem://" + id },
		MakeVault: func(string) (control.VaultSecrets, string, error) {
			return control.VaultSecrets{DataKey: make([]byte, 32), GrantKey: make([]byte, 32)}, "RECOVERY-KEY", nil
		}})
	handler, err := api.New(api.Config{Control: ctl, PageSize: 2, Tokens: api.NewTokens(api.Token{Name: "test", Role: api.RoleContributor, Hash: api.HashToken(secret)})})
	if err != nil {
		t.Fatal(err)
	}
	s := &server{control: ctl, web: httptest.NewTLSServer(handler)}
	t.Cleanup(func() {
		s.web.Close()
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	pool := x509.NewCertPool()
	pool.AddCert(s.web.Certificate())
	s.config = sdk.Config{Endpoint: s.web.URL, Token: secret, CA: pool, Vault: "home"}
	return s
}

func (s *server) client(t *testing.T, change ...func(*sdk.Config)) *sdk.Client {
	t.Helper()
	cfg := s.config
	for _, c := range change {
		c(&cfg)
	}
	c, err := sdk.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func finish(t *testing.T, op *sdk.Operation, err error) {
	t.Helper()
	if err == nil {
		_, err = op.Wait(t.Context(), nil)
	}
	if err != nil {
		t.Fatal(err)
	}
}

var machine = dr.Machine{Hostname: "web01", ProductUUID: "11111111-2222-3333-4444-555555555555", Platform: "vm", OSType: "Linux", CPUs: 1, MemoryBytes: 1 << 30,
	Disks: []dr.MachineDisk{{ID: "vda", Path: "/dev/vda", SizeBytes: 1 << 30, SectorSize: 512, IsOSDisk: true}}}

// enrolled is a vault with a site in which the machine's agent has enrolled.
func (s *server) enrolled(t *testing.T) *sdk.Client {
	t.Helper()
	c := s.client(t)
	if _, _, err := c.CreateVault(t.Context(), "here", nil); err != nil {
		t.Fatal(err)
	}
	op, err := c.CreateFabric(t.Context(), "site1", "")
	finish(t, op, err)
	key, err := c.CreateRegistrationKey(t.Context(), "site1", "agent")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.control.EnrolAgent(t.Context(), key.RegistrationKey, "fingerprint", machine); err != nil {
		t.Fatal(err)
	}
	return c
}

// end ends a job as the engine would.
func (s *server) end(t *testing.T, c *sdk.Client, id string, state job.State, errs ...job.Error) {
	t.Helper()
	v, err := s.control.Vault(t.Context(), dr.VaultKey{Subscription: "default", ResourceGroup: "default", Name: c.VaultName()})
	if err != nil {
		t.Fatal(err)
	}
	err = s.control.Store().Update(t.Context(), func(tx store.Tx) error {
		j, err := control.LoadJob(tx, v.ID, id)
		if err != nil {
			return err
		}
		j.State, j.Errors, j.Ended = state, errs, time.Now().UTC()
		return control.SaveJob(tx, &j)
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestRecoveryKeyIsShownOnce(t *testing.T) {
	t.Parallel()
	c := newServer(t).client(t)
	for i, want := range []string{"RECOVERY-KEY", ""} {
		v, key, err := c.CreateVault(t.Context(), "here", map[string]string{"owner": "ops"})
		if err != nil || key != want || v.Name != "home" || v.Tags["owner"] != "ops" {
			t.Errorf("creation %d: got %q, %+v, %v, want the key %q", i+1, key, v, err, want)
		}
	}
}

func TestListsReachOverPages(t *testing.T) {
	t.Parallel()
	c := newServer(t).client(t)
	if _, _, err := c.CreateVault(t.Context(), "here", nil); err != nil {
		t.Fatal(err)
	}
	want := []string{"p1", "p2", "p3", "p4", "p5"}
	for _, name := range want {
		op, err := c.CreatePolicy(t.Context(), name, sdk.PolicySettings{Frequency: 1})
		finish(t, op, err)
	}
	all, err := sdk.Collect(c.Policies(t.Context()))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, p := range all {
		got = append(got, p.Name)
	}
	if slices.Sort(got); !slices.Equal(got, want) {
		t.Errorf("policies over pages of two: got %v, want %v", got, want)
	}
	n := 0
	for _, err := range c.Jobs(t.Context(), "Succeeded") {
		if err != nil {
			t.Fatal(err)
		}
		if n++; n == 3 {
			break // in the middle of the second page
		}
	}
	if none, err := sdk.Collect(c.Jobs(t.Context(), "Failed")); err != nil || len(none) != 0 {
		t.Errorf("failed jobs: got %d, %v, want none", len(none), err)
	}
}

func TestProtectMakesWhatIsMissing(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	c := s.enrolled(t)
	ref, op, err := c.Protect(t.Context(), sdk.ProtectInput{Machine: "WEB01", Policy: "gold", Settings: sdk.PolicySettings{Retention: 60, Frequency: 1}})
	if err != nil {
		t.Fatal(err)
	}
	if ref.Fabric != "site1" || ref.Name != "web01" || op.JobID == "" {
		t.Errorf("got %+v with job %q, want web01 in site1 with a job", ref, op.JobID)
	}
	again, op2, err := c.Protect(t.Context(), sdk.ProtectInput{Machine: "web01"})
	if err != nil || again != ref || op2.JobID != op.JobID {
		t.Errorf("the same again: got %+v, job %q, %v, want the first one's, %q, under the container's only policy", again, op2.JobID, err, op.JobID)
	}
	item, err := c.FindItem(t.Context(), "", "web01")
	if err != nil || item.Properties.PolicyFriendlyName != "gold" || sdk.ProviderOf(item) != sdk.ProviderGuest {
		t.Errorf("item: got policy %q, provider %q, %v, want gold and %s", item.Properties.PolicyFriendlyName, sdk.ProviderOf(item), err, sdk.ProviderGuest)
	}
	if got, err := sdk.RefOf(item); err != nil || got != ref {
		t.Errorf("reference of the item: got %+v, %v, want %+v", got, err, ref)
	}
	if _, _, err := c.Protect(t.Context(), sdk.ProtectInput{Machine: "nobody"}); !sdk.IsNotFound(err) {
		t.Errorf("a machine that is not there: got %v, want not found", err)
	}
}

func TestFailedJobEndsTheWaitWithCauseAndRemedy(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	c := s.enrolled(t)
	_, op, err := c.Protect(t.Context(), sdk.ProtectInput{Machine: "web01"})
	if err != nil {
		t.Fatal(err)
	}
	looks := 0
	j, err := op.Wait(t.Context(), func(j sdk.Job) {
		if looks++; looks == 2 {
			s.end(t, c, op.JobID, job.Failed, job.Error{Code: "Exhausted", Message: "the bucket is full", PossibleCauses: "it is small", RecommendedAction: "grow it"})
		}
	})
	failure, ok := errors.AsType[*sdk.OperationError](err)
	if !ok || failure.JobID != op.JobID || failure.Status != "Failed" {
		t.Fatalf("got %v, want a failed operation of job %s", err, op.JobID)
	}
	if e := failure.Err; e.Code != "Exhausted" || e.PossibleCauses != "it is small" || e.RecommendedAction != "grow it" {
		t.Errorf("got %+v, want what the job says", e)
	}
	if j.Properties.State != "Failed" || !sdk.Ended(j) || looks != 3 {
		t.Errorf("got job in state %q after %d looks, want Failed after 3", j.Properties.State, looks)
	}
	// Another process takes the operation up by the job's name alone.
	_, err = c.WaitForJob(t.Context(), op.JobID, nil)
	if again, ok := errors.AsType[*sdk.OperationError](err); !ok || again.Err.Code != "Exhausted" {
		t.Errorf("waiting again: got %v, want the same failure", err)
	}
}

func TestWaitEndsWithItsContextAndTheJobGoesOn(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	c := s.enrolled(t)
	_, op, err := c.Protect(t.Context(), sdk.ProtectInput{Machine: "web01"})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	if _, err := op.Wait(ctx, func(sdk.Job) { cancel() }); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want the end of the context", err)
	}
	if j, err := c.Job(t.Context(), op.JobID); err != nil || sdk.Ended(j) {
		t.Errorf("the job: got %q, %v, want it running", j.Properties.State, err)
	}
}

func TestRefusalHasAllItsParts(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	c := s.client(t)
	_, err := c.Vault(t.Context())
	e, ok := errors.AsType[*sdk.Error](err)
	if !ok || e.Status != http.StatusNotFound || e.Code == "" || e.Message == "" || e.PossibleCauses == "" || e.RecommendedAction == "" || e.RequestID == "" {
		t.Errorf("a vault that is not there: got %+v", e)
	}
	if !sdk.IsNotFound(err) {
		t.Errorf("IsNotFound(%v): got false", err)
	}
	wrong := s.client(t, func(c *sdk.Config) { c.Token = "wrong" })
	if _, err := wrong.Vault(t.Context()); !isStatus(err, http.StatusUnauthorized) {
		t.Errorf("a wrong token: got %v, want 401", err)
	}
	stranger := s.client(t, func(c *sdk.Config) { c.CA = x509.NewCertPool() })
	if _, err := stranger.Vault(t.Context()); !isCode(err, sdk.CodeUntrusted) {
		t.Errorf("an authority that is not trusted: got %v, want %s", err, sdk.CodeUntrusted)
	}
}

func isStatus(err error, status int) bool {
	e, ok := errors.AsType[*sdk.Error](err)
	return ok && e.Status == status
}

func isCode(err error, code string) bool {
	e, ok := errors.AsType[*sdk.Error](err)
	return ok && e.Code == code
}

func TestNewReadsItsFiles(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	dir := t.TempDir()
	token, empty := filepath.Join(dir, "token"), filepath.Join(dir, "empty")
	for file, text := range map[string]string{token: secret + "\n", empty: "\n"} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c := s.client(t, func(c *sdk.Config) { c.Token, c.TokenFile = "", token })
	if all, err := sdk.Collect(c.Vaults(t.Context())); err != nil || len(all) != 0 {
		t.Errorf("with the token from a file: got %v, %v", all, err)
	}
	for name, cfg := range map[string]sdk.Config{
		"no endpoint":               {Token: secret},
		"an endpoint without host":  {Endpoint: "localhost:8443", Token: secret},
		"no token":                  {Endpoint: s.web.URL},
		"an empty token file":       {Endpoint: s.web.URL, TokenFile: empty},
		"a token file that is gone": {Endpoint: s.web.URL, TokenFile: dir + "/gone"},
		"a CA file without one":     {Endpoint: s.web.URL, Token: secret, CAFile: token},
	} {
		if _, err := sdk.New(cfg); err == nil {
			t.Errorf("%s: got no error", name)
		} else if strings.Contains(err.Error(), secret) {
			t.Errorf("%s: the error tells the token: %v", name, err)
		}
	}
}
