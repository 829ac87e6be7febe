package ship_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lifeboat-dr/lifeboat/agent/quiesce"
	"github.com/lifeboat-dr/lifeboat/agent/ship"
	"github.com/lifeboat-dr/lifeboat/agent/source"
	"github.com/lifeboat-dr/lifeboat/replicator/ingest"
	"github.com/lifeboat-dr/lifeboat/sdk/fleet"
)

// first waits for the first point.
func (a *agent) first() {
	a.t.Helper()
	a.await("first point", func(st fleet.ProtectionStatus) bool { return st.LastPoint.Sequence == 1 && st.Phase == fleet.Delta })
}

// refused waits for a capture to be refused with the given words, and asks for it first.
func (a *agent) refused(words string) fleet.ProtectionStatus {
	a.t.Helper()
	a.n++
	a.want.CaptureId = "refused"
	a.Set(a.want)
	return a.await("refusal with "+words, func(st fleet.ProtectionStatus) bool { return strings.Contains(st.Error.Message, words) })
}

func TestCaptureThatOutlastsTheFreezeLimitIsRefused(t *testing.T) {
	t.Parallel()
	m := newMachine(t, 32<<20)
	r := newMemory()
	s := newSite(t, r)
	var slow atomic.Bool
	want := s.want(disksOf(t, m.source))
	want.FreezeTimeoutSeconds = 1
	a := s.run(s.config(m.source), want, func(p *ship.Protector) {
		p.OnWindow(func() {
			if slow.Load() { // as a disk that hangs would
				until(t, "thaw by the dead-man", func() bool { return os.WriteFile(filepath.Join(m.mount, "probe"), []byte("x"), 0o600) == nil })
			}
		})
	})
	a.want = want
	a.first()
	slow.Store(true)
	st := a.refused("freeze deadline")
	if st.LastPoint.Sequence != 1 || s.count() != 1 || st.LastCaptureId == "refused" {
		t.Errorf("got %d points, status %+v", s.count(), st)
	}
	if st.Error.PossibleCauses == "" || st.Error.RecommendedAction == "" {
		t.Errorf("got %+v, want causes and what to do", st.Error)
	}
	slow.Store(false)
	a.capture()
	checkFilesystem(t, r.point(t, 2).images["disk0"])
}

func TestImageThatWasLetGoTooEarlyIsRefused(t *testing.T) {
	t.Parallel()
	const size = 4 << 20
	src := source.Config{Disks: []source.Named{{ID: "disk0", Path: image(t, size, 5)}}}
	r := newMemory()
	s := newSite(t, r)
	dir := t.TempDir()
	ran := filepath.Join(dir, "ran")
	cfg := s.config(src)
	cfg.Scripts = quiesce.Scripts{Pre: writeScript(t, dir, "pre", "rm -f "+ran), Post: writeScript(t, dir, "post", "echo post >> "+ran)}
	want := s.want(disksOf(t, src))
	want.FreezeTimeoutSeconds = 1
	var slow atomic.Bool
	a := s.run(cfg, want, func(p *ship.Protector) {
		p.OnWindow(func() {
			if slow.Load() {
				until(t, "post script of the dead-man", func() bool { _, err := os.Stat(ran); return err == nil })
			}
		})
	})
	a.want = want
	a.first()
	slow.Store(true)
	if st := a.refused("deadline passed"); st.LastPoint.Sequence != 1 || s.count() != 1 {
		t.Errorf("got %d points, status %+v", s.count(), st)
	}
	slow.Store(false)
	a.capture()
	if got := string(read(t, ran)); got != "post\n" {
		t.Errorf("got %q, want one post script after the last pre script", got)
	}
}

