package repo

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/lifeboat-dr/lifeboat/replicator/block"
	"github.com/lifeboat-dr/lifeboat/replicator/chunk"
	"github.com/lifeboat-dr/lifeboat/replicator/manifest"
)

// Writer makes recovery points of one machine in one generation, one after another. Data written is visible to nobody until
// Commit. Safe for concurrent use: calls that write run one at a time, in the order they get in.
//
// The newest first, a block's content is what is Put (mem), what was checkpointed (session), what the base point has (base).
// Invariant: packs not listed in the bucket's session record are files in the spool, and hold exactly what mem holds, or what
// layers made since the last record hold.
type Writer struct {
	r       *Repository
	machine string
	gen     int64
	src     *source
	spool   *spool
	pipe    *pipeline
	stop    context.CancelFunc // ends uploads
	closing sync.Once

	gate chan struct{} // a mutex that honours contexts; guards all below

	session  manifest.ID
	head     int64     // newest entry of the log
	base     *PointRef // newest point
	disks    []*writerDisk
	byID     map[string]*writerDisk
	held     held
	cur      *frame  // not yet submitted
	pack     *pack   // takes frames
	packs    []*pack // sealed, not in the session record
	nextPack int64   // ordinal
	spills   int     // counts how often mem moved into layers
	changed  int64
	packed   int64
	limits   limits
	err      error // the writer is of no use any more
	closed   bool
}

type writerDisk struct {
	info    DiskInfo
	place   int // in disks and in pack headers
	mem     *memLayer
	session []manifest.Layer
	base    []manifest.Layer
}

// limits bound what a writer holds.
type limits struct {
	pack   int64 // bytes of a pack, give or take a frame
	blocks int   // in memory
	runs   int   // in memory
	packs  int   // sealed ones in the spool that no session record lists
}

// defaultLimits hold 2 GiB of plain data: 8 MiB of sums, at most 4 MiB of runs, at most 1.5 GiB of spool.
var defaultLimits = limits{pack: 48 << 20, blocks: 512 << 10, runs: 256 << 10, packs: 32}

