package qemu

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/lifeboat-dr/lifeboat/replicator/compute"
	"github.com/lifeboat-dr/lifeboat/replicator/compute/computetest"
	"github.com/lifeboat-dr/lifeboat/replicator/restore"
	"github.com/lifeboat-dr/lifeboat/replicator/restore/process"
)

// TestMain makes the test binary its own disk server, and the process that is killed while it starts or destroys.
func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == "disk-server" {
		err := restore.ServeDisks(context.Background(), os.Stdin, func(ctx context.Context, source json.RawMessage, _ *slog.Logger) (restore.Disks, error) {
			var p computetest.FilePoint
			if err := json.Unmarshal(source, &p); err != nil {
				return nil, err
			}
			return p.Open(ctx)
		})
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if len(os.Args) == 4 && (os.Args[1] == "start" || os.Args[1] == "destroy") {
		if err := victim(os.Args[1], os.Args[2], os.Args[3]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func open(t *testing.T, cfg Config) *Driver {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cfg.DiskServer = []string{exe, "disk-server"}
	d, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// kill ends a process of an instance with SIGKILL.
func kill(t *testing.T, dir, name string) {
	t.Helper()
	p, err := process.Find(dir, name)
	if err != nil || !p.Running() {
		t.Fatalf("find %s: %v %v", name, p, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := p.Kill(ctx); err != nil {
		t.Fatal(err)
	}
}

func TestSuite(t *testing.T) {
	computetest.Run(t, func(t *testing.T) computetest.Harness {
		// A long path: sockets must work in any data directory.
		dir := filepath.Join(t.TempDir(), strings.Repeat("long-", 20), "instances")
		return computetest.Harness{
			Open:           func(t *testing.T) compute.Driver { return open(t, Config{Dir: dir}) },
			Crash:          func(t *testing.T, id string) { kill(t, filepath.Join(dir, id), "qemu") },
			KillDiskServer: func(t *testing.T, id string) { kill(t, filepath.Join(dir, id), "disk-server") },
			Clean: func(t *testing.T, id string) {
				if _, err := os.Lstat(filepath.Join(dir, id)); err == nil {
					t.Errorf("directory of %s is still there", id)
				}
				for _, name := range []string{filepath.Join(locksDir, id), ".destroyed-" + id} {
					if _, err := os.Lstat(filepath.Join(dir, name)); err == nil {
						t.Errorf("%s is still there", name)
					}
				}
				for _, name := range []string{"qemu", "disk-server", readerName} {
					if p, err := process.Find(filepath.Join(dir, id), name); err != nil || p.Running() {
						t.Errorf("%s is still there: %v %v", name, p, err)
					}
				}
			},
		}
	})
}
