package manifest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/lifeboat-dr/lifeboat/replicator/block"
	"github.com/lifeboat-dr/lifeboat/replicator/chunk"
)

// mapStore holds map objects and serves their pages.
type mapStore struct {
	objects map[ID][]byte
	reads   int
}

func pageKey(id ID) [32]byte { return [32]byte{id[0], id[1], 1} }

func (s *mapStore) Page(_ context.Context, l *Layer, tree Tree, level int, ref PageRef) (*Page, error) {
	s.reads++
	o := s.objects[l.Map]
	if ref.Offset+ref.Length > int64(len(o)) {
		return nil, fmt.Errorf("%w: page outside of the object", ErrFormat)
	}
	return NewPageCipher(pageKey(l.Map)).Open(&ref, slices.Clone(o[ref.Offset:ref.Offset+ref.Length]), tree, level)
}

// model is a disk's map as one answer a block.
type model map[int64]answer

type answer struct {
	run Run // of one block
	sum block.Sum
}

var packIDs = []ID{{1}, {2}, {3}, {4}, {5}}

// randomLayer makes runs of a layer over blocks [0, n) and lays them over m.
func randomLayer(rng *rand.Rand, n int64, density float64, m model) (runs []Run, sums [][]block.Sum) {
	for b := int64(0); b < n; {
		if rng.Float64() > density {
			b += 1 + rng.Int64N(20)
			continue
		}
		r := Run{First: b, Blocks: min(1+rng.Int64N(30), n-b)}
		if rng.IntN(5) == 0 {
			r.Hole = true
		} else {
			r.Pack = packIDs[rng.IntN(len(packIDs))]
			r.FrameIndex, r.FrameFirst = uint16(rng.IntN(1000)), uint16(rng.IntN(chunk.MaxBlocks-int(r.Blocks)+1))
			r.FrameOffset, r.FrameLength = uint32(rng.IntN(1<<25)), uint32(chunk.MinFrame+rng.IntN(1<<20))
		}
		var s []block.Sum
		for i := range r.Blocks {
			one := r.Clip(b+i, b+i+1)
			a := answer{run: one}
			if !r.Hole {
				a.sum = block.Sum{byte(rng.Uint32()), byte(rng.Uint32()), 1}
				s = append(s, a.sum)
			}
			m[b+i] = a
		}
		runs, sums = append(runs, r), append(sums, s)
		b += r.Blocks
	}
	return runs, sums
}

func (s *mapStore) write(t *testing.T, id ID, f func(l *LayerWriter) error) Layer {
	t.Helper()
	var buf bytes.Buffer
	m := NewMapWriter(&buf, pageKey(id), 1, id)
	l := m.Layer(Disk{ID: "a", Size: 512})
	if err := f(l); err != nil {
		t.Fatal(err)
	}
	out, err := l.Finish()
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Finish(&recordKey, "maps/"+id.String()); err != nil {
		t.Fatal(err)
	}
	s.objects[id] = buf.Bytes()
	return out
}

func (s *mapStore) writeRuns(t *testing.T, id ID, runs []Run, sums [][]block.Sum) Layer {
	t.Helper()
	return s.write(t, id, func(l *LayerWriter) error {
		for i, r := range runs {
			if err := l.Add(r, sums[i]); err != nil {
				return err
			}
		}
		return nil
	})
}

func (s *mapStore) view(layers ...Layer) *View {
	var rs []RunReader
	for i := range layers {
		rs = append(rs, NewLayerReader(s, &layers[i]))
	}
	return NewView(rs...)
}

// requireModel compares a view with the model, block by block and in random order too.
func requireModel(t *testing.T, v *View, m model, n int64, rng *rand.Rand) {
	t.Helper()
	for b := int64(0); b < n; {
		p, err := v.At(t.Context(), b, n)
		if err != nil {
			t.Fatal(err)
		}
		if p.First != b || p.Blocks < 1 || p.End() > n {
			t.Fatalf("piece at %d: got %+v", b, p)
		}
		for i := range p.Blocks {
			a, there := m[b+i]
			one := p.Run.Clip(b+i, b+i+1)
			if there && one != a.run || !there && !one.Hole {
				t.Fatalf("block %d: got %+v, want %+v", b+i, one, a.run)
			}
		}
		b = p.End()
	}
	for range 300 {
		b := rng.Int64N(n)
		sums := make([]block.Sum, min(1+rng.Int64N(100), n-b))
		if err := v.Sums(t.Context(), b, sums); err != nil {
			t.Fatal(err)
		}
		for i, s := range sums {
			if s != m[b+int64(i)].sum {
				t.Fatalf("sum of block %d: got %x, want %x", b+int64(i), s, m[b+int64(i)].sum)
			}
		}
	}
}

