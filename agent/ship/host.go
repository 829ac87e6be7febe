package ship

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/lifeboat-dr/lifeboat/agent/source"
	"github.com/lifeboat-dr/lifeboat/agent/track"
	"github.com/lifeboat-dr/lifeboat/agent/track/scan"
	"github.com/lifeboat-dr/lifeboat/replicator/wire"
	"github.com/lifeboat-dr/lifeboat/sdk/fleet"
)

// Host is where a machine runs that is read and tracked from outside, in place of the one that the agent runs on.
type Host interface {
	// Describe returns the machine as it is now, with all its disks.
	Describe(ctx context.Context) (fleet.Machine, error)
	// Open opens the machine for a session that replicates the disks with the given ids, in this order.
	Open(ctx context.Context, disks []string) (track.Machine, error)
	// Kind names the way of tracking for the replicator and the log.
	Kind() string
	// Shutdown shuts the guest down, and returns when it has. Its disks can be read as before.
	Shutdown(ctx context.Context) error
	// Resume starts the machine again if Shutdown had shut it down.
	Resume(ctx context.Context) error
}

// hostDisks are the disks of a machine that is read from outside. There is nothing to freeze, nor a file to look at.
func hostDisks(ctx context.Context, h Host) ([]source.Disk, error) {
	m, err := h.Describe(ctx)
	if err != nil {
		return nil, err
	}
	var out []source.Disk
	for _, d := range m.Disks {
		out = append(out, source.Disk{Disk: d, File: true, Stopped: true})
	}
	return out, nil
}

// attach opens the machine for a session.
func (s *session) attach(ctx context.Context, found []source.Disk, hello *wire.Hello) error {
	var ids []string
	for _, d := range found {
		ids = append(ids, d.Id)
	}
	m, err := s.p.cfg.Host.Open(ctx, ids)
	if err != nil {
		return err
	}
	s.machine = m
	hello.Capabilities = []string{s.p.cfg.Host.Kind()}
	for i, d := range found {
		v := &window{size: d.SizeBytes}
		s.disks = append(s.disks, &disk{src: d, view: v, tracker: &tracked{size: d.SizeBytes,
			Tracked: track.Tracked{Tracker: m.Tracker(i), Kind: s.p.cfg.Host.Kind(), Since: true}}})
		hello.Disks = append(hello.Disks, wire.Disk{ID: d.Id, Size: d.SizeBytes, OS: d.IsOsDisk})
	}
	return nil
}

// window is the disk of a machine that is read from outside: the view that is open, if one is.
type window struct {
	track.View
	size int64
}

// Size returns the disk's size, whether a view is open or not.
func (w *window) Size() int64 { return w.size }

// Buffer returns memory fit for any view: aligned like that for a block device.
func (w *window) Buffer(size int) []byte { return (*source.Reader)(nil).Buffer(size) }

// captureHost makes one recovery point of a machine that is read from outside: one snapshot, one pass over what was written, which
// becomes a point only if the view stood to its end. Between the passes and the word of the replicator nothing is held at the host.
func (s *session) captureHost(ctx context.Context, want fleet.Protection) error {
	if err := s.power(ctx, want); err != nil {
		return &refusal{err}
	}
	s.began = time.Now()
	snap, err := s.machine.Snapshot(ctx)
	if err != nil {
		return fmt.Errorf("take a snapshot of the machine: %w", err)
	}
	instant := snap.Instant()
	epochs, err := s.passOver(ctx, snap)
	if err = errors.Join(err, snap.Close()); errors.Is(err, track.ErrBroken) { // what was shipped is of no instant, and owed still
		return &refusal{err}
	} else if err != nil {
		return err
	}
	return s.deliver(ctx, want, &spool{}, epochs, &wire.Seal{Time: instant, Consistency: string(fleet.CrashConsistent)}, nil)
}

// power shuts the machine down for the capture that was asked for so, or starts it again when that was withdrawn.
func (s *session) power(ctx context.Context, want fleet.Protection) error {
	if !want.Shutdown {
		return s.p.cfg.Host.Resume(ctx)
	}
	if want.CaptureId == s.p.memo.CaptureID {
		return nil // it was taken
	}
	s.p.log.Info("machine is shut down for its last capture", "capture", want.CaptureId)
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	wg.Go(func() { // nobody waits for the capture any more when it is withdrawn
		t := time.NewTicker(lookAgain)
		defer t.Stop()
		for s.desired().Shutdown {
			select {
			case <-ctx.Done():
				return
			case <-t.C:
			}
		}
		cancel()
	})
	return s.p.cfg.Host.Shutdown(ctx)
}

const lookAgain = 100 * time.Millisecond // at what is desired

// passOver ships what was written to the disks as a snapshot shows them, and returns the epochs that ended with it.
func (s *session) passOver(ctx context.Context, snap track.Snapshot) (epochs []int64, err error) {
	for i, d := range s.disks {
		v := snap.View(i)
		if v.Size() != d.src.SizeBytes {
			return nil, fmt.Errorf("%w: disk %s had %d bytes, now %d", source.ErrSizeChanged, d.src.Id, d.src.SizeBytes, v.Size())
		}
		epochs = append(epochs, d.tracker.Epoch()-1)
		es, err := d.tracker.pending(ctx)
		switch {
		case errors.Is(err, track.ErrLost):
			if s.ph == fleet.Delta {
				s.resync(fmt.Sprintf("disk %s: %v", d.src.Id, err))
			}
			d.owed = d.whole()
		case err != nil:
			return nil, err
		default:
			d.owed = track.Union(d.owed, es)
		}
		d.view.View = v
		s.prog.begin(i, track.Bytes(d.owed))
		_, err = d.scanner.Pass(ctx, d.owed, true, func(c *scan.Change) error { return s.sink(i, c) }, func(n int64) { s.prog.read(i, n) })
		s.prog.end()
		d.view.View = nil
		if err != nil {
			return nil, fmt.Errorf("compare disk %s: %w", d.src.Id, err)
		}
	}
	return epochs, nil
}
