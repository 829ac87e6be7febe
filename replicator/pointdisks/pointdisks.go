// Package pointdisks shows a recovery point of a repository as restore.Disks, in this process or, from a description that
// travels over a pipe, in a disk server. It must never write the description down: it holds the vault's data key.
package pointdisks

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"

	"github.com/lifeboat-dr/lifeboat/replicator/block"
	"github.com/lifeboat-dr/lifeboat/replicator/localbucket"
	"github.com/lifeboat-dr/lifeboat/replicator/repo"
	"github.com/lifeboat-dr/lifeboat/replicator/restore"
)

// Source describes a recovery point so that another process can open it. It holds the vault's data key.
type Source struct {
	BucketURL string   `json:"bucketUrl"`
	VaultID   string   `json:"vaultId"`
	DataKey   repo.Key `json:"dataKey"`
	Machine   string   `json:"machine"`
	repo.PointRef
}

// Encode returns the form that OpenSource reads.
func (s Source) Encode() (json.RawMessage, error) { return json.Marshal(s) }

// OpenSource opens what a Source describes. It is the restore.Opener of disk servers.
func OpenSource(ctx context.Context, source json.RawMessage, log *slog.Logger) (restore.Disks, error) {
	var s Source
	if err := json.Unmarshal(source, &s); err != nil {
		return nil, errors.New("open point: the description cannot be read") // its text holds a key
	}
	bucket, err := localbucket.OpenURL(ctx, s.BucketURL)
	if err != nil {
		return nil, fmt.Errorf("open point: %w", err)
	}
	r, err := repo.Open(ctx, bucket, s.VaultID, s.DataKey, nil, repo.Options{Logger: log})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open point: %w", err), bucket.Close())
	}
	d, err := Open(ctx, r, s.Machine, s.PointRef)
	if err != nil {
		return nil, errors.Join(err, bucket.Close())
	}
	d.closeBucket = bucket.Close
	return d, nil
}

// Disks are the disks of one open recovery point.
type Disks struct {
	repository  *repo.Repository
	snapshot    *repo.Snapshot
	closeBucket func() error
}

// Open opens a recovery point of a repository in this process.
func Open(ctx context.Context, r *repo.Repository, machine string, ref repo.PointRef) (*Disks, error) {
	snapshot, err := r.OpenPoint(ctx, machine, ref)
	if err != nil {
		return nil, fmt.Errorf("open point %d/%d of machine %s: %w", ref.Generation, ref.Sequence, machine, err)
	}
	return &Disks{repository: r, snapshot: snapshot, closeBucket: func() error { return nil }}, nil
}

// Point describes the point.
func (d *Disks) Point() repo.Point { return d.snapshot.Point() }

// Disk implements restore.Disks.
func (d *Disks) Disk(id string) (restore.Source, error) {
	disk, err := d.snapshot.Disk(id)
	if err != nil {
		return nil, err
	}
	return &source{Disk: disk, info: disk.Info(), key: d.repository.SumKey(d.snapshot.Point().Machine, id)}, nil
}

// Traffic implements restore.Disks.
func (d *Disks) Traffic() (requests, bytes int64) { return d.snapshot.Requests() }

// Close implements restore.Disks.
func (d *Disks) Close() error { return errors.Join(d.snapshot.Close(), d.closeBucket()) }

// source is a repository's disk in restore's words. It is restore.Summed.
type source struct {
	*repo.Disk // with its Next and Sums
	info       repo.DiskInfo
	key        block.SumKey
}

var _ restore.Summed = (*source)(nil)

func (s *source) Size() int64 { return s.info.Size }

func (s *source) SumOf(p []byte) block.Sum { return s.key.Of(p) }

func (s *source) ReadAt(ctx context.Context, p []byte, off int64) error {
	err := s.Disk.ReadAt(ctx, p, off)
	if c, ok := errors.AsType[*repo.CorruptError](err); ok {
		return &restore.ReadError{Disk: s.info.ID, Extent: c.Extent, Err: errors.Join(restore.ErrCorrupt, err)}
	}
	return err
}
