package main

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/lifeboat-dr/lifeboat/replicator/repo"
	"github.com/lifeboat-dr/lifeboat/service/control"
	"github.com/lifeboat-dr/lifeboat/service/fleet"
)

// makeVault makes the keys of a new vault.
func makeVault(vaultID string) (control.VaultSecrets, string, error) {
	certificate, key, err := fleet.NewAuthority("Lifeboat vault "+vaultID, time.Now())
	if err != nil {
		return control.VaultSecrets{}, "", err
	}
	var data repo.Key
	grant := make([]byte, 32)
	_, _ = rand.Read(data[:]) // never fails (crypto/rand)
	_, _ = rand.Read(grant)
	recovery := repo.NewRecoveryKey()
	file, err := repo.NewVaultFile(vaultID, data, recovery)
	if err != nil {
		return control.VaultSecrets{}, "", err
	}
	return control.VaultSecrets{DataKey: data[:], VaultFile: file, CACertificate: certificate, CAKey: key, GrantKey: grant}, recovery, nil
}

// wrapKey wraps a vault's data key under a new recovery key.
func wrapKey(vaultID string, dataKey []byte) (file []byte, recovery string, err error) {
	var data repo.Key
	if len(dataKey) != len(data) {
		return nil, "", fmt.Errorf("data key has %d bytes", len(dataKey))
	}
	copy(data[:], dataKey)
	recovery = repo.NewRecoveryKey()
	file, err = repo.NewVaultFile(vaultID, data, recovery)
	return file, recovery, err
}

// writeFile replaces a file so that a crash leaves the old or the new one whole.
func writeFile(path string, content []byte, mode os.FileMode) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name())
		}
	}()
	_, err = f.Write(content)
	if err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
