package host

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lifeboat-dr/lifeboat/agent/guest"
	"github.com/lifeboat-dr/lifeboat/agent/track"
	"github.com/lifeboat-dr/lifeboat/replicator/ingest"
	"github.com/lifeboat-dr/lifeboat/sdk/fleet"
	scenario "github.com/lifeboat-dr/lifeboat/sdk/scenario/guest"
)

// up is what the guest prints when its services run.
const up = "LIFEBOAT-GUEST up"

// scribble writes files and raw blocks of random sizes for ever.
const scribble = `#!/bin/sh
n=0
while :; do
  r=$(od -An -N2 -tu2 /dev/urandom | tr -d ' ')
  n=$((n+1))
  dd if=/dev/urandom of=/data/new bs=1k count=$((r%700+1)) 2>/dev/null
  md5sum < /data/new > /data/new.sum
  sync
  mv /data/new /data/blob.$((n%8)); mv /data/new.sum /data/sum.$((n%8))
  dd if=/dev/urandom of=/dev/vdb bs=4k count=$((r%40+1)) seek=$((r%7000)) conv=notrunc,fsync 2>/dev/null
  [ $((n%5)) = 0 ] && rm -f /data/blob.$((r%8))
  [ $((n%9)) = 0 ] && dd if=/dev/zero of=/dev/vdb bs=64k count=$((r%16+1)) seek=$((r%400)) conv=notrunc 2>/dev/null
done
`

// witness is a machine that reads every view as a whole, on its own, just before it goes.
type witness struct {
	guest.Machine
	mu   sync.Mutex        // guards sums
	sums map[string]string // by instant and disk
}

func (w *witness) Open(ctx context.Context, disks []string) (track.Machine, error) {
	m, err := w.Machine.Open(ctx, disks)
	if err != nil {
		return nil, err
	}
	return &witnessed{m, w}, nil
}

type witnessed struct {
	track.Machine
	w *witness
}

func (m *witnessed) Snapshot(ctx context.Context) (track.Snapshot, error) {
	s, err := m.Machine.Snapshot(ctx)
	if err != nil {
		return nil, err
	}
	return &watched{s, m}, nil
}

type watched struct {
	track.Snapshot
	m *witnessed
}

func (s *watched) Close() error {
	for i, d := range s.m.Disks() {
		v := s.View(i)
		h := sha256.New()
		if _, err := io.Copy(h, io.NewSectionReader(v, 0, v.Size())); err != nil {
			return errors.Join(err, s.Snapshot.Close())
		}
		s.m.w.mu.Lock()
		s.m.w.sums[key(s.Instant(), d.ID)] = hex.EncodeToString(h.Sum(nil))
		s.m.w.mu.Unlock()
	}
	return s.Snapshot.Close()
}

func key(instant time.Time, disk string) string {
	return instant.UTC().Truncate(time.Millisecond).Format(time.RFC3339Nano) + " " + disk
}

