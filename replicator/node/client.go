package node

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/lifeboat-dr/lifeboat/sdk/fleet"
)

// ServerName is the name that lifeboatd's certificate always carries; it is asked for whatever address leads there, so that
// relays and address translation on the way do not matter.
const ServerName = "lifeboatd"

// Dialer opens a connection to lifeboatd.
type Dialer func(ctx context.Context) (net.Conn, error)

// DialTCP returns a Dialer for host:port.
func DialTCP(address string) Dialer {
	return func(ctx context.Context) (net.Conn, error) {
		d := net.Dialer{Timeout: 10 * time.Second}
		return d.DialContext(ctx, "tcp", address)
	}
}

// NewClient returns a client of the fleet protocol that shows the identity's certificate and trusts its server authority. The
// function closes idle connections.
func NewClient(dial Dialer, i *Identity) (*fleet.ClientWithResponses, func(), error) {
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM([]byte(i.ServerCA())) {
		return nil, nil, errors.New("the authority of lifeboatd is not a PEM certificate")
	}
	return newClient(dial, &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: roots, ServerName: ServerName, GetClientCertificate: i.ClientCertificate})
}

func newClient(dial Dialer, cfg *tls.Config) (*fleet.ClientWithResponses, func(), error) {
	transport := &http.Transport{
		DialContext:         func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) },
		TLSClientConfig:     cfg,
		TLSHandshakeTimeout: 10 * time.Second,
		ForceAttemptHTTP2:   true,
		MaxIdleConnsPerHost: 64,
		IdleConnTimeout:     time.Minute,
		// A peer that vanished without a word is found out although a long poll may be quiet for long.
		HTTP2: &http.HTTP2Config{SendPingTimeout: 15 * time.Second, PingTimeout: 10 * time.Second},
	}
	c, err := fleet.NewClientWithResponses("https://"+ServerName, fleet.WithHTTPClient(&http.Client{Transport: transport}))
	if err != nil {
		return nil, nil, err
	}
	return c, transport.CloseIdleConnections, nil
}

// Enrolment says how a replicator becomes known to lifeboatd.
type Enrolment struct {
	Dial            Dialer
	RegistrationKey string
	Hostname        string
	Site            string
	// One of the two tells lifeboatd from an impostor: its authority's certificate, or the SHA-256 of that certificate's DER
	// in hexadecimal, colons allowed.
	CA       string // PEM
	CASHA256 string
}

// Enrol trades the registration key for an identity, which is kept in stateDir.
func Enrol(ctx context.Context, stateDir string, e Enrolment) (*Identity, error) {
	cfg := &tls.Config{MinVersion: tls.VersionTLS13, ServerName: ServerName}
	ca := e.CA
	switch {
	case ca != "":
		cfg.RootCAs = x509.NewCertPool()
		if !cfg.RootCAs.AppendCertsFromPEM([]byte(ca)) {
			return nil, errors.New("the authority's certificate is not PEM")
		}
	case e.CASHA256 != "":
		want, err := hex.DecodeString(strings.ReplaceAll(e.CASHA256, ":", ""))
		if err != nil || len(want) != sha256.Size {
			return nil, errors.New("the authority's fingerprint is not a SHA-256 in hexadecimal")
		}
		pin(cfg, [sha256.Size]byte(want), &ca)
	default:
		return nil, errors.New("enrolment needs the authority's certificate or its SHA-256 to know lifeboatd by")
	}
	client, closeIdle, err := newClient(e.Dial, cfg)
	if err != nil {
		return nil, err
	}
	defer closeIdle()
	key, csr, err := NewKey(e.Hostname)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	resp, err := client.EnrollWithResponse(ctx, fleet.EnrollRequest{RegistrationKey: e.RegistrationKey, Role: "replicator", Csr: csr, Hostname: e.Hostname, Site: e.Site})
	if err != nil {
		return nil, fmt.Errorf("enrol: %w", err)
	}
	if resp.JSON200 == nil {
		return nil, fmt.Errorf("enrol: %w", refused(resp.StatusCode(), resp.JSONDefault))
	}
	return NewIdentity(stateDir, key, *resp.JSON200, ca)
}

// pin makes cfg trust the authority whose certificate has the fingerprint, which lifeboatd sends in its chain, and stores it.
func pin(cfg *tls.Config, want [sha256.Size]byte, ca *string) {
	cfg.InsecureSkipVerify = true // the chain is verified below, against the pinned authority
	cfg.VerifyConnection = func(s tls.ConnectionState) error {
		for _, c := range s.PeerCertificates {
			if sha256.Sum256(c.Raw) != want {
				continue
			}
			roots := x509.NewCertPool()
			roots.AddCert(c)
			if _, err := s.PeerCertificates[0].Verify(x509.VerifyOptions{Roots: roots, DNSName: ServerName}); err != nil {
				return err
			}
			*ca = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}))
			return nil
		}
		return errors.New("lifeboatd shows no certificate of the pinned authority")
	}
}

// Address returns host:port of a server given as such or as an https URL; the port defaults to 443.
func Address(server string) (string, error) {
	if strings.Contains(server, "://") {
		u, err := url.Parse(server)
		if err != nil || u.Scheme != "https" || u.Host == "" {
			return "", fmt.Errorf("server %q is not https://host:port", server)
		}
		server = u.Host
	}
	if _, _, err := net.SplitHostPort(server); err != nil {
		server = net.JoinHostPort(strings.Trim(server, "[]"), "443")
	}
	return server, nil
}
