package fleet

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"time"

	"github.com/lifeboat-dr/lifeboat/service/dr"
)

// Lifetimes of what an authority signs. A client renews after two thirds of its certificate's life, so an agent may be switched
// off for months and still come back by itself.
const (
	authorityLifetime = 20 * 365 * 24 * time.Hour
	clientLifetime    = 365 * 24 * time.Hour
	serverLifetime    = 365 * 24 * time.Hour
	clockSkew         = time.Hour // certificates are valid from this long before they were made
)

// Authority is a certificate authority of ours: the fleet's, which signs lifeboatd's server certificate and the replicators'
// client certificates, or a vault's, which signs its agents' client certificates and the replicators' data-plane certificates.
// Safe for concurrent use.
type Authority struct {
	certificate *x509.Certificate
	pem         string
	key         crypto.Signer
}

// NewAuthority makes a certificate authority and returns its certificate and its key, both PEM.
func NewAuthority(name string, now time.Time) (certificate, key string, err error) {
	priv, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return "", "", fmt.Errorf("make key of authority %s: %w", name, err)
	}
	tmpl := &x509.Certificate{
		Subject:               pkix.Name{CommonName: name, Organization: []string{"Lifeboat"}},
		NotBefore:             now.Add(-clockSkew),
		NotAfter:              now.Add(authorityLifetime),
		IsCA:                  true,
		BasicConstraintsValid: true,
		MaxPathLenZero:        true,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign | x509.KeyUsageDigitalSignature,
	}
	der, err := sign(tmpl, tmpl, &priv.PublicKey, priv)
	if err != nil {
		return "", "", fmt.Errorf("sign authority %s: %w", name, err)
	}
	keyPEM, err := encodeKey(priv)
	if err != nil {
		return "", "", err
	}
	return encodeCertificate(der), keyPEM, nil
}

// LoadAuthority reads what NewAuthority returned.
func LoadAuthority(certificate, key string) (*Authority, error) {
	cert, err := parseCertificate(certificate)
	if err != nil {
		return nil, fmt.Errorf("load authority: %w", err)
	}
	block, _ := pem.Decode([]byte(key))
	if block == nil {
		return nil, errors.New("load authority: key is not PEM")
	}
	priv, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("load key of authority %s: %w", cert.Subject.CommonName, err)
	}
	signer, ok := priv.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("load key of authority %s: %T cannot sign", cert.Subject.CommonName, priv)
	}
	return &Authority{certificate: cert, pem: certificate, key: signer}, nil
}

// Certificate returns the authority's certificate, PEM.
func (a *Authority) Certificate() string { return a.pem }

// Verify tells whether the authority signed the certificate as a client's and it is valid now.
func (a *Authority) Verify(cert *x509.Certificate, now time.Time) error {
	roots := x509.NewCertPool()
	roots.AddCert(a.certificate)
	_, err := cert.Verify(x509.VerifyOptions{Roots: roots, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	return err
}

// SignClient turns a certificate request into a client certificate for commonName. Of the request only the public key is
// taken: what it says about names is the caller's wish, not a fact.
func (a *Authority) SignClient(r Request, commonName string, now time.Time) (certificate string, expires time.Time, err error) {
	tmpl := &x509.Certificate{
		Subject:     pkix.Name{CommonName: commonName, Organization: []string{"Lifeboat"}},
		NotBefore:   now.Add(-clockSkew),
		NotAfter:    now.Add(clientLifetime).Truncate(time.Second),
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	der, err := sign(tmpl, a.certificate, r.key, a.key)
	if err != nil {
		return "", time.Time{}, fmt.Errorf("sign certificate of %s: %w", commonName, err)
	}
	return encodeCertificate(der), tmpl.NotAfter, nil
}

// IssueServer makes a server certificate for names, which may be host names and addresses, and its key, both PEM.
func (a *Authority) IssueServer(names []string, now time.Time) (certificate, key string, expires time.Time, err error) {
	if len(names) == 0 {
		return "", "", time.Time{}, errors.New("issue server certificate: no names")
	}
	priv, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return "", "", time.Time{}, fmt.Errorf("make server key: %w", err)
	}
	tmpl := &x509.Certificate{
		Subject:     pkix.Name{CommonName: names[0], Organization: []string{"Lifeboat"}},
		NotBefore:   now.Add(-clockSkew),
		NotAfter:    now.Add(serverLifetime).Truncate(time.Second),
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	if len(tmpl.Subject.CommonName) > 64 { // the limit of X.520; the names below count
		tmpl.Subject.CommonName = tmpl.Subject.CommonName[:64]
	}
	for _, n := range names {
		if ip := net.ParseIP(n); ip != nil {
			tmpl.IPAddresses = append(tmpl.IPAddresses, ip)
		} else {
			tmpl.DNSNames = append(tmpl.DNSNames, n)
		}
	}
	der, err := sign(tmpl, a.certificate, &priv.PublicKey, a.key)
	if err != nil {
		return "", "", time.Time{}, fmt.Errorf("sign server certificate of %s: %w", names[0], err)
	}
	if key, err = encodeKey(priv); err != nil {
		return "", "", time.Time{}, err
	}
	return encodeCertificate(der), key, tmpl.NotAfter, nil
}

// Request is a certificate request whose signature was checked: the sender holds the key.
type Request struct{ key any }

// ParseRequest reads and checks a PEM certificate request. Its error is a *dr.Error with CodeInvalid.
func ParseRequest(csr string) (Request, error) {
	invalid := func(err error) (Request, error) {
		return Request{}, &dr.Error{Code: dr.CodeInvalid, Message: "The certificate request cannot be used.",
			RecommendedAction: "Send a PEM encoded PKCS #10 request, signed with its own ECDSA or Ed25519 key.", Err: err}
	}
	block, _ := pem.Decode([]byte(csr))
	if block == nil || block.Type != "CERTIFICATE REQUEST" {
		return invalid(errors.New("not a PEM certificate request"))
	}
	req, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return invalid(err)
	}
	if err := req.CheckSignature(); err != nil {
		return invalid(err)
	}
	if req.PublicKeyAlgorithm != x509.ECDSA && req.PublicKeyAlgorithm != x509.Ed25519 {
		return invalid(fmt.Errorf("key algorithm %s is not accepted", req.PublicKeyAlgorithm))
	}
	return Request{key: req.PublicKey}, nil
}

// Fingerprint names the request's public key: the SHA-256 of its encoding in hexadecimal.
func (r Request) Fingerprint() string {
	der, err := x509.MarshalPKIXPublicKey(r.key)
	if err != nil {
		panic(fmt.Sprintf("fleet: a key that was parsed cannot be encoded: %v", err))
	}
	sum := sha256.Sum256(der)
	return hex.EncodeToString(sum[:])
}

func sign(tmpl, parent *x509.Certificate, pub any, signer crypto.Signer) ([]byte, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, err
	}
	tmpl.SerialNumber = serial.Add(serial, big.NewInt(1))
	return x509.CreateCertificate(rand.Reader, tmpl, parent, pub, signer)
}

func encodeCertificate(der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

func encodeKey(key *ecdsa.PrivateKey) (string, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return "", fmt.Errorf("encode key: %w", err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})), nil
}

func parseCertificate(s string) (*x509.Certificate, error) {
	block, _ := pem.Decode([]byte(s))
	if block == nil || block.Type != "CERTIFICATE" {
		return nil, errors.New("not a PEM certificate")
	}
	return x509.ParseCertificate(block.Bytes)
}
