// Package kernel opens the best tracker that the running kernel offers for a disk. It owns the choice, and what of it outlives the
// agent. It never leaves a disk without a tracker: what cannot be tracked is scanned, and said.
package kernel

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"

	"github.com/lifeboat-dr/lifeboat/agent/source"
	"github.com/lifeboat-dr/lifeboat/agent/track"
	"github.com/lifeboat-dr/lifeboat/agent/track/ebpf"
	"github.com/lifeboat-dr/lifeboat/agent/track/scan"
	"github.com/lifeboat-dr/lifeboat/agent/track/tracefs"
)

// Trackers opens trackers. Safe for concurrent use.
type Trackers struct {
	dir string
	log *slog.Logger

	mu      sync.Mutex          // guards the rest
	machine *ebpf.Machine       // nil until the first disk, or when there is none
	traces  *tracefs.Machine    // the same; instead of machine, for kernels that cannot run its programs
	without error               // why there will be neither
	disks   map[string][]string // by machine: paths of disks that were opened
}

// New returns trackers whose kernel side outlives the agent, and is found again by the next one with the same state directory.
// Nothing is done before the first Open.
func New(stateDir string, log *slog.Logger) *Trackers {
	return &Trackers{dir: filepath.Join(stateDir, "track"), log: log, disks: map[string][]string{}}
}

// Open begins to track a disk of a machine, or takes over what an agent before this one left running. A disk has one tracker at a
// time.
func (k *Trackers) Open(ctx context.Context, machine string, d source.Disk) (track.Tracked, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if d.File || d.Partition {
		return scanned(d), nil
	}
	if err := k.open(); err != nil {
		return track.Tracked{}, err
	}
	switch {
	case k.traces != nil:
		return k.trace(ctx, d)
	case k.machine == nil:
		return scanned(d), nil
	}
	t, resumed, err := k.machine.Track(ctx, d.Path)
	if err != nil && ctx.Err() != nil {
		return track.Tracked{}, err
	}
	if err != nil { // whatever it is: protected by reading all of it is better than not
		k.log.Warn("a disk cannot be tracked; every capture reads all of it", "disk", d.Id, "err", err)
		return scanned(d), nil
	}
	k.disks[machine] = append(k.disks[machine], d.Path)
	out := track.Tracked{Tracker: marks{t}, Kind: "ebpf", Since: resumed}
	if !resumed {
		out.Untracked = "the tracking of an agent before it was not found, as after a boot"
	}
	return out, nil
}

// trace begins to track a disk by the kernel's trace events, of which nothing outlives the agent.
func (k *Trackers) trace(ctx context.Context, d source.Disk) (track.Tracked, error) {
	t, err := k.traces.Track(ctx, d.Path)
	if err != nil && ctx.Err() != nil {
		return track.Tracked{}, err
	}
	if err != nil {
		k.log.Warn("a disk cannot be tracked; every capture reads all of it", "disk", d.Id, "err", err)
		return scanned(d), nil
	}
	return track.Tracked{Tracker: events{t}, Kind: "tracefs", Untracked: "trace events are not kept while no agent runs"}, nil
}

// open attaches to the kernel once, or learns that it cannot be.
func (k *Trackers) open() error {
	if k.machine != nil || k.traces != nil || k.without != nil {
		return nil
	}
	m, err := ebpf.Open(ebpf.Config{Dir: k.dir, Logger: k.log})
	if errors.Is(err, ebpf.ErrOwned) { // by an agent that is about to end
		return fmt.Errorf("track changes: %w", err)
	}
	if err != nil {
		return k.fallBack(err)
	}
	k.machine = m
	return nil
}

// fallBack traces events instead of running programs.
func (k *Trackers) fallBack(why error) error {
	m, err := tracefs.Open(tracefs.Config{Dir: k.dir, Logger: k.log})
	if errors.Is(err, tracefs.ErrOwned) {
		return fmt.Errorf("track changes: %w", err)
	}
	if err != nil {
		k.without = errors.Join(why, err)
		k.log.Warn("this kernel cannot track changes; every capture reads the disks as a whole", "err", k.without)
		return nil
	}
	k.log.Warn("this kernel cannot run the programs that track changes; they are traced, which costs more and ends with the agent", "err", why)
	k.traces = m
	return nil
}

// Forget ends the tracking of a machine's disks. Their trackers are closed before.
func (k *Trackers) Forget(machine string) (err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, path := range k.disks[machine] {
		if k.machine != nil {
			err = errors.Join(err, k.machine.Forget(path))
		}
	}
	delete(k.disks, machine)
	return err
}

// Close lets go of the kernel's side, which goes on. Trackers are closed before.
func (k *Trackers) Close() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if t := k.traces; t != nil {
		k.traces = nil
		return t.Close()
	}
	if k.machine == nil {
		return nil
	}
	m := k.machine
	k.machine = nil
	return m.Close()
}

// Destroy ends all tracking, also that of agents before this one, and leaves nothing of it in the kernel.
func (k *Trackers) Destroy() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := k.open(); err != nil {
		return err
	}
	if t := k.traces; t != nil {
		k.traces = nil
		return t.Close()
	}
	if k.machine == nil {
		return nil
	}
	m := k.machine
	k.machine = nil
	return m.Destroy()
}

func scanned(d source.Disk) track.Tracked {
	return track.Tracked{Tracker: scan.NewTracker(d.SizeBytes), Kind: "scan", Whole: true, Since: true}
}

// marks is a tracker whose check says only what is wrong: marks that could not be checked are not known to be missing.
type marks struct{ *ebpf.Tracker }

var _ track.Verifier = marks{}

// Verify implements track.Verifier.
func (m marks) Verify(still bool) error {
	if err := m.Tracker.Verify(still); !errors.Is(err, ebpf.ErrUnchecked) {
		return err
	}
	return nil
}

// events is the same for trace events.
type events struct{ *tracefs.Tracker }

var _ track.Verifier = events{}

// Verify implements track.Verifier.
func (e events) Verify(still bool) error {
	if err := e.Tracker.Verify(still); !errors.Is(err, tracefs.ErrUnchecked) {
		return err
	}
	return nil
}
