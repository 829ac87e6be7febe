package profile

import (
	"crypto/rand"
	"fmt"
	randv2 "math/rand/v2"
	"slices"

	"github.com/lifeboat-dr/lifeboat/agent/source"
	"github.com/lifeboat-dr/lifeboat/agent/track"
	"github.com/lifeboat-dr/lifeboat/replicator/block"
	"github.com/lifeboat-dr/lifeboat/replicator/chunk"
)

// piece is how much is read at a place: enough for a compressor to find what repeats nearby.
const piece = 64 << 10

// sampler reads some of what changed and stores it as a recovery point would, only that it keeps nothing but the sizes.
type sampler struct {
	reader *source.Reader
	limit  int64 // bytes an epoch
	buf    []byte
	plain  []byte
	sealed []byte
	cipher *chunk.Cipher

	read, zero     int64 // bytes sampled, and those of blocks of zeros, which cost nothing
	packed, stored int64 // bytes with content, and what they take in the repository
}

func newSampler(r *source.Reader, limit int64) *sampler {
	var key [32]byte
	_, _ = rand.Read(key[:]) // never fails (crypto/rand)
	return &sampler{reader: r, limit: limit, buf: r.Buffer(piece), plain: make([]byte, 0, chunk.MaxPlain), sealed: make([]byte, 0, chunk.SealBound(chunk.MaxPlain, 1)),
		cipher: chunk.NewCipher(key)}
}

// look samples the extents: all of them when they are few, else pieces from places drawn evenly over what changed. The disk may
// have been written since; then it is the newer content that is looked at.
func (s *sampler) look(es []block.Extent) error {
	for _, e := range choose(es, s.limit) {
		b := s.buf[:e.Length]
		n, err := s.reader.ReadAt(b, e.Offset)
		if int64(n) < e.Length {
			return fmt.Errorf("read a sample at %d: %w", e.Offset, err)
		}
		s.read += e.Length
		for off := int64(0); off < e.Length; off += block.Size {
			p := b[off:min(off+block.Size, e.Length)]
			if block.IsZero(p) {
				s.zero += int64(len(p))
				continue
			}
			s.plain = append(s.plain, p...)
			s.plain = append(s.plain, make([]byte, block.Size-len(p))...) // the disk's last block may be shorter
			if len(s.plain)+block.Size > chunk.MaxPlain {
				s.flush()
			}
		}
	}
	s.flush()
	return nil
}

// flush stores what was gathered. All frames have the same index, and so the same nonce: they go nowhere.
func (s *sampler) flush() {
	if len(s.plain) == 0 {
		return
	}
	s.sealed = s.cipher.Seal(s.sealed[:0], chunk.Zstd, 0, []chunk.Run{{Blocks: int64(len(s.plain)) / block.Size}}, s.plain)
	s.packed, s.stored = s.packed+int64(len(s.plain)), s.stored+int64(len(s.sealed))
	s.plain = s.plain[:0]
}

// choose cuts the extents into pieces and returns as many as are within the limit, in order.
func choose(es []block.Extent, limit int64) (out []block.Extent) {
	all := track.Bytes(es)
	if all == 0 {
		return nil
	}
	cut := func(e block.Extent) {
		for off := e.Offset; off < e.End(); off += piece {
			out = append(out, block.Extent{Offset: off, Length: min(piece, e.End()-off)})
		}
	}
	if all <= limit {
		for _, e := range es {
			cut(e)
		}
		return out
	}
	// One place in each of equal parts, so that no region is left out.
	places := limit / piece
	part := all / places
	var passed int64 // bytes of extents before es[0]
	for i := range places {
		at := i*part + randv2.Int64N(part)
		for at >= passed+es[0].Length {
			passed += es[0].Length
			es = es[1:]
		}
		off := es[0].Offset + (at-passed)/block.Size*block.Size
		e := block.Extent{Offset: off, Length: min(piece, es[0].End()-off)}
		if n := len(out); n > 0 && out[n-1].End() > e.Offset {
			continue
		}
		out = append(out, e)
	}
	return slices.Clip(out)
}
