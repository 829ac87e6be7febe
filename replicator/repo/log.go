package repo

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"gocloud.dev/gcerrors"
	"golang.org/x/sync/errgroup"

	"github.com/lifeboat-dr/lifeboat/replicator/manifest"
)

// listReads bounds the entries of a log that are read at the same time.
const listReads = 8

func checkMachine(machine string) error {
	if !manifest.ValidName(machine) {
		return fmt.Errorf("%w: machine id %q", ErrInvalid, machine)
	}
	return nil
}

func checkPlace(machine string, gen int64) error {
	if err := checkMachine(machine); err != nil {
		return err
	}
	if gen < 1 || gen > 99_999_999 {
		return fmt.Errorf("%w: generation %d", ErrInvalid, gen)
	}
	return nil
}

// entry reads one log entry. raw is as stored. What does not verify is read once more before it counts as corrupt, because so
// much hangs on an entry; that it happened is logged.
func (r *Repository) entry(ctx context.Context, s store, machine string, gen, seq int64) (e *manifest.Entry, raw []byte, err error) {
	e, raw, err = r.entryOnce(ctx, s, machine, gen, seq)
	if !errors.Is(err, ErrCorrupt) {
		return e, raw, err
	}
	first := err
	if e, raw, err = r.entryOnce(ctx, s, machine, gen, seq); err == nil {
		r.opt.Logger.Warn("log entry verified only when read again", "item", machine, "err", first)
	}
	return e, raw, err
}

func (r *Repository) entryOnce(ctx context.Context, s store, machine string, gen, seq int64) (e *manifest.Entry, raw []byte, err error) {
	name := entryName(machine, gen, seq)
	raw, err = s.get(ctx, name, manifest.MaxRecord)
	if err != nil {
		return nil, nil, err
	}
	e = new(manifest.Entry)
	err = r.rec.Open(name, raw, e)
	if err == nil && (e.Machine != machine || e.Generation != gen || e.Sequence != seq) {
		err = fmt.Errorf("it is the entry %s %d %d", e.Machine, e.Generation, e.Sequence)
	}
	if err != nil {
		return nil, raw, corrupt(machine, name, err)
	}
	return e, raw, nil
}

// floor returns the sequence below which a log's entries are gone, 0 if none are.
func (r *Repository) floor(ctx context.Context, s store, machine string, gen int64) (int64, error) {
	name := floorName(machine, gen)
	p, err := s.get(ctx, name, manifest.MaxRecord)
	if errors.Is(err, ErrNotFound) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	var f manifest.Floor
	if err := r.rec.Open(name, p, &f); err != nil {
		return 0, corrupt(machine, name, err)
	}
	return f.Floor, nil
}

// head is the end of a generation's log.
type head struct {
	floor int64
	seq   int64
	entry *manifest.Entry // nil if the newest entry does not verify
	err   error           // why not
}

// head finds the newest entry of a generation. It returns ErrNotFound if the generation was never opened.
func (r *Repository) head(ctx context.Context, machine string, gen int64) (h head, err error) {
	if h.floor, err = r.floor(ctx, r.s, machine, gen); err != nil {
		return h, err
	}
	names, err := r.s.names(ctx, entriesOf(machine, gen), "")
	if err != nil {
		return h, err
	}
	listed := h.floor
	for _, n := range names {
		if seq, ok := number(n); ok {
			listed = max(listed, seq)
		}
	}
	starts := []int64{listed}
	if listed > h.floor {
		starts = append(starts, h.floor) // the list may show what was deleted
	}
	for _, seq := range starts {
		found := false
		for ; ; seq++ {
			e, _, err := r.entry(ctx, r.s, machine, gen, seq)
			if errors.Is(err, ErrNotFound) {
				break
			}
			if err != nil && !errors.Is(err, ErrCorrupt) {
				return h, err
			}
			found, h.seq, h.entry, h.err = true, seq, e, err
		}
		if found {
			return h, nil
		}
	}
	return h, fmt.Errorf("generation %d of machine %s: %w", gen, machine, ErrNotFound)
}

