package repo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/lifeboat-dr/lifeboat/replicator/block"
	"github.com/lifeboat-dr/lifeboat/replicator/chunk"
	"github.com/lifeboat-dr/lifeboat/replicator/manifest"
)

// resume finds again what the writer before left: layers in the session record, then packs in the spool. It leaves a session
// record that names this writer.
func (w *Writer) resume(ctx context.Context) error {
	w.gate <- struct{}{}
	defer w.unlock()
	rec, err := w.r.readSession(ctx, w.machine, w.gen)
	if errors.Is(err, ErrCorrupt) {
		// No point depends on it, and a writer's caller may rely on points and on Sums only.
		w.r.opt.Logger.Error("session record did not verify, starting from the newest point", "item", w.machine, "err", err)
		rec, err = nil, nil
	}
	if err != nil {
		return err
	}
	valid := rec != nil && rec.Base == w.baseEntry() && !w.tailGrew(rec.Disks)
	if valid {
		if err := w.adopt(rec); err != nil {
			return err
		}
	}
	files, err := w.spool.packs()
	if err != nil {
		return err
	}
	w.session = newID()
	if rec != nil && len(files) > 0 {
		// Keeping the id says that the spool's packs follow the record. No other process can have it: the spool is locked.
		w.session = rec.Session
	}
	recovered, err := w.recoverPacks(files, rec, valid)
	if err != nil {
		return err
	}
	if recovered == 0 && rec != nil {
		w.session = newID()
	}
	if valid && w.session == rec.Session {
		return nil
	}
	return w.writeTakeover(ctx)
}

// writeTakeover names this writer in the session record. nextPack stays before the recovered packs, which no layer has.
func (w *Writer) writeTakeover(ctx context.Context) error {
	packs, next := w.packs, w.nextPack
	if len(packs) > 0 {
		w.packs, w.nextPack = nil, packs[0].ordinal
	}
	changed := w.changed
	defer func() { w.packs, w.nextPack, w.changed = packs, next, changed }()
	for _, k := range packs {
		w.changed -= k.changed
	}
	return w.writeSession(ctx)
}

// adopt takes over the layers of a session record.
func (w *Writer) adopt(rec *manifest.Session) error {
	for i := range rec.Disks {
		b := &rec.Disks[i]
		d := w.byID[b.ID]
		if d == nil {
			continue
		}
		if d.info.Size < b.Size {
			return fmt.Errorf("%w: disk %s shrank from %d to %d bytes; it needs another id", ErrInvalid, b.ID, b.Size, d.info.Size)
		}
		d.session = b.Layers
	}
	w.nextPack, w.changed, w.packed = rec.NextPack, rec.Changed, rec.Packed
	return nil
}

// recoverPacks reads the spool's packs that follow the record, in order and without a gap; it removes all others: they are
// listed already, or belong to a point that was made or to a session that was superseded. It returns how many it took.
func (w *Writer) recoverPacks(files []string, rec *manifest.Session, valid bool) (taken int, err error) {
	gap := rec == nil // then nothing says that the spool is the newest
	next := int64(-1)
	if valid {
		next = rec.NextPack
	}
	for _, path := range files {
		k, h, f := w.openPack(path)
		ours := f != nil && !gap && h.Machine == w.machine && h.Generation == w.gen && h.Session == rec.Session && h.Base == w.baseEntry() &&
			!w.tailGrew(h.Disks)
		switch {
		case ours && next >= 0 && h.Ordinal < next:
			ours = false // in the record's layers
		case ours && next >= 0 && h.Ordinal > next:
			gap, ours = true, false
		}
		if !ours {
			if f != nil {
				err = errors.Join(err, f.Close())
			}
			if err = errors.Join(err, os.Remove(path)); err != nil {
				return taken, err
			}
			continue
		}
		if err := w.recoverPack(k, h); err != nil {
			return taken, fmt.Errorf("recover pack %s: %w", path, err)
		}
		next = h.Ordinal + 1
		w.nextPack = next
		taken++
	}
	return taken, nil
}

// openPack reads a pack file's header. f is nil if it has none that verifies: then it was never synced.
func (w *Writer) openPack(path string) (*pack, *manifest.PackHeader, *os.File) {
	ordinal, id, ok := packOfPath(path)
	if !ok {
		return nil, nil, nil
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, nil, nil
	}
	h := new(manifest.PackHeader)
	n, err := readPackHeader(f, &w.r.rec, packName(w.machine, id), h)
	if err != nil || h.Ordinal != ordinal {
		w.r.opt.Logger.Warn("pack in the spool has no valid header", "item", w.machine, "pack", path, "err", err)
		_ = f.Close() // nothing was written to it
		return nil, nil, nil
	}
	k := &pack{id: id, ordinal: ordinal, path: path, cipher: w.r.keys.frames(w.machine, id), f: f, uploaded: make(chan struct{})}
	k.size.Store(n)
	return k, h, f
}

