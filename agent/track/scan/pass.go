package scan

import (
	"context"
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
	disk Reader
	sums *Sums
	key  block.SumKey
	w    [workers]worker
}

type worker struct {
	buf   []byte
	known [WindowBlocks]block.Sum
	c     Change
}

// NewScanner allocates all memory that passes need.
func NewScanner(disk Reader, sums *Sums, key block.SumKey) *Scanner {
	s := &Scanner{disk: disk, sums: sums, key: key}
	for i := range s.w {
		s.w[i].buf = disk.Buffer(WindowSize)
		s.w[i].c.Index = make([]uint8, 0, WindowBlocks)
		s.w[i].c.Sums = make([]block.Sum, 0, WindowBlocks)
		s.w[i].c.content = make([]block.Sum, 0, WindowBlocks)
	}
	return s
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
	number := e.Offset / WindowSize
	if err := s.sums.Read(number, w.known[:]); err != nil {
		return 0, err
	}
	first := int(e.Offset % WindowSize / block.Size)
	data, err := s.disk.NextData(e.Offset)
	if err != nil {
		return 0, fmt.Errorf("find data: %w", err)
	}
	buf := w.buf[:e.Length]
	hole := data >= e.End()
	if !hole {
		if err := readFull(s.disk, buf, e.Offset); err != nil {
			return 0, fmt.Errorf("read [%d,+%d): %w", e.Offset, e.Length, err)
		}
		hole = block.IsZero(buf)
	}
	c := &w.c
	c.Window, c.Extents, c.Zeros = number, c.Extents[:0], c.Zeros[:0]
	c.Index, c.Sums, c.content = c.Index[:0], c.Sums[:0], c.content[:0]
	kept := 0 // bytes of buf that go out, moved to its front
	for i, off := first, int64(0); off < e.Length; i, off = i+1, off+block.Size {
		n := min(block.Size, e.Length-off)
		var sum block.Sum
		if !hole {
			sum = s.key.Of(buf[off : off+n])
		}
		if sum == w.known[i] {
			continue
		}
		w.known[i] = sum
		c.Index, c.Sums = append(c.Index, uint8(i)), append(c.Sums, sum)
		at := block.Extent{Offset: e.Offset + off, Length: n}
		if sum == (block.Sum{}) {
			c.Zeros = appendExtent(c.Zeros, at)
			continue
		}
		c.Extents, c.content = appendExtent(c.Extents, at), append(c.content, sum)
		kept += copy(buf[kept:], buf[off:off+n])
	}
	if len(c.Index) == 0 {
		return 0, nil
	}
	c.Data = buf[:kept]
	if err := sink(c); err != nil {
		return 0, err
	}
	if learn {
		if err := s.sums.Write(number, w.known[:]); err != nil {
			return 0, err
		}
	}
	return c.Bytes(), nil
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
		Data: append(mem, c.Data...), Index: slices.Clone(c.Index), Sums: slices.Clone(c.Sums), content: slices.Clone(c.content),
	}
}
