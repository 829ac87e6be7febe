// Package qemu tracks and reads the disks of a machine from outside, through its QEMU's monitor: dirty bitmaps tell what was written,
// a fleecing image keeps what the guest overwrites while a frozen view is read. Nothing runs in the guest and it is never stopped.
//
// One change escapes the bitmaps: a disk that is made smaller and larger again between two snapshots has zeros in the place of what
// was cut off, and QEMU counts that nowhere.
//
// It owns the names that begin with "lifeboat-" among a QEMU's block nodes, jobs, exports and bitmaps, and touches no other. It never
// writes to a disk of the machine.
package qemu

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/lifeboat-dr/lifeboat/agent/track"
	"github.com/lifeboat-dr/lifeboat/replicator/block"
)

// prefix begins every name that is ours.
const prefix = "lifeboat-"

// granularity of bitmaps and of the fleecing image: one cluster is copied before the first write to it.
const granularity = 64 << 10

// Config of a Machine.
type Config struct {
	Socket string // of the monitor
	// UUID is what the machine's must be. Empty takes whoever answers.
	UUID string
	// Owner names whose bitmaps count: 8 hexadecimal digits, made once for a protection and forgotten with what it knows of its
	// newest point. Bitmaps tell what was written since a point of the owner's.
	Owner string
	// Dir is for sockets and fleecing images, which QEMU is handed open: it needs no leave there.
	Dir string
	// Reserve is how much of Dir's filesystem stays free: a view is given up rather than that the guest runs out of room to save
	// what it overwrites. 0 means 1 GiB.
	Reserve int64
	// Disks are the ids of those to track, in this order; nil means all.
	Disks []string
	Log   *slog.Logger
}

// Machine implements track.Machine.
type Machine struct {
	cfg   Config
	log   *slog.Logger
	disks []*tracker
	snap  *snapshot // open

	serving bool // QEMU's server of block exports was started for us
}

var _ track.Machine = (*Machine)(nil)

var validOwner = regexp.MustCompile(`^[0-9a-f]{8}$`)

