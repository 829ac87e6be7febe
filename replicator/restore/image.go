package restore

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"github.com/lifeboat-dr/lifeboat/replicator/block"
)

// ImageOptions has a useful zero value.
type ImageOptions struct {
	// Progress is told how far the work is, in bytes of the disk, holes included: done grows to total. Calls do not overlap.
	Progress func(done, total int64)
	// Workers read and write at the same time. Zero means 4: the source decompresses and decrypts, so it is the bottleneck.
	Workers int
}

func (o ImageOptions) workers() int {
	if o.Workers > 0 {
		return o.Workers
	}
	return 4
}

// span is how much one worker reads at a time: a few stored frames, so that each is decoded once.
const span = 4 << 20

// WriteImage writes the disk as a raw image file. Holes and blocks of zeros take no space. The file appears under its name
// when it is complete and on stable storage; until then, and after any error, nothing is there but what was there before.
// Memory is bounded by Workers spans.
//
// Errors: ErrFull; a *ReadError that names the extent and wraps the source's error.
func WriteImage(ctx context.Context, src Source, path string, opt ImageOptions) (err error) {
	part := path + ".part"
	f, err := os.OpenFile(part, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("create image: %w", targetError(err))
	}
	defer func() {
		if err != nil {
			_ = f.Close()
			_ = os.Remove(part)
		}
	}()
	if err := f.Truncate(src.Size()); err != nil {
		return fmt.Errorf("size image %s: %w", path, targetError(err))
	}
	if err := CopyData(ctx, src, f, opt); err != nil {
		return fmt.Errorf("write image %s: %w", path, err)
	}
	if err := f.Sync(); err != nil {
		return fmt.Errorf("sync image %s: %w", path, targetError(err))
	}
	if err := f.Close(); err != nil {
		return fmt.Errorf("close image %s: %w", path, targetError(err))
	}
	if err := os.Rename(part, path); err != nil {
		return fmt.Errorf("name image: %w", err)
	}
	return syncDirectory(filepath.Dir(path))
}

// CopyData writes what the disk holds to a file that reads as zeros wherever nothing was written. Zero blocks are left out.
func CopyData(ctx context.Context, src Source, dst *os.File, opt ImageOptions) error {
	p := progress{report: opt.Progress, total: src.Size()}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(opt.workers())
	pool := sync.Pool{New: func() any { return new([span]byte) }}
	w := newRunWriter(dst)
	defer w.close()
	err := eachSpan(ctx, src, func(e block.Extent, skipped int64) error {
		p.add(skipped)
		g.Go(func() error {
			buf := pool.Get().(*[span]byte)
			defer pool.Put(buf)
			b := buf[:e.Length]
			if err := src.ReadAt(ctx, b, e.Offset); err != nil {
				return &ReadError{Extent: e, Err: err}
			}
			for run := range dataRuns(b) {
				if err := w.writeAt(b[run.Offset:run.End()], e.Offset+run.Offset); err != nil {
					return targetError(err)
				}
			}
			p.add(e.Length)
			return nil
		})
		return ctx.Err()
	})
	// What a worker met explains why walking the extents stopped.
	if werr := g.Wait(); werr != nil {
		return werr
	}
	if err != nil {
		return err
	}
	p.finish()
	return nil
}

// eachSpan calls f for every piece of the disk that may hold data, in order, aligned to spans; skipped is the length of the
// hole before it.
func eachSpan(ctx context.Context, src Source, f func(e block.Extent, skipped int64) error) error {
	size := src.Size()
	for off := int64(0); off < size; {
		data, ok, err := src.Next(ctx, off)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			return &ReadError{Extent: block.Extent{Offset: off, Length: size - off}, Err: err}
		}
		if !ok {
			return nil
		}
		start, end := max(data.Offset, off), min(data.End(), size)
		if end <= off {
			return &ReadError{Extent: data, Err: errors.New("source returned an extent before the one asked for")}
		}
		for start < end {
			n := min(end-start, span-start%span)
			if err := f(block.Extent{Offset: start, Length: n}, start-off); err != nil {
				return err
			}
			start += n
			off = start
		}
	}
	return nil
}

// dataRuns yields the parts of b that are not zero, in blocks, neighbours joined.
func dataRuns(b []byte) func(yield func(block.Extent) bool) {
	return func(yield func(block.Extent) bool) {
		n := int64(len(b))
		for off := int64(0); off < n; {
			end := min(off+block.Size, n)
			if block.IsZero(b[off:end]) {
				off = end
				continue
			}
			for end < n && !block.IsZero(b[end:min(end+block.Size, n)]) {
				end = min(end+block.Size, n)
			}
			if !yield(block.Extent{Offset: off, Length: end - off}) {
				return
			}
			off = end
		}
	}
}

// progress adds up what workers have done and reports it in order.
type progress struct {
	report func(done, total int64)
	total  int64
	done   atomic.Int64
	mu     sync.Mutex // keeps calls of report apart
}

func (p *progress) add(n int64) {
	p.done.Add(n)
	if p.report == nil || n == 0 {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.report(p.done.Load(), p.total)
}

func (p *progress) finish() { p.add(p.total - p.done.Load()) }

func syncDirectory(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("sync directory: %w", err)
	}
	if err := errors.Join(d.Sync(), d.Close()); err != nil {
		return fmt.Errorf("sync directory %s: %w", dir, err)
	}
	return nil
}
