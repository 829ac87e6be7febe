// Package block owns the addressing of disks: extents, the 4 KiB unit of recovery points, zero tests and compare sums. It
// does no I/O and keeps no state between calls.
package block

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"math/bits"
)

// Size is the unit in which recovery points address a disk, in bytes. A disk whose length is no multiple of it ends in a
// shorter block (a multiple of Sector).
const Size = 4096

// Sector is the smallest piece of a disk, in bytes.
const Sector = 512

// Extent is the half-open byte range [Offset, Offset+Length) of one disk.
type Extent struct {
	Offset int64
	Length int64
}

// End returns the first byte after the extent.
func (e Extent) End() int64 { return e.Offset + e.Length }

// Overlaps tells whether the two ranges share a byte.
func (e Extent) Overlaps(o Extent) bool { return e.Offset < o.End() && o.Offset < e.End() }

// Count returns the number of blocks in size bytes, the short tail included.
func Count(size int64) int64 { return (size + Size - 1) / Size }

var zeros [64 << 10]byte

// IsZero tells whether every byte of p is zero. An empty p is zero.
func IsZero(p []byte) bool {
	for len(p) > len(zeros) {
		if !bytes.Equal(p[:len(zeros)], zeros[:]) {
			return false
		}
		p = p[len(zeros):]
	}
	return bytes.Equal(p, zeros[:len(p)])
}

// Sum is the compare sum of one block: equal sums of two blocks under one key mean equal bytes. The zero Sum stands for a
// block of zeros and never comes out of Summer.Of for other content (chance 2^-128).
type Sum [16]byte

// SumKey makes sums useless to those who do not hold it. One key belongs to one disk of one machine; the repository derives
// it from the vault's data key and the process server hands it to the agent.
type SumKey [32]byte

// Summer makes the compare sums of one disk. Safe for concurrent use.
type Summer struct {
	permutation cipher.Block
	mac         cipher.AEAD
}

// NewSummer returns the Summer of a key.
func NewSummer(k SumKey) *Summer {
	permutation, err := aes.NewCipher(k[:])
	if err != nil {
		panic(err) // the length of a SumKey is one of AES's
	}
	mac, err := cipher.NewGCM(permutation)
	if err != nil {
		panic(err) // the block of AES is that of GCM
	}
	return &Summer{permutation: permutation, mac: mac}
}

// sumNonce is one for all sums: what GCM authenticates under it is encrypted once more, so that sums tell nothing of the key.
var sumNonce [12]byte

// Of returns the compare sum of one block: zero for a block of zeros, else AES-256(key, GMAC), where GMAC is the tag of AES-256-GCM
// under the key and a nonce of zeros for an empty text with the block as additional data. Chance that two different blocks have the
// same sum: 2^-119.
func (s *Summer) Of(p []byte) (sum Sum) {
	if IsZero(p) {
		return Sum{}
	}
	tag := s.mac.Seal(sum[:0], sumNonce[:], nil, p)
	s.permutation.Encrypt(tag, tag)
	return Sum(tag)
}

// Bitmap holds one bit a block. The zero value has no bits; make one with NewBitmap. Not safe for concurrent use.
type Bitmap struct {
	words []uint64
	n     int64
}

// NewBitmap returns a bitmap of n clear bits.
func NewBitmap(n int64) *Bitmap { return &Bitmap{words: make([]uint64, (n+63)/64), n: n} }

// Len returns the number of bits.
func (b *Bitmap) Len() int64 { return b.n }

// Set sets bit i.
func (b *Bitmap) Set(i int64) { b.words[i>>6] |= 1 << uint(i&63) }

// Clear clears bit i.
func (b *Bitmap) Clear(i int64) { b.words[i>>6] &^= 1 << uint(i&63) }

// Get returns bit i.
func (b *Bitmap) Get(i int64) bool { return b.words[i>>6]&(1<<uint(i&63)) != 0 }

// Count returns the number of set bits.
func (b *Bitmap) Count() int64 {
	var c int
	for _, w := range b.words {
		c += bits.OnesCount64(w)
	}
	return int64(c)
}
