package restore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"github.com/lifeboat-dr/lifeboat/replicator/block"
)

// Summed is a Source that can tell the compare sums of its blocks without reading them, so that write-back fetches only what
// differs.
type Summed interface {
	Source
	// Sums stores the sums of the blocks [first, first+len(dst)); the zero Sum for blocks of zeros.
	Sums(ctx context.Context, first int64, dst []block.Sum) error
	// SumOf computes the sum of a block's bytes, under the key that made Sums.
	SumOf(p []byte) block.Sum
}

// WriteBackResult tells what WriteBack did. Written <= Compared.
type WriteBackResult struct {
	Compared int64 // bytes of the target that were read and compared
	Written  int64 // bytes that differed and were written, zeros included
}

// WriteBack makes the target equal to the disk of the point, writing only the blocks that differ, and returns when they are on
// stable storage. A source that is Summed is read only where the target differs.
//
// It may be stopped or killed anywhere and run again: what was written already compares equal. Until it has returned nil the
// target is a mixture of old and new that no machine may be started from.
//
// Errors: ErrSize before anything was written; ErrFull and ErrGone from the target; a *ReadError that names the extent of the
// source.
func WriteBack(ctx context.Context, src Source, dst Target, opt ImageOptions) (WriteBackResult, error) {
	size := src.Size()
	if dst.Size() != size {
		return WriteBackResult{}, fmt.Errorf("%w: target has %d bytes, the disk has %d", ErrSize, dst.Size(), size)
	}
	w := &writeBack{src: src, dst: dst, progress: progress{report: opt.Progress, total: size}}
	w.summed, _ = src.(Summed)
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(opt.workers())
	for off := int64(0); off < size && gctx.Err() == nil; off += span {
		e := block.Extent{Offset: off, Length: min(span, size-off)}
		g.Go(func() error { return w.span(gctx, e) })
	}
	err := g.Wait()
	if err == nil {
		err = ctx.Err()
	}
	// Synced also after an error: what was written need not be compared as if it were new.
	err = errors.Join(err, dst.Sync())
	res := WriteBackResult{Compared: w.compared.Load(), Written: w.written.Load()}
	if err != nil {
		return res, fmt.Errorf("write back: %w", err)
	}
	return res, nil
}

type writeBack struct {
	src      Source
	summed   Summed
	dst      Target
	progress progress
	compared atomic.Int64
	written  atomic.Int64
	pool     sync.Pool
}

func (w *writeBack) buffer() *[span]byte {
	if b, ok := w.pool.Get().(*[span]byte); ok {
		return b
	}
	return new([span]byte)
}

func (w *writeBack) span(ctx context.Context, e block.Extent) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	haveBuf := w.buffer()
	defer w.pool.Put(haveBuf)
	have := haveBuf[:e.Length]
	if n, err := w.dst.ReadAt(have, e.Offset); err != nil && (!errors.Is(err, io.EOF) || int64(n) < e.Length) {
		return fmt.Errorf("read target at %d: %w", e.Offset, err)
	}
	w.compared.Add(e.Length)
	var err error
	if w.summed != nil {
		err = w.bySums(ctx, e, have)
	} else {
		err = w.byBytes(ctx, e, have)
	}
	if err == nil {
		w.progress.add(e.Length)
	}
	return err
}

// bySums fetches and writes the blocks whose sums differ.
func (w *writeBack) bySums(ctx context.Context, e block.Extent, have []byte) error {
	sums := make([]block.Sum, block.Count(e.Length))
	if err := w.summed.Sums(ctx, e.Offset/block.Size, sums); err != nil {
		return &ReadError{Extent: e, Err: err}
	}
	return eachRun(have, func(i int64, p []byte) state {
		switch {
		case w.summed.SumOf(p) == sums[i]:
			return same
		case sums[i] == block.Sum{}:
			return toZero
		}
		return toData
	}, func(s state, run block.Extent) error {
		if s == toZero {
			return w.zero(e.Offset+run.Offset, run.Length)
		}
		p := have[run.Offset:run.End()]
		at := block.Extent{Offset: e.Offset + run.Offset, Length: run.Length}
		if err := w.src.ReadAt(ctx, p, at.Offset); err != nil {
			return &ReadError{Extent: at, Err: err}
		}
		return w.write(p, at.Offset)
	})
}

// byBytes reads the source and writes the blocks that differ.
func (w *writeBack) byBytes(ctx context.Context, e block.Extent, have []byte) error {
	wantBuf := w.buffer()
	defer w.pool.Put(wantBuf)
	want := wantBuf[:e.Length]
	if err := w.src.ReadAt(ctx, want, e.Offset); err != nil {
		return &ReadError{Extent: e, Err: err}
	}
	return eachRun(have, func(i int64, p []byte) state {
		q := want[i*block.Size:][:len(p)]
		switch {
		case string(p) == string(q):
			return same
		case block.IsZero(q):
			return toZero
		}
		return toData
	}, func(s state, run block.Extent) error {
		if s == toZero {
			return w.zero(e.Offset+run.Offset, run.Length)
		}
		return w.write(want[run.Offset:run.End()], e.Offset+run.Offset)
	})
}

func (w *writeBack) write(p []byte, off int64) error {
	if _, err := w.dst.WriteAt(p, off); err != nil {
		return fmt.Errorf("write target at %d: %w", off, err)
	}
	w.written.Add(int64(len(p)))
	return nil
}

func (w *writeBack) zero(off, length int64) error {
	if err := w.dst.Zero(off, length); err != nil {
		return fmt.Errorf("zero target at %d: %w", off, err)
	}
	w.written.Add(length)
	return nil
}

// state says what a block of the target needs.
type state int

const (
	same state = iota
	toZero
	toData
)

// eachRun classifies the blocks of b and calls act for every run of equal states but same.
func eachRun(b []byte, classify func(i int64, p []byte) state, act func(s state, run block.Extent) error) error {
	n := int64(len(b))
	run, in := block.Extent{}, same
	for off := int64(0); off < n; off += block.Size {
		end := min(off+block.Size, n)
		s := classify(off/block.Size, b[off:end])
		if s != in {
			if in != same {
				if err := act(in, run); err != nil {
					return err
				}
			}
			run, in = block.Extent{Offset: off}, s
		}
		run.Length = end - run.Offset
	}
	if in != same {
		return act(in, run)
	}
	return nil
}
