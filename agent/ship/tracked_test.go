package ship_test

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/lifeboat-dr/lifeboat/agent/ship"
	"github.com/lifeboat-dr/lifeboat/agent/source"
	"github.com/lifeboat-dr/lifeboat/agent/track"
	"github.com/lifeboat-dr/lifeboat/agent/track/kernel"
	"github.com/lifeboat-dr/lifeboat/replicator/ingest"
	"github.com/lifeboat-dr/lifeboat/sdk/fleet"
)

// tracked returns a configuration whose disks the kernel tracks, until the test is over.
func (s *site) tracked(src source.Config) ship.Config {
	s.t.Helper()
	cfg := s.config(src)
	k := kernel.New(cfg.StateDir, s.log)
	cfg.Trackers = k
	s.t.Cleanup(func() { forget(s.t, k) })
	return cfg
}

// forget leaves nothing of an agent's tracking in the kernel, as a boot would. The agent does not run, or not any more.
func forget(t testing.TB, k *kernel.Trackers) {
	t.Helper()
	until(t, "end of the agent's tracking", func() bool { return k.Destroy() == nil })
}

// stir writes blocks of files at random until stopped, beside the records of write, and removes and makes files.
func (m *machine) stir(seed uint64) (stop func()) {
	m.t.Helper()
	quit := make(chan struct{})
	var wg sync.WaitGroup
	for w := range 3 {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(seed, uint64(w)))
			p := make([]byte, 64<<10)
			pace := time.NewTicker(5 * time.Millisecond) // 20 MB/s, all together
			defer pace.Stop()
			for {
				select {
				case <-quit:
					return
				case <-pace.C:
				}
				f, err := os.OpenFile(filepath.Join(m.mount, fmt.Sprintf("stir%d-%d", w, rng.IntN(4))), os.O_RDWR|os.O_CREATE, 0o600)
				if err != nil {
					m.t.Error(err)
					return
				}
				b := p[:512*(1+rng.IntN(128))]
				for i := range b {
					b[i] = byte(rng.Uint32())
				}
				_, err = f.WriteAt(b, rng.Int64N(4<<20))
				if rng.IntN(8) == 0 {
					err = f.Sync()
				}
				if rng.IntN(64) == 0 {
					err = os.Remove(f.Name())
				}
				if cerr := f.Close(); err != nil || cerr != nil {
					m.t.Error(err, cerr)
					return
				}
			}
		})
	}
	return sync.OnceFunc(func() {
		close(quit)
		wg.Wait()
	})
}

// instants are the hashes of a machine's disk in each freeze window. Windows that were tried again leave some of their own.
type instants struct {
	mu  sync.Mutex // guards all
	all map[[32]byte]bool
}

func (i *instants) take(m *machine) func() {
	i.all = map[[32]byte]bool{}
	return func() {
		f, err := os.Open(m.backing)
		if err != nil {
			m.t.Error(err)
			return
		}
		defer f.Close()
		h := sha256.New()
		if _, err := io.Copy(h, f); err != nil {
			m.t.Error(err)
		}
		i.mu.Lock()
		defer i.mu.Unlock()
		i.all[[32]byte(h.Sum(nil))] = true
	}
}

func (i *instants) has(image []byte) bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.all[sha256.Sum256(image)]
}

func TestPointsOfATrackedFilesystemAreItsInstants(t *testing.T) {
	t.Parallel()
	for fs, size := range map[string]int64{"ext4": 128 << 20, "xfs": 320 << 20} {
		t.Run(fs, func(t *testing.T) {
			t.Parallel()
			seed := rand.Uint64()
			t.Logf("seed %d", seed)
			m := newMachineWith(t, fs, size)
			m.write()
			stop := m.stir(seed)
			t.Cleanup(stop)
			r := openTestRepository(t, t.TempDir())
			s := newSite(t, ingest.FromRepo(r))
			var seen instants
			want := s.want(disksOf(t, m.source))
			want.CrashConsistentSeconds = 20 // changes flow every two seconds
			a := s.run(s.tracked(m.source), want, func(p *ship.Protector) { p.OnWindow(seen.take(m)) })
			a.want = want
			a.await("first point", func(st fleet.ProtectionStatus) bool { return st.LastPoint.Sequence >= 1 })
			st := a.await("what is dirty and how old the newest point is", func(st fleet.ProtectionStatus) bool { return st.DirtyBytes > 0 && st.LagMillis > 0 })
			if limit := time.Since(st.LastPointTime).Milliseconds(); st.LagMillis > limit {
				t.Errorf("a lag of %d ms is told, the newest point is %d ms old", st.LagMillis, limit)
			}
			put, from := s.server.Stats().TotalBytes, s.count()
			for range 4 {
				st := a.capture()
				t.Logf("point %d: frozen for %d ms, %d bytes shipped in all", st.LastPoint.Sequence, st.FreezeMicros/1000, s.server.Stats().TotalBytes)
				if st.ResyncReason != "" {
					t.Errorf("resync: %s", st.ResyncReason)
				}
			}
			stop()
			st = a.capture()
			a.stop()
			shipped := s.server.Stats().TotalBytes - put
			if points := int64(s.count() - from); shipped == 0 || shipped > points*size {
				t.Errorf("%d bytes were shipped for %d points of %d", shipped, points, size)
			}
			last := int64(0)
			for n := int64(1); n <= st.LastPoint.Sequence; n++ {
				image := restore(t, r, n, "disk0", size)
				if !seen.has(image) {
					t.Errorf("point %d is not what the disk was in any window", n)
				}
				if fs == "ext4" {
					last = checkImage(t, image, last)
				}
			}
			if fs == "ext4" && last == 0 {
				t.Error("no record was written before the last point")
			}
		})
	}
}

