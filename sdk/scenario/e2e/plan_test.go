package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/lifeboat-dr/lifeboat/sdk"
	"github.com/lifeboat-dr/lifeboat/sdk/oas"
	"github.com/lifeboat-dr/lifeboat/sdk/scenario/guest"
	"github.com/lifeboat-dr/lifeboat/sdk/scenario/rig"
)

const planName = "shop"

// fleet is five machines under one plan of three groups, with a script before the first group and a pause behind the second. Their
// sources are disks that stand still, each with an agent beside it; what the plan starts are machines under QEMU.
type fleet struct {
	t      *testing.T
	r      *rig.Rig
	plane  *rig.Plane
	vault  *rig.Vault
	names  []string
	script string // what the script has written, a line a run
}

// TestAPlanOfFiveMachinesSurvivesKillsInTheMiddleOfEachGroup drills, cleans up, fails over and commits a plan; lifeboatd is killed
// while a machine of each group is being started, and goes on where it was.
func TestAPlanOfFiveMachinesSurvivesKillsInTheMiddleOfEachGroup(t *testing.T) {
	t.Parallel()
	ctx := deadline(t, 25*time.Minute)
	f := &fleet{t: t, r: newRig(t), names: []string{"db01", "app01", "app02", "web01", "web02"}}
	f.build(ctx)
	c := f.vault.Client

	before := serials(f.r.Dir)
	op, err := c.DrillPlan(ctx, planName, sdk.PlanFailover{Detached: true})
	f.must(err)
	f.disturbed(ctx, op.JobID)
	f.up(ctx, before, 5)
	f.ranOnce("Test")
	f.must(f.settle(ctx)(c.CleanUpPlan(ctx, planName, "five machines came up")))
	if left := f.started(before); len(left) > 0 {
		t.Errorf("the cleanup left %v", left)
	}

	before = serials(f.r.Dir)
	op, err = c.UnplannedFailoverPlan(ctx, planName, sdk.PlanFailover{})
	f.must(err)
	f.disturbed(ctx, op.JobID)
	f.up(ctx, before, 5)
	f.ranOnce("Unplanned")
	f.must(f.settle(ctx)(c.CommitPlan(ctx, planName)))
	for _, name := range f.names {
		item, err := c.FindItem(ctx, "", name)
		f.must(err)
		if item.Properties.ProtectionState != "UnplannedFailoverCommitted" {
			t.Errorf("%s is %s after the commit", name, item.Properties.ProtectionState)
		}
	}
}

func (f *fleet) must(err error) {
	f.t.Helper()
	if err != nil {
		f.t.Fatal(err)
	}
}

// build starts lifeboatd as a runner, protects the machines and makes the plan.
func (f *fleet) build(ctx context.Context) {
	scripts := f.r.Path("scripts")
	f.script = filepath.Join(scripts, "log")
	f.must(os.MkdirAll(scripts, 0o755))
	f.must(os.WriteFile(filepath.Join(scripts, "open.sh"), []byte("#!/bin/sh\necho \"$LIFEBOAT_FAILOVER_TYPE $LIFEBOAT_TASK_ID\" >>log\necho opened\n"), 0o755))
	var err error
	f.plane, err = f.r.StartEmbedded(ctx, "--runner-name", "cellar", "--scripts-dir", scripts)
	f.must(err)
	f.vault, err = f.plane.CreateVault(ctx, "fleet", rig.Policies{CrashConsistentMinutes: 60})
	f.must(err)
	base := f.r.Path("base.raw")
	f.must(guest.Build(ctx, base, guest.Spec{}))
	var groups []sdk.PlanGroup
	for i, name := range f.names {
		ref := f.protect(ctx, base, name, i)
		if i == 0 || i%2 == 1 { // one machine, then two and two
			groups = append(groups, sdk.PlanGroup{})
		}
		last := &groups[len(groups)-1]
		last.Machines = append(last.Machines, ref)
	}
	groups[0].Before = []sdk.PlanAction{{Name: "open the firewall", Script: "open.sh", Runner: "cellar", Timeout: time.Minute}}
	groups[1].After = []sdk.PlanAction{{Name: "look", Manual: "Look at the consoles."}}
	container, err := sdk.RefOf(f.item(ctx, f.names[0]))
	f.must(err)
	f.must(f.settle(ctx)(f.vault.Client.PutPlan(ctx, planName, sdk.PlanSettings{Fabric: container.Fabric, Groups: groups, ParallelStarts: 1})))
}

func (f *fleet) item(ctx context.Context, name string) sdk.Item {
	item, err := f.vault.Client.FindItem(ctx, "", name)
	f.must(err)
	return item
}