func TestWriteRateTooHighIsSaid(t *testing.T) {
	t.Parallel()
	m := newMachine(t, 64<<20)
	s := newSite(t, newMemory())
	cfg := s.config(m.source)
	cfg.SpoolBytes = 256 << 10
	// Between the passes and the freeze more is written than the spool holds, once there is a file to say so.
	busy := filepath.Join(t.TempDir(), "busy")
	cfg.Scripts.Pre = writeScript(t, t.TempDir(), "pre", "test ! -e "+busy+" || head -c 2M /dev/urandom > "+m.mount+"/scratch")
	want := s.want(disksOf(t, m.source))
	want.AppConsistentSeconds = 1
	a := s.run(cfg, want, nil)
	a.want = want
	a.await("first point", func(st fleet.ProtectionStatus) bool { return st.LastPoint.Sequence >= 1 })
	if err := os.WriteFile(busy, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	a.refused("write rate too high")
	if err := os.Remove(busy); err != nil {
		t.Fatal(err)
	}
	a.capture()
}

func TestForeignFreezeIsBackedOffFrom(t *testing.T) {
	t.Parallel()
	m := newMachine(t, 32<<20)
	s := newSite(t, newMemory())
	a := s.run(s.config(m.source), s.want(disksOf(t, m.source)), nil)
	a.want = s.want(disksOf(t, m.source))
	a.first()
	command(t, "fsfreeze", "-f", m.mount)
	thawed := false
	defer func() {
		if !thawed {
			_ = exec.Command("fsfreeze", "-u", m.mount).Run()
		}
	}()
	if st := a.refused("frozen by somebody else"); st.Error.Code != "conflict" {
		t.Errorf("got %+v", st.Error)
	}
	command(t, "fsfreeze", "-u", m.mount) // fails if anybody thawed it
	thawed = true
	a.capture()
}

func TestWritesPastTheFilesystemAreNoticed(t *testing.T) {
	t.Parallel()
	m := newMachine(t, 32<<20)
	s := newSite(t, newMemory())
	var raw atomic.Bool
	a := s.run(s.config(m.source), s.want(disksOf(t, m.source)), func(p *ship.Protector) {
		p.OnWindow(func() {
			if !raw.Load() {
				return
			}
			f, err := os.OpenFile(m.loop, os.O_WRONLY|os.O_SYNC, 0)
			if err != nil {
				t.Error(err)
				return
			}
			defer f.Close()
			if _, err := f.WriteAt(make([]byte, 512), 0); err != nil { // the boot sector, unused by ext4
				t.Error(err)
			}
		})
	})
	a.want = s.want(disksOf(t, m.source))
	a.first()
	raw.Store(true)
	if st := a.refused("written while its filesystems were frozen"); st.LastPoint.Sequence != 1 {
		t.Errorf("got point %d", st.LastPoint.Sequence)
	}
}

func TestTwoDisksAreCapturedAtOneInstant(t *testing.T) {
	t.Parallel()
	a, b := newMachine(t, 32<<20), newMachine(t, 32<<20)
	src := source.Config{Disks: []source.Named{{ID: "a", Path: a.loop}, {ID: "b", Path: b.loop}}}
	r := newMemory()
	s := newSite(t, r)
	// A record goes to disk a, synced, and only then to disk b: no point may hold more records on b than on a.
	fa, fb := must(os.Create(filepath.Join(a.mount, "records"))), must(os.Create(filepath.Join(b.mount, "records")))
	quit := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for n := int64(0); ; n++ {
			select {
			case <-quit:
				return
			default:
			}
			for _, f := range []*os.File{fa, fb} {
				if _, err := f.Write(record(n)); err != nil {
					t.Error(err)
					return
				}
				if err := f.Sync(); err != nil {
					t.Error(err)
					return
				}
			}
		}
	})
	defer func() {
		close(quit)
		wg.Wait()
		_, _ = fa.Close(), fb.Close()
	}()
	p := s.run(s.config(src), s.want(disksOf(t, src)), nil)
	p.want = s.want(disksOf(t, src))
	p.first()
	for n := 2; n <= 6; n++ {
		p.capture()
		at := r.point(t, n)
		onA, onB := checkImage(t, at.images["a"], 0), checkImage(t, at.images["b"], 0)
		if onB > onA || onA > onB+1 {
			t.Errorf("point %d holds %d records on a and %d on b: they are of different instants", n, onA, onB)
		}
	}
}

