package fleet

import (
	"context"
	"fmt"
	"time"

	"github.com/lifeboat-dr/lifeboat/service/control"
	"github.com/lifeboat-dr/lifeboat/service/dr"
)

// EnrolRequest is what a new agent or replicator sends.
type EnrolRequest struct {
	RegistrationKey string
	Role            Role
	CSR             string // PEM
	Hostname        string
	Site            string     // of a replicator
	Machine         dr.Machine // of an agent
}

// Enrolment is a new identity: a client certificate whose common name is ID.
type Enrolment struct {
	ID            string
	Vault         string // empty for replicators
	Certificate   string // PEM
	CACertificate string // PEM of the authority that signed it
	Expires       time.Time
}

// Enrol trades a registration key and a certificate request for a client certificate. The key is consumed with it; the same
// caller (the same public key) may repeat a request whose answer was lost.
func (s *Service) Enrol(ctx context.Context, r EnrolRequest) (Enrolment, error) {
	csr, err := ParseRequest(r.CSR)
	if err != nil {
		return Enrolment{}, err
	}
	var who control.Enrolled
	switch r.Role {
	case RoleAgent:
		if r.Machine.Hostname == "" {
			r.Machine.Hostname = r.Hostname
		}
		if r.Machine.ProductUUID == "" {
			return Enrolment{}, &dr.Error{Code: dr.CodeInvalid, Message: "An agent must tell the machine it runs on."}
		}
		who, err = s.control.EnrolAgent(ctx, r.RegistrationKey, csr.Fingerprint(), r.Machine)
	case RoleReplicator:
		if r.Site != dr.SiteHome && r.Site != dr.SiteRecovery {
			return Enrolment{}, &dr.Error{Code: dr.CodeInvalid, Message: fmt.Sprintf("A replicator's site is %s or %s, not %q.", dr.SiteHome, dr.SiteRecovery, r.Site)}
		}
		who, err = s.control.EnrolReplicator(ctx, r.RegistrationKey, csr.Fingerprint(), dr.Replicator{Hostname: r.Hostname, Site: r.Site})
	default:
		return Enrolment{}, &dr.Error{Code: dr.CodeInvalid, Message: fmt.Sprintf("There is no role %q.", r.Role)}
	}
	if err != nil {
		return Enrolment{}, err
	}
	s.log.InfoContext(ctx, "enrolled", "role", string(r.Role), "id", who.ID, "host", r.Hostname)
	if r.Role == RoleReplicator {
		who.Vault = ""
	}
	return s.certify(ctx, who.ID, who.Vault, csr)
}

// EnrolEmbedded makes a certificate for the replicator inside lifeboatd, which needs no registration key.
func (s *Service) EnrolEmbedded(ctx context.Context, r dr.Replicator, csr string) (Enrolment, error) {
	req, err := ParseRequest(csr)
	if err != nil {
		return Enrolment{}, err
	}
	if err := s.control.EnsureReplicator(ctx, r); err != nil {
		return Enrolment{}, err
	}
	return s.certify(ctx, r.ID, "", req)
}

// Renew makes a new certificate for a caller. The old one stays valid until it expires.
func (s *Service) Renew(ctx context.Context, c Caller, csr string) (Enrolment, error) {
	req, err := ParseRequest(csr)
	if err != nil {
		return Enrolment{}, err
	}
	return s.certify(ctx, c.ID, c.Vault, req)
}

func (s *Service) certify(ctx context.Context, id, vault string, csr Request) (Enrolment, error) {
	ca := s.fleetCA
	if vault != "" {
		var err error
		if ca, err = s.vaultAuthority(ctx, vault); err != nil {
			return Enrolment{}, err
		}
	}
	certificate, expires, err := ca.SignClient(csr, id, s.now())
	if err != nil {
		return Enrolment{}, err
	}
	return Enrolment{ID: id, Vault: vault, Certificate: certificate, CACertificate: ca.Certificate(), Expires: expires}, nil
}
