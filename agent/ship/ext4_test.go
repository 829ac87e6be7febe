package ship_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/lifeboat-dr/lifeboat/agent/quiesce"
	"github.com/lifeboat-dr/lifeboat/agent/ship"
	"github.com/lifeboat-dr/lifeboat/agent/source"
	"github.com/lifeboat-dr/lifeboat/sdk/fleet"
)

// machine is a mounted filesystem on a loop device with a writer that appends numbered, checksummed records.
type machine struct {
	t       *testing.T
	backing string
	loop    string
	mount   string
	source  source.Config
	stop    func() int64 // ends the writer and tells how many records were synced
}

func newMachine(t *testing.T, size int64) *machine { return newMachineWith(t, "ext4", size) }

func newMachineWith(t *testing.T, fs string, size int64) *machine {
	t.Helper()
	dir := t.TempDir()
	m := &machine{t: t, backing: filepath.Join(dir, "backing.img"), mount: filepath.Join(dir, "mnt")}
	f, err := os.Create(m.backing)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(m.mount, 0o700); err != nil {
		t.Fatal(err)
	}
	switch fs {
	case "ext4":
		command(t, "mkfs.ext4", "-q", "-E", "lazy_itable_init=0,lazy_journal_init=0", m.backing)
	case "xfs":
		command(t, "mkfs.xfs", "-q", m.backing)
	}
	m.loop = command(t, "losetup", "--find", "--show", m.backing)
	t.Cleanup(func() { command(t, "losetup", "-d", m.loop) })
	command(t, "mount", m.loop, m.mount)
	t.Cleanup(func() { // a dead-man whose agent was killed lets go of the mount a moment after it thawed
		until(t, "unmount", func() bool { return syscall.Unmount(m.mount, 0) == nil })
	})
	m.source = source.Config{Disks: []source.Named{{ID: "disk0", Path: m.loop}}}
	return m
}

const recordLen = 64

func record(n int64) []byte {
	p := bytes.Repeat([]byte{byte(n)}, recordLen)
	binary.BigEndian.PutUint64(p, uint64(n))
	binary.BigEndian.PutUint32(p[recordLen-4:], crc32.ChecksumIEEE(p[:recordLen-4]))
	return p
}

// write appends records, one synced before the next, and stirs a second file at random until stopped.
func (m *machine) write() {
	m.t.Helper()
	log, err := os.Create(filepath.Join(m.mount, "records"))
	if err != nil {
		m.t.Fatal(err)
	}
	noise, err := os.Create(filepath.Join(m.mount, "noise"))
	if err != nil {
		m.t.Fatal(err)
	}
	quit := make(chan struct{})
	var wg sync.WaitGroup
	var n int64
	var failed error
	wg.Go(func() {
		for ; failed == nil; n++ {
			select {
			case <-quit:
				return
			default:
			}
			if _, failed = log.Write(record(n)); failed == nil {
				failed = log.Sync()
			}
			_, _ = noise.WriteAt(bytes.Repeat(record(n), 32), n*7919%512*4096)
		}
	})
	var once sync.Once
	m.stop = func() int64 {
		once.Do(func() {
			close(quit)
			wg.Wait()
			_ = log.Close()
			_ = noise.Close()
			if failed != nil {
				m.t.Errorf("writer: %v", failed)
			}
		})
		return n
	}
	m.t.Cleanup(func() { m.stop() })
}

// checkImage holds a point's image against what a disk must be after a power cut at its instant: a clean filesystem whose records
// are unbroken, at least as many as were synced when the capture was asked for.
func checkImage(t *testing.T, image []byte, atLeast int64) int64 {
	t.Helper()
	path := checkFilesystem(t, image)
	dump := filepath.Join(t.TempDir(), "records")
	command(t, "debugfs", "-R", fmt.Sprintf("dump /records %s", dump), path)
	b := read(t, dump)
	for i := int64(0); i*recordLen < int64(len(b)); i++ {
		end := min((i+1)*recordLen, int64(len(b)))
		if got := b[i*recordLen : end]; !bytes.Equal(got, record(i)) {
			t.Fatalf("record %d of %d is broken", i, len(b)/recordLen)
		}
	}
	got := int64(len(b) / recordLen)
	if got < atLeast {
		t.Fatalf("the point holds %d records, %d were synced before it", got, atLeast)
	}
	return got
}

