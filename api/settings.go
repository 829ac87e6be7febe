package api

import (
	"net/http"

	"github.com/lifeboat-dr/lifeboat/api/oas"
	"github.com/lifeboat-dr/lifeboat/service/control"
	"github.com/lifeboat-dr/lifeboat/service/dr"
)

const (
	typeAlert        = typeVault + "/replicationAlertSettings"
	typeVaultSetting = typeVault + "/replicationVaultSettings"
)

func alertBody(c *scope, a dr.AlertSetting) oas.Alert {
	return oas.Alert{Id: c.base + "/replicationAlertSettings/" + a.Name, Name: a.Name, Type: typeAlert,
		Properties: oas.AlertProperties{SendToOwners: a.SendToOwners, CustomEmailAddresses: orEmpty(a.Addresses), Locale: a.Locale}}
}

func vaultSettingBody(c *scope, v control.VaultSetting) oas.VaultSetting {
	return oas.VaultSetting{Id: c.base + "/replicationVaultSettings/" + v.Name, Name: v.Name, Type: typeVaultSetting,
		Properties: oas.VaultSettingProperties{MigrationSolutionId: v.MigrationSolutionID, VmwareToAzureProviderType: v.VMwareToAzureProviderType}}
}

func (s *server) ReplicationAlertSettingsList(w http.ResponseWriter, r *http.Request, _, _, _ string, _ oas.ReplicationAlertSettingsListParams) {
	s.get(w, r, func(c *scope) (any, error) {
		a, err := s.control.AlertSetting(r.Context(), c.vault.ID, control.DefaultAlertSetting)
		return collection[oas.Alert]{Value: []oas.Alert{alertBody(c, a)}}, err
	})
}

func (s *server) ReplicationAlertSettingsGet(w http.ResponseWriter, r *http.Request, _, _, _, name string, _ oas.ReplicationAlertSettingsGetParams) {
	s.get(w, r, func(c *scope) (any, error) {
		a, err := s.control.AlertSetting(r.Context(), c.vault.ID, name)
		return alertBody(c, a), err
	})
}

func (s *server) ReplicationAlertSettingsCreate(w http.ResponseWriter, r *http.Request, _, _, _, name string, _ oas.ReplicationAlertSettingsCreateParams) {
	s.get(w, r, func(c *scope) (any, error) {
		in, err := body[oas.ConfigureAlertRequest](r)
		if err != nil {
			return nil, err
		}
		p := in.Properties
		a, err := s.control.PutAlertSetting(r.Context(), c.vault.ID, name, control.AlertInput{SendToOwners: p.SendToOwners, Addresses: p.CustomEmailAddresses, Locale: p.Locale})
		return alertBody(c, a), err
	})
}

func (s *server) ReplicationVaultSettingList(w http.ResponseWriter, r *http.Request, _, _, _ string, _ oas.ReplicationVaultSettingListParams) {
	s.get(w, r, func(c *scope) (any, error) {
		found, err := s.control.VaultSettings(r.Context(), c.vault.ID)
		out := collection[oas.VaultSetting]{Value: []oas.VaultSetting{}}
		for _, v := range found {
			out.Value = append(out.Value, vaultSettingBody(c, v))
		}
		return out, err
	})
}

func (s *server) ReplicationVaultSettingGet(w http.ResponseWriter, r *http.Request, _, _, _, name string, _ oas.ReplicationVaultSettingGetParams) {
	s.get(w, r, func(c *scope) (any, error) {
		v, err := s.control.VaultSetting(r.Context(), c.vault.ID, name)
		return vaultSettingBody(c, v), err
	})
}

// ReplicationVaultSettingCreate answers 200 at once, without headers to poll: clients accept nothing else here (ref 2.7).
func (s *server) ReplicationVaultSettingCreate(w http.ResponseWriter, r *http.Request, _, _, _, name string, _ oas.ReplicationVaultSettingCreateParams) {
	s.get(w, r, func(c *scope) (any, error) {
		in, err := body[oas.VaultSettingCreationInput](r)
		if err != nil {
			return nil, err
		}
		v, err := s.control.PutVaultSetting(r.Context(), c.vault.ID, name, control.VaultSetting{MigrationSolutionID: in.Properties.MigrationSolutionId, VMwareToAzureProviderType: in.Properties.VmwareToAzureProviderType})
		return vaultSettingBody(c, v), err
	})
}
