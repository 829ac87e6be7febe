package api

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/lifeboat-dr/lifeboat/service/control"
	"github.com/lifeboat-dr/lifeboat/service/dr"
)

// counted counts the items that were made views of.
type counted struct {
	*control.Service
	items, vaults atomic.Int64
}

func (c *counted) Item(ctx context.Context, ref control.Ref) (control.ItemView, error) {
	c.items.Add(1)
	return c.Service.Item(ctx, ref)
}

func (c *counted) Vault(ctx context.Context, key dr.VaultKey) (dr.Vault, error) {
	c.vaults.Add(1)
	return c.Service.Vault(ctx, key)
}

func countedSite(t *testing.T, change ...func(*Config)) (*site, *counted) {
	t.Helper()
	c := &counted{}
	s := newSite(t, append(change, func(cfg *Config) {
		c.Service = cfg.Control.(*control.Service)
		cfg.Control = c
	})...)
	return s, c
}

func TestARepeatedGetIsAnsweredFromMemoryUntilSomethingChanges(t *testing.T) {
	t.Parallel()
	s, made := countedSite(t)
	s.must(201, "PUT", vaultURL, vaultIn)
	first := s.must(200, "GET", vaultURL, "")
	n := made.vaults.Load()
	again := s.must(200, "GET", vaultURL, "")
	if made.vaults.Load() != n {
		t.Error("the vault was read again although nothing changed")
	}
	if !bytes.Equal(first.raw, again.raw) {
		t.Errorf("got %s, then %s", first.raw, again.raw)
	}
	for name := range first.header {
		fresh := name == "X-Ms-Request-Id" || name == "X-Ms-Correlation-Request-Id" || name == "X-Ms-Routing-Request-Id"
		if same := first.header.Get(name) == again.header.Get(name); same == fresh && name != "Date" {
			t.Errorf("header %s: got %q, then %q", name, first.header.Get(name), again.header.Get(name))
		}
	}
	if len(again.header) != len(first.header) {
		t.Errorf("got headers %v, then %v", first.header, again.header)
	}
	if got := s.send(RoleReader, "GET", vaultURL, "", "x-ms-client-request-id", "mine").header.Get("x-ms-client-request-id"); got != "mine" {
		t.Errorf("got the request id %q back, want the caller's own", got)
	}
	for _, c := range []struct {
		name, method, path, body string
		status                   int
		want                     string
	}{
		{"a change", "PATCH", vaultURL, `{"tags":{"a":"1"}}`, 200, `"tags":{"a":"1"}`},
		{"another change", "PATCH", vaultURL, `{"tags":{"a":"2"}}`, 200, `"tags":{"a":"2"}`},
		{"its removal", "DELETE", vaultURL, "", 200, "ResourceNotFound"},
		{"its return", "PUT", vaultURL, vaultIn, 201, `W/\"1\"`},
	} {
		s.must(200, "GET", vaultURL+"?no-version&api-version=2023-02-01", "") // kept under another URL too
		version := "?api-version=2023-02-01"
		if a := s.send(RoleContributor, c.method, c.path+version, c.body); a.status != c.status {
			t.Fatalf("%s: got %s, want %d", c.name, a, c.status)
		}
		for _, path := range []string{vaultURL, vaultURL + "?no-version&api-version=2023-02-01"} {
			a := s.send(RoleReader, "GET", path, "")
			if c.method == "DELETE" {
				if a.status != 404 {
					t.Errorf("%s: got %s, want 404", c.name, a)
				}
			} else if !strings.Contains(string(a.raw), c.want) {
				t.Errorf("%s: got %s, want %s", c.name, a, c.want)
			}
		}
		if c.method == "DELETE" {
			break
		}
	}
}

