package api

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"github.com/lifeboat-dr/lifeboat/api/oas"
	"github.com/lifeboat-dr/lifeboat/service/control"
	"github.com/lifeboat-dr/lifeboat/service/dr"
)

// recoveryKeyHeader carries a new recovery key, once.
const recoveryKeyHeader = "Lifeboat-Recovery-Key"

// vaultBody shows a vault. What a client asked for is shown as it was sent; what only the server knows is laid over it.
func vaultBody(v dr.Vault) oas.Vault {
	var kept oas.VaultProperties
	var identity oas.IdentityData
	_ = json.Unmarshal(v.Properties, &kept) // both were validated when they came in; absent ones are empty
	_ = json.Unmarshal(v.Identity, &identity)
	p := oas.VaultProperties{Encryption: kept.Encryption, MonitoringSettings: kept.MonitoringSettings, PublicNetworkAccess: kept.PublicNetworkAccess, RedundancySettings: kept.RedundancySettings,
		RestoreSettings: kept.RestoreSettings, SecuritySettings: kept.SecuritySettings,
		ProvisioningState: "Succeeded", PrivateEndpointStateForBackup: "None", PrivateEndpointStateForSiteRecovery: "None"}
	if p.PublicNetworkAccess == "" {
		p.PublicNetworkAccess = "Enabled"
	}
	return oas.Vault{Id: vaultPath(v.Key), Name: v.Key.Name, Type: typeVault, Location: v.Location, Tags: v.Tags, Etag: etag(v.Version),
		Sku:        oas.Sku{Name: oas.SkuName(v.SKU), Tier: v.SKUTier},
		SystemData: oas.SystemData{CreatedAt: v.Created, LastModifiedAt: v.Updated}, Identity: identity, Properties: p}
}

func etag(version int64) string { return fmt.Sprintf(`W/"%d"`, version) }

// wanted reads If-Match and If-None-Match. An etag that is not one of ours matches no version.
func wanted(r *http.Request) control.Precondition {
	p := control.Precondition{Absent: r.Header.Get("If-None-Match") == "*"}
	switch tag := strings.TrimSpace(r.Header.Get("If-Match")); tag {
	case "":
	case "*":
		p.Exists = true
	default:
		n, err := strconv.ParseInt(strings.Trim(strings.TrimPrefix(tag, "W/"), `"`), 10, 64)
		if err != nil || n <= 0 {
			n = -1
		}
		p.Version = n
	}
	return p
}

// kept is a part of a body as it was sent, or nil when it says nothing.
func kept(v any) json.RawMessage {
	raw, err := json.Marshal(v)
	must(err)
	if string(raw) == "{}" {
		return nil
	}
	return raw
}

// body decodes a body that validation let through. An absent one leaves the zero value.
func body[T any](r *http.Request) (v T, err error) {
	if r.ContentLength == 0 || r.Body == http.NoBody {
		return v, nil
	}
	if err := json.NewDecoder(r.Body).Decode(&v); err != nil {
		return v, &refusalError{refusal{Status: http.StatusBadRequest, Code: "InvalidRequestContent", Message: "the body does not fit the operation: " + err.Error(),
			Causes: "a field is of the wrong type", Action: "compare the body with /openapi.json"}}
	}
	return v, nil
}

func identityOf(in oas.IdentityData) json.RawMessage {
	if in.Type == "" {
		return nil
	}
	return kept(in)
}

func (s *server) VaultsListBySubscriptionId(w http.ResponseWriter, r *http.Request, subscription string, _ oas.VaultsListBySubscriptionIdParams) {
	s.listVaults(w, r, subscription, "")
}

func (s *server) VaultsListByResourceGroup(w http.ResponseWriter, r *http.Request, subscription, group string, _ oas.VaultsListByResourceGroupParams) {
	s.listVaults(w, r, subscription, group)
}

func (s *server) listVaults(w http.ResponseWriter, r *http.Request, subscription, group string) {
	p, err := s.paging(r)
	var page control.Page[dr.Vault]
	if err == nil {
		page, err = s.control.Vaults(r.Context(), subscription, group, p)
	}
	if err != nil {
		s.fail(w, r, err)
		return
	}
	out := collection[oas.Vault]{Value: make([]oas.Vault, 0, len(page.Items)), NextLink: s.nextLink(r, page.Next)}
	for _, v := range page.Items {
		out.Value = append(out.Value, vaultBody(v))
	}
	writeJSON(w, http.StatusOK, out)
}

