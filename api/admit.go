package api

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"
	"github.com/go-chi/chi/v5"
)

// Versions of the resource model that clients are known to send; one superset model serves them all. The list answers those
// who send another.
var apiVersions = []string{"2016-08-10", "2018-01-10", "2018-07-10", "2021-02-10", "2021-06-01", "2021-10-01", "2021-12-01", "2022-01-01",
	"2022-08-01", "2022-10-01", "2023-02-01", "2023-04-01", "2023-06-01", "2023-08-01", "2024-01-01", "2024-02-01", "2024-04-01",
	"2024-10-01", "2025-01-01", "2025-02-01", "2025-08-01", "2026-01-01", "2026-02-01", "2026-05-01", "2026-05-31-preview", "2026-07-01"}

// The namespace is registered under its own version.
var registrationVersions = []string{"2019-05-01"}

// admit lets a request through to its handler when the caller's role covers the operation, the api-version is known, and
// parameters and body are what the document says. It runs after routing, so that the router alone decides about 404 and 405.
func (s *server) admit(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		op, ok := s.doc.operations[r.Method+" "+chi.RouteContext(r.Context()).RoutePattern()]
		if !ok {
			s.notFound(w, r)
			return
		}
		x := of(r)
		x.needs = op.role
		if !x.token.Role.Covers(op.role) {
			s.refuse(w, r, refusal{Status: http.StatusForbidden, Code: "AuthorizationFailed",
				Message: fmt.Sprintf("%s with role %s may not call %s", x.token.Name, x.token.Role, op.op.OperationID),
				Causes:  "the operation needs the role " + string(op.role), Action: "use a token whose role is " + string(op.role) + " or higher"})
			return
		}
		if ref := s.checkVersion(x, r.URL.Query()["api-version"]); ref != nil {
			s.refuse(w, r, *ref)
			return
		}
		params := pathParams(r)
		if ref := checkNames(params); ref != nil {
			s.refuse(w, r, *ref)
			return
		}
		if v := strings.TrimSpace(r.Header.Get("If-None-Match")); v != "" && v != "*" && r.Method != http.MethodGet {
			s.refuse(w, r, refusal{Status: http.StatusBadRequest, Code: "InvalidParameter", Target: "If-None-Match", Message: "of If-None-Match only * is understood",
				Causes: "the header names an etag", Action: "send If-None-Match: * to make what does not exist, If-Match with the etag to change what does"})
			return
		}
		body, ref := s.readBody(r, op)
		if ref != nil {
			s.refuse(w, r, *ref)
			return
		}
		r = r.Clone(r.Context())
		r.Header.Del("Content-Type")
		r.Body = http.NoBody
		if body != nil {
			r.Header.Set("Content-Type", "application/json")
			r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
		}
		err := openapi3filter.ValidateRequest(r.Context(), &openapi3filter.RequestValidationInput{
			Request: r, PathParams: params, QueryParams: r.URL.Query(),
			Route: &routers.Route{Spec: s.doc.spec, Path: op.path, PathItem: op.item, Method: r.Method, Operation: op.op},
			Options: &openapi3filter.Options{MultiError: true, ExcludeReadOnlyValidations: true, SkipSettingDefaults: true,
				AuthenticationFunc: openapi3filter.NoopAuthenticationFunc},
		})
		if err != nil {
			s.refuse(w, r, invalidRequest(err))
			return
		}
		if body != nil {
			r.Body = io.NopCloser(bytes.NewReader(body))
		}
		next.ServeHTTP(w, r)
	})
}