// diskRead returns how many bytes a process has read from disks.
func diskRead(t *testing.T, pid int) (n int64) {
	t.Helper()
	for line := range strings.Lines(string(read(t, fmt.Sprintf("/proc/%d/io", pid)))) {
		if _, err := fmt.Sscanf(line, "read_bytes: %d", &n); err == nil {
			return n
		}
	}
	t.Fatal("no read_bytes")
	return 0
}

func TestKilledAgentGoesOnWithWhatWasWritten(t *testing.T) {
	t.Parallel()
	const size, piece = 256 << 20, 4 << 20
	backing, src := rawDisk(t, size)
	disk := must(os.OpenFile(src.Disks[0].Path, os.O_WRONLY|syscall.O_SYNC, 0))
	defer disk.Close()
	r := newMemory()
	s := newSite(t, r)
	state := filepath.Join(s.dir, "agent")
	t.Cleanup(func() { forget(t, kernel.New(state, s.log)) })
	want := s.want(disksOf(t, src))
	want.CrashConsistentSeconds = 20 // changes flow every two seconds
	setup := agentSetup{State: state, Source: src, CA: s.ca.Raw, Identity: packed(s.agent), Want: want, Tracked: true}
	p := start(t, "agent", writeSetup(t, setup))
	until(t, "first point", func() bool { return s.count() == 1 })
	put, asked := r.putBytes("disk0"), r.requests()
	must(disk.WriteAt(randomBytes(piece), 100<<20))
	until(t, "changes on their way", func() bool { return r.putBytes("disk0") >= put+piece })
	p.kill()
	until(t, "end of the session", func() bool { return s.server.Stats().Sessions == 0 })
	points := s.count()
	must(disk.WriteAt(randomBytes(piece), 200<<20))
	setup.Want.CaptureId = "now"
	p = start(t, "agent", writeSetup(t, setup))
	until(t, "point", func() bool { return s.count() > points })
	n := diskRead(t, p.Process.Pid)
	p.end()
	sameImage(t, "point after the kill", r.point(t, s.count()).images["disk0"], read(t, backing))
	if got := r.putBytes("disk0") - put; got != 2*piece {
		t.Errorf("%d bytes were shipped, want the %d that were written", got, 2*piece)
	}
	if n > size/8 {
		t.Errorf("the second agent read %d bytes of a disk of %d", n, size)
	}
	if got := r.requests() - asked; got > 2 {
		t.Errorf("%d requests for sums, want one for each place that was written", got)
	}
}

// rawDisk is a loop device without a filesystem.
func rawDisk(t *testing.T, size int64) (backing string, src source.Config) {
	t.Helper()
	backing = noise(t, size)
	loop := command(t, "losetup", "--find", "--show", backing)
	t.Cleanup(func() { command(t, "losetup", "-d", loop) })
	return backing, source.Config{Disks: []source.Named{{ID: "disk0", Path: loop}}}
}

