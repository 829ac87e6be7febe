package repo

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/lifeboat-dr/lifeboat/replicator/block"
	"github.com/lifeboat-dr/lifeboat/replicator/manifest"
)

const (
	// maxLayers is how many layers a disk may have before the newest are merged.
	maxLayers = 16
	// mergeAtLeast is how many layers a merge takes together, so that merging is rare.
	mergeAtLeast = 8
)

// mergeNewest says how many of the newest layers to write as one, given the weight of each, newest first: 0 or 1 while there
// are few. Else it takes at least mergeAtLeast, and more until the next older layer weighs as much as all of them: so a heavy
// base is rewritten only when the changes have grown to its size.
func mergeNewest(weights []int64) int {
	if len(weights) <= maxLayers {
		return min(1, len(weights))
	}
	var sum int64
	for i, w := range weights {
		if i >= mergeAtLeast && sum <= w {
			return i
		}
		sum += w
	}
	return len(weights)
}

// plan says which layers of a disk become one.
type plan struct {
	disk   *writerDisk
	mem    bool
	merge  []manifest.Layer // below mem, newest first
	keep   []manifest.Layer // older, left as they are
	bottom bool
}

// planLayers decides what to write for a disk so that its layers, in memory and stored, become few stored ones. nothing lies
// below stored if bottom.
func planLayers(d *writerDisk, stored []manifest.Layer, bottom bool) plan {
	p := plan{disk: d, mem: d.mem.runs > 0, keep: stored}
	var weights []int64
	if p.mem {
		weights = append(weights, int64(d.mem.runs)*64)
	}
	for i := range stored {
		weights = append(weights, stored[i].Pages)
	}
	n := mergeNewest(weights)
	if p.mem {
		n--
	}
	if n > 1 || n == 1 && p.mem {
		p.merge, p.keep = stored[:n], stored[n:]
	}
	p.bottom = bottom && len(p.keep) == 0
	return p
}

// nothing tells whether the plan writes no layer.
func (p *plan) nothing() bool { return !p.mem && len(p.merge) == 0 }

// storeLayers writes one map object with the layers of all plans and returns the layers of each plan's disk. The pipeline must
// have passed a barrier, so that memory knows where its frames are.
func (w *Writer) storeLayers(ctx context.Context, plans []plan) ([][]manifest.Layer, error) {
	out := make([][]manifest.Layer, len(plans))
	work := false
	for i := range plans {
		out[i] = plans[i].keep
		work = work || !plans[i].nothing()
	}
	if !work {
		return out, nil
	}
	f, err := os.CreateTemp(w.spool.dir, temporary)
	if err != nil {
		return nil, fmt.Errorf("write map: %w", err)
	}
	defer func() { _ = os.Remove(f.Name()) }() // the next writer removes what stays
	id := newID()
	name := mapName(w.machine, w.gen, id)
	m := manifest.NewMapWriter(f, w.r.keys.pages(w.machine, id), w.gen, id)
	for i := range plans {
		if plans[i].nothing() {
			continue
		}
		l, err := w.writeLayer(ctx, m, &plans[i])
		if err != nil {
			return nil, errors.Join(fmt.Errorf("write map of disk %s: %w", plans[i].disk.info.ID, err), f.Close())
		}
		if l.Entries != nil {
			out[i] = append([]manifest.Layer{l}, plans[i].keep...)
		}
	}
	if err := errors.Join(m.Finish(&w.r.rec, name), f.Close()); err != nil {
		return nil, err
	}
	return out, w.r.s.upload(ctx, name, f.Name())
}

func (w *Writer) writeLayer(ctx context.Context, m *manifest.MapWriter, p *plan) (manifest.Layer, error) {
	info := p.disk.info
	l := m.Layer(manifest.Disk{ID: info.ID, Size: info.Size, OS: info.OS})
	var above []manifest.RunReader
	if p.mem {
		above = append(above, p.disk.mem)
	}
	view := w.src.view(p.merge, above...)
	if err := view.Merge(ctx, block.Count(info.Size), p.bottom, l); err != nil {
		return manifest.Layer{}, w.src.wrongMap(err)
	}
	return l.Finish()
}