func (w *Writer) lock(ctx context.Context) error {
	select {
	case w.gate <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	switch {
	case w.closed:
		w.unlock()
		return fmt.Errorf("%w: the writer is closed", ErrInvalid)
	case w.err != nil:
		defer w.unlock()
		return w.err
	}
	return nil
}

func (w *Writer) unlock() { <-w.gate }

// Base returns the newest point of the generation, else the point that the generation builds on; nil if the next point is the
// first of all.
func (w *Writer) Base() *PointRef {
	w.gate <- struct{}{}
	defer w.unlock()
	if w.base == nil {
		return nil
	}
	b := *w.base
	return &b
}

// Resumed returns the bytes written since Base that this writer holds, those of a writer before it included.
func (w *Writer) Resumed() int64 {
	w.gate <- struct{}{}
	defer w.unlock()
	return w.changed
}

func (w *Writer) disk(id string) (*writerDisk, error) {
	d := w.byID[id]
	if d == nil {
		return nil, fmt.Errorf("disk %q of machine %s: %w", id, w.machine, ErrNotFound)
	}
	return d, nil
}

// Sums copies the compare sums of the blocks [first, first+len(dst)) into dst: those of the base overlaid with what this
// writer holds. Holes have the zero sum. It reads maps, never data.
func (w *Writer) Sums(ctx context.Context, disk string, first int64, dst []block.Sum) error {
	for {
		again, err := w.sumsOnce(ctx, disk, first, dst)
		if err != nil || !again {
			return err
		}
	}
}

// sumsOnce reads stored maps without holding the gate, so that comparing does not hold up writing. again is true if what lay
// in memory was stored meanwhile.
func (w *Writer) sumsOnce(ctx context.Context, disk string, first int64, dst []block.Sum) (again bool, err error) {
	if err := w.lock(ctx); err != nil {
		return false, err
	}
	d, err := w.disk(disk)
	if err == nil && (first < 0 || first+int64(len(dst)) > block.Count(d.info.Size)) {
		err = fmt.Errorf("%w: sums of blocks %d to %d of disk %s, which has %d bytes", ErrInvalid, first, first+int64(len(dst)), disk, d.info.Size)
	}
	if err != nil {
		w.unlock()
		return false, err
	}
	layers, spills := slices.Concat(d.session, d.base), w.spills
	w.unlock()

	if err := w.src.wrongMap(w.src.view(layers).Sums(ctx, first, dst)); err != nil {
		return false, blame(fmt.Errorf("compare sums of disk %s: %w", disk, err), disk,
			block.Extent{Offset: first * block.Size, Length: int64(len(dst)) * block.Size})
	}
	if err := w.lock(ctx); err != nil {
		return false, err
	}
	defer w.unlock()
	if w.spills != spills {
		return true, nil
	}
	d.mem.overlay(first, dst)
	return false, nil
}

// broken marks the writer useless: what it has in memory and what is in the spool may differ. The next Writer goes by the
// spool.
func (w *Writer) broken(err error) error {
	if w.err == nil {
		w.err = fmt.Errorf("writer of machine %s: %w", w.machine, err)
	}
	return w.err
}

// makeRoom keeps memory and spool bounded.
func (w *Writer) makeRoom(ctx context.Context) error {
	runs := 0
	for _, d := range w.disks {
		runs += d.mem.runs
	}
	if len(w.held.sums) < w.limits.blocks && runs < w.limits.runs && len(w.packs) < w.limits.packs {
		return nil
	}
	return w.checkpoint(ctx)
}

// frame returns the current frame with room for a run and a block.
func (w *Writer) frame(ctx context.Context) (*frame, error) {
	if w.cur != nil && w.cur.full() {
		if err := w.submit(); err != nil {
			return nil, err
		}
	}
	if w.cur != nil {
		return w.cur, nil
	}
	if err := w.pipe.failed(); err != nil {
		return nil, err
	}
	f, err := w.pipe.take(ctx)
	if err != nil {
		return nil, err
	}
	f.number, f.at = int32(len(w.held.frames)), new(frameAt)
	w.held.frames = append(w.held.frames, f.at)
	w.cur = f
	return f, nil
}

// submit sends the current frame on its way, into a new pack when the current one has enough.
func (w *Writer) submit() error {
	if w.pack != nil && (w.pack.size.Load()+w.pack.inFlight.Load()+chunk.MaxPlain > w.limits.pack || w.pack.next == chunk.MaxFrames) {
		w.sealPack()
	}
	if w.pack == nil {
		if err := w.newPack(); err != nil {
			return err
		}
	}
	f := w.cur
	w.cur = nil
	f.pack, f.index = w.pack, w.pack.next
	w.pack.next++
	w.pipe.submit(f)
	return nil
}

func newID() (id manifest.ID) {
	rand.Read(id[:]) // never fails
	return id
}

func (w *Writer) newPack() error {
	id := newID()
	h := manifest.PackHeader{Machine: w.machine, Generation: w.gen, Base: w.baseEntry(), Session: w.session, Ordinal: w.nextPack}
	for _, d := range w.disks {
		h.Disks = append(h.Disks, manifest.Disk{ID: d.info.ID, Size: d.info.Size, OS: d.info.OS})
	}
	header, err := w.r.rec.Seal(packName(w.machine, id), &h)
	if err != nil {
		return err
	}
	k, err := w.spool.newPack(id, w.nextPack, header, w.r.keys.frames(w.machine, id))
	if err != nil {
		return fmt.Errorf("start pack: %w", err)
	}
	w.pack = k
	w.nextPack++
	return nil
}

// baseEntry is the log entry that sessions and packs of now build on.
func (w *Writer) baseEntry() manifest.Ref { return manifest.Ref{Generation: w.gen, Sequence: w.head} }

func (w *Writer) sealPack() {
	w.pipe.sealPack(w.pack)
	w.packs = append(w.packs, w.pack)
	w.pack = nil
}

// flush gets everything Put so far into pack files.
func (w *Writer) flush(ctx context.Context) error {
	if w.cur != nil {
		if err := w.submit(); err != nil {
			return err
		}
	}
	if err := w.pipe.barrier(ctx); err != nil {
		if p := w.pipe.failed(); p != nil {
			return w.broken(p)
		}
		return err
	}
	return nil
}

// Sync returns when everything Put before it survives a crash of this process and of its machine: the next Writer with the same
// Dir finds it. Other calls need not wait for it meanwhile. Without a Dir it does what Checkpoint does.
func (w *Writer) Sync(ctx context.Context) error {
	if w.spool.temp {
		return w.Checkpoint(ctx)
	}
	pass, packs, err := w.markSync(ctx)
	if err != nil {
		return err
	}
	err = w.pipe.await(ctx, pass)
	if err != nil && w.pipe.failed() == nil {
		return err
	}
	for _, k := range packs {
		if err == nil {
			err = k.sync()
		}
	}
	if err == nil {
		return nil
	}
	select { // what is behind the mark is lost for this writer
	case w.gate <- struct{}{}:
		defer w.unlock()
		return w.broken(err)
	case <-ctx.Done(): // whoever writes next meets the failure, too
		return err
	}
}

// markSync sends everything Put so far on its way into pack files. All of it is in packs, or was checkpointed, once pass is closed;
// a sealed one may not be durable yet, as its uploader is still about it.
func (w *Writer) markSync(ctx context.Context) (pass <-chan struct{}, packs []*pack, err error) {
	if err := w.lock(ctx); err != nil {
		return nil, nil, err
	}
	defer w.unlock()
	if w.cur != nil {
		if err := w.submit(); err != nil {
			return nil, nil, err
		}
	}
	packs = slices.Clone(w.packs)
	if w.pack != nil {
		packs = append(packs, w.pack)
	}
	pass, err = w.pipe.mark(ctx)
	return pass, packs, err
}

// Close ends the writer. What was Put and neither synced nor checkpointed is lost; the rest waits in spool and bucket for the
// next Writer, unless the spool was temporary. Close is not to be called while other calls run.
func (w *Writer) Close() error {
	var err error
	w.closing.Do(func() {
		w.stop()
		w.gate <- struct{}{}
		defer w.unlock()
		w.closed = true
		if w.cur != nil {
			w.cur.giveBack()
			w.pipe.release(w.cur)
			w.cur = nil
		}
		w.pipe.close()
		if w.pack != nil {
			err = w.pack.close()
		}
		err = errors.Join(err, w.spool.close())
	})
	return err
}
