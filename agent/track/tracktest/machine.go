package tracktest

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/lifeboat-dr/lifeboat/agent/track"
	"github.com/lifeboat-dr/lifeboat/replicator/block"
)

// Host is a hypervisor with a machine of at least two disks, as a test plays with it.
type Host interface {
	// Open opens the machine, once more too.
	Open(t *testing.T) track.Machine
	// Disks are those of the machine, in its order, written to as its guest does. Writing is safe for concurrent use.
	Disks() []Disk
	// Kill makes the host see the process that opened the machine die.
	Kill(t *testing.T, m track.Machine)
	// Reset restarts the guest; the hypervisor's process of the machine lives on.
	Reset(t *testing.T)
	// Restart ends the hypervisor's process of the machine and starts another.
	Restart(t *testing.T)
}

// HostHarness makes a fresh host.
type HostHarness func(t *testing.T) Host

// RunMachine holds machines to the contract of track.Machine, and their trackers to that of track.Tracker.
func RunMachine(t *testing.T, h HostHarness) {
	t.Run("a tracker of a disk", func(t *testing.T) {
		Run(t, func(t *testing.T) (track.Tracker, Disk) {
			host := h(t)
			return open(t, host).Tracker(1), host.Disks()[1]
		})
	})
	t.Run("a view stands still", func(t *testing.T) { testView(t, h) })
	t.Run("a view is of one instant of all disks", func(t *testing.T) { testInstant(t, h) })
	t.Run("no change is left out", func(t *testing.T) { testSnapshots(t, h) })
	t.Run("one snapshot is open at a time", func(t *testing.T) { testOne(t, h) })
	t.Run("a killed agent loses nothing", func(t *testing.T) { testKilled(t, h) })
	t.Run("a reset of the guest loses nothing", func(t *testing.T) { testReset(t, h) })
	t.Run("another process of the hypervisor lost everything and says so", func(t *testing.T) { testRestart(t, h) })
}

func open(t *testing.T, h Host) track.Machine {
	t.Helper()
	m := h.Open(t)
	t.Cleanup(func() { _ = m.Close() })
	if len(m.Disks()) != len(h.Disks()) || len(m.Disks()) < 2 {
		t.Fatalf("got disks %+v, want %d", m.Disks(), len(h.Disks()))
	}
	for i, d := range m.Disks() {
		if d.Size != h.Disks()[i].Size() || d.ID == "" {
			t.Fatalf("got disk %+v, want one of %d bytes", d, h.Disks()[i].Size())
		}
	}
	return m
}

