package manifest

import (
	"bufio"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"

	"github.com/lifeboat-dr/lifeboat/replicator/block"
	"github.com/lifeboat-dr/lifeboat/replicator/chunk"
)

const (
	mapMagic   = "LBMP"
	mapVersion = 1
	mapHeader  = 16
)

// MapWriter writes a map object: layers one after another, then Finish. It holds one page a level in memory, and the packs of
// the layer being written. Not safe for concurrent use. After an error nothing it wrote may be used.
type MapWriter struct {
	w       *bufio.Writer
	c       *PageCipher
	gen     int64
	id      ID
	off     int64
	ordinal uint32
	disks   []Disk
	buf     []byte
	err     error
}

// NewMapWriter starts the map object id of a generation on w. key is the map's page key; it must not have been used before.
func NewMapWriter(w io.Writer, key [32]byte, gen int64, id ID) *MapWriter {
	m := &MapWriter{w: bufio.NewWriterSize(w, 256<<10), c: NewPageCipher(key), gen: gen, id: id}
	var h [mapHeader]byte
	copy(h[:], mapMagic)
	binary.LittleEndian.PutUint16(h[4:], mapVersion)
	m.write(h[:])
	return m
}

func (m *MapWriter) write(p []byte) {
	if m.err == nil {
		_, m.err = m.w.Write(p)
	}
	m.off += int64(len(p))
}

// page stores one page and returns the reference to it.
func (m *MapWriter) page(plain []byte) PageRef {
	m.buf = m.c.aead.Seal(m.buf[:0], pageNonce(m.ordinal), plain, nil)
	ref := PageRef{Offset: m.off, Length: int64(len(m.buf)), Ordinal: m.ordinal, Hash: sha256.Sum256(m.buf)}
	m.ordinal++
	m.write(m.buf)
	return ref
}

// Finish writes the index and the trailer. name is the object's name below the vault.
func (m *MapWriter) Finish(key *RecordKey, name string) error {
	x, err := key.Seal(name, &MapIndex{Disks: m.disks})
	if err != nil {
		return err
	}
	t := chunk.Trailer{Offset: m.off, Length: int64(len(x))}
	m.write(x)
	m.write(t.Append(nil, chunk.MapTrailer))
	if m.err == nil {
		m.err = m.w.Flush()
	}
	if m.err != nil {
		return fmt.Errorf("write map: %w", m.err)
	}
	return nil
}

// LayerWriter writes one disk's layer.
type LayerWriter struct {
	m       *MapWriter
	disk    Disk
	start   int64
	last    Run // not yet in a page; Blocks 0 if none
	entries entryLeaf
	sums    sumLeaf
	trees   [4]treeLevels
	packs   map[ID]int64
	order   []ID
	blocks  int64
}

// Layer starts the layer of a disk. Layers are written one after another.
func (m *MapWriter) Layer(d Disk) *LayerWriter {
	d.Layers = nil
	return &LayerWriter{m: m, disk: d, start: m.off, packs: make(map[ID]int64)}
}

// Add appends a run, which must begin at or after the end of the one before. sums has one sum a block, none for a hole.
func (l *LayerWriter) Add(r Run, sums []block.Sum) error {
	if r.Blocks < 1 || l.last.Blocks > 0 && r.First < l.last.End() || r.Hole && len(sums) != 0 || !r.Hole && int64(len(sums)) != r.Blocks {
		return fmt.Errorf("%w: run at block %d out of order", ErrFormat, r.First)
	}
	for r.Blocks > 0xffffffff { // a hole larger than an entry can tell
		if err := l.Add(r.Clip(r.First, r.First+0xffffffff), nil); err != nil {
			return err
		}
		r = r.Clip(r.First+0xffffffff, r.End())
	}
	if !r.Hole {
		if l.packs[r.Pack] == 0 {
			l.order = append(l.order, r.Pack)
		}
		l.packs[r.Pack] += r.Blocks
		l.blocks += r.Blocks
		for first := r.First; len(sums) > 0; {
			n := l.sums.add(first, sums)
			if n == 0 {
				l.flushSums()
				continue
			}
			first, sums = first+int64(n), sums[n:]
		}
	}
	if l.last.Blocks > 0 && l.last.follows(&r) {
		l.last.Blocks += r.Blocks
		return l.m.err
	}
	l.flushRun()
	l.last = r
	return l.m.err
}

func (l *LayerWriter) flushRun() {
	if l.last.Blocks == 0 {
		return
	}
	if !l.entries.add(&l.last) {
		l.flushEntries()
		l.entries.add(&l.last)
	}
	l.last.Blocks = 0
}

func (l *LayerWriter) flushEntries() {
	if key, p := l.entries.page(); p != nil {
		l.trees[Entries].add(l.m, Entries, 0, key, l.m.page(p))
	}
}

func (l *LayerWriter) flushSums() {
	if key, p := l.sums.page(); p != nil {
		l.trees[Sums].add(l.m, Sums, 0, key, l.m.page(p))
	}
}

// Finish ends the layer and returns it.
func (l *LayerWriter) Finish() (Layer, error) {
	l.flushRun()
	l.flushEntries()
	l.flushSums()
	l.writePacks()
	out := Layer{Generation: l.m.gen, Map: l.m.id, Blocks: l.blocks,
		Entries: l.trees[Entries].root(l.m, Entries), Sums: l.trees[Sums].root(l.m, Sums), Packs: l.trees[Packs].root(l.m, Packs)}
	out.Pages = l.m.off - l.start
	d := l.disk
	d.Layers = []Layer{out}
	l.m.disks = append(l.m.disks, d)
	return out, l.m.err
}