func readPackHeader(f io.ReaderAt, key *manifest.RecordKey, name string, h *manifest.PackHeader) (int64, error) {
	var start [16]byte
	if _, err := f.ReadAt(start[:], 0); err != nil {
		return 0, err
	}
	n, err := manifest.RecordSize(start[:], manifest.KindPackHeader)
	if err != nil {
		return 0, err
	}
	p := make([]byte, n)
	if _, err := f.ReadAt(p, 0); err != nil {
		return 0, err
	}
	return int64(n), key.Open(name, p, h)
}

// recoverPack takes the frames of a pack file up to the first that does not verify, cuts the rest off and seals the file. It
// is never appended to: a frame of the same index would meet the same nonce.
func (w *Writer) recoverPack(k *pack, h *manifest.PackHeader) error {
	buf := make([]byte, chunk.MaxFrame)
	for {
		n, err := k.f.ReadAt(buf, k.size.Load())
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		head, err := chunk.Parse(buf[:n])
		if err != nil || head.Index != uint32(len(k.frames)) || head.Size() > n {
			break
		}
		plain, err := k.cipher.Open(buf[:head.Size()], head.Index)
		if err != nil {
			w.r.opt.Logger.Error("frame in the spool did not verify, the rest of its pack is dropped", "item", w.machine, "pack", k.path, "err", err)
			break
		}
		w.recoverFrame(k, h, &head, plain)
	}
	if err := w.spool.own(k); err != nil {
		return err
	}
	if err := k.f.Truncate(k.size.Load()); err != nil {
		return err
	}
	if _, err := k.f.Seek(k.size.Load(), io.SeekStart); err != nil {
		return err
	}
	w.pipe.sealPack(k)
	w.packs = append(w.packs, k)
	return nil
}

// recoverFrame takes one frame into memory. The sums are computed again from the data.
func (w *Writer) recoverFrame(k *pack, h *manifest.PackHeader, head *chunk.Frame, plain []byte) {
	off := k.size.Load()
	number := int32(len(w.held.frames))
	w.held.frames = append(w.held.frames, &frameAt{pack: k.id, offset: uint32(off), length: uint32(head.Size()), index: uint16(head.Index)})
	k.frames = append(k.frames, [2]uint32{uint32(off), uint32(head.Size())})
	k.size.Store(off + int64(head.Size()))
	at := int64(0)
	for _, run := range head.Runs {
		var d *writerDisk
		var size int64
		if run.Disk < len(h.Disks) {
			d, size = w.byID[h.Disks[run.Disk].ID], h.Disks[run.Disk].Size
		}
		first, n := run.First, run.Blocks
		if d != nil && first+n <= block.Count(min(size, d.info.Size)) {
			if run.Hole {
				d.mem.put(first, n, holeFrame, 0, 0)
			} else {
				d.mem.put(first, n, number, uint16(at), int32(len(w.held.sums)))
				summer := block.NewSummer(w.r.SumKey(w.machine, d.info.ID))
				for i := range n {
					p := plain[(at+i)*block.Size:]
					w.held.sums = append(w.held.sums, summer.Of(p[:block.Length(first+i, size)]))
				}
			}
			bytes := min(size, (first+n)*block.Size) - first*block.Size
			w.changed += bytes
			k.changed += bytes
		}
		if !run.Hole {
			at += n
		}
	}
}

// tailGrew tells whether a disk ended in a short block and has grown since. What a session wrote into that block has a sum of
// the short block, which says nothing about the whole one; such a session is not resumed.
func (w *Writer) tailGrew(disks []manifest.Disk) bool {
	for i := range disks {
		b := &disks[i]
		if d := w.byID[b.ID]; d != nil && b.Size%block.Size != 0 && b.Size < d.info.Size {
			return true
		}
	}
	return false
}

// growTails writes the last blocks of disks that ended in a short block and have grown: their content is now that of the whole
// block, the rest being zeros, and so is their sum.
func (w *Writer) growTails(ctx context.Context, base *manifest.Entry) error {
	for i := range base.Disks {
		b := &base.Disks[i]
		d := w.byID[b.ID]
		if d == nil || b.Size%block.Size == 0 || b.Size >= d.info.Size {
			continue
		}
		summer := block.NewSummer(w.r.SumKey(w.machine, b.ID))
		tail := b.Size / block.Size
		old := make([]byte, block.Size)
		short := old[:block.Length(tail, b.Size)]
		if err := newDisk(w.src, b).ReadAt(ctx, short, tail*block.Size); err != nil {
			return err
		}
		var sum [1]block.Sum
		if err := w.Sums(ctx, b.ID, tail, sum[:]); err != nil {
			return err
		}
		if sum[0] == (block.Sum{}) || sum[0] != summer.Of(short) {
			continue // a hole stays one; anything else was written after the disk grew
		}
		whole := old[:block.Length(tail, d.info.Size)]
		e := block.Extent{Offset: tail * block.Size, Length: int64(len(whole))}
		if err := w.Put(ctx, b.ID, []block.Extent{e}, []block.Sum{summer.Of(whole)}, whole); err != nil {
			return err
		}
	}
	return nil
}
