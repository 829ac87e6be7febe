package ship

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/lifeboat-dr/lifeboat/agent/source"
	"github.com/lifeboat-dr/lifeboat/agent/track"
	"github.com/lifeboat-dr/lifeboat/agent/track/scan"
	"github.com/lifeboat-dr/lifeboat/replicator/block"
	"github.com/lifeboat-dr/lifeboat/replicator/wire"
	"github.com/lifeboat-dr/lifeboat/sdk/fleet"
)

// disk is a protected disk in a session.
type disk struct {
	src     source.Disk
	reader  *source.Reader // nil for a disk that is read from outside
	view    *window        // that disk
	sums    *scan.Sums
	prints  *scan.Prints
	scanner *scan.Scanner
	tracker *tracked

	// owed are extents of sealed epochs that no completed pass has looked at. They are read again with the next pass.
	owed  []block.Extent
	dirty int64 // bytes, as last measured
	quiet int   // passes in a row over an image file that found nothing
}

// session is one connection to a replicator and what runs over it.
type session struct {
	p     *Protector
	want  fleet.Protection
	link  *link
	disks []*disk
	prog  *progress
	wake  chan struct{}

	machine track.Machine // that is read from outside, or nil

	aligned string // the resync that the known sums were fetched for
	ph      fleet.ProtectionStatusPhase
	began   time.Time // the newest capture

	mu     sync.Mutex // guards opened
	opened bool       // known sums were marked as running ahead of the newest point
}

// session connects and ships until something ends it. It never returns nil.
func (p *Protector) session(ctx context.Context, want fleet.Protection) (err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	found, err := p.findDisks(ctx, want)
	if err != nil {
		return err
	}
	if err := p.forget(want.Disks); err != nil {
		return err
	}
	s := &session{p: p, want: want, wake: make(chan struct{}, 1)}
	hello := &wire.Hello{Grant: want.Grant, Machine: want.MachineId, Generation: want.Generation, Version: p.cfg.Version}
	defer func() { err = errors.Join(err, s.closeDisks()) }()
	if p.cfg.Host != nil {
		err, found = s.attach(ctx, found, hello), nil
		if err != nil {
			return err
		}
	}
	for _, d := range found {
		r, err := source.Open(d)
		if err != nil {
			return err
		}
		s.disks = append(s.disks, &disk{src: d, reader: r})
		t, err := p.tracker(ctx, d)
		if err != nil {
			return err
		}
		s.disks[len(s.disks)-1].tracker = t
		if !slices.Contains(hello.Capabilities, t.Kind) {
			hello.Capabilities = append(hello.Capabilities, t.Kind)
		}
		hello.Disks = append(hello.Disks, wire.Disk{ID: d.Id, Size: d.SizeBytes, OS: d.IsOsDisk})
	}
	s.prog = newProgress(&p.status, s.disks)
	s.link, err = p.dial(ctx, want.Replicators[p.replica%len(want.Replicators)], hello)
	if err != nil {
		return err
	}
	p.log.Info("replication session opened", "generation", want.Generation, "head", s.link.welcome.Head, "clean", s.link.welcome.Clean)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel(nil)
	defer func() { s.link.close(fmt.Sprint(err)) }()
	wg.Go(func() { s.link.run(ctx, s.beat) })
	wg.Go(func() { p.watch(ctx, cancel, s.link, want, s.wake) })
	err = s.run(ctx)
	if errors.Is(err, scan.ErrDamaged) { // the next session fetches them
		for _, d := range s.disks {
			err = errors.Join(err, d.sums.Reset(), d.prints.Forget())
		}
	}
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return err
}

func (s *session) closeDisks() (err error) {
	if s.machine != nil {
		err = s.machine.Close()
	}
	for _, d := range s.disks {
		if d.reader != nil {
			err = errors.Join(err, d.reader.Close())
		}
		if d.sums != nil {
			err = errors.Join(err, d.sums.Close())
		}
	}
	return err
}

func (s *session) beat() *wire.Heartbeat {
	st := s.p.status.get()
	return &wire.Heartbeat{Phase: string(st.Phase), ProcessedBytes: st.ProcessedBytes, TotalBytes: st.TotalBytes}
}

func (s *session) phase(ph fleet.ProtectionStatusPhase) { s.p.status.phase(s.want.Generation, ph) }

