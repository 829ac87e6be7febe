package ship

import (
	"context"
	"errors"
	"fmt"

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
	return nil
}

// tracker returns the disk's tracker, which lives as long as the protector.
func (p *Protector) tracker(ctx context.Context, d source.Disk) (*tracked, error) {
	if t, ok := p.trackers[d.Id]; ok && t.size == d.SizeBytes {
		return t, nil
	} else if ok { // resized: what was marked is not of this disk
		delete(p.trackers, d.Id)
		if err := t.Close(); err != nil {
			return nil, err
		}
	}
	x := scanTracked(d)
	if p.cfg.Trackers != nil && !d.File {
		var err error
		if x, err = p.cfg.Trackers.Open(ctx, p.machine, d); err != nil {
			return nil, fmt.Errorf("track disk %s: %w", d.Id, err)
		}
	}
	t := &tracked{Tracked: x, size: d.SizeBytes}
	if !x.Since {
		t.whole = "nothing tracked the disk before this agent: " + x.Untracked
	}
	if x.Since { // what an agent before this one left unread is in the first epoch
		if _, err := t.seal(ctx); err != nil && !errors.Is(err, track.ErrLost) {
			return nil, errors.Join(fmt.Errorf("track disk %s: %w", d.Id, err), t.Close())
		}
	}
	p.trackers[d.Id] = t
	p.log.Info("disk is tracked", "disk", d.Id, "by", x.Kind, "since", x.Since, "untracked", x.Untracked)
	return t, nil
}
