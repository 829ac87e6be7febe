package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/lifeboat-dr/lifeboat/service/dr"
	"github.com/lifeboat-dr/lifeboat/service/store"
)

// Precondition is what a caller wants of a resource's version. The zero value wants nothing.
type Precondition struct {
	Exists  bool
	Absent  bool
	Version int64 // it must be this one; 0: any
}

func (p Precondition) check(exists bool, version int64) error {
	if p.Exists && !exists || p.Absent && exists || p.Version != 0 && (!exists || p.Version != version) {
		return &dr.Error{Code: dr.CodePreconditionFailed, Message: "the resource is not in the version that the request asks for", PossibleCauses: "it was changed, made or removed since the caller read it",
			RecommendedAction: "read it again and use its etag"}
	}
	return nil
}

// ExtendedInfo are values that a client keeps with a vault. Lifeboat does not use them.
type ExtendedInfo struct {
	IntegrityKey, EncryptionKey, EncryptionKeyThumbprint, Algorithm string
}

func extendedKey(vaultID string) string { return fold(vaultID, "extended") }

func extendedContext(vaultID string) string { return "extended info " + vaultID }

// PutExtendedInfo keeps a client's values sealed. With merge, empty ones leave what was kept before. It returns what is kept and
// its version.
func (s *Service) PutExtendedInfo(ctx context.Context, vaultID string, in ExtendedInfo, merge bool) (out ExtendedInfo, version int64, err error) {
	err = s.store.Update(ctx, func(tx store.Tx) error {
		old, ok, err := find[dr.VaultExtendedInfo](tx, KindVaultExtended, extendedKey(vaultID))
		if err != nil {
			return err
		}
		out = in
		if ok && merge {
			was, err := s.openExtended(vaultID, old)
			if err != nil {
				return err
			}
			out = ExtendedInfo{or(in.IntegrityKey, was.IntegrityKey), or(in.EncryptionKey, was.EncryptionKey), or(in.EncryptionKeyThumbprint, was.EncryptionKeyThumbprint), or(in.Algorithm, was.Algorithm)}
		}
		plain, err := json.Marshal(out)
		if err != nil {
			return err
		}
		old.Name = "vaultExtendedInfo"
		if old.Sealed, err = s.sealer.Seal(plain, extendedContext(vaultID)); err != nil {
			return fmt.Errorf("seal extended information of vault %s: %w", vaultID, err)
		}
		err = save(tx, KindVaultExtended, extendedKey(vaultID), &old, s.now())
		version = old.Version
		return err
	})
	return out, version, err
}

// ExtendedInfo returns what a client left with the vault, and its version.
func (s *Service) ExtendedInfo(ctx context.Context, vaultID string) (out ExtendedInfo, version int64, err error) {
	err = s.store.View(ctx, func(tx store.Tx) error {
		kept, err := load[dr.VaultExtendedInfo](tx, KindVaultExtended, extendedKey(vaultID))
		if err != nil {
			return err
		}
		version = kept.Version
		out, err = s.openExtended(vaultID, kept)
		return err
	})
	return out, version, err
}

func (s *Service) openExtended(vaultID string, kept dr.VaultExtendedInfo) (out ExtendedInfo, err error) {
	plain, err := s.sealer.Open(kept.Sealed, extendedContext(vaultID))
	if err != nil {
		return out, fmt.Errorf("open extended information of vault %s: %w", vaultID, err)
	}
	return out, json.Unmarshal(plain, &out)
}

// PutCredential keeps a certificate as the vault's registration credential under a name.
func (s *Service) PutCredential(ctx context.Context, vaultID, name string, certificate []byte) error {
	if err := checkName("credential", name); err != nil {
		return err
	}
	return s.store.Update(ctx, func(tx store.Tx) error {
		c, _, err := find[dr.VaultCredential](tx, KindVaultCredential, fold(vaultID, name))
		if err != nil {
			return err
		}
		c.Name, c.Vault, c.Certificate = name, vaultID, certificate
		return save(tx, KindVaultCredential, fold(vaultID, name), &c, s.now())
	})
}

// Unregister tells agents of the vault with the id or host name to stop and forget, and drops a credential of that name. It is
// not an error when there is neither. Agents of protected machines are refused.
func (s *Service) Unregister(ctx context.Context, vaultID, name string) error {
	return s.store.Update(ctx, func(tx store.Tx) error {
		now := s.now()
		agents, err := all[dr.Agent](tx, KindAgent, "")
		if err != nil {
			return err
		}
		for _, a := range agents {
			if a.Vault != vaultID || a.Unregistered || !strings.EqualFold(a.ID, name) && !strings.EqualFold(a.Hostname, name) {
				continue
			}
			if err := unregister(tx, a, now); err != nil {
				return err
			}
		}
		if err := tx.Delete(KindVaultCredential, fold(vaultID, name), -1); err != nil && !errors.Is(err, store.ErrNotFound) {
			return err
		}
		return nil
	})
}

func unregister(tx store.Tx, a dr.Agent, now time.Time) error {
	var items []string
	if err := tx.List(KindAgentItem, a.ID+"/", "", 10, func(_ string, _ int64, decode func(any) error) error {
		var key string
		err := decode(&key)
		items = append(items, "protected item "+lastSegment(key))
		return err
	}); err != nil {
		return err
	}
	if len(items) > 0 {
		return inUse("agent", a.Hostname, items, "remove the protected items, then the registration")
	}
	a.Unregistered = true
	return save(tx, KindAgent, a.ID, &a, now)
}

// VaultNameFree tells whether a vault may be created under the key; reason is AlreadyExists or Invalid when not, message says
// more.
func (s *Service) VaultNameFree(ctx context.Context, key dr.VaultKey) (free bool, reason, message string, err error) {
	if bad, ok := errors.AsType[*dr.Error](checkName("vault", key.Name)); ok {
		return false, "Invalid", bad.PossibleCauses, nil
	}
	_, err = s.Vault(ctx, key)
	switch {
	case dr.CodeOf(err) == dr.CodeNotFound:
		return true, "", "", nil
	case err != nil:
		return false, "", "", err
	}
	return false, "AlreadyExists", fmt.Sprintf("a vault named %s exists in the resource group", key.Name), nil
}
