package repo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/lifeboat-dr/lifeboat/replicator/block"
	"github.com/lifeboat-dr/lifeboat/replicator/manifest"
)

// maxHardware bounds a machine description in bytes.
const maxHardware = 1 << 20

// Commit makes a recovery point of the base and everything Put since. When it returns nil the point is durable; nothing else
// makes a point. It returns ErrFenced when the generation was closed or another writer was faster; the writer is of no use
// then. After an error before the log was touched Commit may be called again; when the outcome of storing the entry stayed
// unknown the writer is of no use and the next one tells (its Base).
func (w *Writer) Commit(ctx context.Context, c Commit) (Point, error) {
	if c.Time.IsZero() || len(c.Hardware) > maxHardware || len(c.Hardware) > 0 && !json.Valid(c.Hardware) {
		return Point{}, fmt.Errorf("%w: commit without a time or with a wrong machine description", ErrInvalid)
	}
	if err := w.lock(ctx); err != nil {
		return Point{}, err
	}
	defer w.unlock()
	if err := w.uploadAll(ctx); err != nil {
		return Point{}, err
	}
	plans := make([]plan, len(w.disks))
	for i, d := range w.disks {
		plans[i] = planLayers(d, append(d.session[:len(d.session):len(d.session)], d.base...), true)
	}
	layers, err := w.storeLayers(ctx, plans)
	if err != nil {
		return Point{}, err
	}
	if err := w.owned(ctx); err != nil {
		return Point{}, err
	}
	e := w.newEntry(c, layers)
	if err := w.append(ctx, e); err != nil {
		return Point{}, err
	}
	w.advance(e, layers)
	if err := w.dropPacks(); err != nil {
		w.r.opt.Logger.Warn("spool kept files of a committed point", "item", w.machine, "err", err) // the next writer removes them
	}
	w.packed = 0
	return pointOf(e), nil
}

func (w *Writer) newEntry(c Commit, layers [][]manifest.Layer) *manifest.Entry {
	session := w.session
	e := &manifest.Entry{Kind: manifest.Point, Machine: w.machine, Generation: w.gen, Sequence: w.head + 1, Stored: w.r.now(),
		Session: &session, Time: c.Time.UTC(), Consistency: c.Consistency, Group: c.GroupID, Hardware: c.Hardware,
		Changed: w.changed, Packed: w.packed + w.spooled()}
	if len(e.Hardware) == 0 {
		e.Hardware = nil
	}
	if w.base != nil {
		e.Base = &manifest.Ref{Generation: w.base.Generation, Sequence: w.base.Sequence}
	}
	for i, d := range w.disks {
		e.Disks = append(e.Disks, manifest.Disk{ID: d.info.ID, Size: d.info.Size, OS: d.info.OS, Layers: layers[i]})
	}
	return e
}

// append stores the entry at the end of the log, or tells why it may not.
func (w *Writer) append(ctx context.Context, e *manifest.Entry) error {
	there, own, err := w.r.create(ctx, e)
	switch {
	case err != nil:
		return w.broken(fmt.Errorf("commit point %d of generation %d: %w", e.Sequence, e.Generation, err))
	case !own && there.Kind == manifest.Closed:
		return w.broken(fmt.Errorf("generation %d was closed (%s): %w", e.Generation, there.Reason, ErrFenced))
	case !own:
		return w.broken(fmt.Errorf("another writer made point %d of generation %d: %w", e.Sequence, e.Generation, ErrFenced))
	}
	// What was acknowledged has to be readable: a write that was damaged on its way is found now, not on the bad day.
	if _, _, err := w.r.entry(ctx, w.r.s, w.machine, w.gen, e.Sequence); err != nil {
		return w.broken(fmt.Errorf("commit point %d of generation %d: %w", e.Sequence, e.Generation, err))
	}
	// A writer that slept while prune moved on has found its place empty because the log was cut there.
	floor, err := w.r.floor(ctx, w.r.s, w.machine, w.gen)
	if err != nil {
		return w.broken(fmt.Errorf("commit point %d of generation %d: %w", e.Sequence, e.Generation, err))
	}
	if e.Sequence < floor {
		err := w.r.s.remove(ctx, entryName(e.Machine, e.Generation, e.Sequence))
		return w.broken(errors.Join(fmt.Errorf("the log begins at %d: %w", floor, ErrFenced), err))
	}
	return nil
}

