package ship

import (
	"context"
	"errors"
	"fmt"
	"math"
	"runtime"
	"sync"
	"time"

	"github.com/lifeboat-dr/lifeboat/agent/quiesce"
	"github.com/lifeboat-dr/lifeboat/agent/source"
	"github.com/lifeboat-dr/lifeboat/agent/track"
	"github.com/lifeboat-dr/lifeboat/agent/track/scan"
	"github.com/lifeboat-dr/lifeboat/replicator/wire"
	"github.com/lifeboat-dr/lifeboat/sdk/fleet"
)

// Reasons to try a window again after another pass.
var (
	errDisturbed = errors.New("ship: a disk was written while its filesystems were frozen")
	errRestless  = errors.New("ship: an image file keeps changing")
)

// fatal tells an error of the session from a capture that was refused: after the latter the session goes on.
func fatal(err error) bool {
	if err == nil {
		return false
	}
	if f, ok := errors.AsType[*refusal](err); ok {
		return f == nil
	}
	return true
}

// refusal is a capture that did not become a point. The session is as good as before.
type refusal struct{ err error }

func (r *refusal) Error() string { return r.err.Error() }
func (r *refusal) Unwrap() error { return r.err }

// Ways to get an instant of a disk.
func frozen(d *disk) bool { return !d.src.File }                  // by freezing what is mounted on it
func image(d *disk) bool  { return d.src.File && !d.src.Stopped } // by scripts, or by seeing it stand still

// capture makes one recovery point: passes over the running machine until little differs, then a last one at one instant of all
// disks, then everything to the replicator and its word that the point is durable. A *refusal leaves the session usable.
func (s *session) capture(ctx context.Context, want fleet.Protection) (err error) {
	if s.machine != nil {
		return s.captureHost(ctx, want)
	}
	s.began = time.Now()
	app := want.AppConsistentSeconds > 0 && s.p.cfg.Scripts.Any()
	if app {
		due := time.Since(s.p.memo.AppTime) >= time.Duration(want.AppConsistentSeconds)*time.Second
		if app = due; s.p.cfg.Barrier != nil {
			app = s.p.cfg.Barrier.App(want, due)
		}
	}
	limit := defaultFreeze
	if want.FreezeTimeoutSeconds > 0 {
		limit = time.Duration(want.FreezeTimeoutSeconds) * time.Second
	}
	took, err := s.approach(ctx)
	if err != nil {
		return err
	}
	if n := s.count(func(d *disk) bool { return frozen(d) && !marked(d) }); n > 0 && took > limit+limit/2 {
		return &refusal{&Fault{Code: "precondition_failed",
			Message: fmt.Sprintf("comparing the disks takes %s, longer than the filesystems may be frozen (%s); nothing was frozen", took.Round(time.Second), limit),
			Causes:  "The disks are large or slow for a tracker that reads them whole.", Action: "Raise the policy's freeze limit, or protect fewer disks."}}
	}
	mem := &spool{limit: s.p.cfg.SpoolBytes}
	defer mem.close()
	if s.count(frozen) > 0 {
		if err := mem.grow(firstSpool); err != nil {
			return &refusal{err}
		}
	}
	meet := &meeting{due: true}
	defer func() { meet.done(s.head(), err) }()
	var warn error // a point was made, but not all was as it should be
	for try := 1; ; try++ {
		var instant time.Time
		var epochs []int64
		var err error
		instant, epochs, warn, err = s.window(ctx, mem, meet, app, limit, took)
		if err == nil {
			consistency := fleet.CrashConsistent
			if app && warn == nil {
				consistency = fleet.ApplicationConsistent
			}
			return s.deliver(ctx, want, mem, epochs, &wire.Seal{Time: instant, Consistency: string(consistency), GroupID: meet.group(ctx)}, warn)
		}
		meet.done(wire.PointRef{}, err)
		if rerr := s.retry(ctx, err, try); rerr != nil {
			return rerr
		}
		if errors.Is(err, errSpoolFull) {
			if err := mem.grow(mem.limit); err != nil {
				return &refusal{err}
			}
		}
		mem.reset()
		if took, err = s.approach(ctx); err != nil {
			return err
		}
	}
}

