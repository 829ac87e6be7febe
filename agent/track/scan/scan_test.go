package scan_test

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/lifeboat-dr/lifeboat/agent/track"
	"github.com/lifeboat-dr/lifeboat/agent/track/scan"
	"github.com/lifeboat-dr/lifeboat/agent/track/tracktest"
	"github.com/lifeboat-dr/lifeboat/replicator/block"
)

// memory is a disk of bytes.
type memory struct {
	mu sync.Mutex
	b  []byte
}

func (m *memory) ReadAt(p []byte, off int64) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return copy(p, m.b[off:]), nil
}

func (m *memory) WriteAt(p []byte, off int64) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return copy(m.b[off:], p), nil
}

func (m *memory) NextData(off int64) (int64, error) { return off, nil }
func (m *memory) Buffer(n int) []byte               { return make([]byte, n) }
func (m *memory) Size() int64                       { return int64(len(m.b)) }

func TestTracker(t *testing.T) {
	t.Parallel()
	tracktest.Run(t, func(t *testing.T) (track.Tracker, tracktest.Disk) {
		d := &memory{b: make([]byte, 1<<20+512)}
		return scan.NewTracker(d.Size()), d
	})
}

var (
	key    = block.SumKey{4, 2}
	summer = block.NewSummer(key)
)

func identity(size int64) scan.Identity {
	return scan.Identity{Machine: "m", Disk: "d", Size: size, Key: key}
}

func openSums(t *testing.T, path string, id scan.Identity) *scan.Sums {
	t.Helper()
	s, err := scan.OpenSums(path, id)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func newPrints(t testing.TB, size int64) *scan.Prints {
	t.Helper()
	p, err := scan.NewPrints(t.TempDir(), size)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Close() })
	return p
}

// replica applies changes to a copy.
type replica struct {
	mu sync.Mutex
	b  []byte
}

func (r *replica) apply(t *testing.T, c *scan.Change) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	data, sums := c.Data, c.ContentSums()
	for _, e := range c.Extents {
		copy(r.b[e.Offset:e.End()], data[:e.Length])
		for off := int64(0); off < e.Length; off += block.Size {
			if sums[0] != summer.Of(data[off:min(off+block.Size, e.Length)]) {
				t.Errorf("the sum of the block at %d is not its own", e.Offset+off)
			}
			sums = sums[1:]
		}
		data = data[e.Length:]
	}
	if len(data) != 0 || len(sums) != 0 {
		t.Errorf("%d bytes and %d sums beyond the extents", len(data), len(sums))
	}
	for _, e := range c.Zeros {
		clear(r.b[e.Offset:e.End()])
	}
	return nil
}

// TestPassesAgainstAModel writes at random, takes passes of both kinds over all or part of the disk and holds the copy to the disk,
// and what was handed out to what changed.
func TestPassesAgainstAModel(t *testing.T) {
	t.Parallel()
	t.Run("with prints", func(t *testing.T) {
		t.Parallel()
		passesAgainstAModel(t, newPrints(t, modelSize))
	})
	t.Run("with sums alone", func(t *testing.T) {
		t.Parallel()
		passesAgainstAModel(t, nil)
	})
}

const modelSize = 5<<20 + 3*block.Size + 512

