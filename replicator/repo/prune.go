package repo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path"
	"time"

	"gocloud.dev/blob"

	"github.com/lifeboat-dr/lifeboat/replicator/manifest"
)

// pruning is one run of Prune. Its steps and their order are in docs/formats.md.
type pruning struct {
	r        *Repository
	machine  string
	keep     Retention
	now      time.Time
	stats    PruneStats
	last     int64 // generation
	sessions []*manifest.Session
	gens     []genLog
	kept     map[PointRef]bool
}

type genLog struct {
	number  int64
	head    head
	base    *PointRef
	entries []*manifest.Entry // from the floor to the head, without entry 0
}

// Prune removes the points that keep does not keep, and the data that nothing needs. Points of pins stay, and the point that
// an open generation without points builds on. The data of a point goes when the grace is over, with a later Prune. One Prune a machine
// at a time; writers and readers may go on. It fails with ErrCorrupt and deletes nothing when an entry or map that it has to
// understand does not verify.
func (r *Repository) Prune(ctx context.Context, machine string, keep Retention, now time.Time) (PruneStats, error) {
	if err := checkMachine(machine); err != nil {
		return PruneStats{}, err
	}
	p := &pruning{r: r, machine: machine, keep: keep.withDefaults(), now: now.UTC()}
	for _, step := range []func(context.Context) error{p.read, p.dropPoints, p.restorePinned, p.sweep, p.raiseFloors} {
		if err := step(ctx); err != nil {
			return p.stats, fmt.Errorf("prune machine %s: %w", machine, err)
		}
	}
	return p.stats, nil
}

// read reads sessions before logs: a session that is gone by then is in a log.
func (p *pruning) read(ctx context.Context) error {
	var err error
	if p.last, err = p.r.lastGeneration(ctx, p.machine); err != nil {
		return err
	}
	for gen := int64(1); gen <= p.last; gen++ {
		s, err := p.r.readSession(ctx, p.machine, gen)
		if err != nil {
			return err
		}
		p.sessions = append(p.sessions, s)
	}
	for gen := int64(1); gen <= p.last; gen++ {
		if err := p.readLog(ctx, gen); err != nil && !errors.Is(err, ErrNotFound) {
			return err
		}
	}
	return nil
}

func (p *pruning) readLog(ctx context.Context, gen int64) error {
	h, err := p.r.head(ctx, p.machine, gen)
	if err != nil {
		return err
	}
	if h.err != nil {
		return h.err
	}
	g := genLog{number: gen, head: h}
	if g.base, err = p.r.openBase(ctx, p.machine, gen); err != nil {
		return err
	}
	first := max(h.floor, 1)
	if g.entries, _, err = p.r.entries(ctx, p.machine, gen, first, h.seq+1); err != nil {
		return err
	}
	if want := max(0, h.seq+1-first); int64(len(g.entries)) != want {
		return &CorruptError{Machine: p.machine, Object: entriesOf(p.machine, gen),
			Err: fmt.Errorf("%d of the %d entries from %d on verify", len(g.entries), want, first)}
	}
	p.gens = append(p.gens, g)
	return nil
}

// pinned returns the points that must stay whatever their age.
func (p *pruning) pinned(ctx context.Context) (map[PointRef]bool, error) {
	out := make(map[PointRef]bool)
	names, err := p.r.s.names(ctx, pinsOf(p.machine), "")
	if err != nil {
		return nil, err
	}
	for _, n := range names {
		if ref, ok := pinnedRef(n); ok {
			out[ref] = true
		}
	}
	for i := range p.gens {
		g := &p.gens[i]
		if g.base != nil && g.head.entry.Kind == manifest.Open {
			out[*g.base] = true
		}
	}
	// A generation may have been opened since the logs were read.
	if e, _, err := p.r.entry(ctx, p.r.s, p.machine, p.last+1, 0); err == nil && e.Base != nil {
		out[PointRef(*e.Base)] = true
	} else if err != nil && !errors.Is(err, ErrNotFound) {
		return nil, err
	}
	return out, nil
}

func (p *pruning) dropPoints(ctx context.Context) error {
	var points []*manifest.Entry
	for i := range p.gens {
		for _, e := range p.gens[i].entries {
			if e.Kind == manifest.Point {
				points = append(points, e)
			}
		}
	}
	p.kept = p.keep.choose(points, p.now)
	pins, err := p.pinned(ctx)
	if err != nil {
		return err
	}
	for _, e := range points {
		if p.kept[refOf(e)] || pins[refOf(e)] {
			p.stats.Kept++
			continue
		}
		e.Kind, e.Pruned = manifest.Pruned, p.now
		if err := p.store(ctx, e); err != nil {
			return err
		}
		p.stats.Pruned++
	}
	return nil
}

func (p *pruning) store(ctx context.Context, e *manifest.Entry) error {
	name := entryName(e.Machine, e.Generation, e.Sequence)
	raw, err := p.r.rec.Seal(name, e)
	if err != nil {
		return err
	}
	return p.replace(ctx, name, raw)
}

// replace overwrites a record that all later readers of the log depend on. One that was damaged on its way is written again: a
// bit that flips there must not cost the points around it.
func (p *pruning) replace(ctx context.Context, name string, raw []byte) error {
	for again := false; ; again = true {
		if err := p.r.s.put(ctx, name, raw, false); err != nil {
			return err
		}
		got, err := p.r.s.get(ctx, name, manifest.MaxRecord)
		if err == nil && bytes.Equal(got, raw) {
			return nil
		}
		if err == nil {
			err = &CorruptError{Machine: p.machine, Object: name, Err: errors.New("it was stored and reads back differently")}
		}
		if again || !errors.Is(err, ErrCorrupt) {
			return err
		}
	}
}