// resync shows that a disk is compared as a whole, and why. It lasts until the next point.
func (s *session) resync(reason string) {
	for _, d := range s.disks {
		if err := d.tracker.doubt(); err != nil {
			s.p.log.Error("a change log cannot be written", "disk", d.src.Id, "err", err)
		}
	}
	s.p.log.Warn("the disks are compared with the newest point", "reason", reason)
	if s.ph != fleet.InitialReplication {
		s.ph = fleet.Resync
	}
	s.p.status.set(func(st *fleet.ProtectionStatus) {
		st.Phase, st.ResyncReason, st.ResyncTime = s.ph, reason, time.Now().UTC()
	})
}

// run compares the disks with what the replicator holds, then captures whenever it is time.
func (s *session) run(ctx context.Context) error {
	for i, d := range s.disks {
		id := scan.Identity{Machine: s.want.MachineId, Disk: d.src.Id, Size: d.src.SizeBytes, Key: s.link.welcome.SumKeys[i]}
		var err error
		if d.sums, err = scan.OpenSums(s.p.path(d.src.Id+sumsSuffix), id); err != nil {
			return err
		}
		if d.prints, err = s.p.printsOf(d); err != nil {
			return err
		}
		var reader scan.Reader = d.view
		if d.view == nil {
			reader = d.reader
		}
		d.scanner = scan.NewScanner(reader, d.sums, d.prints, id.Key)
	}
	s.aligned = s.desired().ResyncId
	if err := s.align(ctx, s.aligned != s.p.memo.ResyncID); err != nil {
		return err
	}
	next, notBefore := time.Now(), time.Now()
	if m := s.p.memo; s.ph == fleet.Delta && m.Generation == s.want.Generation {
		next = m.PointTime.Add(s.interval())
	}
	for {
		due, err := s.wait(ctx, next, notBefore)
		if err != nil {
			return err
		}
		if !due {
			if err := s.flow(ctx); err != nil {
				return cmp.Or(s.link.failure(), err)
			}
			if s.ph != fleet.Delta { // changes were lost
				next = time.Now()
			}
			continue
		}
		want := s.desired()
		if want.ResyncId != s.aligned && s.ph != fleet.InitialReplication {
			s.aligned = want.ResyncId
			if err := s.align(ctx, true); err != nil {
				return err
			}
		}
		next = time.Now().Add(s.interval())
		if s.ph == fleet.Delta {
			s.phase(fleet.Capturing)
		}
		err = s.capture(ctx, want)
		if fatal(err) || s.link.failure() != nil || ctx.Err() != nil {
			return cmp.Or(err, s.link.failure())
		}
		if err != nil {
			s.p.log.Warn("capture refused", "err", err)
			s.p.status.complain(err)
			s.phase(s.ph)
			notBefore = time.Now().Add(min(s.interval(), s.p.patience))
			if s.count(marked) == len(s.disks) { // else the next one would read the disks as a whole, again for nothing
				next = time.Now().Add(min(s.interval(), refusedLongest))
			}
			continue
		}
		s.ph = fleet.Delta
		s.phase(s.ph)
	}
}

func (s *session) desired() fleet.Protection { return s.p.desired() }

// interval returns the time between captures. Application-consistent ones count as others.
func (s *session) interval() time.Duration {
	w := s.desired()
	every := defaultInterval
	if w.CrashConsistentSeconds > 0 {
		every = time.Duration(w.CrashConsistentSeconds) * time.Second
	}
	if w.AppConsistentSeconds > 0 && s.p.cfg.Scripts.Any() {
		every = min(every, time.Duration(w.AppConsistentSeconds)*time.Second)
	}
	if b := s.p.cfg.Barrier; b != nil && b.Leads(w) {
		every *= 2
	}
	return every
}

// wait returns true when a capture is due: at next, or because somebody asks for one, but not before notBefore; false when it is
// time to ship what changed meanwhile.
func (s *session) wait(ctx context.Context, next, notBefore time.Time) (due bool, err error) {
	t := time.NewTimer(time.Until(next))
	defer t.Stop()
	ready := time.NewTimer(time.Until(notBefore))
	defer ready.Stop()
	var flow <-chan time.Time
	if s.ph == fleet.Delta && s.machine == nil && s.count(marked) > 0 {
		f := time.NewTimer(s.flowEvery())
		defer f.Stop()
		flow = f.C
	}
	waited := false
	var calls chan struct{} // none before waited
	for {
		if w := s.desired(); waited && (w.CaptureId != s.p.memo.CaptureID || w.ResyncId != s.p.memo.ResyncID) {
			return true, nil
		}
		select {
		case <-ready.C:
			waited, calls = true, s.p.calls
		case <-calls:
			return true, nil
		case <-ctx.Done():
			return false, context.Cause(ctx)
		case <-s.link.done:
			return false, s.link.failure()
		case <-t.C:
			return true, nil
		case <-flow:
			return false, nil
		case <-s.wake:
		}
	}
}

