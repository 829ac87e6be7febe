package manifest

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"sort"

	"github.com/lifeboat-dr/lifeboat/replicator/block"
	"github.com/lifeboat-dr/lifeboat/replicator/chunk"
)

// Tree tells a layer's trees apart. Values are stored.
type Tree uint8

// The trees of a layer.
const (
	Entries Tree = 1
	Sums    Tree = 2
	Packs   Tree = 3
)

const (
	pageMagic   = "LBPG"
	pageVersion = 1
	pageHeader  = 16
	pageTag     = 16
	// MaxPage is the most bytes of a page, MaxStoredPage as stored.
	MaxPage       = 64 << 10
	MaxStoredPage = MaxPage + pageTag

	maxLevel   = 7
	indexItem  = 56
	entryItem  = 28
	sumRunItem = 12
	packItem   = 24
	sumItem    = 16
	hole       = 0xffff
)

// Run is a range of blocks of a disk and where it lies: in the blocks [FrameFirst, FrameFirst+Blocks) of a frame, or nowhere
// if it is a hole.
type Run struct {
	First, Blocks int64
	Hole          bool
	Pack          ID
	FrameOffset   uint32 // in the pack, bytes
	FrameLength   uint32 // bytes, header included
	FrameIndex    uint16
	FrameFirst    uint16 // block
}

// End returns the first block after the run.
func (r *Run) End() int64 { return r.First + r.Blocks }

// Clip returns the part of r inside [first, end), which must not be empty.
func (r Run) Clip(first, end int64) Run {
	if first > r.First {
		if !r.Hole {
			r.FrameFirst += uint16(first - r.First)
		}
		r.Blocks -= first - r.First
		r.First = first
	}
	if end < r.End() {
		r.Blocks = end - r.First
	}
	return r
}

// follows tells whether n continues r so that both can be one run.
func (r *Run) follows(n *Run) bool {
	if r.End() != n.First || r.Hole != n.Hole {
		return false
	}
	if r.Hole {
		return r.Blocks+n.Blocks <= 0xffffffff
	}
	return r.Pack == n.Pack && r.FrameIndex == n.FrameIndex && r.FrameOffset == n.FrameOffset && r.FrameLength == n.FrameLength &&
		int64(r.FrameFirst)+r.Blocks == int64(n.FrameFirst)
}

// PackUse counts the blocks of a layer in a pack.
type PackUse struct {
	Pack   ID
	Blocks int64
}

// Page is a decoded page. It is immutable and safe for concurrent use.
type Page struct {
	Tree  Tree
	Level int
	n     int // items
	aux   int
	b     []byte
	at    []int // sums leaf: place of each run's first sum
}

// Size returns about how many bytes of memory the page takes.
func (p *Page) Size() int64 { return int64(len(p.b)) + int64(len(p.at))*8 + 96 }

// PageCipher encrypts and decrypts the pages of one map. Safe for concurrent use.
type PageCipher struct{ aead cipher.AEAD }

// NewPageCipher returns the PageCipher for a map's page key.
func NewPageCipher(key [32]byte) *PageCipher {
	b, err := aes.NewCipher(key[:])
	if err != nil {
		panic(err) // the key has the right length by its type
	}
	g, err := cipher.NewGCM(b)
	if err != nil {
		panic(err)
	}
	return &PageCipher{aead: g}
}

func pageNonce(n uint32) []byte {
	var b [12]byte
	binary.LittleEndian.PutUint32(b[8:], n)
	return b[:]
}

// Open verifies and decodes the stored page that ref names. It must be of the given tree and, unless level is negative, level.
// stored is used as working space and belongs to the page afterwards.
func (c *PageCipher) Open(ref *PageRef, stored []byte, tree Tree, level int) (*Page, error) {
	if int64(len(stored)) != ref.Length || !ref.valid() {
		return nil, fmt.Errorf("%w: page of %d bytes, want %d", ErrFormat, len(stored), ref.Length)
	}
	if sha256.Sum256(stored) != ref.Hash {
		return nil, fmt.Errorf("%w: page hash", ErrAuth)
	}
	plain, err := c.aead.Open(stored[:0], pageNonce(ref.Ordinal), stored, nil)
	if err != nil {
		return nil, fmt.Errorf("%w: page", ErrAuth)
	}
	p, err := parsePage(plain)
	if err != nil {
		return nil, err
	}
	if p.Tree != tree || level >= 0 && p.Level != level {
		return nil, fmt.Errorf("%w: page of tree %d level %d, want %d %d", ErrFormat, p.Tree, p.Level, tree, level)
	}
	return p, nil
}