// approach runs passes over the running machine until little differs, or no less than before, and returns how long the last one took.
// What waits in the page cache is written out first, so that a pass sees it and the freeze does not have to.
func (s *session) approach(ctx context.Context) (took time.Duration, err error) {
	last := int64(math.MaxInt64)
	for pass := 0; pass < maxPasses; pass++ {
		if s.count(marked) > 0 {
			if err := quiesce.Sync(ctx, s.filesystems()); err != nil {
				return took, &refusal{err}
			}
		}
		start := time.Now()
		n, err := s.passes(ctx, func(d *disk) bool { return pass == 0 || !d.src.Stopped }) // a disk nobody writes to needs one
		if err != nil {
			return took, err
		}
		took = time.Since(start)
		quick := took < time.Second || s.count(marked) < len(s.disks) // else much may have been written meanwhile
		if quick && (n < smallPass || s.count(marked) == len(s.disks) && n > last/4*3) {
			break
		}
		last = n
	}
	return took, nil
}

func (s *session) filesystems() (fs []source.Filesystem) {
	for _, d := range s.disks {
		fs = append(fs, d.src.Filesystems...)
	}
	return fs
}

func (s *session) count(which func(*disk) bool) (n int) {
	for _, d := range s.disks {
		if which(d) {
			n++
		}
	}
	return n
}

