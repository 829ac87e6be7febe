package scan

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/lifeboat-dr/lifeboat/replicator/block"
)

// Reader is a disk as a pass reads it.
type Reader interface {
	// ReadAt fills p from off; both are multiples of the disk's sector, and p comes from Buffer.
	ReadAt(p []byte, off int64) (int, error)
	// NextData returns the first offset at or after off that may not read as zeros, or the disk's size.
	NextData(off int64) (int64, error)
	// Buffer returns memory fit for ReadAt.
	Buffer(size int) []byte
	Size() int64
}

// Change is what differs in one window of the disk. It is valid until the sink returns.
type Change struct {
	Window  int64
	Extents []block.Extent // with content, ascending
	Data    []byte         // their bytes, concatenated
	Zeros   []block.Extent // that became zeros, ascending
	Index   []uint8        // the changed blocks of the window, with content or zeros
	Sums    []block.Sum    // their new sums; zero for Zeros
	content []block.Sum
	prints  []print // of Index
}

func (c *Change) reset(window int64) {
	c.Window, c.Extents, c.Zeros, c.Data = window, c.Extents[:0], c.Zeros[:0], nil
	c.Index, c.Sums, c.content, c.prints = c.Index[:0], c.Sums[:0], c.content[:0], c.prints[:0]
}

// ContentSums returns the sums of the blocks in Extents.
func (c *Change) ContentSums() []block.Sum { return c.content }

// Bytes returns how many bytes of the disk changed.
func (c *Change) Bytes() (n int64) {
	n = int64(len(c.Data))
	for _, e := range c.Zeros {
		n += e.Length
	}
	return n
}

// readGap is how much between two runs is read with them: one read of all costs a disk less than two do.
const readGap = 32 << 10

// workers read and compare at the same time: one waits for the disk while the other hashes.
const workers = 2

// Scanner compares a disk with its known sums. Not safe for concurrent use.
type Scanner struct {
	disk   Reader
	sums   *Sums
	prints *Prints
	summer *block.Summer
	w      [workers]worker
}

type worker struct {
	buf   []byte         // of a window, each block in its place
	runs  []block.Extent // of the window that are to be looked at: whole blocks, ascending, apart
	known [WindowBlocks]block.Sum
	seen  [WindowBlocks]print
	c     Change
}

// NewScanner allocates all memory that passes need. The prints are those of the sums, or of nothing, or nil.
func NewScanner(disk Reader, sums *Sums, prints *Prints, key block.SumKey) *Scanner {
	s := &Scanner{disk: disk, sums: sums, prints: prints, summer: block.NewSummer(key)}
	for i := range s.w {
		s.w[i].buf = disk.Buffer(WindowSize)
		s.w[i].runs = make([]block.Extent, 0, WindowBlocks)
		s.w[i].c.Index = make([]uint8, 0, WindowBlocks)
		s.w[i].c.Sums = make([]block.Sum, 0, WindowBlocks)
		s.w[i].c.content = make([]block.Sum, 0, WindowBlocks)
		s.w[i].c.prints = make([]print, 0, WindowBlocks)
	}
	return s
}

// Adopt makes the sums of a window those that the replicator holds. Prints of blocks whose sum was another are forgotten.
func (s *Scanner) Adopt(window int64, sums []block.Sum) error {
	w := &s.w[0]
	err := s.sums.Read(window, w.known[:])
	if err == nil && slices.Equal(w.known[:], sums) {
		return nil
	}
	if err != nil && !errors.Is(err, ErrDamaged) {
		return err
	}
	if perr := s.prints.load(window, w.seen[:]); perr != nil {
		return perr
	}
	for i := range sums {
		if err != nil || w.known[i] != sums[i] {
			w.known[i], w.seen[i] = sums[i], print{}
		}
	}
	return s.write(w, window)
}

// Learn makes a change that was shipped known. It is for changes of passes that did not do so themselves.
func (s *Scanner) Learn(c *Change) error {
	w := &s.w[0]
	if err := s.sums.Read(c.Window, w.known[:]); err != nil {
		return err
	}
	if err := s.prints.load(c.Window, w.seen[:]); err != nil {
		return err
	}
	for i, at := range c.Index {
		w.known[at], w.seen[at] = c.Sums[i], c.prints[i]
	}
	return s.write(w, c.Window)
}

// write makes what a worker holds of a window known. After an error a print may stand beside the sum of other bytes, and the
// prints are broken.
func (s *Scanner) write(w *worker, window int64) error {
	err := s.sums.Write(window, w.known[:])
	if err == nil {
		err = s.prints.store(window, w.seen[:])
	}
	if err != nil {
		s.prints.spoil()
	}
	return err
}

