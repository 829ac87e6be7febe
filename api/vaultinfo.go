package api

import (
	"bytes"
	"crypto/sha1"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"hash/fnv"
	"net/http"
	"strings"

	"github.com/lifeboat-dr/lifeboat/api/oas"
	"github.com/lifeboat-dr/lifeboat/service/control"
	"github.com/lifeboat-dr/lifeboat/service/dr"
)

func (s *server) UsagesListByVaults(w http.ResponseWriter, r *http.Request, _, _, _ string, _ oas.UsagesListByVaultsParams) {
	s.get(w, r, func(c *scope) (any, error) {
		u, err := s.control.VaultUsage(r.Context(), c.vault.ID)
		out := oas.VaultUsageList{Value: []oas.VaultUsage{}}
		for _, one := range []struct {
			name, words string
			n           int
		}{{"ProtectedItems", "Protected items", u.Items}, {"RecoveryPlans", "Recovery plans", u.Plans}, {"RegisteredServers", "Registered servers", u.Providers}, {"Events", "Events", u.Events}} {
			out.Value = append(out.Value, oas.VaultUsage{Unit: "Count", CurrentValue: ptr(int64(one.n)), Limit: ptr(int64(0)), Name: oas.NameInfo{Value: one.name, LocalizedValue: one.words}})
		}
		return out, err
	})
}

func (s *server) ReplicationUsagesList(w http.ResponseWriter, r *http.Request, _, _, _ string, _ oas.ReplicationUsagesListParams) {
	s.get(w, r, func(c *scope) (any, error) {
		u, err := s.control.VaultUsage(r.Context(), c.vault.ID)
		n := func(v int) *int32 { return ptr(int32(v)) }
		return oas.ReplicationUsageList{Value: []oas.ReplicationUsage{{ProtectedItemCount: n(u.Items), RecoveryPlanCount: n(u.Plans), RegisteredServersCount: n(u.Providers), RecoveryServicesProviderAuthType: n(1),
			JobsSummary: oas.JobsSummary{FailedJobs: n(u.FailedJobs), InProgressJobs: n(u.InProgressJobs), SuspendedJobs: n(u.SuspendedJobs)},
			MonitoringSummary: oas.MonitoringSummary{EventsCount: n(u.Events), UnHealthyVmCount: n(u.UnhealthyItems), UnHealthyProviderCount: n(u.UnhealthyProviders), SupportedProviderCount: n(u.Providers),
				DeprecatedProviderCount: n(0), UnsupportedProviderCount: n(0)}}}}, err
	})
}

// extendedInfo shows what a client left. The keys are for those who may write them.
func (s *server) extendedInfo(r *http.Request, c *scope, in control.ExtendedInfo, version int64) oas.VaultExtendedInfoResource {
	if !of(r).token.Role.Covers(RoleContributor) {
		in.IntegrityKey, in.EncryptionKey = "", ""
	}
	return oas.VaultExtendedInfoResource{Id: c.base + "/extendedInformation/vaultExtendedInfo", Name: "vaultExtendedInfo", Type: typeVault + "/extendedInformation", Etag: etag(version),
		Properties: oas.VaultExtendedInfo{IntegrityKey: in.IntegrityKey, EncryptionKey: in.EncryptionKey, EncryptionKeyThumbprint: in.EncryptionKeyThumbprint, Algorithm: in.Algorithm}}
}

func (s *server) VaultExtendedInfoGet(w http.ResponseWriter, r *http.Request, _, _, _ string, _ oas.VaultExtendedInfoGetParams) {
	s.get(w, r, func(c *scope) (any, error) {
		in, version, err := s.control.ExtendedInfo(r.Context(), c.vault.ID)
		return s.extendedInfo(r, c, in, version), err
	})
}

func (s *server) putExtendedInfo(w http.ResponseWriter, r *http.Request, merge bool) {
	s.get(w, r, func(c *scope) (any, error) {
		in, err := body[oas.VaultExtendedInfoResource](r)
		if err != nil {
			return nil, err
		}
		p := in.Properties
		kept, version, err := s.control.PutExtendedInfo(r.Context(), c.vault.ID, control.ExtendedInfo{IntegrityKey: p.IntegrityKey, EncryptionKey: p.EncryptionKey, EncryptionKeyThumbprint: p.EncryptionKeyThumbprint,
			Algorithm: p.Algorithm}, merge)
		return s.extendedInfo(r, c, kept, version), err
	})
}

