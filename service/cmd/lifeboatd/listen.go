package main

import (
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/lifeboat-dr/lifeboat/replicator/node"
	"github.com/lifeboat-dr/lifeboat/service/fleet"
)

// serverCertificate makes lifeboatd's own certificate from the fleet's authority, and a new one in the last third of its life.
// It is kept nowhere: clients trust the authority.
type serverCertificate struct {
	ca    *fleet.Authority
	names []string

	mu      sync.Mutex
	current *tls.Certificate
	expires time.Time
}

func (s *serverCertificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	if s.current != nil && s.expires.Sub(now) > 100*24*time.Hour {
		return s.current, nil
	}
	certificate, key, expires, err := s.ca.IssueServer(s.names, now)
	if err != nil {
		return nil, err
	}
	// With the authority in the chain, a client that only knows its fingerprint can verify us.
	c, err := tls.X509KeyPair([]byte(certificate+s.ca.Certificate()), []byte(key))
	if err != nil {
		return nil, err
	}
	s.current, s.expires = &c, expires
	return s.current, nil
}

// serverNames are the names that lifeboatd can be called by.
func serverNames(listen string, extra []string) []string {
	names := []string{"lifeboatd", "localhost", "127.0.0.1", "::1"}
	if host, _, err := net.SplitHostPort(listen); err == nil && host != "" {
		names = append(names, host)
	}
	if host, err := os.Hostname(); err == nil && host != "" {
		names = append(names, host)
	}
	for _, address := range node.HostAddresses() {
		names = append(names, address.String())
	}
	names = append(names, extra...)
	slices.Sort(names)
	names = slices.DeleteFunc(slices.Compact(names), func(n string) bool {
		ip := net.ParseIP(n)
		return ip != nil && ip.IsUnspecified()
	})
	return names
}

// listenReplication opens the data port. The default port may be busy on a host with several of us; then any free one is taken,
// because agents are told the address. An address that was asked for is taken or refused.
func listenReplication(address string, asked bool, log *slog.Logger) (net.Listener, error) {
	l, err := net.Listen("tcp", address)
	if err == nil || asked || !errors.Is(err, syscall.EADDRINUSE) {
		return l, err
	}
	host, _, splitErr := net.SplitHostPort(address)
	if splitErr != nil {
		return nil, err
	}
	if l, err = net.Listen("tcp", net.JoinHostPort(host, "0")); err != nil {
		return nil, err
	}
	log.Warn("replication port is busy, another one was taken", "wanted", address, "address", l.Addr().String())
	return l, nil
}
