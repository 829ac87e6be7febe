package api

import (
	"net/http"

	"github.com/lifeboat-dr/lifeboat/api/oas"
	"github.com/lifeboat-dr/lifeboat/service/control"
)

// ReplicationFabricsMigrateToAad ends without a body, as clients of it expect.
func (s *server) ReplicationFabricsMigrateToAad(w http.ResponseWriter, r *http.Request, _, _, _, _ string, _ oas.ReplicationFabricsMigrateToAadParams) {
	s.remove(w, r, func(c *scope) (string, error) { return s.control.MigrateToAad(r.Context(), c.ref("")) })
}

func (s *server) ReplicationFabricsReassociateGateway(w http.ResponseWriter, r *http.Request, _, _, _, _ string, _ oas.ReplicationFabricsReassociateGatewayParams) {
	s.change(w, r, func(c *scope) (string, error) {
		in, err := body[oas.FailoverProcessServerRequest](r)
		if err != nil {
			return "", err
		}
		p := in.Properties
		return s.control.ReassociateGateway(r.Context(), c.ref(""), control.ReassociateInput{Container: p.ContainerName, Source: p.SourceProcessServerId, Target: p.TargetProcessServerId,
			Items: p.VmsToMigrate, UpdateType: p.UpdateType})
	}, s.fabric(r))
}

func (s *server) ReplicationFabricsRemoveInfra(w http.ResponseWriter, r *http.Request, _, _, _, _ string, _ oas.ReplicationFabricsRemoveInfraParams) {
	s.removeFabric(w, r)
}

func (s *server) ReplicationFabricsRenewCertificate(w http.ResponseWriter, r *http.Request, _, _, _, _ string, _ oas.ReplicationFabricsRenewCertificateParams) {
	s.change(w, r, func(c *scope) (string, error) {
		in, err := body[oas.RenewCertificateInput](r)
		if err != nil {
			return "", err
		}
		return s.control.RenewCertificate(r.Context(), c.ref(""), in.Properties.RenewCertificateType)
	}, s.fabric(r))
}

func (s *server) ReplicationRecoveryServicesProvidersCreate(w http.ResponseWriter, r *http.Request, _, _, _, _, _ string, _ oas.ReplicationRecoveryServicesProvidersCreateParams) {
	s.change(w, r, func(c *scope) (string, error) {
		in, err := body[oas.AddRecoveryServicesProviderInput](r)
		if err != nil {
			return "", err
		}
		return s.control.PutProvider(r.Context(), c.ref("providerName"), control.ProviderInput{MachineName: in.Properties.MachineName, MachineID: in.Properties.MachineId})
	}, s.provider(r))
}
