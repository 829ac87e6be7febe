package control

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"errors"
	"fmt"
)

// KeySealer is a Sealer with one 256-bit key, AES-GCM and a version byte in front.
type KeySealer struct{ aead cipher.AEAD }

const sealVersion = 1

// NewKeySealer returns a Sealer under key.
func NewKeySealer(key [32]byte) (*KeySealer, error) {
	b, err := aes.NewCipher(key[:])
	if err != nil {
		return nil, err
	}
	aead, err := cipher.NewGCM(b)
	if err != nil {
		return nil, err
	}
	return &KeySealer{aead}, nil
}

// Seal implements Sealer.
func (k *KeySealer) Seal(plain []byte, context string) ([]byte, error) {
	nonce := make([]byte, k.aead.NonceSize())
	if _, err := rand.Read(nonce); err != nil {
		return nil, err
	}
	return k.aead.Seal(append([]byte{sealVersion}, nonce...), nonce, plain, []byte(context)), nil
}

// Open implements Sealer.
func (k *KeySealer) Open(sealed []byte, context string) ([]byte, error) {
	n := k.aead.NonceSize()
	if len(sealed) < 1+n || sealed[0] != sealVersion {
		return nil, errors.New("sealed secret has an unknown format")
	}
	plain, err := k.aead.Open(nil, sealed[1:1+n], sealed[1+n:], []byte(context))
	if err != nil {
		return nil, fmt.Errorf("open sealed secret (%s): wrong key, or altered: %w", context, err)
	}
	return plain, nil
}
