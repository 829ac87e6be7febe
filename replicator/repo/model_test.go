package repo_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"gocloud.dev/blob/memblob"
	"pgregory.net/rapid"

	"github.com/lifeboat-dr/lifeboat/replicator/block"
	"github.com/lifeboat-dr/lifeboat/replicator/repo"
)

// model drives one machine through random writes, commits, crashes and failovers, and remembers what every point has to show.
type model struct {
	*rapid.T
	v      *vault
	g      *guest
	rng    *rand.Rand
	dirs   []string
	dir    string
	w      *repo.Writer
	gen    int64
	points map[repo.PointRef]*guest
	last   *repo.PointRef
	// dirty: the guest has content that the writer was not given or that was not synced to dir.
	dirty bool
	sizes map[string]int64 // of pack files when they were synced
	ahead time.Duration    // of the model's clock
	small bool             // the writers' limits are

	largest map[string]int64 // size of disks that come back: they may have grown, not shrunk
}

func (m *model) now() time.Time { return time.Now().Add(m.ahead) }

func (m *model) must(err error) {
	m.Helper()
	if err != nil {
		m.Fatal(err)
	}
}

func (m *model) open() {
	w, err := m.v.NewWriter(context.Background(), m.g.machine, m.gen, m.g.disks, repo.WriterOptions{Dir: m.dir, Workers: 2})
	m.must(err)
	if m.small {
		w.Shrink()
	}
	m.w = w
	if (m.last == nil) != (w.Base() == nil) || m.last != nil && *w.Base() != *m.last {
		m.Fatalf("base: got %v, want %v", w.Base(), m.last)
	}
}

func (m *model) disk() repo.DiskInfo { return m.g.disks[m.rng.IntN(len(m.g.disks))] }

func (m *model) extent(size, most int64) block.Extent {
	n := block.Count(size)
	first := m.rng.Int64N(n)
	blocks := min(1+m.rng.Int64N(most), n-first)
	off := first * block.Size
	return block.Extent{Offset: off, Length: min(off+blocks*block.Size, size) - off}
}

// write changes the guest and puts the change, a few extents at a time.
func (m *model) write() {
	d := m.disk()
	var extents []block.Extent
	for range 1 + m.rng.IntN(4) {
		e := m.extent(d.Size, 48)
		p := m.g.bytes[d.ID][e.Offset:e.End()]
		switch m.rng.IntN(4) {
		case 0:
			clear(p[:min(len(p), 8192)])
		default:
			scribble(m.rng, p)
		}
		extents = append(extents, e)
	}
	m.must(put(context.Background(), m.v, m.w, m.g, d.ID, extents...))
	m.dirty = true
}

func (m *model) zero() {
	d := m.disk()
	e := m.extent(d.Size, 1<<20)
	clear(m.g.bytes[d.ID][e.Offset:e.End()])
	m.must(m.w.Zero(context.Background(), d.ID, e))
	m.dirty = true
}

func (m *model) sync() {
	if m.rng.IntN(3) == 0 {
		m.must(m.w.Checkpoint(context.Background()))
	} else {
		m.must(m.w.Sync(context.Background()))
	}
	m.dirty = false
	m.sizes = m.packSizes()
}

func (m *model) packSizes() map[string]int64 {
	sizes := make(map[string]int64)
	found, err := filepath.Glob(filepath.Join(m.dir, m.g.machine, "*", "*.pack"))
	m.must(err)
	for _, f := range found {
		st, err := os.Stat(f)
		m.must(err)
		sizes[f] = st.Size()
	}
	return sizes
}

func (m *model) commit() {
	p, err := m.w.Commit(context.Background(), repo.Commit{Time: m.now()})
	m.must(err)
	m.points[p.PointRef] = m.g.clone()
	m.last = &p.PointRef
	m.dirty, m.sizes = false, nil
}

// crash loses a random part of what was not synced, and opens the next writer on the same spool.
func (m *model) crash() {
	m.must(m.w.Close())
	for f, size := range m.packSizes() {
		if synced := m.sizes[f]; size > synced && m.rng.IntN(2) == 0 {
			m.must(os.Truncate(f, synced+m.rng.Int64N(size-synced)))
		}
	}
	m.open()
	if differs := m.resync(); differs && !m.dirty {
		m.Fatal("a writer on the same spool lost what was synced")
	}
	m.dirty = true
}

// move opens the next writer on another spool: only what was checkpointed comes along.
func (m *model) move() {
	old := m.w
	m.dir = m.dirs[m.rng.IntN(len(m.dirs))]
	m.must(old.Close())
	m.open()
	m.resync()
	m.dirty = true
}

// resync puts what differs by the compare sums, as an agent does, and tells whether anything did.
func (m *model) resync() (differs bool) {
	for _, d := range m.g.disks {
		summer := block.NewSummer(m.v.SumKey(m.g.machine, d.ID))
		sums := make([]block.Sum, block.Count(d.Size))
		m.must(m.w.Sums(context.Background(), d.ID, 0, sums))
		for i, s := range sums {
			off := int64(i) * block.Size
			e := block.Extent{Offset: off, Length: min(block.Size, d.Size-off)}
			if s != summer.Of(m.g.bytes[d.ID][off:e.End()]) {
				differs = true
				m.must(put(context.Background(), m.v, m.w, m.g, d.ID, e))
			}
		}
	}
	return differs
}

// grow makes a disk larger, which needs a new writer.
func (m *model) grow() {
	m.must(m.w.Close())
	i := m.rng.IntN(len(m.g.disks))
	d := &m.g.disks[i]
	more := (1 + m.rng.Int64N(40)) * block.Sector
	d.Size += more
	m.g.bytes[d.ID] = append(m.g.bytes[d.ID], make([]byte, more)...)
	m.open()
	m.resync()
	m.dirty = true
}

