// Package repo owns a vault's recovery points in a bucket: packs, extent maps, the point log, sessions, pins and retention.
// A point exists if and only if its log entry is durable. Every byte is verified when read; bytes that do not verify are
// never returned. It must never overwrite a pack or map, never delete what a kept point, an open session or a pin needs, and
// never know anything about jobs, agents or hypervisors. The stored forms are in docs/formats.md.
package repo

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"path"
	"slices"
	"time"

	"gocloud.dev/blob"
	"gocloud.dev/gcerrors"

	"github.com/lifeboat-dr/lifeboat/replicator/block"
	"github.com/lifeboat-dr/lifeboat/replicator/chunk"
	"github.com/lifeboat-dr/lifeboat/replicator/manifest"
)

// Key is a vault's data key. Every other key of the vault is derived from it.
type Key [32]byte

// Options has a useful zero value.
type Options struct {
	Logger *slog.Logger
	// CacheBytes bounds the decoded map pages and frames kept in memory for reading. Zero means 64 MiB.
	CacheBytes int64
	// Codec compresses what Writers store. Raw (zero) means Zstd.
	Codec chunk.Codec
	// Now stamps what is stored. Nil means time.Now.
	Now func() time.Time
}

// PointRef names a recovery point of a machine. Sequence 0 is never a point.
type PointRef struct{ Generation, Sequence int64 }

// DiskInfo describes one disk of a machine. The size may grow from one point to the next; it never shrinks: a disk that
// shrank is another disk and gets another id.
type DiskInfo struct {
	ID   string
	Size int64 // bytes, a multiple of block.Sector
	OS   bool
}

// Point describes a recovery point.
type Point struct {
	Machine string
	PointRef
	Base         PointRef // the point this one was built on; zero for the first of all
	Time         time.Time
	Consistency  string
	GroupID      string
	Disks        []DiskInfo
	ChangedBytes int64           // plain bytes written since Base, holes included
	StoredBytes  int64           // bytes of the packs that hold them
	Hardware     json.RawMessage // opaque machine description, enough to boot after a catalogue rebuild; nil if none
}

// Generation describes a run of replication of one machine.
type Generation struct {
	Number int64
	Base   *PointRef // the point of an earlier generation that the first point builds on; nil if none
	Closed bool
	Reason string    // why it was closed
	Head   int64     // sequence of the newest entry, whatever its kind
	Last   *PointRef // newest point; nil if none
}

// Commit describes the point that Writer.Commit makes.
type Commit struct {
	Time        time.Time // the instant that the point shows, not when it was stored
	Consistency string
	GroupID     string
	Hardware    json.RawMessage
}

// WriterOptions has a useful zero value.
type WriterOptions struct {
	// Dir is the spool: the pack under construction and sealed packs that the bucket's session record does not list yet live
	// in a directory of their own below it. A new Writer with the same Dir finds them again after a crash. Several Writers
	// may share one Dir. Empty means a temporary directory that Close removes; Sync then does what Checkpoint does.
	Dir string
	// Workers bounds the goroutines that compress and encrypt. Zero means GOMAXPROCS.
	Workers int
}

// Retention says which points Prune keeps, by age. The newest point, the newest app-consistent one and pinned ones are always
// kept. The zero value keeps every point for 2 hours, one an hour for 24 hours and none beyond.
type Retention struct {
	All    time.Duration // younger points are all kept; zero means 2 h
	Hourly time.Duration // up to this age one point an hour is kept; zero means 24 h
	Daily  time.Duration // up to this age one point a day is kept; zero means none
	// Grace is how long a pruned point's data, and data that nothing refers to, stays. It must be longer than any upload
	// takes. Zero means 1 h.
	Grace time.Duration
}

// PruneStats tells what Prune did.
type PruneStats struct {
	Kept, Pruned         int   // points
	MapsDeleted          int   // objects
	PacksDeleted         int   // objects
	BytesDeleted         int64 // of both
	PacksKept, BytesKept int64 // packs only
}

// Repository is a vault in a bucket. Safe for concurrent use. It holds no goroutine and nothing to close; the bucket belongs
// to the caller.
type Repository struct {
	s     store
	vault string
	keys  keyring
	rec   manifest.RecordKey
	opt   Options
	cache *cache
}

