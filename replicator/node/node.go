// Package node assembles a replicator: it serves vaults as lifeboatd desires, takes agents' replication data in, leases and
// does tasks, relays agents' control connections, and reports what it sees. The same node runs as a process of its own and
// inside lifeboatd; both speak to lifeboatd over the fleet protocol and nothing else.
//
// It must never act on what it was not told: a vault that is no longer desired is no longer served. It stops nothing that runs
// from a recovery point: machines and their disk servers outlive it and are found again.
package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/lifeboat-dr/lifeboat/replicator/chunk"
	"github.com/lifeboat-dr/lifeboat/replicator/compute"
	"github.com/lifeboat-dr/lifeboat/replicator/ingest"
	"github.com/lifeboat-dr/lifeboat/replicator/relay"
	"github.com/lifeboat-dr/lifeboat/replicator/worker"
	"github.com/lifeboat-dr/lifeboat/replicator/worker/leasequeue"
	"github.com/lifeboat-dr/lifeboat/sdk/fleet"
	"github.com/lifeboat-dr/lifeboat/service/job"
)

// Roles of a replicator, in the field's words.
const (
	RoleConfigurationServer = "configurationServer"
	RoleProcessServer       = "processServer"
	RoleMasterTarget        = "masterTarget"
)

// Roles are all roles.
var Roles = []string{RoleConfigurationServer, RoleProcessServer, RoleMasterTarget}

// Compute is what a master target drives: instances and home machines. *qemu.Driver is one.
type Compute interface {
	compute.Driver
	compute.Home
}

// Config wires a Node. Client, Identity, StateDir, Hostname, Site and Roles are required.
type Config struct {
	Client   *fleet.ClientWithResponses
	Identity *Identity
	StateDir string // spool, captures; one node at a time
	Hostname string
	Site     string // home or recovery
	Roles    []string
	Version  string

	// Data takes agents' replication data; needed for the process server. DataAddress is what agents are told: host:port,
	// several separated by commas when not everyone sees this host under the same one.
	Data        net.Listener
	DataAddress string
	SpoolLimit  int64       // bytes; zero is ingest's default
	Codec       chunk.Codec // of what is stored; zero is the repository's default

	// Control takes agents' control connections, passed on through DialServer; nil: no relay. Needed for the configuration
	// server.
	Control        net.Listener
	ControlAddress string
	DialServer     func(ctx context.Context) (net.Conn, error)

	// Compute drives the hypervisor; nil for a replicator without one. Datastores are its home machines' places by name.
	Compute    Compute
	Datastores map[string]string

	// Scripts makes the node a runner of recovery plans' scripts; nil: it runs none.
	Scripts *worker.Scripts

	// OpenQueue reaches the task queue at an address that lifeboatd told. It fails when the queue does not answer: tasks are
	// then leased from lifeboatd. nil: always.
	OpenQueue func(ctx context.Context, address string) (worker.Queue, io.Closer, error)

	Log *slog.Logger
}

// Node is one replicator. Make it with New, then Run it once.
type Node struct {
	cfg     Config
	log     *slog.Logger
	vaults  *vaults
	index   *index
	ingest  *ingest.Server
	handler map[string]worker.Handler
	cpu     cpuMeter

	mu       sync.Mutex
	redis    string // address as desired
	revision int64
	hydrated map[string]int // percent, by instance that is being hydrated
	synced   chan struct{}  // closed after the first answer of lifeboatd
	poke     chan struct{}  // asks the pool keeper to look at redis
}

// New returns a Node that does nothing yet.
func New(cfg Config) (*Node, error) {
	if cfg.Client == nil || cfg.Identity == nil || cfg.StateDir == "" || cfg.Hostname == "" || cfg.Site == "" || len(cfg.Roles) == 0 {
		return nil, errors.New("node: Client, Identity, StateDir, Hostname, Site and Roles are required")
	}
	for _, r := range cfg.Roles {
		if !slices.Contains(Roles, r) {
			return nil, fmt.Errorf("node: there is no role %q", r)
		}
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	n := &Node{cfg: cfg, log: cfg.Log, synced: make(chan struct{}), poke: make(chan struct{}, 1)}
	n.index = newIndex(cfg.Client, cfg.Log)
	n.vaults = newVaults(cfg.Codec, cfg.Log)
	if cfg.Data != nil {
		var err error
		n.ingest, err = ingest.New(ingest.Config{Vault: n.vaults.byServerName, Dir: filepath.Join(cfg.StateDir, "spool"), SpoolLimit: cfg.SpoolLimit,
			Committed: n.index.ReportPoint, Logger: cfg.Log})
		if err != nil {
			return nil, err
		}
	}
	tasks := &worker.Tasks{Vaults: n.vaults, Index: n.index, Artifacts: artifacts{cfg.Client}, SpoolDir: cfg.StateDir, Scripts: cfg.Scripts}
	if cfg.Compute != nil {
		tasks.Compute, tasks.Home = cfg.Compute, cfg.Compute
	}
	n.handler = tasks.Handlers()
	return n, nil
}

// Synced is closed once lifeboatd has answered for the first time and what it desires was begun.
func (n *Node) Synced() <-chan struct{} { return n.synced }

// Run serves until ctx ends, then stops in order: no new sessions and tasks first, the vaults' buckets last. Its error is what
// ended it early.
func (n *Node) Run(ctx context.Context) error {
	lock, err := lockDirectory(ctx, n.cfg.StateDir)
	if err != nil {
		return err
	}
	defer func() { _ = lock.Close() }() // the lock goes with the process at the latest
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	// What follows needs vaults and the index, which therefore stop after it.
	base, stopBase := context.WithCancel(context.WithoutCancel(ctx))
	var under, over sync.WaitGroup
	under.Go(func() { n.index.run(base) })
	part := func(name string, run func(context.Context) error) {
		over.Go(func() {
			if err := run(ctx); err != nil && ctx.Err() == nil {
				cancel(fmt.Errorf("%s: %w", name, err))
			}
		})
	}
	part("sync", n.sync)
	part("tasks", n.work)
	part("identity", n.cfg.Identity.keepFresh(n.cfg.Client, n.log))
	part("reconcile", n.reconcile)
	if n.ingest != nil {
		part("replication port", func(ctx context.Context) error { return n.ingest.Serve(ctx, n.cfg.Data) })
	}
	if n.cfg.Control != nil {
		part("relay", func(ctx context.Context) error {
			return relay.New(n.cfg.DialServer, n.log).Serve(ctx, n.cfg.Control)
		})
	}
	if n.cfg.Compute != nil {
		part("instances", n.tendInstances)
	}
	over.Wait()
	stopBase()
	under.Wait()
	err = n.vaults.close()
	if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, context.Canceled) {
		err = errors.Join(cause, err)
	}
	return err
}

