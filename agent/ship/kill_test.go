package ship_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/lifeboat-dr/lifeboat/agent/quiesce"
	"github.com/lifeboat-dr/lifeboat/agent/source"
	"github.com/lifeboat-dr/lifeboat/replicator/ingest"
	"github.com/lifeboat-dr/lifeboat/replicator/repo"
	"github.com/lifeboat-dr/lifeboat/sdk/fleet"
)

// noise makes an image without zeros, so that every byte is shipped.
func noise(t *testing.T, size int64) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "noise.img")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := io.CopyN(f, rand.Reader, size); err != nil {
		t.Fatal(err)
	}
	return path
}

func openTestRepository(t *testing.T, dir string) *repo.Repository {
	t.Helper()
	r, err := openRepository(context.Background(), dir)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// restore reads a whole disk of a point.
func restore(t *testing.T, r *repo.Repository, seq int64, disk string, size int64) []byte {
	t.Helper()
	ctx := context.Background()
	s, err := r.OpenPoint(ctx, machineID, repo.PointRef{Generation: 1, Sequence: seq})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	d, err := s.Disk(disk)
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, size)
	for off := int64(0); off < size; off += 1 << 20 {
		if err := d.ReadAt(ctx, b[off:min(off+1<<20, size)], off); err != nil {
			t.Fatal(err)
		}
	}
	return b
}

func TestKilledAgentShipsOnlyWhatIsMissing(t *testing.T) {
	t.Parallel()
	const size = 192 << 20
	path := noise(t, size)
	bucket := t.TempDir()
	r := openTestRepository(t, bucket)
	s := newSite(t, ingest.FromRepo(r))
	src := source.Config{Disks: []source.Named{{ID: "disk0", Path: path, Stopped: true}}}
	want := s.want(disksOf(t, src))
	setup := writeSetup(t, agentSetup{State: filepath.Join(s.dir, "agent"), Source: src, CA: s.ca.Raw, Identity: packed(s.agent), Want: want})
	for _, at := range []int64{size / 6, size / 2} {
		p := start(t, "agent", setup)
		until(t, "progress", func() bool { return s.server.Stats().TotalBytes >= at || s.count() > 0 })
		p.kill()
		if s.count() > 0 {
			t.Fatal("the agent was done before it was killed: make the image larger")
		}
		until(t, "end of the session", func() bool { return s.server.Stats().Sessions == 0 })
	}
	start(t, "agent", setup)
	until(t, "point", func() bool { return s.count() == 1 })
	sameImage(t, "point", restore(t, r, 1, "disk0", size), read(t, path))
	if n := s.server.Stats().TotalBytes; n > size+1<<20 {
		t.Errorf("three sessions shipped %d bytes of a disk of %d: what the replicator held was sent again", n, size)
	}
}

func TestKilledReplicatorLosesAtMostAWindow(t *testing.T) {
	t.Parallel()
	const size, window = 384 << 20, 64 << 20
	path := noise(t, size)
	s := newSite(t, nil) // its certificates, not its server
	s.stop()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.addr = l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	bucket := t.TempDir()
	setup := writeSetup(t, replicatorSetup{Bucket: bucket, Spool: filepath.Join(s.dir, "spool"), Addr: s.addr, CA: s.ca.Raw, Grant: s.vault.GrantKey,
		Server: packed(s.vault.Certificate)})
	p := start(t, "replicator", setup)
	src := source.Config{Disks: []source.Named{{ID: "disk0", Path: path, Stopped: true}}}
	a := s.run(s.config(src), s.want(disksOf(t, src)), nil)
	var all int64
	for _, at := range []int64{size / 4, size / 8} {
		st := a.await("progress", func(st fleet.ProtectionStatus) bool {
			return st.Error.Message == "" && st.TransferredBytes >= at || st.LastPoint.Sequence > 0
		})
		p.kill()
		if st.LastPoint.Sequence > 0 {
			t.Fatal("the agent was done before the replicator was killed: make the image larger")
		}
		all += a.await("end of the session", func(st fleet.ProtectionStatus) bool { return st.Error.Message != "" }).TransferredBytes
		p = start(t, "replicator", setup)
	}
	all += a.await("point", func(st fleet.ProtectionStatus) bool { return st.LastPoint.Sequence == 1 }).TransferredBytes
	a.stop()
	p.kill()
	sameImage(t, "point", restore(t, openTestRepository(t, bucket), 1, "disk0", size), read(t, path))
	if all > size+2*(window+4<<20) {
		t.Errorf("three sessions shipped %d bytes of a disk of %d, with a window of %d", all, size, window)
	}
	t.Logf("shipped %d bytes in all for a disk of %d", all, size)
}

func TestPointsOfTheRepositoryEqualAnImageFrozenByScripts(t *testing.T) {
	t.Parallel()
	const size = 16<<20 + 4096 + 512
	live := image(t, size, 3)
	dir := t.TempDir()
	seen := filepath.Join(dir, "seen.img") // what the agent reads: a copy the pre script makes
	shots := filepath.Join(dir, "shots")
	scripts := quiesce.Scripts{
		Pre:  writeScript(t, dir, "pre", "set -e; cp "+live+" "+seen+".new; mv "+seen+".new "+seen),
		Post: writeScript(t, dir, "post", "set -e; cp "+seen+" "+shots+"/$(ls "+shots+" | wc -l).img"),
	}
	if err := os.Mkdir(shots, 0o700); err != nil {
		t.Fatal(err)
	}
	command(t, "cp", live, seen)
	r := openTestRepository(t, t.TempDir())
	s := newSite(t, ingest.FromRepo(r))
	src := source.Config{Disks: []source.Named{{ID: "disk0", Path: seen}}}
	cfg := s.config(src)
	cfg.Scripts = scripts
	f, err := os.OpenFile(live, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	want := s.want(disksOf(t, src))
	want.AppConsistentSeconds = 1
	a := s.run(cfg, want, nil)
	a.want = want
	a.await("first point", func(st fleet.ProtectionStatus) bool { return st.LastPoint.Sequence == 1 })
	for n := range 4 {
		scribble(t, f, size, 10, uint64(100+n))
		a.capture()
	}
	a.stop()
	points, err := r.Points(context.Background(), machineID)
	if err != nil {
		t.Fatal(err)
	}
	for i, p := range points {
		shot := read(t, filepath.Join(shots, string(rune('0'+i))+".img"))
		sameImage(t, "point", restore(t, r, p.Sequence, "disk0", size), shot)
	}
	if !bytes.Contains(points[0].Hardware, []byte(`"productUuid"`)) {
		t.Errorf("got hardware %s, want the machine's description", points[0].Hardware)
	}
	if got, want := points[0].Consistency, string(fleet.ApplicationConsistent); got != want {
		t.Errorf("got %s for a point made with scripts when one was due, want %s", got, want)
	}
}