// lastGeneration returns the number of the newest generation, 0 if there is none.
func (r *Repository) lastGeneration(ctx context.Context, machine string) (int64, error) {
	names, err := r.s.names(ctx, pointsOf(machine), "/")
	if err != nil {
		return 0, err
	}
	var last int64
	for _, n := range names {
		if g, ok := number(n); ok {
			last = max(last, g)
		}
	}
	for { // the list may be stale
		_, _, err := r.entry(ctx, r.s, machine, last+1, 0)
		if errors.Is(err, ErrNotFound) {
			return last, nil
		}
		if err != nil && !errors.Is(err, ErrCorrupt) {
			return 0, err
		}
		last++
	}
}

// entries reads the entries [first, end) of a generation, in order. Absent ones and ones that do not verify are left out; the
// latter are logged and their sequences returned: such an entry is no point, and must not hide the others.
func (r *Repository) entries(ctx context.Context, machine string, gen, first, end int64) (read []*manifest.Entry, damaged []int64, err error) {
	if first >= end {
		return nil, nil, nil
	}
	out := make([]*manifest.Entry, end-first)
	bad := make([]bool, end-first)
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(listReads)
	for i := range out {
		g.Go(func() error {
			e, _, err := r.entry(ctx, r.s, machine, gen, first+int64(i))
			switch {
			case errors.Is(err, ErrNotFound):
				return nil
			case errors.Is(err, ErrCorrupt):
				r.opt.Logger.Error("log entry did not verify", "item", machine, "err", err)
				bad[i] = true
				return nil
			}
			out[i] = e
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, nil, err
	}
	for i, b := range bad {
		if b {
			damaged = append(damaged, first+int64(i))
		}
	}
	return slices.DeleteFunc(out, func(e *manifest.Entry) bool { return e == nil }), damaged, nil
}

// Points returns the machine's points in ascending order; none for a machine that is not there. A point whose entry does not
// verify is left out and logged.
func (r *Repository) Points(ctx context.Context, machine string) ([]Point, error) {
	points, _, err := r.PointsAndDamage(ctx, machine)
	return points, err
}

// PointsAndDamage is Points, and the places of the log whose entries are there and do not verify: each was a point, or what opened
// or closed a generation.
func (r *Repository) PointsAndDamage(ctx context.Context, machine string) (points []Point, damaged []PointRef, err error) {
	if err := checkMachine(machine); err != nil {
		return nil, nil, err
	}
	last, err := r.lastGeneration(ctx, machine)
	if err != nil {
		return nil, nil, err
	}
	for gen := int64(1); gen <= last; gen++ {
		h, err := r.head(ctx, machine, gen)
		if errors.Is(err, ErrNotFound) {
			continue
		}
		if err != nil {
			return nil, nil, err
		}
		entries, bad, err := r.entries(ctx, machine, gen, max(h.floor, 1), h.seq+1)
		if err != nil {
			return nil, nil, err
		}
		for _, seq := range bad {
			damaged = append(damaged, PointRef{gen, seq})
		}
		for _, e := range entries {
			if e.Kind == manifest.Point {
				points = append(points, pointOf(e))
			}
		}
	}
	return points, damaged, nil
}

func pointOf(e *manifest.Entry) Point {
	p := Point{Machine: e.Machine, PointRef: PointRef{e.Generation, e.Sequence}, Time: e.Time, Consistency: e.Consistency,
		GroupID: e.Group, ChangedBytes: e.Changed, StoredBytes: e.Packed, Hardware: slices.Clone(e.Hardware)}
	if e.Base != nil {
		p.Base = PointRef(*e.Base)
	}
	for i := range e.Disks {
		d := &e.Disks[i]
		p.Disks = append(p.Disks, DiskInfo{ID: d.ID, Size: d.Size, OS: d.OS})
	}
	return p
}

// Generations returns the machine's generations in ascending order; none for a machine that is not there.
func (r *Repository) Generations(ctx context.Context, machine string) ([]Generation, error) {
	if err := checkMachine(machine); err != nil {
		return nil, err
	}
	last, err := r.lastGeneration(ctx, machine)
	if err != nil {
		return nil, err
	}
	var out []Generation
	for n := int64(1); n <= last; n++ {
		g, err := r.generation(ctx, machine, n)
		if errors.Is(err, ErrNotFound) {
			continue
		}
		if err != nil {
			return nil, err
		}
		out = append(out, g)
	}
	return out, nil
}

func (r *Repository) generation(ctx context.Context, machine string, n int64) (Generation, error) {
	h, err := r.head(ctx, machine, n)
	if err != nil {
		return Generation{}, err
	}
	g := Generation{Number: n, Head: h.seq}
	if h.entry != nil && h.entry.Kind == manifest.Closed {
		g.Closed, g.Reason = true, h.entry.Reason
	}
	if g.Base, err = r.openBase(ctx, machine, n); err != nil {
		return Generation{}, err
	}
	g.Last, err = r.lastPoint(ctx, machine, n, h)
	if errors.Is(err, ErrCorrupt) {
		r.opt.Logger.Error("log entry did not verify", "item", machine, "err", err)
		err = nil
	}
	return g, err
}

// openBase returns the base in a generation's open entry.
func (r *Repository) openBase(ctx context.Context, machine string, gen int64) (*PointRef, error) {
	e, _, err := r.entry(ctx, r.s, machine, gen, 0)
	if err != nil {
		return nil, err
	}
	if e.Kind != manifest.Open {
		return nil, &CorruptError{Machine: machine, Object: entryName(machine, gen, 0), Err: fmt.Errorf("it is a %s entry", e.Kind)}
	}
	if e.Base == nil {
		return nil, nil
	}
	base := PointRef(*e.Base)
	return &base, nil
}

// lastPoint walks down from the head to the newest point. If entries above it do not verify it returns both, point and error.
func (r *Repository) lastPoint(ctx context.Context, machine string, gen int64, h head) (*PointRef, error) {
	var bad error
	for seq := h.seq; seq >= max(h.floor, 1); seq-- {
		e, _, err := r.entry(ctx, r.s, machine, gen, seq)
		switch {
		case errors.Is(err, ErrCorrupt):
			bad = errors.Join(bad, err)
		case errors.Is(err, ErrNotFound):
		case err != nil:
			return nil, err
		case e.Kind == manifest.Point:
			return &PointRef{gen, seq}, bad
		}
	}
	return nil, bad
}

// create stores an entry if its place is empty. It returns what lies there now: own is true if that is e itself.
func (r *Repository) create(ctx context.Context, e *manifest.Entry) (there *manifest.Entry, own bool, err error) {
	name := entryName(e.Machine, e.Generation, e.Sequence)
	raw, err := r.rec.Seal(name, e)
	if err != nil {
		return nil, false, err
	}
	putErr := r.s.put(ctx, name, raw, true)
	if putErr == nil {
		return e, true, nil
	}
	if gcerrors.Code(putErr) != gcerrors.FailedPrecondition && ctx.Err() != nil {
		// The outcome is unknown and the caller's time is over. It is worth a moment to know.
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
	}
	there, got, err := r.entry(ctx, r.s, e.Machine, e.Generation, e.Sequence)
	switch {
	case err == nil:
		return there, string(got) == string(raw), nil
	case errors.Is(err, ErrCorrupt) && got != nil:
		return nil, false, err
	case errors.Is(err, ErrNotFound):
		return nil, false, putErr
	}
	return nil, false, errors.Join(putErr, err)
}

// OpenGeneration opens generation gen of the machine's log; its first point builds on base, a point of an earlier generation
// (nil: on nothing). It may be repeated. It returns ErrConflict if the generation before is not closed or gen was opened with
// another base, ErrNotFound if base is no point.
func (r *Repository) OpenGeneration(ctx context.Context, machine string, gen int64, base *PointRef) error {
	if err := checkPlace(machine, gen); err != nil {
		return err
	}
	e := &manifest.Entry{Kind: manifest.Open, Machine: machine, Generation: gen, Stored: r.now()}
	if base != nil {
		if base.Generation >= gen || base.Generation < 1 || base.Sequence < 1 {
			return fmt.Errorf("%w: generation %d cannot build on generation %d", ErrInvalid, gen, base.Generation)
		}
		b := manifest.Ref(*base)
		e.Base = &b
	}
	if there, _, err := r.entry(ctx, r.s, machine, gen, 0); !errors.Is(err, ErrNotFound) {
		if err != nil {
			return err
		}
		return sameOpen(there, e)
	}
	if base != nil {
		if _, err := r.point(ctx, r.s, machine, *base); err != nil {
			return fmt.Errorf("base of generation %d: %w", gen, err)
		}
	}
	if gen > 1 {
		h, err := r.head(ctx, machine, gen-1)
		if err != nil && !errors.Is(err, ErrNotFound) {
			return err
		}
		if err == nil && h.err != nil {
			return h.err // it may be closed
		}
		if err != nil || h.entry.Kind != manifest.Closed {
			return fmt.Errorf("%w: generation %d of machine %s is not closed", ErrConflict, gen-1, machine)
		}
	}
	there, own, err := r.create(ctx, e)
	if err != nil || own {
		return err
	}
	return sameOpen(there, e)
}

func sameOpen(there, want *manifest.Entry) error {
	if there.Kind != manifest.Open || (there.Base == nil) != (want.Base == nil) || there.Base != nil && *there.Base != *want.Base {
		return fmt.Errorf("%w: generation %d of machine %s is open with another base", ErrConflict, want.Generation, want.Machine)
	}
	return nil
}

// CloseGeneration fences every writer of the generation, now and later, and returns its newest point, nil if it has none. It
// may be repeated; the first reason stays. It returns ErrNotFound if the generation was never opened. If the newest entries do
// not verify it returns ErrCorrupt together with the newest point that does: the generation is closed then all the same.
func (r *Repository) CloseGeneration(ctx context.Context, machine string, gen int64, reason string) (*PointRef, error) {
	if err := checkPlace(machine, gen); err != nil {
		return nil, err
	}
	h, err := r.head(ctx, machine, gen)
	if err != nil {
		return nil, err
	}
	for h.entry == nil || h.entry.Kind != manifest.Closed {
		e := &manifest.Entry{Kind: manifest.Closed, Machine: machine, Generation: gen, Sequence: h.seq + 1, Stored: r.now(),
			Reason: truncate(reason)}
		there, own, err := r.create(ctx, e)
		switch {
		case errors.Is(err, ErrCorrupt):
			there = nil // whatever it was, the next place is free or taken by a writer who came later
		case err != nil:
			return nil, err
		case own:
			there = e
		}
		h.seq, h.entry = h.seq+1, there
	}
	return r.lastPoint(ctx, machine, gen, h)
}

func truncate(s string) string { return s[:min(len(s), 1024)] }

// point reads the entry of a living point.
func (r *Repository) point(ctx context.Context, s store, machine string, ref PointRef) (*manifest.Entry, error) {
	if err := checkPlace(machine, ref.Generation); err != nil {
		return nil, err
	}
	if ref.Sequence < 1 {
		return nil, fmt.Errorf("point %d of generation %d: %w", ref.Sequence, ref.Generation, ErrNotFound)
	}
	e, _, err := r.entry(ctx, s, machine, ref.Generation, ref.Sequence)
	if err != nil {
		return nil, err
	}
	floor, err := r.floor(ctx, s, machine, ref.Generation)
	if err != nil {
		return nil, err
	}
	if e.Kind != manifest.Point || ref.Sequence < floor {
		return nil, fmt.Errorf("point %d of generation %d: it is %s: %w", ref.Sequence, ref.Generation, e.Kind, ErrNotFound)
	}
	return e, nil
}

func (r *Repository) now() time.Time { return r.opt.Now().UTC() }
