// Package life plays the whole life of one machine on a rig: protected by the agent inside it, drilled, lost, recovered,
// accepted, protected the other way, brought home. At every step it compares what consoles show and disks hold with what the
// machine had written, and it fails when a record is missing that a recovery point promised. The demo prints what it
// tells; the end-to-end tests run it with processes killed on the way.
package life

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/lifeboat-dr/lifeboat/sdk/scenario/guest"
	"github.com/lifeboat-dr/lifeboat/sdk/scenario/rig"
)

// HomeUUID is the SMBIOS UUID of the production machine.
const HomeUUID = "6b1f0d5e-98f5-4c9e-8f7b-0c27a9d1e001"

// Machine is the name of the production machine.
const Machine = "web01"

// Options of a life. The zero value is the whole life, untold and undisturbed.
type Options struct {
	// DiskBytes is the size of the machine's disk. Default 256 MiB.
	DiskBytes int64
	// Tell hears of every step as it ends, with what it brought about.
	Tell func(step, what string)
	// Progress hears of work under way, often.
	Progress func(step string, percent int)
	// Disturb is called at named moments; it may kill and restart processes. An error ends the life.
	Disturb func(ctx context.Context, moment string) error
	// Evidence is a directory for the replica's screenshot and console; empty keeps none.
	Evidence string
}

// Moments at which Disturb is called.
const (
	DuringInitialReplication = "during initial replication"
	DuringDrill              = "during the drill"
	DuringFailover           = "during the failover"
	AfterCommit              = "after the commit"
	DuringWayBack            = "during the replication home"
)

// Result is what a life measured.
type Result struct {
	InitialReplication time.Duration
	InitialBytes       int64 // changed bytes of the first point
	InitialStored      int64

	DrillRecovery  time.Duration // request until the first line of userspace
	DrillRecords   int64
	Recovery       time.Duration // the same for the failover
	RecoveredAt    int64         // records on the replica's first boot
	WrittenAtHome  int64         // records the source had announced when it was killed
	LostRecords    int64
	LostTime       time.Duration // from the newest point to the source's last record: the measured RPO
	PointsOutbound int
	BytesOutbound  int64 // changed bytes of all points before the failover, the first left out

	WayBack      time.Duration // reprotect until Protected
	BytesWayBack int64         // changed bytes of the points on the way home
	FailBack     time.Duration // request until the first line of userspace at home
	Again        time.Duration // reprotect at home until Protected
	BytesAgain   int64         // changed bytes of the first point after it
	FinalRecords int64         // on the home disk at the end
	Screenshot   string        // path, when Evidence was given
	Serial       string        // path
}

// Stage is where a life plays.
type Stage struct {
	Rig   *rig.Rig
	Plane *rig.Plane
}

// play is a life under way.
type play struct {
	Stage
	opt   Options
	vault *rig.Vault
	item  *rig.Item
	home  *rig.Machine
	// replica is the console of the machine that the failover started.
	replica *rig.Console
	res     Result
}

// Play plays a life to its end, or to the first thing that is wrong. The stage's processes run on.
func Play(ctx context.Context, s Stage, opt Options) (Result, error) {
	p := &play{Stage: s, opt: opt}
	if p.opt.Tell == nil {
		p.opt.Tell = func(string, string) {}
	}
	if p.opt.Progress == nil {
		p.opt.Progress = func(string, int) {}
	}
	if p.opt.Disturb == nil {
		p.opt.Disturb = func(context.Context, string) error { return nil }
	}
	for _, step := range []struct {
		name string
		do   func(context.Context) error
	}{
		{"start the source", p.start}, {"protect", p.protect}, {"drill", p.drill}, {"lose and recover", p.failover},
		{"reprotect", p.reprotect}, {"bring home", p.failback}, {"protect again", p.again}, {"check the home disk", p.checkHome},
	} {
		if err := step.do(ctx); err != nil {
			return p.res, fmt.Errorf("%s: %w", step.name, err)
		}
	}
	return p.res, nil
}

func (p *play) tell(step, format string, args ...any) { p.opt.Tell(step, fmt.Sprintf(format, args...)) }

// start builds the machine and boots it.
func (p *play) start(ctx context.Context) (err error) {
	if p.vault, err = p.Plane.CreateVault(ctx, "harbour", rig.Policies{}); err != nil {
		return err
	}
	p.home, err = p.Rig.AddMachine(rig.MachineSpec{Name: Machine, Datastore: p.Plane.Datastore, UUID: HomeUUID,
		Disks: []rig.MachineDisk{{ID: "disk0", Path: "disk0.raw"}}})
	if err != nil {
		return err
	}
	spec := guest.Spec{DiskBytes: p.opt.DiskBytes, Hostname: Machine}
	if err := p.Plane.InstallAgent(ctx, p.vault, &spec); err != nil {
		return err
	}
	began := time.Now()
	if err := guest.Build(ctx, filepath.Join(p.home.Dir, "disk0.raw"), spec); err != nil {
		return err
	}
	p.tell("build", "a Debian guest with lifeboat-agent inside, in %s", Round(time.Since(began)))
	began = time.Now()
	if err := p.Rig.Power(p.home); err != nil {
		return err
	}
	if _, _, _, err := p.home.Console.WaitUp(ctx, 0); err != nil {
		return err
	}
	p.tell("boot", "the source machine %s is up after %s and writes records", Machine, Round(time.Since(began)))
	return nil
}

func (p *play) protect(ctx context.Context) error {
	protectable, err := p.vault.WaitProtectable(ctx, Machine)
	if err != nil {
		return err
	}
	p.tell("enrol", "its agent has enrolled with a one-time key")
	began := time.Now()
	if p.item, err = p.vault.Protect(ctx, Machine, protectable); err != nil {
		return err
	}
	disturbed := false
	var disturbance error
	err = p.item.WaitState(ctx, func(st rig.Status) {
		p.opt.Progress("initial replication", st.Percent)
		if !disturbed && st.State == rig.StateInitialReplication && st.Percent >= 10 {
			disturbed = true
			disturbance = p.opt.Disturb(ctx, DuringInitialReplication)
		}
	}, rig.StateProtected)
	if err := errors.Join(err, disturbance); err != nil {
		return err
	}
	p.res.InitialReplication = time.Since(began)
	points, err := p.item.Points(ctx)
	if err != nil {
		return err
	}
	first := points[len(points)-1]
	p.res.InitialBytes, p.res.InitialStored = first.ChangedBytes, first.StoredByte
	p.tell("protect", "Protected after %s: %s read, %s stored", Round(p.res.InitialReplication), Size(first.ChangedBytes), Size(first.StoredByte))
	return nil
}
