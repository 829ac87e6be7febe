package control

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"strings"

	"github.com/lifeboat-dr/lifeboat/service/dr"
	"github.com/lifeboat-dr/lifeboat/service/job"
	"github.com/lifeboat-dr/lifeboat/service/store"
)

func vaultKey(k dr.VaultKey) string { return fold(k.Subscription, k.ResourceGroup, k.Name) }

// PutVault creates or replaces a vault. A created one's recovery key is in the answer and nowhere else.
func (s *Service) PutVault(ctx context.Context, key dr.VaultKey, in VaultInput) (PutVault, error) {
	if err := checkName("vault", key.Name); err != nil {
		return PutVault{}, err
	}
	if in.Location == "" {
		return PutVault{}, &dr.Error{Code: dr.CodeInvalid, Message: "location is missing", PossibleCauses: "the request has no location", RecommendedAction: "send the location the vault is to be in"}
	}
	var out PutVault
	err := s.store.Update(ctx, func(tx store.Tx) error {
		now := s.now()
		v, ok, err := find[dr.Vault](tx, KindVault, vaultKey(key))
		if err != nil {
			return err
		}
		out = PutVault{}
		if err := in.If.check(ok, v.Version); err != nil {
			return err
		}
		if !ok {
			v = dr.Vault{Meta: dr.Meta{Name: key.Name}, Key: key, ID: newID()}
			if out.RecoveryKey, err = s.makeSecrets(tx, &v); err != nil {
				return err
			}
			out.Created = true
			if _, err := tx.Put(KindVaultName, v.ID, 0, key); err != nil {
				return err
			}
		}
		if ok && !strings.EqualFold(v.Location, in.Location) {
			return &dr.Error{Code: dr.CodeConflict, Message: fmt.Sprintf("the vault is in %s and cannot move to %s", v.Location, in.Location),
				PossibleCauses: "location is fixed at creation", RecommendedAction: "send the vault's own location, or create another vault"}
		}
		v.Location, v.Tags = in.Location, maps.Clone(in.Tags)
		v.SKU, v.SKUTier = or(in.SKU, or(v.SKU, "RS0")), or(in.SKUTier, or(v.SKUTier, "Standard"))
		if in.Identity != nil {
			v.Identity = in.Identity
		}
		if in.Properties != nil {
			v.Properties = in.Properties
		}
		if err := save(tx, KindVault, vaultKey(key), &v, now); err != nil {
			return err
		}
		out.Vault = v
		return nil
	})
	return out, err
}

// makeSecrets makes and seals the keys of a new vault and returns its recovery key.
func (s *Service) makeSecrets(tx store.Tx, v *dr.Vault) (string, error) {
	secrets, recovery, err := s.makeVault(v.ID)
	if err != nil {
		return "", fmt.Errorf("make keys of vault %s: %w", v.ID, err)
	}
	plain, err := json.Marshal(secrets)
	if err != nil {
		return "", err
	}
	sealed, err := s.sealer.Seal(plain, secretsContext(v.ID))
	if err != nil {
		return "", fmt.Errorf("seal keys of vault %s: %w", v.ID, err)
	}
	if _, err := tx.Put(KindVaultSecrets, v.ID, 0, sealed); err != nil {
		return "", err
	}
	sum := sha256.Sum256([]byte(recovery))
	v.RecoveryKeyHash = sum[:]
	v.BucketURL = s.bucketURL(v.ID)
	return recovery, nil
}

func secretsContext(vaultID string) string { return "vault " + vaultID }

