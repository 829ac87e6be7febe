package api

import (
	"bytes"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/google/uuid"
)

// lines is a log that several requests write at once.
type lines struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *lines) all(t *testing.T) (out []map[string]any) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	for dec := json.NewDecoder(bytes.NewReader(l.buf.Bytes())); ; {
		var line map[string]any
		if err := dec.Decode(&line); err == io.EOF {
			return out
		} else if err != nil {
			t.Fatal(err)
		}
		out = append(out, line)
	}
}

// Whatever the answer, its headers and its line in the log name the request alike.
func TestIDsAreInEveryAnswerAndLogLine(t *testing.T) {
	t.Parallel()
	log := &lines{}
	logger := slog.New(slog.NewJSONHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	s := newSite(t, func(c *Config) { c.Log, c.Audit = logger, logger })
	s.must(201, "PUT", vaultURL, vaultIn)
	correlation := uuid.NewString()
	for _, test := range []struct {
		name, method, path string
		role               Role
		body               string
		status             int
	}{
		{"a resource", "GET", vaultURL, RoleReader, "", 200},
		{"nothing", "GET", vaultURL + "/replicationPolicies/none", RoleReader, "", 404},
		{"a path that is not served", "GET", "/nowhere", RoleReader, "", 404},
		{"no token", "GET", vaultURL, "", "", 401},
		{"a role too low", "DELETE", vaultURL, RoleReader, "", 403},
		{"a method that is not served", "PATCH", fabricURL, RoleContributor, "{}", 405},
		{"a bad body", "PUT", vaultURL, RoleContributor, "{", 400},
		{"an accepted operation", "PUT", fabricURL, RoleContributor, fabricIn, 202},
		{"the document", "GET", "/openapi.json", "", "", 200},
	} {
		before := len(log.all(t))
		a := s.send(test.role, test.method, test.path, test.body, "x-ms-client-request-id", "client-"+test.name, "x-ms-correlation-request-id", strings.ToUpper(correlation))
		if a.status != test.status {
			t.Errorf("%s: got %s, want %d", test.name, a, test.status)
		}
		h := a.header
		if h.Get("x-ms-client-request-id") != "client-"+test.name || h.Get("x-ms-correlation-request-id") != correlation || h.Get("x-ms-request-id") == "" || !strings.HasPrefix(h.Get("x-ms-routing-request-id"), "LIFEBOAT:") {
			t.Errorf("%s: headers are %v", test.name, h)
		}
		found := log.all(t)[before:]
		if len(found) == 0 {
			t.Errorf("%s: nothing was logged", test.name)
		}
		for _, line := range found {
			if line["correlation"] != correlation || line["client_request"] != "client-"+test.name || line["activity"] == "" {
				t.Errorf("%s: the log says %v", test.name, line)
			}
			if activity := a.at("error.details.0.activityId"); activity != nil && activity != line["activity"] {
				t.Errorf("%s: the error names activity %v, the log %v", test.name, activity, line["activity"])
			}
		}
	}
}

func TestAnIDOfOursStandsInForABadOne(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	a := s.send(RoleReader, "GET", "/nowhere", "", "x-ms-correlation-request-id", "not a GUID", "x-ms-client-request-id", strings.Repeat("x", 2000))
	if err := uuid.Validate(a.header.Get("x-ms-correlation-request-id")); err != nil || len(a.header.Get("x-ms-client-request-id")) > 512 {
		t.Errorf("headers are %v", a.header)
	}
	b := s.send(RoleReader, "GET", "/nowhere", "")
	if a.header.Get("x-ms-correlation-request-id") == b.header.Get("x-ms-correlation-request-id") || b.header.Get("x-ms-client-request-id") != "" {
		t.Errorf("headers are %v", b.header)
	}
}

func TestEtagsKeepVaultsFromBeingOverwritten(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	put := func(method, body string, headers ...string) answer {
		return s.send(RoleContributor, method, vaultURL, body, headers...)
	}
	want := func(name string, a answer, status int) answer {
		t.Helper()
		if a.status != status || status == http.StatusPreconditionFailed && a.at("error.code") != "PreconditionFailed" {
			t.Errorf("%s: got %s, want %d", name, a, status)
		}
		return a
	}
	want("change what is not there", put("PUT", vaultIn, "If-Match", "*"), 412)
	old := want("make what is not there", put("PUT", vaultIn, "If-None-Match", "*"), 201).at("etag").(string)
	want("make what is there", put("PUT", vaultIn, "If-None-Match", "*"), 412)
	want("make under an etag", put("PUT", vaultIn, "If-None-Match", old), 400)
	patched := want("change what was read", put("PATCH", `{"tags":{"a":"1"}}`, "If-Match", old), 200)
	now := patched.at("etag").(string)
	if now == old {
		t.Error("a change left the etag as it was")
	}
	want("change what changed since", put("PATCH", `{"tags":{"a":"2"}}`, "If-Match", old), 412)
	want("replace what changed since", put("PUT", vaultIn, "If-Match", old), 412)
	want("remove what changed since", put("DELETE", "", "If-Match", old), 412)
	want("an etag of somebody else", put("DELETE", "", "If-Match", `W/"datetime'2021'"`), 412)
	if got := s.must(200, "GET", vaultURL, ""); got.at("etag") != now || got.at("tags.a") != "1" {
		t.Errorf("refusals changed the vault to %s", got)
	}
	want("remove what was read", put("DELETE", "", "If-Match", now, "x-unused", ""), 204)
}
