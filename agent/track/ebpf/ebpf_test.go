package ebpf_test

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/lifeboat-dr/lifeboat/agent/track"
	"github.com/lifeboat-dr/lifeboat/agent/track/ebpf"
	"github.com/lifeboat-dr/lifeboat/agent/track/sysblock"
	"github.com/lifeboat-dr/lifeboat/agent/track/tracktest"
	"github.com/lifeboat-dr/lifeboat/agent/track/tracktest/loopdisk"
	"github.com/lifeboat-dr/lifeboat/replicator/block"
)

// machine opens a Machine that is gone when the test ends.
func machine(t *testing.T) *ebpf.Machine {
	t.Helper()
	m, err := ebpf.Open(ebpf.Config{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Destroy(); err != nil {
			t.Error(err)
		}
	})
	return m
}

func tracker(t *testing.T, m *ebpf.Machine, d *loopdisk.Disk) *ebpf.Tracker {
	t.Helper()
	tr, resumed, err := m.Track(t.Context(), d.Path)
	if err != nil || resumed {
		t.Fatalf("got %v and resumed %v", err, resumed)
	}
	t.Cleanup(func() {
		if err := m.Forget(d.Path); err != nil {
			t.Error(err)
		}
	})
	return tr
}

func TestContract(t *testing.T) {
	m := machine(t)
	tracktest.Run(t, func(t *testing.T) (track.Tracker, tracktest.Disk) {
		d := loopdisk.New(t, 8<<20)
		return tracker(t, m, d), d
	})
}

// replica is a copy that is kept up to date by nothing but what a tracker says.
type replica struct {
	t     *testing.T
	d     *loopdisk.Disk
	bytes []byte
}

func newReplica(t *testing.T, d *loopdisk.Disk) *replica {
	t.Helper()
	r := &replica{t, d, loopdisk.Buffer(int(d.Size()))}
	r.read(r.bytes, 0)
	return r
}

func (r *replica) read(p []byte, off int64) {
	r.t.Helper()
	if _, err := r.d.ReadAt(p, off); err != nil {
		r.t.Fatal(err)
	}
}

// sync copies what the tracker says and returns how many bytes that was.
func (r *replica) sync(seal func(context.Context) ([]block.Extent, error)) int64 {
	r.t.Helper()
	es, err := seal(r.t.Context())
	if err != nil {
		r.t.Fatal(err)
	}
	if n := r.d.Size(); n != int64(len(r.bytes)) {
		grown := make([]byte, n)
		copy(grown, r.bytes)
		r.bytes = grown
	}
	for _, e := range es {
		r.read(r.bytes[e.Offset:e.End()], e.Offset)
	}
	return track.Bytes(es)
}

// stale counts the blocks in which the copy differs from the disk.
func (r *replica) stale() (n int) {
	now := make([]byte, r.d.Size())
	r.read(now, 0)
	for off := 0; off < len(now); off += block.Size {
		end := min(off+block.Size, len(now))
		if !bytes.Equal(now[off:end], r.bytes[off:end]) {
			n++
		}
	}
	return n
}

func (r *replica) check(what string) {
	r.t.Helper()
	if n := r.stale(); n > 0 {
		r.t.Errorf("%s: %d blocks were left out", what, n)
	}
}

func noise(rng *rand.Rand, n int) []byte {
	p := make([]byte, n)
	for i := range p {
		p[i] = byte(rng.Uint32())
	}
	return p
}

