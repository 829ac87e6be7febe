// Package keyfile keeps secrets at rest under a key in a file of this host. It must never write a secret or the key anywhere
// but there, nor show them in an error.
package keyfile

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

	"gocloud.dev/secrets"
	"gocloud.dev/secrets/localsecrets"
)

// Sealer seals under one key. What is sealed names its purpose inside, so that one sealed secret cannot be put in another's
// place. Safe for concurrent use.
type Sealer struct{ keeper *secrets.Keeper }

// Open reads the key file, making it with a fresh key when there is none.
func Open(path string) (*Sealer, error) {
	raw, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		key := make([]byte, 32)
		_, _ = rand.Read(key) // never fails (crypto/rand)
		raw = []byte(base64.URLEncoding.EncodeToString(key) + "\n")
		err = create(path, raw)
	}
	if err != nil {
		return nil, fmt.Errorf("open key file: %w", err)
	}
	key, err := localsecrets.Base64Key(strings.TrimSpace(string(raw)))
	if err != nil {
		return nil, fmt.Errorf("open key file %s: it holds no key of 32 bytes in base64", path)
	}
	return &Sealer{localsecrets.NewKeeper(key)}, nil
}

// create writes the key so that a crash leaves it whole or not at all. What is there already is not replaced: secrets may be
// sealed under it.
func create(path string, content []byte) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*") // made with mode 0600
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.Remove(f.Name())) }()
	_, err = f.Write(content)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Link(f.Name(), path)
}

// Close ends the use of the key.
func (s *Sealer) Close() error { return s.keeper.Close() }

// Seal returns plain encrypted and authenticated, for Open with the same purpose.
func (s *Sealer) Seal(plain []byte, purpose string) ([]byte, error) {
	framed := binary.BigEndian.AppendUint32(nil, uint32(len(purpose)))
	framed = append(framed, purpose...)
	framed = append(framed, plain...)
	return s.keeper.Encrypt(context.Background(), framed) // local: nothing to wait for
}

// Open returns what Seal was given with the same purpose.
func (s *Sealer) Open(sealed []byte, purpose string) ([]byte, error) {
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
