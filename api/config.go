package api

import (
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/go-chi/chi/v5"
	"github.com/go-chi/chi/v5/middleware"

	"github.com/lifeboat-dr/lifeboat/api/browse"
	"github.com/lifeboat-dr/lifeboat/api/oas"
)

// Config wires the handler. Control and Tokens are required.
type Config struct {
	Control Control
	Tokens  *Tokens
	// Fleet serves /fleet/ (NewFleetHandler); nil answers 404 there.
	Fleet http.Handler
	// Enrolment is what generateRegistrationKey tells a part that is to enrol.
	Enrolment Enrolment
	// RetryAfter is how long clients wait between polls of an operation. Zero means one second. The field's service says 30;
	// our jobs often end sooner.
	RetryAfter time.Duration
	// MaxBody bounds a request's body in bytes. Zero means 1 MiB.
	MaxBody int64
	// PageSize is the length of a page of a list. Zero means 100.
	PageSize int
	// TrustedProxies are the peers whose Forwarded, or X-Forwarded-Proto, -Host, -Port, -For and -Prefix, are believed: absolute
	// URLs and the log name what the caller used. A proxy listed here has to replace what callers send in these headers. Empty
	// trusts nobody.
	TrustedProxies []netip.Prefix
	// Throttle bounds how fast each token may call this process. The zero value does not.
	Throttle Throttle
	// Log gets requests that ended in an internal error. Audit gets one line for each change that was asked for. nil discards.
	Log, Audit *slog.Logger
}

// Enrolment is where parts enrol, and how they know that they found the right place.
type Enrolment struct {
	// CASHA256 is the SHA-256 of the control plane's CA certificate (DER) in lower-case hex.
	CASHA256 string
	// ControlAddress is host:port; empty takes the address the request came to.
	ControlAddress string
}

type server struct {
	cfg     Config
	control Control
	doc     *document
	log     *slog.Logger
	audit   *slog.Logger

	throttle *throttle
	answers  answers
	docs     http.Handler // the document for people
}

// The generated interface is what the document says; implementing all of it is how the server keeps its word.
var _ oas.ServerInterface = (*server)(nil)

// New returns the handler of the whole API. It is safe for concurrent use.
func New(cfg Config) (http.Handler, error) {
	s, err := newServer(cfg)
	if err != nil {
		return nil, err
	}
	return s.handler(), nil
}

func newServer(cfg Config) (*server, error) {
	if cfg.Control == nil || cfg.Tokens == nil {
		return nil, fmt.Errorf("api: Config.Control and Config.Tokens are required")
	}
	if cfg.RetryAfter <= 0 {
		cfg.RetryAfter = time.Second
	}
	if cfg.MaxBody <= 0 {
		cfg.MaxBody = 1 << 20
	}
	if cfg.PageSize <= 0 {
		cfg.PageSize = 100
	}
	doc, err := compiledIn()
	if err != nil {
		return nil, err
	}
	docs, err := browse.New("/docs", doc.spec)
	if err != nil {
		return nil, err
	}
	return &server{cfg: cfg, control: cfg.Control, doc: doc, log: orDiscard(cfg.Log), audit: orDiscard(cfg.Audit), throttle: newThrottle(cfg.Throttle), docs: docs}, nil
}

// model routes the operations of the document. One router decides about 404 and 405.
func (s *server) model() chi.Router {
	model := chi.NewRouter()
	model.NotFound(s.notFound)
	model.MethodNotAllowed(s.methodNotAllowed)
	oas.HandlerWithOptions(s, oas.ChiServerOptions{BaseRouter: model.With(s.admit), ErrorHandlerFunc: s.badParameter})
	return model
}

func (s *server) handler() http.Handler {
	model := s.authenticate(s.slow(s.recall(compressed(s.fold(s.model())))))
	open := compressed(http.HandlerFunc(s.serveDocuments))
	root := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet && isDocument(r.URL.Path) {
			open.ServeHTTP(w, r)
			return
		}
		model.ServeHTTP(w, r)
	})
	edge := s.envelope(root)
	if s.cfg.Fleet == nil {
		return edge
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/fleet/") {
			s.cfg.Fleet.ServeHTTP(w, r)
			return
		}
		edge.ServeHTTP(w, r)
	})
}

// What anybody may read.
func isDocument(path string) bool {
	return path == "/openapi.json" || path == "/openapi.yaml" || path == "/docs" || strings.HasPrefix(path, "/docs/")
}

func (s *server) serveDocuments(w http.ResponseWriter, r *http.Request) {
	switch r.URL.Path {
	case "/openapi.json":
		serveDocument(w, "application/json", s.doc.json)
	case "/openapi.yaml":
		serveDocument(w, "application/yaml", s.doc.yaml)
	default:
		s.docs.ServeHTTP(w, r)
	}
}

// compressed compresses answers for those who take it. Answers that come compressed pass as they are.
func compressed(next http.Handler) http.Handler {
	zipping := middleware.Compress(gzipLevel, "application/json", "application/yaml", "text/plain", "text/html", "text/css")(next)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		accept := r.Header["Accept-Encoding"]
		if !takesGzip(accept) {
			next.ServeHTTP(w, r)
			return
		}
		if !slices.Equal(accept, inGzip) { // the middleware reads the header in a way of its own
			r = r.Clone(r.Context())
			r.Header["Accept-Encoding"] = inGzip
		}
		zipping.ServeHTTP(w, r)
	})
}

// gzipLevel is what answers are compressed with. Higher ones take longer and save little on JSON.
const gzipLevel = 5

func orDiscard(l *slog.Logger) *slog.Logger {
	if l == nil {
		return slog.New(slog.DiscardHandler)
	}
	return l
}