func TestViewAndMergeAgreeWithAModel(t *testing.T) {
	t.Parallel()
	for seed := range uint64(30) {
		rng := rand.New(rand.NewPCG(seed, 4))
		n := int64(200 + rng.IntN(30_000))
		s := &mapStore{objects: make(map[ID][]byte)}
		m := make(model)
		var layers []Layer
		for i := range 1 + rng.IntN(6) {
			runs, sums := randomLayer(rng, n, rng.Float64(), m)
			layers = append([]Layer{s.writeRuns(t, ID{byte(seed), byte(i), 9}, runs, sums)}, layers...)
		}
		requireModel(t, s.view(layers...), m, n, rng)
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
		k := 1 + rng.IntN(len(layers))
		bottom := k == len(layers)
		merged := s.write(t, ID{byte(seed), 0xff}, func(l *LayerWriter) error { return s.view(layers[:k]...).Merge(t.Context(), n, bottom, l) })
		after := append([]Layer{merged}, layers[k:]...)
		requireModel(t, s.view(after...), m, n, rng)
		uses := make(map[ID]int64)
		if err := PackUses(t.Context(), s, &merged, func(u PackUse) { uses[u.Pack] += u.Blocks }); err != nil {
			t.Fatal(err)
		}
		if !bottom {
			continue
		}
		for _, a := range m {
			if !a.run.Hole {
				uses[a.run.Pack]--
			}
		}
		for id, left := range uses {
			if left != 0 {
				t.Errorf("seed %d: pack %s is off by %d blocks", seed, id, left)
			}
		}
	}
}

// TestLargeMapNeedsFewPages builds a map of three levels and reads a block at each end of it.
func TestLargeMapNeedsFewPages(t *testing.T) {
	t.Parallel()
	s := &mapStore{objects: make(map[ID][]byte)}
	const n = 3_000_000 // every second block: the worst there is
	l := s.write(t, ID{1}, func(l *LayerWriter) error {
		for i := range int64(n) {
			r := Run{First: 2 * i, Blocks: 1, Pack: packIDs[0], FrameIndex: uint16(i), FrameLength: chunk.MinFrame}
			if err := l.Add(r, []block.Sum{{byte(i), byte(i >> 8), byte(i >> 16), 1}}); err != nil {
				return err
			}
		}
		return nil
	})
	if l.Blocks != n {
		t.Errorf("blocks: got %d", l.Blocks)
	}
	for _, i := range []int64{0, 1, n / 2, n - 1} {
		s.reads = 0
		v := s.view(l)
		p, err := v.At(t.Context(), 2*i, 2*n)
		if err != nil || p.Hole || p.FrameIndex != uint16(i) {
			t.Fatalf("block %d: got %+v, %v", 2*i, p, err)
		}
		if p, err = v.At(t.Context(), 2*i+1, 2*n); err != nil || !p.Hole || p.Layer != -1 {
			t.Fatalf("block %d: got %+v, %v, want nothing", 2*i+1, p, err)
		}
		var sum [1]block.Sum
		if err := v.Sums(t.Context(), 2*i, sum[:]); err != nil || sum[0] != (block.Sum{byte(i), byte(i >> 8), byte(i >> 16), 1}) {
			t.Fatalf("sum of block %d: got %x, %v", 2*i, sum, err)
		}
		if s.reads > 16 { // without a cache
			t.Errorf("block %d of a map of %d pages cost %d page reads", 2*i, l.Pages/MaxPage, s.reads)
		}
	}
}

func TestHolesOfAnyLength(t *testing.T) {
	t.Parallel()
	s := &mapStore{objects: make(map[ID][]byte)}
	l := s.write(t, ID{1}, func(l *LayerWriter) error { return l.Add(Run{First: 1, Blocks: block.MaxBlocks - 1, Hole: true}, nil) })
	v := s.view(l)
	if p, err := v.At(t.Context(), block.MaxBlocks-5, block.MaxBlocks); err != nil || !p.Hole || p.Layer != 0 || p.Blocks != 5 {
		t.Errorf("got %+v, %v", p, err)
	}
}

func TestLayerWriterRefusesDisorder(t *testing.T) {
	t.Parallel()
	m := NewMapWriter(new(bytes.Buffer), [32]byte{}, 1, ID{})
	l := m.Layer(Disk{ID: "a"})
	if err := l.Add(Run{First: 10, Blocks: 5, Hole: true}, nil); err != nil {
		t.Fatal(err)
	}
	for name, r := range map[string]Run{"overlap": {First: 14, Blocks: 1, Hole: true}, "empty": {First: 20, Hole: true}, "data without sums": {First: 20, Blocks: 1}} {
		if err := l.Add(r, nil); !errors.Is(err, ErrFormat) {
			t.Errorf("%s: got %v, want ErrFormat", name, err)
		}
	}
}