func (s *server) VaultExtendedInfoCreateOrUpdate(w http.ResponseWriter, r *http.Request, _, _, _ string, _ oas.VaultExtendedInfoCreateOrUpdateParams) {
	s.putExtendedInfo(w, r, false)
}

func (s *server) VaultExtendedInfoUpdate(w http.ResponseWriter, r *http.Request, _, _, _ string, _ oas.VaultExtendedInfoUpdateParams) {
	s.putExtendedInfo(w, r, true)
}

func (s *server) VaultCertificatesCreate(w http.ResponseWriter, r *http.Request, _, _, _ string, _ string, _ oas.VaultCertificatesCreateParams) {
	s.get(w, r, func(c *scope) (any, error) {
		in, err := body[oas.CertificateRequest](r)
		if err != nil {
			return nil, err
		}
		der := in.Properties.Certificate
		if block, _ := pem.Decode(der); block != nil {
			der = block.Bytes
		}
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, &dr.Error{Code: dr.CodeInvalid, Message: "certificate is not an X.509 certificate: " + err.Error(), PossibleCauses: "it is a key, a request, or was encoded twice",
				RecommendedAction: "send the certificate in DER or PEM, as base64"}
		}
		name := c.names["certificateName"]
		if err := s.control.PutCredential(r.Context(), c.vault.ID, name, cert.Raw); err != nil {
			return nil, err
		}
		return s.credentialBody(r, c, name, cert), nil
	})
}

// credentialBody tells what clients write into their credential file. This server stands where they expect an identity provider.
func (s *server) credentialBody(r *http.Request, c *scope, name string, cert *x509.Certificate) oas.VaultCertificateResponse {
	sum := sha1.Sum(cert.Raw) // what the field calls a thumbprint
	number := fnv.New64a()
	_, _ = number.Write([]byte(c.vault.ID)) // cannot fail
	here := s.origin(r)
	out := oas.VaultCertificateResponse{Id: c.base + "/certificates/" + name, Name: name, Type: typeVault + "/certificates"}
	must(out.Properties.FromResourceCertificateAndAADDetails(oas.ResourceCertificateAndAADDetails{AuthType: "AzureActiveDirectory", Certificate: bytes.Clone(cert.Raw), FriendlyName: name,
		Issuer: cert.Issuer.String(), Subject: cert.Subject.String(), Thumbprint: strings.ToUpper(hex.EncodeToString(sum[:])), ValidFrom: cert.NotBefore.UTC(), ValidTo: cert.NotAfter.UTC(),
		ResourceId: ptr(int64(number.Sum64() >> 1)), AadAuthority: here, AadTenantId: c.vault.Key.Subscription, AadAudience: here, AzureManagementEndpointAudience: here,
		ServicePrincipalClientId: c.vault.ID, ServicePrincipalObjectId: c.vault.ID, ServiceResourceId: c.base}))
	return out
}

func (s *server) RegisteredIdentitiesDelete(w http.ResponseWriter, r *http.Request, _, _, _, _ string, _ oas.RegisteredIdentitiesDeleteParams) {
	s.remove(w, r, func(c *scope) (string, error) {
		return "", s.control.Unregister(r.Context(), c.vault.ID, c.names["identityName"])
	})
}

func (s *server) PrivateLinkResourcesList(w http.ResponseWriter, r *http.Request, _, _, _ string, _ oas.PrivateLinkResourcesListParams) {
	s.get(w, r, func(*scope) (any, error) {
		return oas.PrivateLinkResources{Value: []oas.PrivateLinkResource{}}, nil
	})
}

func (s *server) PrivateLinkResourcesGet(w http.ResponseWriter, r *http.Request, _, _, _, _ string, _ oas.PrivateLinkResourcesGetParams) {
	s.get(w, r, func(c *scope) (any, error) {
		return nil, &dr.Error{Code: dr.CodeNotFound, Message: "there is no private link resource " + printable(c.names["privateLinkResourceName"]), PossibleCauses: "Lifeboat is reached in networks of its owner and has no private links",
			RecommendedAction: "use the server's own address"}
	})
}
