// Package guest is the agent inside a protected machine: it tells lifeboatd what it sees, learns what is desired and keeps one
// protector running for each machine it is to protect. It opens no port but that of a consistency group, to its members.
package guest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/lifeboat-dr/lifeboat/agent/group"
	"github.com/lifeboat-dr/lifeboat/agent/identity"
	"github.com/lifeboat-dr/lifeboat/agent/quiesce"
	"github.com/lifeboat-dr/lifeboat/agent/ship"
	"github.com/lifeboat-dr/lifeboat/agent/source"
	"github.com/lifeboat-dr/lifeboat/agent/throttle"
	"github.com/lifeboat-dr/lifeboat/agent/track/kernel"
	"github.com/lifeboat-dr/lifeboat/sdk/fleet"
)

// Hypervisor is a host whose machines the agent protects from outside, in place of the machine that it runs on. Safe for concurrent
// use.
type Hypervisor interface {
	// Machines returns what runs there, as last looked at.
	Machines() []fleet.HostedMachine
	// Machine returns the machine with an SMBIOS UUID, for a protection that keeps what it remembers in dir.
	Machine(uuid, dir string) (Machine, error)
}

// Machine is a machine of a hypervisor.
type Machine interface {
	ship.Host
	// Forget removes what the hypervisor keeps for the protection, once that has ended.
	Forget(ctx context.Context) error
}

// Config of a guest agent. Only the identity's server is needed when the agent is enrolled already.
type Config struct {
	StateDir        string
	Server          identity.Server
	RegistrationKey string // to enrol with when the agent is not yet
	Source          source.Config
	Hypervisor      Hypervisor // nil: the agent protects the machine it runs on
	Scripts         quiesce.Scripts
	Shutdown        []string // how a fenced machine shuts itself down
	Group           Group    // where members of its consistency group reach the agent
	Deadman         []string // command of the dead-man process
	Gate            *quiesce.Gate
	Version         string
	Log             *slog.Logger
	Throttle        *throttle.Limiter // of all that this agent sends; may be nil
	// NoOfflineWrites states that nothing writes to the machine's disks while its system does not run (ship.Config).
	NoOfflineWrites bool
}

const (
	quietPoll    = 25 * time.Second // how long lifeboatd may keep an answer back
	busyPoll     = 2 * time.Second  // while progress moves
	newsDelay    = 200 * time.Millisecond
	firstBackoff = time.Second
	lastBackoff  = 30 * time.Second
	callLimit    = 45 * time.Second // beyond what was asked to wait
)

// EarlyLooks is where the initramfs leaves what it saw of the disks (source.SaveLooks).
const EarlyLooks = "/run/lifeboat/looks.json"

// Run works until ctx ends, and then returns nil, or until the machine was removed from its vault.
func Run(ctx context.Context, cfg Config) error {
	id, err := enrolled(ctx, cfg)
	if err != nil || id == nil {
		return err
	}
	a := &agent{cfg: cfg, id: id, log: cfg.Log.With("agent", id.ID()), news: make(chan struct{}, 1), running: map[string]*protection{}}
	a.trackers = kernel.New(cfg.StateDir, a.log)
	defer func() {
		if err := a.trackers.Close(); err != nil {
			a.log.Warn("tracking was not let go", "err", err)
		}
	}()
	a.groups = a.node()
	defer a.groups.Close()
	defer a.stopAll()
	cfg.Log.Info("agent started", "agent", id.ID(), "server", cfg.Server.Address, "version", cfg.Version)
	return a.run(ctx)
}

// enrolled returns the identity; it enrols if there is none, for as long as it takes. It returns nil when ctx ended.
func enrolled(ctx context.Context, cfg Config) (*identity.Identity, error) {
	backoff := firstBackoff
	for {
		id, err := identity.Load(cfg.StateDir)
		if err == nil || !errors.Is(err, identity.ErrNone) {
			return id, err
		}
		if cfg.RegistrationKey == "" {
			return nil, fmt.Errorf("%w: run «lifeboat-agent enroll», or put server and registration key into the configuration", err)
		}
		id, err = Enrol(ctx, cfg)
		if err == nil {
			return id, nil
		}
		if ctx.Err() != nil {
			return nil, nil
		}
		if r, ok := errors.AsType[*identity.RefusedError](err); ok && r.Status >= 400 && r.Status < 500 && r.Status != http.StatusTooManyRequests {
			return nil, err // trying again with the same key is of no use
		}
		cfg.Log.Warn("enrolment is tried again", "err", err)
		if !sleep(ctx, backoff) {
			return nil, nil
		}
		backoff = min(2*backoff, lastBackoff)
	}
}