func TestRestlessImageIsRefusedAndAStillOneIsNot(t *testing.T) {
	t.Parallel()
	const size = 4 << 20
	path := image(t, size, 5)
	src := source.Config{Disks: []source.Named{{ID: "disk0", Path: path}}}
	r := newMemory()
	s := newSite(t, r)
	f := must(os.OpenFile(path, os.O_RDWR, 0))
	defer f.Close()
	var moves atomic.Bool
	a := s.run(s.config(src), s.want(disksOf(t, src)), func(p *ship.Protector) {
		p.OnWindow(func() {
			if moves.Load() { // after it was seen standing still, and before it is looked at again
				must(f.WriteAt(randomBytes(4096), 0))
			}
		})
	})
	a.want = s.want(disksOf(t, src))
	a.first() // it stands still
	sameImage(t, "first point", r.point(t, 1).images["disk0"], read(t, path))
	moves.Store(true)
	if st := a.refused("changed in each of"); st.LastPoint.Sequence != 1 {
		t.Errorf("got point %d of an image that moved", st.LastPoint.Sequence)
	}
	moves.Store(false)
	a.await("point once it stands still", func(st fleet.ProtectionStatus) bool { return st.LastPoint.Sequence == 2 })
	sameImage(t, "second point", r.point(t, 2).images["disk0"], read(t, path))
}

