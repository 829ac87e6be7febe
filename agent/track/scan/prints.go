package scan

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/maphash"
	"math"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lifeboat-dr/lifeboat/replicator/block"
)

// print is what tells that a block did not change since it was hashed for its compare sum: 128 bits of a keyed hash that takes a
// fraction of the time where the processor has no instructions for AES; elsewhere see PrintsPay. The key is random, so prints mean
// nothing to another process, and nobody can prepare two blocks with the same one. They are stored XORed with the print of zeros.
//
// Invariant: where the stored print is not zero, it is that of bytes whose compare sum is the known sum of the block.
type print [16]byte

// Prints keeps the prints of a disk, beside its known sums, in a file that has no name and goes away with the process. It outlives
// the Scanners that use it, one after another. Nil Prints are of nothing and learn nothing: every block is hashed for its sum.
type Prints struct {
	pages
	seed   [2]maphash.Seed
	zero   print       // of a whole block
	broken atomic.Bool // the invariant may not hold
}

// NewPrints returns prints of nothing, for a disk of size bytes. Its file is in dir.
func NewPrints(dir string, size int64) (*Prints, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make a file for prints: %w", err)
	}
	f, err := os.CreateTemp(dir, "prints")
	if err != nil {
		return nil, fmt.Errorf("make a file for prints: %w", err)
	}
	if err := os.Remove(f.Name()); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	p := &Prints{pages: newPages(f, size), seed: [2]maphash.Seed{maphash.MakeSeed(), maphash.MakeSeed()}}
	p.zero = p.hash(zeros[:block.Size])
	return p, nil
}

var zeros [block.Size]byte

// Close frees the file.
func (p *Prints) Close() error {
	if p == nil {
		return nil
	}
	return p.f.Close()
}

// Broken tells that an error left the prints in a state in which they must not be used any more.
func (p *Prints) Broken() bool { return p != nil && p.broken.Load() }

// Forget must be called when the known sums are emptied.
func (p *Prints) Forget() error {
	if p == nil {
		return nil
	}
	return p.empty()
}

// load reads the prints of a window; nil Prints leave dst as it is.
func (p *Prints) load(window int64, dst []print) error {
	if p == nil {
		return nil
	}
	return p.read(window, bytesOf(dst))
}

// store writes the prints of a window.
func (p *Prints) store(window int64, src []print) error {
	if p == nil {
		return nil
	}
	return p.write(window, bytesOf(src))
}

// spoil makes the prints Broken.
func (p *Prints) spoil() {
	if p != nil {
		p.broken.Store(true)
	}
}

// PrintsPay tells whether this processor makes prints in less than half the time of compare sums. One with instructions for AES does
// not: it makes sums faster than prints. It is measured once, in a millisecond; on an emulated processor in ten.
var PrintsPay = sync.OnceValue(func() bool {
	summer := block.NewSummer(block.SumKey{})
	p := Prints{seed: [2]maphash.Seed{maphash.MakeSeed(), maphash.MakeSeed()}}
	b := bytes.Repeat([]byte{1}, block.Size)
	fastest := func(f func()) time.Duration { // of some: other work may interrupt
		best := time.Duration(math.MaxInt64)
		for range 9 {
			start := time.Now()
			for range 4 {
				f()
			}
			best = min(best, time.Since(start))
		}
		return best
	}
	return 2*fastest(func() { p.hash(b) }) < fastest(func() { summer.Of(b) })
})

func (p *Prints) hash(b []byte) (h print) {
	binary.LittleEndian.PutUint64(h[:], maphash.Bytes(p.seed[0], b))
	binary.LittleEndian.PutUint64(h[8:], maphash.Bytes(p.seed[1], b))
	return h
}

// of returns the print of a block as it is stored: zero for a block of zeros.
func (p *Prints) of(b []byte) print {
	h, z := p.hash(b), p.zero
	if len(b) != block.Size {
		z = p.hash(zeros[:len(b)])
	}
	for i := range h {
		h[i] ^= z[i]
	}
	return h
}

// same tells whether a block with print now has the known sum, given the print that was stored with it.
func same(now, stored print, known block.Sum) bool {
	return now == stored && (stored != print{} || known == block.Sum{})
}
