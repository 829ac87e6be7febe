package main

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"gocloud.dev/secrets"
	"gocloud.dev/secrets/localsecrets"

	"github.com/lifeboat-dr/lifeboat/replicator/repo"
	"github.com/lifeboat-dr/lifeboat/service/control"
	"github.com/lifeboat-dr/lifeboat/service/fleet"
)

// sealer keeps secrets at rest under a key file of this host. What is sealed names its purpose inside, so that one sealed
// secret cannot be put in another's place.
type sealer struct{ keeper *secrets.Keeper }

var _ control.Sealer = sealer{}

// openSealer reads the key file, making it at the first start.
func openSealer(path string) (sealer, error) {
	raw, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		key := make([]byte, 32)
		_, _ = rand.Read(key) // never fails (crypto/rand)
		raw = []byte(base64.URLEncoding.EncodeToString(key) + "\n")
		err = writeFile(path, raw, 0o600)
	}
	if err != nil {
		return sealer{}, fmt.Errorf("open key file: %w", err)
	}
	key, err := localsecrets.Base64Key(strings.TrimSpace(string(raw)))
	if err != nil {
		return sealer{}, fmt.Errorf("open key file %s: it holds no key of 32 bytes in base64", path)
	}
	return sealer{localsecrets.NewKeeper(key)}, nil
}

// Seal implements control.Sealer.
func (s sealer) Seal(plain []byte, purpose string) ([]byte, error) {
	framed := binary.BigEndian.AppendUint32(nil, uint32(len(purpose)))
	framed = append(framed, purpose...)
	framed = append(framed, plain...)
	return s.keeper.Encrypt(context.Background(), framed) // local: nothing to wait for
}

// Open implements control.Sealer.
func (s sealer) Open(sealed []byte, purpose string) ([]byte, error) {
	framed, err := s.keeper.Decrypt(context.Background(), sealed) // local: nothing to wait for
	if err != nil {
		return nil, fmt.Errorf("open sealed secret: %w", err)
	}
	if len(framed) < 4 {
		return nil, errors.New("open sealed secret: it is too short")
	}
	n, rest := binary.BigEndian.Uint32(framed), framed[4:]
	if uint64(n) > uint64(len(rest)) || string(rest[:n]) != purpose {
		return nil, errors.New("open sealed secret: it was sealed for another purpose")
	}
	return rest[n:], nil
}

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
