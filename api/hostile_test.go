package api

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// raw sends bytes as they are, reads what comes back, and returns the status, 0 when the server hung up.
func (s *site) raw(head string, body io.Reader) (status int, header http.Header, answer string) {
	s.t.Helper()
	c, err := tls.Dial("tcp", s.web.Listener.Addr().String(), s.web.Client().Transport.(*http.Transport).TLSClientConfig)
	if err != nil {
		s.t.Error(err)
		return 0, nil, ""
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(30 * time.Second))
	if _, err := io.WriteString(c, head); err != nil {
		return 0, nil, ""
	}
	if body != nil {
		go func() { _, _ = io.Copy(c, body) }() // the server may stop reading
	}
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return 0, nil, ""
	}
	defer res.Body.Close()
	text, _ := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	return res.StatusCode, res.Header, string(text)
}

// watch samples the heap until stop, which returns how much it grew at most.
func watch() (stop func() int64) {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	before, peak, done := m.HeapInuse, uint64(0), make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			runtime.ReadMemStats(&m)
			peak = max(peak, m.HeapInuse)
			select {
			case <-done:
				return
			case <-time.After(10 * time.Millisecond):
			}
		}
	})
	return func() int64 { close(done); wg.Wait(); return int64(peak) - int64(before) }
}

// zeros is a body without an end but for its length.
func zeros(n int64) io.Reader { return io.LimitReader(spaces{}, n) }

type spaces struct{}

func (spaces) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = ' '
	}
	return len(p), nil
}

// Not parallel: it watches the memory of the whole process.
func TestHugeBodiesAreRefusedWithoutBeingKept(t *testing.T) {
	s := newSite(t)
	s.must(201, "PUT", vaultURL, vaultIn)
	head := func(how string) string {
		return "PUT " + vaultURL + "?api-version=" + testVersion + " HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer " + secrets[RoleContributor] + "\r\n" + how + "\r\n\r\n"
	}
	const size = 10 << 20
	stop := watch()
	var wg sync.WaitGroup
	var answered atomic.Int32
	for i := range 40 {
		wg.Go(func() {
			body := zeros(size)
			how := fmt.Sprintf("Content-Length: %d", size)
			if i%2 == 1 { // of unknown length: one chunk as long as all
				how, body = "Transfer-Encoding: chunked", io.MultiReader(strings.NewReader(fmt.Sprintf("%x\r\n", size)), zeros(size), strings.NewReader("\r\n0\r\n\r\n"))
			}
			status, _, text := s.raw(head(how), body)
			if status == http.StatusRequestEntityTooLarge && strings.Contains(text, "RequestEntityTooLarge") {
				answered.Add(1)
			} else if status != 0 {
				t.Errorf("%s: got %d %s", how, status, text)
			}
		})
	}
	wg.Wait()
	grown := stop()
	t.Logf("40 bodies of 10 MiB at once: %d answered with 413, heap grew by %d MiB", answered.Load(), grown>>20)
	if grown > 200<<20 {
		t.Errorf("the heap grew by %d MiB", grown>>20)
	}
	if answered.Load() < 30 {
		t.Errorf("only %d of 40 got an answer", answered.Load())
	}
	s.must(200, "GET", vaultURL, "")
}