func TestWhoMayNotReadGetsNothingFromMemory(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.must(201, "PUT", vaultURL, vaultIn)
	s.must(200, "GET", vaultURL, "")
	if a := s.send("", "GET", vaultURL, ""); a.status != 401 {
		t.Errorf("without a token: got %s, want 401", a)
	}
	if a := s.send("", "GET", vaultURL, "", "Authorization", "Bearer wrong"); a.status != 401 {
		t.Errorf("with a token that is not known: got %s, want 401", a)
	}

	// An operation that takes more than a Reader.
	key := "https://host\n" + vaultURL + "?api-version=" + testVersion
	_, basis := s.control.Note(t.Context())
	s.server.answers.add(key, newReply(RoleContributor, basis, []byte("secret")))
	reached := false
	h := s.server.recall(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { reached = true }))
	for _, c := range []struct {
		role Role
		want string
	}{{RoleReader, ""}, {RoleOperator, ""}, {"", ""}, {RoleContributor, "secret"}} {
		reached = false
		w := httptest.NewRecorder()
		r := httptest.NewRequest("GET", "https://host"+vaultURL+"?api-version="+testVersion, nil)
		x := &exchange{path: vaultURL, token: Token{Role: c.role}}
		h.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), exchangeKey{}, x)))
		if w.Body.String() != c.want || reached == (c.want != "") {
			t.Errorf("role %q: got %q, passed on %v", c.role, w.Body, reached)
		}
	}
}

func TestAnItemFromMemoryFollowsEverythingItShows(t *testing.T) {
	t.Parallel()
	s, made := countedSite(t)
	c := s.furnish()
	if err := s.control.EnsureReplicator(t.Context(), dr.Replicator{ID: "r", Hostname: "first", Site: dr.SiteRecovery, Roles: []string{dr.RoleProcessServer}}); err != nil {
		t.Fatal(err)
	}
	machine, agent := s.enrol(c)
	item := c + "/replicationProtectedItems/web01"
	s.must(202, "PUT", item, enableIn(machine))
	var id dr.ItemID
	get := func() string {
		t.Helper()
		return string(s.must(200, "GET", item, "").raw)
	}
	for _, x := range []struct {
		name, want string
		change     func() error
	}{
		{"the replicator's name", `"processServerName":"second"`, func() error {
			return s.control.ReplicatorSeen(t.Context(), dr.Replicator{ID: "r", Hostname: "second", Site: dr.SiteRecovery, Roles: []string{dr.RoleProcessServer}})
		}},
		{"the agent's version", `"version":"9.9.9"`, func() error {
			return s.control.AgentSeen(t.Context(), agent, "9.9.9", testMachine, nil)
		}},
		{"the machine's address", `"192.0.2.99"`, func() error {
			m := testMachine
			m.IPAddresses = []string{"192.0.2.99"}
			return s.control.AgentSeen(t.Context(), agent, "9.9.9", m, nil)
		}},
		{"a recovery point", "/recoveryPoints/", func() error {
			return s.control.RecordPoints(t.Context(), s.vaultID(), id, []dr.Point{{Generation: 1, Sequence: 1, Consistency: dr.CrashConsistent}}, true)
		}},
	} {
		key := dr.VaultKey{Subscription: "sub", ResourceGroup: "rg", Name: "v1"}
		v, err := s.control.Vault(t.Context(), key)
		if err != nil {
			t.Fatal(err)
		}
		view, err := s.control.Item(t.Context(), control.Ref{Vault: v.ID, Fabric: "site1", Container: filepath.Base(c), Name: "web01"})
		if err != nil {
			t.Fatal(err)
		}
		id = view.Item.ID
		before := get()
		if strings.Contains(before, x.want) {
			t.Fatalf("%s: %s is there before", x.name, x.want)
		}
		if err := x.change(); err != nil {
			t.Fatal(err)
		}
		if got := get(); !strings.Contains(got, x.want) {
			t.Errorf("%s: got %s, want %s", x.name, got, x.want)
		}
	}
	before, n := get(), made.items.Load()
	spared := false
	for range 100 { // some may fall on either side of a whole second
		if get() == before && made.items.Load() == n {
			spared = true
			break
		}
		before, n = get(), made.items.Load()
	}
	if !spared {
		t.Error("an item that nothing happens to is made anew each time")
	}
}

func (s *site) vaultID() string {
	s.t.Helper()
	v, err := s.control.Vault(s.t.Context(), dr.VaultKey{Subscription: "sub", ResourceGroup: "rg", Name: "v1"})
	if err != nil {
		s.t.Fatal(err)
	}
	return v.ID
}

