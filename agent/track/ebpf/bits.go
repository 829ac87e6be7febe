package ebpf

import (
	"sync/atomic"

	"github.com/lifeboat-dr/lifeboat/agent/track/bitmap"
	"github.com/lifeboat-dr/lifeboat/replicator/block"
)

// side is a bitmap as tracker.bpf.c marks it: words of single bits, a bit for 1<<shift sectors; behind them one bit for each word,
// which stands for all of it.
type side struct {
	mem   []uint64
	words int
	shift uint32
}

// length is how many words the bitmap has with those that stand for others.
func length(words int) int { return words + (words+63)/64 }

// harvest returns the extents that are marked and clears the marks, each after it is in kept: whenever this process ends, a mark is
// in one of them. Nobody else writes to the side. kept has the same granule.
func (s *side) harvest(kept []uint64, limit int64) []block.Extent {
	r := bitmap.Runs{Shift: s.shift, Limit: limit}
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
			r.Add(w, v)
			atomic.OrUint64(&kept[w], v)
			atomic.StoreUint64(&s.mem[w], 0)
		}
		if whole != 0 {
			atomic.StoreUint64(&s.mem[s.words+group], 0)
		}
	}
	return r.Out
}
