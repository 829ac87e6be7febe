package ebpf

import (
	"math/bits"
	"sync/atomic"

	"github.com/lifeboat-dr/lifeboat/replicator/block"
)

// side is a bitmap as tracker.bpf.c marks it: words of single bits, a bit for 1<<shift sectors; behind them one bit for each word,
// which stands for all of it.
type side struct {
	mem   []uint64
	words int
	shift uint32
}

// layout returns the granule for a disk: the smallest of at least 4 KiB with which a bitmap is not too large.
func layout(sectors int64) (words int, shift uint32) {
	for shift = 3; ; shift++ {
		granules := (sectors + 1<<shift - 1) >> shift
		if words = int((granules + 63) / 64); words*8 <= bitmap {
			return max(words, 1), shift
		}
	}
}

// length is how many words the bitmap has with those that stand for others.
func length(words int) int { return words + (words+63)/64 }

// runs puts extents together from the bits of words that ascend.
type runs struct {
	shift uint32
	limit int64 // the disk's size
	out   []block.Extent
}

func (r *runs) add(word int, v uint64) {
	for v != 0 {
		from := bits.TrailingZeros64(v)
		n := bits.TrailingZeros64(^(v >> from))
		start := (int64(word)*64 + int64(from)) << r.shift * sector
		end := min(start+int64(n)<<r.shift*sector, r.limit)
		if last := len(r.out) - 1; last >= 0 && r.out[last].End() == start {
			r.out[last].Length = end - r.out[last].Offset
		} else if start < end {
			r.out = append(r.out, block.Extent{Offset: start, Length: end - start})
		}
		if from+n == 64 {
			return
		}
		v &^= 1<<(from+n) - 1
	}
}

// harvest returns the extents that are marked and clears the marks, each after it is in kept: whenever this process ends, a mark is
// in one of them. Nobody else writes to the side. kept has the same granule.
func (s *side) harvest(kept []uint64, limit int64) []block.Extent {
	r := runs{shift: s.shift, limit: limit}
	for group := 0; group*64 < s.words; group++ {
		whole := s.mem[s.words+group]
		for w := group * 64; w < min(s.words, group*64+64); w++ {
			v := s.mem[w]
			if whole>>(w&63)&1 == 1 {
				v = ^uint64(0)
			}
			if v == 0 {
				continue
			}
			r.add(w, v)
			atomic.OrUint64(&kept[w], v)
			atomic.StoreUint64(&s.mem[w], 0)
		}
		if whole != 0 {
			atomic.StoreUint64(&s.mem[s.words+group], 0)
		}
	}
	return r.out
}

// marked returns the extents of a bitmap of single bits.
func marked(words []uint64, shift uint32, limit int64) []block.Extent {
	r := runs{shift: shift, limit: limit}
	for w, v := range words {
		if v != 0 {
			r.add(w, v)
		}
	}
	return r.out
}

// mask returns the bits of a word that the extents touch, and the extents that may touch the words behind it.
func mask(es []block.Extent, word int, shift uint32) (uint64, []block.Extent) {
	granule := int64(sector) << shift
	start := int64(word) * 64 * granule
	end := start + 64*granule
	var v uint64
	for len(es) > 0 && es[0].Offset < end {
		e := es[0]
		if e.End() > start {
			from, to := (max(e.Offset, start)-start)/granule, (min(e.End(), end)-start-1)/granule
			v |= ^uint64(0) << from & (^uint64(0) >> (63 - to))
		}
		if e.End() > end {
			break
		}
		es = es[1:]
	}
	return v, es
}

// keep sets the bitmap to the extents, which are sorted. A bit that is set before and after is never clear in between.
func keep(words []uint64, es []block.Extent, shift uint32) {
	for w := range words {
		var v uint64
		if v, es = mask(es, w, shift); v != words[w] {
			atomic.StoreUint64(&words[w], v)
		}
	}
}