// Open finds the machine's disks and what was counted of them. What a killed agent left of a view is cleaned away. It returns
// ErrNoMonitor when QEMU does not answer.
func Open(ctx context.Context, cfg Config) (*Machine, error) {
	if !validOwner.MatchString(cfg.Owner) {
		return nil, fmt.Errorf("owner %q of bitmaps", cfg.Owner)
	}
	if cfg.Reserve == 0 {
		cfg.Reserve = defaultReserve
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	m := &Machine{cfg: cfg, log: cfg.Log}
	mon, err := m.dial(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { _ = mon.Close() }()
	if err := m.sweep(ctx, mon); err != nil {
		return nil, err
	}
	found, err := m.find(ctx, mon)
	if err != nil {
		return nil, err
	}
	nodes, err := blockNodes(ctx, mon)
	if err != nil {
		return nil, err
	}
	m.cfg.Disks = nil
	for _, d := range found {
		m.cfg.Disks = append(m.cfg.Disks, d.ID) // one that is added later is of no snapshot
		t := &tracker{m: m, disk: d, running: 1, lost: true}
		if err := t.adopt(ctx, mon, nodes[d.Node]); err != nil {
			return nil, err
		}
		m.disks = append(m.disks, t)
		delete(nodes, d.Node)
	}
	for node, bitmaps := range nodes { // that the disks do not lie on any more
		if err := m.removeBitmaps(ctx, mon, node, bitmaps); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// dial connects to the monitor and makes sure that it is still this machine's.
func (m *Machine) dial(ctx context.Context) (*Monitor, error) {
	mon, err := Dial(ctx, m.cfg.Socket)
	if err != nil {
		return nil, err
	}
	if m.cfg.UUID == "" {
		return mon, nil
	}
	var is struct{ UUID string }
	if err := mon.Do(ctx, "query-uuid", nil, &is); err != nil {
		return nil, errors.Join(err, mon.Close())
	}
	if !strings.EqualFold(is.UUID, m.cfg.UUID) {
		return nil, errors.Join(fmt.Errorf("the monitor at %s is of machine %s, not of %s", m.cfg.Socket, strings.ToLower(is.UUID), m.cfg.UUID), mon.Close())
	}
	return mon, nil
}

// with runs f with a monitor: the one that an open view holds, or else one for this time.
func (m *Machine) with(ctx context.Context, f func(*Monitor) error) error {
	if m.snap != nil && m.snap.mon != nil {
		return f(m.snap.mon)
	}
	mon, err := m.dial(ctx)
	if err != nil {
		return err
	}
	return errors.Join(f(mon), mon.Close())
}

// find returns the disks to track, in their order.
func (m *Machine) find(ctx context.Context, mon *Monitor) ([]Disk, error) {
	all, _, err := disks(ctx, mon)
	if err != nil || m.cfg.Disks == nil {
		return all, err
	}
	var out []Disk
	for _, id := range m.cfg.Disks {
		i := slices.IndexFunc(all, func(d Disk) bool { return d.ID == id })
		if i < 0 {
			return nil, &MissingError{Disk: id}
		}
		out = append(out, all[i])
	}
	return out, nil
}

// MissingError is a disk to track that the machine does not have any more.
type MissingError struct{ Disk string }

func (e *MissingError) Error() string { return "the machine has no disk " + e.Disk }

// Disks implements track.Machine.
func (m *Machine) Disks() (out []track.HostDisk) {
	for _, t := range m.disks {
		out = append(out, track.HostDisk{ID: t.disk.ID, Size: t.disk.Size})
	}
	return out
}

// Tracker implements track.Machine.
func (m *Machine) Tracker(i int) track.Tracker { return m.disks[i] }

// Close implements track.Machine.
func (m *Machine) Close() error {
	if m.snap == nil {
		return nil
	}
	if err := m.snap.Close(); err != nil && !errors.Is(err, track.ErrBroken) {
		return err
	}
	return nil
}

// Discard removes what counts for this owner, when the protection has ended. The Machine is of no use afterwards.
func (m *Machine) Discard(ctx context.Context) error {
	if err := m.Close(); err != nil {
		return err
	}
	return m.with(ctx, func(mon *Monitor) error {
		nodes, err := blockNodes(ctx, mon)
		for node, bitmaps := range nodes {
			err = errors.Join(err, m.removeBitmaps(ctx, mon, node, bitmaps))
		}
		return errors.Join(err, m.removeScratch(ctx, mon))
	})
}

// bitmap is a dirty bitmap of a block node.
type bitmap struct {
	Name         string
	Recording    bool
	Busy         bool
	Persistent   bool
	Inconsistent bool
	Granularity  int64
}

// blockNodes returns the bitmaps of every named block node.
func blockNodes(ctx context.Context, mon *Monitor) (map[string][]bitmap, error) {
	var nodes []struct {
		Name    string   `json:"node-name"`
		Bitmaps []bitmap `json:"dirty-bitmaps"`
	}
	if err := mon.Do(ctx, "query-named-block-nodes", map[string]bool{"flat": true}, &nodes); err != nil {
		return nil, err
	}
	out := map[string][]bitmap{}
	for _, n := range nodes {
		out[n.Name] = n.Bitmaps
	}
	return out, nil
}

// bitmaps of this owner are named with a growing number.
func (m *Machine) bitmapName(n int64) string { return fmt.Sprintf("%s%s-%d", prefix, m.cfg.Owner, n) }

func (m *Machine) bitmapNumber(name string) (n int64, ok bool) {
	_, err := fmt.Sscanf(name, prefix+m.cfg.Owner+"-%d", &n)
	return n, err == nil && n > 0 && m.bitmapName(n) == name
}

func (m *Machine) removeBitmaps(ctx context.Context, mon *Monitor, node string, bitmaps []bitmap) (err error) {
	for _, b := range bitmaps {
		if _, ours := m.bitmapNumber(b.Name); ours {
			err = errors.Join(err, removeBitmap(ctx, mon, node, b.Name))
		}
	}
	return err
}

func removeBitmap(ctx context.Context, mon *Monitor, node, name string) error {
	return mon.Do(ctx, "block-dirty-bitmap-remove", map[string]string{"node": node, "name": name}, nil)
}

// action of a transaction.
type action struct {
	Type string         `json:"type"`
	Data map[string]any `json:"data"`
}

// survey looks at the disks again before their epochs end: a size may have changed, and a disk whose block node is another now was
// not counted since.
func (m *Machine) survey(ctx context.Context, mon *Monitor) error {
	found, err := m.find(ctx, mon)
	if err != nil {
		return err
	}
	for i, t := range m.disks {
		t.take(found[i])
	}
	return nil
}

// seal ends the running epochs of the given disks at one instant, together with more actions, and reads what was written in them.
// After an error of the reading the epochs are sealed all the same.
func (m *Machine) seal(ctx context.Context, mon *Monitor, which []*tracker, more []action) error {
	actions := more
	for _, t := range which {
		actions = append(actions, t.sealing()...)
	}
	if err := mon.Do(ctx, "transaction", map[string]any{"actions": actions}, nil); err != nil {
		if _, ok := errors.AsType[*RefusedError](err); !ok { // it may have been run all the same
			for _, t := range which {
				t.top++
				t.forget()
			}
		}
		return fmt.Errorf("end the epochs of %d disks: %w", len(which), err)
	}
	for _, t := range which {
		t.sealed()
	}
	return nil
}

func (m *Machine) path(name string) string { return filepath.Join(m.cfg.Dir, name) }

// inside clips extents to a disk of size bytes.
func inside(es []block.Extent, size int64) []block.Extent {
	out := es[:0]
	for _, e := range es {
		if e.Offset >= size {
			break
		}
		e.Length = min(e.Length, size-e.Offset)
		out = append(out, e)
	}
	return out
}
