package computetest

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/lifeboat-dr/lifeboat/replicator/block"
	"github.com/lifeboat-dr/lifeboat/replicator/compute"
	"github.com/lifeboat-dr/lifeboat/replicator/compute/computetest/guest"
	"github.com/lifeboat-dr/lifeboat/replicator/restore"
	"github.com/lifeboat-dr/lifeboat/service/job"
)

// copied runs an instance from full images: the point may vanish.
func copied(t *testing.T, h Harness) {
	spec, point := Spec(t, "copied-1")
	spec.Copied, spec.Server = true, nil
	spec.Hardware.Network = job.NetworkNone
	var done, total int64
	spec.Progress = func(d, t int64) { done, total = d, t }
	d := h.Open(t)
	defer destroy(t, h, d, spec.ID)
	start(t, d, spec)
	if done != total || total != spec.Disks[0].Size+spec.Disks[1].Size {
		t.Errorf("progress ended at %d of %d", done, total)
	}
	if out := console(t, d, spec.ID); !strings.Contains(out, "nics=0") {
		t.Errorf("network none has an adapter:\n%s", out)
	}
	if err := os.Remove(point.Files["data-disk"]); err != nil {
		t.Fatal(err)
	}
	if inst := wantState(t, d, spec.ID, compute.StateRunning); !inst.Hydrated {
		t.Error("an instance of full images needs its point")
	}
	stop(t, d, spec.ID)
	spec.Open = nil
	start(t, d, spec)
	if err := d.Stop(t.Context(), spec.ID, 0, true); err != nil {
		t.Errorf("cut power: %v", err)
	}
	wantState(t, d, spec.ID, compute.StateStopped)
}

// hydrate fills the disks behind the guest and takes everything else away.
func hydrate(t *testing.T, h Harness) {
	spec, point := Spec(t, "hydrate-1")
	d := h.Open(t)
	defer destroy(t, h, d, spec.ID)
	start(t, d, spec)
	var last int64
	Until(t, func() (bool, string) {
		p, err := d.Hydrate(t.Context(), spec.ID)
		if err != nil || p.Err != nil {
			t.Fatal(err, p.Err)
		}
		if p.Done < last || p.Done > p.Total || p.Complete && p.Done != p.Total {
			t.Errorf("progress %d of %d after %d", p.Done, p.Total, last)
		}
		last = p.Done
		return p.Complete, fmt.Sprintf("hydration stuck at %d of %d", p.Done, p.Total)
	})
	if !wantState(t, d, spec.ID, compute.StateRunning).Hydrated {
		t.Error("instance is not hydrated")
	}
	// The guest goes on without its point, and boots again without it.
	if err := os.Remove(point.Files["data-disk"]); err != nil {
		t.Fatal(err)
	}
	await(t, d, spec.ID, "GUEST record=", strings.Count(console(t, d, spec.ID), "GUEST record=")+2)
	stop(t, d, spec.ID)
	spec.Server = nil
	start(t, h.Open(t), spec)
	if out := console(t, d, spec.ID); !strings.Contains(out, "boot=2 ") || strings.Count(out, payload(out)) != 2 {
		t.Errorf("the second boot sees other disks:\n%s", out)
	}
}

// payload returns the line with the checksum of the guest's big file.
func payload(console string) string {
	_, after, _ := strings.Cut(console, "GUEST payload=")
	return "GUEST payload=" + strings.TrimSpace(strings.SplitN(after, "\n", 2)[0])
}

// probeFails shows what a machine that does not come up looks like, and that it can be asked again.
func probeFails(t *testing.T, h Harness) {
	spec, _ := Spec(t, "probe-1")
	d := h.Open(t)
	defer destroy(t, h, d, spec.ID)
	ok := spec.Probe
	spec.Probe = job.Probe{SerialContains: "what it never says", Timeout: 10 * time.Millisecond}
	_, err := d.Start(t.Context(), spec)
	pe, is := errors.AsType[*compute.ProbeError](err)
	if !errors.Is(err, compute.ErrProbe) || !is || !strings.Contains(err.Error(), "what it never says") {
		t.Fatalf("got %v, want a ProbeError", err)
	}
	wantState(t, d, spec.ID, compute.StateRunning)
	spec.Probe.Timeout = Timeout
	spec.Probe.SerialContains = ""
	if s := start(t, h.Open(t), spec); !s.Adopted || !strings.HasPrefix(s.ProbeLine, "GUEST boot=1") {
		t.Errorf("the first line of userspace was not found: %+v", s)
	}
	spec.Probe = ok
	if s := start(t, d, spec); !s.Adopted {
		t.Error("not adopted")
	}
	_ = pe
}

// corrupt has a bad extent under what the guest must read.
func corrupt(t *testing.T, h Harness) {
	spec, point := Spec(t, "corrupt-1")
	point.Bad = map[string][]block.Extent{"system-disk": {{Offset: 4 << 20, Length: guest.Size - 8<<20}}}
	spec.Server = encode(t, point)
	d := h.Open(t)
	defer destroy(t, h, d, spec.ID)
	_, err := d.Start(t.Context(), spec)
	if !errors.Is(err, restore.ErrCorrupt) || !strings.Contains(err.Error(), "system-disk") || !strings.Contains(err.Error(), "packs/test") {
		t.Errorf("got %v, want ErrCorrupt that names disk and object", err)
	}
	if inst, err := d.Inspect(t.Context(), spec.ID); err != nil || inst.State == compute.StateRunning {
		t.Errorf("machine with corrupt disk: %v %v", inst.State, err)
	}
	spec.ID, spec.Copied = "corrupt-2", true
	spec.Open = point.Open
	defer destroy(t, h, d, spec.ID)
	if _, err := d.Start(t.Context(), spec); !errors.Is(err, restore.ErrCorrupt) {
		t.Errorf("copied: got %v, want ErrCorrupt", err)
	}
}