func TestEveryWayToWriteIsSeen(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	m := machine(t)
	d := loopdisk.New(t, 160<<20)
	fill := noise(rng, 8<<20)
	if _, err := d.WriteAt(fill, 64<<20); err != nil {
		t.Fatal(err)
	}
	tr := tracker(t, m, d)
	r := newReplica(t, d)
	part := d.Partition(t, 1, 80<<20, 60<<20)
	p, err := os.OpenFile(part, os.O_RDWR|os.O_SYNC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = p.Close() }()
	for name, write := range map[string]func() error{
		"writes that overlap, from a sector to a MiB": func() error {
			for range 300 {
				n := 512 << rng.IntN(12)
				if _, err := d.WriteAt(noise(rng, n), rng.Int64N((16<<20)/512)*512); err != nil {
					return err
				}
			}
			return nil
		},
		"a discard":             func() error { return d.Discard(64<<20, 3<<20) },
		"a discard of all":      func() error { return d.Discard(0, 140<<20) },
		"write zeroes":          func() error { return d.WriteZeroes(68<<20, 1<<20) },
		"the last sector":       func() error { _, err := d.WriteAt(noise(rng, 512), d.Size()-512); return err },
		"a write on a border":   func() error { _, err := d.WriteAt(noise(rng, 1<<20), (120<<20)-4096); return err },
		"a partition's sectors": func() error { _, err := p.WriteAt(noise(rng, 12345), 4567); return err },
		"fio with many sizes": func() error {
			out, err := exec.Command("fio", "--name=x", "--filename="+d.Path, "--size=64m", "--rw=randwrite", "--direct=1", "--ioengine=libaio", "--iodepth=16",
				"--bssplit=512/20:4k/40:60k/20:512k/10:1m/10", "--io_size=48m", "--refill_buffers", "--allow_file_create=0").CombinedOutput()
			if err != nil {
				t.Logf("%s", out)
			}
			return err
		},
	} {
		if err := write(); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if n := r.sync(tr.Seal); n == 0 {
			t.Errorf("%s: nothing was reported", name)
		}
		if err := tr.Verify(true); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		r.check(name)
		if err := tr.Release(tr.Epoch() - 1); err != nil {
			t.Fatal(err)
		}
	}
	if _, _, err := m.Track(t.Context(), part); !errors.Is(err, sysblock.ErrPartition) {
		t.Errorf("tracking a partition: got %v", err)
	}
	if _, _, err := m.Track(t.Context(), d.Path); err == nil {
		t.Error("a disk has two trackers")
	}
}

// churn writes from several goroutines until it is stopped.
func churn(t *testing.T, d *loopdisk.Disk) (stop func()) {
	var end atomic.Bool
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(rand.Uint64(), 0))
			p := noise(rng, 4096)
			for !end.Load() {
				p[rng.IntN(len(p))]++
				if _, err := d.WriteAt(p, rng.Int64N(d.Size()/4096)*4096); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	return func() { end.Store(true); wg.Wait() }
}

// Reads overtake writes on this disk, so a mark that is set when a write begins may be taken, and the old bytes read, before the
// write lands. Marks at completion would heal that, but a kernel may lose their events: here it loses all.
func TestWritesInFlightAreNotMissed(t *testing.T) {
	type seal = func(context.Context) ([]block.Extent, error)
	for name, c := range map[string]struct {
		of     func(*ebpf.Tracker) seal
		misses bool
	}{
		"with the queue drained":              {func(tr *ebpf.Tracker) seal { return tr.Seal }, false},
		"on a disk that cannot be drained":    {func(tr *ebpf.Tracker) seal { tr.Undrainable(); return tr.Seal }, false},
		"without waiting, which is the proof": {func(tr *ebpf.Tracker) seal { return tr.SealWithoutDrain }, true},
	} {
		t.Run(name, func(t *testing.T) {
			m := machine(t)
			d := loopdisk.NewReordering(t, 8<<20, 20*time.Millisecond)
			tr := tracker(t, m, d)
			if !tr.Stats().Drains {
				t.Error("the disk can be drained, and was not seen to be")
			}
			if err := m.LoseCompletions(); err != nil {
				t.Fatal(err)
			}
			r := newReplica(t, d)
			seal := c.of(tr)
			stop := churn(t, d)
			for end := time.Now().Add(2 * time.Second); time.Now().Before(end); {
				r.sync(seal)
			}
			stop()
			r.sync(seal)
			if n := r.stale(); n > 0 != c.misses {
				t.Errorf("%d blocks were left out", n)
			}
			t.Logf("%+v", tr.Stats())
		})
	}
}

func TestADiskChangesItsSize(t *testing.T) {
	m := machine(t)
	d := loopdisk.New(t, 16<<20)
	tr := tracker(t, m, d)
	r := newReplica(t, d)
	for _, size := range []int64{48 << 20, 20<<20 + 512, 300 << 20, 8 << 20} {
		before := d.Size()
		if _, err := d.WriteAt(bytes.Repeat([]byte{1}, 8192), 4<<20); err != nil {
			t.Fatal(err)
		}
		if err := d.Resize(size); err != nil {
			t.Fatal(err)
		}
		if size > before {
			if _, err := d.WriteAt(bytes.Repeat([]byte{byte(size >> 20)}, 512), size-512); err != nil {
				t.Fatal(err)
			}
		}
		n := r.sync(tr.Seal)
		r.check("after a resize")
		if want := max(size-before/4096*4096, 0) + 8192; n != want || tr.Size() != size {
			t.Errorf("from %d to %d: %d bytes reported, want %d; the size is %d", before, size, n, want, tr.Size())
		}
		if _, err := d.WriteAt(bytes.Repeat([]byte{2}, 4096), size-size%4096-4096); err != nil {
			t.Fatal(err)
		}
		if n := r.sync(tr.Seal); n != 4096 {
			t.Errorf("at the end of %d bytes: %d bytes reported", size, n)
		}
		if err := tr.Verify(true); err != nil {
			t.Error(err)
		}
		r.check("at the new end")
	}
	if got := tr.Stats().Resized; got != 4 {
		t.Errorf("it was resized %d times", got)
	}
}

