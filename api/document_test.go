package api

import (
	"net/http"
	"slices"
	"testing"

	"github.com/go-chi/chi/v5"
)

func TestRouterAndDocumentAgreeBothWays(t *testing.T) {
	t.Parallel()
	s := newSite(t).server
	routed := map[string]bool{}
	err := chi.Walk(s.model(), func(method, route string, _ http.Handler, _ ...func(http.Handler) http.Handler) error {
		routed[method+" "+route] = true
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for op := range s.doc.operations {
		if !routed[op] {
			t.Errorf("%s is in the document and not routed", op)
		}
	}
	for op := range routed {
		if _, ok := s.doc.operations[op]; !ok {
			t.Errorf("%s is routed and not in the document", op)
		}
	}
}

// Every operation is reached by its own path in any case, and answers an authenticated caller who names nothing that exists
// with 404, not with a page of the router: the path was understood.
func TestEveryOperationIsServedWithoutCase(t *testing.T) {
	t.Parallel()
	site := newSite(t)
	for key, op := range site.server.doc.operations {
		method, path := key[:len(key)-len(op.path)-1], op.path
		shouted := []byte(path)
		for i := range shouted {
			inParam := slices.Contains(shouted[:i], '{') && lastIndex(shouted[:i], '{') > lastIndex(shouted[:i], '}')
			if shouted[i] >= 'a' && shouted[i] <= 'z' && !inParam {
				shouted[i] -= 'a' - 'A'
			}
		}
		a := site.send(RoleContributor, method, string(replaceParams(shouted)), exampleOf(t, op))
		if code := a.header.Get("x-ms-error-code"); code == "InvalidResourceType" || code == "MethodNotAllowed" || a.status == http.StatusInternalServerError {
			t.Errorf("%s: got %s", key, a)
		}
	}
}

func lastIndex(b []byte, c byte) int {
	for i := len(b) - 1; i >= 0; i-- {
		if b[i] == c {
			return i
		}
	}
	return -1
}

func replaceParams(path []byte) (out []byte) {
	in := false
	for _, c := range path {
		switch {
		case c == '{':
			in = true
			out = append(out, "absent"...)
		case c == '}':
			in = false
		case !in:
			out = append(out, c)
		}
	}
	return out
}

// exampleOf is the request of the document's example.
func exampleOf(t *testing.T, op operation) string {
	t.Helper()
	if op.op.RequestBody == nil {
		return ""
	}
	for _, ex := range op.op.RequestBody.Value.Content.Get("application/json").Examples {
		raw, err := ex.Value.MarshalJSON()
		if err != nil {
			t.Fatal(err)
		}
		return string(raw[len(`{"value":`) : len(raw)-1])
	}
	return ""
}

func TestTheDocumentIsServedToAnyone(t *testing.T) {
	t.Parallel()
	site := newSite(t)
	for path, want := range map[string]string{"/openapi.json": "application/json", "/openapi.yaml": "application/yaml"} {
		a := site.send("", "GET", path+"?no-version", "")
		if a.status != http.StatusOK || a.header.Get("Content-Type") != want || len(a.raw) < 100_000 {
			t.Errorf("%s: got %d %s, %d bytes", path, a.status, a.header.Get("Content-Type"), len(a.raw))
		}
	}
	for _, path := range []string{"/docs", "/docs/", "/docs/operations/Vaults_Get", "/docs/schemas/Vault"} {
		a := site.send("", "GET", path+"?no-version", "")
		if a.status != http.StatusOK || a.header.Get("Content-Type") != "text/html; charset=utf-8" || a.header.Get("Content-Security-Policy") == "" {
			t.Errorf("%s: got %d with %v", path, a.status, a.header)
		}
	}
}
