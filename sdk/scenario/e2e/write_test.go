package e2e

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/lifeboat-dr/lifeboat/sdk/scenario/bucketcheck"
	"github.com/lifeboat-dr/lifeboat/sdk/scenario/guest"
	"github.com/lifeboat-dr/lifeboat/sdk/scenario/record"
	"github.com/lifeboat-dr/lifeboat/sdk/scenario/rig"
	"github.com/lifeboat-dr/lifeboat/sdk/scenario/volume"
)

// seed returns the run's seed, from LIFEBOAT_SEED when given.
func seed(t *testing.T) uint64 {
	t.Helper()
	s := rand.Uint64()
	if v := os.Getenv("LIFEBOAT_SEED"); v != "" {
		var err error
		if s, err = strconv.ParseUint(v, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("LIFEBOAT_SEED=%d", s)
	return s
}

// A filesystem is written to at random while its image is protected. Every point, read back by Lifeboat and by the independent
// reader of the bucket, is byte-equal to a copy of the image made at the same instant; its filesystem is clean and its
// records are unbroken.
func TestEveryPointEqualsASnapshotOfItsInstant(t *testing.T) {
	t.Parallel()
	ctx := deadline(t, 5*time.Minute)
	r := newRig(t)
	plane, err := r.StartEmbedded(ctx)
	if err != nil {
		t.Fatal(err)
	}
	vault, err := plane.CreateVault(ctx, "harbour", rig.Policies{})
	if err != nil {
		t.Fatal(err)
	}
	vol, err := volume.New(ctx, r.Path("volume"), 128<<20, seed(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := vol.Close(); err != nil {
			t.Error(err)
		}
	})
	if _, err := r.StartAgent(ctx, plane, vault, rig.AgentSpec{Hostname: "db01", UUID: "0a1b2c3d-0000-4000-8000-00000000db01", Disk: "disk0", Image: vol.Image, Pre: vol.Pre, Post: vol.Post}); err != nil {
		t.Fatal(err)
	}
	vol.Write(8 << 20)
	protectable, err := vault.WaitProtectable(ctx, "db01")
	if err != nil {
		t.Fatal(err)
	}
	item, err := vault.Protect(ctx, "db01", protectable)
	if err != nil {
		t.Fatal(err)
	}
	if err := item.WaitState(ctx, nil, rig.StateProtected); err != nil {
		t.Fatal(err)
	}
	for range 8 {
		at := vol.Operations.Load() + 30
		if err := rig.Until(ctx, "more was written", func() (bool, error) { return vol.Operations.Load() >= at, nil }); err != nil {
			t.Fatal(err)
		}
		if _, err := item.Capture(ctx); err != nil {
			t.Fatal(err)
		}
	}
	if err := vol.Stop(); err != nil {
		t.Fatal(err)
	}

	points, err := item.Points(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if len(points) < 9 {
		t.Errorf("got %d points, want the first and 8 asked for", len(points))
	}
	snapshots, err := vol.Snapshots()
	if err != nil {
		t.Fatal(err)
	}
	check, err := bucketcheck.Open(plane.Bucket(), vaultOf(t, plane), vault.RecoveryKey)
	if err != nil {
		t.Fatal(err)
	}
	report, err := check.Check()
	if err != nil {
		t.Error(err)
	}
	if len(report.Logs) != 1 {
		t.Fatalf("the bucket holds %d machines, want 1", len(report.Logs))
	}
	log := report.Logs[0]
	for _, p := range points {
		snapshot, ok := volume.At(snapshots, p.Time)
		if !ok {
			t.Errorf("point %d of %s: no snapshot was taken at its instant", p.Sequence, p.Time)
			continue
		}
		dir := r.Path(fmt.Sprintf("restored-%d", p.Sequence))
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if _, err := item.Export(ctx, p, "raw", dir); err != nil {
			t.Fatal(err)
		}
		restored, err := filepath.Glob(filepath.Join(dir, "*"))
		if err != nil || len(restored) != 1 {
			t.Fatalf("the export wrote %v, want one file", restored)
		}
		same(t, p, "Lifeboat's export", restored[0], snapshot.Path)
		inspect(t, p, restored[0])

		entry, ok := log.Point(bucketcheck.Ref{Generation: p.Generation, Sequence: p.Sequence})
		if !ok {
			t.Errorf("point %d: the bucket's log has none of that number", p.Sequence)
			continue
		}
		second := filepath.Join(dir, "second")
		f, err := os.Create(second)
		if err != nil {
			t.Fatal(err)
		}
		if err := f.Truncate(entry.Disks[0].Size); err != nil {
			t.Fatal(err)
		}
		if _, err := check.WriteDisk(entry, entry.Disks[0].ID, f); err != nil {
			t.Error(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		same(t, p, "the independent reader's image", second, snapshot.Path)
	}
	t.Logf("%d points equal their snapshots after %d operations", len(points), vol.Operations.Load())
}

// same compares two files byte by byte.
func same(t *testing.T, p rig.Point, what, got, want string) {
	t.Helper()
	g, err := os.Open(got)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = g.Close() }()
	w, err := os.Open(want)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = w.Close() }()
	a, b := make([]byte, 1<<20), make([]byte, 1<<20)
	for off := int64(0); ; off += int64(len(a)) {
		n, errA := io.ReadFull(g, a)
		m, errB := io.ReadFull(w, b)
		if n != m || !bytes.Equal(a[:n], b[:m]) {
			t.Errorf("point %d: %s differs from the snapshot of its instant in the MiB at %d", p.Sequence, what, off)
			return
		}
		if errA != nil || errB != nil {
			return
		}
	}
}

// inspect checks the filesystem and the records of an image.
func inspect(t *testing.T, p rig.Point, image string) {
	t.Helper()
	if err := guest.Check(t.Context(), image, false); err != nil {
		t.Errorf("point %d: %v", p.Sequence, err)
	}
	data, err := guest.OpenRecords(t.Context(), image)
	if err != nil {
		t.Errorf("point %d: %v", p.Sequence, err)
		return
	}
	if run, err := record.Verify(bytes.NewReader(data)); err != nil || run.Torn != 0 {
		t.Errorf("point %d: %d records, then %v (%d torn bytes)", p.Sequence, run.Count, err, run.Torn)
	}
}

func vaultOf(t *testing.T, plane *rig.Plane) string {
	t.Helper()
	ids, err := bucketcheck.Vaults(plane.Bucket())
	if err != nil || len(ids) != 1 {
		t.Fatalf("the bucket holds vaults %v (%v), want 1", ids, err)
	}
	return ids[0]
}
