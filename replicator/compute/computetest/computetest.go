// Package computetest is the suite that every compute.Driver passes. It boots real guests; it must not know how a driver runs
// them.
package computetest

import (
	"bytes"
	"context"
	"crypto/md5"
	"encoding/json"
	"errors"
	"fmt"
	"image/png"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/lifeboat-dr/lifeboat/replicator/block"
	"github.com/lifeboat-dr/lifeboat/replicator/compute"
	"github.com/lifeboat-dr/lifeboat/replicator/compute/computetest/guest"
	"github.com/lifeboat-dr/lifeboat/replicator/restore"
	"github.com/lifeboat-dr/lifeboat/service/job"
)

// Harness is what the suite needs to know about a driver.
type Harness struct {
	// Open opens the driver on the test's state; opening it again is a restart of the process that held it.
	Open func(t *testing.T) compute.Driver

	// Crash kills the hypervisor of an instance as a power cut would.
	Crash func(t *testing.T, id string)

	// Clean fails the test when anything of an instance is left, a process or a file.
	Clean func(t *testing.T, id string)

	// KillDiskServer kills the process that serves an instance's disks. Nil when the driver has none.
	KillDiskServer func(t *testing.T, id string)
}

// FilePoint is the source of disks that the suite hands to drivers: image files by disk id, and extents that fail their
// verification. It goes through Spec.Server as JSON; the driver's disk server opens it with OpenFiles.
type FilePoint struct {
	Files map[string]string         `json:"files"`
	Bad   map[string][]block.Extent `json:"bad,omitempty"`
}

// Open opens the point.
func (p FilePoint) Open(context.Context) (restore.Disks, error) {
	out := &fileDisks{sources: map[string]*fileDisk{}}
	for id, path := range p.Files {
		f, err := restore.OpenFile(path)
		if err != nil {
			return nil, errors.Join(err, out.Close())
		}
		out.sources[id] = &fileDisk{FileSource: f, bad: p.Bad[id]}
	}
	return out, nil
}

type fileDisks struct{ sources map[string]*fileDisk }

func (d *fileDisks) Disk(id string) (restore.Source, error) {
	if s, ok := d.sources[id]; ok {
		return s, nil
	}
	return nil, fmt.Errorf("disk %s: %w", id, os.ErrNotExist)
}

func (d *fileDisks) Traffic() (requests, bytes int64) { return 1, 1 }

func (d *fileDisks) Close() error {
	var err error
	for _, s := range d.sources {
		err = errors.Join(err, s.Close())
	}
	return err
}

type fileDisk struct {
	*restore.FileSource
	bad []block.Extent
}

func (d *fileDisk) ReadAt(ctx context.Context, p []byte, off int64) error {
	for _, e := range d.bad {
		if e.Overlaps(block.Extent{Offset: off, Length: int64(len(p))}) {
			return fmt.Errorf("%w: object packs/test", restore.ErrCorrupt)
		}
	}
	return d.FileSource.ReadAt(ctx, p, off)
}

// Timeout bounds one boot: an emulated guest on a busy machine takes a few seconds.
const Timeout = 3 * time.Minute

