package restore

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"

	"gocloud.dev/blob"

	"github.com/lifeboat-dr/lifeboat/replicator/block"
	"github.com/lifeboat-dr/lifeboat/replicator/repo"
	"github.com/lifeboat-dr/lifeboat/service/job"
)

// Point says which recovery point a disk server serves and with which key: what ServerConfig.Source holds when the server's
// opener is PointOpener. It holds the vault's data key: it goes through a pipe and is never written down.
type Point struct {
	Bucket     string       `json:"bucket"` // URL
	Vault      string       `json:"vault"`
	DataKey    []byte       `json:"dataKey"`
	Machine    string       `json:"machine"`
	Point      job.PointRef `json:"point"`
	CacheBytes int64        `json:"cacheBytes,omitempty"` // zero: the repository's default
}

// PointOpener opens recovery points from the buckets that openBucket knows.
func PointOpener(openBucket func(ctx context.Context, url string) (*blob.Bucket, error)) Opener {
	return func(ctx context.Context, source json.RawMessage, log *slog.Logger) (Disks, error) {
		var p Point
		if err := json.Unmarshal(source, &p); err != nil {
			return nil, fmt.Errorf("decode the point to serve: %w", err)
		}
		var key repo.Key
		if copy(key[:], p.DataKey) != len(key) || len(p.DataKey) != len(key) {
			return nil, errors.New("decode the point to serve: the data key has the wrong length")
		}
		b, err := openBucket(ctx, p.Bucket)
		if err != nil {
			return nil, fmt.Errorf("open bucket: %w", err)
		}
		disks, err := openPoint(ctx, b, key, p, log)
		if err != nil {
			return nil, errors.Join(err, b.Close())
		}
		disks.bucket = b
		return disks, nil
	}
}

func openPoint(ctx context.Context, b *blob.Bucket, key repo.Key, p Point, log *slog.Logger) (*pointDisks, error) {
	r, err := repo.Open(ctx, b, p.Vault, key, nil, repo.Options{Logger: log, CacheBytes: p.CacheBytes})
	if err != nil {
		return nil, fmt.Errorf("open vault %s: %w", p.Vault, vouch(err))
	}
	s, err := r.OpenPoint(ctx, p.Machine, repo.PointRef(p.Point))
	if err != nil {
		return nil, fmt.Errorf("open point %d/%d of machine %s: %w", p.Point.Generation, p.Point.Sequence, p.Machine, vouch(err))
	}
	return &pointDisks{repo: r, snapshot: s}, nil
}

// OpenPoint opens a point of an open repository. Closing the Disks leaves the repository and its bucket open.
func OpenPoint(ctx context.Context, r *repo.Repository, machine string, ref repo.PointRef) (Disks, error) {
	s, err := r.OpenPoint(ctx, machine, ref)
	if err != nil {
		return nil, fmt.Errorf("open point %d/%d of machine %s: %w", ref.Generation, ref.Sequence, machine, vouch(err))
	}
	return &pointDisks{repo: r, snapshot: s}, nil
}

// pointDisks are the disks of a recovery point.
type pointDisks struct {
	repo     *repo.Repository
	snapshot *repo.Snapshot
	bucket   *blob.Bucket // nil when it is somebody else's
}

func (d *pointDisks) Disk(id string) (Source, error) {
	disk, err := d.snapshot.Disk(id)
	if err != nil {
		return nil, vouch(err)
	}
	return &pointDisk{disk: disk, size: disk.Info().Size, summer: block.NewSummer(d.repo.SumKey(d.snapshot.Point().Machine, id))}, nil
}

func (d *pointDisks) Traffic() (requests, bytes int64) { return d.snapshot.Requests() }

func (d *pointDisks) Close() error {
	err := d.snapshot.Close()
	if d.bucket != nil {
		err = errors.Join(err, d.bucket.Close())
	}
	return err
}

// pointDisk is a Summed.
type pointDisk struct {
	disk   *repo.Disk
	size   int64
	summer *block.Summer
}

var _ Summed = (*pointDisk)(nil)

func (d *pointDisk) Size() int64 { return d.size }

func (d *pointDisk) ReadAt(ctx context.Context, p []byte, off int64) error {
	return vouch(d.disk.ReadAt(ctx, p, off))
}

func (d *pointDisk) Next(ctx context.Context, off int64) (block.Extent, bool, error) {
	e, ok, err := d.disk.Next(ctx, off)
	return e, ok, vouch(err)
}

func (d *pointDisk) Sums(ctx context.Context, first int64, dst []block.Sum) error {
	return vouch(d.disk.Sums(ctx, first, dst))
}

func (d *pointDisk) SumOf(p []byte) block.Sum { return d.summer.Of(p) }

// vouch makes what the repository calls corrupt ErrCorrupt, so that whoever holds a Source can tell it without knowing the
// repository.
func vouch(err error) error {
	if errors.Is(err, repo.ErrCorrupt) {
		return fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	return err
}
