package e2e

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/lifeboat-dr/lifeboat/sdk/scenario/bucketcheck"
	"github.com/lifeboat-dr/lifeboat/sdk/scenario/rig"
	"github.com/lifeboat-dr/lifeboat/sdk/scenario/volume"
)

// initial protects the machine and kills while the first copy travels: from the moment its agent has opened a session until it
// has seen its first point.
func (m *machine) initial(ctx context.Context) error {
	protectable, err := m.enrol(ctx, m.r, m.plane, m.vault, m.uuid)
	if err != nil {
		return err
	}
	log := rig.Follow(m.agent.Log)
	defer log.Close()
	item, job, err := m.vault.BeginProtect(ctx, m.name, protectable)
	if err != nil {
		return err
	}
	m.item = item
	next := 0
	for range 2 {
		opened := false
		if _, next, err = log.Wait(ctx, "the first copy to begin", next, func(line string) bool {
			opened = strings.Contains(line, "replication session opened")
			return opened || strings.Contains(line, "point is durable")
		}); err != nil {
			return err
		}
		m.pause(200 * time.Millisecond)
		if !opened || strings.Contains(m.agent.Tail(3), "point is durable") {
			break
		}
		if err := m.kill(ctx, phaseInitial, "lifeboatd", "replicator-", "agent-"+m.name); err != nil {
			return err
		}
	}
	if _, err := m.vault.Wait(ctx, job); err != nil {
		return err
	}
	return m.item.WaitState(ctx, nil, rig.StateProtected)
}

// acknowledge remembers what a client has seen.
func (m *machine) acknowledge(ctx context.Context) error {
	points, err := m.item.Points(ctx)
	if err != nil {
		return err
	}
	if m.acknowledged[m.name] == nil {
		m.acknowledged[m.name] = map[bucketcheck.Ref]bool{}
	}
	for _, p := range points {
		m.acknowledged[m.name][bucketcheck.Ref{Generation: p.Generation, Sequence: p.Sequence}] = true
	}
	return nil
}

// delta kills between captures; replication must go on afterwards.
func (m *machine) delta(ctx context.Context) error {
	if err := m.acknowledge(ctx); err != nil {
		return err
	}
	m.pause(time.Second)
	if err := m.kill(ctx, phaseDelta, "lifeboatd", "replicator-", "agent-"+m.name); err != nil {
		return err
	}
	if _, err := m.item.Capture(ctx); err != nil {
		return err
	}
	return m.acknowledge(ctx)
}

// window kills between the scripts that stop and release the machine's writes.
func (m *machine) window(ctx context.Context) error {
	job, err := m.item.BeginCapture(ctx)
	if err != nil {
		return err
	}
	if err := rig.Until(ctx, "a capture's window is open", func() (bool, error) {
		_, err := os.Stat(m.vol.FrozenMark())
		return err == nil, nil
	}); err != nil {
		return err
	}
	m.pause(100 * time.Millisecond)
	if err := m.kill(ctx, phaseWindow, "lifeboatd", "replicator-", "agent-"+m.name); err != nil {
		return err
	}
	if _, err := m.vault.Wait(ctx, job); err != nil {
		return err
	}
	return m.acknowledge(ctx)
}

// prune kills while old points are removed: at the moment a replicator logs that it began to.
func (m *machine) prune(ctx context.Context) error {
	if _, err := m.veteran.item.Capture(ctx); err != nil {
		return err
	}
	if err := m.veteran.acknowledge(ctx); err != nil {
		return err
	}
	if err := m.pruneBegins(ctx); err != nil {
		return err
	}
	m.pause(20 * time.Millisecond)
	return m.kill(ctx, phasePrune, "lifeboatd", "replicator-")
}

