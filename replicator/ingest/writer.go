package ingest

import (
	"context"

	"github.com/lifeboat-dr/lifeboat/replicator/block"
	"github.com/lifeboat-dr/lifeboat/replicator/repo"
	"github.com/lifeboat-dr/lifeboat/replicator/wire"
)

// The types that ingest shares with the repository are the repository's.
type (
	// Point is a committed recovery point.
	Point = repo.Point
	// PointRef is a place in a machine's point log.
	PointRef = repo.PointRef
	// DiskInfo names a disk of a machine.
	DiskInfo = repo.DiskInfo
	// Commit is what a point carries beside its disks' content.
	Commit = repo.Commit
)

// Repository is the part of the repository that ingest uses.
type Repository interface {
	SumKey(machine, disk string) block.SumKey
	// NewWriter returns the only writer of the machine's generation. repo.ErrFenced when the generation was closed.
	NewWriter(ctx context.Context, machine string, generation int64, disks []DiskInfo, dir string) (Writer, error)
}

// Writer takes what changed on a machine's disks since its newest point and commits it as the next one, after which it goes on
// towards the one after. It is used by one goroutine, but for Sync, which another one calls beside it. The methods are those of
// repo.Writer.
type Writer interface {
	Base() *PointRef
	Sums(ctx context.Context, disk string, first int64, dst []block.Sum) error
	Put(ctx context.Context, disk string, extents []block.Extent, sums []block.Sum, data []byte) error
	Zero(ctx context.Context, disk string, e block.Extent) error
	Sync(ctx context.Context) error
	Checkpoint(ctx context.Context) error
	Commit(ctx context.Context, c Commit) (Point, error)
	Close() error
}

// resumer is a Writer that knows how much of an interrupted predecessor's work it holds. One that does not say is taken to hold
// some, so that the agent asks for sums rather than trusting its own.
type resumer interface{ Resumed() int64 }

func clean(w Writer) bool {
	r, ok := w.(resumer)
	return ok && r.Resumed() == 0
}

// taker is a Writer that can work on a message's memory where it lies, until it calls done.
type taker interface {
	Take(ctx context.Context, disk string, extents []block.Extent, sums []block.Sum, data []byte, done func()) error
}

// putData hands a message's content to the writer and sees to it that the message is released.
func putData(ctx context.Context, w Writer, disk string, m *wire.Data) error {
	if t, ok := w.(taker); ok {
		return t.Take(ctx, disk, m.Extents, m.Sums, m.Bytes, m.Release)
	}
	defer m.Release()
	return w.Put(ctx, disk, m.Extents, m.Sums, m.Bytes)
}

// FromRepo adapts a repository.
func FromRepo(r *repo.Repository) Repository { return repository{r} }

type repository struct{ *repo.Repository }

func (r repository) NewWriter(ctx context.Context, machine string, generation int64, disks []DiskInfo, dir string) (Writer, error) {
	w, err := r.Repository.NewWriter(ctx, machine, generation, disks, repo.WriterOptions{Dir: dir})
	if err != nil {
		return nil, err
	}
	return w, nil
}