func TestNoChangedBitOfAPageOpens(t *testing.T) {
	t.Parallel()
	s := &mapStore{objects: make(map[ID][]byte)}
	runs, sums := randomLayer(rand.New(rand.NewPCG(1, 1)), 300, 0.5, make(model))
	l := s.writeRuns(t, ID{1}, runs, sums)
	stored := s.objects[l.Map][l.Entries.Offset : l.Entries.Offset+l.Entries.Length]
	c := NewPageCipher(pageKey(l.Map))
	for i := range stored {
		bad := slices.Clone(stored)
		bad[i] ^= 0x10
		if _, err := c.Open(l.Entries, bad, Entries, 0); !errors.Is(err, ErrAuth) {
			t.Fatalf("byte %d changed: got %v, want ErrAuth", i, err)
		}
	}
	if _, err := c.Open(l.Entries, slices.Clone(stored), Sums, 0); !errors.Is(err, ErrFormat) {
		t.Errorf("page of another tree: got %v, want ErrFormat", err)
	}
	if _, err := NewPageCipher([32]byte{5}).Open(l.Entries, slices.Clone(stored), Entries, 0); !errors.Is(err, ErrAuth) {
		t.Errorf("page with another key: got %v, want ErrAuth", err)
	}
}

// TestMapSample reads a map of a released version.
func TestMapSample(t *testing.T) {
	t.Parallel()
	s := &mapStore{objects: make(map[ID][]byte)}
	m := make(model)
	rng := rand.New(rand.NewPCG(11, 11))
	runs, sums := randomLayer(rng, 200, 0.6, m)
	id := ID{0x5a}
	l := s.writeRuns(t, id, runs, sums)
	path := filepath.Join("testdata", "v1-map.bin")
	if _, err := os.Stat(path); *update && errors.Is(err, os.ErrNotExist) {
		if err := os.WriteFile(path, s.objects[id], 0o644); err != nil {
			t.Fatal(err)
		}
	}
	p, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(p, s.objects[id]) {
		t.Error("the same map is written differently now")
	}
	s.objects[id] = p
	tr, err := chunk.ParseTrailer(p[len(p)-chunk.TrailerSize:], chunk.MapTrailer, int64(len(p)))
	if err != nil {
		t.Fatal(err)
	}
	var x MapIndex
	if err := recordKey.Open("maps/"+id.String(), p[tr.Offset:tr.Offset+tr.Length], &x); err != nil {
		t.Fatal(err)
	}
	if got := x.Disks[0].Layers[0]; *got.Entries != *l.Entries || got.Blocks != l.Blocks {
		t.Errorf("index: got %+v, want %+v", got, l)
	}
	requireModel(t, s.view(x.Disks[0].Layers[0]), m, 200, rng)
}

// FuzzPage plays a writer with the key: only then do a page's bytes get this far.
func FuzzPage(f *testing.F) {
	e := entryLeaf{}
	e.add(&Run{First: 3, Blocks: 2, Pack: ID{1}, FrameLength: chunk.MinFrame})
	e.add(&Run{First: 9, Blocks: 2, Hole: true})
	_, p := e.page()
	f.Add(p)
	var s sumLeaf
	s.add(5, make([]block.Sum, 3))
	s.add(50, make([]block.Sum, 2))
	_, p = s.page()
	f.Add(p)
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := parsePage(b)
		if err != nil {
			if !errors.Is(err, ErrFormat) {
				t.Fatalf("got %v, want ErrFormat", err)
			}
			return
		}
		switch { // every accessor has to hold for every item
		case p.Level > 0:
			for i := range p.n {
				if r := p.child(i); !r.valid() || p.childFor(p.key(i)) != i {
					t.Fatalf("child %d", i)
				}
			}
		case p.Tree == Entries:
			var again entryLeaf
			for i := range p.n {
				r := p.run(i)
				if p.runFor(r.First) != i || !again.add(&r) {
					t.Fatalf("entry %d", i)
				}
			}
			_, q := again.page()
			if _, err := parsePage(q); err != nil {
				t.Fatalf("entries encoded again: %v", err)
			}
		case p.Tree == Sums:
			for i := range p.aux {
				first, n := p.sumRun(i)
				if got := p.sums(first, make([]block.Sum, n)); int64(got) != n {
					t.Fatalf("run %d: %d sums of %d", i, got, n)
				}
			}
		case p.Tree == Packs:
			for i := range p.n {
				p.use(i)
			}
		}
	})
}
