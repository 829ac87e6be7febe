package soak_test

import (
	"bytes"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/lifeboat-dr/lifeboat/agent/track/tracktest/loopdisk"
	"github.com/lifeboat-dr/lifeboat/replicator/block"
)

// proof is what a run shows of itself: copies kept by trackers that drop each mark with a probability are found out.
type proof struct {
	drops []drops
	marks int64 // N: marks whose loss would have shown in the compare of their sync
}

// drops is one such tracker.
type drops struct {
	p      float64
	seed   uint64
	rng    *rand.Rand
	next   int64 // marks until the next one that is dropped
	lost   int64
	caught int64 // syncs after which the copy differed
}

func newProof(seed uint64) *proof {
	p := &proof{}
	for _, loss := range []float64{1e-4, 1e-6} {
		for i := range uint64(20) {
			d := drops{p: loss, seed: seed + i, rng: rand.New(rand.NewPCG(seed+i, math.Float64bits(loss)))}
			d.skip()
			p.drops = append(p.drops, d)
		}
	}
	return p
}

// skip draws how many marks are kept before the next one is dropped.
func (d *drops) skip() {
	d.next = int64(math.Log(1-d.rng.Float64()) / math.Log1p(-d.p))
}

// caught counts the trackers of a loss that were found out.
func (p *proof) caught(loss float64) (n, of int) {
	for _, d := range p.drops {
		if d.p == loss {
			of++
			if d.caught > 0 {
				n++
			}
		}
	}
	return n, of
}

func (p *proof) String() string {
	s := fmt.Sprintf("N = %d marks whose loss would show", p.marks)
	for _, loss := range []float64{1e-4, 1e-6} {
		n, of := p.caught(loss)
		s += fmt.Sprintf("; a tracker that loses %.0e of its marks is caught in %d of %d seeds", loss, n, of)
	}
	return s
}

// replica is a copy of a disk, kept by nothing but what the tracker says, and what the dropping trackers' copies would hold.
type replica struct {
	t     *testing.T
	d     *loopdisk.Disk
	proof *proof
	bytes []byte
	shows []bool             // of each block: its last report in this sync brought a change
	stale []map[int64][]byte // of each dropping tracker: blocks that its copy lacks, with what it holds instead
	read  int64
}

func newReplica(t *testing.T, d *loopdisk.Disk, p *proof) *replica {
	t.Helper()
	r := &replica{t: t, d: d, proof: p, bytes: loopdisk.Buffer(int(d.Size())), stale: make([]map[int64][]byte, len(p.drops))}
	r.shows = make([]bool, (len(r.bytes)+block.Size-1)/block.Size)
	for i := range r.stale {
		r.stale[i] = map[int64][]byte{}
	}
	r.load(r.bytes, 0)
	return r
}

func (r *replica) load(p []byte, off int64) {
	r.t.Helper()
	const window = 1 << 20
	for len(p) > 0 {
		n := min(len(p), window)
		if _, err := r.d.ReadAt(p[:n], off); err != nil {
			r.t.Fatalf("read %d bytes at %d: %v", n, off, err)
		}
		p, off = p[n:], off+int64(n)
	}
}

// resize gives the copy the size of the disk.
func (r *replica) resize() {
	size := int(r.d.Size())
	now := loopdisk.Buffer(size)
	copy(now, r.bytes)
	r.bytes = now
	shows := make([]bool, (size+block.Size-1)/block.Size)
	copy(shows, r.shows)
	r.shows = shows
	for _, s := range r.stale {
		for b := range s {
			if b >= int64(size/block.Size) {
				delete(s, b)
			}
		}
	}
}

// block returns the bytes of a block in the copy.
func (r *replica) block(b int64) []byte {
	return r.bytes[b*block.Size : min((b+1)*block.Size, int64(len(r.bytes)))]
}

// apply copies extents from the disk.
func (r *replica) apply(es []block.Extent) {
	r.t.Helper()
	for _, e := range es {
		if e.End() > int64(len(r.bytes)) || e.Offset%block.Size != 0 {
			r.t.Fatalf("extent %+v on a disk of %d bytes", e, len(r.bytes))
		}
		now := make([]byte, e.Length)
		r.load(now, e.Offset)
		r.read += e.Length
		first, n := e.Offset/block.Size, (e.Length+block.Size-1)/block.Size
		for i := range r.proof.drops {
			r.lose(i, first, n)
		}
		for b := first; b < first+n; b++ {
			p := now[(b-first)*block.Size : min((b-first+1)*block.Size, e.Length)]
			r.shows[b] = !bytes.Equal(p, r.block(b))
		}
		copy(r.bytes[e.Offset:], now)
	}
}

// lose lets a dropping tracker report blocks: its copy gets those whose mark is not dropped. The copy here is still the old one.
func (r *replica) lose(i int, first, n int64) {
	d, stale := &r.proof.drops[i], r.stale[i]
	var dropped []int64
	at := d.next
	for ; at < n; at += d.next + 1 {
		dropped = append(dropped, first+at)
		d.skip()
	}
	d.next = at - n
	for b := range stale {
		if b >= first && b < first+n && !slices.Contains(dropped, b) {
			delete(stale, b)
		}
	}
	for _, b := range dropped {
		d.lost++
		if stale[b] == nil {
			stale[b] = bytes.Clone(r.block(b))
		}
	}
}

// compare holds the copy against the disk, which stands still, and ends the sync. It returns the blocks that differ.
func (r *replica) compare() (wrong []int64) {
	r.t.Helper()
	const window = 4 << 20
	now := make([]byte, window)
	for off := 0; off < len(r.bytes); off += window {
		p := now[:min(window, len(r.bytes)-off)]
		r.load(p, int64(off))
		if bytes.Equal(p, r.bytes[off:off+len(p)]) {
			continue
		}
		for at := 0; at < len(p); at += block.Size {
			end := min(at+block.Size, len(p))
			if !bytes.Equal(p[at:end], r.bytes[off+at:off+end]) {
				wrong = append(wrong, int64(off+at)/block.Size)
			}
		}
	}
	for b, shows := range r.shows {
		if shows {
			r.proof.marks++
			r.shows[b] = false
		}
	}
	for i, stale := range r.stale { // the copy is the disk now
		for b, p := range stale {
			if int(b) < len(r.shows) && !bytes.Equal(p[:min(len(p), len(r.block(b)))], r.block(b)) {
				r.proof.drops[i].caught++
				break
			}
		}
		clear(stale) // resynchronised, as it would be
	}
	return wrong
}