// crash kills the hypervisor and the disk server under a running guest.
func crash(t *testing.T, h Harness) {
	spec, _ := Spec(t, "crash-1")
	d := h.Open(t)
	defer destroy(t, h, d, spec.ID)
	start(t, d, spec)

	if h.KillDiskServer != nil {
		h.KillDiskServer(t, spec.ID)
		if s := start(t, h.Open(t), spec); !s.Adopted {
			t.Error("not adopted after its disk server was killed")
		}
		await(t, d, spec.ID, "GUEST record=", strings.Count(console(t, d, spec.ID), "GUEST record=")+2)
	}

	h.Crash(t, spec.ID)
	wantState(t, d, spec.ID, compute.StateCrashed)
	if s := start(t, h.Open(t), spec); s.Adopted || !strings.Contains(console(t, d, spec.ID), "boot=2 ") {
		t.Errorf("a crashed instance did not boot again from its disks: %+v", s)
	}
	if err := d.Stop(t.Context(), spec.ID, 0, false); !errors.Is(err, compute.ErrRunning) {
		t.Errorf("stop without time: %v, want ErrRunning", err)
	}
	wantState(t, d, spec.ID, compute.StateRunning)
}

// nothing asks for instances that are not there.
func nothing(t *testing.T, h Harness) {
	d := h.Open(t)
	ctx := t.Context()
	if _, err := d.Inspect(ctx, "no-such"); !errors.Is(err, compute.ErrNotFound) {
		t.Errorf("inspect: %v", err)
	}
	if err := d.Stop(ctx, "no-such", 0, true); !errors.Is(err, compute.ErrNotFound) {
		t.Errorf("stop: %v", err)
	}
	if _, err := d.Hydrate(ctx, "no-such"); !errors.Is(err, compute.ErrNotFound) {
		t.Errorf("hydrate: %v", err)
	}
	if _, err := d.SerialLog(ctx, "no-such"); !errors.Is(err, compute.ErrNotFound) {
		t.Errorf("serial log: %v", err)
	}
	if _, err := d.OpenDisks(ctx, "no-such", nil); !errors.Is(err, compute.ErrNotFound) {
		t.Errorf("open disks: %v", err)
	}
	destroy(t, h, d, "no-such")
	for _, id := range []string{"", "..", "a/b", ".locks"} {
		if err := d.Destroy(ctx, id); err == nil {
			t.Errorf("destroy of %q went through", id)
		}
	}
	if all, err := d.List(ctx); err != nil || len(all) != 0 {
		t.Errorf("list: %v, %v", all, err)
	}
}

// conflict asks for another point under an id that is taken, and for specs that cannot be met.
func conflict(t *testing.T, h Harness) {
	spec, _ := Spec(t, "conflict-1")
	d := h.Open(t)
	defer destroy(t, h, d, spec.ID)
	bad := spec
	bad.Hardware.Network = "moon"
	if _, err := d.Start(t.Context(), bad); !errors.Is(err, compute.ErrUnsupported) {
		t.Errorf("unknown network: %v, want ErrUnsupported", err)
	}
	other := spec
	other.Point.Sequence++
	if _, err := d.Start(t.Context(), other); !errors.Is(err, compute.ErrConflict) {
		t.Errorf("other point: %v, want ErrConflict", err)
	}
	none := spec
	none.ID, none.Disks = "conflict-2", nil
	if _, err := d.Start(t.Context(), none); err == nil {
		t.Error("a machine without disks was started")
	}
	destroy(t, h, d, none.ID)
}

// hydrateCorrupt has a bad extent that only hydration reads: the guest runs on, the error names it, and nothing claims to be
// complete.
func hydrateCorrupt(t *testing.T, h Harness) {
	spec, point := Spec(t, "hydrate-2")
	point.Bad = map[string][]block.Extent{"data-disk": {{Offset: 4 << 20, Length: 4096}}}
	spec.Server = encode(t, point)
	d := h.Open(t)
	defer destroy(t, h, d, spec.ID)
	start(t, d, spec)
	Until(t, func() (bool, string) {
		p, err := d.Hydrate(t.Context(), spec.ID)
		if err != nil {
			t.Fatal(err)
		}
		if p.Complete {
			t.Fatal("complete in spite of a bad extent")
		}
		if p.Err != nil && (!errors.Is(p.Err, restore.ErrCorrupt) || !strings.Contains(p.Err.Error(), "data-disk")) {
			t.Errorf("got %v, want ErrCorrupt that names the disk", p.Err)
		}
		return p.Err != nil, "hydration met no error"
	})
	inst := wantState(t, d, spec.ID, compute.StateRunning)
	if inst.Hydrated || len(inst.DiskErrors) == 0 {
		t.Errorf("instance: %+v", inst)
	}
	await(t, d, spec.ID, "GUEST record=", strings.Count(console(t, d, spec.ID), "GUEST record=")+2)
}