func snapshot(t *testing.T, m track.Machine) track.Snapshot {
	t.Helper()
	s, err := m.Snapshot(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func rest(t *testing.T, s track.Snapshot) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

func release(t *testing.T, m track.Machine) {
	t.Helper()
	for i := range m.Disks() {
		if err := m.Tracker(i).Release(m.Tracker(i).Epoch() - 1); err != nil {
			t.Fatal(err)
		}
	}
}

func content(t *testing.T, d Disk) []byte {
	t.Helper()
	p := make([]byte, d.Size())
	if _, err := d.ReadAt(p, 0); err != nil {
		t.Fatal(err)
	}
	return p
}

// scribble writes at random places.
func scribble(t *testing.T, rng *rand.Rand, h Host, writes int) {
	t.Helper()
	for range writes {
		d := h.Disks()[rng.IntN(len(h.Disks()))]
		p := make([]byte, block.Sector*(1+rng.IntN(300)))
		for i := range p {
			p[i] = byte(rng.Uint32())
		}
		if rng.IntN(5) == 0 {
			clear(p)
		}
		if _, err := d.WriteAt(p, rng.Int64N((d.Size()-int64(len(p)))/block.Sector)*block.Sector); err != nil {
			t.Error(err)
			return
		}
	}
}

func newRand(t *testing.T) *rand.Rand {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	return rand.New(rand.NewPCG(seed, 0))
}

// image reads a view as a copy of a disk is made: what is known to be zeros is passed over.
func image(t *testing.T, v track.View) []byte {
	t.Helper()
	out := make([]byte, v.Size())
	const step = 1 << 20
	for off := int64(0); off < v.Size(); {
		data, err := v.NextData(off)
		if err != nil {
			t.Fatal(err)
		}
		if off = max(off, data/block.Size*block.Size); off >= v.Size() {
			break
		}
		p := v.Buffer(int(min(step, v.Size()-off)))
		if n, err := v.ReadAt(p, off); err != nil || n != len(p) {
			t.Fatalf("read at %d: %d bytes, %v", off, n, err)
		}
		off += int64(copy(out[off:], p))
	}
	return out
}

func testView(t *testing.T, h HostHarness) {
	host := h(t)
	m := open(t, host)
	rng := newRand(t)
	for round := range 3 {
		scribble(t, rng, host, 20)
		want := make([][]byte, len(host.Disks()))
		for i, d := range host.Disks() {
			want[i] = content(t, d)
		}
		s := snapshot(t, m)
		done := make(chan struct{})
		other := rand.New(rand.NewPCG(rng.Uint64(), 0))
		go func() {
			defer close(done)
			scribble(t, other, host, 60)
		}()
		for i := range want {
			if !bytes.Equal(image(t, s.View(i)), want[i]) {
				t.Errorf("round %d: disk %d is not what it was at the instant", round, i)
			}
		}
		<-done
		for i := range want { // once more, with all of the writing behind
			if !bytes.Equal(image(t, s.View(i)), want[i]) {
				t.Errorf("round %d: disk %d is not what it was at the instant, in the end", round, i)
			}
		}
		v := s.View(0)
		rest(t, s)
		if _, err := v.ReadAt(v.Buffer(block.Size), 0); err == nil {
			t.Error("a view was read after its snapshot was closed")
		}
		if err := s.Close(); err == nil {
			t.Error("a snapshot was closed twice")
		}
		release(t, m)
	}
}

func testInstant(t *testing.T, h HostHarness) {
	host := h(t)
	m := open(t, host)
	stop, done := make(chan struct{}), make(chan struct{})
	go func() { // a count is on the first disk before it is on the second
		defer close(done)
		p := make([]byte, block.Sector)
		for n := uint64(1); ; n++ {
			binary.BigEndian.PutUint64(p, n)
			for _, d := range host.Disks()[:2] {
				if _, err := d.WriteAt(p, 0); err != nil {
					t.Error(err)
					return
				}
			}
			select {
			case <-stop:
				return
			default:
			}
		}
	}()
	defer func() { <-done }()
	defer close(stop)
	var last uint64
	for range 20 {
		s := snapshot(t, m)
		var n [2]uint64
		for i := range n {
			p := s.View(i).Buffer(block.Sector)
			if _, err := s.View(i).ReadAt(p, 0); err != nil {
				t.Fatal(err)
			}
			n[i] = binary.BigEndian.Uint64(p)
		}
		rest(t, s)
		if n[0] < n[1] || n[0] > n[1]+1 || n[0] < last {
			t.Fatalf("the disks are of counts %d and %d, after %d", n[0], n[1], last)
		}
		last = n[0]
		release(t, m)
	}
	if last == 0 {
		t.Error("nothing was written between the snapshots")
	}
}

// replicas are kept up to date by nothing but what trackers and views say.
type replicas [][]byte

func newReplicas(h Host) (r replicas) {
	for _, d := range h.Disks() {
		r = append(r, make([]byte, d.Size()))
	}
	return r
}

// follow takes a snapshot and copies what is pending. It tells whether the trackers vouched for all of it.
func (r replicas) follow(t *testing.T, m track.Machine) (known bool) {
	t.Helper()
	s := snapshot(t, m)
	known = true
	for i := range r {
		es, err := m.Tracker(i).Pending(context.Background())
		if errors.Is(err, track.ErrLost) {
			es, known = []block.Extent{{Length: int64(len(r[i]))}}, false
		} else if err != nil {
			t.Fatal(err)
		}
		checkShape(t, es, int64(len(r[i])))
		for _, e := range es {
			if _, err := s.View(i).ReadAt(r[i][e.Offset:e.End()], e.Offset); err != nil {
				t.Fatal(err)
			}
		}
		if !bytes.Equal(r[i], image(t, s.View(i))) {
			t.Fatalf("disk %d: a changed extent was left out", i)
		}
	}
	rest(t, s)
	return known
}

func testSnapshots(t *testing.T, h HostHarness) {
	host := h(t)
	m := open(t, host)
	rng := newRand(t)
	r := newReplicas(host)
	if r.follow(t, m) {
		t.Error("a machine that was never tracked vouched for its first epoch")
	}
	release(t, m)
	for round := range 25 {
		scribble(t, rng, host, rng.IntN(15))
		switch rng.IntN(4) {
		case 0: // a capture that becomes nothing
			rest(t, snapshot(t, m))
			continue
		case 1:
			old := slices.Clone(r)
			for i := range old {
				old[i] = slices.Clone(r[i])
			}
			old.follow(t, m) // nobody says that it is durable: r must still be able to follow
			continue
		}
		if !r.follow(t, m) {
			t.Errorf("round %d: the trackers lost an epoch", round)
		}
		release(t, m)
	}
}

func testOne(t *testing.T, h HostHarness) {
	m := open(t, h(t))
	s := snapshot(t, m)
	if _, err := m.Snapshot(context.Background()); err == nil {
		t.Fatal("a second snapshot was opened")
	}
	rest(t, s)
	rest(t, snapshot(t, m))
}

func testKilled(t *testing.T, h HostHarness) {
	host := h(t)
	m := open(t, host)
	rng := newRand(t)
	r := newReplicas(host)
	r.follow(t, m)
	release(t, m)
	for round := range 6 {
		scribble(t, rng, host, 10)
		switch round % 3 {
		case 0:
		case 1: // with a view open
			snapshot(t, m)
		case 2: // with an epoch sealed and not released
			rest(t, snapshot(t, m))
		}
		host.Kill(t, m)
		scribble(t, rng, host, 10)
		m = open(t, host)
		if _, err := m.Tracker(0).Pending(context.Background()); err != nil {
			t.Errorf("round %d: what was pending is lost: %v", round, err)
		}
		if !r.follow(t, m) {
			t.Errorf("round %d: the trackers lost an epoch", round)
		}
		release(t, m)
	}
}

func testReset(t *testing.T, h HostHarness) {
	host := h(t)
	m := open(t, host)
	rng := newRand(t)
	r := newReplicas(host)
	r.follow(t, m)
	release(t, m)
	scribble(t, rng, host, 10)
	host.Reset(t)
	scribble(t, rng, host, 10)
	if !r.follow(t, m) {
		t.Error("the trackers lost an epoch")
	}
}

func testRestart(t *testing.T, h HostHarness) {
	host := h(t)
	m := open(t, host)
	rng := newRand(t)
	r := newReplicas(host)
	r.follow(t, m)
	release(t, m)
	scribble(t, rng, host, 10)
	host.Restart(t)
	scribble(t, rng, host, 10)
	if _, err := m.Snapshot(context.Background()); err == nil {
		if _, err := m.Tracker(0).Pending(context.Background()); !errors.Is(err, track.ErrLost) {
			t.Fatalf("got %v from a machine whose hypervisor ended, want ErrLost", err)
		}
	}
	_ = m.Close()
	m = open(t, host)
	if _, err := m.Tracker(0).Pending(context.Background()); !errors.Is(err, track.ErrLost) {
		t.Errorf("got %v, want ErrLost", err)
	}
	if r.follow(t, m) {
		t.Error("nobody counted, and the trackers vouched for it")
	}
	release(t, m)
	scribble(t, rng, host, 10)
	if !r.follow(t, m) {
		t.Error("the trackers lost an epoch")
	}
}
