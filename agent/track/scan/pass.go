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
	buf   []byte
	known [WindowBlocks]block.Sum
	seen  [WindowBlocks]print
	c     Change
}

// NewScanner allocates all memory that passes need. The prints are those of the sums, or of nothing, or nil.
func NewScanner(disk Reader, sums *Sums, prints *Prints, key block.SumKey) *Scanner {
	s := &Scanner{disk: disk, sums: sums, prints: prints, summer: block.NewSummer(key)}
	for i := range s.w {
		s.w[i].buf = disk.Buffer(WindowSize)
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
	// take hands out the next piece: the part of one window that is dirty from its first dirty byte on.
	take := func() (block.Extent, bool) {
		mu.Lock()
		defer mu.Unlock()
		for len(dirty) > 0 {
			e := dirty[0]
			off := max(e.Offset, next)
			if off >= e.End() {
				dirty = dirty[1:]
				continue
			}
			off -= off % block.Size
			window := off / WindowSize * WindowSize
			end := min(window+WindowSize, e.End())
			// Other extents in the same window go with it: a window has one owner at a time.
			for i := 1; i < len(dirty) && dirty[i].Offset < window+WindowSize; i++ {
				end = min(window+WindowSize, dirty[i].End())
			}
			end = min((end+block.Size-1)/block.Size*block.Size, s.disk.Size())
			next = end
			return block.Extent{Offset: off, Length: end - off}, true
		}
		return block.Extent{}, false
	}
	for i := range s.w {
		wg.Go(func() {
			for ctx.Err() == nil {
				e, ok := take()
				if !ok {
					return
				}
				n, err := s.window(&s.w[i], e, learn, sink)
				if err != nil {
					cancel(err)
					return
				}
				changed.Add(n)
				read(e.Length)
			}
		})
	}
	wg.Wait()
	return changed.Load(), context.Cause(ctx)
}

// window compares a part of one window.
func (s *Scanner) window(w *worker, e block.Extent, learn bool, sink func(*Change) error) (int64, error) {
	c := &w.c
	c.reset(e.Offset / WindowSize)
	if err := s.sums.Read(c.Window, w.known[:]); err != nil {
		return 0, err
	}
	data, err := s.disk.NextData(e.Offset)
	if err != nil {
		return 0, fmt.Errorf("find data: %w", err)
	}
	buf := w.buf[:e.Length]
	hole := data >= e.End()
	if hole && block.IsZero(bytesOf(w.known[:])) {
		return 0, nil
	}
	if err := s.prints.load(c.Window, w.seen[:]); err != nil {
		return 0, err
	}
	if !hole {
		if err := readFull(s.disk, buf, e.Offset); err != nil {
			return 0, fmt.Errorf("read [%d,+%d): %w", e.Offset, e.Length, err)
		}
	}
	news := false // prints to write
	kept := 0     // bytes of buf that go out, moved to its front
	for i, off := int(e.Offset%WindowSize/block.Size), int64(0); off < e.Length; i, off = i+1, off+block.Size {
		n := min(block.Size, e.Length-off)
		var now print
		var sum block.Sum
		if !hole {
			b := buf[off : off+n]
			if s.prints != nil {
				now = s.prints.of(b)
				if same(now, w.seen[i], w.known[i]) {
					continue
				}
			}
			sum = s.summer.Of(b)
		}
		news = news || now != w.seen[i]
		w.seen[i] = now
		if sum == w.known[i] {
			continue
		}
		w.known[i] = sum
		c.Index, c.Sums, c.prints = append(c.Index, uint8(i)), append(c.Sums, sum), append(c.prints, now)
		at := block.Extent{Offset: e.Offset + off, Length: n}
		if sum == (block.Sum{}) {
			c.Zeros = appendExtent(c.Zeros, at)
			continue
		}
		c.Extents, c.content = appendExtent(c.Extents, at), append(c.content, sum)
		if int64(kept) != off { // else it lies there already, as all of a first copy does
			copy(buf[kept:], buf[off:off+n])
		}
		kept += int(n)
	}
	c.Data = buf[:kept]
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
