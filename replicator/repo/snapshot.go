package repo

import (
	"context"
	"fmt"
	"runtime"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/lifeboat-dr/lifeboat/replicator/block"
	"github.com/lifeboat-dr/lifeboat/replicator/manifest"
)

// Snapshot reads one recovery point. Safe for concurrent use.
type Snapshot struct {
	src   *source
	entry *manifest.Entry
	t     *traffic
}

// OpenPoint opens a point for reading, which costs two requests. It returns ErrNotFound if the point is not there or was
// pruned. A point that may be pruned while it is read should be pinned first.
func (r *Repository) OpenPoint(ctx context.Context, machine string, ref PointRef) (*Snapshot, error) {
	t := new(traffic)
	src := r.source(machine, t)
	src.point = ref
	e, err := r.point(ctx, src.s, machine, ref)
	if err != nil {
		return nil, err
	}
	return &Snapshot{src: src, entry: e, t: t}, nil
}

// Point describes the point.
func (s *Snapshot) Point() Point { return pointOf(s.entry) }

// Requests returns the bucket calls and bytes that this snapshot caused so far. What was in the repository's cache cost none.
func (s *Snapshot) Requests() (requests, bytes int64) { return s.t.requests.Load(), s.t.bytes.Load() }

// Close releases the snapshot. Its disks must not be used afterwards.
func (s *Snapshot) Close() error { return nil }

// Disk returns a disk of the point. It returns ErrNotFound if the point has no such disk.
func (s *Snapshot) Disk(id string) (*Disk, error) {
	for i := range s.entry.Disks {
		if d := &s.entry.Disks[i]; d.ID == id {
			return newDisk(s.src, d), nil
		}
	}
	return nil, fmt.Errorf("disk %q: %w", id, ErrNotFound)
}

// Disk reads one disk of a recovery point. Safe for concurrent use.
type Disk struct {
	src   *source
	d     *manifest.Disk
	views sync.Pool // of *manifest.View, which serve one call at a time
}

func newDisk(src *source, d *manifest.Disk) *Disk {
	k := &Disk{src: src, d: d}
	k.views.New = func() any { return src.view(d.Layers) }
	return k
}

// Info describes the disk.
func (d *Disk) Info() DiskInfo { return DiskInfo{ID: d.d.ID, Size: d.d.Size, OS: d.d.OS} }

// span is a part of a read: bytes [at, at+length) of a frame's plain data go to p.
type span struct {
	run manifest.Run
	at  int64
	p   []byte
}

// ReadAt fills p with the bytes at off, which must all lie on the disk. Holes read as zeros. Bytes that do not verify give a
// *CorruptError and nothing of p may be used. Reads that cover several frames decode them in parallel.
func (d *Disk) ReadAt(ctx context.Context, p []byte, off int64) error {
	e := block.Extent{Offset: off, Length: int64(len(p))}
	if off < 0 || e.End() > d.d.Size {
		return fmt.Errorf("%w: read of bytes %d to %d of disk %s, which has %d", ErrInvalid, off, e.End(), d.d.ID, d.d.Size)
	}
	spans, err := d.spans(ctx, p, off)
	if err == nil {
		err = d.copySpans(ctx, spans)
	}
	if err != nil {
		return blame(fmt.Errorf("read disk %s of machine %s at %d: %w", d.d.ID, d.src.machine, off, err), d.d.ID, e)
	}
	return nil
}

// spans finds where the bytes lie and clears the holes.
func (d *Disk) spans(ctx context.Context, p []byte, off int64) (spans []span, err error) {
	view := d.views.Get().(*manifest.View)
	defer d.views.Put(view)
	e := block.Extent{Offset: off, Length: int64(len(p))}
	first, end := e.Blocks()
	for first < end {
		piece, err := view.At(ctx, first, end)
		if err != nil {
			return nil, err
		}
		from, to := max(off, piece.First*block.Size), min(e.End(), piece.End()*block.Size)
		dst := p[from-off : to-off]
		if piece.Hole {
			clear(dst)
		} else {
			at := int64(piece.FrameFirst)*block.Size + from - piece.First*block.Size
			spans = append(spans, span{run: piece.Run, at: at, p: dst})
		}
		first = piece.End()
	}
	return spans, nil
}

func (d *Disk) copySpans(ctx context.Context, spans []span) error {
	if len(spans) < 2 {
		return d.copyFrame(ctx, spans)
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(runtime.GOMAXPROCS(0))
	for len(spans) > 0 {
		n := 1
		for n < len(spans) && spans[n].run.Pack == spans[0].run.Pack && spans[n].run.FrameIndex == spans[0].run.FrameIndex {
			n++
		}
		part := spans[:n]
		spans = spans[n:]
		g.Go(func() error { return d.copyFrame(ctx, part) })
	}
	return g.Wait()
}

// copyFrame serves spans of one frame.
func (d *Disk) copyFrame(ctx context.Context, spans []span) error {
	for i := range spans {
		s := &spans[i]
		if s.at == 0 && len(s.p) >= lendable && int64(len(s.p)) == s.run.Blocks*block.Size {
			if err := d.src.wholeFrame(ctx, &s.run, s.p); err != nil {
				return err
			}
			continue
		}
		frame, err := d.src.frame(ctx, &s.run)
		if err != nil {
			return err
		}
		copy(s.p, frame[s.at:])
	}
	return nil
}

// maxExtent bounds what Next returns, so that it reads few pages of the map.
const maxExtent = 1 << 30

// Next returns the next extent at or after off that is stored, cut at off; ok is false if there is none. An extent is at most
// 1 GiB long: the next may begin where it ends.
func (d *Disk) Next(ctx context.Context, off int64) (data block.Extent, ok bool, err error) {
	if off >= d.d.Size {
		return data, false, nil
	}
	view := d.views.Get().(*manifest.View)
	defer d.views.Put(view)
	end := block.Count(d.d.Size)
	first := max(off, 0) / block.Size
	var from, to int64 = -1, -1
	for first < end && (from < 0 || (to-from)*block.Size < maxExtent) {
		piece, err := view.At(ctx, first, end)
		if err != nil {
			return data, false, blame(err, d.d.ID, block.Extent{Offset: off, Length: d.d.Size - off})
		}
		if piece.Hole && from >= 0 {
			break
		}
		if !piece.Hole {
			if from < 0 {
				from = first
			}
			to = piece.End()
		}
		first = piece.End()
	}
	if from < 0 {
		return data, false, nil
	}
	data.Offset = max(off, from*block.Size)
	data.Length = min(to*block.Size, d.d.Size) - data.Offset
	return data, true, nil
}

// Sums copies the compare sums of the blocks [first, first+len(dst)) into dst; holes have the zero sum. No data is read.
func (d *Disk) Sums(ctx context.Context, first int64, dst []block.Sum) error {
	if first < 0 || first+int64(len(dst)) > block.Count(d.d.Size) {
		return fmt.Errorf("%w: sums of blocks %d to %d of disk %s, which has %d bytes", ErrInvalid, first, first+int64(len(dst)), d.d.ID, d.d.Size)
	}
	view := d.views.Get().(*manifest.View)
	defer d.views.Put(view)
	e := block.Extent{Offset: first * block.Size, Length: int64(len(dst)) * block.Size}
	return blame(d.src.wrongMap(view.Sums(ctx, first, dst)), d.d.ID, e)
}
