package api

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/lifeboat-dr/lifeboat/service/control"
)

// exchange is what one request carries through the handlers.
type exchange struct {
	path       string // escaped path as the caller spelled it, with one slash before and none behind
	template   string // path of the document that it matched
	asked      string // what of the request shapes an answer that may be remembered, or empty
	token      Token
	needs      Role // that the operation takes
	apiVersion string
	clientID   string // x-ms-client-request-id
	activity   string // names the request in our log and in errors; ours, and never that of another request
	// correlation names what the request is a part of: the caller's x-ms-correlation-request-id, or the activity.
	correlation string
	job         string // that the request made
}

type exchangeKey struct{}

func of(r *http.Request) *exchange {
	if x, ok := r.Context().Value(exchangeKey{}).(*exchange); ok {
		return x
	}
	return &exchange{}
}

// envelope gives every answer the headers that clients of the field expect, survives panics, and writes the audit log.
func (s *server) envelope(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		began := time.Now()
		x := &exchange{path: "/" + strings.TrimLeft(strings.TrimSuffix(r.URL.EscapedPath(), "/"), "/"), clientID: printable(r.Header.Get("x-ms-client-request-id")), activity: uuid.NewString()}
		x.correlation = x.activity
		if id, err := uuid.Parse(r.Header.Get("x-ms-correlation-request-id")); err == nil {
			x.correlation = id.String()
		}
		h := w.Header()
		h.Set("x-ms-correlation-request-id", x.correlation)
		h.Set("x-ms-routing-request-id", "LIFEBOAT:"+began.UTC().Format("20060102T150405Z")+":"+x.activity)
		h.Set("x-ms-request-id", strings.TrimSpace(x.clientID+" "+began.UTC().Format(time.RFC3339Nano)))
		if x.clientID != "" {
			h.Set("x-ms-client-request-id", x.clientID)
		}
		h.Set("Cache-Control", "no-cache")
		h.Set("Pragma", "no-cache")
		h.Set("Expires", "-1")
		h.Set("Strict-Transport-Security", "max-age=31536000; includeSubDomains")
		h.Set("X-Content-Type-Options", "nosniff")

		rec := &recorder{ResponseWriter: w}
		r = r.WithContext(context.WithValue(r.Context(), exchangeKey{}, x))
		defer func() {
			if p := recover(); p != nil {
				if p == http.ErrAbortHandler { //nolint:errorlint // the documented sentinel, compared as net/http does
					panic(p)
				}
				s.fail(rec, r, fmt.Errorf("panic: %v", p))
			}
			line, write := slog.LevelInfo, s.audit
			if r.Method == http.MethodGet || r.Method == http.MethodHead {
				line, write = slog.LevelDebug, s.log
			}
			write.Log(r.Context(), line, "request answered", "caller", x.token.Name, "role", x.token.Role, "method", printable(r.Method), "path", printable(x.path),
				"status", rec.status, "job", x.job, "activity", x.activity, "correlation", x.correlation, "client_request", x.clientID, "remote", s.remote(r), "dur", time.Since(began))
		}()
		next.ServeHTTP(rec, r)
	})
}

// recorder remembers the status that was written.
type recorder struct {
	http.ResponseWriter
	status int
}

func (r *recorder) WriteHeader(status int) {
	if r.status == 0 {
		r.status = status
	}
	r.ResponseWriter.WriteHeader(status)
}

func (r *recorder) Write(b []byte) (int, error) {
	if r.status == 0 {
		r.status = http.StatusOK
	}
	return r.ResponseWriter.Write(b)
}

// Unwrap lets http.ResponseController reach the connection.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }

// printable keeps what may go into a header and a log line.
func printable(s string) string {
	if len(s) > 512 {
		s = s[:512]
	}
	return strings.Map(func(r rune) rune {
		if r < 0x20 || r > 0x7e {
			return -1
		}
		return r
	}, s)
}

// fold rewrites static path segments to the document's case, so that one router decides; names stay as the caller spelled them.
// Names of query parameters are folded too. The router always works on the escaped path: a name may contain any character.
func (s *server) fold(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		x := of(r)
		escaped := x.path
		if out, path := s.doc.paths.find(strings.Split(escaped[1:], "/")); path != "" {
			x.template = path
			escaped = "/" + strings.Join(out, "/")
		}
		u := *r.URL
		u.RawPath = escaped
		if plain, err := url.PathUnescape(escaped); err == nil {
			u.Path = plain
		}
		u.RawQuery = foldQuery(u.Query()).Encode()
		r2 := r.Clone(r.Context())
		r2.URL = &u
		next.ServeHTTP(w, r2)
	})
}

var queryNames = []string{"api-version", "$filter", "skipToken", "$skipToken", "takeToken", "$take", "deleteOption", "instanceType"}

func foldQuery(in url.Values) url.Values {
	for name, v := range in {
		i := slices.IndexFunc(queryNames, func(q string) bool { return strings.EqualFold(q, name) })
		if i >= 0 && queryNames[i] != name {
			delete(in, name)
			in[queryNames[i]] = append(in[queryNames[i]], v...)
		}
	}
	return in
}

// authenticate finds out who calls.
func (s *server) authenticate(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		scheme, secret, _ := strings.Cut(r.Header.Get("Authorization"), " ")
		challenge := func(code, message, cause string) {
			w.Header().Set("WWW-Authenticate", `Bearer authorization_uri="`+s.origin(r)+`/", error="invalid_token"`)
			s.refuse(w, r, refusal{Status: http.StatusUnauthorized, Code: code, Message: message, Causes: cause,
				Action: "send the header Authorization: Bearer with a token that is in the server's token file"})
		}
		if !strings.EqualFold(scheme, "Bearer") || strings.TrimSpace(secret) == "" {
			challenge("AuthenticationFailed", "the request carries no bearer token", "the header Authorization is absent or of another scheme")
			return
		}
		token, ok := s.cfg.Tokens.Find(strings.TrimSpace(secret))
		if !ok {
			challenge("InvalidAuthenticationToken", "the bearer token is not known", "the token was revoked, is misspelled, or belongs to another server")
			return
		}
		x := of(r)
		x.token = token
		ctx := control.WithCaller(r.Context(), control.Caller{Name: token.Name, RequestID: x.clientID, CorrelationID: x.correlation})
		next.ServeHTTP(w, r.WithContext(ctx))
	})
}
