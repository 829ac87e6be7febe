package e2e

import (
	"context"
	"io/fs"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/lifeboat-dr/lifeboat/sdk"
	"github.com/lifeboat-dr/lifeboat/sdk/scenario/guest"
	"github.com/lifeboat-dr/lifeboat/sdk/scenario/rig"
)

// hostStage is a plane with a hypervisor: its agent, and a machine with nothing of Lifeboat inside.
type hostStage struct {
	t     *testing.T
	r     *rig.Rig
	plane *rig.Plane
	vault *rig.Vault
	agent *rig.Process
	home  *rig.Machine
	item  *rig.Item
}

func newHostStage(ctx context.Context, t *testing.T) *hostStage {
	t.Helper()
	s := &hostStage{t: t, r: newRig(t)}
	ok := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	var err error
	s.plane, err = s.r.StartEmbedded(ctx)
	ok(err)
	s.vault, err = s.plane.CreateVault(ctx, "harbour", rig.Policies{Hosts: true})
	ok(err)
	s.home, err = s.r.AddMachine(rig.MachineSpec{Name: "db01", Datastore: s.plane.Datastore, UUID: "6b1f0d5e-98f5-4c9e-8f7b-0c27a9d1e0aa", Disks: []rig.MachineDisk{{ID: "disk0", Path: "disk0.raw"}}})
	ok(err)
	ok(guest.Build(ctx, filepath.Join(s.home.Dir, "disk0.raw"), guest.Spec{Hostname: "db01"}))
	ok(s.r.Power(s.home))
	_, _, _, err = s.home.Console.WaitUp(ctx, 0)
	ok(err)
	s.agent, err = s.r.StartHost(ctx, s.plane, s.vault, s.plane.Datastore)
	ok(err)
	found, err := s.vault.WaitProtectable(ctx, "db01")
	ok(err)
	s.item, err = s.vault.Protect(ctx, "db01", found)
	ok(err)
	ok(s.item.WaitState(ctx, nil, rig.StateProtected))
	return s
}

// serials lists the consoles of machines that Lifeboat started.
func (s *hostStage) serials() map[string]bool {
	found := map[string]bool{}
	_ = filepath.WalkDir(s.r.Dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Name() == "serial.log" && !strings.HasPrefix(path, s.plane.Datastore+"/") {
			found[path] = true
		}
		return nil
	})
	return found
}

// up waits for the job and the machine it started, and returns how many records that found on its disk.
func (s *hostStage) up(ctx context.Context, job string, before map[string]bool) (console *rig.Console, records int64) {
	s.t.Helper()
	if _, err := s.vault.Wait(ctx, job); err != nil {
		s.t.Fatal(err)
	}
	for path := range s.serials() {
		if !before[path] {
			console = rig.Follow(path)
		}
	}
	if console == nil {
		s.t.Fatal("no machine was started")
	}
	s.t.Cleanup(console.Close)
	up, verdict, _, err := console.WaitUp(ctx, 0)
	if err != nil || !strings.Contains(verdict.Text, "RECORDS-OK") {
		s.t.Fatalf("the machine came up with %q: %v", verdict.Text, err)
	}
	for word := range strings.FieldsSeq(up.Text) {
		if n, ok := strings.CutPrefix(word, "records="); ok {
			if records, err = strconv.ParseInt(n, 10, 64); err != nil {
				s.t.Fatal(err)
			}
		}
	}
	return console, records
}

func (s *hostStage) written() int64 {
	shown := s.home.Console.Records()
	if len(shown) == 0 {
		return 0
	}
	return shown[len(shown)-1].N
}

