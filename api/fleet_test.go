package api_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/go-chi/chi/v5"

	"github.com/lifeboat-dr/lifeboat/api"
	"github.com/lifeboat-dr/lifeboat/api/fleetoas"
	"github.com/lifeboat-dr/lifeboat/openapi"
	"github.com/lifeboat-dr/lifeboat/service/control"
	"github.com/lifeboat-dr/lifeboat/service/dr"
	"github.com/lifeboat-dr/lifeboat/service/fleet"
	"github.com/lifeboat-dr/lifeboat/service/keyfile"
	"github.com/lifeboat-dr/lifeboat/service/queue/embedded"
	"github.com/lifeboat-dr/lifeboat/service/queue/redisqueue"
	"github.com/lifeboat-dr/lifeboat/service/store/sqlstore"
)

func fleetHandler(t *testing.T) (http.Handler, *control.Service) {
	t.Helper()
	dir := t.TempDir()
	db, err := sqlstore.OpenSQLite(t.Context(), filepath.Join(dir, "db"))
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
	ctl := control.New(control.Config{Store: db, Sealer: seal})
	svc, err := fleet.Open(context.Background(), fleet.Config{Control: ctl, Store: db, Sealer: seal,
		Workers: redisqueue.New(redis.Client(), redisqueue.Options{})})
	if err != nil {
		t.Fatal(err)
	}
	return api.NewFleetHandler(svc, nil), ctl
}

func TestTheFleetRouterAndItsDocumentAgree(t *testing.T) {
	spec, err := openapi3.NewLoader().LoadFromData(openapi.Fleet)
	if err != nil {
		t.Fatal(err)
	}
	served := map[string]bool{}
	router := chi.NewRouter()
	fleetoas.HandlerFromMux(fleetoas.Unimplemented{}, router)
	if err := chi.Walk(router, func(method, route string, _ http.Handler, _ ...func(http.Handler) http.Handler) error {
		served[method+" "+route] = true
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	for path, item := range spec.Paths.Map() {
		for method := range item.Operations() {
			if !served[method+" "+path] {
				t.Errorf("%s %s is in the document and not served", method, path)
			}
			delete(served, method+" "+path)
		}
	}
	for route := range served {
		t.Errorf("%s is served and not in the document", route)
	}
}

func TestFleetCallsThatAreWrong(t *testing.T) {
	h, _ := fleetHandler(t)
	const machine = `{"hostname":"h","productUuid":"u","disks":[]}`
	for _, c := range []struct {
		name, method, path, body string
		status                   int
		code                     dr.Code
		says                     string
	}{
		{"no such call", "GET", "/fleet/v1/nothing", "", 404, dr.CodeNotFound, ""},
		{"another method", "GET", "/fleet/v1/enroll", "", 405, dr.CodeInvalid, ""},
		{"no body", "POST", "/fleet/v1/enroll", "", 400, dr.CodeInvalid, "body"},
		{"not JSON", "POST", "/fleet/v1/enroll", "{", 400, dr.CodeInvalid, ""},
		{"a field is missing", "POST", "/fleet/v1/enroll", `{"registrationKey":"k","role":"agent","hostname":"h"}`, 400, dr.CodeInvalid, "csr"},
		{"a word that is none", "POST", "/fleet/v1/enroll", `{"registrationKey":"k","role":"king","csr":"c","hostname":"h"}`, 400, dr.CodeInvalid, "role"},
		{"a wrong type", "POST", "/fleet/v1/agents/sync", `{"version":"1","revision":"x","machine":` + machine + `,"protections":[]}`, 400, dr.CodeInvalid, "revision"},
		{"a disk id that could be a path", "POST", "/fleet/v1/agents/sync", `{"version":"1","revision":0,"machine":{"hostname":"h","productUuid":"u","disks":[{"id":"../x","sizeBytes":1}]},"protections":[]}`, 400, dr.CodeInvalid, "disks"},
		{"too long a wait", "POST", "/fleet/v1/tasks/lease?waitSeconds=3600", `{"routes":[]}`, 400, dr.CodeInvalid, "waitSeconds"},
		{"an artifact name that is a path", "PUT", "/fleet/v1/jobs/j/artifacts/..%2Fx", "x", 400, dr.CodeInvalid, "artifactName"},
		{"no certificate", "POST", "/fleet/v1/agents/sync", `{"version":"1","revision":0,"machine":` + machine + `,"protections":[]}`, 401, dr.CodeUnauthenticated, ""},
		{"no certificate for a file", "PUT", "/fleet/v1/jobs/j/artifacts/x.log", "x", 401, dr.CodeUnauthenticated, ""},
		{"a made-up key", "POST", "/fleet/v1/enroll", `{"registrationKey":"k","role":"agent","csr":"c","hostname":"h","machine":` + machine + `}`, 400, dr.CodeInvalid, "certificate request"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := httptest.NewRequest(c.method, c.path, strings.NewReader(c.body))
			if c.body != "" {
				r.Header.Set("Content-Type", "application/json")
				if c.method == "PUT" {
					r.Header.Set("Content-Type", "application/octet-stream")
				}
			}
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			var body fleetoas.ErrorBody
			if err := json.Unmarshal(w.Body.Bytes(), &body); err != nil {
				t.Fatalf("got %d %q, want an error body", w.Code, w.Body)
			}
			if w.Code != c.status || body.Error.Code != string(c.code) || !strings.Contains(body.Error.Message, c.says) || body.Error.Message == "" {
				t.Errorf("got %d %+v, want %d %s that says %q", w.Code, body.Error, c.status, c.code, c.says)
			}
		})
	}
}

func enrolRequest(t *testing.T, key string) *http.Request {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, private)
	if err != nil {
		t.Fatal(err)
	}
	body, err := json.Marshal(map[string]any{"registrationKey": key, "role": "replicator", "site": "recovery", "hostname": "h",
		"csr": string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}))})
	if err != nil {
		t.Fatal(err)
	}
	r := httptest.NewRequest("POST", "/fleet/v1/enroll", bytes.NewReader(body))
	r.Header.Set("Content-Type", "application/json")
	return r
}