func passesAgainstAModel(t *testing.T, prints *scan.Prints) {
	const size = modelSize
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	d := &memory{b: make([]byte, size)}
	sums := openSums(t, filepath.Join(t.TempDir(), "s"), identity(size))
	if err := sums.Reset(); err != nil {
		t.Fatal(err)
	}
	s := scan.NewScanner(d, sums, prints, key)
	r := &replica{b: make([]byte, size)}
	for round := range 60 {
		if rng.IntN(5) == 0 { // another session: the replicator lost what it had taken last, and says what it holds
			for range rng.IntN(20) {
				off := rng.Int64N(size/block.Size) * block.Size
				clear(r.b[off : off+block.Size])
			}
			s = scan.NewScanner(d, sums, prints, key)
			for w := int64(0); w*scan.WindowSize < size; w++ {
				page := make([]block.Sum, scan.WindowBlocks)
				for i := range page {
					if off := w*scan.WindowSize + int64(i)*block.Size; off < size {
						page[i] = summer.Of(r.b[off:min(off+block.Size, size)])
					}
				}
				if err := s.Adopt(w, page); err != nil {
					t.Fatal(err)
				}
			}
		}
		for range rng.IntN(40) {
			p := make([]byte, 512*(1+rng.IntN(200)))
			switch rng.IntN(4) {
			case 0: // zeros
			case 1: // what is there already
				copy(p, d.b)
			default:
				for i := range p {
					p[i] = byte(rng.Uint32())
				}
			}
			_, _ = d.WriteAt(p, rng.Int64N((size-int64(len(p)))/512)*512)
		}
		dirty := []block.Extent{{Offset: 0, Length: size}}
		if rng.IntN(2) == 0 { // only what differs, in odd pieces
			dirty = nil
			for off := int64(0); off < size; off += block.Size {
				end := min(off+block.Size, size)
				if !bytes.Equal(d.b[off:end], r.b[off:end]) {
					dirty = track.Union(dirty, []block.Extent{{Offset: off + 512*rng.Int64N(2)*rng.Int64N(2), Length: 1}})
					dirty[len(dirty)-1].Length = end - dirty[len(dirty)-1].Offset
				}
			}
		}
		differ := int64(0)
		for off := int64(0); off < size; off += block.Size {
			end := min(off+block.Size, size)
			if !bytes.Equal(d.b[off:end], r.b[off:end]) {
				differ += end - off
			}
		}
		learn := rng.IntN(2) == 0
		var mu sync.Mutex
		var kept []scan.Change
		got, err := s.Pass(context.Background(), dirty, learn, func(c *scan.Change) error {
			if !learn {
				mu.Lock()
				kept = append(kept, c.Clone(nil))
				mu.Unlock()
			}
			return r.apply(t, c)
		}, func(int64) {})
		if err != nil {
			t.Fatal(err)
		}
		for i := range kept {
			if err := s.Learn(&kept[i]); err != nil {
				t.Fatal(err)
			}
		}
		if got != differ {
			t.Fatalf("round %d: %d bytes were handed out, %d differ", round, got, differ)
		}
		if !bytes.Equal(r.b, d.b) {
			t.Fatalf("round %d: the copy differs from the disk", round)
		}
	}
}

func TestPassStopsAtTheFirstError(t *testing.T) {
	t.Parallel()
	d := &memory{b: bytes.Repeat([]byte{1}, 16<<20)}
	sums := openSums(t, filepath.Join(t.TempDir(), "s"), identity(d.Size()))
	s := scan.NewScanner(d, sums, newPrints(t, d.Size()), key)
	boom := errors.New("boom")
	var calls sync.Map
	_, err := s.Pass(context.Background(), []block.Extent{{Length: d.Size()}}, true, func(c *scan.Change) error {
		calls.Store(c.Window, true)
		return boom
	}, func(int64) {})
	n := 0
	calls.Range(func(any, any) bool { n++; return true })
	if !errors.Is(err, boom) || n > 2 {
		t.Errorf("got %v after %d calls, want the sink's error and a call a worker at most", err, n)
	}
}