func or(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// Vault returns the vault at key.
func (s *Service) Vault(ctx context.Context, key dr.VaultKey) (v dr.Vault, err error) {
	err = s.store.View(ctx, func(tx store.Tx) error {
		v, err = load[dr.Vault](tx, KindVault, vaultKey(key))
		return err
	})
	return v, err
}

// VaultByID returns the vault with the ID.
func (s *Service) VaultByID(ctx context.Context, id string) (v dr.Vault, err error) {
	err = s.store.View(ctx, func(tx store.Tx) error {
		v, err = vaultByID(tx, id)
		return err
	})
	return v, err
}

func vaultByID(tx store.Tx, id string) (dr.Vault, error) {
	var key dr.VaultKey
	if _, err := tx.Get(KindVaultName, id, &key); err != nil {
		if errors.Is(err, store.ErrNotFound) {
			return dr.Vault{}, notFound(KindVault, id)
		}
		return dr.Vault{}, err
	}
	return load[dr.Vault](tx, KindVault, vaultKey(key))
}

// PatchVault changes a vault.
func (s *Service) PatchVault(ctx context.Context, key dr.VaultKey, in VaultPatch) (v dr.Vault, err error) {
	err = s.store.Update(ctx, func(tx store.Tx) error {
		if v, err = load[dr.Vault](tx, KindVault, vaultKey(key)); err != nil {
			return err
		}
		if err := in.If.check(true, v.Version); err != nil {
			return err
		}
		if in.Tags != nil {
			v.Tags = maps.Clone(in.Tags)
		}
		if in.Identity != nil {
			v.Identity = in.Identity
		}
		if len(v.Properties) == 0 {
			v.Properties = in.Properties
		} else if len(in.Properties) > 0 {
			if v.Properties, err = mergeObjects(v.Properties, in.Properties); err != nil {
				return err
			}
		}
		if in.SKU != nil {
			v.SKU = *in.SKU
		}
		if in.SKUTier != nil {
			v.SKUTier = *in.SKUTier
		}
		return save(tx, KindVault, vaultKey(key), &v, s.now())
	})
	return v, err
}

// DeleteVault removes a vault that holds nothing; deleting one that does not exist is not an error.
func (s *Service) DeleteVault(ctx context.Context, key dr.VaultKey) error {
	return s.DeleteVaultIf(ctx, key, Precondition{})
}

// DeleteVaultIf is DeleteVault for a vault in the version that the caller has read.
func (s *Service) DeleteVaultIf(ctx context.Context, key dr.VaultKey, want Precondition) error {
	return s.store.Update(ctx, func(tx store.Tx) error {
		v, ok, err := find[dr.Vault](tx, KindVault, vaultKey(key))
		if err != nil || !ok {
			return err
		}
		if err := want.check(true, v.Version); err != nil {
			return err
		}
		var in []string
		for _, k := range []store.Kind{KindItem, KindFabric} {
			names, err := namesUnder(tx, k, v.ID+"/")
			if err != nil {
				return err
			}
			in = append(in, names...)
		}
		if len(in) > 0 {
			return inUse("vault", v.Name, in, "remove the protected items, then the fabrics, then the vault")
		}
		if err := deleteJobs(tx, v.ID); err != nil {
			return err
		}
		for _, k := range append([]store.Kind{KindPolicy, KindRecoveryPlan, KindMapping, KindContainer, KindProtectable, KindProvider, KindVaultSetting, KindJob, KindEvent, KindRequest}, belowVault...) {
			if err := deleteUnder(tx, k, v.ID+"/"); err != nil {
				return err
			}
		}
		if err := tx.Delete(KindVaultName, v.ID, -1); err != nil {
			return err
		}
		// The bucket's objects stay: with the recovery key they can still be read. The sealed keys go with the vault.
		for _, k := range []store.Kind{KindVaultSecrets, KindVaultFile} {
			if err := tx.Delete(k, v.ID, -1); err != nil && !errors.Is(err, store.ErrNotFound) {
				return err
			}
		}
		return tx.Delete(KindVault, vaultKey(key), v.Version)
	})
}

// deleteJobs forgets what hangs on a vault's jobs besides the jobs themselves; those still running find nothing to go on with.
func deleteJobs(tx store.Tx, vault string) error {
	if err := tx.List(KindOpenJob, "", "", 0, func(key string, _ int64, decode func(any) error) error {
		var of string
		if err := decode(&of); err != nil || of != vault {
			return err
		}
		return tx.Delete(KindOpenJob, key, -1)
	}); err != nil {
		return err
	}
	return tx.List(KindJob, vault+"/", "", 0, func(_ string, _ int64, decode func(any) error) error {
		var j struct{ ID string }
		if err := decode(&j); err != nil {
			return err
		}
		return deleteUnder(tx, KindArtifact, j.ID+"/")
	})
}

// namesUnder lists the first resources under prefix in words, for refusals.
func namesUnder(tx store.Tx, kind store.Kind, prefix string) (out []string, err error) {
	err = tx.List(kind, prefix, "", 10, func(key string, _ int64, decode func(any) error) error {
		var m struct{ Name, FriendlyName string }
		if err := decode(&m); err != nil {
			return err
		}
		out = append(out, kindWords[kind]+" "+m.Name)
		return nil
	})
	return out, err
}

// inUse refuses a removal and lists what is in the way.
func inUse(word, name string, in []string, remedy string) error {
	return &dr.Error{Code: dr.CodeConflict, Message: fmt.Sprintf("%s %s is in use by: %s", word, name, strings.Join(in, ", ")),
		PossibleCauses: "resources that depend on it exist", RecommendedAction: remedy}
}

// checkName refuses names that cannot be a path segment.
func checkName(word, name string) error {
	bad := name == "" || len(name) > 260 || strings.ContainsAny(name, "/\\?#%") || strings.TrimSpace(name) != name
	for _, r := range name {
		bad = bad || r < 0x20 || r == 0x7f
	}
	if bad {
		return &dr.Error{Code: dr.CodeInvalid, Message: fmt.Sprintf("%q is not a name for a %s", name, word),
			PossibleCauses: "it is empty, longer than 260 characters, or has a slash, a question mark, a percent sign, a control character or a space at an end", RecommendedAction: "choose another name"}
	}
	return nil
}

// Vaults lists the vaults of a resource group, or of a subscription when resourceGroup is empty.
func (s *Service) Vaults(ctx context.Context, subscription, resourceGroup string, p Paging) (page Page[dr.Vault], err error) {
	err = s.store.View(ctx, func(tx store.Tx) error {
		page, err = list[dr.Vault](tx, KindVault, under(subscription, resourceGroup), p)
		return err
	})
	return page, err
}

// AllVaults lists every vault, for replicators.
func (s *Service) AllVaults(ctx context.Context) (vs []dr.Vault, err error) {
	err = s.store.View(ctx, func(tx store.Tx) error {
		vs, err = all[dr.Vault](tx, KindVault, "")
		return err
	})
	return vs, err
}

// VaultSecrets opens a vault's keys.
func (s *Service) VaultSecrets(ctx context.Context, vaultID string) (VaultSecrets, error) {
	var sealed []byte
	var file vaultFile
	err := s.store.View(ctx, func(tx store.Tx) error {
		_, err := tx.Get(KindVaultSecrets, vaultID, &sealed)
		if errors.Is(err, store.ErrNotFound) {
			return notFound(KindVaultSecrets, vaultID)
		}
		if err != nil {
			return err
		}
		file, err = loadVaultFile(tx, vaultID)
		return err
	})
	if err != nil {
		return VaultSecrets{}, err
	}
	plain, err := s.sealer.Open(sealed, secretsContext(vaultID))
	if err != nil {
		return VaultSecrets{}, fmt.Errorf("open keys of vault %s: %w", vaultID, err)
	}
	var out VaultSecrets
	if err := json.Unmarshal(plain, &out); err != nil {
		return VaultSecrets{}, err
	}
	switch {
	case file.Next != nil:
		out.VaultFile = nil
	case file.File != nil:
		out.VaultFile = file.File
	}
	return out, nil
}

// VaultSettings serves replicationVaultSettings.
func (s *Service) VaultSettings(ctx context.Context, vaultID string) ([]VaultSetting, error) {
	one, err := s.VaultSetting(ctx, vaultID, defaultSetting)
	return []VaultSetting{one}, err
}

const defaultSetting = "default"

// VaultSetting serves replicationVaultSettings. The default one always exists.
func (s *Service) VaultSetting(ctx context.Context, vaultID, name string) (out VaultSetting, err error) {
	err = s.store.View(ctx, func(tx store.Tx) error {
		_, err := tx.Get(KindVaultSetting, fold(vaultID, name), &out)
		if errors.Is(err, store.ErrNotFound) {
			if !strings.EqualFold(name, defaultSetting) {
				return notFound(KindVaultSetting, name)
			}
			out = VaultSetting{Name: defaultSetting}
			return nil
		}
		return err
	})
	return out, err
}

// PutVaultSetting serves replicationVaultSettings.
func (s *Service) PutVaultSetting(ctx context.Context, vaultID, name string, in VaultSetting) (VaultSetting, error) {
	if !strings.EqualFold(name, defaultSetting) {
		return VaultSetting{}, &dr.Error{Code: dr.CodeInvalid, Message: fmt.Sprintf("there is no vault setting %q", name), PossibleCauses: "the only one is default", RecommendedAction: "use the name default"}
	}
	in.Name = defaultSetting
	return in, s.store.Update(ctx, func(tx store.Tx) error {
		_, err := tx.Put(KindVaultSetting, fold(vaultID, name), -1, in)
		return err
	})
}

// RefreshVaultHealth evaluates the health of everything in the vault now. Health is judged whenever it is read, so there is
// nothing to do but to record it.
func (s *Service) RefreshVaultHealth(ctx context.Context, vaultID string) (string, error) {
	return s.atOnce(ctx, vaultID, job.PlanRefreshHealth, target{kind: "Other", id: vaultID, path: "replicationVaultHealth/default"}, nothing)
}

// LoadVaultKey tells where the vault with the ID lives.
func LoadVaultKey(tx store.Tx, id string) (dr.VaultKey, error) {
	v, err := vaultByID(tx, id)
	return v.Key, err
}
