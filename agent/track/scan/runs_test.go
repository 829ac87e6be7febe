package scan_test

import (
	"context"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"github.com/lifeboat-dr/lifeboat/agent/track/scan"
	"github.com/lifeboat-dr/lifeboat/replicator/block"
)

// watched is a disk that remembers what was read of it.
type watched struct {
	*memory
	mu    sync.Mutex
	reads []block.Extent
}

func (w *watched) ReadAt(p []byte, off int64) (int, error) {
	w.mu.Lock()
	w.reads = append(w.reads, block.Extent{Offset: off, Length: int64(len(p))})
	w.mu.Unlock()
	return w.memory.ReadAt(p, off)
}

func TestPassReadsAndComparesOnlyWhatIsDirty(t *testing.T) {
	t.Parallel()
	const size = 2*scan.WindowSize + 3*block.Sector
	d := &watched{memory: &memory{b: make([]byte, size)}}
	for i := range d.b {
		d.b[i] = byte(i>>9) | 1
	}
	at := func(block0, blocks int64) block.Extent {
		return block.Extent{Offset: block0 * block.Size, Length: blocks * block.Size}
	}
	tail := block.Extent{Offset: 2 * scan.WindowSize, Length: 3 * block.Sector}
	for name, tc := range map[string]struct{ dirty, reads, changed []block.Extent }{
		"two blocks far apart in a window": {
			dirty: []block.Extent{at(3, 1), at(100, 2)}, reads: []block.Extent{at(3, 1), at(100, 2)}, changed: []block.Extent{at(3, 1), at(100, 2)}},
		"two blocks near each other are read at once, and what is between them is left out": {
			dirty: []block.Extent{at(3, 1), at(8, 1)}, reads: []block.Extent{at(3, 6)}, changed: []block.Extent{at(3, 1), at(8, 1)}},
		"sectors of one block, and of its neighbour": {
			dirty: []block.Extent{{Offset: 4096 * 5, Length: 512}, {Offset: 4096*5 + 1024, Length: 512}, {Offset: 4096*6 + 3584, Length: 512}},
			reads: []block.Extent{at(5, 2)}, changed: []block.Extent{at(5, 2)}},
		"an extent over two windows, and the tail": {
			dirty: []block.Extent{at(254, 4), tail}, reads: []block.Extent{at(254, 2), at(256, 2), tail}, changed: []block.Extent{at(254, 2), at(256, 2), tail}},
	} {
		s := scan.NewScanner(d, openSums(t, filepath.Join(t.TempDir(), "sums"), identity(size)), nil, key)
		d.reads = nil
		var mu sync.Mutex
		var changed []block.Extent
		if _, err := s.Pass(context.Background(), tc.dirty, false, func(c *scan.Change) error {
			mu.Lock()
			defer mu.Unlock()
			changed = append(changed, c.Extents...)
			return nil
		}, func(int64) {}); err != nil {
			t.Fatal(err)
		}
		for what, got := range map[string][2][]block.Extent{"read": {d.reads, tc.reads}, "handed out": {changed, tc.changed}} {
			slices.SortFunc(got[0], func(a, b block.Extent) int { return int(a.Offset - b.Offset) })
			if !slices.Equal(got[0], got[1]) {
				t.Errorf("%s: %s %v, want %v", name, what, got[0], got[1])
			}
		}
	}
}