// capabilities tells which tasks the node's roles and drivers let it do: each for anyone of its site, and for it alone, because
// some work is on what lives here.
func (n *Node) capabilities() []string {
	var out []string
	has := func(r string) bool { return slices.Contains(n.cfg.Roles, r) }
	if has(RoleProcessServer) || has(RoleMasterTarget) {
		out = append(out, capabilityRepository)
	}
	if has(RoleMasterTarget) && n.cfg.Compute != nil {
		out = append(out, capabilityCompute, capabilityWriteback)
	}
	for _, c := range slices.Clone(out) {
		out = append(out, job.At(c, n.cfg.Identity.ID()))
	}
	if has(RoleProcessServer) || has(RoleMasterTarget) {
		out = append(out, job.CapabilityWebhook)
	}
	if s := n.cfg.Scripts; s != nil {
		out = append(out, job.CapabilityScript, job.At(job.CapabilityScript, strings.ToLower(s.Runner)))
	}
	return out
}

// reopenQueue is how often a queue that did not answer is tried again.
const reopenQueue = 30 * time.Second

// work keeps one pool running: on the queue that lifeboatd named when it can be reached, else on the lease endpoint.
func (n *Node) work(ctx context.Context) error {
	select {
	case <-n.synced: // before, lifeboatd does not know what this node can do
	case <-ctx.Done():
		return nil
	}
	for ctx.Err() == nil {
		n.workOnce(ctx)
	}
	return nil
}

// workOnce runs a pool until the desired queue changes or one that was away may be back.
func (n *Node) workOnce(ctx context.Context) {
	n.mu.Lock()
	address := n.redis
	n.mu.Unlock()
	var queue worker.Queue = leasequeue.New(n.cfg.Client)
	var closer io.Closer
	retry := time.Duration(0)
	if address != "" && n.cfg.OpenQueue != nil {
		q, c, err := n.cfg.OpenQueue(ctx, address)
		if err != nil {
			n.log.Warn("task queue does not answer, tasks are leased from lifeboatd", "err", err)
			retry = reopenQueue
		} else {
			queue, closer = q, c
		}
	}
	run, stop := context.WithCancel(ctx)
	defer stop()
	var pool sync.WaitGroup
	pool.Go(func() {
		worker.NewPool(worker.Config{Queue: queue, Name: n.cfg.Identity.ID(), Routes: n.lanes(), Handlers: n.handler, Log: n.log}).Run(run)
	})
	n.awaitQueueChange(ctx, address, retry)
	stop()
	pool.Wait()
	if closer != nil {
		if err := closer.Close(); err != nil {
			n.log.Warn("task queue was not closed cleanly", "err", err)
		}
	}
}

func (n *Node) awaitQueueChange(ctx context.Context, address string, retry time.Duration) {
	var again <-chan time.Time
	if retry > 0 {
		t := time.NewTimer(retry)
		defer t.Stop()
		again = t.C
	}
	for {
		select {
		case <-ctx.Done():
			return
		case <-again:
			return
		case <-n.poke:
			n.mu.Lock()
			changed := n.redis != address
			n.mu.Unlock()
			if changed {
				return
			}
		}
	}
}

// slots is how many tasks of a capability run at once. Repository tasks are short or wait for the bucket; those that start or
// write machines are long and heavy.
var slots = map[string]int{capabilityRepository: 4, capabilityCompute: 4, capabilityWriteback: 2, job.CapabilityScript: 2, job.CapabilityWebhook: 2}

func (n *Node) lanes() []worker.Lane {
	var out []worker.Lane
	for _, c := range n.capabilities() {
		general, _, _ := strings.Cut(c, "@")
		out = append(out, worker.Lane{Route: worker.Route{Site: n.cfg.Site, Capability: c}, Slots: slots[general]})
	}
	return out
}
