package api

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
)

// FuzzBodies sends any bytes to every operation that takes a body: a vault that does not exist answers 404, everything else is
// 4xx. A panic or a 500 is a fault of ours.
func FuzzBodies(f *testing.F) {
	doc, err := loadDocument()
	if err != nil {
		f.Fatal(err)
	}
	for _, op := range doc.operations {
		if op.op.RequestBody == nil {
			continue
		}
		for _, ex := range op.op.RequestBody.Value.Content.Get("application/json").Examples {
			raw, err := json.Marshal(ex.Value.Value)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(raw)
		}
	}
	for _, s := range []string{"", "null", "[]", "7", `{"properties":null}`, `{"properties":{"customDetails":{"instanceType":null}}}`, `{"properties":{"providerSpecificInput":{"INSTANCETYPE":"a","instanceType":"InMageRcm"}}}`,
		strings.Repeat("[", 100_000), "{\"a\":\"\xff\"}", `{"properties":{"providerSpecificDetails":[{"instanceType":"InMageRcm"}]}}`} {
		f.Add([]byte(s))
	}
	s, err := newServer(Config{Control: nowhere{}, Tokens: NewTokens(Token{Name: "a", Role: RoleContributor, Hash: HashToken("a")})})
	if err != nil {
		f.Fatal(err)
	}
	h := s.handler()
	f.Fuzz(func(t *testing.T, body []byte) {
		for key, op := range doc.operations {
			if op.op.RequestBody == nil {
				continue
			}
			method, path, _ := strings.Cut(key, " ")
			r := httptest.NewRequest(method, string(replaceParams([]byte(path)))+"?api-version="+testVersion, strings.NewReader(string(body)))
			r.Header.Set("Authorization", "Bearer a")
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			if w.Code == http.StatusOK && strings.HasSuffix(path, "/capabilities") {
				continue // needs nothing of a vault
			}
			if w.Code < 400 || w.Code > 499 || !strings.HasPrefix(w.Body.String(), `{"error":{`) {
				t.Errorf("%s with %q: got %d %s", key, body, w.Code, w.Body)
			}
		}
	})
}

// TestNormalisedBodiesStayWhatTheyAre: what normalise makes of a valid example says the same.
func TestNormalisedBodiesStayWhatTheyAre(t *testing.T) {
	t.Parallel()
	s := newSite(t).server
	for key, op := range s.doc.operations {
		want := exampleOf(t, op)
		if want == "" {
			continue
		}
		r := httptest.NewRequest(http.MethodPut, "/", strings.NewReader(want))
		got, ref := s.readBody(r, op)
		if ref != nil {
			t.Errorf("%s: %+v", key, ref)
			continue
		}
		var a, b any
		if err := json.Unmarshal([]byte(want), &a); err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(got, &b); err != nil {
			t.Fatal(err)
		}
		x, _ := json.Marshal(a)
		y, _ := json.Marshal(b)
		if string(x) != string(y) {
			t.Errorf("%s: %s became %s", key, x, y)
		}
	}
}

func TestEveryRefusedFieldIsNamed(t *testing.T) {
	t.Parallel()
	err := openapi3.MultiError{io.ErrUnexpectedEOF}
	if got := invalidRequest(err); got.Status != 400 || !strings.Contains(got.Message, "unexpected EOF") || len(got.Details) != 1 {
		t.Errorf("got %+v", got)
	}
}