// Enrol enrols this machine once.
func Enrol(ctx context.Context, cfg Config) (*identity.Identity, error) {
	disks, err := cfg.disks()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	return identity.Enrol(ctx, cfg.StateDir, cfg.Server, cfg.RegistrationKey, cfg.machine(disks))
}

// disks are those that the agent may protect on the machine it runs on.
func (c Config) disks() ([]source.Disk, error) {
	if c.Hypervisor != nil {
		return nil, nil
	}
	return source.Disks(c.Source)
}

// machine describes the machine that the agent runs on.
func (c Config) machine(disks []source.Disk) fleet.Machine {
	m := source.Machine(c.Source, disks)
	m.Hypervisor = c.Hypervisor != nil
	return m
}

func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d/2 + rand.N(d))
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

type agent struct {
	cfg      Config
	id       *identity.Identity
	log      *slog.Logger
	news     chan struct{} // holds one token when a status changed
	revision int64
	disks    []source.Disk          // as last listed
	running  map[string]*protection // by machine id
	groups   *group.Node
	trackers *kernel.Trackers
}

type protection struct {
	*ship.Protector
	machine Machine // of a hypervisor, or nil
	cancel  context.CancelFunc
	done    chan struct{}
}

func (a *agent) run(ctx context.Context) error {
	client, err := a.id.Client(a.cfg.Server.Address)
	if err != nil {
		return err
	}
	backoff := firstBackoff
	renewAt := a.id.RenewAt()
	for ctx.Err() == nil {
		if now := time.Now(); now.After(renewAt) {
			renewAt = now.Add(time.Hour) // unless it works
			if err := a.id.Renew(ctx, client); err != nil {
				a.log.Warn("certificate was not renewed", "err", err)
			} else {
				renewAt = a.id.RenewAt()
				client, err = a.id.Client(a.cfg.Server.Address) // on new connections
				if err != nil {
					return err
				}
			}
		}
		desired, err := a.sync(ctx, client)
		switch {
		case errors.Is(err, errNews):
			if !pause(ctx, newsDelay) {
				return nil
			}
			continue
		case err != nil:
			if ctx.Err() != nil {
				return nil
			}
			a.log.Warn("lifeboatd was not reached", "err", err)
			if !sleep(ctx, backoff) {
				return nil
			}
			backoff = min(2*backoff, lastBackoff)
			continue
		}
		backoff = firstBackoff
		if desired.Unregistered {
			a.log.Info("this machine was removed from its vault")
			a.stopAll()
			return errors.Join(a.trackers.Destroy(), a.id.Forget())
		}
		a.apply(ctx, desired)
	}
	return nil
}