func (l *LayerWriter) writePacks() {
	const perPage = (MaxPage - pageHeader) / packItem
	for i := 0; i < len(l.order); i += perPage {
		ids := l.order[i:min(i+perPage, len(l.order))]
		p := newPage(Packs, 0, len(ids), 0)
		for _, id := range ids {
			p = append(p, id[:]...)
			p = binary.LittleEndian.AppendUint64(p, uint64(l.packs[id]))
		}
		l.trees[Packs].add(l.m, Packs, 0, int64(i), l.m.page(p))
	}
}

func newPage(t Tree, level, n, aux int) []byte {
	p := make([]byte, 8, MaxPage)
	copy(p, pageMagic)
	p[4], p[5], p[6] = pageVersion, byte(t), byte(level)
	p = binary.LittleEndian.AppendUint32(p, uint32(n))
	return binary.LittleEndian.AppendUint32(p, uint32(aux))
}

// treeLevels collects the index pages of a tree, one page a level.
type treeLevels [][]indexEntry

type indexEntry struct {
	key int64
	ref PageRef
}

func (t *treeLevels) add(m *MapWriter, tree Tree, level int, key int64, ref PageRef) {
	const perPage = (MaxPage - pageHeader) / indexItem
	if len(*t) == level {
		*t = append(*t, nil)
	}
	if len((*t)[level]) == perPage {
		t.flush(m, tree, level)
	}
	(*t)[level] = append((*t)[level], indexEntry{key, ref})
}

// flush writes the items that point to pages of the level into a page of the level above.
func (t *treeLevels) flush(m *MapWriter, tree Tree, level int) {
	items := (*t)[level]
	p := newPage(tree, level+1, len(items), 0)
	le := binary.LittleEndian
	for i := range items {
		e := &items[i]
		p = le.AppendUint64(p, uint64(e.key))
		p = le.AppendUint64(p, uint64(e.ref.Offset))
		p = le.AppendUint32(p, uint32(e.ref.Length))
		p = le.AppendUint32(p, e.ref.Ordinal)
		p = append(p, e.ref.Hash[:]...)
	}
	key := items[0].key
	(*t)[level] = items[:0]
	t.add(m, tree, level+1, key, m.page(p))
}

// root flushes what is left and returns the root, nil for an empty tree.
func (t *treeLevels) root(m *MapWriter, tree Tree) *PageRef {
	for level := 0; level < len(*t); level++ {
		items := (*t)[level]
		if level == len(*t)-1 && len(items) == 1 {
			return &items[0].ref
		}
		if len(items) > 0 {
			t.flush(m, tree, level)
		}
	}
	return nil
}

// entryLeaf builds a leaf of entries.
type entryLeaf struct {
	packs []ID
	place map[ID]int
	items []byte
	n     int
	first int64
}

func (e *entryLeaf) add(r *Run) bool {
	if e.place == nil {
		e.place = make(map[ID]int)
	}
	place, known := hole, true
	if !r.Hole {
		if place, known = e.place[r.Pack]; !known {
			place = len(e.packs)
		}
	}
	need := entryItem
	if !known {
		need += sumItem
	}
	if pageHeader+len(e.packs)*sumItem+len(e.items)+need > MaxPage {
		return false
	}
	if !known {
		e.place[r.Pack] = place
		e.packs = append(e.packs, r.Pack)
	}
	if e.n == 0 {
		e.first = r.First
	}
	e.n++
	le := binary.LittleEndian
	b := le.AppendUint64(e.items, uint64(r.First))
	b = le.AppendUint32(b, uint32(r.Blocks))
	b = le.AppendUint32(b, r.FrameOffset)
	b = le.AppendUint32(b, r.FrameLength)
	b = le.AppendUint16(b, r.FrameIndex)
	b = le.AppendUint16(b, r.FrameFirst)
	b = le.AppendUint16(b, uint16(place))
	e.items = append(b, 0, 0)
	return true
}

// page returns the leaf and starts the next; nil if there is nothing.
func (e *entryLeaf) page() (key int64, p []byte) {
	if e.n == 0 {
		return 0, nil
	}
	p = newPage(Entries, 0, e.n, len(e.packs))
	for _, id := range e.packs {
		p = append(p, id[:]...)
	}
	p = append(p, e.items...)
	e.packs, e.items, e.n = e.packs[:0], e.items[:0], 0
	clear(e.place)
	return e.first, p
}

// sumLeaf builds a leaf of sums.
type sumLeaf struct {
	runs []int64 // first, blocks
	sums []byte
}

// add takes as many sums as fit and returns how many.
func (s *sumLeaf) add(first int64, sums []block.Sum) int {
	room := MaxPage - pageHeader - len(s.runs)/2*sumRunItem - len(s.sums)
	k := len(s.runs)
	follows := k > 0 && s.runs[k-2]+s.runs[k-1] == first
	if !follows {
		room -= sumRunItem
	}
	n := min(len(sums), max(0, room)/sumItem)
	if n == 0 {
		return 0
	}
	if follows {
		s.runs[k-1] += int64(n)
	} else {
		s.runs = append(s.runs, first, int64(n))
	}
	for i := range n {
		s.sums = append(s.sums, sums[i][:]...)
	}
	return n
}

func (s *sumLeaf) page() (key int64, p []byte) {
	if len(s.runs) == 0 {
		return 0, nil
	}
	p = newPage(Sums, 0, len(s.sums)/sumItem, len(s.runs)/2)
	for i := 0; i < len(s.runs); i += 2 {
		p = binary.LittleEndian.AppendUint64(p, uint64(s.runs[i]))
		p = binary.LittleEndian.AppendUint32(p, uint32(s.runs[i+1]))
	}
	p = append(p, s.sums...)
	key = s.runs[0]
	s.runs, s.sums = s.runs[:0], s.sums[:0]
	return key, p
}
