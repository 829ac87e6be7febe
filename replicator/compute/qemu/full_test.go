package qemu

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/lifeboat-dr/lifeboat/replicator/compute"
	"github.com/lifeboat-dr/lifeboat/replicator/compute/computetest"
	"github.com/lifeboat-dr/lifeboat/replicator/restore"
)

// smallFilesystem mounts a tmpfs of the given size.
func smallFilesystem(t *testing.T, size string) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size="+size); err != nil {
		t.Fatalf("mount tmpfs: %v; run the tests as root", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func TestFullDiskOfTheHostPausesTheGuestUntilThereIsRoom(t *testing.T) {
	small := smallFilesystem(t, "64m")
	d := open(t, Config{Dir: filepath.Join(small, "i")})
	spec, _ := computetest.Spec(t, "full-1")
	t.Cleanup(func() {
		if err := d.Destroy(context.Background(), spec.ID); err != nil {
			t.Error(err)
		}
	})
	if _, err := d.Start(t.Context(), spec); err != nil {
		t.Fatal(err)
	}
	ballast := filepath.Join(small, "ballast")
	fill, err := os.Create(ballast)
	if err != nil {
		t.Fatal(err)
	}
	defer fill.Close()
	for page := make([]byte, 4096); err == nil; {
		_, err = fill.Write(page)
	}
	if !errors.Is(err, unix.ENOSPC) {
		t.Fatal(err)
	}
	log := func() int {
		b, err := os.ReadFile(filepath.Join(d.cfg.Dir, spec.ID, serialLog))
		if err != nil {
			t.Fatal(err)
		}
		return strings.Count(string(b), "GUEST record=")
	}
	// The guest writes on until it needs a new piece of its overlay.
	computetest.Until(t, func() (bool, string) {
		inst, err := d.Inspect(t.Context(), spec.ID)
		if err != nil || inst.State != compute.StateRunning {
			t.Fatalf("%s, %v", inst.State, err)
		}
		if len(inst.DiskErrors) > 0 && !strings.Contains(inst.DiskErrors[0], "make room") {
			t.Errorf("disk errors %q", inst.DiskErrors)
		}
		return len(inst.DiskErrors) > 0, "the guest was not paused"
	})
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	if err := fill.Close(); err != nil {
		t.Fatal(err)
	}
	before := log()
	if s, err := d.Start(t.Context(), spec); err != nil || !s.Adopted {
		t.Fatalf("%+v, %v", s, err)
	}
	computetest.Until(t, func() (bool, string) { return log() >= before+3, "the guest did not go on" })
}

func TestCopyToAFullDiskIsACleanError(t *testing.T) {
	small := smallFilesystem(t, "16m")
	d := open(t, Config{Dir: filepath.Join(small, "i")})
	spec, _ := computetest.Spec(t, "full-2")
	spec.Copied = true
	if _, err := d.Start(t.Context(), spec); !errors.Is(err, restore.ErrFull) {
		t.Errorf("got %v, want ErrFull", err)
	}
	if left, err := filepath.Glob(filepath.Join(d.cfg.Dir, spec.ID, "disk-*")); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	if err := d.Destroy(t.Context(), spec.ID); err != nil {
		t.Error(err)
	}
}