// pruneBegins waits until a replicator logs that it began to prune.
func (m *machine) pruneBegins(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	now := time.Now()
	began := make(chan error, len(m.r.Lifeboat()))
	for _, p := range m.r.Lifeboat() {
		if !strings.HasPrefix(p.Name, "replicator-") {
			continue
		}
		log := rig.Follow(p.Log)
		defer log.Close()
		go func() {
			_, _, err := log.Wait(ctx, "a prune", 0, func(line string) bool {
				if !strings.Contains(line, "task started") || !strings.Contains(line, "kind=repository.prune") {
					return false
				}
				stamp, _, _ := strings.Cut(strings.TrimPrefix(line, "time="), " ")
				t, err := time.Parse(time.RFC3339, stamp)
				return err == nil && t.After(now)
			})
			began <- err
		}()
	}
	return <-began
}

// failover stops the writer, takes a last point, and kills while the machine is started from it.
func (m *machine) failover(ctx context.Context) error {
	if err := m.vol.Stop(); err != nil {
		return err
	}
	point, err := m.item.Capture(ctx)
	if err != nil {
		return err
	}
	if err := m.acknowledge(ctx); err != nil {
		return err
	}
	before := serials(m.r.Dir)
	job, err := m.item.BeginFailover(ctx, "")
	if err != nil {
		return err
	}
	for range 2 {
		m.pause(1500 * time.Millisecond)
		j, err := m.vault.Job(ctx, job)
		if err != nil {
			return err
		}
		if j.State != "InProgress" {
			break
		}
		if err := m.kill(ctx, phaseFailover, "lifeboatd", "replicator-", "agent-"+m.name); err != nil {
			return err
		}
	}
	if _, err := m.vault.Wait(ctx, job); err != nil {
		return err
	}
	console, err := newConsole(m.r.Dir, before)
	if err != nil {
		return err
	}
	defer console.Close()
	written, err := m.records()
	if err != nil {
		return err
	}
	if err := bootsWith(ctx, console, written); err != nil {
		return fmt.Errorf("point %d/%d: %w", point.Generation, point.Sequence, err)
	}
	return nil
}

// commit kills while the failover is accepted. The machine must run on, once.
func (m *machine) commit(ctx context.Context) error {
	job, err := m.item.BeginCommit(ctx)
	if err != nil {
		return err
	}
	m.pause(50 * time.Millisecond)
	if err := m.kill(ctx, phaseCommit, "lifeboatd", "replicator-"); err != nil {
		return err
	}
	if _, err := m.vault.Wait(ctx, job); err != nil {
		return err
	}
	// The operation has succeeded; its job still holds the point until the machine needs it no more.
	if err := rig.Until(ctx, "the point is let go", func() (bool, error) {
		j, err := m.vault.Job(ctx, job)
		return j.State == "Succeeded" || j.State == "Failed", err
	}); err != nil {
		return err
	}
	if running := m.machines(); len(running) != 1 {
		return fmt.Errorf("%d machines run: %v", len(running), running)
	}
	return nil
}

// machines returns the process ids of all QEMU machines of the rig.
func (m *machine) machines() []int {
	var list []int
	for _, pid := range m.r.Strays() {
		line, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cmdline")
		if err == nil && bytes.Contains(line[:max(0, bytes.IndexByte(line, 0))], []byte("qemu-system")) {
			list = append(list, pid)
		}
	}
	return list
}

// outlive waits until the machine's first recovery point was pruned.
func (m *machine) outlive(ctx context.Context) error {
	return rig.Until(ctx, "the first recovery point of "+m.name+" is pruned", func() (bool, error) {
		points, err := m.item.Points(ctx)
		return err == nil && !slices.ContainsFunc(points, func(p rig.Point) bool { return p.Generation == 1 && p.Sequence == 1 }), err
	})
}

// keepSnapshots bounds what the snapshots of a long run take.
const keepSnapshots = 5 * time.Minute

