// Package ship brings a machine's changes to a process server: one Protector a machine runs sessions, passes and captures, and
// tells how it stands. It owns the order that keeps data safe: nothing counts as held by the replicator before it said so, and
// nothing is forgotten before the point that holds it is durable. A fenced machine ships nothing.
package ship

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lifeboat-dr/lifeboat/agent/quiesce"
	"github.com/lifeboat-dr/lifeboat/agent/source"
	"github.com/lifeboat-dr/lifeboat/agent/throttle"
	"github.com/lifeboat-dr/lifeboat/agent/track/scan"
	"github.com/lifeboat-dr/lifeboat/replicator/wire"
	"github.com/lifeboat-dr/lifeboat/sdk/fleet"
)

// Config is what Protectors share. StateDir, Identity, Source and Deadman are required.
type Config struct {
	StateDir string
	// Identity returns the client certificate and the vault's authority, which signed the replicators' certificates too.
	Identity func() (tls.Certificate, *x509.CertPool, error)
	Source   source.Config
	Host     Host     // where the machine is read and tracked from outside; nil: it is the one this process runs on
	Deadman  []string // command of the dead-man process
	Trackers Trackers // nil: every disk is compared as a whole in every pass
	Gate     *quiesce.Gate
	Scripts  quiesce.Scripts
	// Shutdown is run when a fenced machine shall shut itself down. Empty: it only stops shipping.
	Shutdown []string
	Version  string
	Log      *slog.Logger
	// Changed is called when the status changed in a way lifeboatd should hear of at once. It must not block. May be nil.
	Changed func()
	// NoOfflineWrites states that nothing writes to the disks while this system does not run: no rescue system is started, no
	// snapshot reverted, no disk attached elsewhere. Only where that is so, disks may go uncompared after a boot.
	NoOfflineWrites bool
	// EarlyLooks is the file of source.SaveLooks from the initramfs of this boot. Where it is not, every boot is followed by a comparison.
	EarlyLooks string
	// Barrier makes captures of this machine those of a group. May be nil.
	Barrier Barrier
	// SpoolBytes bounds the memory that holds what the last pass finds in the freeze window. 0 means 64 MiB.
	SpoolBytes int64
	// Throttle is shared by all Protectors of an agent. It holds besides what lifeboatd desires. May be nil.
	Throttle *throttle.Limiter
}

const (
	smallPass       = 2 << 20 // a pass that finds less is the last one before the freeze
	maxPasses       = 6
	captureTries    = 4 // windows that were too short of memory, disturbed or busy, before the capture is given up
	defaultSpool    = 64 << 20
	defaultInterval = 5 * time.Minute
	defaultFreeze   = 30 * time.Second
	busyWait        = 2 * time.Second
	refusedWait     = 15 * time.Second // before a capture that lifeboatd asks for is tried again
	refusedLongest  = time.Minute      // before any that was refused is

	firstBackoff = 500 * time.Millisecond
	lastBackoff  = 30 * time.Second

	sumsSuffix = ".sums" // of the file of a disk's known sums
)

var (
	errChanged = errors.New("ship: what is desired changed")
	errFenced  = errors.New("ship: this machine is fenced")
)

// Protector keeps one machine protected. Make one with New, run it with Run. Set and Status are safe for concurrent use.
type Protector struct {
	cfg     Config
	log     *slog.Logger
	machine string
	guard   *quiesce.Guard
	status  status
	memo    memo
	notify  chan struct{} // holds one token when want changed
	calls   chan struct{} // holds one token when a capture is called for

	// Since the newest point, over sessions: bytes of the disks that differed, a block as often as a pass found it changed, and
	// those of them with content, before compression.
	changed, shipped atomic.Int64
	pace             pace

	mu   sync.Mutex // guards want
	want fleet.Protection

	inWindow func()                  // called at the end of the last pass, while all stands; for tests
	patience time.Duration           // refusedWait, and less in tests
	printed  bool                    // scan.PrintsPay, or true in tests
	trackers map[string]*tracked     // by disk; Run's goroutine
	prints   map[string]*scan.Prints // by disk; Run's goroutine
	replica  int                     // index of the replicator to try next
	shutDown bool
}

// New returns a protector of the machine that want names.
func New(cfg Config, want fleet.Protection) (*Protector, error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Gate == nil {
		cfg.Gate = quiesce.NewGate(discard{})
	}
	if cfg.SpoolBytes <= 0 {
		cfg.SpoolBytes = defaultSpool
	}
	p := &Protector{
		cfg: cfg, log: cfg.Log.With("item", want.MachineId), machine: want.MachineId, want: want,
		guard: quiesce.NewGuard(cfg.Log, cfg.Deadman...), notify: make(chan struct{}, 1), calls: make(chan struct{}, 1), trackers: map[string]*tracked{}, prints: map[string]*scan.Prints{},
		patience: refusedWait, printed: scan.PrintsPay(),
	}
	var err error
	if p.memo, err = readMemo(p.path("protection.json")); err != nil {
		p.log.Warn("what was remembered of this protection is unreadable; the disks will be compared", "err", err)
	}
	p.status.changed = cfg.Changed
	p.status.pace = &p.pace
	p.pace.local = cfg.Throttle
	p.obey(want.Throttle)
	p.status.set(func(s *fleet.ProtectionStatus) {
		s.MachineId, s.Generation, s.Phase = want.MachineId, want.Generation, fleet.Waiting
		s.LastCaptureId = p.memo.CaptureID
		if m := p.memo; m.Sequence > 0 {
			s.LastPoint, s.LastPointTime = fleet.PointRef{Generation: m.Generation, Sequence: m.Sequence}, m.PointTime
		}
	})
	return p, nil
}

