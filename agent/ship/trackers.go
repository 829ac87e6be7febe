package ship

import (
	"context"
	"errors"
	"fmt"

	"github.com/lifeboat-dr/lifeboat/agent/hrl"
	"github.com/lifeboat-dr/lifeboat/agent/source"
	"github.com/lifeboat-dr/lifeboat/agent/track"
	"github.com/lifeboat-dr/lifeboat/agent/track/scan"
	"github.com/lifeboat-dr/lifeboat/replicator/block"
)

// Trackers opens the trackers of a machine's disks. Safe for concurrent use.
type Trackers interface {
	// Open begins to track a disk, or takes over what the agent before this one left running for the same machine. It fails only
	// where the disk cannot be read either: what cannot be tracked is scanned.
	Open(ctx context.Context, machine string, d source.Disk) (track.Tracked, error)
}

// scanTracked is the tracker of a disk of which nothing else is known.
func scanTracked(d source.Disk) track.Tracked {
	return track.Tracked{Tracker: scan.NewTracker(d.SizeBytes), Kind: "scan", Whole: true, Since: true}
}

// tracked is a tracker over sessions. It is used by one goroutine.
type tracked struct {
	track.Tracked
	log  *hrl.Log // nil for one that is Whole
	size int64
	// whole is why the disk must be compared as a whole before the next point is settled: what was written before is not in any
	// epoch, or an epoch was lost. Empty when it need not be.
	whole string
	// before is what was written before the tracker began, as the change log tells. It is pending until a point is settled.
	before []block.Extent
	// sealed is the kernel's count of writes when the running epoch began.
	sealed int64
}

// pending returns what was written since the newest durable point, or why that is not known.
func (t *tracked) pending(ctx context.Context) ([]block.Extent, error) {
	es, err := t.Pending(ctx)
	if errors.Is(err, track.ErrLost) {
		t.lose(err)
	} else if err != nil {
		return nil, err
	}
	if t.whole != "" {
		return nil, fmt.Errorf("%w: %s", track.ErrLost, t.whole)
	}
	return track.Union(es, t.before), nil
}

// seal ends the running epoch and returns what was written in it. An epoch that was lost is told by ErrLost.
func (t *tracked) seal(ctx context.Context) ([]block.Extent, error) {
	es, err := t.Seal(ctx)
	if errors.Is(err, track.ErrLost) {
		t.lose(err)
	}
	return es, err
}

func (t *tracked) lose(err error) { t.whole = err.Error() }

// settled records that a point is durable for which everything written up to the end of an epoch was looked at.
func (t *tracked) settled(epoch int64) error {
	if err := t.Release(epoch); err != nil {
		return err
	}
	t.whole, t.before = "", nil
	if t.log == nil {
		return nil
	}
	return t.log.Run()
}

// doubt makes durable that the tracker cannot vouch for all that was written, if that is so. It writes to the state directory, so it
// is not for a freeze window.
func (t *tracked) doubt() error {
	if t.log == nil || t.whole == "" {
		return nil
	}
	return t.log.Doubt()
}

// stop ends the use of a tracker, and of its change log, in which it leaves what an agent that is started again must read, if that is
// known.
func (t *tracked) stop(ctx context.Context, look func() (source.Look, error)) (err error) {
	defer func() { err = errors.Join(err, t.close()) }()
	if t.log == nil || t.whole != "" {
		return nil
	}
	before, err := look() // first: whatever is written from here on moves the kernel's counters, so that the mark does not count
	if err != nil {
		return err
	}
	if _, err := t.seal(ctx); err != nil {
		return err
	}
	es, err := t.pending(ctx)
	if err != nil {
		return err
	}
	return t.log.Stop(hrl.Mark{Extents: es, State: hrl.State(before)})
}

func (t *tracked) close() error {
	err := t.Close()
	if t.log != nil {
		err = errors.Join(err, t.log.Close())
	}
	return err
}

// tracker returns the disk's tracker, which lives as long as the protector.
func (p *Protector) tracker(ctx context.Context, d source.Disk) (*tracked, error) {
	if t, ok := p.trackers[d.Id]; ok && t.size == d.SizeBytes {
		return t, nil
	} else if ok { // resized: what was marked is not of this disk
		delete(p.trackers, d.Id)
		if err := t.close(); err != nil {
			return nil, err
		}
	}
	if p.cfg.Trackers == nil || d.File {
		t := &tracked{Tracked: scanTracked(d), size: d.SizeBytes}
		p.trackers[d.Id] = t
		return t, nil
	}
	t, err := p.begin(ctx, d)
	if err != nil {
		return nil, fmt.Errorf("track disk %s: %w", d.Id, err)
	}
	p.trackers[d.Id] = t
	p.log.Info("disk is tracked", "disk", d.Id, "by", t.Kind, "since", t.whole == "", "why", t.whole)
	return t, nil
}

// begin opens a disk's tracker and finds out what it is worth: what was written since the newest point is known if a tracker ran on
// that vouched for it, or if nothing was written since a clean stop.
func (p *Protector) begin(ctx context.Context, d source.Disk) (_ *tracked, err error) {
	log, err := hrl.Open(p.path(d.Id+".hrl"), hrl.Identity{Machine: p.machine, Disk: d.Id, Size: d.SizeBytes})
	if err != nil {
		return nil, err
	}
	t := &tracked{log: log, size: d.SizeBytes}
	defer func() {
		if err != nil {
			err = errors.Join(err, log.Close())
		}
	}()
	mark, running, merr := log.Begin()
	if merr != nil && !errors.Is(merr, hrl.ErrNone) && !errors.Is(merr, hrl.ErrVersion) && !errors.Is(merr, hrl.ErrDamaged) {
		return nil, merr
	}
	if t.Tracked, err = p.cfg.Trackers.Open(ctx, p.machine, d); err != nil {
		return nil, err
	}
	if t.Whole {
		t.log = nil
		return t, log.Close()
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, t.Close())
		}
	}()
	switch {
	case t.Since && (running || merr == nil):
		t.before = mark.Extents
	case t.Since:
		t.whole = "the agent before this one was stopped before it had compared the disk"
	case merr != nil:
		t.whole = fmt.Sprintf("%s (%v)", t.Untracked, merr)
	default:
		now, err := p.cfg.Source.Look(d)
		if err != nil {
			return nil, err
		}
		if err := p.vouch(mark.State, now); err != nil {
			t.whole = fmt.Sprintf("%s, and its word of a clean stop does not count: %v", t.Untracked, err)
		} else {
			t.before = mark.Extents
		}
	}
	if !t.Since {
		return t, nil
	}
	if _, err := t.seal(ctx); err != nil && !errors.Is(err, track.ErrLost) { // what was written while no agent ran
		return nil, err
	}
	if t.whole != "" {
		return t, nil
	}
	return t, log.Run()
}

// vouch tells why a disk may have been written since a clean stop.
func (p *Protector) vouch(mark hrl.State, now source.Look) error {
	var early *hrl.State
	if l, err := source.EarlyLook(p.cfg.EarlyLooks, now); err == nil {
		e := hrl.State(l)
		early = &e
	} else if !errors.Is(err, source.ErrNoLook) {
		p.log.Warn("what was seen of the disks at boot is unreadable", "err", err)
	}
	return hrl.Vouch(mark, hrl.State(now), early, p.cfg.NoOfflineWrites)
}
