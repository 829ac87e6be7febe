package node

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lifeboat-dr/lifeboat/replicator/compute"
	"github.com/lifeboat-dr/lifeboat/sdk/fleet"
	"github.com/lifeboat-dr/lifeboat/service/job"
)

const (
	capabilityRepository = job.CapabilityRepository
	capabilityCompute    = job.CapabilityCompute
	capabilityWriteback  = job.CapabilityWriteback
)

// report is what the node sees now.
func (n *Node) report(ctx context.Context) fleet.ReplicatorReport {
	n.mu.Lock()
	revision := n.revision
	n.mu.Unlock()
	r := fleet.ReplicatorReport{Version: n.cfg.Version, Hostname: n.cfg.Hostname, Site: n.cfg.Site, Revision: revision,
		Capabilities: n.capabilities(), DataAddress: n.cfg.DataAddress, ControlAddress: n.cfg.ControlAddress, Health: n.health()}
	for _, role := range n.cfg.Roles {
		r.Roles = append(r.Roles, fleet.ReplicatorReportRoles(role))
	}
	for name, dir := range n.cfg.Datastores {
		d := fleet.Datastore{Name: name}
		d.TotalBytes, d.AvailableBytes = space(dir)
		r.Datastores = append(r.Datastores, d)
	}
	slices.SortFunc(r.Datastores, func(a, b fleet.Datastore) int { return strings.Compare(a.Name, b.Name) })
	if n.cfg.Compute != nil {
		r.Instances = n.instances(ctx)
		r.VirtualMachines = n.homeMachines(ctx)
	}
	return r
}

// instanceStates maps a driver's states to the protocol's.
var instanceStates = map[compute.State]fleet.InstanceState{
	compute.StateStarting: fleet.Stopped,
	compute.StateRunning:  fleet.Running,
	compute.StateStopped:  fleet.Stopped,
	compute.StateCrashed:  fleet.Stopped,
}

func (n *Node) instances(ctx context.Context) []fleet.Instance {
	list, err := n.cfg.Compute.List(ctx)
	if err != nil {
		n.log.Warn("instances could not be listed", "err", err)
		return nil
	}
	var out []fleet.Instance
	for _, i := range list {
		x := fleet.Instance{InstanceId: i.ID, MachineId: i.Machine, State: instanceStates[i.State], HydratedPercent: n.hydration(i)}
		if i.State == compute.StateCrashed {
			x.Error = "The hypervisor ended without the guest having shut down."
		}
		if len(i.DiskErrors) > 0 {
			x.Error = i.DiskErrors[0]
		}
		out = append(out, x)
	}
	return out
}

// health is the load of this host.
func (n *Node) health() fleet.ReplicatorHealth {
	h := fleet.ReplicatorHealth{ProcessorPercent: n.cpu.percent()}
	var si unix.Sysinfo_t
	if err := unix.Sysinfo(&si); err == nil {
		h.TotalMemoryBytes = int64(si.Totalram) * int64(si.Unit)
		h.AvailableMemoryBytes = int64(si.Freeram+si.Bufferram) * int64(si.Unit)
	}
	if available, ok := memAvailable(); ok {
		h.AvailableMemoryBytes = available
	}
	h.TotalSpaceBytes, h.AvailableSpaceBytes = space(n.cfg.StateDir)
	if n.ingest != nil {
		s := n.ingest.Stats()
		h.SpoolUsedBytes, h.SpoolLimitBytes, h.ThroughputBytesPerSecond, h.Sessions = s.SpoolBytes, s.SpoolLimit, s.BytesPerSecond, s.Sessions
	}
	return h
}

// memAvailable reads MemAvailable of /proc/meminfo (proc(5)), which counts what the page cache would give back.
func memAvailable() (int64, bool) {
	raw, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0, false
	}
	_, rest, ok := bytes.Cut(raw, []byte("MemAvailable:"))
	if !ok {
		return 0, false
	}
	fields := bytes.Fields(rest)
	if len(fields) == 0 {
		return 0, false
	}
	kib, err := strconv.ParseInt(string(fields[0]), 10, 64)
	return kib << 10, err == nil
}

// space tells the size of the filesystem that holds dir and how much of it we may use; zeros when it cannot be asked.
func space(dir string) (total, available int64) {
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		return 0, 0
	}
	return int64(fs.Blocks) * fs.Bsize, int64(fs.Bavail) * fs.Bsize
}

// cpuMeter measures how busy the host was since it was asked before. The zero value is ready.
type cpuMeter struct {
	mu         sync.Mutex
	busy, idle int64
}

// percent reads the first line of /proc/stat (proc(5)); 0 at the first call and where there is none.
func (c *cpuMeter) percent() float64 {
	raw, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0
	}
	line, _, _ := strings.Cut(string(raw), "\n")
	fields := strings.Fields(line)
	if len(fields) < 6 || fields[0] != "cpu" {
		return 0
	}
	var total, idle int64
	for i, f := range fields[1:min(len(fields), 9)] { // guest time, after that, is counted in user time already
		v, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			return 0
		}
		total += v
		if i == 3 || i == 4 { // idle, iowait
			idle += v
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	busy := total - idle
	b, i := busy-c.busy, idle-c.idle
	first := c.busy == 0 && c.idle == 0
	c.busy, c.idle = busy, idle
	if first || b+i <= 0 {
		return 0
	}
	return 100 * float64(b) / float64(b+i)
}

// artifacts posts files to lifeboatd.
type artifacts struct{ client *fleet.ClientWithResponses }

func (a artifacts) PutArtifact(ctx context.Context, jobID, name string, content []byte) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	resp, err := a.client.PutArtifactWithBodyWithResponse(ctx, jobID, name, "application/octet-stream", bytes.NewReader(content))
	if err != nil {
		return fmt.Errorf("keep artifact %s: %w", name, err)
	}
	if resp.StatusCode() != http.StatusNoContent {
		return fmt.Errorf("keep artifact %s: %w", name, refused(resp.StatusCode(), resp.JSONDefault))
	}
	return nil
}

// lockPatience is how long a predecessor that was killed may take to be gone.
const lockPatience = 3 * time.Second

// lockDirectory makes dir and takes it for this process, so that two nodes do not share a spool.
func lockDirectory(ctx context.Context, dir string) (*os.File, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make state directory: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock state directory: %w", err)
	}
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for end := time.After(lockPatience); ; {
		if err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err == nil {
			return f, nil
		}
		select {
		case <-tick.C:
			continue
		case <-ctx.Done():
			err = context.Cause(ctx)
		case <-end:
		}
		_ = f.Close()
		return nil, fmt.Errorf("lock state directory %s, which another replicator uses: %w", dir, err)
	}
}
