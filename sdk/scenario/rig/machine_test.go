package rig_test

import (
	"bytes"
	"context"
	"image/png"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/lifeboat-dr/lifeboat/sdk/scenario/guest"
	"github.com/lifeboat-dr/lifeboat/sdk/scenario/record"
	"github.com/lifeboat-dr/lifeboat/sdk/scenario/rig"
)

// The guest must be worth trusting before anything is proved with it: it boots from its own disk, keeps its records over a power
// cut and over a shutdown, hears the power button, sees its UUID, and its disk can be read from outside.
func TestGuestKeepsItsRecordsOverPowerCutAndShutdown(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	r, err := rig.New(rig.Options{Dir: t.TempDir(), Bin: "../../../bin", Logf: t.Logf})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Log(r.Logs(20))
		}
	})
	const uuid = "6b1f0d5e-98f5-4c9e-8f7b-0c27a9d1e001"
	m, err := r.AddMachine(rig.MachineSpec{Name: "web01", Datastore: r.Path("home"), UUID: uuid, Disks: []rig.MachineDisk{{ID: "disk0", Path: "disk0.raw"}}})
	if err != nil {
		t.Fatal(err)
	}
	image := m.Dir + "/disk0.raw"
	spec := guest.Spec{
		RecordEvery: 50 * time.Millisecond,
		Files:       []guest.File{{Path: "/etc/motd", Data: []byte("ahoy\n")}},
		Services:    []guest.Service{{Name: "lamp", Command: []string{"/bin/sh", "-x", "/etc/lamp"}}},
	}
	spec.Files = append(spec.Files, guest.File{Path: "/etc/lamp", Data: []byte("cat /sys/block/vda/serial /etc/motd; ip addr show eth0; sleep 600\n")})
	if err := guest.Build(ctx, image, spec); err != nil {
		t.Fatal(err)
	}
	if err := guest.Check(ctx, image, false); err != nil {
		t.Fatalf("a fresh guest's filesystem: %v", err)
	}
	if err := r.Power(m); err != nil {
		t.Fatal(err)
	}
	up, verdict, next, err := m.Console.WaitUp(ctx, 0)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(up.Text, "uuid="+uuid+" records=0") || !strings.Contains(verdict.Text, "RECORDS-OK 0") {
		t.Errorf("got %q and %q, want the machine's UUID and no records", up.Text, verdict.Text)
	}
	shown, err := m.Console.WaitRecords(ctx, 20)
	if err != nil {
		t.Fatal(err)
	}
	if err := rig.Until(ctx, "the service inside has logged", func() (bool, error) {
		b, err := os.ReadFile(m.Dir + "/agent.log")
		return err == nil && bytes.Contains(b, []byte("disk0")) && bytes.Contains(b, []byte("ahoy")) && bytes.Contains(b, []byte("10.0.2.15")), nil
	}); err != nil {
		t.Error(err)
	}
	screenshot := r.Path("screen.png")
	if err := m.Screenshot(ctx, screenshot); err != nil {
		t.Error(err)
	} else if f, err := os.Open(screenshot); err != nil {
		t.Error(err)
	} else if _, err := png.Decode(f); err != nil {
		t.Errorf("screenshot: %v", err)
	}
	if err := m.Cut(); err != nil {
		t.Fatal(err)
	}
	run := verifyImage(t, image)
	if run.Count < shown.N || run.Sums[shown.N-1] != shown.Sum {
		t.Errorf("after a power cut the disk holds %d records; record %d was announced as %s", run.Count, shown.N, shown.Sum)
	}

	if err := r.Power(m); err != nil {
		t.Fatal(err)
	}
	_, verdict, _, err = m.Console.WaitUp(ctx, next)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(verdict.Text, "RECORDS-OK") {
		t.Errorf("got %q after a power cut, want unbroken records", verdict.Text)
	}
	if _, err := m.Console.WaitRecord(ctx, run.Count+10); err != nil {
		t.Fatal(err)
	}
	if err := rig.Until(ctx, "the power button is heard", func() (bool, error) {
		b, err := os.ReadFile(m.Dir + "/agent.log")
		return bytes.Count(b, []byte("10.0.2.15")) >= 2, err
	}); err != nil {
		t.Error(err)
	}
	off, cancelOff := context.WithTimeout(ctx, time.Minute)
	defer cancelOff()
	if err := m.PowerDown(off); err != nil {
		t.Fatal(err)
	}
	if err := guest.Check(ctx, image, false); err != nil {
		t.Errorf("filesystem after a shutdown: %v", err)
	}
	all := m.Console.Records()
	if last := all[len(all)-1]; verifyImage(t, image).Sums[last.N-1] != last.Sum {
		t.Errorf("record %d was announced and is not on the disk", last.N)
	}
}

func verifyImage(t *testing.T, image string) record.Run {
	t.Helper()
	data, err := guest.OpenRecords(t.Context(), image)
	if err != nil {
		t.Fatal(err)
	}
	run, err := record.Verify(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	return run
}
