package repo

import (
	"context"
	"fmt"
	"slices"

	"github.com/lifeboat-dr/lifeboat/replicator/block"
	"github.com/lifeboat-dr/lifeboat/replicator/chunk"
)

const (
	// MaxPut is the most bytes one Put takes.
	MaxPut = 1 << 20

	zeroAtATime = regionBlocks * 64

	// lendable is the least that gets a frame of its own: so frames, and what a later read of the same range decodes, stay large.
	lendable = chunk.MaxPlain * 3 / 4
)

// Put writes extents of a disk. They cover whole blocks (the disk's short last block counts as whole); data is their bytes
// one after another, at most MaxPut; sums has one compare sum a block, made with the disk's SumKey. A zero sum means a block
// of zeros, which is stored as a hole. Put copies data and returns before it is durable (see Sync). It may checkpoint first
// when much is held. After ErrInvalid nothing was written; after other errors a part may have been, and the same Put may be
// tried again.
func (w *Writer) Put(ctx context.Context, disk string, extents []block.Extent, sums []block.Sum, data []byte) error {
	if err := w.lock(ctx); err != nil {
		return err
	}
	defer w.unlock()
	return w.put(ctx, disk, extents, sums, data)
}

// Take is Put, but data is lent: it must not be changed until done is called, by any goroutine, which happens once and whatever
// Take returns. A long run is compressed from where it is instead of being copied first.
func (w *Writer) Take(ctx context.Context, disk string, extents []block.Extent, sums []block.Sum, data []byte, done func()) error {
	lent, err := w.take(ctx, disk, extents, sums, data, done)
	if !lent {
		done()
	}
	return err
}

func (w *Writer) take(ctx context.Context, disk string, extents []block.Extent, sums []block.Sum, data []byte, done func()) (lent bool, err error) {
	if err := w.lock(ctx); err != nil {
		return false, err
	}
	defer w.unlock()
	if len(data) < lendable || len(data)%block.Size != 0 || len(extents) != 1 || slices.Contains(sums, block.Sum{}) {
		return false, w.put(ctx, disk, extents, sums, data)
	}
	d, err := w.disk(disk)
	if err != nil {
		return false, err
	}
	if err := checkPut(d, extents, sums, data); err != nil {
		return false, err
	}
	if err := w.makeRoom(ctx); err != nil {
		return false, err
	}
	if w.cur != nil { // what was put before stays before
		if err := w.submit(); err != nil {
			return false, err
		}
	}
	f, err := w.frame(ctx)
	if err != nil {
		return false, err
	}
	first, n := extents[0].Offset/block.Size, int64(len(sums))
	f.lend(d.place, first, n, data, done)
	d.mem.put(first, n, f.number, 0, int32(len(w.held.sums)))
	w.held.sums = append(w.held.sums, sums...)
	w.changed += int64(len(data))
	return true, w.submit()
}

func (w *Writer) put(ctx context.Context, disk string, extents []block.Extent, sums []block.Sum, data []byte) error {
	d, err := w.disk(disk)
	if err != nil {
		return err
	}
	if err := checkPut(d, extents, sums, data); err != nil {
		return err
	}
	if err := w.makeRoom(ctx); err != nil {
		return err
	}
	for _, e := range extents {
		first, end := e.Blocks()
		n := end - first
		if err := w.putExtent(ctx, d, first, sums[:n], data[:e.Length]); err != nil {
			return err
		}
		sums, data = sums[n:], data[e.Length:]
		w.changed += e.Length
	}
	return nil
}

func checkPut(d *writerDisk, extents []block.Extent, sums []block.Sum, data []byte) error {
	var bytes, blocks int64
	if len(data) > MaxPut {
		return fmt.Errorf("%w: %d bytes in one put", ErrInvalid, len(data))
	}
	for _, e := range extents {
		if !e.AlignedIn(d.info.Size) {
			return fmt.Errorf("%w: extent %d+%d of disk %s with %d bytes", ErrInvalid, e.Offset, e.Length, d.info.ID, d.info.Size)
		}
		first, end := e.Blocks()
		at := bytes
		bytes, blocks = bytes+e.Length, blocks+end-first
		if bytes > int64(len(data)) || blocks > int64(len(sums)) {
			return fmt.Errorf("%w: extents are longer than data or sums", ErrInvalid)
		}
		// A zero sum on other content would lose the block without a trace.
		for i, s := range sums[blocks-(end-first) : blocks] {
			if s == (block.Sum{}) {
				from := at + int64(i)*block.Size
				if !block.IsZero(data[from:min(from+block.Size, bytes)]) {
					return fmt.Errorf("%w: block %d of disk %s has a zero sum but is not zero", ErrInvalid, first+int64(i), d.info.ID)
				}
			}
		}
	}
	if bytes != int64(len(data)) || blocks != int64(len(sums)) {
		return fmt.Errorf("%w: %d bytes and %d sums for extents of %d bytes and %d blocks", ErrInvalid, len(data), len(sums), bytes, blocks)
	}
	return nil
}

// putExtent splits an extent into stretches of zeros and of data.
func (w *Writer) putExtent(ctx context.Context, d *writerDisk, first int64, sums []block.Sum, data []byte) error {
	for len(sums) > 0 {
		zero := sums[0] == block.Sum{}
		n := 1
		for n < len(sums) && (sums[n] == block.Sum{}) == zero {
			n++
		}
		bytes := min(len(data), n*block.Size)
		var err error
		if zero {
			err = w.addHole(ctx, d, first, int64(n))
		} else {
			err = w.addData(ctx, d, first, sums[:n], data[:bytes])
		}
		if err != nil {
			return err
		}
		first, sums, data = first+int64(n), sums[n:], data[bytes:]
	}
	return nil
}

// Zero writes zeros over an extent of whole blocks, of any length.
func (w *Writer) Zero(ctx context.Context, disk string, e block.Extent) error {
	if err := w.lock(ctx); err != nil {
		return err
	}
	defer w.unlock()
	d, err := w.disk(disk)
	if err != nil {
		return err
	}
	if !e.AlignedIn(d.info.Size) {
		return fmt.Errorf("%w: extent %d+%d of disk %s with %d bytes", ErrInvalid, e.Offset, e.Length, disk, d.info.Size)
	}
	for first, end := e.Blocks(); first < end; {
		n := min(end-first, zeroAtATime)
		if err := w.makeRoom(ctx); err != nil {
			return err
		}
		if err := w.addHole(ctx, d, first, n); err != nil {
			return err
		}
		first += n
	}
	w.changed += e.Length
	return nil
}

func (w *Writer) addHole(ctx context.Context, d *writerDisk, first, n int64) error {
	f, err := w.frame(ctx)
	if err != nil {
		return err
	}
	f.addHole(d.place, first, n)
	d.mem.put(first, n, holeFrame, 0, 0)
	return nil
}

func (w *Writer) addData(ctx context.Context, d *writerDisk, first int64, sums []block.Sum, data []byte) error {
	for len(sums) > 0 {
		f, err := w.frame(ctx)
		if err != nil {
			return err
		}
		n := min(len(sums), chunk.MaxBlocks-f.blocks)
		bytes := min(len(data), n*block.Size)
		at := uint16(f.blocks)
		f.addData(d.place, first, int64(n), data[:bytes])
		d.mem.put(first, int64(n), f.number, at, int32(len(w.held.sums)))
		w.held.sums = append(w.held.sums, sums[:n]...)
		first, sums, data = first+int64(n), sums[n:], data[bytes:]
	}
	return nil
}