// TestGuestUnderWritesReplicatedFromOutside replicates a guest that writes at random for a minute (LIFEBOAT_HOST_SOAK: as long as
// that says). Meanwhile the guest is reset and the agent restarted. Every point is what its view showed, fsck finds nothing wrong
// with any, and some boot. Then the guest is shut down for the last capture, which is what its images hold.
func TestGuestUnderWritesReplicatedFromOutside(t *testing.T) {
	t.Parallel()
	long := time.Minute
	if s := os.Getenv("LIFEBOAT_HOST_SOAK"); s != "" {
		long = must(time.ParseDuration(s))
	}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	ctx := t.Context()
	dir := t.TempDir()
	images := []string{filepath.Join(dir, "disk0.raw"), filepath.Join(dir, "disk1.raw")}
	err := scenario.Build(ctx, images[0], scenario.Spec{DiskBytes: 160 << 20, Hostname: "web01",
		Files: []scenario.File{{Path: "/usr/sbin/scribble", Mode: 0o755, Data: []byte(scribble)}}, Services: []scenario.Service{{Name: "scribble", Command: []string{"/usr/sbin/scribble"}}}})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.WriteFile(images[1], nil, 0o600), os.Truncate(images[1], 32<<20)); err != nil {
		t.Fatal(err)
	}
	machine := start(t, dir, webUUID, images)
	machine.await(up, 1)
	s := newSite(t, dir)
	h := must(New(Config{StateDir: filepath.Join(dir, "agent"), Log: s.log, Sockets: []string{filepath.Join(dir, "qmp.sock")}, Reserve: 64 << 20}))
	h.look(ctx)
	found := h.Machines()
	if len(found) != 1 || !found[0].Running || found[0].Machine.ProductUuid != webUUID || found[0].Machine.Hostname != "web01" || len(found[0].Machine.Disks) != 2 ||
		found[0].Machine.Disks[0].Id != "disk0" || !found[0].Machine.Disks[0].IsOsDisk || found[0].Machine.Nics[0].Mac != "52:54:00:aa:bb:01" {
		t.Fatalf("found %+v", found)
	}
	want := s.want(found[0].Machine)
	w := &witness{Machine: must(h.Machine(webUUID, filepath.Join(dir, "agent", machineID))), sums: map[string]string{}}
	p := s.protect(t, filepath.Join(dir, "agent"), w, want)
	resets, restarts := 0, 0
	for end := time.Now().Add(long); time.Now().Before(end); {
		p.capture()
		switch rng.IntN(16) {
		case 0:
			machine.do("system_reset")
			resets++
		case 1:
			p.restart()
			restarts++
		}
	}
	p.want.Shutdown = true
	st := p.capture()
	if out := machine.do("query-status"); st.Error != (fleet.Error{}) || !strings.Contains(out, `"shutdown"`) {
		t.Fatalf("the machine is %s after its last capture: %+v", out, st)
	}
	points := s.committed()
	last := points[len(points)-1]
	boots := verify(t, s, w, dir, points)
	for i, image := range images { // QEMU lives, the guest does not: the images stand still
		if got := sumOf(t, image); got != w.sums[key(last.Time, fmt.Sprintf("disk%d", i))] {
			t.Errorf("the last point is not what %s holds", image)
		}
	}
	p.want.Shutdown = false
	p.capture() // and go on
	machine.await(up, 1)
	if out := machine.do("query-status"); !strings.Contains(out, `"running"`) {
		t.Errorf("the machine is %s, want it to run again", out)
	}
	var changed, stored int64
	for _, pt := range points[1:] {
		changed, stored = changed+pt.ChangedBytes, stored+pt.StoredBytes
	}
	t.Logf("%d points in %s, %d resets, %d restarts of the agent, %d booted; deltas of %d KiB on average, %d KiB stored",
		len(points), long, resets, restarts, boots, changed>>10/int64(max(1, len(points)-1)), stored>>10/int64(max(1, len(points)-1)))
	if len(points) < 5 {
		t.Errorf("only %d points", len(points))
	}
}

// verify restores every point and compares it with what its view showed. It boots the first, the last and some between.
func verify(t *testing.T, s *site, w *witness, dir string, points []ingest.Point) (boots int) {
	t.Helper()
	every := max(1, len(points)/3)
	sizes := []int64{160 << 20, 32 << 20}
	for n, pt := range points {
		out := filepath.Join(dir, "restored")
		if err := os.MkdirAll(out, 0o700); err != nil {
			t.Fatal(err)
		}
		var paths []string
		for i, size := range sizes {
			id := fmt.Sprintf("disk%d", i)
			path := filepath.Join(out, id)
			if err := s.restore(t.Context(), pt.PointRef, id, path, size); err != nil {
				t.Fatalf("point %d: %v", n, err)
			}
			want, ok := w.sums[key(pt.Time, id)]
			if got := sumOf(t, path); !ok || got != want {
				t.Errorf("point %d of %s: disk %s is %s, its view was %s", n, pt.Time, id, got, want)
			}
			paths = append(paths, path)
		}
		if n%every == 0 || n == len(points)-1 {
			bdir := filepath.Join(dir, fmt.Sprintf("boot-%d", n))
			if err := os.Mkdir(bdir, 0o700); err != nil {
				t.Fatal(err)
			}
			replica := start(t, bdir, "5f0ef7a2-1f9e-4f1c-9f52-3d5a3c0b7a02", paths, "-snapshot")
			replica.await(up, 1)
			replica.kill()
			boots++
		}
		if err := scenario.Check(t.Context(), paths[0], true); err != nil { // it replays the journal, so it comes last
			t.Errorf("point %d: %v", n, err)
		}
	}
	return boots
}

func sumOf(t *testing.T, path string) string {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		t.Fatal(err)
	}
	return hex.EncodeToString(h.Sum(nil))
}
