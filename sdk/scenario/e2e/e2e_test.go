// Package e2e holds the end-to-end tests: real processes, real machines under QEMU, a real Redis. They need root and the
// binaries of make build. LIFEBOAT_BIN names their directory when it is not bin at the top of the repository.
package e2e

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/lifeboat-dr/lifeboat/sdk/scenario/rig"
)

// newRig lays a rig out in a short-named directory (sockets live in it) that goes with the test, after everything in it has
// ended.
func newRig(t *testing.T) *rig.Rig {
	t.Helper()
	bin := os.Getenv("LIFEBOAT_BIN")
	if bin == "" {
		bin = filepath.Join("..", "..", "..", "bin")
	}
	dir, err := os.MkdirTemp("", "lb-") //nolint:usetesting // t.TempDir is too long for the sockets in it, and goes before what runs in it has ended
	if err != nil {
		t.Fatal(err)
	}
	r, err := rig.New(rig.Options{Dir: dir, Bin: bin, Logf: t.Logf})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
		if left := r.Strays(); len(left) > 0 {
			t.Errorf("processes %v are left running", left)
		}
		if t.Failed() {
			t.Logf("logs of %s:\n%s", dir, r.Logs(40))
			if os.Getenv("LIFEBOAT_KEEP") != "" {
				return
			}
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return r
}

func deadline(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}