func (d *disk) whole() []block.Extent { return []block.Extent{{Offset: 0, Length: d.src.SizeBytes}} }

// seal ends the disk's epoch and adds what was written in it to what is owed: all of it, where that is not known, which ErrLost
// tells.
func (d *disk) seal(ctx context.Context) error {
	w, err := d.src.Writes()
	if err != nil {
		return err
	}
	es, err := d.tracker.seal(ctx)
	switch {
	case errors.Is(err, track.ErrLost):
		d.owed = d.whole()
		return err
	case err != nil:
		return fmt.Errorf("seal an epoch of disk %s: %w", d.src.Id, err)
	}
	d.owed, d.tracker.sealed = track.Union(d.owed, es), w.Sectors
	return nil
}

// passes runs one pass over the disks that which selects and ships what differs. It returns the bytes that did.
func (s *session) passes(ctx context.Context, which func(*disk) bool) (int64, error) {
	var all int64
	for i, d := range s.disks {
		if !which(d) {
			continue
		}
		if err := d.reader.Refresh(); err != nil {
			return all, err
		}
		if err := d.seal(ctx); errors.Is(err, track.ErrLost) {
			s.resync(fmt.Sprintf("disk %s: %v", d.src.Id, err))
		} else if err != nil {
			return all, err
		}
		s.prog.begin(i, track.Bytes(d.owed))
		n, err := d.scanner.Pass(ctx, d.owed, true, func(c *scan.Change) error { return s.sink(i, c) }, func(n int64) { s.prog.read(i, n) })
		s.prog.end()
		if err != nil {
			return all, fmt.Errorf("compare disk %s: %w", d.src.Id, err)
		}
		d.owed = nil
		if n == 0 {
			d.quiet++
		} else {
			d.quiet = 0
		}
		all += n
	}
	return all, nil
}

// look finds again what is mounted on the disks: it may have changed since the last capture.
func (s *session) look(ctx context.Context) error {
	found, err := s.p.findDisks(ctx, s.want)
	if err != nil {
		return err
	}
	for i, d := range s.disks {
		if found[i].SizeBytes != d.src.SizeBytes {
			return fmt.Errorf("%w: disk %s had %d bytes, now %d", source.ErrSizeChanged, d.src.Id, d.src.SizeBytes, found[i].SizeBytes)
		}
		d.src = found[i]
	}
	return nil
}

// sink ships a change. Before the first one since the newest point the known sums are marked as running ahead.
func (s *session) sink(disk int, c *scan.Change) error {
	if err := s.open(); err != nil {
		return err
	}
	if err := s.link.change(disk, c); err != nil {
		return err
	}
	s.prog.sent(disk, c.Bytes())
	s.p.changed.Add(c.Bytes())
	s.p.shipped.Add(int64(len(c.Data)))
	s.p.pace.add(c.Bytes(), int64(len(c.Data)))
	return nil
}

func (s *session) open() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.opened {
		return nil
	}
	for _, d := range s.disks {
		if err := d.sums.Open(); err != nil {
			return err
		}
	}
	s.opened = true
	return nil
}

// settle records that a point is durable: the known sums are its sums, and the epochs up to the capture are forgotten.
func (s *session) settle(d *wire.Durable, epochs []int64, m memo) error {
	for i, x := range s.disks {
		if err := x.sums.Settle(scan.PointRef{Generation: d.Point.Generation, Sequence: d.Point.Sequence}); err != nil {
			return err
		}
		if err := x.tracker.settled(epochs[i]); err != nil {
			return fmt.Errorf("release epoch %d of disk %s: %w", epochs[i], x.src.Id, err)
		}
	}
	s.opened = false
	s.link.welcome.Head, s.link.welcome.Clean = &d.Point, true
	s.p.memo = m
	return m.write(s.p.path("protection.json"))
}
