package repo

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/lifeboat-dr/lifeboat/replicator/manifest"
)

const (
	vaultFormat = 1
	vaultWrap   = "hkdf-aes256gcm"
	// maxVaultFile bounds vault.json in bytes.
	maxVaultFile = 64 << 10
)

// vaultFile is the form of vault.json.
type vaultFile struct {
	Format     int    `json:"format"`
	VaultID    string `json:"vaultId"`
	Wrap       string `json:"wrap"`
	Nonce      []byte `json:"nonce"`
	WrappedKey []byte `json:"wrappedKey"`
}

// crockford is base32 without letters that look like digits.
var crockford = base32.NewEncoding("0123456789ABCDEFGHJKMNPQRSTVWXYZ").WithPadding(base32.NoPadding)

const (
	recoveryChars = 52 // of 32 bytes
	checkChars    = 4
	recoveryGroup = 8
)

// NewRecoveryKey returns a fresh recovery key for people to print: seven groups of eight characters, the last four of which
// catch typing errors.
func NewRecoveryKey() string {
	var k [32]byte
	rand.Read(k[:]) // never fails
	return formatRecoveryKey(k)
}

func formatRecoveryKey(k [32]byte) string {
	s := crockford.EncodeToString(k[:]) + checkOf(k)
	var b strings.Builder
	for i := 0; i < len(s); i += recoveryGroup {
		if i > 0 {
			b.WriteByte('-')
		}
		b.WriteString(s[i : i+recoveryGroup])
	}
	return b.String()
}

func checkOf(k [32]byte) string {
	sum := sha256.Sum256(k[:])
	return crockford.EncodeToString(sum[:])[:checkChars]
}

func parseRecoveryKey(s string) (k [32]byte, err error) {
	s = strings.ToUpper(s)
	s = strings.Map(func(r rune) rune {
		switch r {
		case ' ', '-', '\t', '\n', '\r':
			return -1
		case 'O':
			return '0'
		case 'I', 'L':
			return '1'
		}
		return r
	}, s)
	if len(s) != recoveryChars+checkChars {
		return k, fmt.Errorf("%w: %d characters, want %d", ErrRecoveryKey, len(s), recoveryChars+checkChars)
	}
	p, err := crockford.DecodeString(s[:recoveryChars])
	if err != nil || len(p) != len(k) {
		return k, fmt.Errorf("%w: not a recovery key", ErrRecoveryKey)
	}
	k = [32]byte(p)
	if checkOf(k) != s[recoveryChars:] {
		return k, fmt.Errorf("%w: mistyped, the last four characters do not match", ErrRecoveryKey)
	}
	return k, nil
}

func wrapper(recovery [32]byte, vaultID string) (cipher.AEAD, error) {
	kek, err := hkdf.Key(sha256.New, recovery[:], []byte(vaultID), "lifeboat vault key v1", 32)
	if err != nil {
		return nil, err
	}
	b, err := aes.NewCipher(kek)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(b)
}

// NewVaultFile returns vault.json: the data key, wrapped under the recovery key. Whoever holds both can read the vault.
func NewVaultFile(vaultID string, dataKey Key, recoveryKey string) ([]byte, error) {
	if !manifest.ValidName(vaultID) {
		return nil, fmt.Errorf("%w: vault id %q", ErrInvalid, vaultID)
	}
	recovery, err := parseRecoveryKey(recoveryKey)
	if err != nil {
		return nil, err
	}
	a, err := wrapper(recovery, vaultID)
	if err != nil {
		return nil, fmt.Errorf("wrap data key of vault %s: %w", vaultID, err)
	}
	nonce := make([]byte, a.NonceSize())
	rand.Read(nonce)
	return json.MarshalIndent(vaultFile{Format: vaultFormat, VaultID: vaultID, Wrap: vaultWrap, Nonce: nonce,
		WrappedKey: a.Seal(nil, nonce, dataKey[:], []byte(vaultID))}, "", "  ")
}

func parseVaultFile(p []byte) (vaultFile, error) {
	var v vaultFile
	if len(p) > maxVaultFile {
		return v, &CorruptError{Object: vaultName, Err: fmt.Errorf("%d bytes are too many", len(p))}
	}
	d := json.NewDecoder(bytes.NewReader(p))
	if err := d.Decode(&v); err != nil {
		return v, &CorruptError{Object: vaultName, Err: err}
	}
	if v.Format != vaultFormat || v.Wrap != vaultWrap {
		return v, &CorruptError{Object: vaultName, Err: fmt.Errorf("format %d with wrap %q is unknown", v.Format, v.Wrap)}
	}
	if !manifest.ValidName(v.VaultID) {
		return v, &CorruptError{Object: vaultName, Err: fmt.Errorf("vault id %q", v.VaultID)}
	}
	return v, nil
}

// Unwrap returns the vault's id and data key. It returns ErrRecoveryKey when the key is mistyped, belongs to another vault or
// the file was changed.
func Unwrap(file []byte, recoveryKey string) (vaultID string, k Key, err error) {
	v, err := parseVaultFile(file)
	if err != nil {
		return "", k, err
	}
	recovery, err := parseRecoveryKey(recoveryKey)
	if err != nil {
		return "", k, err
	}
	a, err := wrapper(recovery, v.VaultID)
	if err != nil {
		return "", k, fmt.Errorf("unwrap data key of vault %s: %w", v.VaultID, err)
	}
	if len(v.Nonce) != a.NonceSize() {
		return "", k, &CorruptError{Object: vaultName, Err: fmt.Errorf("nonce of %d bytes", len(v.Nonce))}
	}
	p, err := a.Open(nil, v.Nonce, v.WrappedKey, []byte(v.VaultID))
	if err != nil || len(p) != len(k) {
		return "", k, fmt.Errorf("%w: it does not open vault %s", ErrRecoveryKey, v.VaultID)
	}
	return v.VaultID, Key(p), nil
}
