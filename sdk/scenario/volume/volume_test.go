package volume

import (
	"context"
	"os/exec"
	"testing"
	"time"

	"github.com/lifeboat-dr/lifeboat/sdk/scenario/guest"
	"github.com/lifeboat-dr/lifeboat/sdk/scenario/rig"
)

// writes waits until the writer has done n more operations.
func writes(t *testing.T, v *Volume, n int64) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	want := v.Operations.Load() + n
	if err := rig.Until(ctx, "the writer went on", func() (bool, error) { return v.Operations.Load() >= want, nil }); err != nil {
		t.Fatal(err)
	}
}

// A snapshot taken between the scripts is a clean filesystem, and the image does not change between them.
func TestSnapshotsAreCleanAndOfOneInstant(t *testing.T) {
	t.Parallel()
	v, err := New(t.Context(), t.TempDir(), 64<<20, 1)
	if err != nil {
		t.Fatal(err)
	}
	closed := false
	defer func() {
		if !closed {
			_ = v.Close()
		}
	}()
	v.Write(16 << 20)
	for i := range 5 {
		writes(t, v, 10)
		if out, err := exec.Command(v.Pre).CombinedOutput(); err != nil {
			t.Fatalf("pre script: %v: %s", err, out)
		}
		at := time.Now()
		all, _ := v.Snapshots()
		if len(all) != i {
			t.Errorf("got %d closed snapshots inside window %d", len(all), i)
		}
		if out, err := exec.Command("cmp", v.Image, newestRaw(t, v)).CombinedOutput(); err != nil {
			t.Errorf("the image changed inside the window: %s", out)
		}
		if out, err := exec.Command(v.Post).CombinedOutput(); err != nil {
			t.Fatalf("post script: %v: %s", err, out)
		}
		all, err = v.Snapshots()
		if err != nil {
			t.Fatal(err)
		}
		s, ok := At(all, at)
		if !ok {
			t.Fatalf("no snapshot holds %v in %v", at, all)
		}
		if err := guest.Check(t.Context(), s.Path, false); err != nil {
			t.Error(err)
		}
	}
	closed = true
	if err := v.Close(); err != nil {
		t.Error(err)
	}
}

func newestRaw(t *testing.T, v *Volume) string {
	t.Helper()
	out, err := exec.Command("sh", "-c", "ls "+v.snapshots()+"/*.raw | tail -1").Output()
	if err != nil {
		t.Fatal(err)
	}
	return string(out[:len(out)-1])
}
