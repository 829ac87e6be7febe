// Package chunk owns the stored form of data: frames (compressed, then encrypted, authenticated pieces of disks) and the packs
// that hold them. It does no I/O of its own and never returns bytes that did not authenticate. The layout is in
// docs/formats.md.
package chunk

import (
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	"github.com/lifeboat-dr/lifeboat/replicator/block"
)

// Limits of format version 1.
const (
	MaxPlain    = 1 << 20 // plain bytes in a frame
	MaxBlocks   = MaxPlain / block.Size
	MaxRuns     = 4096      // runs in a frame
	MaxRunTable = 128 << 10 // bytes of the run table
	MaxFrames   = 1 << 16   // frames in a pack
	MaxPack     = 1 << 30   // bytes of a pack

	frameMagic   = "LBFR"
	frameVersion = 1
	fixedHeader  = 24
	tagSize      = 16
	// MaxFrame is the most bytes a frame takes in a pack.
	MaxFrame = fixedHeader + MaxRunTable + 4 + MaxPlain + tagSize
	// MinFrame is the least: a header and the tag of an empty payload.
	MinFrame = fixedHeader + 4 + tagSize
)

// Errors of this package.
var (
	// ErrFormat means that bytes are not what the format says. Bytes cut short are also ErrFormat.
	ErrFormat = errors.New("chunk: malformed")
	// ErrAuth means that a payload does not belong to its key, place or header.
	ErrAuth = errors.New("chunk: authentication failed")
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Run is a range of blocks of one disk inside a frame. Hole runs have no data; the others take theirs from the frame's plain
// bytes in order.
type Run struct {
	Disk   int // place in the pack header's list
	Hole   bool
	First  int64 // block
	Blocks int64
}

// Frame is a frame's header.
type Frame struct {
	Codec   Codec
	Index   uint32
	Plain   int // bytes
	Payload int // bytes, tag included
	Header  int // bytes
	Runs    []Run
}

// Size returns the bytes the frame takes in its pack.
func (f *Frame) Size() int { return f.Header + f.Payload }

// Cipher encrypts and decrypts the frames of one pack. Safe for concurrent use.
type Cipher struct{ aead cipher.AEAD }

// NewCipher returns the Cipher for a pack's frame key.
func NewCipher(key [32]byte) *Cipher {
	b, err := aes.NewCipher(key[:])
	if err != nil {
		panic(err) // the key has the right length by its type
	}
	g, err := cipher.NewGCM(b)
	if err != nil {
		panic(err)
	}
	return &Cipher{aead: g}
}

func nonce(n uint32) []byte {
	var b [12]byte
	binary.LittleEndian.PutUint32(b[8:], n)
	return b[:]
}

// SealBound returns the room that Seal needs for a frame of plain bytes and runs.
func SealBound(plain, runs int) int {
	return fixedHeader + runs*3*binary.MaxVarintLen64 + 4 + compressBound(plain) + tagSize
}

// Seal appends the frame of plain to dst, compressed with codec when that helps. Each index may be sealed only once a Cipher:
// it is the nonce. It panics when plain or runs break the format's limits, which is for the caller to keep. It allocates only
// when dst lacks SealBound of room.
func (c *Cipher) Seal(dst []byte, codec Codec, index uint32, runs []Run, plain []byte) []byte {
	checkLimits(index, runs, plain)
	if need := SealBound(len(plain), len(runs)); cap(dst)-len(dst) < need {
		grown := make([]byte, len(dst), len(dst)+need)
		copy(grown, dst)
		dst = grown
	}
	start := len(dst)
	out := append(dst, make([]byte, fixedHeader)...)
	out = appendRuns(out, runs)
	table := len(out) - start - fixedHeader
	if table > MaxRunTable {
		panic("chunk: run table too long")
	}
	header := len(out) - start + 4
	out = append(out, 0, 0, 0, 0)
	body := len(out)
	packed := plain
	if len(plain) == 0 {
		codec = Raw
	} else {
		packed, codec = compressed(out, plain, codec)
	}
	h := out[start : start+header]
	copy(h, frameMagic)
	h[4], h[5] = frameVersion, byte(codec)
	le := binary.LittleEndian
	le.PutUint16(h[6:], uint16(len(runs)))
	le.PutUint32(h[8:], index)
	le.PutUint32(h[12:], uint32(len(plain)))
	le.PutUint32(h[16:], uint32(len(packed)+tagSize))
	le.PutUint32(h[20:], uint32(table))
	le.PutUint32(h[header-4:], crc32.Checksum(h[:header-4], castagnoli))
	return c.aead.Seal(out[:body], nonce(index), packed, h)
}

func checkLimits(index uint32, runs []Run, plain []byte) {
	var blocks int64
	for _, r := range runs {
		if !r.Hole {
			blocks += r.Blocks
		}
	}
	if len(plain) > MaxPlain || len(runs) > MaxRuns || index >= MaxFrames || blocks*block.Size != int64(len(plain)) {
		panic(fmt.Sprintf("chunk: frame %d with %d runs of %d blocks and %d bytes", index, len(runs), blocks, len(plain)))
	}
}

func appendRuns(out []byte, runs []Run) []byte {
	var end int64
	for _, r := range runs {
		v := uint64(r.Disk) << 1
		if r.Hole {
			v |= 1
		}
		out = binary.AppendUvarint(out, v)
		out = binary.AppendVarint(out, r.First-end)
		out = binary.AppendUvarint(out, uint64(r.Blocks))
		end = r.First + r.Blocks
	}
	return out
}

// Parse reads the header of the frame at the start of p. It does not authenticate: that is Open's work.
func Parse(p []byte) (Frame, error) {
	f, table, err := parseFixed(p)
	if err != nil {
		return Frame{}, err
	}
	var blocks int64
	f.Runs, blocks, err = parseRuns(p[fixedHeader:fixedHeader+table], int(binary.LittleEndian.Uint16(p[6:])))
	if err != nil {
		return Frame{}, err
	}
	if blocks*block.Size != int64(f.Plain) {
		return Frame{}, fmt.Errorf("%w: runs of %d blocks in a frame of %d bytes", ErrFormat, blocks, f.Plain)
	}
	return f, nil
}

func parseFixed(p []byte) (f Frame, table int, err error) {
	if len(p) < MinFrame || string(p[:4]) != frameMagic {
		return f, 0, fmt.Errorf("%w: no frame here", ErrFormat)
	}
	if p[4] != frameVersion {
		return f, 0, fmt.Errorf("%w: frame version %d is unknown", ErrFormat, p[4])
	}
	le := binary.LittleEndian
	f.Codec = Codec(p[5])
	runs := int(le.Uint16(p[6:]))
	f.Index = le.Uint32(p[8:])
	plain, payload, t := le.Uint32(p[12:]), le.Uint32(p[16:]), le.Uint32(p[20:])
	if f.Codec > S2 || runs > MaxRuns || f.Index >= MaxFrames || plain > MaxPlain || plain%block.Size != 0 ||
		payload < tagSize || payload > MaxPlain+tagSize || t > MaxRunTable || (plain == 0) != (payload == tagSize) {
		return f, 0, fmt.Errorf("%w: frame header out of limits", ErrFormat)
	}
	f.Plain, f.Payload, table = int(plain), int(payload), int(t)
	f.Header = fixedHeader + table + 4
	if len(p) < f.Header {
		return f, 0, fmt.Errorf("%w: frame header cut short", ErrFormat)
	}
	if crc32.Checksum(p[:f.Header-4], castagnoli) != le.Uint32(p[f.Header-4:]) {
		return f, 0, fmt.Errorf("%w: frame header checksum", ErrFormat)
	}
	return f, table, nil
}

func parseRuns(t []byte, n int) (runs []Run, blocks int64, err error) {
	if n > len(t)/3 { // a run takes three bytes at least
		return nil, 0, fmt.Errorf("%w: %d runs in %d bytes", ErrFormat, n, len(t))
	}
	runs = make([]Run, 0, n)
	var end int64
	for range n {
		var r Run
		v, a := binary.Uvarint(t)
		if a <= 0 || v > 1<<17 {
			return nil, 0, fmt.Errorf("%w: run table", ErrFormat)
		}
		d, b := binary.Varint(t[a:])
		if b <= 0 {
			return nil, 0, fmt.Errorf("%w: run table", ErrFormat)
		}
		c, e := binary.Uvarint(t[a+b:])
		if e <= 0 {
			return nil, 0, fmt.Errorf("%w: run table", ErrFormat)
		}
		t = t[a+b+e:]
		r.Disk, r.Hole, r.First, r.Blocks = int(v>>1), v&1 == 1, end+d, int64(c)
		if c == 0 || c > block.MaxBlocks || d > block.MaxBlocks || d < -block.MaxBlocks || r.First < 0 || r.First+r.Blocks > block.MaxBlocks {
			return nil, 0, fmt.Errorf("%w: run out of range", ErrFormat)
		}
		if !r.Hole {
			blocks += r.Blocks
		}
		if blocks > MaxBlocks {
			return nil, 0, fmt.Errorf("%w: too many blocks", ErrFormat)
		}
		end = r.First + r.Blocks
		runs = append(runs, r)
	}
	if len(t) != 0 {
		return nil, 0, fmt.Errorf("%w: run table too long", ErrFormat)
	}
	return runs, blocks, nil
}

// PlainSize returns how many plain bytes the frame at the start of p says that it has. Nothing is authenticated yet.
func PlainSize(p []byte) (int, error) {
	f, _, err := parseFixed(p)
	return f.Plain, err
}

// Open authenticates the frame at the start of p, which must be number index of the Cipher's pack, and returns its plain
// bytes. p is used as working space: its content is undefined afterwards.
func (c *Cipher) Open(p []byte, index uint32) ([]byte, error) { return c.OpenInto(nil, p, index) }

// OpenInto is Open, but the plain bytes are put into dst, over what it holds, if they fit into its capacity. After an error
// dst's content is undefined.
func (c *Cipher) OpenInto(dst, p []byte, index uint32) ([]byte, error) {
	f, _, err := parseFixed(p)
	if err != nil {
		return nil, err
	}
	if f.Index != index || len(p) < f.Size() {
		return nil, fmt.Errorf("%w: frame %d of %d bytes, want frame %d in %d bytes", ErrFormat, f.Index, f.Size(), index, len(p))
	}
	body := p[f.Header:f.Size()]
	body, err = c.aead.Open(body[:0], nonce(index), body, p[:f.Header])
	if err != nil {
		return nil, fmt.Errorf("%w: frame %d", ErrAuth, index)
	}
	if f.Plain == 0 {
		return nil, nil
	}
	if cap(dst) < f.Plain {
		dst = make([]byte, 0, f.Plain)
	}
	return decompressed(dst[:0], body, f.Codec, f.Plain)
}
