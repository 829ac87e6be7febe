package repo

import (
	"context"
	"errors"
	"time"

	"gocloud.dev/blob"

	"github.com/lifeboat-dr/lifeboat/replicator/block"
)

type (
	Repository struct{}
	Snapshot   struct{}
	Disk       struct{}
	Writer     struct{}
)

var errStub = errors.ErrUnsupported

func NewVaultFile(vaultID string, dataKey Key, recoveryKey string) ([]byte, error) {
	return nil, errStub
}
func NewRecoveryKey() string { return "" }
func Unwrap(vaultFile []byte, recoveryKey string) (vaultID string, k Key, err error) {
	return "", k, errStub
}
func Open(ctx context.Context, b *blob.Bucket, vaultID string, k Key, vaultFile []byte, opt Options) (*Repository, error) {
	return nil, errStub
}
func (r *Repository) SumKey(machine, disk string) block.SumKey       { return block.SumKey{} }
func (r *Repository) Machines(ctx context.Context) ([]string, error) { return nil, errStub }
func (r *Repository) Points(ctx context.Context, machine string) ([]Point, error) {
	return nil, errStub
}
func (r *Repository) Generations(ctx context.Context, m string) ([]Generation, error) {
	return nil, errStub
}
func (r *Repository) OpenGeneration(ctx context.Context, machine string, gen int64, base *PointRef) error {
	return errStub
}
func (r *Repository) CloseGeneration(ctx context.Context, machine string, gen int64, reason string) (*PointRef, error) {
	return nil, errStub
}
func (r *Repository) OpenPoint(ctx context.Context, machine string, ref PointRef) (*Snapshot, error) {
	return nil, errStub
}
func (s *Snapshot) Point() Point                                             { return Point{} }
func (s *Snapshot) Disk(id string) (*Disk, error)                            { return nil, errStub }
func (s *Snapshot) Requests() (requests, bytes int64)                        { return 0, 0 }
func (s *Snapshot) Close() error                                             { return nil }
func (d *Disk) Info() DiskInfo                                               { return DiskInfo{} }
func (d *Disk) ReadAt(ctx context.Context, p []byte, off int64) error        { return errStub }
func (d *Disk) Sums(ctx context.Context, first int64, dst []block.Sum) error { return errStub }
func (d *Disk) Next(ctx context.Context, off int64) (block.Extent, bool, error) {
	return block.Extent{}, false, errStub
}
func (r *Repository) NewWriter(ctx context.Context, machine string, gen int64, disks []DiskInfo, opt WriterOptions) (*Writer, error) {
	return nil, errStub
}
func (w *Writer) Base() *PointRef { return nil }
func (w *Writer) Sums(ctx context.Context, disk string, first int64, dst []block.Sum) error {
	return errStub
}
func (w *Writer) Put(ctx context.Context, disk string, extents []block.Extent, sums []block.Sum, data []byte) error {
	return errStub
}
func (w *Writer) Zero(ctx context.Context, disk string, e block.Extent) error { return errStub }
func (w *Writer) Sync(ctx context.Context) error                              { return errStub }
func (w *Writer) Checkpoint(ctx context.Context) error                        { return errStub }
func (w *Writer) Commit(ctx context.Context, c Commit) (Point, error)         { return Point{}, errStub }
func (w *Writer) Close() error                                                { return nil }
func (r *Repository) Pin(ctx context.Context, machine string, ref PointRef, owner string) error {
	return errStub
}
func (r *Repository) Unpin(ctx context.Context, machine string, ref PointRef, owner string) error {
	return errStub
}
func (r *Repository) Prune(ctx context.Context, machine string, keep Retention, now time.Time) (PruneStats, error) {
	return PruneStats{}, errStub
}
func (r *Repository) DeleteMachine(ctx context.Context, machine string) error { return errStub }
func (r *Repository) Verify(ctx context.Context, machine string, ref PointRef) (int64, error) {
	return 0, errStub
}
