package manifest

import (
	"context"
	"fmt"

	"github.com/lifeboat-dr/lifeboat/replicator/block"
)

// Source fetches pages of maps. Page returns the decoded page that ref names in the layer's map; a negative level means any.
type Source interface {
	Page(ctx context.Context, l *Layer, tree Tree, level int, ref PageRef) (*Page, error)
}

// treeCursor walks the leaves of one tree.
type treeCursor struct {
	src   Source
	layer *Layer
	tree  Tree
	root  *PageRef
	path  []step // from the root down; the last is the leaf
}

type step struct {
	page *Page
	i    int // the child that the next step is
}

// seek descends to the leaf that may hold key. It returns nil for an empty tree.
func (c *treeCursor) seek(ctx context.Context, key int64) (*Page, error) {
	c.path = c.path[:0]
	if c.root == nil {
		return nil, nil
	}
	return c.descend(ctx, *c.root, -1, func(p *Page) int { return p.childFor(key) })
}

func (c *treeCursor) descend(ctx context.Context, ref PageRef, level int, pick func(*Page) int) (*Page, error) {
	for {
		p, err := c.src.Page(ctx, c.layer, c.tree, level, ref)
		if err != nil {
			c.path = c.path[:0]
			return nil, err
		}
		if p.Level == 0 {
			c.path = append(c.path, step{page: p})
			return p, nil
		}
		i := pick(p)
		c.path = append(c.path, step{p, i})
		ref, level = p.child(i), p.Level-1
	}
}

// next moves to the leaf after the current one. It returns nil at the end.
func (c *treeCursor) next(ctx context.Context) (*Page, error) {
	for n := len(c.path) - 2; n >= 0; n-- {
		s := &c.path[n]
		if s.i+1 < s.page.n {
			s.i++
			c.path = c.path[:n+1]
			return c.descend(ctx, s.page.child(s.i), s.page.Level-1, func(*Page) int { return 0 })
		}
	}
	c.path = c.path[:0]
	return nil, nil
}

// LayerReader reads one layer of a disk. Not safe for concurrent use; make one a reader, they are cheap.
type LayerReader struct {
	entries, sums treeCursor
	leaf, sumLeaf *Page
	i             int
}

// NewLayerReader returns a reader of l.
func NewLayerReader(src Source, l *Layer) *LayerReader {
	return &LayerReader{
		entries: treeCursor{src: src, layer: l, tree: Entries, root: l.Entries},
		sums:    treeCursor{src: src, layer: l, tree: Sums, root: l.Sums},
	}
}

// Seek returns the first run that ends after block; ok is false if there is none. Seeking forward is cheap.
func (r *LayerReader) Seek(ctx context.Context, blk int64) (run Run, ok bool, err error) {
	if r.leaf == nil || !r.within(blk) {
		if r.leaf, err = r.entries.seek(ctx, blk); err != nil || r.leaf == nil {
			return Run{}, false, err
		}
	}
	for {
		if r.i = r.leaf.runFor(blk); r.i < r.leaf.n {
			return r.leaf.run(r.i), true, nil
		}
		if r.leaf, err = r.entries.next(ctx); err != nil || r.leaf == nil {
			return Run{}, false, err
		}
	}
}

// within tells whether the current leaf is the one to look at for blk.
func (r *LayerReader) within(blk int64) bool {
	last := r.leaf.run(r.leaf.n - 1)
	return r.leaf.run(0).First <= blk && blk < last.End()
}

// Sums copies the sums of the blocks from first on into dst. All of them must be data in this layer.
func (r *LayerReader) Sums(ctx context.Context, first int64, dst []block.Sum) error {
	for len(dst) > 0 {
		n := 0
		if r.sumLeaf != nil {
			n = r.sumLeaf.sums(first, dst)
		}
		if n == 0 {
			var err error
			if r.sumLeaf, err = r.sums.seek(ctx, first); err != nil {
				return err
			}
			if r.sumLeaf != nil {
				n = r.sumLeaf.sums(first, dst)
			}
			if n == 0 {
				return fmt.Errorf("%w: block %d has no sum", ErrFormat, first)
			}
		}
		first, dst = first+int64(n), dst[n:]
	}
	return nil
}

// PackUses calls f for every pack of the layer.
func PackUses(ctx context.Context, src Source, l *Layer, f func(PackUse)) error {
	c := treeCursor{src: src, layer: l, tree: Packs, root: l.Packs}
	p, err := c.seek(ctx, 0)
	for ; err == nil && p != nil; p, err = c.next(ctx) {
		for i := range p.n {
			f(p.use(i))
		}
	}
	return err
}
