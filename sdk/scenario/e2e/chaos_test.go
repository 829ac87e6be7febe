package e2e

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/lifeboat-dr/lifeboat/sdk/scenario/bucketcheck"
	"github.com/lifeboat-dr/lifeboat/sdk/scenario/rig"
)

// The phases in which processes are killed.
const (
	phaseInitial  = "initial replication"
	phaseDelta    = "delta"
	phaseWindow   = "capture window"
	phaseFailover = "failover"
	phaseCommit   = "commit"
	phasePrune    = "prune"
)

var phases = []string{phaseInitial, phaseDelta, phaseWindow, phaseFailover, phaseCommit, phasePrune}

// TestChaos kills lifeboatd, replicators and agents with SIGKILL at random moments of named phases, LIFEBOAT_CHAOS_KILLS times
// (20), and starts them again. LIFEBOAT_CHAOS_SEED repeats a run's choices. After all of it: every point that a client has
// seen is in the bucket and every byte of it verifies, by a reader that shares no code with Lifeboat; points equal the disk
// at their instant; machines come up with unbroken records; no job is stuck; no machine runs twice; each phase was hit.
func TestChaos(t *testing.T) {
	kills := number(t, "LIFEBOAT_CHAOS_KILLS", 20)
	c := &chaos{t: t, kills: map[string]int{}, acknowledged: map[string]map[bucketcheck.Ref]bool{}}
	c.seed = uint64(number(t, "LIFEBOAT_CHAOS_SEED", int64(rand.Uint32())))
	c.rng = rand.New(rand.NewPCG(c.seed, 7))
	t.Logf("LIFEBOAT_CHAOS_SEED=%d LIFEBOAT_CHAOS_KILLS=%d", c.seed, kills)
	ctx := deadline(t, time.Duration(kills)*time.Minute/2+5*time.Minute)
	c.r = newRig(t)
	var err error
	if c.plane, err = c.r.StartSeparate(ctx, "--prune-every", "5s"); err != nil {
		t.Fatal(err)
	}
	if c.vault, err = c.plane.CreateVault(ctx, "harbour", rig.Policies{RetentionMinutes: 1}); err != nil {
		t.Fatal(err)
	}
	if err := c.settle(ctx); err != nil {
		t.Fatal(err)
	}
	atLeast := max(1, kills/20)
	for cycle := 1; !c.enough(kills, atLeast); cycle++ {
		if err := c.cycle(ctx, cycle); err != nil {
			t.Fatalf("cycle %d: %v", cycle, err)
		}
	}
	// A short run may end before any point is older than the retention.
	if err := c.veteran.outlive(ctx); err != nil {
		t.Error(err)
	}
	if err := c.veteran.verify(ctx); err != nil {
		t.Error(err)
	}
	if n := c.veteran.pruned; n == 0 {
		t.Error("no recovery point was pruned")
	} else {
		t.Logf("%d points of %s were pruned", n, c.veteran.name)
	}
	for _, phase := range phases {
		t.Logf("%3d kills in phase %s", c.kills[phase], phase)
	}
}

func number(t *testing.T, name string, otherwise int64) int64 {
	t.Helper()
	v := os.Getenv(name)
	if v == "" {
		return otherwise
	}
	n, err := strconv.ParseInt(v, 10, 64)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}

type chaos struct {
	t     *testing.T
	seed  uint64
	rng   *rand.Rand
	r     *rig.Rig
	plane *rig.Plane
	vault *rig.Vault
	kills map[string]int
	// veteran is a machine that lives through the whole run, so that it has points old enough to be pruned.
	veteran *machine
	// acknowledged are the points a client has seen, by machine of the bucket.
	acknowledged map[string]map[bucketcheck.Ref]bool
}

// enough tells whether all kills were done and every phase had its share.
func (c *chaos) enough(kills int64, atLeast int64) bool {
	var sum int64
	for _, phase := range phases {
		if int64(c.kills[phase]) < atLeast {
			return false
		}
		sum += int64(c.kills[phase])
	}
	return sum >= kills
}