// TestARegistrationKeyCannotBeGuessed sends wrong keys until the address has to wait, and a right one from another address.
func TestARegistrationKeyCannotBeGuessed(t *testing.T) {
	h, ctl := fleetHandler(t)
	send := func(key, from string) *httptest.ResponseRecorder {
		r := enrolRequest(t, key)
		r.RemoteAddr = from
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		return w
	}
	tries := 0
	var w *httptest.ResponseRecorder
	for tries < 100 {
		if w = send(fmt.Sprintf("lbr-0000000000-%026d", tries), "192.0.2.1:1"); w.Code != http.StatusUnauthorized {
			break
		}
		tries++
	}
	var body fleetoas.ErrorBody
	if err := json.Unmarshal(w.Body.Bytes(), &body); err != nil {
		t.Fatal(err)
	}
	if wait, err := strconv.Atoi(w.Header().Get("Retry-After")); w.Code != http.StatusTooManyRequests || err != nil || wait < 1 || wait > 60 || tries > 20 ||
		body.Error.Code != string(dr.CodeExhausted) || body.Error.PossibleCauses == "" || body.Error.RecommendedAction == "" {
		t.Errorf("got %d with Retry-After %q and %+v after %d wrong keys, want 429 soon, with cause and remedy", w.Code, w.Header().Get("Retry-After"), body.Error, tries)
	}
	for range 30 { // as many machines as there may be behind one address
		key, err := ctl.CreateRegistrationKey(t.Context(), control.RegistrationKeyInput{Role: control.RoleReplicator})
		if err != nil {
			t.Fatal(err)
		}
		if w := send(key.Key, "192.0.2.2:1"); w.Code != http.StatusOK {
			t.Fatalf("got %d %s for a right key from another address", w.Code, w.Body)
		}
	}
}
