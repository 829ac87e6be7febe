package e2e

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/lifeboat-dr/lifeboat/sdk/scenario/rig"
)

// A second disk is added to a machine that is protected, taken away and added again. Every point, written out by the replicator,
// has the disks that were protected at its instant, byte for byte.
func TestDisksAreAddedAndRemovedWhileProtected(t *testing.T) {
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
	rng := rand.New(rand.NewPCG(seed(t), 1))
	images := map[string]string{"disk0": r.Path("disk0.img"), "disk1": r.Path("disk1.img")}
	for id, size := range map[string]int{"disk0": 24 << 20, "disk1": 16<<20 + 512} {
		if err := os.WriteFile(images[id], make([]byte, size), 0o600); err != nil {
			t.Fatal(err)
		}
		scribble(t, rng, images[id])
	}
	if _, err := r.StartAgent(ctx, plane, vault, rig.AgentSpec{Hostname: "db01", UUID: "0a1b2c3d-0000-4000-8000-00000000db02", Disk: "disk0", Image: images["disk0"], Stopped: true,
		More: map[string]string{"disk1": images["disk1"]}}); err != nil {
		t.Fatal(err)
	}
	protectable, err := vault.WaitProtectable(ctx, "db01")
	if err != nil {
		t.Fatal(err)
	}
	item, err := vault.Protect(ctx, "db01", protectable, "disk0")
	if err != nil {
		t.Fatal(err)
	}
	if err := item.WaitState(ctx, nil, rig.StateProtected); err != nil {
		t.Fatal(err)
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	type moment struct {
		point rig.Point
		disks map[string][]byte
	}
	var moments []moment
	capture := func(disks ...string) {
		t.Helper()
		m := moment{disks: map[string][]byte{}}
		for _, id := range disks {
			scribble(t, rng, images[id])
			b, err := os.ReadFile(images[id])
			must(err)
			m.disks[id] = b
		}
		var err error
		m.point, err = item.Capture(ctx)
		must(err)
		moments = append(moments, m)
	}
	capture("disk0")
	must(item.AddDisks(ctx, "disk1"))
	capture("disk0", "disk1")
	capture("disk0", "disk1")
	must(item.RemoveDisks(ctx, "disk1"))
	capture("disk0")
	must(item.AddDisks(ctx, "disk1"))
	capture("disk0", "disk1")

	for n, m := range moments {
		got := exported(ctx, t, item, m.point, r.Path(fmt.Sprint("out", n)))
		for id, want := range m.disks {
			if !bytes.Equal(got[id], want) {
				t.Errorf("point %d: disk %s of %d bytes is not what the machine had: got %d bytes", n, id, len(want), len(got[id]))
			}
			delete(got, id)
		}
		for id := range got {
			t.Errorf("point %d has disk %s, which was not protected", n, id)
		}
	}
}

// scribble writes random bytes and zeros to random places of an image.
func scribble(t *testing.T, rng *rand.Rand, path string) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for n := range 20 {
		at := rng.IntN(len(b) - 100_000)
		for i := range b[at : at+rng.IntN(100_000)] {
			b[at+i] = byte(rng.Uint32()) * byte(min(n, 1))
		}
	}
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// exported are the bytes of a point's disks, as raw images.
func exported(ctx context.Context, t *testing.T, item *rig.Item, p rig.Point, dir string) map[string][]byte {
	t.Helper()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := item.Export(ctx, p, "raw", dir); err != nil {
		t.Fatal(err)
	}
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	disks := map[string][]byte{}
	for _, f := range files {
		b, err := os.ReadFile(filepath.Join(dir, f.Name()))
		if err != nil {
			t.Fatal(err)
		}
		disks[strings.TrimSuffix(f.Name(), ".raw")] = b
	}
	return disks
}