func TestPathsThatTrickAreRefused(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.furnish()
	policies := vaultURL + "/replicationPolicies"
	for name, path := range map[string]string{
		"an encoded slash":               policies + "/a%2fb",
		"an encoded slash that leads up": policies + "/..%2f..%2fv1",
		"an encoded backslash":           policies + "/..%5c..%5cv1",
		"dots":                           policies + "/../replicationPolicies/p1/../p2",
		"encoded dots":                   policies + "/%2e%2e/%2e%2e",
		"a NUL":                          policies + "/p1%00",
		"a NUL in the subscription":      "/subscriptions/%00/providers/Microsoft.RecoveryServices/vaults/x",
		"a line feed":                    policies + "/p1%0d%0aX-Evil:%20yes",
		"no UTF-8":                       policies + "/%ff%fe",
		"an overlong slash":              policies + "/%c0%af",
		"double slashes":                 "//" + strings.ReplaceAll(policies[1:], "/", "//") + "//p1",
		"a double slash at a name":       policies + "//p1",
		"an empty name":                  policies + "//",
		"escaped twice":                  policies + "/%252e%252e%252fp1",
		"a very long name":               policies + "/" + strings.Repeat("a", 20_000),
		"very many segments":             vaultURL + strings.Repeat("/a", 10_000),
		"very many slashes":              vaultURL + strings.Repeat("/", 10_000) + "x",
		"a question mark":                policies + "/a%3fapi-version=1",
		"a parameter of a path":          policies + ";a=b/p3",
		"a whole URL":                    "https://evil.example.org" + policies + "/none",
		"a star":                         "*",
		"a template":                     strings.ReplaceAll(policies, "/v1/", "/{resourceName}/"),
		"a broken escape":                policies + "/%zz",
		"a plain control character":      policies + "/a\x01b",
	} {
		for _, method := range []string{"GET", "PUT", "DELETE", "BREW"} {
			status, header, text := s.raw(method+" "+path+"?api-version="+testVersion+" HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer "+secrets[RoleContributor]+"\r\nContent-Length: 2\r\n\r\n{}", nil)
			arm := strings.HasPrefix(text, `{"error":{"code":"`) && header.Get("x-ms-request-id") != ""
			refused := strings.HasPrefix(text, "400 Bad Request") // what is no HTTP is refused before it reaches us
			if status < 400 || status > 499 || !arm && !refused {
				t.Errorf("%s, %s: got %d %s", method, name, status, text[:min(len(text), 300)])
			}
			if header.Get("X-Evil") != "" {
				t.Errorf("%s, %s: a header was smuggled in", method, name)
			}
		}
	}
	if got := s.must(200, "GET", policies, "").names(); !slices.Equal(got, []string{"p1"}) {
		t.Errorf("the policies are now %v", got)
	}
}

func TestHeadersAndQueriesThatAreTooMuch(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.must(201, "PUT", vaultURL, vaultIn)
	for name, path := range map[string]string{
		"a very long filter":        vaultURL + "/replicationJobs?$filter=" + strings.Repeat("a", 100_000),
		"a filter of parentheses":   vaultURL + "/replicationJobs?$filter=" + strings.Repeat("(", 8000),
		"a very long token":         vaultURL + "/replicationJobs?skipToken=" + strings.Repeat("A", 100_000),
		"a version of a kind":       vaultURL + "?api-version=" + strings.Repeat("%00", 1000),
		"versions":                  vaultURL + "?api-version=1999-01-01&api-version=" + testVersion,
		"a query that is no query":  vaultURL + "/replicationJobs?%zz&;&$filter=%ff",
		"a page of a negative size": vaultURL + "/replicationMigrationItems?takeToken=-1",
		"a page of a huge size":     vaultURL + "/replicationMigrationItems?takeToken=99999999999999999999",
	} {
		if a := s.send(RoleContributor, "GET", path, ""); a.status < 400 || a.status > 499 || a.at("error.code") == nil {
			t.Errorf("%s: got %s", name, a)
		}
	}
	status, _, _ := s.raw("GET "+vaultURL+" HTTP/1.1\r\nHost: localhost\r\nX: "+strings.Repeat("a", 2<<20)+"\r\n\r\n", nil)
	if status != 0 && (status < 400 || status > 499) {
		t.Errorf("a header of 2 MiB: got %d", status)
	}
	a := s.send(RoleContributor, "GET", vaultURL, "", "Authorization", "Bearer "+strings.Repeat("x", 100_000))
	if a.status != 401 {
		t.Errorf("a token of 100 kB: got %s", a)
	}
}