// verify reads the bucket without Lifeboat.
func (m *machine) verify(ctx context.Context) error {
	ids, err := bucketcheck.Vaults(m.plane.Bucket())
	if err != nil || len(ids) != 1 {
		return fmt.Errorf("the bucket holds vaults %v: %w", ids, err)
	}
	vault, err := bucketcheck.Open(m.plane.Bucket(), ids[0], m.vault.RecoveryKey)
	if err != nil {
		return err
	}
	report, err := vault.Check()
	if err != nil {
		return err
	}
	log, err := m.log(report)
	if err != nil {
		return err
	}
	have, floor := map[bucketcheck.Ref]bool{}, map[int64]int64{}
	m.pruned = 0
	for _, g := range log.Generations {
		floor[g.Number] = g.Floor
		m.pruned += int(max(0, g.Floor-1))
		for _, e := range g.Entries {
			have[e.Ref()] = true
			if e.Kind == "pruned" {
				m.pruned++
			}
		}
	}
	for ref := range m.acknowledged[m.name] {
		if !have[ref] && ref.Sequence >= floor[ref.Generation] {
			return fmt.Errorf("point %s was acknowledged and is not in the bucket", ref)
		}
	}
	snapshots, err := m.vol.Snapshots()
	if err != nil {
		return err
	}
	compared := 0
	for _, p := range log.Points() {
		snapshot, ok := volume.At(snapshots, *p.Time)
		if !ok && time.Since(*p.Time) > keepSnapshots/2 {
			continue // compared when it was young
		}
		if !ok {
			return fmt.Errorf("point %s of %s: no snapshot was taken at its instant", p.Ref(), p.Time)
		}
		if err := equal(vault, p, snapshot.Path, m.r.Path("compare.raw")); err != nil {
			return err
		}
		compared++
	}
	if err := m.vol.Forget(time.Now().Add(-keepSnapshots)); err != nil {
		return err
	}
	jobs, err := m.vault.Jobs(ctx)
	if err != nil {
		return err
	}
	for _, j := range jobs {
		if j.State == "Failed" || j.State == "Cancelled" {
			return fmt.Errorf("job %s (%s) is %s: %s", j.Name, j.Scenario, j.State, j.Errors)
		}
	}
	m.t.Logf("%s: %d points equal their snapshots, %d bytes verified, %d acknowledged points are there", m.name, compared, report.Bytes, len(m.acknowledged[m.name]))
	return nil
}

// log finds the machine's log by the host name in its points.
func (m *machine) log(report bucketcheck.Report) (bucketcheck.Log, error) {
	for _, l := range report.Logs {
		for _, p := range l.Points() {
			if bytes.Contains(p.Hardware, []byte(`"hostname":"`+m.name+`"`)) {
				return l, nil
			}
		}
	}
	return bucketcheck.Log{}, fmt.Errorf("the bucket has no point of %s", m.name)
}

// equal compares a point with a snapshot.
func equal(vault *bucketcheck.Vault, p bucketcheck.Entry, snapshot, scratch string) (err error) {
	f, err := os.Create(scratch)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close(); _ = os.Remove(scratch) }()
	if err := f.Truncate(p.Disks[0].Size); err != nil {
		return err
	}
	if _, err := vault.WriteDisk(p, p.Disks[0].ID, f); err != nil {
		return err
	}
	if out, err := exec.Command("cmp", scratch, snapshot).CombinedOutput(); err != nil {
		return fmt.Errorf("point %s differs from the disk at its instant: %s", p.Ref(), out)
	}
	return nil
}

// remove ends the machine's life: its replica is switched off, its protection removed, its points go.
func (m *machine) remove(ctx context.Context) error {
	for _, pid := range m.machines() {
		p, err := os.FindProcess(pid)
		if err != nil {
			return err
		}
		if err := p.Kill(); err != nil {
			return err
		}
	}
	if err := m.item.Remove(ctx); err != nil {
		return err
	}
	jobs, err := m.vault.Jobs(ctx)
	if err != nil {
		return err
	}
	for _, j := range jobs {
		if j.State != "Succeeded" {
			return fmt.Errorf("job %s (%s) is %s at the end: %s", j.Name, j.Scenario, j.State, j.Errors)
		}
	}
	return nil
}