// parsePage checks everything that accessors rely on.
func parsePage(b []byte) (*Page, error) {
	if len(b) < pageHeader || len(b) > MaxPage || string(b[:4]) != pageMagic {
		return nil, fmt.Errorf("%w: no page here", ErrFormat)
	}
	if b[4] != pageVersion {
		return nil, fmt.Errorf("%w: page version %d is unknown", ErrFormat, b[4])
	}
	le := binary.LittleEndian
	n, aux := le.Uint32(b[8:]), le.Uint32(b[12:])
	p := &Page{Tree: Tree(b[5]), Level: int(b[6]), b: b}
	if b[7] != 0 || p.Level > maxLevel || n == 0 || n > MaxPage || aux > MaxPage {
		return nil, fmt.Errorf("%w: page header out of limits", ErrFormat)
	}
	p.n, p.aux = int(n), int(aux)
	var want int
	var check func() bool
	switch {
	case p.Level > 0 && p.Tree >= Entries && p.Tree <= Packs:
		want, check = p.n*indexItem, p.checkIndex
	case p.Tree == Entries:
		want, check = p.aux*sumItem+p.n*entryItem, p.checkEntries
	case p.Tree == Sums:
		want, check = p.aux*sumRunItem+p.n*sumItem, p.checkSums
	case p.Tree == Packs:
		want, check = p.n*packItem, func() bool { return p.aux == 0 }
	default:
		return nil, fmt.Errorf("%w: page of unknown tree %d", ErrFormat, p.Tree)
	}
	if len(b) != pageHeader+want || !check() {
		return nil, fmt.Errorf("%w: page content", ErrFormat)
	}
	return p, nil
}

func (p *Page) checkIndex() bool {
	for i := range p.n {
		r := p.child(i)
		if !r.valid() || i > 0 && p.key(i) <= p.key(i-1) || p.key(i) < 0 || p.key(i) > block.MaxBlocks {
			return false
		}
	}
	return p.aux == 0
}

func (p *Page) checkEntries() bool {
	var end int64
	for i := range p.n {
		o := p.entryAt(i)
		pack := int(binary.LittleEndian.Uint16(p.b[o+24:]))
		if pack != hole && pack >= p.aux || p.b[o+26] != 0 || p.b[o+27] != 0 {
			return false
		}
		r := p.run(i)
		if r.First < end || r.Blocks < 1 || r.First > block.MaxBlocks || r.End() > block.MaxBlocks {
			return false
		}
		if !r.Hole && (int64(r.FrameFirst)+r.Blocks > chunk.MaxBlocks || r.FrameLength < chunk.MinFrame || r.FrameLength > chunk.MaxFrame ||
			int64(r.FrameOffset)+int64(r.FrameLength) > chunk.MaxPack) {
			return false
		}
		end = r.End()
	}
	return true
}

func (p *Page) checkSums() bool {
	if p.aux == 0 {
		return false
	}
	p.at = make([]int, p.aux)
	var end int64
	at := 0
	for i := range p.aux {
		first, n := p.sumRun(i)
		if n < 1 || first < end || first > block.MaxBlocks || first+n > block.MaxBlocks || int64(at)+n > int64(p.n) {
			return false
		}
		p.at[i] = at
		at += int(n)
		end = first + n
	}
	return at == p.n
}

func (p *Page) key(i int) int64 {
	return int64(binary.LittleEndian.Uint64(p.b[pageHeader+i*indexItem:]))
}

func (p *Page) child(i int) PageRef {
	o := p.b[pageHeader+i*indexItem:]
	le := binary.LittleEndian
	return PageRef{Offset: int64(le.Uint64(o[8:])), Length: int64(le.Uint32(o[16:])), Ordinal: le.Uint32(o[20:]), Hash: Hash(o[24:56])}
}

// childFor returns the place of the child that may hold key: the last one that starts at or before it, else the first.
func (p *Page) childFor(key int64) int {
	return max(0, sort.Search(p.n, func(i int) bool { return p.key(i) > key })-1)
}

func (p *Page) entryAt(i int) int { return pageHeader + p.aux*sumItem + i*entryItem }

func (p *Page) run(i int) Run {
	o := p.b[p.entryAt(i):]
	le := binary.LittleEndian
	r := Run{First: int64(le.Uint64(o)), Blocks: int64(le.Uint32(o[8:]))}
	pack := int(le.Uint16(o[24:]))
	if pack == hole {
		r.Hole = true
		return r
	}
	r.FrameOffset, r.FrameLength = le.Uint32(o[12:]), le.Uint32(o[16:])
	r.FrameIndex, r.FrameFirst = le.Uint16(o[20:]), le.Uint16(o[22:])
	r.Pack = ID(p.b[pageHeader+pack*sumItem:])
	return r
}

// runFor returns the place of the first run that ends after block, p.n if none does.
func (p *Page) runFor(blk int64) int {
	return sort.Search(p.n, func(i int) bool { r := p.run(i); return r.End() > blk })
}

func (p *Page) sumRun(i int) (first, n int64) {
	o := p.b[pageHeader+i*sumRunItem:]
	return int64(binary.LittleEndian.Uint64(o)), int64(binary.LittleEndian.Uint32(o[8:]))
}

// sums copies the sums of the blocks from first on into dst, as many as lie in one run of this page, and returns how many.
func (p *Page) sums(first int64, dst []block.Sum) int {
	i := sort.Search(p.aux, func(i int) bool { f, n := p.sumRun(i); return f+n > first })
	if i == p.aux {
		return 0
	}
	f, n := p.sumRun(i)
	if f > first {
		return 0
	}
	o := pageHeader + p.aux*sumRunItem + (p.at[i]+int(first-f))*sumItem
	m := min(int(f+n-first), len(dst))
	for j := range m {
		dst[j] = block.Sum(p.b[o+j*sumItem:])
	}
	return m
}

func (p *Page) use(i int) PackUse {
	o := p.b[pageHeader+i*packItem:]
	return PackUse{Pack: ID(o), Blocks: int64(binary.LittleEndian.Uint64(o[16:]))}
}
