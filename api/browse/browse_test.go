package browse_test

import (
	"encoding/xml"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"

	"github.com/lifeboat-dr/lifeboat/api/browse"
	"github.com/lifeboat-dr/lifeboat/openapi"
)

func pages(t *testing.T) (http.Handler, *openapi3.T) {
	t.Helper()
	doc, err := openapi3.NewLoader().LoadFromData(openapi.ARM)
	if err != nil {
		t.Fatal(err)
	}
	h, err := browse.New("/docs", doc)
	if err != nil {
		t.Fatal(err)
	}
	return h, doc
}

func get(h http.Handler, path string) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
	return w
}

var reference = regexp.MustCompile(`(?:href|src|action)="([^"]*)"`)

// A browser without internet can follow every link of every page, starting at the first, and sees every operation and schema.
func TestEveryPageIsReachedAndLoadsNothingFromElsewhere(t *testing.T) {
	t.Parallel()
	h, doc := pages(t)
	seen, todo := map[string]bool{}, []string{"/docs"}
	for len(todo) > 0 {
		path := todo[0]
		todo = todo[1:]
		if seen[path] || path == "/openapi.json" || path == "/openapi.yaml" {
			continue
		}
		seen[path] = true
		w := get(h, path)
		text := w.Body.String()
		if csp := w.Header().Get("Content-Security-Policy"); w.Code != http.StatusOK || !strings.HasPrefix(csp, "default-src 'none'; style-src 'self';") || strings.Contains(csp, "unsafe") {
			t.Fatalf("%s: got %d with %v", path, w.Code, w.Header())
		}
		if path == "/docs/style.css" {
			if strings.Contains(text, "url(") || strings.Contains(text, "@import") {
				t.Error("the style loads something")
			}
			continue
		}
		for _, bad := range []string{"<script", " style=", " onclick", "javascript:", "ZgotmplZ", "<no value>"} {
			if strings.Contains(text, bad) {
				t.Errorf("%s holds %s", path, bad)
			}
		}
		wellFormed(t, path, text)
		for _, m := range reference.FindAllStringSubmatch(text, -1) {
			if !strings.HasPrefix(m[1], "/") || strings.HasPrefix(m[1], "//") {
				t.Errorf("%s leads to %s", path, m[1])
				continue
			}
			todo = append(todo, m[1])
		}
	}
	for path, item := range doc.Paths.Map() {
		for method, op := range item.Operations() {
			if !seen["/docs/operations/"+op.OperationID] {
				t.Errorf("%s %s has no page that a link leads to", method, path)
			}
		}
	}
	for name := range doc.Components.Schemas {
		if !seen["/docs/schemas/"+name] {
			t.Errorf("schema %s has no page that a link leads to", name)
		}
	}
}

// wellFormed finds elements that are not closed.
func wellFormed(t *testing.T, path, text string) {
	t.Helper()
	dec := xml.NewDecoder(strings.NewReader(text))
	dec.Strict, dec.AutoClose, dec.Entity = false, xml.HTMLAutoClose, xml.HTMLEntity
	open := []string{}
	for {
		token, err := dec.Token()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Errorf("%s: %v", path, err)
			return
		}
		switch e := token.(type) {
		case xml.StartElement:
			open = append(open, e.Name.Local)
		case xml.EndElement:
			if len(open) == 0 || open[len(open)-1] != e.Name.Local {
				t.Errorf("%s: </%s> ends %v", path, e.Name.Local, open)
				return
			}
			open = open[:len(open)-1]
		}
	}
	if len(open) > 0 {
		t.Errorf("%s: %v are not closed", path, open)
	}
}

func TestOperationsAreFoundByWords(t *testing.T) {
	t.Parallel()
	h, _ := pages(t)
	if text := get(h, "/docs?q=POST+TestFailover+Cleanup").Body.String(); !strings.Contains(text, "/docs/operations/ReplicationProtectedItems_TestFailoverCleanup") || strings.Contains(text, "Vaults_Delete") {
		t.Error("words do not find the operation")
	}
	text := get(h, "/docs?q=%22%3E%3Cscript%3Ealert(1)%3C/script%3E").Body.String()
	if strings.Contains(text, "<script") || !strings.Contains(text, "0 operations") {
		t.Error("a query was taken for markup, or found something")
	}
}

func TestWhatIsNotThereIsSaidSo(t *testing.T) {
	t.Parallel()
	h, _ := pages(t)
	for _, path := range []string{"/docs/operations/", "/docs/operations/None", "/docs/schemas/%3Cb%3E", "/docs/../etc", "/docs/x/y/z"} {
		if w := get(h, path); w.Code != http.StatusNotFound || strings.Contains(w.Body.String(), "<b>") {
			t.Errorf("%s: got %d %s", path, w.Code, w.Body)
		}
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/docs", nil))
	if w.Code != http.StatusNotFound {
		t.Errorf("POST: got %d", w.Code)
	}
}