// retry decides whether a window that failed is tried again: it returns nil for yes.
func (s *session) retry(ctx context.Context, err error, try int) error {
	f := Fault{Code: "precondition_failed"}
	switch {
	case errors.Is(err, quiesce.ErrExpired), errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil:
		f.Message = "the freeze deadline passed before the last pass was read; the filesystems were thawed and the capture refused"
		f.Causes, f.Action = "The disks are slow, or large for a tracker that reads them whole.", "Raise the policy's freeze limit."
		return &refusal{&f}
	case errors.Is(err, errSpoolFull):
		f.Message = fmt.Sprintf("write rate too high: in %d tries more than %d MiB changed between the last pass and the freeze", try, s.p.cfg.SpoolBytes>>20)
		f.Causes, f.Action = "The machine writes faster than its changes can be read.", "Protect it at a quieter time, give it faster disks, or leave busy scratch disks out."
	case errors.Is(err, errDisturbed):
		f.Message = fmt.Sprintf("a disk was written while its filesystems were frozen, in %d tries: %v", try, err)
		f.Causes, f.Action = "Something writes to the disk past the filesystems, or a filesystem on it cannot be frozen.", "Mount what uses the disk where the agent sees it, or configure pre and post scripts that stop it."
	case errors.Is(err, errRestless):
		f.Message = fmt.Sprintf("an image file changed in each of %d tries", try)
		f.Causes, f.Action = "The machine that uses the image is running.", "Configure pre and post scripts that make it stand still, or declare the image as stopped."
	case errors.Is(err, track.ErrLost):
		s.resync(err.Error())
		f.Message = fmt.Sprintf("changes were lost in each of %d windows: %v", try, err)
		f.Causes, f.Action = "The kernel loses events of the tracker, or something writes past the block layer.", "Look at the agent's log; the disks are compared as a whole meanwhile."
	case errors.Is(err, quiesce.ErrBusy):
		f.Code, f.Message = "conflict", fmt.Sprintf("a filesystem was frozen by somebody else in %d tries: %v", try, err)
		f.Causes, f.Action = "Another backup or snapshot is under way.", "Let it end; the next capture tries again."
		if try < captureTries {
			select {
			case <-time.After(busyWait):
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
	default:
		return err
	}
	if try >= captureTries {
		return &refusal{&f}
	}
	s.p.log.Info("capture window is tried again", "try", try, "err", err)
	return nil
}

// window takes one instant of all disks. What the last pass over frozen disks finds is in mem afterwards. warn is set when the
// point is good but its applications were not quiesced as asked. A pass over all disks is expected to take as long as the last one.
func (s *session) window(ctx context.Context, mem *spool, meet *meeting, app bool, limit, pass time.Duration) (instant time.Time, epochs []int64, warn, err error) {
	label := fleet.CrashConsistent
	if app {
		label = fleet.ApplicationConsistent
	}
	scripts := s.p.cfg.Scripts
	scripted := scripts.Any() && s.count(image) > 0
	if app || scripted {
		defer func() {
			perr := s.p.guard.RunPost()
			if err == nil && scripted && errors.Is(perr, quiesce.ErrExpired) {
				err = perr // the images may have moved
			}
			if perr != nil {
				s.p.log.Warn("post script ended with an error", "err", perr)
				warn = errors.Join(warn, perr)
			}
		}()
		stand := 2 * limit // writing out what is dirty, and the freeze
		if scripted {
			stand += 2 * pass
		}
		if perr := s.p.guard.RunPre(ctx, scripts, string(label), stand); perr != nil {
			if ctx.Err() != nil {
				return instant, nil, nil, context.Cause(ctx)
			}
			if scripted {
				return instant, nil, nil, &refusal{perr}
			}
			warn = perr
		}
	}
	switch { // image files stand still from here on, or are seen not to move
	case scripted:
		if _, err := s.passes(ctx, image); err != nil {
			return instant, nil, nil, err
		}
	case s.count(image) > 0:
		for n := 0; s.restless(1); n++ {
			if n == maxPasses {
				return instant, nil, nil, errRestless
			}
			if _, err := s.passes(ctx, image); err != nil {
				return instant, nil, nil, err
			}
		}
	}
	if err := s.look(ctx); err != nil {
		return instant, nil, nil, err
	}
	w, err := s.p.guard.Prepare(ctx, s.filesystems())
	if err != nil {
		return instant, nil, nil, &refusal{err}
	}
	defer w.Close()
	left, err := s.passes(ctx, marked) // what Prepare had written out; about as much was written meanwhile
	if err != nil {
		return instant, nil, nil, err
	}
	if room := min(spoolMargin*left, mem.limit); room > mem.size() && s.count(frozen) > 0 {
		if err := mem.grow(room); err != nil {
			return instant, nil, nil, &refusal{err}
		}
	}
	runtime.GC() // so that none is due while the machine stands
	s.join(ctx, meet)
	s.p.cfg.Gate.Hold()
	defer s.p.cfg.Gate.Release()
	if err := w.Freeze(limit); err != nil {
		if errors.Is(err, quiesce.ErrBusy) || errors.Is(err, quiesce.ErrExpired) {
			return instant, nil, nil, err
		}
		return instant, nil, nil, &refusal{err}
	}
	instant, epochs, err = s.frozen(ctx, mem, meet, limit)
	held, terr := w.Thaw()
	if errors.Is(terr, quiesce.ErrLost) {
		terr = &refusal{terr}
	}
	if err = errors.Join(err, terr); err != nil {
		return instant, nil, nil, err
	}
	if s.count(frozen) > 0 {
		s.p.status.set(func(st *fleet.ProtectionStatus) { st.FreezeMicros = held.Microseconds() })
	}
	if !scripted && s.count(image) > 0 { // the instant lies between two readings that agree
		if _, err := s.passes(ctx, image); err != nil {
			return instant, nil, nil, err
		}
		if s.restless(2) {
			return instant, nil, nil, errRestless
		}
	}
	return instant, epochs, warn, nil
}

// restless tells whether an image file was not seen standing still in so many passes in a row.
func (s *session) restless(passes int) bool {
	for _, d := range s.disks {
		if image(d) && d.quiet < passes {
			return true
		}
	}
	return false
}

// frozen is the last pass, while the filesystems stand. Nothing here may write, log, start a program or outlast limit.
func (s *session) frozen(ctx context.Context, mem *spool, meet *meeting, limit time.Duration) (instant time.Time, epochs []int64, err error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	before := make([]source.Writes, len(s.disks))
	for i, d := range s.disks {
		if before[i], err = d.src.Writes(); err != nil {
			return instant, nil, err
		}
	}
	meet.frozen(ctx)
	instant = time.Now().UTC()
	for _, d := range s.disks {
		epoch := d.tracker.Epoch()
		if !frozen(d) {
			epoch-- // its newest sealed one
		}
		epochs = append(epochs, epoch)
	}
	if err := s.sealAll(ctx); err != nil {
		return instant, nil, err
	}
	for i, d := range s.disks {
		if !frozen(d) {
			continue
		}
		if _, err := d.scanner.Pass(ctx, d.owed, false, func(c *scan.Change) error { return mem.keep(i, c) }, func(int64) {}); err != nil {
			return instant, nil, fmt.Errorf("read disk %s while frozen: %w", d.src.Id, err)
		}
	}
	meet.sealed(ctx)
	if s.p.inWindow != nil {
		s.p.inWindow()
	}
	for i, d := range s.disks {
		after, err := d.src.Writes()
		if err != nil {
			return instant, nil, err
		}
		if before[i].Known && (after.Sectors != before[i].Sectors || after.InFlight > 0) {
			return instant, nil, fmt.Errorf("%w: disk %s, %d bytes", errDisturbed, d.src.Id, (after.Sectors-before[i].Sectors)*512)
		}
	}
	return instant, epochs, nil
}

// sealAll ends the epochs of all disks that stand, and has their trackers held to the kernel's counts: this is the time at which the
// two must agree.
func (s *session) sealAll(ctx context.Context) error {
	errs := make([]error, len(s.disks))
	var wg sync.WaitGroup
	for i, d := range s.disks {
		if !frozen(d) {
			continue
		}
		wg.Go(func() {
			err := d.seal(ctx)
			if v, ok := d.tracker.Tracker.(track.Verifier); ok && err == nil {
				if err = v.Verify(len(d.src.Filesystems) > 0); err != nil {
					err = fmt.Errorf("%w: %w", track.ErrLost, err)
					d.tracker.lose(err)
					d.owed = d.whole()
				}
			}
			if err != nil {
				errs[i] = fmt.Errorf("disk %s: %w", d.src.Id, err)
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// deliver ships what the window found and has the point made.
func (s *session) deliver(ctx context.Context, want fleet.Protection, mem *spool, epochs []int64, seal *wire.Seal, warn error) error {
	for _, d := range s.disks {
		d.quiet = 0
	}
	err := mem.each(func(disk int, c *scan.Change) error {
		if err := s.sink(disk, c); err != nil {
			return err
		}
		return s.disks[disk].scanner.Learn(c)
	})
	if err != nil {
		return err
	}
	for _, d := range s.disks {
		d.owed = nil
	}
	start := time.Now()
	seal.Hardware = s.p.hardware(ctx)
	durable, err := s.link.seal(ctx, seal)
	if err != nil {
		return err
	}
	m := memo{CaptureID: want.CaptureId, ResyncID: want.ResyncId, Generation: durable.Point.Generation, Sequence: durable.Point.Sequence,
		PointTime: durable.Time, AppTime: s.p.memo.AppTime}
	if seal.Consistency == string(fleet.ApplicationConsistent) {
		m.AppTime = seal.Time
	}
	if err := s.settle(durable, epochs, m); err != nil {
		return err
	}
	own := s.own()
	if err := s.measure(); err != nil {
		return err
	}
	s.p.status.set(func(st *fleet.ProtectionStatus) {
		st.LastPoint = fleet.PointRef{Generation: durable.Point.Generation, Sequence: durable.Point.Sequence}
		st.LastPointTime, st.LastCaptureId, st.Error = durable.Time, want.CaptureId, fleet.Error{}
		st.SelfDirtyBytes = own
		if warn != nil {
			st.Error = errorOf(warn)
		}
	})
	s.p.pace.durable(durable.Time)
	s.p.log.Info("point is durable", "point", durable.Point.Sequence, "changed", s.p.changed.Swap(0), "shipped", s.p.shipped.Swap(0), "own", own,
		"instant", seal.Time, "freeze", time.Duration(s.p.status.get().FreezeMicros)*time.Microsecond, "took", time.Since(s.began), "dur", time.Since(start))
	return nil
}