// advance makes the new point the base.
func (w *Writer) advance(e *manifest.Entry, layers [][]manifest.Layer) {
	w.head = e.Sequence
	w.base = &PointRef{e.Generation, e.Sequence}
	for i, d := range w.disks {
		d.base, d.session = layers[i], nil
	}
	w.forget()
	w.changed = 0
}

// NewWriter opens the machine's generation for writing points. Disks whose id the newest point has continue from it; others
// begin empty. What an earlier Writer checkpointed, and what it synced into the same Dir, is found again. It returns ErrFenced
// if the generation is closed, ErrNotFound if it was never opened, ErrInvalid if a disk is smaller than in the newest point,
// ErrConflict if the spool is in use. A Writer of the same generation elsewhere is fenced by this one.
func (r *Repository) NewWriter(ctx context.Context, machine string, gen int64, disks []DiskInfo, opt WriterOptions) (*Writer, error) {
	if err := checkPlace(machine, gen); err != nil {
		return nil, err
	}
	h, err := r.head(ctx, machine, gen)
	if err != nil {
		return nil, err
	}
	base, err := r.baseOf(ctx, machine, gen, h)
	if err != nil {
		return nil, err
	}
	w := &Writer{r: r, machine: machine, gen: gen, src: r.source(machine, r.s.t), gate: make(chan struct{}, 1), head: h.seq, limits: defaultLimits}
	if base != nil {
		w.base = &PointRef{base.Generation, base.Sequence}
	}
	if err := w.setDisks(disks, base); err != nil {
		return nil, err
	}
	if w.spool, err = openSpool(opt.Dir, machine, gen); err != nil {
		return nil, fmt.Errorf("open spool: %w", err)
	}
	uploads, stop := context.WithCancel(context.WithoutCancel(ctx))
	w.stop = stop
	w.pipe = newPipeline(opt.Workers, r.opt.Codec, w.sealFile, func(k *pack) { w.uploadPack(uploads, k) })
	err = w.resume(ctx)
	if err == nil && base != nil {
		err = w.growTails(ctx, base)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("resume writing of machine %s: %w", machine, err), w.Close())
	}
	return w, nil
}

func (w *Writer) sealFile(k *pack) error { return k.seal(&w.r.rec, packName(w.machine, k.id)) }

// baseOf returns the entry that the next point builds on, nil if there is none.
func (r *Repository) baseOf(ctx context.Context, machine string, gen int64, h head) (*manifest.Entry, error) {
	if h.entry == nil {
		return nil, h.err
	}
	switch h.entry.Kind {
	case manifest.Closed:
		return nil, fmt.Errorf("generation %d was closed (%s): %w", gen, h.entry.Reason, ErrFenced)
	case manifest.Point:
		return h.entry, nil
	case manifest.Open:
		if h.entry.Base == nil {
			return nil, nil
		}
		return r.point(ctx, r.s, machine, PointRef(*h.entry.Base))
	}
	return nil, fmt.Errorf("%w: the newest entry of generation %d is %s", ErrConflict, gen, h.entry.Kind)
}

func (w *Writer) setDisks(disks []DiskInfo, base *manifest.Entry) error {
	if len(disks) == 0 || len(disks) > manifest.MaxDisks {
		return fmt.Errorf("%w: %d disks", ErrInvalid, len(disks))
	}
	w.byID = make(map[string]*writerDisk)
	for i, info := range disks {
		if info.ID == "" || w.byID[info.ID] != nil || info.Size <= 0 || info.Size%block.Sector != 0 || info.Size > block.MaxDisk {
			return fmt.Errorf("%w: disk %q of %d bytes", ErrInvalid, info.ID, info.Size)
		}
		d := &writerDisk{info: info, place: i, mem: newMemLayer(&w.held)}
		w.disks, w.byID[info.ID] = append(w.disks, d), d
	}
	if base == nil {
		return nil
	}
	for i := range base.Disks {
		b := &base.Disks[i]
		d := w.byID[b.ID]
		if d == nil {
			continue
		}
		if d.info.Size < b.Size {
			return fmt.Errorf("%w: disk %s shrank from %d to %d bytes; it needs another id", ErrInvalid, b.ID, b.Size, d.info.Size)
		}
		d.base = b.Layers
	}
	return nil
}
