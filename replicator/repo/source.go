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
	v, err := o.cache.get(ctx, frameKey(run), func() (any, int64, error) {
		buf := storedPool.Get().(*[]byte)
		defer storedPool.Put(buf)
		p, err := o.load(ctx, run, *buf, nil)
		return p, int64(cap(p)) + 64, err
	})
	if err != nil {
		return nil, err
	}
	p := v.([]byte)
	return p, o.holds(p, run)
}

func frameKey(run *manifest.Run) cacheKey {
	return cacheKey{object: run.Pack, number: uint32(run.FrameIndex)}
}

// wholeFrame fills p, which is all of run from its frame's first block on. If that is the frame's whole content it goes straight
// into p and not through the cache: who reads so much at once reads on, and would drive out what others read again.
func (o *source) wholeFrame(ctx context.Context, run *manifest.Run, p []byte) error {
	frame, ok := o.cache.peek(frameKey(run)).([]byte)
	if !ok {
		buf := storedPool.Get().(*[]byte)
		defer storedPool.Put(buf)
		var err error
		if frame, err = o.load(ctx, run, *buf, p); err != nil {
			return err
		}
		if len(frame) == len(p) {
			return nil
		}
		o.cache.add(frameKey(run), frame, int64(cap(frame))+64)
	}
	if err := o.holds(frame, run); err != nil {
		return err
	}
	copy(p, frame)
	return nil
}

// load reads a frame into buf and returns its plain bytes: in p if they are as long, else in memory of their own.
func (o *source) load(ctx context.Context, run *manifest.Run, buf, p []byte) ([]byte, error) {
	name := packName(o.machine, run.Pack)
	stored := buf[:run.FrameLength]
	if err := o.read(ctx, name, int64(run.FrameOffset), stored); err != nil {
		return nil, err
	}
	if n, err := chunk.PlainSize(stored); err != nil || n != len(p) {
		p = nil
	}
	plain, err := o.r.keys.frames(o.machine, run.Pack).OpenInto(p[:0:len(p)], stored, uint32(run.FrameIndex))
	if err != nil {
		return nil, corrupt(o.machine, name, err)
	}
	return plain, nil
}

// holds tells whether a frame is as long as the map says.
func (o *source) holds(frame []byte, run *manifest.Run) error {
	if (int64(run.FrameFirst)+run.Blocks)*block.Size > int64(len(frame)) {
		return corrupt(o.machine, packName(o.machine, run.Pack), fmt.Errorf("frame %d has %d bytes, the map wants more", run.FrameIndex, len(frame)))
	}
	return nil
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