// checkFilesystem fails unless the image is a clean filesystem without a journal to replay. It returns where it wrote the image.
func checkFilesystem(t *testing.T, image []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "point.img")
	if err := os.WriteFile(path, image, 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("e2fsck", "-fn", path).CombinedOutput(); err != nil {
		t.Fatalf("filesystem of the point is not clean: %v\n%s", err, out)
	}
	return path
}

func TestPointsOfALiveFilesystemAreItsInstants(t *testing.T) {
	t.Parallel()
	m := newMachine(t, 96<<20)
	m.write()
	r := newMemory()
	s := newSite(t, r)
	var mu sync.Mutex
	var instants [][]byte // the backing file as it was in each window
	a := s.run(s.config(m.source), s.want(disksOf(t, m.source)), func(p *ship.Protector) {
		p.OnWindow(func() {
			b, err := os.ReadFile(m.backing)
			if err != nil {
				t.Error(err)
			}
			mu.Lock()
			instants = append(instants, b)
			mu.Unlock()
		})
	})
	a.await("first point", func(st fleet.ProtectionStatus) bool { return st.LastPoint.Sequence == 1 && st.Phase == fleet.Delta })
	last := int64(0)
	for n := 2; n <= 5; n++ {
		st := a.capture()
		if st.FreezeMicros == 0 {
			t.Error("no length of the freeze was told")
		}
		t.Logf("point %d: frozen for %d ms, shipped %d bytes in all", st.LastPoint.Sequence, st.FreezeMicros/1000, st.TransferredBytes)
	}
	a.stop()
	mu.Lock()
	defer mu.Unlock()
	for n := 1; n <= 5; n++ {
		p := r.point(t, n)
		// Windows that were tried again leave instants of their own: the last one up to the point's commit is its.
		found := false
		for _, i := range instants {
			found = found || bytes.Equal(i, p.images["disk0"])
		}
		if !found {
			sameImage(t, fmt.Sprintf("point %d", n), p.images["disk0"], instants[min(n, len(instants))-1])
		}
		last = checkImage(t, p.images["disk0"], last)
	}
	if last == 0 {
		t.Error("no record was written before the last point")
	}
}

func TestDeadManLetsGoWhenTheAgentIsKilled(t *testing.T) {
	t.Parallel()
	m := newMachine(t, 32<<20)
	s := newSite(t, newMemory())
	dir := t.TempDir()
	ran := filepath.Join(dir, "ran")
	scripts := quiesce.Scripts{Pre: writeScript(t, dir, "pre", "echo pre >> "+ran), Post: writeScript(t, dir, "post", "echo post >> "+ran)}
	want := s.want(disksOf(t, m.source))
	want.AppConsistentSeconds = 3600
	p := start(t, "agent", writeSetup(t, agentSetup{State: filepath.Join(s.dir, "agent"), Source: m.source, CA: s.ca.Raw, Identity: packed(s.agent),
		Want: want, Scripts: scripts, Hang: true}))
	p.says("frozen")
	wrote := make(chan error, 1)
	go func() { wrote <- os.WriteFile(filepath.Join(m.mount, "x"), []byte("x"), 0o600) }()
	select {
	case err := <-wrote:
		t.Fatalf("a write went through while frozen: %v", err)
	case <-time.After(200 * time.Millisecond): // nothing to wait for: it must not happen
	}
	p.kill() // returns when the dead-man is gone, too: it holds the agent's standard error
	select {
	case err := <-wrote:
		if err != nil {
			t.Fatal(err)
		}
	case <-time.After(time.Minute):
		t.Fatal("the filesystem stayed frozen after the agent was killed")
	}
	if got := string(read(t, ran)); got != "pre\npost\n" {
		t.Errorf("got scripts %q, want each once", got)
	}
}