// Pass reads the given extents, which must be sorted and inside the disk, and hands what differs from the known sums to sink,
// from several goroutines at once and in no order. With learn, the known sums are brought up to date after the sink took a change;
// without, nothing is written to any disk and the caller updates them. read is told bytes as they were looked at; it must be
// quick and safe for concurrent use. Pass returns the bytes that differed.
func (s *Scanner) Pass(ctx context.Context, dirty []block.Extent, learn bool, sink func(*Change) error, read func(int64)) (int64, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var (
		mu      sync.Mutex // guards the cursor
		next    int64      // offset not handed out yet
		changed atomic.Int64
		wg      sync.WaitGroup
	)
	// take hands out what is dirty in the next window that has any: a window has one owner at a time.
	take := func(w *worker) bool {
		mu.Lock()
		defer mu.Unlock()
		w.runs = w.runs[:0]
		window := int64(-1)
		for len(dirty) > 0 {
			off := max(dirty[0].Offset, next)
			off -= off % block.Size
			if window < 0 && off < dirty[0].End() {
				window = off / WindowSize * WindowSize
			}
			if window >= 0 && off >= window+WindowSize {
				break
			}
			if off < dirty[0].End() {
				end := min((dirty[0].End()+block.Size-1)/block.Size*block.Size, window+WindowSize, s.disk.Size())
				w.runs = appendExtent(w.runs, block.Extent{Offset: off, Length: end - off})
				next = end
			}
			if next >= dirty[0].End() || off >= dirty[0].End() {
				dirty = dirty[1:]
			}
		}
		return len(w.runs) > 0
	}
	for i := range s.w {
		wg.Go(func() {
			for ctx.Err() == nil {
				w := &s.w[i]
				if !take(w) {
					return
				}
				n, err := s.window(w, learn, sink)
				if err != nil {
					cancel(err)
					return
				}
				changed.Add(n)
				for _, e := range w.runs {
					read(e.Length)
				}
			}
		})
	}
	wg.Wait()
	return changed.Load(), context.Cause(ctx)
}

// window compares the runs of one window.
func (s *Scanner) window(w *worker, learn bool, sink func(*Change) error) (int64, error) {
	c := &w.c
	base := w.runs[0].Offset / WindowSize * WindowSize
	c.reset(base / WindowSize)
	if err := s.sums.Read(c.Window, w.known[:]); err != nil {
		return 0, err
	}
	loaded, news := false, false // prints: read, and to be written
	var kept int64               // bytes of buf that go out, moved to its front
	var filled int64             // offset up to which buf was read
	for i, e := range w.runs {
		data := e.Offset
		if e.Offset >= filled {
			var err error
			if data, err = s.disk.NextData(e.Offset); err != nil {
				return 0, fmt.Errorf("find data: %w", err)
			}
		}
		hole := data >= e.End()
		if hole && block.IsZero(bytesOf(w.known[(e.Offset-base)/block.Size:blocks(e.End()-base)])) {
			continue
		}
		if !loaded {
			loaded = true
			if err := s.prints.load(c.Window, w.seen[:]); err != nil {
				return 0, err
			}
		}
		if !hole && e.Offset >= filled {
			filled = e.End()
			for _, r := range w.runs[i+1:] {
				if r.Offset-filled > readGap {
					break
				}
				filled = r.End()
			}
			if err := readFull(s.disk, w.buf[e.Offset-base:filled-base], e.Offset); err != nil {
				return 0, fmt.Errorf("read [%d,%d): %w", e.Offset, filled, err)
			}
		}
		kept = s.compare(w, e, base, kept, hole, &news)
	}
	c.Data = w.buf[:kept]
	if len(c.Index) > 0 {
		if err := sink(c); err != nil {
			return 0, err
		}
	}
	if !learn {
		return c.Bytes(), nil
	}
	if len(c.Index) > 0 {
		return c.Bytes(), s.write(w, c.Window)
	}
	if news {
		return 0, s.prints.store(c.Window, w.seen[:])
	}
	return 0, nil
}

// compare looks at one run, whose bytes are in buf unless it is a hole, and adds what differs to the change. It returns kept, moved on.
func (s *Scanner) compare(w *worker, e block.Extent, base, kept int64, hole bool, news *bool) int64 {
	c := &w.c
	for i, off := int((e.Offset-base)/block.Size), e.Offset; off < e.End(); i, off = i+1, off+block.Size {
		n := min(block.Size, e.End()-off)
		var now print
		var sum block.Sum
		b := w.buf[off-base : off-base+n]
		if !hole {
			if s.prints != nil {
				now = s.prints.of(b)
				if same(now, w.seen[i], w.known[i]) {
					continue
				}
			}
			sum = s.summer.Of(b)
		}
		*news = *news || now != w.seen[i]
		w.seen[i] = now
		if sum == w.known[i] {
			continue
		}
		w.known[i] = sum
		c.Index, c.Sums, c.prints = append(c.Index, uint8(i)), append(c.Sums, sum), append(c.prints, now)
		at := block.Extent{Offset: off, Length: n}
		if sum == (block.Sum{}) {
			c.Zeros = appendExtent(c.Zeros, at)
			continue
		}
		c.Extents, c.content = appendExtent(c.Extents, at), append(c.content, sum)
		if kept != off-base { // else it lies there already, as all of a first copy does
			copy(w.buf[kept:], b)
		}
		kept += n
	}
	return kept
}

// blocks returns how many blocks n bytes take.
func blocks(n int64) int64 { return (n + block.Size - 1) / block.Size }

func appendExtent(es []block.Extent, e block.Extent) []block.Extent {
	if n := len(es); n > 0 && es[n-1].End() == e.Offset {
		es[n-1].Length += e.Length
		return es
	}
	return append(es, e)
}

func readFull(r Reader, p []byte, off int64) error {
	for len(p) > 0 {
		n, err := r.ReadAt(p, off)
		if n == len(p) {
			return nil
		}
		if err != nil {
			return err
		}
		if n == 0 {
			return fmt.Errorf("nothing at %d", off)
		}
		p, off = p[n:], off+int64(n)
	}
	return nil
}

// Clone returns a copy whose data lies in mem, which must have room for it.
func (c *Change) Clone(mem []byte) Change {
	return Change{
		Window: c.Window, Extents: slices.Clone(c.Extents), Zeros: slices.Clone(c.Zeros),
		Data: append(mem, c.Data...), Index: slices.Clone(c.Index), Sums: slices.Clone(c.Sums), content: slices.Clone(c.content), prints: slices.Clone(c.prints),
	}
}
