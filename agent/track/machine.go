package track

import (
	"context"
	"errors"
	"time"
)

// ErrBroken is what a Snapshot returns whose view ended before it was closed, or may have. What was read from it is of no instant.
var ErrBroken = errors.New("track: the frozen view was lost")

// Machine is a machine seen from its host: the hypervisor counts what is written to the disks and reads them as they were at one
// instant, without a freeze and without anything in the guest. Hypervisors call that dirty bitmaps, changed block tracking or
// reference points; here the reference is always the newest released epoch.
//
// A Machine is used by one goroutine; only views are read by several. It does not outlive the hypervisor's process of the
// machine: when that is gone, all methods fail, and a Machine opened anew answers ErrLost where nothing was counted.
type Machine interface {
	// Disks returns the disks in the hypervisor's order, as they were when the Machine was opened or, after a Snapshot, then.
	Disks() []HostDisk
	// Tracker returns the tracker of disk i of Disks, which lives as long as the Machine. What was counted outlives an agent
	// that was killed: the Pending of a new Machine covers everything since the newest released epoch of the one before it,
	// or is ErrLost. Closing a tracker does nothing.
	Tracker(i int) Tracker
	// Snapshot ends the running epochs of all disks at one instant and freezes the view of it; the guest runs on. What was
	// written since the newest released epochs is then Pending of the trackers. One snapshot is open at a time.
	Snapshot(ctx context.Context) (Snapshot, error)
	// Close lets the hypervisor's process go. It goes on counting, for whoever opens the machine next.
	Close() error
}

// HostDisk is a disk as its host names it.
type HostDisk struct {
	ID   string // stable over restarts of the machine
	Size int64  // bytes
}

// Snapshot is one instant of all disks of a machine.
type Snapshot interface {
	// Instant is when it was taken.
	Instant() time.Time
	// View returns disk i as it was. It may be read until Close.
	View(i int) View
	// Close ends the view. Only when it returns nil was every byte read from the views that of the instant: after any error,
	// such as ErrBroken, what was read must not become a recovery point. The epochs stay pending either way.
	Close() error
}

// View reads a disk as it was at the instant of its snapshot. Safe for concurrent use.
type View interface {
	// ReadAt fills p from off, both multiples of the sector, or fails.
	ReadAt(p []byte, off int64) (int, error)
	// NextData returns the first offset at or after off that may not read as zeros, or the size.
	NextData(off int64) (int64, error)
	// Buffer returns memory fit for ReadAt.
	Buffer(size int) []byte
	Size() int64
}