// restorePinned gives back points that were pinned while they were being dropped, or before, when a list was stale.
func (p *pruning) restorePinned(ctx context.Context) error {
	pins, err := p.pinned(ctx)
	if err != nil {
		return err
	}
	for i := range p.gens {
		for _, e := range p.gens[i].entries {
			if e.Kind != manifest.Pruned || !pins[refOf(e)] || !p.young(e) || len(e.Disks) == 0 {
				continue
			}
			e.Kind, e.Pruned = manifest.Point, time.Time{}
			if err := p.store(ctx, e); err != nil {
				return err
			}
			p.stats.Kept++
		}
	}
	return nil
}

// young tells whether a pruned point's data has to be there still.
func (p *pruning) young(e *manifest.Entry) bool { return p.now.Sub(e.Pruned) < p.keep.Grace }

// live returns the maps and packs that something needs.
func (p *pruning) live(ctx context.Context) (maps, packs map[manifest.ID]bool, err error) {
	type layerKey struct {
		m    manifest.ID
		root uint32
	}
	maps, packs = make(map[manifest.ID]bool), make(map[manifest.ID]bool)
	seen := make(map[layerKey]bool)
	src := p.r.source(p.machine, p.r.s.t)
	mark := func(disks []manifest.Disk) error {
		for i := range disks {
			for j := range disks[i].Layers {
				l := &disks[i].Layers[j]
				maps[l.Map] = true
				if l.Packs == nil || seen[layerKey{l.Map, l.Packs.Ordinal}] {
					continue
				}
				seen[layerKey{l.Map, l.Packs.Ordinal}] = true
				if err := manifest.PackUses(ctx, src, l, func(u manifest.PackUse) { packs[u.Pack] = true }); err != nil {
					return err
				}
			}
		}
		return nil
	}
	for i := range p.gens {
		g := &p.gens[i]
		for _, e := range g.entries {
			if e.Kind == manifest.Point || e.Kind == manifest.Pruned && p.young(e) {
				if err := mark(e.Disks); err != nil {
					return nil, nil, err
				}
			}
		}
	}
	for _, s := range p.sessions {
		if s == nil || p.superseded(s) {
			continue
		}
		if err := mark(s.Disks); err != nil {
			return nil, nil, err
		}
	}
	return maps, packs, nil
}

// superseded tells whether a session can never be committed.
func (p *pruning) superseded(s *manifest.Session) bool {
	for i := range p.gens {
		if g := &p.gens[i]; g.number == s.Generation {
			return g.head.entry.Kind == manifest.Closed || g.head.seq > s.Base.Sequence
		}
	}
	return false
}

func (p *pruning) sweep(ctx context.Context) error {
	maps, packs, err := p.live(ctx)
	if err != nil {
		return err
	}
	old := func(o *blob.ListObject) bool { return p.now.Sub(o.ModTime) > p.keep.Grace }
	err = p.r.s.list(ctx, mapsOf(p.machine), "", func(name string, o *blob.ListObject) error {
		id, err := manifest.ParseID(path.Base(name))
		if err != nil || maps[id] || !old(o) {
			return nil // what is not ours to name is not ours to delete
		}
		p.stats.MapsDeleted++
		p.stats.BytesDeleted += o.Size
		return p.r.s.remove(ctx, name)
	})
	if err != nil {
		return err
	}
	return p.r.s.list(ctx, packsOf(p.machine), "", func(name string, o *blob.ListObject) error {
		id, err := manifest.ParseID(path.Base(name))
		if err != nil || packs[id] || !old(o) {
			p.stats.PacksKept++
			p.stats.BytesKept += o.Size
			return nil
		}
		p.stats.PacksDeleted++
		p.stats.BytesDeleted += o.Size
		return p.r.s.remove(ctx, name)
	})
}

// raiseFloors cuts logs below their first entry that still matters.
func (p *pruning) raiseFloors(ctx context.Context) error {
	for i := range p.gens {
		g := &p.gens[i]
		floor := g.head.seq
		for _, e := range g.entries {
			if e.Kind != manifest.Pruned || p.young(e) {
				floor = e.Sequence
				break
			}
		}
		if floor <= max(g.head.floor, 1) {
			continue
		}
		if err := p.raiseFloor(ctx, g.number, floor); err != nil {
			return err
		}
	}
	return nil
}

func (p *pruning) raiseFloor(ctx context.Context, gen, floor int64) error {
	name := floorName(p.machine, gen)
	raw, err := p.r.rec.Seal(name, &manifest.Floor{Machine: p.machine, Generation: gen, Floor: floor})
	if err != nil {
		return err
	}
	if err := p.replace(ctx, name, raw); err != nil {
		return err
	}
	names, err := p.r.s.names(ctx, entriesOf(p.machine, gen), "")
	if err != nil {
		return err
	}
	for _, n := range names {
		if seq, ok := number(n); ok && seq > 0 && seq < floor {
			if err := p.r.s.remove(ctx, n); err != nil {
				return err
			}
		}
	}
	return nil
}

// DeleteMachine deletes everything of a machine, its points first. It may be repeated after an error. The caller sees to it
// that no writer is open: close the generation first.
func (r *Repository) DeleteMachine(ctx context.Context, machine string) error {
	if err := checkMachine(machine); err != nil {
		return err
	}
	for _, root := range []string{pointsOf(machine), sessionsOf(machine), floorsOf(machine), pinsOf(machine), mapsOf(machine), packsOf(machine)} {
		if err := r.s.removeAll(ctx, root); err != nil {
			return fmt.Errorf("delete machine %s: %w", machine, err)
		}
	}
	return nil
}