func TestAMissingMarkIsNoticed(t *testing.T) {
	m := machine(t)
	d := loopdisk.New(t, 16<<20)
	tr := tracker(t, m, d)
	write := func(off int64) {
		t.Helper()
		if _, err := d.WriteAt(make([]byte, 4096), off); err != nil {
			t.Fatal(err)
		}
	}
	write(0)
	see, err := tr.Blind()
	if err != nil {
		t.Fatal(err)
	}
	write(8192)
	if err := see(); err != nil {
		t.Fatal(err)
	}
	if _, err := tr.Seal(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := tr.Verify(true); !errors.Is(err, track.ErrLost) {
		t.Errorf("verify: got %v, want ErrLost", err)
	}
	if _, err := tr.Pending(t.Context()); !errors.Is(err, track.ErrLost) {
		t.Errorf("pending: got %v, want ErrLost", err)
	}
	if err := tr.Release(1); err != nil {
		t.Fatal(err)
	}
	write(4096)
	es, err := tr.Seal(t.Context())
	if err != nil || len(es) != 1 || tr.Verify(true) != nil {
		t.Errorf("afterwards: got %v and %v", es, err)
	}
}

// Nobody knows where a command writes that is passed through.
func TestACommandPassedThroughLosesTheEpoch(t *testing.T) {
	m := machine(t)
	tr := tracker(t, m, loopdisk.New(t, 16<<20))
	tr.Pass()
	if _, err := tr.Seal(t.Context()); !errors.Is(err, track.ErrLost) {
		t.Errorf("got %v, want ErrLost", err)
	}
	if _, err := tr.Seal(t.Context()); err != nil {
		t.Errorf("the next epoch, with the queue drained in between: %v", err)
	}
	if _, err := tr.Pending(t.Context()); !errors.Is(err, track.ErrLost) {
		t.Errorf("pending: got %v, want ErrLost", err)
	}
	if err := tr.Release(1); err != nil {
		t.Fatal(err)
	}
	tr.Undrainable()
	tr.Pass()
	for range 2 { // the command may still be under way
		if _, err := tr.Seal(t.Context()); !errors.Is(err, track.ErrLost) {
			t.Errorf("undrainable: got %v, want ErrLost", err)
		}
	}
	if _, err := tr.Seal(t.Context()); err != nil {
		t.Error(err)
	}
}

// zram has no request queue: what is written to it shows only when it is submitted.
func TestADiskWithoutARequestQueue(t *testing.T) {
	const control = "/sys/class/zram-control/"
	n, err := os.ReadFile(control + "hot_add")
	if err != nil {
		t.Fatalf("%v: this test needs the zram module (modprobe zram)", err)
	}
	id := strings.TrimSpace(string(n))
	path := "/dev/zram" + id
	t.Cleanup(func() {
		if err := os.WriteFile(control+"hot_remove", []byte(id), 0); err != nil {
			t.Error(err)
		}
	})
	if err := os.WriteFile("/sys/block/zram"+id+"/disksize", []byte("16M"), 0); err != nil {
		t.Fatal(err)
	}
	m := machine(t)
	tr, _, err := m.Track(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_WRONLY|syscall.O_DIRECT, 0)
	if err != nil {
		t.Fatal(err)
	}
	p := loopdisk.Buffer(8192)
	for i := range int64(3) {
		if _, err := f.WriteAt(p, (i+1)<<20); err != nil {
			t.Fatal(err)
		}
		es, err := tr.Seal(t.Context())
		if err != nil || track.Bytes(es) < 8192 || !slices.Contains(es, block.Extent{Offset: (i + 1) << 20, Length: 8192}) {
			t.Errorf("got %v and %v", es, err)
		}
		if err := tr.Verify(true); err != nil {
			t.Error(err)
		}
		t.Logf("%v %+v", es, tr.Stats())
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}
