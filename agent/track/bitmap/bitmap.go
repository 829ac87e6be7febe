// Package bitmap turns bitmaps of what was written to a disk into extents and back. A bit stands for a granule of 1<<shift sectors.
package bitmap

import (
	"math/bits"
	"sync/atomic"

	"github.com/lifeboat-dr/lifeboat/replicator/block"
)

const (
	sector  = 512
	largest = 4 << 20 // bytes of a bitmap
)

// Layout returns the granule for a disk: the smallest of at least 4 KiB with which a bitmap is not too large.
func Layout(sectors int64) (words int, shift uint32) {
	for shift = 3; ; shift++ {
		granules := (sectors + 1<<shift - 1) >> shift
		if words = int((granules + 63) / 64); words*8 <= largest {
			return max(words, 1), shift
		}
	}
}

// Mark sets the bits of a range of sectors. It returns false when some of it is beyond the bitmap.
func Mark(words []uint64, shift uint32, first, count int64) bool {
	if count <= 0 {
		return true
	}
	from, to := first>>shift, (first+count-1)>>shift
	if first < 0 || to < from {
		return false
	}
	inside := to < int64(len(words))*64
	for g := from; g <= to && g < int64(len(words))*64; {
		last := min(to, g|63)
		words[g>>6] |= ^uint64(0) << (g & 63) & (^uint64(0) >> (63 - last&63))
		g = last + 1
	}
	return inside
}

// Runs puts extents together from the bits of words that ascend.
type Runs struct {
	Shift uint32
	Limit int64          // the disk's size in bytes; nothing beyond it is reported
	Out   []block.Extent // sorted and apart
}

// Add takes the bits of a word, behind those that were added before.
func (r *Runs) Add(word int, v uint64) {
	for v != 0 {
		from := bits.TrailingZeros64(v)
		n := bits.TrailingZeros64(^(v >> from))
		start := (int64(word)*64 + int64(from)) << r.Shift * sector
		end := min(start+int64(n)<<r.Shift*sector, r.Limit)
		if last := len(r.Out) - 1; last >= 0 && r.Out[last].End() == start {
			r.Out[last].Length = end - r.Out[last].Offset
		} else if start < end {
			r.Out = append(r.Out, block.Extent{Offset: start, Length: end - start})
		}
		if from+n == 64 {
			return
		}
		v &^= 1<<(from+n) - 1
	}
}

// Extents returns the extents of a bitmap of single bits.
func Extents(words []uint64, shift uint32, limit int64) []block.Extent {
	r := Runs{Shift: shift, Limit: limit}
	for w, v := range words {
		if v != 0 {
			r.Add(w, v)
		}
	}
	return r.Out
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

// Set sets the bitmap to the extents, which are sorted. A bit that is set before and after is never clear in between.
func Set(words []uint64, es []block.Extent, shift uint32) {
	for w := range words {
		var v uint64
		if v, es = mask(es, w, shift); v != words[w] {
			atomic.StoreUint64(&words[w], v)
		}
	}
}