func TestKnownSumsAreTrustedOnlyWhenSettled(t *testing.T) {
	t.Parallel()
	const size = 8 << 20
	page := make([]block.Sum, scan.WindowBlocks)
	page[7] = summer.Of([]byte("x"))
	at := scan.PointRef{Generation: 2, Sequence: 9}
	settled := func(t *testing.T) string {
		path := filepath.Join(t.TempDir(), "s")
		s := openSums(t, path, identity(size))
		if err := errors.Join(s.Reset(), s.Write(3, page), s.Settle(at)); err != nil {
			t.Fatal(err)
		}
		return path
	}
	t.Run("a new file is not settled", func(t *testing.T) {
		if _, ok := openSums(t, filepath.Join(t.TempDir(), "s"), identity(size)).Settled(); ok {
			t.Error("it is")
		}
	})
	t.Run("a settled file says its point and keeps its sums", func(t *testing.T) {
		s := openSums(t, settled(t), identity(size))
		if got, ok := s.Settled(); !ok || got != at {
			t.Errorf("got %v %v, want %v", got, ok, at)
		}
		got := make([]block.Sum, scan.WindowBlocks)
		if err := s.Read(3, got); err != nil || got[7] != page[7] {
			t.Errorf("got %v and %v", got[7], err)
		}
		if err := s.Read(4, got); err != nil || got[7] != (block.Sum{}) {
			t.Errorf("a window never written: got %v and %v", got[7], err)
		}
	})
	t.Run("an opened file is not settled after a crash", func(t *testing.T) {
		path := settled(t)
		if err := openSums(t, path, identity(size)).Open(); err != nil {
			t.Fatal(err)
		}
		if _, ok := openSums(t, path, identity(size)).Settled(); ok {
			t.Error("it is")
		}
	})
	t.Run("an opened file keeps its base, and a doubted one does not", func(t *testing.T) {
		path := settled(t)
		s := openSums(t, path, identity(size))
		if err := s.Open(); err != nil {
			t.Fatal(err)
		}
		if got, ok := openSums(t, path, identity(size)).Base(); !ok || got != at {
			t.Errorf("opened: got base %v %v, want %v", got, ok, at)
		}
		if err := s.Unsettle(); err != nil {
			t.Fatal(err)
		}
		again := openSums(t, path, identity(size))
		_, settled := again.Settled()
		if got, ok := again.Base(); ok || settled {
			t.Errorf("doubted: got base %v, settled %v", got, settled)
		}
		if err := errors.Join(again.Settle(at), again.Reset()); err != nil {
			t.Fatal(err)
		}
		if got, ok := openSums(t, path, identity(size)).Base(); ok {
			t.Errorf("reset: got base %v", got)
		}
	})
	for name, change := range map[string]func(*scan.Identity){
		"another machine": func(i *scan.Identity) { i.Machine = "x" },
		"another disk":    func(i *scan.Identity) { i.Disk = "x" },
		"another size":    func(i *scan.Identity) { i.Size += 512 },
		"another key":     func(i *scan.Identity) { i.Key[0]++ },
	} {
		t.Run(name+" does not trust it", func(t *testing.T) {
			id := identity(size)
			change(&id)
			if _, ok := openSums(t, settled(t), id).Settled(); ok {
				t.Error("it does")
			}
		})
	}
	t.Run("a damaged header is not settled", func(t *testing.T) {
		path := settled(t)
		flip(t, path, 30)
		if _, ok := openSums(t, path, identity(size)).Settled(); ok {
			t.Error("it is")
		}
	})
	t.Run("a damaged page is noticed", func(t *testing.T) {
		path := settled(t)
		flip(t, path, 2*4096+3*4096+7*16)
		if err := openSums(t, path, identity(size)).Read(3, make([]block.Sum, scan.WindowBlocks)); !errors.Is(err, scan.ErrDamaged) {
			t.Errorf("got %v, want ErrDamaged", err)
		}
	})
}

func flip(t *testing.T, path string, at int64) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var b [1]byte
	if _, err := f.ReadAt(b[:], at); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 1
	if _, err := f.WriteAt(b[:], at); err != nil {
		t.Fatal(err)
	}
}

func BenchmarkPass(b *testing.B) {
	d := &memory{b: make([]byte, 64<<20)}
	rng := rand.New(rand.NewPCG(1, 1))
	for i := range d.b[:48<<20] {
		d.b[i] = byte(rng.Uint32())
	}
	sums, err := scan.OpenSums(filepath.Join(b.TempDir(), "s"), identity(d.Size()))
	if err != nil {
		b.Fatal(err)
	}
	prints := newPrints(b, d.Size())
	s := scan.NewScanner(d, sums, prints, key)
	pass := func() {
		if _, err := s.Pass(context.Background(), []block.Extent{{Length: d.Size()}}, true, func(*scan.Change) error { return nil }, func(int64) {}); err != nil {
			b.Fatal(err)
		}
	}
	b.Run("first", func(b *testing.B) {
		b.SetBytes(d.Size())
		for b.Loop() {
			if err := errors.Join(sums.Reset(), prints.Forget()); err != nil {
				b.Fatal(err)
			}
			pass()
		}
	})
	b.Run("unchanged", func(b *testing.B) {
		b.SetBytes(d.Size())
		for b.Loop() {
			pass()
		}
	})
}