type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }

func (p *Protector) path(name string) string { return filepath.Join(p.cfg.StateDir, p.machine, name) }

// Set replaces what is desired.
func (p *Protector) Set(want fleet.Protection) {
	p.mu.Lock()
	same := equal(p.want, want)
	p.want = want
	p.mu.Unlock()
	if same {
		return
	}
	p.obey(want.Throttle)
	select {
	case p.notify <- struct{}{}:
	default:
	}
}

func equal(a, b fleet.Protection) bool {
	x, _ := json.Marshal(a)
	y, _ := json.Marshal(b)
	return string(x) == string(y)
}

func (p *Protector) desired() fleet.Protection {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.want
}

// Status returns how the protection stands.
func (p *Protector) Status() fleet.ProtectionStatus { return p.status.get() }

// Run ships until ctx ends. It returns nil then.
func (p *Protector) Run(ctx context.Context) error {
	defer p.guard.Close()
	defer func() {
		p.stopTrackers()
		for _, x := range p.prints {
			_ = x.Close()
		}
	}()
	backoff := firstBackoff
	for ctx.Err() == nil {
		want := p.desired()
		var err error
		p.shutDown = p.shutDown && want.Fenced
		switch {
		case want.Fenced:
			p.fence(ctx, want)
		case want.Grant == "" || len(want.Replicators) == 0 || len(want.Disks) == 0:
			p.status.phase(want.Generation, fleet.Waiting)
		default:
			start := time.Now()
			err = p.session(ctx, want)
			if ctx.Err() != nil {
				return nil
			}
			if errors.Is(err, errChanged) {
				backoff = firstBackoff
				continue
			}
			p.log.Warn("replication session ended", "err", err)
			p.status.fail(want.Generation, err)
			p.replica++
			if time.Since(start) > time.Minute {
				backoff = firstBackoff
			}
		}
		var retry <-chan time.Time
		if err != nil {
			t := time.NewTimer(backoff/2 + rand.N(backoff))
			defer t.Stop()
			retry = t.C
			backoff = min(2*backoff, lastBackoff)
		}
		select {
		case <-ctx.Done():
		case <-p.notify:
			backoff = firstBackoff
		case <-retry:
		}
	}
	return nil
}

// stopTimeout is how long the trackers may take to be stopped.
const stopTimeout = 20 * time.Second

// stopTrackers leaves everything to the agent that is started next.
func (p *Protector) stopTrackers() {
	ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
	defer cancel()
	found, err := source.Disks(p.cfg.Source)
	if err != nil {
		p.log.Warn("the disks of this machine cannot be listed", "err", err)
	}
	for id, t := range p.trackers {
		err := t.stop(ctx, func() (source.Look, error) {
			i := slices.IndexFunc(found, func(d source.Disk) bool { return d.Id == id })
			if i < 0 {
				return source.Look{}, fmt.Errorf("disk %s is not on this machine any more", id)
			}
			return p.cfg.Source.Look(found[i])
		})
		if err != nil {
			p.log.Warn("what is known of a disk was not kept", "disk", id, "err", err)
		}
	}
}

// fence does what a machine does that came back after its replica took over.
func (p *Protector) fence(ctx context.Context, want fleet.Protection) {
	p.status.phase(want.Generation, fleet.Fenced)
	if want.FencedAction != fleet.Shutdown || p.shutDown {
		return
	}
	p.shutDown = true
	if p.cfg.Host != nil {
		if err := p.cfg.Host.Shutdown(ctx); err != nil {
			p.shutDown = false
			p.status.fail(want.Generation, fmt.Errorf("shut down the fenced machine: %w", err))
			p.status.phase(want.Generation, fleet.Fenced)
		}
		return
	}
	if len(p.cfg.Shutdown) == 0 {
		p.log.Error("this machine is fenced and shall shut down, but no command to do so is configured")
		return
	}
	p.log.Error("this machine is fenced: its replica took over; shutting down")
	if out, err := exec.CommandContext(ctx, p.cfg.Shutdown[0], p.cfg.Shutdown[1:]...).CombinedOutput(); err != nil {
		p.shutDown = false
		p.status.fail(want.Generation, fmt.Errorf("shut down the fenced machine: %w: %s", err, out))
		p.status.phase(want.Generation, fleet.Fenced)
	}
}