// Spec describes a machine of two disks whose system disk is the test guest.
func Spec(t *testing.T, id string) (compute.Spec, FilePoint) {
	t.Helper()
	system, err := guest.Disk(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	data := filepath.Join(t.TempDir(), "data.raw")
	content := make([]byte, 8<<20+1536)
	_, _ = rand.NewChaCha8([32]byte{7}).Read(content[:64<<10])
	if err := os.WriteFile(data, content, 0o600); err != nil {
		t.Fatal(err)
	}
	point := FilePoint{Files: map[string]string{"system-disk": system, "data-disk": data}}
	return compute.Spec{
		ID: id, Machine: "machine-1", Point: job.PointRef{Generation: 1, Sequence: 4},
		Hardware: job.Hardware{
			Name: "web, 1", UUID: "5e0c7f64-6f7d-4c53-9a55-3d1c6c0f7a11", CPUs: 1, MemoryBytes: 256 << 20, Firmware: "bios",
			OSDisk: "system-disk", Disks: []string{"system-disk", "data-disk"}, MACs: []string{"52:54:00:11:22:33"}, Network: job.NetworkIsolated,
		},
		Disks:  []compute.Disk{{ID: "system-disk", Size: guest.Size}, {ID: "data-disk", Size: int64(len(content))}},
		Server: encode(t, point), Open: point.Open,
		Probe: job.Probe{SerialContains: "GUEST record=", Timeout: Timeout},
	}, point
}

func encode(t *testing.T, v any) json.RawMessage {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// Run runs the suite.
func Run(t *testing.T, newHarness func(t *testing.T) Harness) {
	for name, f := range map[string]func(*testing.T, Harness){
		"Life": life, "Copied": copied, "Hydrate": hydrate, "HydrateCorrupt": hydrateCorrupt, "ProbeFails": probeFails, "Corrupt": corrupt,
		"Crash": crash, "Nothing": nothing, "Conflict": conflict,
	} {
		t.Run(name, func(t *testing.T) { f(t, newHarness(t)) })
	}
}

func start(t *testing.T, d compute.Driver, spec compute.Spec) compute.Started {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), Timeout)
	defer cancel()
	s, err := d.Start(ctx, spec)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func destroy(t *testing.T, h Harness, d compute.Driver, id string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := d.Destroy(ctx, id); err != nil {
		t.Error(err)
	}
	h.Clean(t, id)
	if _, err := d.Inspect(ctx, id); !errors.Is(err, compute.ErrNotFound) {
		t.Errorf("inspect after destroy: %v, want ErrNotFound", err)
	}
}

func console(t *testing.T, d compute.Driver, id string) string {
	t.Helper()
	r, err := d.SerialLog(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// await waits until the console says s for the nth time.
func await(t *testing.T, d compute.Driver, id, s string, n int) {
	t.Helper()
	Until(t, func() (bool, string) {
		c := console(t, d, id)
		return strings.Count(c, s) >= n, fmt.Sprintf("no %q on the console:\n%s", s, c)
	})
}

// Until waits for what nobody announces, at most Timeout: until ready returns true. Its text says how things stand otherwise.
func Until(t *testing.T, ready func() (bool, string)) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for end := time.After(Timeout); ; {
		ok, now := ready()
		if ok {
			return
		}
		select {
		case <-tick.C:
		case <-end:
			t.Fatalf("waited %s: %s", Timeout, now)
		}
	}
}

func wantState(t *testing.T, d compute.Driver, id string, want compute.State) compute.Instance {
	t.Helper()
	inst, err := d.Inspect(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	if inst.State != want {
		t.Fatalf("state %s, want %s", inst.State, want)
	}
	return inst
}

func fileSum(t *testing.T, path string) [md5.Size]byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return md5.Sum(b)
}

// life walks an instance from its first start to its end, with restarts of the driver's process between the steps.
func life(t *testing.T, h Harness) {
	spec, point := Spec(t, "life-1")
	before := fileSum(t, point.Files["system-disk"])
	d := h.Open(t)
	defer destroy(t, h, d, spec.ID)

	s := start(t, d, spec)
	if s.Adopted || s.StartTook <= 0 || s.ProbeTook <= 0 || !strings.Contains(s.ProbeLine, "GUEST record=") || s.Accelerator == "" {
		t.Errorf("started: %+v", s)
	}
	out := console(t, d, spec.ID)
	for _, want := range []string{"boot=1 ", "uuid=" + spec.Hardware.UUID, "cpus=1", "nics=1", "serials=system-disk data-disk"} {
		if !strings.Contains(out, want) {
			t.Errorf("console lacks %q:\n%s", want, out)
		}
	}
	first := make([]byte, 512)
	src, _ := point.Open(t.Context())
	defer func() { _ = src.Close() }()
	data, _ := src.Disk("data-disk")
	if err := data.ReadAt(t.Context(), first, 0); err != nil {
		t.Fatal(err)
	}
	if want := fmt.Sprintf("second=%x", md5.Sum(first)); !strings.Contains(out, want) {
		t.Errorf("the guest read other bytes from the second disk, want %s:\n%s", want, out)
	}

	d = h.Open(t)
	if s := start(t, d, spec); !s.Adopted {
		t.Error("second start did not adopt the running instance")
	}
	inst := wantState(t, d, spec.ID, compute.StateRunning)
	if inst.Machine != spec.Machine || inst.Point != spec.Point || inst.ProbeHeld.IsZero() || inst.Hydrated {
		t.Errorf("instance: %+v", inst)
	}
	if all, err := d.List(t.Context()); err != nil || len(all) != 1 || all[0].ID != spec.ID {
		t.Errorf("list: %v, %v", all, err)
	}
	var shot bytes.Buffer
	if err := d.Screenshot(t.Context(), spec.ID, &shot); err != nil {
		t.Error(err)
	} else if img, err := png.Decode(&shot); err != nil || img.Bounds().Dx() < 320 {
		t.Errorf("screenshot: %v", err)
	}
	if _, err := d.OpenDisks(t.Context(), spec.ID, spec.Server); !errors.Is(err, compute.ErrRunning) {
		t.Errorf("open disks of a running instance: %v, want ErrRunning", err)
	}

	stop(t, d, spec.ID)
	if !strings.Contains(console(t, d, spec.ID), "power button") {
		t.Error("the guest was not asked to shut down")
	}
	wantState(t, d, spec.ID, compute.StateStopped)
	if err := d.Screenshot(t.Context(), spec.ID, io.Discard); !errors.Is(err, compute.ErrNotRunning) {
		t.Errorf("screenshot of a stopped instance: %v, want ErrNotRunning", err)
	}
	checkDisks(t, d, spec, point)

	if s := start(t, h.Open(t), spec); s.Adopted {
		t.Error("a stopped instance was adopted instead of started")
	}
	if !strings.Contains(console(t, d, spec.ID), "boot=2 ") {
		t.Error("second boot does not see what the first one wrote")
	}
	if after := fileSum(t, point.Files["system-disk"]); after != before {
		t.Error("the recovery point was written to")
	}
}

func stop(t *testing.T, d compute.Driver, id string) {
	t.Helper()
	if err := d.Stop(t.Context(), id, Timeout, false); err != nil {
		t.Fatal(err)
	}
}

// checkDisks compares the disks of a stopped instance with the point: the guest has written a sector of the second disk and
// nothing else of it.
func checkDisks(t *testing.T, d compute.Driver, spec compute.Spec, point FilePoint) {
	t.Helper()
	disks, err := d.OpenDisks(t.Context(), spec.ID, spec.Server)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = disks.Close() }()
	for _, disk := range spec.Disks {
		src, err := disks.Disk(disk.ID)
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(t.TempDir(), disk.ID)
		if err := restore.WriteImage(t.Context(), src, path, restore.ImageOptions{}); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		want, err := os.ReadFile(point.Files[disk.ID])
		if err != nil {
			t.Fatal(err)
		}
		if disk.ID == "system-disk" {
			if len(got) != len(want) || bytes.Equal(got, want) || !bytes.Contains(got, []byte("record 1\n")) {
				t.Errorf("the system disk of %d bytes does not show what the guest wrote", len(got))
			}
			continue
		}
		if !strings.HasPrefix(string(got[512:]), "written by boot 1") {
			t.Errorf("second disk shows %q", got[512:540])
		}
		copy(want[512:1024], got[512:1024])
		if !bytes.Equal(got, want) {
			t.Error("the second disk differs outside what the guest wrote")
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if _, err := d.Start(ctx, spec); err == nil {
		t.Error("the instance was started while its disks were open")
	}
}