func (s *server) VaultsGet(w http.ResponseWriter, r *http.Request, _, _, _ string, _ oas.VaultsGetParams) {
	s.getAndKeep(w, r, func(*http.Request) func(c *scope) (any, error) {
		return func(c *scope) (any, error) { return vaultBody(c.vault), nil }
	})
}

func (s *server) VaultsCreateOrUpdate(w http.ResponseWriter, r *http.Request, _, _, _ string, _ oas.VaultsCreateOrUpdateParams) {
	in, err := body[oas.Vault](r)
	var put control.PutVault
	if err == nil {
		put, err = s.control.PutVault(r.Context(), vaultKey(r), control.VaultInput{Location: in.Location, Tags: in.Tags, SKU: string(in.Sku.Name), SKUTier: in.Sku.Tier,
			Identity: identityOf(in.Identity), Properties: kept(in.Properties), If: wanted(r)})
	}
	if err != nil {
		s.fail(w, r, err)
		return
	}
	status := http.StatusOK
	if put.Created {
		status = http.StatusCreated
		w.Header().Set(recoveryKeyHeader, put.RecoveryKey)
	}
	writeJSON(w, status, vaultBody(put.Vault))
}

func (s *server) VaultsUpdate(w http.ResponseWriter, r *http.Request, _, _, _ string, _ oas.VaultsUpdateParams) {
	in, err := body[oas.PatchVault](r)
	var v dr.Vault
	if err == nil {
		patch := control.VaultPatch{Tags: in.Tags, Identity: identityOf(in.Identity), Properties: kept(in.Properties), If: wanted(r)}
		if in.Sku.Name != "" {
			patch.SKU = ptr(string(in.Sku.Name))
		}
		if in.Sku.Tier != "" {
			patch.SKUTier = ptr(in.Sku.Tier)
		}
		v, err = s.control.PatchVault(r.Context(), vaultKey(r), patch)
	}
	if err != nil {
		s.fail(w, r, err)
		return
	}
	writeJSON(w, http.StatusOK, vaultBody(v))
}

func (s *server) VaultsReissueRecoveryKey(w http.ResponseWriter, r *http.Request, _, _, _ string, _ oas.VaultsReissueRecoveryKeyParams) {
	s.change(w, r, func(c *scope) (string, error) {
		job, key, err := s.control.ReissueRecoveryKey(r.Context(), c.vault.ID)
		if err == nil {
			w.Header().Set(recoveryKeyHeader, key)
		}
		return job, err
	}, func(c *scope) (any, error) { return vaultBody(c.vault), nil })
}

// lastVersionWithDelete200 is the newest api-version whose clients take only 200 for a vault's DELETE; later ones want 204.
const lastVersionWithDelete200 = "2024-01-01"

func (s *server) VaultsDelete(w http.ResponseWriter, r *http.Request, _, _, _ string, _ oas.VaultsDeleteParams) {
	if err := s.control.DeleteVaultIf(r.Context(), vaultKey(r), wanted(r)); err != nil && dr.CodeOf(err) != dr.CodeNotFound {
		s.fail(w, r, err)
		return
	}
	if of(r).apiVersion <= lastVersionWithDelete200 {
		w.WriteHeader(http.StatusOK)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// GetOperationResult answers with the vault whatever the operation was about: clients take no 204 here.
func (s *server) GetOperationResult(w http.ResponseWriter, r *http.Request, _, _, _, _ string, _ oas.GetOperationResultParams) {
	s.succeeded(w, r, "operationId", func(c *scope, _ control.OperationResult) error {
		writeJSON(w, http.StatusOK, vaultBody(c.vault))
		return nil
	})
}

// ProvidersGet and ProvidersRegister satisfy clients that register the namespace before they use it (ref 2.11).
func (s *server) ProvidersGet(w http.ResponseWriter, _ *http.Request, subscription string, _ oas.ProvidersGetParams) {
	writeJSON(w, http.StatusOK, registered(subscription))
}

func (s *server) ProvidersRegister(w http.ResponseWriter, _ *http.Request, subscription string, _ oas.ProvidersRegisterParams) {
	writeJSON(w, http.StatusOK, registered(subscription))
}

func registered(subscription string) oas.ResourceProvider {
	const namespace = "Microsoft.RecoveryServices"
	return oas.ResourceProvider{Id: "/subscriptions/" + subscription + "/providers/" + namespace, Namespace: namespace, RegistrationState: "Registered"}
}
