package repo

import (
	"context"
	"slices"
	"sort"

	"github.com/lifeboat-dr/lifeboat/replicator/block"
	"github.com/lifeboat-dr/lifeboat/replicator/manifest"
)

// memLayer is the newest layer of one disk while it is being written: what was Put and is in no stored map yet. Runs lie in
// regions so that a write in the middle moves little. It implements manifest.RunReader.
//
// Invariant: the runs of a region are sorted, do not overlap, and lie inside the region.
type memLayer struct {
	held    *held
	regions map[int64]*[]memRun
	order   []int64 // the regions' keys, sorted
	runs    int
}

// regionBlocks is 64 MiB of disk.
const regionBlocks = 1 << 14

// memRun is a run inside a region.
type memRun struct {
	first uint16 // block of the region
	n     uint16 // blocks
	at    uint16 // first block inside the frame
	frame int32  // place in held.frames, holeFrame for a hole
	sums  int32  // place of the first sum in held.sums
}

const holeFrame = -1

func (r *memRun) end() uint16 { return r.first + r.n }

// held is what the memLayers of one writer share.
type held struct {
	frames []*frameAt
	sums   []block.Sum
}

// frameAt says where a frame went. Its place is known when the pipeline has passed a barrier.
type frameAt struct {
	pack   manifest.ID
	offset uint32
	length uint32
	index  uint16
}

func newMemLayer(h *held) *memLayer { return &memLayer{held: h, regions: make(map[int64]*[]memRun)} }

func (m *memLayer) reset() {
	clear(m.regions)
	m.order, m.runs = m.order[:0], 0
}

// put lays [first, first+n) over what is there.
func (m *memLayer) put(first, n int64, frame int32, at uint16, sums int32) {
	for n > 0 {
		key := first / regionBlocks
		in := first - key*regionBlocks
		part := min(n, regionBlocks-in)
		m.putRegion(key, memRun{first: uint16(in), n: uint16(part), at: at, frame: frame, sums: sums})
		first, n = first+part, n-part
		if frame != holeFrame {
			at, sums = at+uint16(part), sums+int32(part)
		}
	}
}

func (m *memLayer) putRegion(key int64, r memRun) {
	p := m.regions[key]
	if p == nil {
		p = new([]memRun)
		m.regions[key] = p
		i, _ := slices.BinarySearch(m.order, key)
		m.order = slices.Insert(m.order, i, key)
	}
	runs := *p
	before := len(runs)
	lo := sort.Search(len(runs), func(i int) bool { return runs[i].end() > r.first })
	if lo == len(runs) && lo > 0 && runs[lo-1].continues(&r) {
		runs[lo-1].n += r.n
		return
	}
	hi := lo + sort.Search(len(runs)-lo, func(i int) bool { return runs[lo+i].first >= r.end() })
	var with [3]memRun
	n := 0
	if lo < hi && runs[lo].first < r.first {
		with[n] = runs[lo]
		with[n].n = r.first - runs[lo].first
		n++
	}
	with[n] = r
	n++
	if lo < hi && runs[hi-1].end() > r.end() {
		last := runs[hi-1]
		cut := r.end() - last.first
		last.first, last.n = r.end(), last.n-cut
		if last.frame != holeFrame {
			last.at, last.sums = last.at+cut, last.sums+int32(cut)
		}
		with[n] = last
		n++
	}
	*p = slices.Replace(runs, lo, hi, with[:n]...)
	m.runs += len(*p) - before
}

// continues tells whether n begins where r ends, on the disk and in the frame.
func (r *memRun) continues(n *memRun) bool {
	if r.end() != n.first || r.frame != n.frame {
		return false
	}
	return r.frame == holeFrame || r.at+r.n == n.at && r.sums+int32(r.n) == n.sums
}

// find returns the first run that ends after blk.
func (m *memLayer) find(blk int64) (base int64, r *memRun) {
	key := blk / regionBlocks
	i, there := slices.BinarySearch(m.order, key)
	if there {
		runs := *m.regions[key]
		in := blk - key*regionBlocks
		if j := sort.Search(len(runs), func(j int) bool { return int64(runs[j].end()) > in }); j < len(runs) {
			return key * regionBlocks, &runs[j]
		}
		i++
	}
	if i == len(m.order) {
		return 0, nil
	}
	return m.order[i] * regionBlocks, &(*m.regions[m.order[i]])[0]
}

// Seek implements manifest.RunReader.
func (m *memLayer) Seek(_ context.Context, blk int64) (manifest.Run, bool, error) {
	base, r := m.find(blk)
	if r == nil {
		return manifest.Run{}, false, nil
	}
	run := manifest.Run{First: base + int64(r.first), Blocks: int64(r.n), Hole: r.frame == holeFrame}
	if !run.Hole {
		f := m.held.frames[r.frame]
		run.Pack, run.FrameOffset, run.FrameLength, run.FrameIndex, run.FrameFirst = f.pack, f.offset, f.length, f.index, r.at
	}
	return run, true, nil
}

// Sums implements manifest.RunReader.
func (m *memLayer) Sums(_ context.Context, first int64, dst []block.Sum) error {
	for len(dst) > 0 {
		base, r := m.find(first)
		in := first - base - int64(r.first)
		n := min(int64(r.n)-in, int64(len(dst)))
		copy(dst[:n], m.held.sums[int64(r.sums)+in:])
		first, dst = first+n, dst[n:]
	}
	return nil
}

// overlay puts the sums that this layer knows over dst, the sums of the blocks from first on.
func (m *memLayer) overlay(first int64, dst []block.Sum) {
	end := first + int64(len(dst))
	for blk := first; blk < end; {
		base, r := m.find(blk)
		if r == nil || base+int64(r.first) >= end {
			return
		}
		from, to := max(blk, base+int64(r.first)), min(end, base+int64(r.end()))
		part := dst[from-first : to-first]
		if r.frame == holeFrame {
			clear(part)
		} else {
			copy(part, m.held.sums[int64(r.sums)+from-base-int64(r.first):])
		}
		blk = to
	}
}
