package api

import (
	"net"
	"net/http"

	"github.com/lifeboat-dr/lifeboat/api/oas"
	"github.com/lifeboat-dr/lifeboat/service/control"
)

func hostOf(address string) (string, bool) {
	host, _, err := net.SplitHostPort(address)
	return host, err == nil && host != ""
}

func providerBody(c *scope, v control.ProviderView) oas.RecoveryServicesProvider {
	p := v.Provider
	connection := "NotConnected"
	if v.Connected {
		connection = "Connected"
	}
	return oas.RecoveryServicesProvider{Id: c.fabric(p.Fabric) + "/replicationRecoveryServicesProviders/" + p.Name, Name: p.Name, Type: typeProvider,
		Properties: oas.RecoveryServicesProviderProperties{FabricType: string(v.Fabric.Kind), FriendlyName: p.Hostname, ProviderVersion: p.AgentVersion,
			ServerVersion: p.AgentVersion, ProviderVersionState: "Latest", FabricFriendlyName: v.Fabric.Name, LastHeartBeat: p.LastHeartbeat,
			ConnectionStatus: connection, ProtectedItemCount: ptr(int32(v.Items)), AllowedScenarios: []string{"Refresh"},
			HealthErrorDetails: []oas.HealthError{}, DraIdentifier: p.ID, MachineId: p.ReplicatorID, MachineName: p.Hostname,
			ProviderVersionDetails: oas.VersionDetails{Version: p.AgentVersion, Status: "Supported"}}}
}

func (s *server) provider(r *http.Request) func(c *scope) (any, error) {
	return shown(func(c *scope) (control.ProviderView, error) {
		return s.control.Provider(r.Context(), c.ref("providerName"))
	}, providerBody)
}

func (s *server) listProviders(w http.ResponseWriter, r *http.Request) {
	list(s, w, r, func(c *scope, p control.Paging) (control.Page[control.ProviderView], error) {
		return s.control.Providers(r.Context(), c.ref(""), p)
	}, providerBody)
}

func (s *server) ReplicationRecoveryServicesProvidersList(w http.ResponseWriter, r *http.Request, _, _, _ string, _ oas.ReplicationRecoveryServicesProvidersListParams) {
	s.listProviders(w, r)
}

func (s *server) ReplicationRecoveryServicesProvidersListByReplicationFabrics(w http.ResponseWriter, r *http.Request, _, _, _, _ string, _ oas.ReplicationRecoveryServicesProvidersListByReplicationFabricsParams) {
	s.listProviders(w, r)
}

func (s *server) ReplicationRecoveryServicesProvidersGet(w http.ResponseWriter, r *http.Request, _, _, _, _, _ string, _ oas.ReplicationRecoveryServicesProvidersGetParams) {
	s.get(w, r, s.provider(r))
}

func (s *server) removeProvider(w http.ResponseWriter, r *http.Request) {
	s.remove(w, r, func(c *scope) (string, error) { return s.control.RemoveProvider(r.Context(), c.ref("providerName")) })
}

func (s *server) ReplicationRecoveryServicesProvidersPurge(w http.ResponseWriter, r *http.Request, _, _, _, _, _ string, _ oas.ReplicationRecoveryServicesProvidersPurgeParams) {
	s.removeProvider(w, r)
}

func (s *server) ReplicationRecoveryServicesProvidersDelete(w http.ResponseWriter, r *http.Request, _, _, _, _, _ string, _ oas.ReplicationRecoveryServicesProvidersDeleteParams) {
	s.removeProvider(w, r)
}

func (s *server) ReplicationRecoveryServicesProvidersRefreshProvider(w http.ResponseWriter, r *http.Request, _, _, _, _, _ string, _ oas.ReplicationRecoveryServicesProvidersRefreshProviderParams) {
	s.change(w, r, func(c *scope) (string, error) {
		return s.control.RefreshProvider(r.Context(), c.ref("providerName"))
	}, s.provider(r))
}

func (s *server) ReplicationRecoveryServicesProvidersOperationResult(w http.ResponseWriter, r *http.Request, _, _, _, _, _, _ string, _ oas.ReplicationRecoveryServicesProvidersOperationResultParams) {
	s.operationResult(w, r, "jobId", s.provider(r))
}
