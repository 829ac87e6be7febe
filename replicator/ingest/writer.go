package ingest

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/lifeboat-dr/lifeboat/replicator/block"
)

// ErrFenced is what a Writer returns once its generation was closed: nothing can be added to it any more.
var ErrFenced = errors.New("ingest: generation is closed")

// SumKey makes compare sums of one disk.
type SumKey = block.SumKey

// PointRef is a place in a machine's point log.
type PointRef struct{ Generation, Sequence int64 }

// DiskInfo names a disk of a machine.
type DiskInfo struct {
	ID   string
	Size int64
	OS   bool
}

// Commit is what a point carries beside its disks' content.
type Commit struct {
	Time        time.Time
	Consistency string
	GroupID     string
	Hardware    json.RawMessage
}

// Point is a committed recovery point.
type Point struct {
	Machine string
	PointRef
	Base                      PointRef
	Time                      time.Time
	Consistency               string
	GroupID                   string
	Disks                     []DiskInfo
	ChangedBytes, StoredBytes int64
	Hardware                  json.RawMessage
}

// Writer takes what changed on a machine's disks since its newest point and commits it as the next one. What is put is visible
// to nobody until Commit; after Commit the Writer goes on towards the next point.
type Writer interface {
	// Base is the newest point the next commit builds on; nil if there is none.
	Base() *PointRef
	// Sums fills dst with the sums of blocks from first on, as the next commit would hold them: the base overlaid with all
	// that was put, by an interrupted predecessor too.
	Sums(ctx context.Context, disk string, first int64, dst []block.Sum) error
	// Put adds extents whose bytes are concatenated in data, one sum a block. A later Put wins. Data is not kept after it
	// returns.
	Put(ctx context.Context, disk string, extents []block.Extent, sums []block.Sum, data []byte) error
	Zero(ctx context.Context, disk string, e block.Extent) error
	// Sync makes all that was put survive a crash of this process.
	Sync(ctx context.Context) error
	// Checkpoint brings all that was put to the bucket.
	Checkpoint(ctx context.Context) error
	// Commit makes the point. ErrFenced when the generation was closed.
	Commit(ctx context.Context, c Commit) (Point, error)
	Close() error
}