func (s *server) checkVersion(x *exchange, given []string) *refusal {
	known := apiVersions
	if strings.HasSuffix(x.template, "/Microsoft.RecoveryServices") || strings.HasSuffix(x.template, "/register") {
		known = slices.Concat(registrationVersions, apiVersions)
	}
	if len(given) == 0 || given[0] == "" {
		return &refusal{Status: http.StatusBadRequest, Code: "MissingApiVersionParameter", Message: "The api-version query parameter (?api-version=) is required for all requests.",
			Target: "api-version", Causes: "the URL has no api-version", Action: "add ?api-version=2025-01-01 to the URL"}
	}
	i := slices.IndexFunc(known, func(v string) bool { return strings.EqualFold(v, given[0]) })
	if i < 0 {
		return &refusal{Status: http.StatusBadRequest, Code: "InvalidApiVersionParameter",
			Message: fmt.Sprintf("The api-version '%s' is not known. Supported are: %s.", printable(given[0]), strings.Join(known, ", ")),
			Target:  "api-version", Causes: "the client is newer than this server, or the version is misspelled", Action: "use one of the versions listed"}
	}
	x.apiVersion = given[0]
	return nil
}

// pathParams are the names in the path, unescaped.
func pathParams(r *http.Request) map[string]string {
	ctx := chi.RouteContext(r.Context())
	out := map[string]string{}
	for i, k := range ctx.URLParams.Keys {
		v := ctx.URLParams.Values[i]
		if plain, err := url.PathUnescape(v); err == nil {
			v = plain
		}
		out[k] = v
	}
	return out
}

// checkNames refuses names that could not be written into a path again.
func checkNames(params map[string]string) *refusal {
	for k, v := range params {
		bad := strings.ContainsAny(v, "/\\?#") || v == "." || v == ".." || !utf8.ValidString(v) || strings.ContainsFunc(v, func(c rune) bool { return c < 0x20 || c == 0x7f })
		if bad {
			return &refusal{Status: http.StatusBadRequest, Code: "InvalidResourceName", Message: fmt.Sprintf("%s is not a name that a resource can have", k), Target: k,
				Causes: "the name holds a slash, a question mark, a number sign or a control character", Action: "use letters, digits, spaces and - _ . ; ( )"}
		}
	}
	return nil
}

// readBody returns the request's body, normalised, or nil when the operation takes none or the caller sent none.
func (s *server) readBody(r *http.Request, op operation) ([]byte, *refusal) {
	if op.op.RequestBody == nil || op.op.RequestBody.Value == nil {
		return nil, nil // whatever was sent is ignored: some clients send {} to actions without a body
	}
	raw, ref := readAll(r, s.cfg.MaxBody)
	if ref != nil {
		return nil, ref
	}
	if len(bytes.TrimSpace(raw)) == 0 {
		return nil, nil
	}
	malformed := func(cause string) *refusal {
		return &refusal{Status: http.StatusBadRequest, Code: "InvalidRequestContent", Message: "the body is not JSON: " + cause,
			Causes: "the body was cut, is not UTF-8, or is of another type", Action: "send one JSON object"}
	}
	if !utf8.Valid(raw) {
		return nil, malformed("it is not valid UTF-8")
	}
	if depth(raw) > maxDepth {
		return nil, malformed(fmt.Sprintf("it is nested more than %d deep", maxDepth))
	}
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	var v any
	if err := dec.Decode(&v); err != nil {
		return nil, malformed(err.Error())
	}
	if dec.More() {
		return nil, malformed("something follows the object")
	}
	if media := op.op.RequestBody.Value.Content.Get("application/json"); media != nil {
		v = normalise(media.Schema.Value, v)
	}
	out, err := json.Marshal(v)
	if err != nil {
		return nil, malformed(err.Error())
	}
	return out, nil
}

const maxDepth = 64

// depth counts how deep the brackets of a JSON text nest. Brackets within strings do not count.
func depth(raw []byte) int {
	deepest, now, quoted, escaped := 0, 0, false, false
	for _, c := range raw {
		switch {
		case escaped:
			escaped = false
		case quoted && c == '\\':
			escaped = true
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '{' || c == '[':
			now++
			deepest = max(deepest, now)
		case c == '}' || c == ']':
			now--
		}
	}
	return deepest
}
