package profile

import (
	"maps"
	"math/bits"
	"slices"
	"time"

	"github.com/lifeboat-dr/lifeboat/replicator/block"
)

// intervals are the lengths over which what is written again is looked for, besides the epochs and the time between points.
var intervals = []time.Duration{time.Minute, 15 * time.Minute, time.Hour}

// level unites the epochs of an interval: a block that is written in several of them counts once.
type level struct {
	length time.Duration
	epochs int // in an interval

	seen blockSet
	n    int   // epochs in seen
	open epoch // all of seen as one
	all  epoch // complete intervals, as one
}

// levels returns those of a configuration, shortest first.
func levels(c Config) (out []*level) {
	lengths := append([]time.Duration{c.Every, c.PointEvery}, intervals...)
	slices.Sort(lengths)
	for _, l := range slices.Compact(lengths) {
		if l >= c.Every {
			out = append(out, &level{length: l, epochs: max(1, int((l+c.Every/2)/c.Every)), seen: blockSet{}})
		}
	}
	return out
}

func (l *level) begin() {
	clear(l.seen)
	l.n, l.open = 0, epoch{}
}

// add returns true when the interval is complete; then the caller calls begin.
func (l *level) add(e epoch, es []block.Extent) bool {
	l.seen.add(es)
	l.n++
	l.open.span, l.open.written = l.open.span+e.span, l.open.written+e.written
	if l.n < l.epochs {
		return false
	}
	l.open.changed = l.seen.bytes()
	l.all.add(l.open)
	return true
}

// total is what complete intervals add up to; of a run that was too short for one, what there is of it.
func (l *level) total() (s epoch, complete bool) {
	if l.all.span > 0 {
		return l.all, true
	}
	s = l.open
	s.changed = l.seen.bytes()
	return s, false
}

// blockSet is a set of blocks: 256 of them, a MiB of the disk, in an entry. It takes some 80 bytes for each MiB that was touched.
type blockSet map[int64]*[4]uint64

const setBlocks = 256

func (s blockSet) add(es []block.Extent) {
	for _, e := range es {
		for b, end := e.Offset/block.Size, (e.End()+block.Size-1)/block.Size; b < end; b++ {
			words := s[b/setBlocks]
			if words == nil {
				words = new([4]uint64)
				s[b/setBlocks] = words
			}
			words[b%setBlocks/64] |= 1 << (b % 64)
		}
	}
}

func (s blockSet) bytes() (n int64) {
	for _, words := range s {
		for _, w := range words {
			n += int64(bits.OnesCount64(w))
		}
	}
	return n * block.Size
}

// extents returns the blocks of a disk of size bytes, sorted and coalesced.
func (s blockSet) extents(size int64) (out []block.Extent) {
	for _, window := range slices.Sorted(maps.Keys(s)) {
		words := s[window]
		for i := range int64(setBlocks) {
			if words[i/64]&(1<<(i%64)) == 0 {
				continue
			}
			off := (window*setBlocks + i) * block.Size
			if n := len(out); n > 0 && out[n-1].End() == off {
				out[n-1].Length += block.Size
				continue
			}
			out = append(out, block.Extent{Offset: off, Length: block.Size})
		}
	}
	if n := len(out); n > 0 && out[n-1].End() > size {
		out[n-1].Length = size - out[n-1].Offset
	}
	return out
}
