package host

import (
	"crypto/rand"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/lifeboat-dr/lifeboat/agent/track/qemu"
	"github.com/lifeboat-dr/lifeboat/sdk/fleet"
)

func noise(t *testing.T, path string, size int) {
	t.Helper()
	b := make([]byte, size)
	if _, err := rand.Read(b); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

func newTestHypervisor(t *testing.T, dir string) *Hypervisor {
	t.Helper()
	return must(New(Config{StateDir: filepath.Join(dir, "agent"), Sockets: []string{filepath.Join(dir, "*", "qmp.sock"), filepath.Join(dir, "qmp.sock")}, Reserve: 1 << 20}))
}

// TestHypervisorsProcessDies is of a QEMU that ends: what it had counted is gone. While it is away the disk is written to. The next
// one's disk is compared as a whole, this is said, and only what differs is shipped.
func TestHypervisorsProcessDies(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	image := filepath.Join(dir, "disk0.raw")
	noise(t, image, 24<<20)
	machine := start(t, dir, webUUID, []string{image}, "-S")
	until(t, "monitor", func() bool { return alive(filepath.Join(dir, "qmp.sock")) })
	s := newSite(t, dir)
	h := newTestHypervisor(t, dir)
	h.look(t.Context())
	m := must(h.Machine(webUUID, filepath.Join(dir, "agent", machineID)))
	p := s.protect(t, filepath.Join(dir, "agent"), m, s.want(h.Machines()[0].Machine))
	if st := p.capture(); st.ResyncReason != "" {
		t.Errorf("the first copy was called a resync: %s", st.ResyncReason)
	}
	if p.capture(); s.committed()[1].ChangedBytes != 0 {
		t.Errorf("%d bytes changed while nobody wrote", s.committed()[1].ChangedBytes)
	}
	p.restart()
	if st := p.capture(); st.ResyncReason != "" || s.committed()[2].ChangedBytes != 0 {
		t.Errorf("after a restart of the agent %d bytes changed, compared for %q", s.committed()[2].ChangedBytes, st.ResyncReason)
	}
	machine.kill()
	f := must(os.OpenFile(image, os.O_WRONLY, 0))
	if _, err := f.WriteAt(make([]byte, 8192), 5<<20); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	start(t, dir, webUUID, []string{image}, "-S")
	st := p.capture()
	points := s.committed()
	last := points[len(points)-1]
	if !strings.Contains(st.ResyncReason, "disk0") || last.ChangedBytes != 8192 {
		t.Errorf("%d bytes were shipped of 8192 that changed, and the reason is %q", last.ChangedBytes, st.ResyncReason)
	}
	restored := filepath.Join(dir, "restored")
	if err := s.restore(t.Context(), last.PointRef, "disk0", restored, 24<<20); err != nil {
		t.Fatal(err)
	}
	if sumOf(t, restored) != sumOf(t, image) {
		t.Error("the point is not what the disk holds")
	}
	p.stop()
	if err := m.Forget(t.Context()); err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(h.cfg.Dir); err != nil || len(left) != 0 {
		t.Errorf("left: %v %v", left, err)
	}
}

func TestDiscovery(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	uuids := []string{webUUID, "5f0ef7a2-1f9e-4f1c-9f52-3d5a3c0b7a02", noUUID, "5f0ef7a2-1f9e-4f1c-9f52-3d5a3c0b7a03", "5f0ef7a2-1f9e-4f1c-9f52-3d5a3c0b7a03"}
	var machines []*vm
	for i, uuid := range uuids {
		at := filepath.Join(dir, string(rune('a'+i)))
		if err := os.Mkdir(at, 0o700); err != nil {
			t.Fatal(err)
		}
		image := filepath.Join(at, "disk0.raw")
		noise(t, image, 1<<20)
		machines = append(machines, start(t, at, uuid, []string{image}, "-S"))
	}
	h := newTestHypervisor(t, dir)
	seen := func() (out []string) {
		h.look(t.Context())
		for _, m := range h.Machines() {
			out = append(out, m.Machine.ProductUuid)
		}
		return out
	}
	until(t, "discovery of two machines", func() bool { // those without a UUID of their own are left out
		for i := range uuids {
			if !alive(filepath.Join(machines[i].dir, "qmp.sock")) {
				return false
			}
		}
		return strings.Join(seen(), " ") == uuids[0]+" "+uuids[1]
	})
	if m := h.Machines()[0].Machine; m.Hostname != "web01" || m.CpuCount != 1 || m.MemoryBytes != 256<<20 || m.Firmware != fleet.Bios || len(m.Disks) != 1 || m.Disks[0].SizeBytes != 1<<20 {
		t.Errorf("got %+v", m)
	}
	held, err := qemu.Dial(t.Context(), filepath.Join(machines[0].dir, "qmp.sock"))
	if err != nil {
		t.Fatal(err)
	}
	if got := seen(); len(got) != 2 { // as seen before, while somebody uses its monitor
		t.Errorf("got %v", got)
	}
	if err := held.Close(); err != nil {
		t.Fatal(err)
	}
	machines[1].kill()
	if got := seen(); len(got) != 1 || got[0] != uuids[0] {
		t.Errorf("got %v after a machine had ended", got)
	}
	if _, err := must(h.Machine(uuids[1], filepath.Join(dir, "p"))).Describe(t.Context()); err == nil {
		t.Error("a machine that has ended was described")
	}
	if _, err := h.Machine("../..", dir); err == nil {
		t.Error("a machine without a UUID was taken")
	}
	for name, sockets := range map[string][]string{"none": nil, "relative": {"run/*.qmp"}, "malformed": {"/run/[.qmp"}} {
		if _, err := New(Config{Sockets: sockets}); err == nil {
			t.Errorf("%s: patterns were taken", name)
		}
	}
}
