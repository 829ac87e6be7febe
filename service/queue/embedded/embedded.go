// Package embedded runs the queue's server inside this process, for a lifeboatd without a Redis address. It keeps nothing on
// disk: after a restart the control plane puts running tasks out again. It must not be reachable by others: it listens on
// loopback and wants a password that only this process knows.
package embedded

import (
	"crypto/rand"
	"fmt"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"

	"github.com/lifeboat-dr/lifeboat/service/queue/redisqueue"
)

// Server is the in-process server. Time passes for it as for everyone, but key expiry does not; redisqueue sets none.
type Server struct {
	m        *miniredis.Miniredis
	password string
	client   *redis.Client
}

// Start starts a server on a free loopback port.
func Start() (*Server, error) {
	s := &Server{m: miniredis.NewMiniRedis(), password: rand.Text()}
	s.m.RequireAuth(s.password)
	if err := s.m.Start(); err != nil {
		return nil, fmt.Errorf("start embedded queue: %w", err)
	}
	s.client = redis.NewClient(redisqueue.Tune(&redis.Options{Addr: s.m.Addr(), Password: s.password, Protocol: 2}))
	return s, nil
}

// Client returns a client that is closed with the server.
func (s *Server) Client() *redis.Client { return s.client }

// Close stops the server; everything in it is gone.
func (s *Server) Close() error {
	err := s.client.Close()
	s.m.Close()
	return err
}