func TestReadersNeverGetLessThanWasAcknowledged(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.must(201, "PUT", vaultURL, vaultIn)
	h := s.server.handler()
	ask := func(method, body string) (int, string) {
		r := httptest.NewRequestWithContext(t.Context(), method, vaultURL+"?api-version="+testVersion, strings.NewReader(body))
		r.Header.Set("Authorization", "Bearer "+secrets[RoleContributor])
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		var v struct{ Tags map[string]string }
		_ = json.Unmarshal(w.Body.Bytes(), &v)
		return w.Code, v.Tags["n"]
	}
	const saves = 200
	var known atomic.Int64
	ctx, stop := context.WithCancel(t.Context())
	var readers sync.WaitGroup
	defer readers.Wait()
	defer stop()
	for range 4 {
		readers.Go(func() {
			for ctx.Err() == nil {
				want := known.Load()
				status, n := ask("GET", "")
				got, _ := strconv.ParseInt(n, 10, 64)
				if status != 200 || got < want {
					t.Errorf("got %d with %d, want at least %d", status, got, want)
					return
				}
				for was := known.Load(); got > was && !known.CompareAndSwap(was, got); was = known.Load() {
				}
			}
		})
	}
	for n := range int64(saves) {
		if status, _ := ask("PATCH", fmt.Sprintf(`{"tags":{"n":"%d"}}`, n+1)); status != 200 {
			t.Fatalf("PATCH: got %d", status)
		}
		for was := known.Load(); n+1 > was && !known.CompareAndSwap(was, n+1); was = known.Load() {
		}
	}
}

func TestAnswersAreCompressedForThoseWhoTakeIt(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.must(201, "PUT", vaultURL, vaultIn)
	h := s.server.handler()
	plain := ""
	for _, c := range []struct {
		accept []string
		want   bool
	}{
		{nil, false}, {[]string{""}, false}, {[]string{"gzip"}, true}, {[]string{"deflate, GZIP;q=0.5"}, true}, {[]string{"br", "gzip"}, true}, {[]string{"*"}, true},
		{[]string{"identity"}, false}, {[]string{"gzip;q=0"}, false}, {[]string{"gzip; q=0.000, *"}, false}, {[]string{"*;q=0"}, false}, {[]string{"*;q=0, gzip;q=1"}, true}, {[]string{"gzippy"}, false},
	} {
		for _, path := range []string{vaultURL, vaultURL, vaultURL + "/replicationFabrics"} { // made, remembered, never remembered
			r := httptest.NewRequestWithContext(t.Context(), "GET", path+"?api-version="+testVersion, nil)
			r.Header.Set("Authorization", "Bearer "+secrets[RoleReader])
			r.Header["Accept-Encoding"] = c.accept
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			if got := w.Header().Get("Content-Encoding") == "gzip"; w.Code != 200 || got != c.want {
				t.Errorf("%s, Accept-Encoding %q: got %d compressed %v, want %v", path, c.accept, w.Code, got, c.want)
				continue
			}
			body := w.Body.Bytes()
			if path == vaultURL && w.Header().Get("Content-Length") != strconv.Itoa(len(body)) {
				t.Errorf("got Content-Length %s of %d bytes", w.Header().Get("Content-Length"), len(body))
			}
			if c.want {
				z, err := gzip.NewReader(bytes.NewReader(body))
				if err != nil {
					t.Fatal(err)
				}
				if body, err = io.ReadAll(z); err != nil {
					t.Fatal(err)
				}
			}
			if path == vaultURL && plain == "" {
				plain = string(body)
			}
			if path == vaultURL && string(body) != plain {
				t.Errorf("got %s, want %s", body, plain)
			}
		}
	}
}

func TestWhatIsRememberedIsBounded(t *testing.T) {
	t.Parallel()
	var s answers
	body := make([]byte, 8<<10)
	held := func() (n int) {
		for _, m := range []map[string]*reply{s.young, s.old} {
			for k, a := range m {
				n += cost(k, a)
			}
		}
		return n
	}
	s.add("often", newReply(RoleReader, nil, body))
	for i := range 10_000 {
		s.add(fmt.Sprint(i), newReply(RoleReader, nil, body))
		if i%100 == 0 && s.find("often") == nil {
			t.Fatalf("what is asked for often was forgotten after %d others", i)
		}
	}
	if n := held(); n > answersAtMost || n < answersAtMost/2 {
		t.Errorf("%d bytes are held, want at most %d, and at least half of that", n, answersAtMost)
	}
	if s.find("0") != nil {
		t.Error("the first is still there")
	}
	s.add("large", newReply(RoleReader, nil, make([]byte, answerAtMost+1)))
	if s.find("large") != nil {
		t.Error("an answer that is too large was remembered")
	}
	for range 10_000 { // one that changes all the time takes the room of one
		s.add("same", newReply(RoleReader, nil, body))
	}
	if s.find("often") == nil {
		t.Error("one that changed often drove another out")
	}
}