func TestResyncSendsWhatChanged(t *testing.T) {
	t.Parallel()
	const size = 128 << 20
	backing, src := rawDisk(t, size)
	r := newMemory()
	s := newSite(t, r)
	cfg := s.tracked(src)
	a := s.run(cfg, s.want(disksOf(t, src)), nil)
	a.await("first point", func(st fleet.ProtectionStatus) bool { return st.LastPoint.Sequence == 1 && st.Phase == fleet.Delta })
	a.stop()
	forget(t, cfg.Trackers.(*kernel.Trackers))
	f := must(os.OpenFile(src.Disks[0].Path, os.O_WRONLY|syscall.O_SYNC, 0))
	changed := int64(0)
	for off := int64(0); off < size; off += 1 << 20 { // a quarter, in pieces
		must(f.WriteAt(randomBytes(256<<10), off+off/4%(512<<10)))
		changed += 256 << 10
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	put := r.putBytes("disk0")
	want := s.want(disksOf(t, src))
	want.CaptureId = "after the outage"
	b := s.run(cfg, want, nil)
	st := b.await("point", func(st fleet.ProtectionStatus) bool { return st.LastCaptureId == want.CaptureId })
	b.stop()
	if !strings.Contains(st.ResyncReason, "not found") || st.ResyncTime.IsZero() {
		t.Errorf("got reason %q at %v, want that tracking was not found", st.ResyncReason, st.ResyncTime)
	}
	sameImage(t, "point", r.point(t, s.count()).images["disk0"], read(t, backing))
	if got := r.putBytes("disk0") - put; got > changed*11/10 || got < changed {
		t.Errorf("resync sent %d bytes where %d changed", got, changed)
	}
}

// faulty loses epochs when told to.
type faulty struct {
	ship.Trackers
	verify chan struct{} // a token loses one
}

type faultyTracker struct {
	track.Tracker
	f *faulty
}

func (f *faulty) Open(ctx context.Context, machine string, d source.Disk) (track.Tracked, error) {
	t, err := f.Trackers.Open(ctx, machine, d)
	t.Tracker = &faultyTracker{t.Tracker, f}
	return t, err
}

func (t *faultyTracker) Verify(bool) error {
	select {
	case <-t.f.verify:
		return fmt.Errorf("%w: bytes are missing", track.ErrLost)
	default:
		return nil
	}
}

func TestLostChangesAreComparedAndSaid(t *testing.T) {
	t.Parallel()
	const size = 64 << 20
	backing, src := rawDisk(t, size)
	r := newMemory()
	s := newSite(t, r)
	cfg := s.tracked(src)
	f := &faulty{Trackers: cfg.Trackers, verify: make(chan struct{}, 1)}
	cfg.Trackers = f
	a := s.run(cfg, s.want(disksOf(t, src)), nil)
	a.want = s.want(disksOf(t, src))
	a.first()
	put := r.putBytes("disk0")
	disk := must(os.OpenFile(src.Disks[0].Path, os.O_WRONLY|syscall.O_SYNC, 0))
	defer disk.Close()
	must(disk.WriteAt(randomBytes(64<<10), 1<<20))
	f.verify <- struct{}{}
	st := a.capture()
	if !strings.Contains(st.ResyncReason, "bytes are missing") {
		t.Errorf("got reason %q", st.ResyncReason)
	}
	if got := r.putBytes("disk0") - put; got != 64<<10 {
		t.Errorf("%d bytes were shipped, want what changed", got)
	}
	sameImage(t, "point", r.point(t, s.count()).images["disk0"], read(t, backing))
	if st = a.capture(); st.Phase != fleet.Delta && st.Phase != fleet.Capturing {
		t.Errorf("got phase %s after the resync", st.Phase)
	}
}

// TestStateMayLieOnTheProtectedFilesystem has the agent keep its state where it freezes: in the window it writes nothing, and what it
// writes between windows is in the points like anything else, and little.
func TestStateMayLieOnTheProtectedFilesystem(t *testing.T) {
	t.Parallel()
	const size = 128 << 20
	m := newMachine(t, size)
	m.write()
	stop := m.stir(7)
	t.Cleanup(stop)
	r := newMemory()
	s := newSite(t, r)
	cfg := s.config(m.source)
	cfg.StateDir = filepath.Join(m.mount, "agent")
	k := kernel.New(cfg.StateDir, s.log)
	cfg.Trackers = k
	t.Cleanup(func() { forget(t, k) })
	var seen instants
	a := s.run(cfg, s.want(disksOf(t, m.source)), func(p *ship.Protector) { p.OnWindow(seen.take(m)) })
	a.want = s.want(disksOf(t, m.source))
	a.first()
	last := int64(0)
	for n := 2; n <= 6; n++ {
		st := a.capture()
		// In each pass, a page of sums and one of checksums for every MiB of the disk, at most.
		const windows, passes = size >> 20, 2 * 8
		if st.SelfDirtyBytes == 0 || st.SelfDirtyBytes > passes*windows*8<<10+64<<10 {
			t.Errorf("the agent wrote %d bytes to its own disk", st.SelfDirtyBytes)
		}
		image := r.point(t, n).images["disk0"]
		if !seen.has(image) {
			t.Errorf("point %d is not what the disk was in any window", n)
		}
		last = checkImage(t, image, last)
		t.Logf("point %d: frozen for %d ms, own %d bytes", n, st.FreezeMicros/1000, st.SelfDirtyBytes)
	}
	stop()
	m.stop()
	a.capture()
	before := r.putBytes("disk0")
	for range 3 { // what the agent's own writes lead to dies away
		a.capture()
	}
	if n := (r.putBytes("disk0") - before) / 3; n > 256<<10 {
		t.Errorf("an idle machine's captures ship %d bytes each", n)
	} else {
		t.Logf("an idle machine's captures ship %d bytes each", n)
	}
}
