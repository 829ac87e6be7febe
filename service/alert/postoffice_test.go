package alert_test

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"fmt"
	"io"
	"math/big"
	"mime/quotedprintable"
	"net"
	"net/textproto"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lifeboat-dr/lifeboat/service/alert"
)

// postOffice is an SMTP server on a socket: EHLO, STARTTLS, AUTH PLAIN, MAIL, RCPT, DATA and QUIT of RFC 5321.
type postOffice struct {
	t        *testing.T
	listener net.Listener
	tls      *tls.Config
	roots    *x509.CertPool

	mu       sync.Mutex
	got      []mail
	asked    int
	failures int
	failWith string
	absent   []string
}

type mail struct {
	user, from string
	to         []string
	text       string // headers, an empty line, and the body decoded
}

func newPostOffice(t *testing.T) *postOffice {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "post office"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	p := &postOffice{t: t, roots: x509.NewCertPool(), tls: &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}}
	p.roots.AddCert(cert)
	if p.listener, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	var served sync.WaitGroup
	served.Go(func() {
		for {
			conn, err := p.listener.Accept()
			if err != nil {
				return
			}
			served.Go(func() { p.serve(conn) })
		}
	})
	t.Cleanup(func() { _ = p.listener.Close(); served.Wait() })
	return p
}

func (p *postOffice) channel() alert.Channel {
	return &alert.Mail{Server: p.listener.Addr().String(), From: "lifeboat@example.net", User: "lifeboat", Password: "secret", RootCAs: p.roots}
}

func (p *postOffice) mails() []mail {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.got)
}

func (p *postOffice) tries() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.asked
}

// fail answers the next n mails with the line.
func (p *postOffice) fail(n int, line string) { p.failures, p.failWith = n, line }

func (p *postOffice) unknown(address string) { p.absent = append(p.absent, address) }

func (p *postOffice) serve(conn net.Conn) {
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(30 * time.Second))
	in := textproto.NewReader(bufio.NewReader(conn))
	say := func(line string) { _, _ = fmt.Fprintf(conn, "%s\r\n", line) }
	say("220 post office")
	var m mail
	secure := false
	for {
		line, err := in.ReadLine()
		if err != nil {
			return
		}
		verb, rest, _ := strings.Cut(line, " ")
		switch strings.ToUpper(verb) {
		case "EHLO":
			if secure {
				say("250-post office\r\n250 AUTH PLAIN")
			} else {
				say("250-post office\r\n250 STARTTLS")
			}
		case "STARTTLS":
			say("220 go ahead")
			conn = tls.Server(conn, p.tls)
			in, secure = textproto.NewReader(bufio.NewReader(conn)), true
		case "AUTH":
			raw, _ := base64.StdEncoding.DecodeString(strings.TrimPrefix(rest, "PLAIN "))
			parts := strings.Split(string(raw), "\x00")
			if !secure || len(parts) != 3 || parts[2] != "secret" {
				say("535 no")
				continue
			}
			m.user = parts[1]
			say("235 welcome")
		case "MAIL":
			p.mu.Lock()
			p.asked++
			refuse := p.failures > 0
			if refuse {
				p.failures--
			}
			p.mu.Unlock()
			if refuse {
				say(p.failWith)
				continue
			}
			m.from = between(rest)
			say("250 ok")
		case "RCPT":
			if slices.Contains(p.absent, between(rest)) {
				say("550 no such user")
				continue
			}
			m.to = append(m.to, between(rest))
			say("250 ok")
		case "DATA":
			say("354 go on")
			raw, err := in.ReadDotBytes()
			if err != nil {
				return
			}
			head, body, _ := strings.Cut(string(raw), "\n\n")
			plain, _ := io.ReadAll(quotedprintable.NewReader(strings.NewReader(body)))
			m.text = head + "\n\n" + string(plain)
			p.mu.Lock()
			p.got = append(p.got, m)
			p.mu.Unlock()
			say("250 taken")
		case "QUIT":
			say("221 bye")
			return
		default:
			say("500 what")
		}
	}
}

func between(s string) string {
	_, s, _ = strings.Cut(s, "<")
	s, _, _ = strings.Cut(s, ">")
	return s
}
