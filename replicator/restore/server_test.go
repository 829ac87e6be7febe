package restore

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lifeboat-dr/lifeboat/replicator/restore/process"
)

func serverCommand(t *testing.T, what string) []string {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return []string{exe, what}
}

func filesConfig(t *testing.T, paths map[string]string) ServerConfig {
	t.Helper()
	source, err := json.Marshal(paths)
	if err != nil {
		t.Fatal(err)
	}
	cfg := ServerConfig{Source: source}
	for id := range paths {
		cfg.Disks = append(cfg.Disks, id)
	}
	return cfg
}

func TestDiskServerOutlivesItsStarterAndIsFoundAgain(t *testing.T) {
	disk := randomDisk(t, 4<<20, 11)
	dir := filepath.Join(t.TempDir(), strings.Repeat("deep/", 30))
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	cmd := serverCommand(t, "serve-files")
	cfg := filesConfig(t, map[string]string{"d": disk})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	t.Cleanup(func() { _ = StopServer(context.Background(), dir) })
	if err := StartServer(ctx, dir, cmd, cfg); err != nil {
		t.Fatal(err)
	}
	p, err := process.Find(dir, serverName)
	if err != nil || !p.Running() {
		t.Fatalf("find: %+v, %v", p, err)
	}
	if sid, err := unix.Getsid(p.PID); err != nil || sid != p.PID {
		t.Errorf("session %d of process %d: %v", sid, p.PID, err)
	}
	if err := StartServer(ctx, dir, cmd, ServerConfig{}); err != nil {
		t.Errorf("second start: %v", err)
	}
	// Found without its pid file, as when its starter was killed before it wrote one.
	if err := process.Forget(dir, serverName); err != nil {
		t.Fatal(err)
	}
	if q, err := process.Find(dir, serverName); err != nil || q != p {
		t.Errorf("find without pid file: %+v, %v; want %+v", q, err, p)
	}
	st, err := Status(ctx, dir)
	if err != nil || st.Requests != 1 || st.FailedReads != 0 {
		t.Errorf("status: %+v, %v", st, err)
	}
	// Killed: a new one takes its sockets.
	if err := p.Kill(ctx); err != nil {
		t.Fatal(err)
	}
	if err := StartServer(ctx, dir, cmd, cfg); err != nil {
		t.Fatal(err)
	}
	if err := StopServer(ctx, dir); err != nil {
		t.Fatal(err)
	}
	if _, err := Status(ctx, dir); err == nil {
		t.Error("a stopped server answers")
	}
	for _, name := range []string{DiskSocket, controlSocket, serverName + ".pid"} {
		if _, err := os.Lstat(filepath.Join(dir, name)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is left: %v", name, err)
		}
	}
	if err := StopServer(ctx, dir); err != nil {
		t.Errorf("stop of none: %v", err)
	}
}

func TestDiskServerThatCannotStartSaysWhy(t *testing.T) {
	for name, tc := range map[string]struct {
		command []string
		paths   map[string]string
		want    string
		corrupt bool
	}{
		"disk that is not there": {serverCommand(t, "serve-files"), map[string]string{"d": "/no/such/file"}, "/no/such/file", false},
		"corrupt point":          {serverCommand(t, "serve-files"), map[string]string{"d": "corrupt"}, "manifest", true},
		"source of another kind": {serverCommand(t, "serve-point"), map[string]string{"d": "x"}, "data key", false},
		"no disk server":         {[]string{"/bin/sh", "-c", "echo broken >&2; exit 3"}, nil, "broken", false},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			dir := t.TempDir()
			err := StartServer(ctx, dir, tc.command, filesConfig(t, tc.paths))
			if err == nil || !strings.Contains(err.Error(), tc.want) || errors.Is(err, ErrCorrupt) != tc.corrupt {
				t.Errorf("got %v, want an error that says %q, corrupt %v", err, tc.want, tc.corrupt)
			}
			if p, err := process.Find(dir, serverName); err != nil || p.Running() {
				t.Errorf("left running: %+v, %v", p, err)
			}
		})
	}
}

func TestSecondDiskServerOfADirectoryRefuses(t *testing.T) {
	dir := t.TempDir()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	t.Cleanup(func() { _ = StopServer(context.Background(), dir) })
	cfg := filesConfig(t, map[string]string{"d": randomDisk(t, 4096, 1)})
	if err := StartServer(ctx, dir, serverCommand(t, "serve-files"), cfg); err != nil {
		t.Fatal(err)
	}
	in, err := json.Marshal(cfg)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(ctx, serverCommand(t, "serve-files")[0], "serve-files")
	cmd.Dir, cmd.Stdin = dir, bytes.NewReader(in)
	if out, err := cmd.CombinedOutput(); err == nil || !strings.Contains(string(out), ErrServing.Error()) {
		t.Errorf("second server: %v, %s", err, out)
	}
	if _, err := Status(ctx, dir); err != nil {
		t.Errorf("the first one does not answer: %v", err)
	}
}

// flaky fails a number of times.
type flaky struct {
	Source
	mu    sync.Mutex
	fails int
	err   error
}

func (f *flaky) ReadAt(ctx context.Context, p []byte, off int64) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fails > 0 {
		f.fails--
		return f.err
	}
	return f.Source.ReadAt(ctx, p, off)
}

func TestReadsWaitForTheBucketButNotForCorruption(t *testing.T) {
	src := openSource(t, randomDisk(t, 1<<20, 2))
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	outage := &patient{src: &flaky{Source: src, fails: 2, err: errors.New("bucket is away")}, log: log}
	if err := outage.ReadAt(t.Context(), make([]byte, 4096), 0); err != nil {
		t.Errorf("read over an outage: %v", err)
	}
	bad := &flaky{Source: src, fails: 5, err: fmt.Errorf("%w: pack", ErrCorrupt)}
	if err := (&patient{src: bad, log: log}).ReadAt(t.Context(), make([]byte, 4096), 0); !errors.Is(err, ErrCorrupt) || bad.fails != 4 {
		t.Errorf("corrupt read: %v after %d attempts", err, 5-bad.fails)
	}
}