// plug adds a disk, or one that was taken away before, with whatever is on it.
func (m *model) plug() {
	d := repo.DiskInfo{ID: string(rune('c' + m.rng.IntN(3))), Size: (1 + m.rng.Int64N(600)) * block.Sector}
	if m.g.bytes[d.ID] != nil {
		return
	}
	d.Size = max(d.Size, m.largest[d.ID])
	m.largest[d.ID] = d.Size
	m.g.disks = append(m.g.disks, d)
	m.g.bytes[d.ID] = make([]byte, d.Size)
	scribble(m.rng, m.g.bytes[d.ID][:m.rng.Int64N(d.Size)])
	m.must(m.w.Close())
	m.open()
	m.resync()
	m.dirty = true
}

// unplug takes a disk away. Points that have it keep it.
func (m *model) unplug() {
	if len(m.g.disks) == 1 {
		return
	}
	m.must(m.w.Close())
	i := m.rng.IntN(len(m.g.disks))
	id := m.g.disks[i].ID
	m.largest[id] = m.g.disks[i].Size
	m.g.disks = slices.Delete(m.g.disks, i, i+1)
	delete(m.g.bytes, id)
	m.open()
	m.resync()
	m.dirty = true
}

// failover closes the generation and opens the next on a random point.
func (m *model) failover() {
	late := m.w
	last, err := m.v.CloseGeneration(context.Background(), m.g.machine, m.gen, "failover")
	m.must(err)
	if last != nil && *last != *m.last {
		m.Fatalf("newest point of a closed generation: got %v, want %v", last, m.last)
	}
	if _, err := late.Commit(context.Background(), repo.Commit{Time: t0}); !errors.Is(err, repo.ErrFenced) {
		m.Fatalf("commit into a closed generation: got %v, want ErrFenced", err)
	}
	m.must(late.Close())
	m.gen++
	m.must(m.v.OpenGeneration(context.Background(), m.g.machine, m.gen, m.last))
	m.open()
	m.resync()
	m.dirty = true
}

// prune drops points, and sweeps two days later: objects that nothing lists by then are older than the grace.
func (m *model) prune() {
	keep := repo.Retention{All: 47 * time.Hour, Hourly: 100 * time.Hour}
	for range 2 {
		_, err := m.v.Prune(context.Background(), m.g.machine, keep, m.now())
		m.must(err)
		m.ahead += 48 * time.Hour
	}
	points, err := m.v.Points(context.Background(), m.g.machine)
	m.must(err)
	left := make(map[repo.PointRef]*guest)
	for _, p := range points {
		left[p.PointRef] = m.points[p.PointRef]
	}
	if m.last != nil && left[*m.last] == nil {
		m.Fatalf("prune dropped the newest point %v", *m.last)
	}
	m.points = left
}

// requireDisks wants a point to have the guest's disks and no others.
func requireDisks(t tester, v *vault, ref repo.PointRef, g *guest) {
	t.Helper()
	s, err := v.OpenPoint(t.Context(), g.machine, ref)
	if err != nil {
		t.Fatalf("open point %v: %v", ref, err)
	}
	defer s.Close()
	if got := s.Point().Disks; !slices.Equal(got, g.disks) {
		t.Fatalf("point %v: got disks %v, want %v", ref, got, g.disks)
	}
}

func TestEveryPointShowsTheBytesOfItsInstant(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	run := 0
	rapid.Check(t, func(rt *rapid.T) {
		run++
		b := memblob.OpenBucket(nil)
		defer b.Close()
		seed := rapid.Uint64().Draw(rt, "seed")
		m := &model{T: rt, small: rapid.Bool().Draw(rt, "small limits"), rng: rand.New(rand.NewPCG(seed, 1)), gen: 1,
			points: make(map[repo.PointRef]*guest), largest: make(map[string]int64),
			g: newGuest("vm", repo.DiskInfo{ID: "a", Size: 2<<20 + 1536}, repo.DiskInfo{ID: "b", Size: 300 * block.Size})}
		m.v = openVault(t, b, repo.Options{CacheBytes: 1 << 20, Now: m.now})
		for i := range 2 {
			m.dirs = append(m.dirs, filepath.Join(root, fmt.Sprint(run, "-", i)))
		}
		m.dir = m.dirs[0]
		m.must(m.v.OpenGeneration(context.Background(), "vm", 1, nil))
		m.open()
		defer func() { m.must(m.w.Close()) }()
		steps := rapid.SliceOfN(rapid.SampledFrom([]string{"write", "write", "write", "zero", "sync", "commit", "commit", "commit", "crash", "move",
			"grow", "plug", "unplug", "failover", "prune"}), 1, 120).Draw(rt, "steps")
		for _, s := range steps {
			switch s {
			case "write":
				m.write()
			case "zero":
				m.zero()
			case "sync":
				m.sync()
			case "commit":
				m.commit()
			case "crash":
				m.crash()
			case "move":
				m.move()
			case "grow":
				m.grow()
			case "plug":
				m.plug()
			case "unplug":
				m.unplug()
			case "failover":
				m.failover()
			case "prune":
				m.prune()
			}
		}
		m.commit()
		for ref, g := range m.points {
			requireEqual(rt, m.v, ref, g)
			requireDisks(rt, m.v, ref, g)
			if _, err := m.v.Verify(context.Background(), "vm", ref); err != nil {
				rt.Fatalf("verify %v: %v", ref, err)
			}
		}
	})
}
