// Package profile watches a disk before it is protected: how much changes, how often the same blocks are written again, how well it
// compresses, and what follows from that for the RPO, the bandwidth and the storage. It owns the measurement and the reckoning; it
// reads the disk and never writes to it, and sends nothing anywhere.
package profile

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/lifeboat-dr/lifeboat/agent/source"
	"github.com/lifeboat-dr/lifeboat/agent/track"
	"github.com/lifeboat-dr/lifeboat/replicator/block"
)

// Config says what is watched and what for. The zero value of each option is its default.
type Config struct {
	// Every is the length of an epoch: what is written again within it counts once. It is about how often the agent ships what
	// changed between points. 5 s by default.
	Every time.Duration
	// PointEvery is the time between recovery points that the reckoning is for. 5 min by default.
	PointEvery time.Duration
	// Bandwidths, in bytes per second and above 0, are those that an RPO is reckoned for. 10, 100 and 1000 Mbit/s by default.
	Bandwidths []int64
	// SampleBytes is how much of what changed in an epoch, and between two points, is read to see how it compresses. 4 MiB by
	// default.
	SampleBytes int64
}

const (
	defaultEvery  = 5 * time.Second
	defaultPoints = 5 * time.Minute
	defaultSample = 4 << 20
)

func (c Config) complete() Config {
	if c.Every <= 0 {
		c.Every = defaultEvery
	}
	if c.PointEvery <= 0 {
		c.PointEvery = defaultPoints
	}
	if len(c.Bandwidths) == 0 {
		c.Bandwidths = []int64{10e6 / 8, 100e6 / 8, 1000e6 / 8}
	}
	c.PointEvery = max(c.PointEvery, c.Every)
	if c.SampleBytes <= 0 {
		c.SampleBytes = defaultSample
	}
	return c
}

// epoch is what was seen of one interval.
type epoch struct {
	span    time.Duration
	written int64 // by the kernel's count; 0 where there is none
	changed int64 // bytes of blocks that were written
}

func (e *epoch) add(o epoch) {
	e.span, e.written, e.changed = e.span+o.span, e.written+o.written, e.changed+o.changed
}

// Profile is a disk that is being watched. Not safe for concurrent use.
type Profile struct {
	cfg     Config
	disk    source.Disk
	kind    string
	changes changes
	reader  *source.Reader
	counted bool // the kernel counts what is written

	start  time.Time
	last   time.Time // end of the newest epoch
	writes int64     // the kernel's count then, sectors
	epochs []epoch
	lost   int
	levels []*level
	points *level // the one of the time between points
	// What is sent and what is kept are not alike: what is written again and again weighs more in the former.
	sent, kept *sampler
}

// Start begins to watch a disk through its tracker, which stays the caller's. A tracker that knows nothing is made up for by reading
// the whole disk in each epoch; dir then holds a file of 1/256 of the disk's size until Close. Reading it the first time is part
// of Start.
func Start(ctx context.Context, cfg Config, d source.Disk, t track.Tracked, dir string) (*Profile, error) {
	p := &Profile{cfg: cfg.complete(), disk: d, kind: t.Kind}
	var err error
	if p.reader, err = source.Open(d); err != nil {
		return nil, err
	}
	if t.Whole {
		p.changes, err = scanChanges(d, p.reader, dir)
	} else {
		p.changes = tracked{t}
	}
	if err == nil {
		_, err = p.changes.next(ctx) // whatever was before
	}
	if errors.Is(err, track.ErrLost) {
		err = nil
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("begin to watch %s: %w", d.Path, err), p.Close())
	}
	w, err := d.Writes()
	if err != nil {
		return nil, errors.Join(err, p.Close())
	}
	p.counted, p.writes = w.Known, w.Sectors
	p.levels = levels(p.cfg)
	for _, l := range p.levels {
		if l.length == p.cfg.PointEvery {
			p.points = l
		}
	}
	p.sent, p.kept = newSampler(p.reader, p.cfg.SampleBytes), newSampler(p.reader, p.cfg.SampleBytes)
	p.start = time.Now()
	p.last = p.start
	return p, nil
}

// Watch watches until ctx ends or for the given time; 0 is for ever. That ctx ends is no error.
func (p *Profile) Watch(ctx context.Context, length time.Duration) error {
	ticks := time.NewTicker(p.cfg.Every)
	defer ticks.Stop()
	var end <-chan time.Time
	if length > 0 {
		t := time.NewTimer(length - time.Since(p.start))
		defer t.Stop()
		end = t.C
	}
	for {
		done := false
		select {
		case <-ctx.Done():
			done = true
		case <-end:
			done = true
		case <-ticks.C:
		}
		if done && !p.changes.quick() && len(p.epochs) > 0 {
			return nil // the epoch that has just begun is not worth a whole reading
		}
		err := p.Step(context.WithoutCancel(ctx))
		if done || err != nil {
			return err
		}
	}
}

// Step ends the running epoch and takes it into account.
func (p *Profile) Step(ctx context.Context) error {
	es, err := p.changes.next(ctx)
	now := time.Now()
	if err != nil && !errors.Is(err, track.ErrLost) {
		return fmt.Errorf("watch %s: %w", p.disk.Path, err)
	}
	w, werr := p.disk.Writes()
	if werr != nil {
		return werr
	}
	e := epoch{span: now.Sub(p.last), written: max(0, w.Sectors-p.writes) * block.Sector, changed: track.Bytes(es)}
	p.last, p.writes = now, w.Sectors
	if err != nil { // it says nothing, and neither do the longer intervals that it is in
		p.lost++
		for _, l := range p.levels {
			l.begin()
		}
		return nil
	}
	p.epochs = append(p.epochs, e)
	if err := p.sent.look(es); err != nil {
		return err
	}
	for _, l := range p.levels {
		if !l.add(e, es) {
			continue
		}
		if l == p.points {
			if err := p.kept.look(l.seen.extents(p.disk.SizeBytes)); err != nil {
				return err
			}
		}
		l.begin()
	}
	return nil
}

// Close lets the disk go. The tracker is the caller's.
func (p *Profile) Close() error {
	var err error
	if p.changes != nil {
		err = p.changes.close()
	}
	return errors.Join(err, p.reader.Close())
}
