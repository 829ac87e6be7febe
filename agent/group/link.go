package group

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"time"
)

const (
	outbox     = 16 // messages that may wait for a slow peer: more than a round has
	writeLimit = 5 * time.Second
)

// link is a connection for one round: coordinator and one member. Its methods but read may be called under a member's lock: they
// never wait.
type link struct {
	conn net.Conn
	in   *bufio.Reader
	out  chan []byte
	shut bool // nothing more is sent
}

func newLink(conn net.Conn, in *bufio.Reader) *link {
	return &link{conn: conn, in: in, out: make(chan []byte, outbox)}
}

// write sends what is put into the link, and closes the connection after the last.
func (l *link) write() {
	defer l.conn.Close()
	for b := range l.out {
		_ = l.conn.SetWriteDeadline(time.Now().Add(writeLimit))
		if _, err := l.conn.Write(b); err != nil {
			_ = l.conn.Close() // the reader tells
			for range l.out {  // what is left has no one to go to
			}
			return
		}
	}
}

func (l *link) send(m message) {
	if l.shut {
		return
	}
	b, err := encode(m)
	if err != nil { // a reason of ours that is too long, at most
		l.cut()
		return
	}
	select {
	case l.out <- b:
	default:
		l.cut()
	}
}

// finish closes the connection when what was sent is on its way.
func (l *link) finish() {
	if !l.shut {
		l.shut = true
		close(l.out)
	}
}

// cut closes the connection at once.
func (l *link) cut() {
	l.finish()
	_ = l.conn.Close()
}

// serverTLS lets in who shows a certificate of the vault's authority. Who it is of is for the Hello.
func serverTLS(cert tls.Certificate, ca *x509.CertPool) *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{cert}, ClientCAs: ca,
		ClientAuth: tls.RequireAndVerifyClientCert, SessionTicketsDisabled: true}
}

// clientTLS takes a connection only to the agent peer. Agents have certificates for clients, so the usual check, for a server's
// name, would refuse them.
func clientTLS(cert tls.Certificate, ca *x509.CertPool, peer string) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{cert},
		InsecureSkipVerify: true, // VerifyConnection does it
		VerifyConnection: func(cs tls.ConnectionState) error {
			if len(cs.PeerCertificates) == 0 {
				return errors.New("no certificate")
			}
			rest := x509.NewCertPool()
			for _, c := range cs.PeerCertificates[1:] {
				rest.AddCert(c)
			}
			leaf := cs.PeerCertificates[0]
			if _, err := leaf.Verify(x509.VerifyOptions{Roots: ca, Intermediates: rest, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}); err != nil {
				return err
			}
			if leaf.Subject.CommonName != peer {
				return fmt.Errorf("it is %q", leaf.Subject.CommonName)
			}
			return nil
		},
	}
}

// maxAddresses bounds the addresses of a member that are tried.
const maxAddresses = 16

// reach opens a connection to a member for a round, and returns when it has said that it is of the same group. All its addresses
// are tried at once: some lead nowhere, and some, as those of bridges that every machine has, to somebody else.
func (n *Node) reach(g Group, self string, peer Peer) (*link, error) {
	type result struct {
		l   *link
		err error
	}
	addresses := peer.Addresses[:min(len(peer.Addresses), maxAddresses)]
	results := make(chan result, len(addresses))
	for _, a := range addresses {
		n.wg.Go(func() {
			l, err := n.reachAt(g, self, peer, a)
			results <- result{l, err}
		})
	}
	err := errors.New("no address of it is known")
	for left := len(addresses); left > 0; left-- {
		r := <-results
		if r.err != nil {
			err = r.err
			continue
		}
		n.wg.Go(func() {
			for range left - 1 {
				if r := <-results; r.l != nil {
					_ = r.l.conn.Close()
				}
			}
		})
		return r.l, nil
	}
	return nil, fmt.Errorf("it was not reached: %w", err)
}

func (n *Node) reachAt(g Group, self string, peer Peer, address string) (l *link, err error) {
	cert, ca, err := n.cfg.Identity()
	if err != nil {
		return nil, err
	}
	end := time.Now().Add(n.limits.reach)
	raw, err := n.cfg.dial(self, address, n.limits.reach)
	if err != nil {
		return nil, err
	}
	conn := tls.Client(raw, clientTLS(cert, ca, peer.Agent))
	defer func() {
		if err != nil {
			_ = conn.Close()
		}
	}()
	_ = conn.SetDeadline(end)
	hi, err := encode(message{Kind: hello, Group: g.ID, Roster: g.roster(), From: self, To: peer.ID})
	if err != nil {
		return nil, err
	}
	if _, err := conn.Write(append(preface(), hi...)); err != nil {
		return nil, err
	}
	in := bufio.NewReader(conn)
	if err := readPreface(in); err != nil {
		return nil, err
	}
	m, err := read(in)
	if err != nil {
		return nil, err
	}
	switch {
	case m.Kind == abort:
		return nil, fmt.Errorf("it refused: %s", m.Reason)
	case m.Kind != hello || m.Group != g.ID || m.Roster != g.roster() || m.From != peer.ID || m.To != self:
		return nil, violated("%s of %q in %q for a Hello", m.Kind, m.From, m.Group)
	}
	_ = conn.SetDeadline(time.Time{})
	return newLink(conn, in), nil
}
