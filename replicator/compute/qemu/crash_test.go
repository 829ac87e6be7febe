package qemu

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/lifeboat-dr/lifeboat/replicator/compute"
	"github.com/lifeboat-dr/lifeboat/replicator/compute/computetest"
	"github.com/lifeboat-dr/lifeboat/replicator/restore/process"
)

// victim is the process that gets killed: it starts or destroys the instance that the spec file describes.
func victim(what, dir, specFile string) error {
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	d, err := New(Config{Dir: dir, DiskServer: []string{exe, "disk-server"}})
	if err != nil {
		return err
	}
	b, err := os.ReadFile(specFile)
	if err != nil {
		return err
	}
	var spec compute.Spec
	if err := json.Unmarshal(b, &spec); err != nil {
		return err
	}
	if what == "destroy" {
		return d.Destroy(context.Background(), spec.ID)
	}
	_, err = d.Start(context.Background(), spec)
	return err
}

// running counts the processes that carry the mark of a directory.
func running(t *testing.T, dir, name string) (n int) {
	t.Helper()
	procs, err := filepath.Glob("/proc/[0-9]*/environ")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range procs {
		if env, err := os.ReadFile(p); err == nil && bytes.Contains(env, []byte("="+dir+"\x1f"+name+"\x00")) {
			n++
		}
	}
	return n
}

// TestKilledStartAndDestroyAreFinishedByTheNext kills the process that starts and destroys an instance at random moments, many
// times, and looks at what is there after each.
func TestKilledStartAndDestroyAreFinishedByTheNext(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	dir := filepath.Join(t.TempDir(), "i")
	spec, _ := computetest.Spec(t, "killed-1")
	open := open(t, Config{Dir: dir})
	t.Cleanup(func() {
		if err := open.Destroy(context.Background(), spec.ID); err != nil {
			t.Error(err)
		}
	})
	specFile := filepath.Join(t.TempDir(), "spec.json")
	plain := spec
	plain.Open = nil
	plain.Probe.Timeout = time.Minute
	// Written for the victim only, which could as well get it over a pipe.
	b, err := json.Marshal(struct {
		compute.Spec
		Open, Progress any `json:",omitempty"`
	}{Spec: plain})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(specFile, b, 0o600); err != nil {
		t.Fatal(err)
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	killed := func(what string, within time.Duration) {
		cmd := exec.CommandContext(t.Context(), exe, what, dir, specFile)
		var said bytes.Buffer
		cmd.Stderr = &said
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		kill := time.AfterFunc(time.Duration(rng.Int64N(int64(within))), func() { cmd.Process.Kill() })
		defer kill.Stop()
		if err := cmd.Wait(); err != nil && !strings.Contains(err.Error(), "killed") {
			t.Errorf("%s: %v: %s", what, err, said.String())
		}
		if n := running(t, filepath.Join(dir, spec.ID), processName); n > 1 {
			t.Errorf("%d hypervisors after a killed %s", n, what)
		}
		if n := running(t, filepath.Join(dir, spec.ID), "disk-server"); n > 1 {
			t.Errorf("%d disk servers after a killed %s", n, what)
		}
		if _, err := open.List(t.Context()); err != nil {
			t.Errorf("list after a killed %s: %v", what, err)
		}
	}
	for range 3 {
		for range 4 {
			killed("start", 160*time.Millisecond)
		}
		killed("destroy", 40*time.Millisecond)
		if rng.IntN(2) == 0 {
			if err := open.Destroy(t.Context(), spec.ID); err != nil {
				t.Fatal(err)
			}
			for _, name := range []string{processName, "disk-server"} {
				if n := running(t, filepath.Join(dir, spec.ID), name); n != 0 {
					t.Errorf("%d %s after destroy", n, name)
				}
			}
			if all, err := open.List(t.Context()); err != nil || len(all) != 0 {
				t.Errorf("list after destroy: %v, %v", all, err)
			}
		}
	}
	killed("start", 160*time.Millisecond)
	if _, err := open.Start(t.Context(), spec); err != nil {
		t.Fatal(err)
	}
	if n := running(t, filepath.Join(dir, spec.ID), processName); n != 1 {
		t.Errorf("%d hypervisors, want 1", n)
	}
	log, err := os.ReadFile(filepath.Join(dir, spec.ID, serialLog))
	if err != nil || !strings.Contains(string(log), "GUEST record=") {
		t.Errorf("console: %v\n%s", err, log)
	}
}

func TestStaleRecordsOfProcessesAreNotBelieved(t *testing.T) {
	// A pid file that names a living process of another start time must not have it killed.
	dir := t.TempDir()
	other := exec.Command("sleep", "60")
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	defer other.Wait()
	defer other.Process.Kill()
	pid := fmt.Sprintf(`{"pid":%d,"start":1,"boot":"x"}`, other.Process.Pid)
	if err := os.WriteFile(filepath.Join(dir, processName+".pid"), []byte(pid), 0o600); err != nil {
		t.Fatal(err)
	}
	m := machine{dir}
	if p, err := m.power(t.Context()); err != nil || p != off {
		t.Errorf("power %v, %v; want off", p, err)
	}
	if err := m.kill(t.Context()); err != nil {
		t.Error(err)
	}
	if stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", other.Process.Pid)); err != nil || strings.Contains(string(stat), ") Z ") {
		t.Errorf("another process was killed: %s, %v", stat, err)
	}
	if p, err := process.Find(dir, processName); err != nil || p.Running() {
		t.Errorf("found %+v, %v", p, err)
	}
}
