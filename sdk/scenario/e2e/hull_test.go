package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/lifeboat-dr/lifeboat/sdk/scenario/guest"
	"github.com/lifeboat-dr/lifeboat/sdk/scenario/record"
	"github.com/lifeboat-dr/lifeboat/sdk/scenario/rig"
	"github.com/lifeboat-dr/lifeboat/sdk/scenario/volume"
)

// hull is a machine without a hypervisor: a guest's disk that is mounted and written to on this host, with an agent beside it. It
// boots nowhere but from its recovery points.
type hull struct {
	name  string
	dir   string
	vol   *volume.Volume
	agent *rig.Process
	open  bool
}

// buildHull makes a guest's disk and starts to write to it.
func buildHull(ctx context.Context, r *rig.Rig, name string, seed uint64) (*hull, error) {
	base := r.Path("base.raw")
	if _, err := os.Stat(base); errors.Is(err, os.ErrNotExist) {
		if err := guest.Build(ctx, base, guest.Spec{RecordEvery: 100 * time.Millisecond}); err != nil {
			return nil, err
		}
	}
	h := &hull{name: name, dir: r.Path(name)}
	if err := os.MkdirAll(h.dir, 0o755); err != nil {
		return nil, err
	}
	if out, err := exec.CommandContext(ctx, "cp", "--sparse=always", base, filepath.Join(h.dir, "disk.raw")).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("cp: %w: %s", err, out)
	}
	var err error
	if h.vol, err = volume.Open(ctx, h.dir, seed); err != nil {
		return nil, err
	}
	h.open = true
	return h, nil
}

// protect enrols an agent for it and returns the path of its protectable item.
func (h *hull) enrol(ctx context.Context, r *rig.Rig, plane *rig.Plane, vault *rig.Vault, uuid string) (string, error) {
	var err error
	h.agent, err = r.StartAgent(ctx, plane, vault, rig.AgentSpec{Name: h.name, Hostname: h.name, UUID: uuid, Disk: "disk0", Image: h.vol.Image, Pre: h.vol.Pre, Post: h.vol.Post})
	if err != nil {
		return "", err
	}
	return vault.WaitProtectable(ctx, h.name)
}

// records reads what was written so far.
func (h *hull) records() (record.Run, error) {
	data, err := os.ReadFile(filepath.Join(h.dir, "mnt", volume.RecordsFile))
	if err != nil {
		return record.Run{}, err
	}
	return record.Verify(bytes.NewReader(data))
}

// close stops the agent and the writes and unmounts. It may be called again.
func (h *hull) close() error {
	var err error
	if h.agent != nil {
		err = h.agent.Stop(5 * time.Second)
	}
	if h.open {
		h.open = false
		err = errors.Join(err, h.vol.Close())
	}
	return err
}

// bootsWith checks what a machine from one of its points says when it comes up: unbroken records, the last of them want's.
func bootsWith(ctx context.Context, console *rig.Console, want record.Run) error {
	up, verdict, _, err := console.WaitUp(ctx, 0)
	if err != nil {
		return err
	}
	text := fmt.Sprintf("records=%d last=%s", want.Count, want.Last.Sum)
	if !strings.Contains(up.Text, text) || !strings.Contains(verdict.Text, "RECORDS-OK") {
		return fmt.Errorf("the machine says %q and %q, want %s", up.Text, verdict.Text, text)
	}
	_, err = console.WaitRecords(ctx, 3)
	return err
}

// serials returns the serial logs of machines below dir.
func serials(dir string) map[string]bool {
	found := map[string]bool{}
	_ = filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err == nil && d.Name() == "serial.log" {
			found[path] = true
		}
		return nil
	})
	return found
}

// newConsole follows the console of the one machine that was started since before was taken.
func newConsole(dir string, before map[string]bool) (*rig.Console, error) {
	var started []string
	for path := range serials(dir) {
		if !before[path] {
			started = append(started, path)
		}
	}
	if len(started) != 1 {
		return nil, fmt.Errorf("%d machines were started: %v", len(started), started)
	}
	return rig.Follow(started[0]), nil
}