// invalidates tells whether a session for old cannot go on for new.
func invalidates(old, new fleet.Protection) bool {
	return old.MachineId != new.MachineId || old.Generation != new.Generation || new.Fenced || new.Grant == "" ||
		!slices.Equal(old.Disks, new.Disks) || len(new.Replicators) == 0 || !sameAddresses(old.Replicators, new.Replicators)
}

func sameAddresses(a, b []fleet.ReplicatorAddress) bool {
	set := func(x []fleet.ReplicatorAddress) map[fleet.ReplicatorAddress]bool {
		m := map[fleet.ReplicatorAddress]bool{}
		for _, r := range x {
			m[r] = true
		}
		return m
	}
	return maps.Equal(set(a), set(b))
}

// watch acts on changes of what is desired while a session runs: a younger grant is handed on, a change that the session cannot
// serve ends it, anything else wakes it.
func (p *Protector) watch(ctx context.Context, cancel context.CancelCauseFunc, l *link, old fleet.Protection, wake chan<- struct{}) {
	grant := old.Grant
	for {
		select {
		case <-ctx.Done():
			return
		case <-p.notify:
		}
		now := p.desired()
		if invalidates(old, now) {
			cancel(errChanged)
			return
		}
		if now.Grant != grant {
			grant = now.Grant
			if err := l.send(&wire.Grant{Grant: grant}); err != nil {
				cancel(err)
				return
			}
		}
		select {
		case wake <- struct{}{}:
		default:
		}
	}
}

// findDisks returns the protected disks in the order of the grant, or which one is missing.
func (p *Protector) findDisks(ctx context.Context, want fleet.Protection) (all []source.Disk, err error) {
	if p.cfg.Host != nil {
		all, err = hostDisks(ctx, p.cfg.Host)
	} else {
		all, err = source.Disks(p.cfg.Source)
	}
	if err != nil {
		return nil, err
	}
	var out []source.Disk
	for _, id := range want.Disks {
		i := slices.IndexFunc(all, func(d source.Disk) bool { return d.Id == id })
		if i < 0 {
			return nil, &Fault{Code: "not_found", Message: fmt.Sprintf("disk %s is not on this machine any more", id),
				Causes: "It was detached, or it got another serial number.", Action: "Attach it again, or take it from the protected disks with removeDisks."}
		}
		if why := all[i].UnsupportedReason; why != "" {
			return nil, &Fault{Code: "invalid", Message: fmt.Sprintf("disk %s cannot be protected: %s", id, why),
				Causes: "What is on the disk changed after protection was enabled.", Action: "Remove it from the protected disks."}
		}
		out = append(out, all[i])
	}
	if err := source.Together(out); err != nil {
		return nil, &Fault{Code: "invalid", Message: err.Error(),
			Causes: "What is on the disks spans others, or lies on one of them.", Action: "Choose the protected disks anew."}
	}
	return out, nil
}

// printsOf returns the disk's prints, which live as long as the protector and its known sums do; nil where they do not pay, as for
// a disk of which only what was written is read.
func (p *Protector) printsOf(d *disk) (*scan.Prints, error) {
	if !p.printed || !d.tracker.Whole {
		return nil, nil
	}
	old := p.prints[d.src.Id]
	if old != nil && !old.Broken() && d.sums.Ours() {
		return old, nil
	}
	if old != nil {
		delete(p.prints, d.src.Id)
		if err := old.Close(); err != nil {
			return nil, err
		}
	}
	x, err := scan.NewPrints(p.path(""), d.src.SizeBytes)
	if err != nil {
		return nil, err
	}
	p.prints[d.src.Id] = x
	return x, nil
}

// forget drops what is kept of disks that are not protected any more: should one come back, it is a new one.
func (p *Protector) forget(protected []string) error {
	var errs []error
	for id, t := range p.trackers {
		if !slices.Contains(protected, id) {
			delete(p.trackers, id)
			errs = append(errs, t.Close())
		}
	}
	for id, x := range p.prints {
		if !slices.Contains(protected, id) {
			delete(p.prints, id)
			errs = append(errs, x.Close())
		}
	}
	files, err := os.ReadDir(p.path(""))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		errs = append(errs, err)
	}
	for _, f := range files {
		if id, ok := strings.CutSuffix(f.Name(), sumsSuffix); ok && !slices.Contains(protected, id) {
			errs = append(errs, os.Remove(p.path(f.Name())))
		}
	}
	return errors.Join(errs...)
}

// hardware describes the machine for whoever boots the point.
func (p *Protector) hardware(ctx context.Context) json.RawMessage {
	var m fleet.Machine
	if p.cfg.Host != nil {
		var err error
		if m, err = p.cfg.Host.Describe(ctx); err != nil {
			return nil
		}
	} else {
		all, err := source.Disks(p.cfg.Source)
		if err != nil {
			return nil
		}
		m = source.Machine(p.cfg.Source, all)
	}
	b, err := json.Marshal(m)
	if err != nil {
		return nil
	}
	return b
}
