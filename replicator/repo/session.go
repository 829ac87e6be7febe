package repo

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/lifeboat-dr/lifeboat/replicator/manifest"
)

// staleUpload is the age from which an object that nothing lists yet is uploaded again, because prune may take it for
// abandoned. It is half the shortest grace.
const staleUpload = minGrace / 2

// readSession returns a generation's session record, nil if there is none. What does not verify is read once more, because an
// agent would have to ship again what only the record lists.
func (r *Repository) readSession(ctx context.Context, machine string, gen int64) (*manifest.Session, error) {
	rec, err := r.readSessionOnce(ctx, machine, gen)
	if !errors.Is(err, ErrCorrupt) {
		return rec, err
	}
	first := err
	if rec, err = r.readSessionOnce(ctx, machine, gen); err == nil {
		r.opt.Logger.Warn("session record verified only when read again", "item", machine, "err", first)
	}
	return rec, err
}

func (r *Repository) readSessionOnce(ctx context.Context, machine string, gen int64) (*manifest.Session, error) {
	name := sessionName(machine, gen)
	p, err := r.s.get(ctx, name, manifest.MaxRecord)
	if errors.Is(err, ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	rec := new(manifest.Session)
	err = r.rec.Open(name, p, rec)
	if err == nil && (rec.Machine != machine || rec.Generation != gen) {
		err = fmt.Errorf("it is the session of %s %d", rec.Machine, rec.Generation)
	}
	return rec, corrupt(machine, name, err)
}

// writeSession records what this writer has in the bucket.
func (w *Writer) writeSession(ctx context.Context) error {
	rec := &manifest.Session{Machine: w.machine, Generation: w.gen, Session: w.session, Base: w.baseEntry(), NextPack: w.nextPack,
		Changed: w.changed, Packed: w.packed + w.spooled()}
	for _, d := range w.disks {
		rec.Disks = append(rec.Disks, manifest.Disk{ID: d.info.ID, Size: d.info.Size, OS: d.info.OS, Layers: d.session})
	}
	name := sessionName(w.machine, w.gen)
	p, err := w.r.rec.Seal(name, rec)
	if err != nil {
		return err
	}
	return w.r.s.put(ctx, name, p, false)
}

// owned returns ErrFenced if another writer took over. The log has the last word; this only ends zombies early, before they
// rely on objects that prune no longer protects.
func (w *Writer) owned(ctx context.Context) error {
	rec, err := w.r.readSession(ctx, w.machine, w.gen)
	if err != nil {
		return err
	}
	if rec == nil || rec.Session != w.session {
		return w.broken(fmt.Errorf("another writer took over: %w", ErrFenced))
	}
	return nil
}

// spooled returns the bytes of sealed packs that the session record does not list.
func (w *Writer) spooled() (n int64) {
	for _, k := range w.packs {
		n += k.size.Load()
	}
	return n
}

// uploadPack is what the pipeline's uploaders do. It is they who wait for the disk, so that frames can go on into the next pack.
func (w *Writer) uploadPack(ctx context.Context, k *pack) {
	defer close(k.uploaded)
	if k.err = k.finish(); k.err != nil {
		w.pipe.fail(k.err)
		return
	}
	k.err = w.r.s.upload(ctx, packName(w.machine, k.id), k.path)
	k.at = w.r.opt.Now()
}

// uploadAll seals the current pack and returns when all packs are in the bucket.
func (w *Writer) uploadAll(ctx context.Context) error {
	if err := w.flush(ctx); err != nil {
		return err
	}
	if w.pack != nil {
		w.sealPack()
	}
	for _, k := range w.packs {
		select {
		case <-k.uploaded:
		case <-ctx.Done():
			return ctx.Err()
		}
		if p := w.pipe.failed(); p != nil {
			return w.broken(p)
		}
		if k.err == nil && w.r.opt.Now().Sub(k.at) < staleUpload {
			continue
		}
		if k.err = w.r.s.upload(ctx, packName(w.machine, k.id), k.path); k.err != nil {
			return k.err
		}
		k.at = w.r.opt.Now()
	}
	return nil
}

// Checkpoint returns when everything Put so far is in the bucket and listed in the session record, so that any Writer of the
// generation, anywhere, finds it.
func (w *Writer) Checkpoint(ctx context.Context) error {
	if err := w.lock(ctx); err != nil {
		return err
	}
	defer w.unlock()
	return w.checkpoint(ctx)
}

func (w *Writer) checkpoint(ctx context.Context) error {
	if w.cur == nil && w.pack == nil && len(w.packs) == 0 {
		return nil
	}
	if err := w.uploadAll(ctx); err != nil {
		return err
	}
	plans := make([]plan, len(w.disks))
	for i, d := range w.disks {
		plans[i] = planLayers(d, d.session, len(d.base) == 0)
	}
	layers, err := w.storeLayers(ctx, plans)
	if err != nil {
		return err
	}
	for i, d := range w.disks {
		d.session = layers[i]
	}
	w.forget()
	if err := w.owned(ctx); err != nil {
		return err
	}
	if err := w.writeSession(ctx); err != nil {
		return err
	}
	return w.dropPacks()
}

// forget empties memory: what it held is in layers now.
func (w *Writer) forget() {
	for _, d := range w.disks {
		d.mem.reset()
	}
	w.held.frames, w.held.sums = nil, nil
	w.spills++
}

// dropPacks removes packs from the spool that the bucket lists.
func (w *Writer) dropPacks() error {
	w.packed += w.spooled()
	var err error
	for _, k := range w.packs {
		err = errors.Join(err, os.Remove(k.path))
	}
	w.packs = nil
	if err != nil {
		return fmt.Errorf("empty spool: %w", err)
	}
	return nil
}