func TestFailedQuiesceIsNeverSoldAsAppConsistent(t *testing.T) {
	t.Parallel()
	m := newMachine(t, 32<<20)
	r := newMemory()
	s := newSite(t, r)
	dir := t.TempDir()
	ok := filepath.Join(dir, "ok")
	cfg := s.config(m.source)
	cfg.Scripts.Pre = writeScript(t, dir, "pre", "test -e "+ok+" || { echo the database is away; exit 1; }")
	want := s.want(disksOf(t, m.source))
	want.AppConsistentSeconds = 3600
	a := s.run(cfg, want, nil)
	a.want = want
	a.await("point", func(st fleet.ProtectionStatus) bool { return st.LastPoint.Sequence == 1 })
	if st := a.Status(); !strings.Contains(st.Error.Message, "the database is away") {
		t.Errorf("got %+v, want what the script said", st.Error)
	}
	if err := os.WriteFile(ok, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	a.capture() // still due
	a.capture() // not due
	for n, want := range []fleet.PointConsistency{fleet.CrashConsistent, fleet.ApplicationConsistent, fleet.CrashConsistent} {
		if got := r.point(t, n+1).Consistency; got != string(want) {
			t.Errorf("point %d is %s, want %s", n+1, got, want)
		}
	}
	if st := a.Status(); st.Error != (fleet.Error{}) {
		t.Errorf("got %+v after all is well", st.Error)
	}
}

func TestResyncSendsOnlyWhatDiffers(t *testing.T) {
	t.Parallel()
	const size = 32 << 20
	path := noise(t, size)
	src := source.Config{Disks: []source.Named{{ID: "disk0", Path: path, Stopped: true}}}
	r := openTestRepository(t, t.TempDir())
	s := newSite(t, ingest.FromRepo(r))
	want := s.want(disksOf(t, src))
	a := s.run(s.config(src), want, nil)
	a.first()
	f := must(os.OpenFile(path, os.O_RDWR, 0))
	defer f.Close()
	before := s.server.Stats().TotalBytes
	must(f.WriteAt([]byte("changed"), 5<<20))
	want.ResyncId = "r1"
	a.Set(want)
	a.await("point of the resync", func(st fleet.ProtectionStatus) bool { return st.LastPoint.Sequence == 2 })
	if n := s.server.Stats().TotalBytes - before; n != 4096 {
		t.Errorf("resync of one changed block shipped %d bytes", n)
	}
	sameImage(t, "point", restore(t, r, 2, "disk0", size), read(t, path))

	// Known sums that lie about what the replicator holds are found out by their checksum or their tag; without them all is
	// fetched again.
	a.stop()
	sums := filepath.Join(s.dir, "agent", machineID, "disk0.sums")
	if err := os.Truncate(sums, 2*4096); err != nil { // header and checksums stay
		t.Fatal(err)
	}
	must(f.WriteAt([]byte("changed again"), 7<<20))
	before = s.server.Stats().TotalBytes
	want.CaptureId = "c2"
	a = s.run(s.config(src), want, nil)
	a.await("point after the file of sums was damaged", func(st fleet.ProtectionStatus) bool { return st.LastCaptureId == "c2" })
	if n := s.server.Stats().TotalBytes - before; n != 4096 {
		t.Errorf("a damaged file of sums made %d bytes be shipped for one changed block", n)
	}
	sameImage(t, "point", restore(t, r, 3, "disk0", size), read(t, path))
}

func TestSettledSumsAreTrustedAfterARestart(t *testing.T) {
	t.Parallel()
	const size = 8 << 20
	src := source.Config{Disks: []source.Named{{ID: "disk0", Path: noise(t, size), Stopped: true}}}
	r := newMemory()
	s := newSite(t, r)
	a := s.run(s.config(src), s.want(disksOf(t, src)), nil)
	a.first()
	a.stop()
	want := s.want(disksOf(t, src))
	want.CaptureId = "again"
	b := s.run(s.config(src), want, nil)
	st := b.await("point", func(st fleet.ProtectionStatus) bool { return st.LastCaptureId == "again" })
	if st.TransferredBytes != 0 || st.LastPoint.Sequence != 2 {
		t.Errorf("got %+v for a disk that did not change", st)
	}
	if r.asked != 0 {
		t.Errorf("sums were asked for %d times though the agent had them", r.asked)
	}
}

func TestFencedMachineShipsNothing(t *testing.T) {
	t.Parallel()
	const size = 1 << 20
	path := noise(t, size)
	src := source.Config{Disks: []source.Named{{ID: "disk0", Path: path, Stopped: true}}}
	r := openTestRepository(t, t.TempDir())
	s := newSite(t, ingest.FromRepo(r))
	down := filepath.Join(t.TempDir(), "down")
	cfg := s.config(src)
	cfg.Shutdown = []string{"touch", down}
	want := s.want(disksOf(t, src))
	a := s.run(cfg, want, nil)
	a.want = want
	a.first()
	if _, err := r.CloseGeneration(context.Background(), machineID, 1, "test"); err != nil {
		t.Fatal(err)
	}
	a.want.CaptureId = "late"
	a.Set(a.want)
	st := a.await("being fenced by the replicator", func(st fleet.ProtectionStatus) bool { return st.Phase == fleet.Fenced })
	if st.Error.Code != "fenced" || s.count() != 1 {
		t.Errorf("got %+v and %d points", st, s.count())
	}
	if _, err := os.Stat(down); err == nil {
		t.Error("the machine was shut down though lifeboatd did not say so")
	}
	before := s.server.Stats().TotalBytes
	a.want.Fenced, a.want.FencedAction = true, fleet.Shutdown
	a.Set(a.want)
	until(t, "shutdown", func() bool { _, err := os.Stat(down); return err == nil })
	if n := s.server.Stats(); n.TotalBytes != before {
		t.Errorf("a fenced machine shipped %d bytes", n.TotalBytes-before)
	}
}

func TestVanishedDiskIsNamed(t *testing.T) {
	t.Parallel()
	path := noise(t, 1<<20)
	src := source.Config{Disks: []source.Named{{ID: "disk0", Path: path, Stopped: true}}}
	s := newSite(t, newMemory())
	want := s.want(disksOf(t, src))
	want.Disks = []string{"other"}
	a := s.run(s.config(src), want, nil)
	st := a.await("error", func(st fleet.ProtectionStatus) bool { return st.Phase == fleet.Failed })
	if !strings.Contains(st.Error.Message, "other") || st.Error.Code != "not_found" {
		t.Errorf("got %+v", st.Error)
	}
	want.Disks = []string{"disk0"}
	a.Set(want)
	a.first()
}

func TestYoungerGrantIsHandedOnInTheSession(t *testing.T) {
	t.Parallel()
	src := source.Config{Disks: []source.Named{{ID: "disk0", Path: noise(t, 1<<20), Stopped: true}}}
	r := newMemory()
	var later atomic.Int64 // what the replicator's clock is ahead
	var looks atomic.Int64 // it looks at the clock when it is given a grant, and at no other time
	s := newSiteAt(t, r, func() time.Time {
		looks.Add(1)
		return time.Now().Add(time.Duration(later.Load()))
	})
	want := s.want(disksOf(t, src))
	a := s.run(s.config(src), want, nil)
	a.first()
	before := looks.Load()
	later.Store(int64(2 * time.Hour)) // the first grant is no good any more
	want.Grant = s.grant(1, disksOf(t, src), func(c *fleet.GrantClaims) { c.Exp = time.Now().Add(3 * time.Hour).Unix() })
	a.Set(want)
	a.want = want
	until(t, "grant at the replicator", func() bool { return looks.Load() > before })
	if st := a.capture(); st.Error != (fleet.Error{}) || st.LastPoint.Sequence != 2 {
		t.Errorf("got %+v with the second grant", st)
	}
	if r.sessions() != 1 {
		t.Errorf("got %d sessions, want the first to go on", r.sessions())
	}
}
