// Package bucketcheck reads a vault's bucket from docs/formats.md alone. It is the second opinion on everything that
// replicator/repo stores and promises: it shares no code with it, and must never import replicator. It opens the vault with
// the recovery key, checks the rules of the point log, authenticates every byte of every point and rebuilds disk images.
// It reads only local buckets (a directory), trusts nothing and writes nothing. Vaults are small here: whole maps are
// kept in memory.
package bucketcheck

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base32"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// ErrBroken is what everything is that contradicts the format or its rules.
var ErrBroken = errors.New("bucket broken")

func broken(format string, args ...any) error {
	return fmt.Errorf("%w: %w", ErrBroken, fmt.Errorf(format, args...))
}

// Vault is an opened vault.
type Vault struct {
	ID  string
	dir string // of the vault's objects
	key []byte
}

// Vaults lists the vaults of a bucket directory.
func Vaults(dir string) ([]string, error) { return names(filepath.Join(dir, "vaults")) }

// names lists a directory, sorted; nothing when it is not there. Names that start with a dot are no objects.
func names(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var list []string
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), ".") {
			list = append(list, e.Name())
		}
	}
	slices.Sort(list)
	return list, err
}

// crockford is the recovery key's alphabet.
var crockford = base32.NewEncoding("0123456789ABCDEFGHJKMNPQRSTVWXYZ").WithPadding(base32.NoPadding)

// Open opens a vault with its printed recovery key.
func Open(dir, vault, recoveryKey string) (*Vault, error) {
	v := &Vault{ID: vault, dir: filepath.Join(dir, "vaults", vault)}
	raw, err := v.object("vault.json")
	if err != nil {
		return nil, err
	}
	var file struct {
		Format     int    `json:"format"`
		VaultID    string `json:"vaultId"`
		Wrap       string `json:"wrap"`
		Nonce      []byte `json:"nonce"`
		WrappedKey []byte `json:"wrappedKey"`
	}
	if err := strict(raw, &file); err != nil {
		return nil, broken("vault.json: %w", err)
	}
	if file.Format != 1 || file.VaultID != vault || file.Wrap != "hkdf-aes256gcm" || len(file.Nonce) != 12 {
		return nil, broken("vault.json says format %d, vault %s, wrap %s", file.Format, file.VaultID, file.Wrap)
	}
	printed := strings.NewReplacer("-", "", " ", "", "O", "0", "I", "1", "L", "1").Replace(strings.ToUpper(recoveryKey))
	if len(printed) != 56 {
		return nil, fmt.Errorf("recovery key has %d characters, want 56", len(printed))
	}
	secret, err := crockford.DecodeString(printed[:52])
	if err != nil {
		return nil, fmt.Errorf("recovery key: %w", err)
	}
	sum := sha256.Sum256(secret)
	if crockford.EncodeToString(sum[:])[:4] != printed[52:] {
		return nil, errors.New("recovery key: wrong check characters")
	}
	wrapping, err := hkdf.Key(sha256.New, secret, []byte(vault), "lifeboat vault key v1", 32)
	if err != nil {
		return nil, err
	}
	if v.key, err = open(wrapping, file.Nonce, file.WrappedKey, []byte(vault)); err != nil || len(v.key) != 32 {
		return nil, broken("the data key does not unwrap with this recovery key")
	}
	return v, nil
}

// open authenticates and decrypts AES-256-GCM.
func open(key, nonce, sealed, data []byte) ([]byte, error) {
	b, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	g, err := cipher.NewGCM(b)
	if err != nil {
		return nil, err
	}
	return g.Open(nil, nonce, sealed, data)
}

func nonce(n uint32) []byte {
	return binary.LittleEndian.AppendUint32(make([]byte, 8, 12), n)
}

// derive returns the key for a use.
func (v *Vault) derive(info ...string) []byte {
	k, err := hkdf.Key(sha256.New, v.key, []byte(v.ID), strings.Join(info, "\x00"), 32)
	if err != nil {
		panic(err) // only for lengths no hash can give
	}
	return k
}

func strict(data []byte, into any) error {
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	return d.Decode(into)
}

// object reads a whole object. The local bucket appends attributes to a file whose content type is unusual: JSON, length,
// checksum, magic.
func (v *Vault) object(name string) ([]byte, error) {
	b, err := os.ReadFile(filepath.Join(v.dir, filepath.FromSlash(name)))
	if err != nil {
		return nil, err
	}
	return withoutAttributes(b), nil
}

func withoutAttributes(b []byte) []byte {
	const footer = 16
	if len(b) >= footer && string(b[len(b)-8:]) == "LBattrs\x01" {
		if n := int(binary.LittleEndian.Uint32(b[len(b)-footer:])); n <= len(b)-footer {
			return b[:len(b)-footer-n]
		}
	}
	return b
}

// part reads length bytes at offset of an object.
func (v *Vault) part(name string, offset, length int64) ([]byte, error) {
	if offset < 0 || length < 0 || length > 64<<20 {
		return nil, broken("object %s: part of %d bytes at %d", name, length, offset)
	}
	f, err := os.Open(filepath.Join(v.dir, filepath.FromSlash(name)))
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	b := make([]byte, length)
	if _, err := io.ReadFull(io.NewSectionReader(f, offset, length), b); err != nil {
		return nil, broken("object %s: read %d bytes at %d: %w", name, length, offset, err)
	}
	return b, nil
}

// record checks a record object and returns its body.
func (v *Vault) record(kind, name string) ([]byte, error) {
	b, err := v.object(name)
	if err != nil {
		return nil, err
	}
	if len(b) < 16+32 || string(b[:4]) != "LBFT" || string(b[4:8]) != kind {
		return nil, broken("object %s is no %s record", name, kind)
	}
	if version := binary.LittleEndian.Uint16(b[8:]); version != 1 || binary.LittleEndian.Uint16(b[10:]) != 0 {
		return nil, broken("object %s: version %d", name, version)
	}
	n := int(binary.LittleEndian.Uint32(b[12:]))
	if n > 16<<20 || len(b) != 16+n+32 {
		return nil, broken("object %s: body of %d bytes in %d", name, n, len(b))
	}
	mac := hmac.New(sha256.New, v.derive("lifeboat record v1"))
	mac.Write(binary.LittleEndian.AppendUint16(nil, uint16(len(name))))
	mac.Write([]byte(name))
	mac.Write(b[:16+n])
	if !hmac.Equal(mac.Sum(nil), b[16+n:]) {
		return nil, broken("object %s does not authenticate", name)
	}
	return b[16 : 16+n], nil
}
