package e2e

import (
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/lifeboat-dr/lifeboat/sdk/scenario/rig"
)

// Everything is lost but the bucket and the recovery key: the data directory is deleted, catalogue rebuild makes a new one, and a
// machine boots from a point in it.
func TestRebuildFromBucketAndRecoveryKey(t *testing.T) {
	t.Parallel()
	ctx := deadline(t, 5*time.Minute)
	r := newRig(t)
	bucket := "file://" + r.Path("bucket")
	plane, err := r.StartEmbedded(ctx, "--bucket", bucket)
	if err != nil {
		t.Fatal(err)
	}
	vault, err := plane.CreateVault(ctx, "harbour", rig.Policies{})
	if err != nil {
		t.Fatal(err)
	}
	h, err := buildHull(ctx, r, "db01", seed(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := h.close(); err != nil {
			t.Error(err)
		}
	})
	h.vol.Write(4 << 20)
	protectable, err := h.enrol(ctx, r, plane, vault, "0a1b2c3d-0000-4000-8000-00000000db01")
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
	for range 2 {
		if _, err := item.Capture(ctx); err != nil {
			t.Fatal(err)
		}
	}
	if err := h.vol.Stop(); err != nil {
		t.Fatal(err)
	}
	if _, err := item.Capture(ctx); err != nil {
		t.Fatal(err)
	}
	written, err := h.records()
	if err != nil {
		t.Fatal(err)
	}
	want, err := item.Points(ctx)
	if err != nil {
		t.Fatal(err)
	}

	if err := h.close(); err != nil {
		t.Fatal(err)
	}
	if err := r.Process("lifeboatd").Kill(); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(plane.DataDir); err != nil {
		t.Fatal(err)
	}
	bin, err := r.Bin("lifeboat-replicator")
	if err != nil {
		t.Fatal(err)
	}
	rebuild := exec.CommandContext(ctx, bin, "catalogue", "rebuild", "--bucket", bucket, "--recovery-key-file", "-", "--data-dir", plane.DataDir)
	rebuild.Stdin = strings.NewReader(vault.RecoveryKey + "\n")
	out, err := rebuild.CombinedOutput()
	t.Logf("catalogue rebuild:\n%s", out)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Process("lifeboatd").Restart(); err != nil {
		t.Fatal(err)
	}
	if err := plane.WaitReady(ctx); err != nil {
		t.Fatal(err)
	}
	items, err := plane.RebuiltItems(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if len(items) != 1 || items[0].Name != "db01" {
		t.Fatalf("got machines %+v, want db01", items)
	}
	item = items[0]
	got, err := item.Points(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != len(want) {
		t.Errorf("got %d points, want %d", len(got), len(want))
	}
	for i := range min(len(got), len(want)) {
		if got[i].Generation != want[i].Generation || got[i].Sequence != want[i].Sequence || !got[i].Time.Equal(want[i].Time) {
			t.Errorf("point %d: got %+v, want %+v", i, got[i], want[i])
		}
	}
	before := serials(r.Dir)
	if _, err := item.TestFailover(ctx, got[0].Name); err != nil {
		t.Fatal(err)
	}
	console, err := newConsole(r.Dir, before)
	if err != nil {
		t.Fatal(err)
	}
	defer console.Close()
	if err := bootsWith(ctx, console, written); err != nil {
		t.Error(err)
	}
	if err := item.Cleanup(ctx); err != nil {
		t.Error(err)
	}
}
