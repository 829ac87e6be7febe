package repo

import (
	"crypto/hkdf"
	"crypto/sha256"
	"strings"

	"github.com/lifeboat-dr/lifeboat/replicator/block"
	"github.com/lifeboat-dr/lifeboat/replicator/chunk"
	"github.com/lifeboat-dr/lifeboat/replicator/manifest"
)

// keyring derives a vault's keys from its data key.
type keyring struct{ prk []byte }

func newKeyring(vaultID string, k Key) keyring {
	prk, err := hkdf.Extract(sha256.New, k[:], []byte(vaultID))
	if err != nil {
		panic(err) // only in a FIPS mode that forbids the key's length, which is fixed
	}
	return keyring{prk}
}

func (k keyring) derive(info ...string) [32]byte {
	out, err := hkdf.Expand(sha256.New, k.prk, strings.Join(info, "\x00"), 32)
	if err != nil {
		panic(err) // the length is constant
	}
	return [32]byte(out)
}

func (k keyring) record() manifest.RecordKey { return k.derive("lifeboat record v1") }

func (k keyring) frames(machine string, pack manifest.ID) *chunk.Cipher {
	return chunk.NewCipher(k.derive("lifeboat frame v1", machine, pack.String()))
}

func (k keyring) pages(machine string, m manifest.ID) [32]byte {
	return k.derive("lifeboat page v1", machine, m.String())
}

func (k keyring) sums(machine, disk string) block.SumKey {
	return k.derive("lifeboat sum v1", machine, disk)
}