// kill ends a random Lifeboat process of the given name prefixes and starts it again a moment later. When it is the machine's
// own agent, and it died in a capture's window, nobody is left who owes the post script: the administrator runs it.
func (m *machine) kill(ctx context.Context, phase string, among ...string) error {
	var victims []*rig.Process
	for _, p := range m.r.Lifeboat() {
		if p.Running() && slices.ContainsFunc(among, func(prefix string) bool { return strings.HasPrefix(p.Name, prefix) }) {
			victims = append(victims, p)
		}
	}
	if len(victims) == 0 {
		return fmt.Errorf("nobody of %v runs", among)
	}
	v := victims[m.rng.IntN(len(victims))]
	if err := v.Kill(); err != nil {
		return err
	}
	m.kills[phase]++
	m.t.Logf("killed %s in phase %s", v.Name, phase)
	m.pause(300 * time.Millisecond)
	if v == m.agent { // its dead-man runs the post script
		wctx, cancel := context.WithTimeout(ctx, time.Minute)
		defer cancel()
		err := rig.Until(wctx, "the volume is let go after the agent's death", func() (bool, error) {
			_, err := os.Stat(m.vol.FrozenMark())
			return errors.Is(err, os.ErrNotExist), nil
		})
		if err != nil {
			return err
		}
	}
	if err := v.Restart(); err != nil {
		return err
	}
	return m.plane.WaitReady(ctx)
}

// pause waits a random time below limit: it is what makes kills land anywhere in a phase, not a wait for something.
func (c *chaos) pause(limit time.Duration) {
	time.Sleep(time.Duration(c.rng.Int64N(int64(limit))))
}

// machine is one machine's life under chaos.
type machine struct {
	*chaos
	*hull
	uuid   string
	item   *rig.Item
	pruned int // points that the bucket's log tells were pruned
}

// newMachine makes a machine with an agent that has nothing to do yet.
func (c *chaos) newMachine(ctx context.Context, n int, rate int64) (m *machine, err error) {
	m = &machine{chaos: c, uuid: fmt.Sprintf("0a1b2c3d-0000-4000-8000-%012d", n)}
	if m.hull, err = buildHull(ctx, c.r, fmt.Sprintf("m%03d", n), c.rng.Uint64()); err != nil {
		return nil, err
	}
	c.t.Cleanup(func() { _ = m.close() })
	if n > 0 { // something to copy, so that the first copy takes a while
		if err := m.vol.Fill(128 << 20); err != nil {
			return nil, err
		}
	}
	m.vol.Write(rate)
	return m, nil
}

// settle protects the veteran.
func (c *chaos) settle(ctx context.Context) (err error) {
	if c.veteran, err = c.newMachine(ctx, 0, 256<<10); err != nil {
		return err
	}
	protectable, err := c.veteran.enrol(ctx, c.r, c.plane, c.vault, c.veteran.uuid)
	if err != nil {
		return err
	}
	if c.veteran.item, err = c.vault.Protect(ctx, c.veteran.name, protectable); err != nil {
		return err
	}
	return c.veteran.item.WaitState(ctx, nil, rig.StateProtected)
}

// cycle protects a fresh machine, lets it fail over and be committed, with kills on the way, checks everything, and removes it.
func (c *chaos) cycle(ctx context.Context, n int) error {
	m, err := c.newMachine(ctx, n, 2<<20)
	if err != nil {
		return err
	}
	for _, step := range []struct {
		name string
		do   func(context.Context) error
	}{
		{phaseInitial, m.initial}, {phaseDelta, m.delta}, {phaseWindow, m.window}, {phasePrune, m.prune}, {phaseDelta, m.delta}, {phaseWindow, m.window},
		{"verify", m.verify}, {phaseFailover, m.failover}, {phaseCommit, m.commit}, {"verify", m.verify}, {"remove", m.remove},
	} {
		if err := step.do(ctx); err != nil {
			return fmt.Errorf("%s of %s: %w", step.name, m.name, err)
		}
		for _, p := range append(c.r.Lifeboat()[:3:3], c.veteran.agent, m.agent) { // agents of machines that are gone have stopped
			if !p.Running() {
				return fmt.Errorf("after %s of %s: %s does not run, and nobody here killed it:\n%s", step.name, m.name, p.Name, p.Tail(10))
			}
		}
	}
	return errors.Join(m.close(), os.RemoveAll(m.dir))
}