// protect copies the base disk, starts an agent for it and waits until the machine is protected.
func (f *fleet) protect(ctx context.Context, base, name string, n int) sdk.ItemRef {
	image := f.r.Path(name + ".raw")
	if out, err := exec.CommandContext(ctx, "cp", "--sparse=always", base, image).CombinedOutput(); err != nil {
		f.t.Fatalf("cp: %v: %s", err, out)
	}
	_, err := f.r.StartAgent(ctx, f.plane, f.vault, rig.AgentSpec{Hostname: name, UUID: fmt.Sprintf("0a1b2c3d-0000-4000-8000-%012d", n+1), Disk: "disk0", Image: image, Stopped: true})
	f.must(err)
	protectable, err := f.vault.WaitProtectable(ctx, name)
	f.must(err)
	item, err := f.vault.Protect(ctx, name, protectable)
	f.must(err)
	f.must(item.WaitState(ctx, nil, rig.StateProtected))
	ref, err := sdk.RefOf(f.item(ctx, name))
	f.must(err)
	return ref
}

func (f *fleet) settle(ctx context.Context) func(*sdk.Operation, error) error {
	return func(o *sdk.Operation, err error) error {
		if err == nil {
			_, err = f.vault.Wait(ctx, o.JobID)
		}
		return err
	}
}

// disturbed waits for the end of an operation on the plan. Once in each group, while one of its machines is being started,
// lifeboatd is killed; at the pause it is killed too, and then the job is resumed.
func (f *fleet) disturbed(ctx context.Context, job string) {
	f.t.Helper()
	killed := map[string]bool{}
	resumed := false
	err := rig.Until(ctx, "the plan's job ends", func() (bool, error) {
		j, err := f.vault.Client.Job(ctx, job)
		if err != nil {
			if unreachable(err) {
				return false, nil
			}
			return false, err
		}
		switch state := j.Properties.State; {
		case state == "Succeeded":
			return true, nil
		case state == "Failed", state == "Cancelled":
			return false, fmt.Errorf("the job has %s: %+v", state, j.Properties.Errors)
		case state == "Suspended" && !killed["pause"]:
			killed["pause"] = true
			return false, restartAll(ctx, f.r, f.plane)
		case state == "Suspended" && !resumed:
			_, err := f.vault.Client.ResumeJob(ctx, job, "they look well")
			resumed = err == nil
			return false, err
		}
		for _, t := range j.Properties.Tasks {
			g, err := t.GroupTaskCustomDetails.AsRecoveryPlanGroupTaskDetails()
			if err != nil || g.RpGroupType != "Boot" || killed[g.Name] || !startsOne(g.ChildTasks) {
				continue
			}
			killed[g.Name] = true
			f.t.Logf("killing lifeboatd in %s", g.Name)
			return false, restartAll(ctx, f.r, f.plane)
		}
		return false, nil
	})
	f.must(err)
	if len(killed) != 4 {
		f.t.Errorf("lifeboatd was killed at %v, want each of three groups and the pause", killed)
	}
}

// startsOne tells whether a machine is being started.
func startsOne(tasks []oas.ASRTask) bool {
	for _, t := range tasks {
		if t.TaskType == "VirtualMachineTaskDetails" && t.State == "InProgress" {
			return true
		}
	}
	return false
}

func unreachable(err error) bool {
	e, ok := errors.AsType[*sdk.Error](err)
	return ok && (e.Code == sdk.CodeUnreachable || e.Status == 503)
}

// started are the serial logs of machines that were started since before was taken and are still there.
func (f *fleet) started(before map[string]bool) (paths []string) {
	for path := range serials(f.r.Dir) {
		if !before[path] {
			paths = append(paths, path)
		}
	}
	return paths
}

// up checks that just so many machines came up since before was taken, with unbroken records.
func (f *fleet) up(ctx context.Context, before map[string]bool, want int) {
	f.t.Helper()
	paths := f.started(before)
	if len(paths) != want {
		f.t.Fatalf("%d machines were started: %v", len(paths), paths)
	}
	for _, path := range paths {
		console := rig.Follow(path)
		_, verdict, _, err := console.WaitUp(ctx, 0)
		if err == nil && !strings.Contains(verdict.Text, "RECORDS-OK") {
			err = fmt.Errorf("%s says %q", path, verdict.Text)
		}
		console.Close()
		f.must(err)
	}
}

// ranOnce checks that the script ran in the operation as one task. A kill may let it run again, under the same id.
func (f *fleet) ranOnce(kind string) {
	f.t.Helper()
	text, err := os.ReadFile(f.script)
	f.must(err)
	ids := map[string]bool{}
	for line := range strings.Lines(string(text)) {
		if id, ok := strings.CutPrefix(strings.TrimSpace(line), kind+" "); ok {
			ids[id] = true
		}
	}
	if len(ids) != 1 {
		f.t.Errorf("the script ran in %d tasks of kind %s:\n%s", len(ids), kind, text)
	}
}