// Open opens the vault vaultID in b with its data key. A vault.json that is absent is created from file; a reader may pass nil.
// It returns ErrConflict if vault.json is there and belongs to another vault, ErrCorrupt if it is there and is not file.
func Open(ctx context.Context, b *blob.Bucket, vaultID string, k Key, file []byte, opt Options) (*Repository, error) {
	if !manifest.ValidName(vaultID) {
		return nil, fmt.Errorf("%w: vault id %q", ErrInvalid, vaultID)
	}
	if opt.Logger == nil {
		opt.Logger = slog.New(slog.DiscardHandler)
	}
	if opt.CacheBytes == 0 {
		opt.CacheBytes = 64 << 20
	}
	if opt.Codec == chunk.Raw {
		opt.Codec = chunk.Zstd
	}
	if opt.Now == nil {
		opt.Now = time.Now
	}
	r := &Repository{vault: vaultID, keys: newKeyring(vaultID, k), opt: opt, cache: newCache(opt.CacheBytes),
		s: store{b: b, prefix: "vaults/" + vaultID + "/", log: opt.Logger, t: new(traffic)}}
	r.rec = r.keys.record()
	return r, r.ensureVaultFile(ctx, file)
}

func (r *Repository) ensureVaultFile(ctx context.Context, file []byte) error {
	created := false
	if file != nil {
		v, err := parseVaultFile(file)
		if err != nil {
			return err
		}
		if v.VaultID != r.vault {
			return fmt.Errorf("%w: vault file of %s for vault %s", ErrInvalid, v.VaultID, r.vault)
		}
		err = r.s.put(ctx, vaultName, file, true)
		if err != nil && gcerrors.Code(err) != gcerrors.FailedPrecondition {
			return err
		}
		created = err == nil
	}
	err := r.checkVaultFile(ctx, file)
	if errors.Is(err, ErrCorrupt) {
		err = r.checkVaultFile(ctx, file) // read wrongly, perhaps
	}
	if created && errors.Is(err, ErrCorrupt) {
		// It was damaged on its way and nobody has used it: on the bad day it would be the only way to the data.
		if err := r.s.put(ctx, vaultName, file, false); err != nil {
			return err
		}
		err = r.checkVaultFile(ctx, file)
	}
	return err
}

// checkVaultFile reads vault.json, which has to be file, unless that is nil.
func (r *Repository) checkVaultFile(ctx context.Context, file []byte) error {
	p, err := r.s.get(ctx, vaultName, maxVaultFile)
	if errors.Is(err, ErrNotFound) && file == nil {
		return nil
	}
	if err != nil || file != nil && bytes.Equal(p, file) {
		return err
	}
	v, err := parseVaultFile(p)
	if err != nil {
		return err
	}
	if v.VaultID != r.vault {
		return fmt.Errorf("%w: the bucket's vault file is of vault %s, not %s", ErrConflict, v.VaultID, r.vault)
	}
	if file != nil {
		return &CorruptError{Object: vaultName, Err: errors.New("it is not the file that the vault was made with: the recovery key may not open it")}
	}
	return nil
}

// VaultFile returns the bucket's vault.json of a vault: what Unwrap needs when everything else is lost.
func VaultFile(ctx context.Context, b *blob.Bucket, vaultID string) ([]byte, error) {
	if !manifest.ValidName(vaultID) {
		return nil, fmt.Errorf("%w: vault id %q", ErrInvalid, vaultID)
	}
	s := store{b: b, prefix: "vaults/" + vaultID + "/", log: slog.New(slog.DiscardHandler), t: new(traffic)}
	return s.get(ctx, vaultName, maxVaultFile)
}

// Vaults returns the ids of the vaults in a bucket, sorted.
func Vaults(ctx context.Context, b *blob.Bucket) ([]string, error) {
	s := store{b: b, log: slog.New(slog.DiscardHandler), t: new(traffic)}
	names, err := s.names(ctx, "vaults/", "/")
	if err != nil {
		return nil, err
	}
	var ids []string
	for _, n := range names {
		if id := path.Base(n); manifest.ValidName(id) {
			ids = append(ids, id)
		}
	}
	return ids, nil
}

// SumKey returns the compare key of a disk: the only key that a protected machine may know.
func (r *Repository) SumKey(machine, disk string) block.SumKey { return r.keys.sums(machine, disk) }

// Machines returns the ids of the machines that have a log, sorted. The bucket's list may be stale.
func (r *Repository) Machines(ctx context.Context) ([]string, error) {
	names, err := r.s.names(ctx, pointsRoot, "/")
	if err != nil {
		return nil, err
	}
	var ids []string
	for _, n := range names {
		if id := path.Base(n); manifest.ValidName(id) {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids, nil
}

// corrupt turns an error of decoding an object into a CorruptError; others pass.
func corrupt(machine, object string, err error) error {
	var c *CorruptError
	if err == nil || errors.As(err, &c) {
		return err
	}
	return &CorruptError{Machine: machine, Object: object, Err: err}
}