func pause(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

// errNews ends a long poll because there is something to tell.
var errNews = errors.New("guest: a status changed")

// sync posts what is observed and waits for what is desired. errNews when a status changed meanwhile.
func (a *agent) sync(ctx context.Context, client *fleet.ClientWithResponses) (*fleet.AgentDesired, error) {
	select {
	case <-a.news: // it goes out with this report
	default:
	}
	report, wait := a.report()
	cctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	tctx, stop := context.WithTimeout(cctx, wait+callLimit)
	defer stop()
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel(nil)
	if wait > 0 {
		wg.Go(func() {
			select {
			case <-cctx.Done():
			case <-a.news:
				cancel(errNews)
			}
		})
	}
	seconds := int(wait / time.Second)
	r, err := client.SyncAgentWithResponse(tctx, &fleet.SyncAgentParams{WaitSeconds: seconds}, report)
	if errors.Is(context.Cause(cctx), errNews) && err != nil {
		return nil, errNews
	}
	if err != nil {
		return nil, err
	}
	if r.JSON200 == nil {
		return nil, identity.Refusal(r.HTTPResponse, r.JSONDefault)
	}
	return r.JSON200, nil
}

// report returns what is observed, and how long the answer may take.
func (a *agent) report() (fleet.AgentReport, time.Duration) {
	disks, err := a.cfg.disks()
	if err != nil { // those of before may be back with the next report
		a.log.Error("the disks of this machine cannot be listed", "err", err)
		disks = a.disks
	}
	a.disks = disks
	r := fleet.AgentReport{Version: a.cfg.Version, Revision: a.revision, Machine: a.cfg.machine(disks), Protections: []fleet.ProtectionStatus{}}
	if a.cfg.Hypervisor != nil {
		r.Machines = a.cfg.Hypervisor.Machines()
	}
	r.GroupAddresses = a.cfg.Group.told(r.Machine.IpAddresses)
	wait := quietPoll
	for _, p := range a.running {
		s := p.Status()
		a.groupStatus(&s)
		r.Protections = append(r.Protections, s)
		switch s.Phase {
		case fleet.InitialReplication, fleet.Resync, fleet.Capturing:
			wait = busyPoll
		}
	}
	return r, wait
}

// apply makes the running protectors those that are desired.
func (a *agent) apply(ctx context.Context, d *fleet.AgentDesired) {
	wanted := map[string]bool{}
	for _, want := range d.Protections {
		wanted[want.MachineId] = true
		if p := a.running[want.MachineId]; p != nil {
			p.Set(want)
			continue
		}
		p, err := a.start(ctx, want)
		if err != nil {
			a.log.Error("protection was not started", "item", want.MachineId, "err", err)
			continue
		}
		a.running[want.MachineId] = p
	}
	for id, p := range a.running {
		if !wanted[id] {
			p.stop()
			delete(a.running, id)
			if err := a.trackers.Forget(id); err != nil {
				a.log.Warn("disks of a protection that ended are still tracked", "item", id, "err", err)
			}
			if p.machine != nil {
				if err := p.machine.Forget(ctx); err != nil {
					a.log.Warn("what the hypervisor keeps for a protection was not removed", "item", id, "err", err)
				}
			}
			if err := os.RemoveAll(filepath.Join(a.cfg.StateDir, filepath.Base(id))); err != nil {
				a.log.Warn("what was remembered of a protection was not removed", "item", id, "err", err)
			}
			a.log.Info("protection ended", "item", id)
		}
	}
	a.setGroups(d)
	a.revision = d.Revision
}

func (a *agent) start(ctx context.Context, want fleet.Protection) (*protection, error) {
	if want.MachineId != filepath.Base(want.MachineId) || want.MachineId == "." || want.MachineId == ".." {
		return nil, fmt.Errorf("machine id %q", want.MachineId)
	}
	var machine Machine
	if a.cfg.Hypervisor != nil {
		var err error
		if machine, err = a.cfg.Hypervisor.Machine(want.MachineUuid, filepath.Join(a.cfg.StateDir, want.MachineId)); err != nil {
			return nil, err
		}
	}
	cfg := ship.Config{
		StateDir: a.cfg.StateDir, Identity: a.id.Data, Source: a.cfg.Source, Deadman: a.cfg.Deadman, Gate: a.cfg.Gate,
		Scripts: a.cfg.Scripts, Throttle: a.cfg.Throttle, Shutdown: a.cfg.Shutdown, Version: a.cfg.Version, Log: a.log,
		Barrier: barrier{a.groups}, Changed: a.tell, Trackers: a.trackers, NoOfflineWrites: a.cfg.NoOfflineWrites, EarlyLooks: EarlyLooks,
	}
	if machine != nil {
		cfg.Host = machine
	}
	sp, err := ship.New(cfg, want)
	if err != nil {
		return nil, err
	}
	pctx, cancel := context.WithCancel(context.WithoutCancel(ctx)) // stopAll ends it, and waits
	p := &protection{Protector: sp, machine: machine, cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(p.done)
		if err := sp.Run(pctx); err != nil {
			a.log.Error("protector ended", "item", want.MachineId, "err", err)
		}
	}()
	a.log.Info("protection started", "item", want.MachineId, "generation", want.Generation)
	return p, nil
}

// tell has lifeboatd told soon that a status changed.
func (a *agent) tell() {
	select {
	case a.news <- struct{}{}:
	default:
	}
}

func (p *protection) stop() {
	p.cancel()
	<-p.done
}

func (a *agent) stopAll() {
	for id, p := range a.running {
		p.stop()
		delete(a.running, id)
	}
}
