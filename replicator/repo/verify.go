package repo

import (
	"context"
	"fmt"

	"github.com/lifeboat-dr/lifeboat/replicator/block"
	"github.com/lifeboat-dr/lifeboat/replicator/manifest"
)

// verifyCache is what Verify keeps of pages and frames. It has its own cache: what memory holds says nothing about the bucket.
const verifyCache = 16 << 20

// Verify reads every byte of a point from the bucket, checks it, and compares every block with its compare sum. It returns the
// plain bytes that it checked. The first thing that does not verify ends it with a *CorruptError.
func (r *Repository) Verify(ctx context.Context, machine string, ref PointRef) (bytes int64, err error) {
	src := r.source(machine, r.s.t)
	src.cache, src.point = newCache(verifyCache), ref
	e, err := r.point(ctx, src.s, machine, ref)
	if err != nil {
		return 0, err
	}
	for i := range e.Disks {
		n, err := verifyDisk(ctx, src, &e.Disks[i])
		bytes += n
		if err != nil {
			return bytes, fmt.Errorf("verify disk %s of point %d of generation %d: %w", e.Disks[i].ID, ref.Sequence, ref.Generation, err)
		}
	}
	return bytes, nil
}

func verifyDisk(ctx context.Context, src *source, d *manifest.Disk) (bytes int64, err error) {
	view := src.view(d.Layers)
	sums := src.view(d.Layers)
	summer := block.NewSummer(src.r.SumKey(src.machine, d.ID))
	for first, end := int64(0), block.Count(d.Size); first < end; {
		p, err := view.At(ctx, first, end)
		if err != nil {
			return bytes, blame(err, d.ID, block.Extent{Offset: first * block.Size, Length: d.Size - first*block.Size})
		}
		first = p.End()
		if p.Hole {
			continue
		}
		if err := verifyPiece(ctx, src, sums, &p.Run, summer, d.Size); err != nil {
			return bytes, blame(err, d.ID, block.Extent{Offset: p.First * block.Size, Length: min(p.Blocks*block.Size, d.Size-p.First*block.Size)})
		}
		bytes += p.Blocks * block.Size
	}
	return bytes, nil
}

func verifyPiece(ctx context.Context, src *source, v *manifest.View, run *manifest.Run, summer *block.Summer, size int64) error {
	frame, err := src.frame(ctx, run)
	if err != nil {
		return err
	}
	want := make([]block.Sum, run.Blocks)
	if err := v.Sums(ctx, run.First, want); err != nil {
		return src.wrongMap(err)
	}
	for i := range run.Blocks {
		b := frame[(int64(run.FrameFirst)+i)*block.Size:]
		if summer.Of(b[:block.Length(run.First+i, size)]) != want[i] {
			return corrupt(src.machine, packName(src.machine, run.Pack), fmt.Errorf("block %d differs from its compare sum", run.First+i))
		}
	}
	return nil
}
