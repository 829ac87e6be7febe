package qemu

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/lifeboat-dr/lifeboat/replicator/compute"
	"github.com/lifeboat-dr/lifeboat/replicator/compute/computetest"
	"github.com/lifeboat-dr/lifeboat/replicator/compute/computetest/guest"
	"github.com/lifeboat-dr/lifeboat/replicator/restore"
	"github.com/lifeboat-dr/lifeboat/service/job"
)

const homeUUID = "5E0C7F64-6F7D-4C53-9A55-3D1C6C0F7A22"

// datastore makes a datastore with one machine: the test guest on a raw disk and a second disk in qcow2.
func datastore(t *testing.T) (store, folder string) {
	t.Helper()
	system, err := guest.Disk(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	store = t.TempDir()
	folder = filepath.Join(store, "web-1")
	if err := os.Mkdir(folder, 0o700); err != nil {
		t.Fatal(err)
	}
	run(t, "cp", "--sparse=always", system, filepath.Join(folder, "system.raw"))
	run(t, "qemu-img", "create", "-q", "-f", "qcow2", filepath.Join(folder, "data.qcow2"), "16M")
	b, err := json.Marshal(compute.HomeMachine{
		Name: "web-1", UUID: homeUUID, CPUs: 1, MemoryBytes: 256 << 20, Network: "isolated",
		Disks: []compute.HomeDisk{{ID: "system-disk", Path: "system.raw"}, {ID: "data-disk", Path: "data.qcow2", Format: "qcow2"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(folder, homeFile), b, 0o600); err != nil {
		t.Fatal(err)
	}
	return store, folder
}

func run(t *testing.T, name string, args ...string) {
	t.Helper()
	if out, err := exec.CommandContext(t.Context(), name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
}

func TestHomeMachineLife(t *testing.T) {
	ctx := t.Context()
	store, folder := datastore(t)
	cfg := Config{Dir: filepath.Join(t.TempDir(), "i"), Datastores: map[string]string{"ds[1]": store}}
	d := open(t, cfg)
	t.Cleanup(func() { _ = machine{filepath.Join(folder, homeRun)}.kill(context.Background()) })

	h, err := d.FindHome(ctx, "", strings.ToLower(homeUUID))
	if err != nil || h.Name != "web-1" || h.State != compute.StateStopped || h.Disks[0].Path != filepath.Join(folder, "system.raw") {
		t.Fatalf("find: %+v, %v", h, err)
	}
	probe := job.Probe{SerialContains: "GUEST record=", Timeout: computetest.Timeout}
	if s, err := d.StartHome(ctx, "ds[1]", homeUUID, probe); err != nil || s.Adopted {
		t.Fatalf("start: %+v, %v", s, err)
	}
	d = open(t, cfg)
	if s, err := d.StartHome(ctx, "ds[1]", homeUUID, probe); err != nil || !s.Adopted {
		t.Errorf("start again: %+v, %v", s, err)
	}
	if h, err := d.FindHome(ctx, "ds[1]", homeUUID); err != nil || h.State != compute.StateRunning {
		t.Errorf("find: %s, %v", h.State, err)
	}
	if _, err := d.OpenHome(ctx, "", homeUUID); !errors.Is(err, compute.ErrRunning) {
		t.Errorf("open while running: %v, want ErrRunning", err)
	}
	if err := d.StopHome(ctx, "", homeUUID, computetest.Timeout, false); err != nil {
		t.Fatal(err)
	}
	if h, err := d.FindHome(ctx, "", homeUUID); err != nil || h.State != compute.StateStopped {
		t.Errorf("find: %s, %v", h.State, err)
	}

	// Write a point back onto both disks.
	want := make([]byte, 16<<20)
	_, _ = rand.NewChaCha8([32]byte{9}).Read(want[1<<20 : 2<<20])
	point := filepath.Join(t.TempDir(), "data.raw")
	if err := os.WriteFile(point, want, 0o600); err != nil {
		t.Fatal(err)
	}
	src, err := restore.OpenFile(point)
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	system, err := guest.Disk(ctx)
	if err != nil {
		t.Fatal(err)
	}
	systemSrc, err := restore.OpenFile(system)
	if err != nil {
		t.Fatal(err)
	}
	defer systemSrc.Close()
	disks, err := d.OpenHome(ctx, "", homeUUID)
	if err != nil {
		t.Fatal(err)
	}
	target, err := disks.Disk("data-disk")
	if err != nil {
		t.Fatal(err)
	}
	if res, err := restore.WriteBack(ctx, src, target, restore.ImageOptions{}); err != nil || res.Written < 1<<20 || res.Written > 1<<20+4096 {
		t.Errorf("write back data: %+v, %v", res, err)
	}
	if res, err := restore.WriteBack(ctx, src, target, restore.ImageOptions{}); err != nil || res.Written != 0 {
		t.Errorf("write back data again: %+v, %v", res, err)
	}
	if target, err = disks.Disk("system-disk"); err != nil {
		t.Fatal(err)
	}
	if res, err := restore.WriteBack(ctx, systemSrc, target, restore.ImageOptions{}); err != nil || res.Written == 0 || res.Written > 4<<20 {
		t.Errorf("write back system: %+v, %v", res, err)
	}
	if _, err := disks.Disk("no-such"); !errors.Is(err, compute.ErrNotFound) {
		t.Errorf("unknown disk: %v", err)
	}
	if err := disks.Close(); err != nil {
		t.Fatal(err)
	}
	back := filepath.Join(t.TempDir(), "back.raw")
	run(t, "qemu-img", "convert", "-O", "raw", filepath.Join(folder, "data.qcow2"), back)
	if got, err := os.ReadFile(back); err != nil || !bytes.Equal(got, want) {
		t.Errorf("the qcow2 disk differs from what was written back: %v", err)
	}

	// The system disk is what it was before its first boot.
	if _, err := d.StartHome(ctx, "", homeUUID, probe); err != nil {
		t.Fatal(err)
	}
	console, err := os.ReadFile(filepath.Join(folder, homeRun, serialLog))
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(console), "boot=1 "); n != 2 {
		t.Errorf("%d first boots on the console, want 2:\n%s", n, console)
	}
	if err := d.StopHome(ctx, "", homeUUID, 0, true); err != nil {
		t.Error(err)
	}
}

func TestHomeMachineThatSomebodyElseRuns(t *testing.T) {
	ctx := t.Context()
	store, folder := datastore(t)
	d := open(t, Config{Dir: filepath.Join(t.TempDir(), "i"), Datastores: map[string]string{"ds": store}})
	other := exec.CommandContext(ctx, "qemu-system-x86_64", "-S", "-display", "none", "-nodefaults", "-qmp", "stdio",
		"-blockdev", `{"driver":"raw","node-name":"n","file":{"driver":"file","filename":"`+filepath.Join(folder, "system.raw")+`"}}`, "-device", "virtio-blk-pci,drive=n")
	in, err := other.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := other.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	defer other.Wait()
	defer other.Process.Kill()
	// It answers once its devices hold their disks.
	_, _ = io.WriteString(in, `{"execute":"qmp_capabilities"}`)
	for lines := bufio.NewScanner(out); lines.Scan() && !strings.Contains(lines.Text(), `"return"`); {
	}
	if h, err := d.FindHome(ctx, "", homeUUID); err != nil || h.State != compute.StateRunning {
		t.Errorf("find: %s, %v", h.State, err)
	}
	for name, err := range map[string]error{
		"start": func() error { _, err := d.StartHome(ctx, "", homeUUID, job.Probe{}); return err }(),
		"stop":  d.StopHome(ctx, "", homeUUID, 0, true),
		"open":  func() error { _, err := d.OpenHome(ctx, "", homeUUID); return err }(),
	} {
		if !errors.Is(err, compute.ErrRunning) {
			t.Errorf("%s: %v, want ErrRunning", name, err)
		}
	}
}

func TestFindHomeSaysWhatIsWrong(t *testing.T) {
	store, folder := datastore(t)
	d := open(t, Config{Dir: filepath.Join(t.TempDir(), "i"), Datastores: map[string]string{"ds": store}})
	for name, tc := range map[string]struct{ datastore, uuid, file, want string }{
		"unknown machine":    {"ds", "no", "", "not found"},
		"unknown datastore":  {"elsewhere", homeUUID, "", `datastore "elsewhere"`},
		"broken description": {"", homeUUID, "{", "vm.json"},
		"unknown format":     {"", homeUUID, `{"uuid":"` + homeUUID + `","disks":[{"id":"a","path":"b","format":"vmdk"}]}`, "vmdk"},
	} {
		t.Run(name, func(t *testing.T) {
			if tc.file != "" {
				if err := os.WriteFile(filepath.Join(folder, homeFile), []byte(tc.file), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := d.FindHome(t.Context(), tc.datastore, tc.uuid); !errors.Is(err, compute.ErrNotFound) || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want ErrNotFound that says %q", err, tc.want)
			}
		})
	}
}