// real names resources that are there, so that bodies reach what lies behind validation.
func real(path, container, item, job string) string {
	if i := strings.Index(path, "/replicationMigrationItems/"); i < 0 {
		path = strings.ReplaceAll(path, "{migrationItemName}", "absent")
	}
	names := []string{"{subscriptionId}", "sub", "{resourceGroupName}", "rg", "{resourceName}", "v1", "{vaultName}", "v1", "{fabricName}", "site1", "{protectionContainerName}", container,
		"{replicatedProtectedItemName}", item, "{policyName}", "p1", "{mappingName}", "m1", "{jobName}", job, "{recoveryPlanName}", "plan1", "{alertSettingName}", "defaultAlertSetting", "{vaultSettingName}", "default"}
	return string(replaceParams([]byte(strings.NewReplacer(names...).Replace(path))))
}

// Bodies of every kind, right and wrong, on every operation that takes one: what is right is done, everything else is refused
// with an error of the protocol, and the document allows each answer (the site checks).
// Not parallel: it watches the memory of the whole process.
func TestFuzzedBodiesOnEveryOperation(t *testing.T) {
	const seed, each = 20261123, 60
	log := &lines{}
	s := newSite(t, func(c *Config) { c.Log = slog.New(slog.NewJSONHandler(log, nil)) })
	c := s.furnish()
	machine, _ := s.enrol(c)
	s.must(202, "PUT", c+"/replicationProtectedItems/web01", enableIn(machine))
	job := s.must(200, "GET", vaultURL+"/replicationJobs", "").names()[0]
	container := c[strings.LastIndexByte(c, '/')+1:]
	var keys []string
	for key, op := range s.server.doc.operations {
		if op.op.RequestBody != nil {
			keys = append(keys, key)
		}
	}
	// What removes things comes last.
	slices.SortFunc(keys, func(a, b string) int {
		return strings.Compare(fmt.Sprint(strings.Contains(a, "/remove"), a), fmt.Sprint(strings.Contains(b, "/remove"), b))
	})
	stop, done, refused := watch(), 0, 0
	for i, key := range keys {
		method, path, _ := strings.Cut(key, " ")
		url := real(path, container, "web01", job)
		b := newBodies(seed + uint64(i))
		for n := range each {
			body := b.body(s.server.doc.operations[key])
			a := s.send(RoleContributor, method, url, string(body))
			switch code, _ := a.at("error.code").(string); {
			case a.status < 300:
				done++
			case a.status >= 400 && a.status <= 499 && code != "", a.status == http.StatusNotImplemented && code == "NotImplemented":
				refused++
			default:
				t.Errorf("seed %d, %s, body %d: got %s for\n%.2000q", seed, key, n, a, body)
			}
		}
	}
	grown := stop()
	t.Logf("%d operations: %d bodies taken, %d refused, heap grew by %d MiB", len(keys), done, refused, grown>>20)
	if done == 0 || refused < done {
		t.Error("the bodies are not of every kind")
	}
	if grown > 200<<20 {
		t.Errorf("the heap grew by %d MiB", grown>>20)
	}
	for _, line := range log.all(t) {
		t.Errorf("the server logged %v", line)
	}
}

// FuzzOperations is the same for the fuzzer, without resources behind the paths.
func FuzzOperations(f *testing.F) {
	s, err := newServer(Config{Control: nowhere{}, Tokens: NewTokens(Token{Name: "a", Role: RoleContributor, Hash: HashToken("a")})})
	if err != nil {
		f.Fatal(err)
	}
	var keys []string
	for key, op := range s.doc.operations {
		if op.op.RequestBody != nil {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	for i := range keys {
		f.Add(uint16(i), uint64(i))
	}
	h := s.handler()
	f.Fuzz(func(t *testing.T, operation uint16, seed uint64) {
		key := keys[int(operation)%len(keys)]
		method, path, _ := strings.Cut(key, " ")
		body := newBodies(seed).body(s.doc.operations[key])
		r := httptest.NewRequest(method, string(replaceParams([]byte(path)))+"?api-version="+testVersion, strings.NewReader(string(body)))
		r.Header.Set("Authorization", "Bearer a")
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code >= 500 || w.Code >= 400 && !strings.HasPrefix(w.Body.String(), `{"error":{`) {
			t.Errorf("%s with %q: got %d %s", key, body, w.Code, w.Body)
		}
	})
}
