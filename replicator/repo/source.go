package repo

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/lifeboat-dr/lifeboat/replicator/block"
	"github.com/lifeboat-dr/lifeboat/replicator/chunk"
	"github.com/lifeboat-dr/lifeboat/replicator/manifest"
)

// source reads and verifies pages and frames of one machine, through the cache.
type source struct {
	r       *Repository
	s       store
	machine string
	cache   *cache
	point   PointRef // being read; zero for a writer
}

func (r *Repository) source(machine string, t *traffic) *source {
	return &source{r: r, s: r.s.counted(t), machine: machine, cache: r.cache}
}

// Page implements manifest.Source.
func (o *source) Page(ctx context.Context, l *manifest.Layer, tree manifest.Tree, level int, ref manifest.PageRef) (*manifest.Page, error) {
	name := mapName(o.machine, l.Generation, l.Map)
	v, err := o.cache.get(ctx, cacheKey{l.Map, ref.Ordinal, true}, func() (any, int64, error) {
		stored := make([]byte, ref.Length)
		if err := o.read(ctx, name, ref.Offset, stored); err != nil {
			return nil, 0, err
		}
		p, err := manifest.NewPageCipher(o.r.keys.pages(o.machine, l.Map)).Open(&ref, stored, tree, level)
		if err != nil {
			return nil, 0, corrupt(o.machine, name, err)
		}
		return p, p.Size(), nil
	})
	if err != nil {
		return nil, err
	}
	p := v.(*manifest.Page)
	if p.Tree != tree || level >= 0 && p.Level != level {
		return nil, corrupt(o.machine, name, fmt.Errorf("page %d is of tree %d level %d", ref.Ordinal, p.Tree, p.Level))
	}
	return p, nil
}

// frame returns the plain bytes of the frame that holds run. They must not be changed.
func (o *source) frame(ctx context.Context, run *manifest.Run) ([]byte, error) {
	name := packName(o.machine, run.Pack)
	v, err := o.cache.get(ctx, cacheKey{object: run.Pack, number: uint32(run.FrameIndex)}, func() (any, int64, error) {
		buf := storedPool.Get().(*[]byte)
		defer storedPool.Put(buf)
		stored := (*buf)[:run.FrameLength]
		if err := o.read(ctx, name, int64(run.FrameOffset), stored); err != nil {
			return nil, 0, err
		}
		p, err := o.r.keys.frames(o.machine, run.Pack).Open(stored, uint32(run.FrameIndex))
		if err != nil {
			return nil, 0, corrupt(o.machine, name, err)
		}
		return p, int64(cap(p)) + 64, nil
	})
	if err != nil {
		return nil, err
	}
	p := v.([]byte)
	if (int64(run.FrameFirst)+run.Blocks)*block.Size > int64(len(p)) {
		return nil, corrupt(o.machine, name, fmt.Errorf("frame %d has %d bytes, the map wants more", run.FrameIndex, len(p)))
	}
	return p, nil
}

// read reads a piece of a pack or map, which has to be there unless the point was pruned while it was being read.
func (o *source) read(ctx context.Context, name string, off int64, p []byte) error {
	err := o.s.read(ctx, name, off, p)
	if !errors.Is(err, ErrNotFound) {
		return err
	}
	if o.point.Sequence > 0 {
		if _, err := o.r.point(ctx, o.s, o.machine, o.point); err != nil {
			return err
		}
	}
	return &CorruptError{Machine: o.machine, Object: name, Err: errors.New("the object is missing")}
}

// storedPool has buffers for frames as stored; what comes out of them is always a copy.
var storedPool = sync.Pool{New: func() any {
	p := make([]byte, chunk.MaxFrame)
	return &p
}}

// view lays the layers over each other. above, newest first, lie over them.
func (o *source) view(layers []manifest.Layer, above ...manifest.RunReader) *manifest.View {
	for i := range layers {
		above = append(above, manifest.NewLayerReader(o, &layers[i]))
	}
	return manifest.NewView(above...)
}

// blame adds disk and extent to a CorruptError.
func blame(err error, disk string, e block.Extent) error {
	var c *CorruptError
	if !errors.As(err, &c) || c.Disk != "" {
		return err
	}
	named := *c
	named.Disk, named.Extent = disk, e
	return &named
}

// wrongMap turns an inconsistency between a map's trees into a CorruptError.
func (o *source) wrongMap(err error) error {
	if errors.Is(err, manifest.ErrFormat) || errors.Is(err, manifest.ErrAuth) {
		return corrupt(o.machine, mapsOf(o.machine), err)
	}
	return err
}
