package ingest

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

const (
	defaultSpoolLimit = 2 << 30
	defaultWindow     = 64 << 20

	helloTimeout  = 20 * time.Second // from accept to a verified Hello
	maxHandshakes = 128              // connections that have not shown a certificate yet; more are closed at once
)

var (
	errDisplaced = errors.New("ingest: another session of this machine took over")
	errDropped   = errors.New("ingest: the vault is not served any more")
	errEnded     = errors.New("ingest: the session ended")
	errStopped   = errors.New("ingest: the server stopped")
)

// Server takes agents' sessions. Make one with New. Safe for concurrent use.
type Server struct {
	cfg    Config
	log    *slog.Logger
	spool  *spool
	meter  meter
	points atomic.Int64

	handshakes chan struct{}

	mu       sync.Mutex
	sessions map[sessionKey]*session
}

// A machine has one session at most, whatever its generation.
type sessionKey struct{ vault, machine string }

// New returns a server that serves nothing yet.
func New(cfg Config) (*Server, error) {
	if cfg.Vault == nil || cfg.Dir == "" {
		return nil, errors.New("ingest: Vault and Dir are required")
	}
	if cfg.SpoolLimit <= 0 {
		cfg.SpoolLimit = defaultSpoolLimit
	}
	if cfg.Window <= 0 {
		cfg.Window = defaultWindow
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Server{
		cfg: cfg, log: cfg.Logger, spool: newSpool(cfg.SpoolLimit),
		handshakes: make(chan struct{}, maxHandshakes),
		sessions:   map[sessionKey]*session{},
	}, nil
}

// Serve accepts sessions from l until ctx ends, then closes l and every session and waits for them. It returns nil after a
// cancelled ctx and the listener's error otherwise.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(ctx, func() { _ = l.Close() })
	defer stop()
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel(errStopped)
	backoff := 5 * time.Millisecond
	for {
		conn, err := l.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			if errors.Is(err, net.ErrClosed) {
				return fmt.Errorf("accept replication sessions: %w", err)
			}
			s.log.Warn("accept of a replication session was refused by the system", "err", err)
			select { // out of descriptors or memory: others will give some back
			case <-ctx.Done():
			case <-time.After(backoff):
			}
			backoff = min(2*backoff, time.Second)
			continue
		}
		backoff = 5 * time.Millisecond
		select {
		case s.handshakes <- struct{}{}:
			wg.Go(func() { s.take(ctx, conn) })
		default:
			_ = conn.Close()
		}
	}
}

// Drop ends the sessions of a vault and waits for them, such as after it was removed or its keys changed. Agents connect again.
func (s *Server) Drop(vault string) {
	s.mu.Lock()
	var ended []*session
	for k, x := range s.sessions {
		if k.vault == vault {
			ended = append(ended, x)
		}
	}
	s.mu.Unlock()
	for _, x := range ended {
		x.cancel(errDropped)
	}
	for _, x := range ended {
		<-x.done
	}
}

// Stats returns a snapshot.
func (s *Server) Stats() Stats {
	s.mu.Lock()
	n := len(s.sessions)
	s.mu.Unlock()
	rate := s.meter.rate(time.Now())
	s.meter.mu.Lock()
	total := s.meter.total
	s.meter.mu.Unlock()
	return Stats{
		Sessions: n, SpoolBytes: s.spool.bytes(), SpoolLimit: s.cfg.SpoolLimit,
		BytesPerSecond: rate, TotalBytes: total, Points: s.points.Load(),
	}
}

// tlsConfig picks the vault by server name. Session tickets are off: each session shows its certificate.
func (s *Server) tlsConfig() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		GetConfigForClient: func(h *tls.ClientHelloInfo) (*tls.Config, error) {
			v, err := s.cfg.Vault(h.ServerName)
			if err != nil {
				return nil, err
			}
			return &tls.Config{
				MinVersion:                  tls.VersionTLS13,
				Certificates:                []tls.Certificate{v.Certificate},
				ClientAuth:                  tls.RequireAndVerifyClientCert,
				ClientCAs:                   v.ClientCAs,
				SessionTicketsDisabled:      true,
				DynamicRecordSizingDisabled: true,
			}, nil
		},
	}
}

// take runs one connection to its end.
func (s *Server) take(ctx context.Context, raw net.Conn) {
	defer raw.Close()
	log := s.log.With("remote", raw.RemoteAddr().String())
	x, err := func() (*session, error) {
		defer func() { <-s.handshakes }()
		return s.greet(ctx, raw)
	}()
	if err != nil {
		if ctx.Err() == nil {
			log.Info("replication session refused", "err", err)
		}
		return
	}
	log = log.With("item", x.hello.Machine, "generation", x.hello.Generation)
	x.log = log
	if err := x.serve(ctx); err != nil {
		log.Info("replication session ended", "err", err)
	}
	// What the agent sent on would turn closing into a reset, which can overtake our last words.
	_ = x.conn.SetWriteDeadline(time.Now().Add(goodbyeTimeout))
	_ = x.conn.CloseWrite()
	_ = raw.SetReadDeadline(time.Now().Add(goodbyeTimeout))
	_, _ = io.Copy(io.Discard, raw)
}

// enter makes x the session of its machine; an older one is ended first, and its writer closed.
func (s *Server) enter(ctx context.Context, x *session) error {
	for {
		s.mu.Lock()
		old := s.sessions[x.key]
		if old == nil {
			s.sessions[x.key] = x
			s.mu.Unlock()
			return nil
		}
		s.mu.Unlock()
		old.cancel(errDisplaced)
		select {
		case <-old.done:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func (s *Server) leave(x *session) {
	s.mu.Lock()
	delete(s.sessions, x.key)
	s.mu.Unlock()
	close(x.done)
}
