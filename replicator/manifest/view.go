package manifest

import (
	"context"

	"github.com/lifeboat-dr/lifeboat/replicator/block"
)

// RunReader is a layer to a View: a stored one (LayerReader) or one in memory. Seek returns the first run that ends after the
// block. Sums copies the sums of blocks that Seek called data.
type RunReader interface {
	Seek(ctx context.Context, blk int64) (run Run, ok bool, err error)
	Sums(ctx context.Context, first int64, dst []block.Sum) error
}

// View lays layers over each other, the newest first. Not safe for concurrent use.
type View struct {
	layers []viewLayer
}

type viewLayer struct {
	r     RunReader
	run   Run
	ok    bool
	from  int64 // run is what Seek(b) returns for every b in [from, run.End())
	valid bool
}

// NewView returns the view of the layers, newest first.
func NewView(layers ...RunReader) *View {
	v := &View{layers: make([]viewLayer, len(layers))}
	for i, l := range layers {
		v.layers[i].r = l
	}
	return v
}

func (l *viewLayer) seek(ctx context.Context, blk int64) (*Run, error) {
	if l.valid && l.from <= blk && (!l.ok || blk < l.run.End()) {
		return &l.run, nil
	}
	var err error
	l.valid = false
	if l.run, l.ok, err = l.r.Seek(ctx, blk); err != nil {
		return nil, err
	}
	l.from, l.valid = blk, true
	return &l.run, nil
}

// Piece is a range of blocks with one answer. Layer is the place of the layer it comes from, -1 if no layer knows the blocks
// (then it is a hole).
type Piece struct {
	Run
	Layer int
}

// At returns the piece that starts at block first and ends at or before end. It is never empty; first must be below end.
func (v *View) At(ctx context.Context, first, end int64) (Piece, error) {
	for i := range v.layers {
		l := &v.layers[i]
		run, err := l.seek(ctx, first)
		if err != nil {
			return Piece{}, err
		}
		if !l.ok {
			continue
		}
		if run.First <= first {
			return Piece{Run: run.Clip(first, min(end, run.End())), Layer: i}, nil
		}
		end = min(end, run.First) // what lies below is hidden from there on
	}
	return Piece{Run: Run{First: first, Blocks: end - first, Hole: true}, Layer: -1}, nil
}

// Sums copies the sums of the blocks from first on into dst; holes get the zero sum.
func (v *View) Sums(ctx context.Context, first int64, dst []block.Sum) error {
	for len(dst) > 0 {
		p, err := v.At(ctx, first, first+int64(len(dst)))
		if err != nil {
			return err
		}
		part := dst[:p.Blocks]
		if p.Hole {
			clear(part)
		} else if err := v.layers[p.Layer].r.Sums(ctx, first, part); err != nil {
			return err
		}
		first, dst = p.End(), dst[p.Blocks:]
	}
	return nil
}

// Merge writes the view of the blocks [0, end) into l. Holes are left out when bottom says that nothing lies below the view's
// layers. It needs a page a layer and level in memory, whatever the disk's size.
func (v *View) Merge(ctx context.Context, end int64, bottom bool, l *LayerWriter) error {
	var sums [chunkSums]block.Sum
	for blk := int64(0); blk < end; {
		p, err := v.At(ctx, blk, end)
		if err != nil {
			return err
		}
		switch {
		case p.Hole:
			if p.Layer >= 0 && !bottom {
				if err := l.Add(p.Run, nil); err != nil {
					return err
				}
			}
		default:
			p.Run = p.Clip(blk, min(p.End(), blk+chunkSums))
			s := sums[:p.Blocks]
			if err := v.layers[p.Layer].r.Sums(ctx, blk, s); err != nil {
				return err
			}
			if err := l.Add(p.Run, s); err != nil {
				return err
			}
		}
		blk = p.End()
	}
	return nil
}

// chunkSums is how many sums Merge holds at a time; a data run is no longer than a frame.
const chunkSums = 256
