package profile

import (
	"cmp"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/lifeboat-dr/lifeboat/agent/source"
	"github.com/lifeboat-dr/lifeboat/agent/track"
	"github.com/lifeboat-dr/lifeboat/agent/track/scan"
	"github.com/lifeboat-dr/lifeboat/replicator/block"
)

// changes are what was written to a disk, epoch by epoch.
type changes interface {
	// next ends the running epoch and returns its extents, sorted and apart. ErrLost when nobody knows them.
	next(ctx context.Context) ([]block.Extent, error)
	quick() bool // next does not read the whole disk
	close() error
}

// tracked changes are those that a tracker marked.
type tracked struct{ t track.Tracked }

func (c tracked) next(ctx context.Context) ([]block.Extent, error) {
	e := c.t.Epoch()
	es, err := c.t.Seal(ctx)
	if err != nil && !errors.Is(err, track.ErrLost) {
		return nil, err
	}
	return es, errors.Join(err, c.t.Release(e))
}

func (tracked) quick() bool  { return true }
func (tracked) close() error { return nil }

// scanned changes are blocks that read differently than in the pass before.
type scanned struct {
	disk    source.Disk
	reader  *source.Reader
	path    string
	sums    *scan.Sums
	scanner *scan.Scanner
}

func scanChanges(d source.Disk, r *source.Reader, dir string) (*scanned, error) {
	c := &scanned{disk: d, reader: r, path: filepath.Join(dir, "profile.sums")}
	if err := os.Remove(c.path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	var key block.SumKey // the sums never leave this file
	var err error
	if c.sums, err = scan.OpenSums(c.path, scan.Identity{Machine: "profile", Disk: d.Id, Size: d.SizeBytes, Key: key}); err != nil {
		return nil, err
	}
	c.scanner = scan.NewScanner(r, c.sums, nil, key)
	return c, nil
}

func (c *scanned) next(ctx context.Context) ([]block.Extent, error) {
	if err := c.reader.Refresh(); err != nil {
		return nil, err
	}
	var mu sync.Mutex // guards es
	var es []block.Extent
	whole := []block.Extent{{Offset: 0, Length: c.disk.SizeBytes}}
	_, err := c.scanner.Pass(ctx, whole, true, func(x *scan.Change) error {
		mu.Lock()
		defer mu.Unlock()
		es = append(append(es, x.Extents...), x.Zeros...)
		return nil
	}, func(int64) {})
	slices.SortFunc(es, func(a, b block.Extent) int { return cmp.Compare(a.Offset, b.Offset) })
	return es, err
}

func (c *scanned) quick() bool { return false }

func (c *scanned) close() error { return errors.Join(c.sums.Close(), os.Remove(c.path)) }
