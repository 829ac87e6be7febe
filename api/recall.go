package api

import (
	"bytes"
	"compress/gzip"
	"net/http"
	"strconv"
	"strings"
	"sync"

	"github.com/lifeboat-dr/lifeboat/service/control"
)

const (
	answersAtMost = 32 << 20 // bytes that are remembered
	answerAtMost  = 64 << 10 // bytes of one answer
	askedAtMost   = 4 << 10  // bytes of a URL whose answer is remembered
	answerBeside  = 512      // bytes that remembering an answer takes besides it
)

// reply is the body of a GET that was answered with 200. It stays right while its basis holds; the headers that tell one request
// from another are not part of it.
type reply struct {
	role   Role // that the operation needs
	basis  *control.Basis
	plain  []byte
	zipped func() []byte // made when somebody takes it first
}

func newReply(role Role, basis *control.Basis, body []byte) *reply {
	return &reply{role: role, basis: basis, plain: body, zipped: sync.OnceValue(func() []byte { return zip(body) })}
}

func zip(body []byte) []byte {
	var out bytes.Buffer
	z, _ := gzip.NewWriterLevel(&out, gzipLevel) // the level is one that exists
	_, _ = z.Write(body)                         // a buffer takes everything
	_ = z.Close()
	return out.Bytes()
}

// write sends the answer whole, with its length.
func (a *reply) write(w http.ResponseWriter, r *http.Request) {
	h, body := w.Header(), a.plain
	h["Vary"] = varyByEncoding
	if takesGzip(r.Header["Accept-Encoding"]) {
		body = a.zipped()
		h["Content-Encoding"] = inGzip
	}
	h["Content-Type"] = inJSON
	h["Content-Length"] = []string{strconv.Itoa(len(body))}
	w.WriteHeader(http.StatusOK)
	_, _ = w.Write(body) // the caller may have left
}

// Values of headers that all answers share. Nobody writes to them.
var (
	varyByEncoding = []string{"Accept-Encoding"}
	inGzip         = []string{"gzip"}
	inJSON         = []string{contentJSON}
)

// takesGzip reads Accept-Encoding (RFC 9110, 12.5.3).
func takesGzip(accept []string) bool {
	taken := false
	for _, list := range accept {
		for one := range strings.SplitSeq(list, ",") {
			name, weight, _ := strings.Cut(one, ";")
			name = strings.TrimSpace(name)
			named := strings.EqualFold(name, "gzip") || strings.EqualFold(name, "x-gzip")
			if !named && name != "*" {
				continue
			}
			q, weighed := strings.CutPrefix(strings.ToLower(strings.TrimSpace(weight)), "q=")
			wanted := true
			if n, err := strconv.ParseFloat(strings.TrimSpace(q), 64); weighed && err == nil {
				wanted = n > 0
			}
			if named {
				return wanted
			}
			taken = wanted
		}
	}
	return taken
}

// answers remembers what was answered, by everything of a request that shapes the answer. When half of what it may hold came
// since the last time, it forgets what was not asked for since then. The zero value is ready and safe for concurrent use.
type answers struct {
	mu    sync.Mutex // guards what follows
	young map[string]*reply
	old   map[string]*reply
	bytes int // of young
}

func (s *answers) find(key string) *reply {
	s.mu.Lock()
	defer s.mu.Unlock()
	a := s.young[key]
	if a == nil {
		if a = s.old[key]; a != nil {
			delete(s.old, key)
			s.keep(key, a)
		}
	}
	return a
}

// add remembers an answer in place of the one before.
func (s *answers) add(key string, a *reply) {
	if len(a.plain) > answerAtMost {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.old, key)
	s.keep(key, a)
}

func (s *answers) keep(key string, a *reply) {
	if was := s.young[key]; was != nil {
		s.bytes -= cost(key, was)
	}
	n := cost(key, a)
	if s.young == nil || s.bytes+n > answersAtMost/2 {
		s.old, s.young, s.bytes = s.young, map[string]*reply{}, 0
	}
	s.young[key] = a
	s.bytes += n
}

// cost counts the body twice: once more, at most, for the compressed one.
func cost(key string, a *reply) int { return 2*len(a.plain) + len(key) + answerBeside }

// recall answers a GET like the one before, to whoever may ask, when what it was made of is as it was. It comes behind
// authentication and throttling, which every request meets, and stands for routing, validation and the handler: what they make
// of a request depends on the method and URL alone, when the operation takes nothing from headers or a body.
func (s *server) recall(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		x := of(r)
		if r.Method == http.MethodGet && len(x.path)+len(r.URL.RawQuery) <= askedAtMost {
			x.asked = s.origin(r) + "\n" + x.path + "?" + r.URL.RawQuery
			if a := s.answers.find(x.asked); a != nil && x.token.Role.Covers(a.role) && a.basis.Holds(r.Context()) {
				a.write(w, r)
				return
			}
		}
		next.ServeHTTP(w, r)
	})
}

// getAndKeep is get for what is asked often. body may read nothing but what control.Note names.
func (s *server) getAndKeep(w http.ResponseWriter, r *http.Request, body func(r *http.Request) func(c *scope) (any, error)) {
	ctx, basis := s.control.Note(r.Context())
	r = r.WithContext(ctx)
	read := body(r)
	s.in(w, r, func(c *scope) error {
		v, err := read(c)
		if err != nil {
			return err
		}
		x := of(r)
		a := newReply(x.needs, basis, encode(v))
		if x.asked != "" {
			s.answers.add(x.asked, a)
		}
		a.write(w, r)
		return nil
	})
}