// A machine is protected from its hypervisor, drilled while it runs, and moved without loss: its guest is shut down, the last
// capture is taken from the stopped disks. lifeboatd and the agent are killed on the way. The way back is refused.
func TestHostedMachineIsDrilledAndMoved(t *testing.T) {
	t.Parallel()
	ctx := deadline(t, 10*time.Minute)
	s := newHostStage(ctx, t)
	if _, err := s.home.Console.WaitRecords(ctx, 10); err != nil {
		t.Fatal(err)
	}
	written := s.written()
	if _, err := s.item.Capture(ctx); err != nil {
		t.Fatal(err)
	}
	before := s.serials()
	job, err := s.item.BeginTestFailover(ctx, "")
	if err != nil {
		t.Fatal(err)
	}
	if _, records := s.up(ctx, job, before); records < written {
		t.Errorf("the drill's machine has %d records, %d were written before its point", records, written)
	}
	if err := s.item.Cleanup(ctx); err != nil {
		t.Fatal(err)
	}
	if left := s.serials(); len(left) > len(before) {
		t.Errorf("the cleanup left %v", left)
	}
	if err := s.agent.Kill(); err != nil { // the bitmaps stay, and the next one goes on with them
		t.Fatal(err)
	}
	if _, err := s.home.Console.WaitRecords(ctx, 10); err != nil {
		t.Fatal(err)
	}
	if err := s.agent.Restart(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.item.Capture(ctx); err != nil {
		t.Fatal(err)
	}
	job, err = s.item.BeginPlannedFailover(ctx)
	if err != nil {
		t.Fatal(err)
	}
	console, records := s.up(ctx, job, before)
	if last := s.written(); records < last || last <= written {
		t.Errorf("the machine was moved with %d records, its source had written %d when it was off", records, last)
	}
	if _, err := console.WaitRecords(ctx, 5); err != nil {
		t.Fatal(err)
	}
	if err := s.item.Commit(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := s.item.BeginPlannedFailover(ctx); !strings.Contains(errorText(err), "NotImplemented") {
		t.Errorf("got %v for the way back, want that it is not implemented", err)
	}
	if err := s.item.Remove(ctx); err != nil {
		t.Fatal(err)
	}
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// A machine whose hypervisor's process of it dies is recovered at the other site, from its newest point and then from another one.
// Started again at home, its old self is not shipped.
func TestHostedMachineIsLostAndRecovered(t *testing.T) {
	t.Parallel()
	ctx := deadline(t, 10*time.Minute)
	s := newHostStage(ctx, t)
	if _, err := s.home.Console.WaitRecords(ctx, 10); err != nil {
		t.Fatal(err)
	}
	first, err := s.item.Capture(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.home.Console.WaitRecords(ctx, 10); err != nil {
		t.Fatal(err)
	}
	written := s.written()
	if _, err := s.item.Capture(ctx); err != nil {
		t.Fatal(err)
	}
	if err := s.home.Cut(); err != nil {
		t.Fatal(err)
	}
	before := s.serials()
	job, err := s.item.BeginFailover(ctx, "")
	if err != nil {
		t.Fatal(err)
	}
	_, newest := s.up(ctx, job, before)
	if newest < written {
		t.Errorf("the machine has %d records, %d were written before the point", newest, written)
	}
	before = s.serials()
	if err := s.item.ChangePoint(ctx, first.Name); err != nil {
		t.Fatal(err)
	}
	if _, older := s.up(ctx, "", before); older >= newest {
		t.Errorf("the machine has %d records from an older point, %d from the newest", older, newest)
	}
	if err := s.item.Commit(ctx); err != nil {
		t.Fatal(err)
	}
	points, err := s.item.Points(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.r.Power(s.home); err != nil {
		t.Fatal(err)
	}
	if err := rig.Until(ctx, "the source is seen at home again", func() (bool, error) {
		item, err := sdk.Collect(s.vault.Client.Items(ctx, ""))
		if err != nil || len(item) != 1 {
			return false, err
		}
		for _, e := range item[0].Properties.HealthErrors {
			if strings.Contains(e.ErrorMessage, "6b1f0d5e-98f5-4c9e-8f7b-0c27a9d1e0aa") {
				return true, nil
			}
		}
		return false, nil
	}); err != nil {
		t.Fatal(err)
	}
	if after, err := s.item.Points(ctx); err != nil || len(after) != len(points) {
		t.Errorf("%d points, %d before the source came back: %v", len(after), len(points), err)
	}
}
