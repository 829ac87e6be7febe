package e2e

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/lifeboat-dr/lifeboat/sdk/scenario/life"
	"github.com/lifeboat-dr/lifeboat/sdk/scenario/rig"
)

// Everything in one lifeboatd. It is killed and started again during the drill and after the commit: the machines it had started
// run on, their records without a gap.
func TestLifeInOneProcess(t *testing.T) {
	t.Parallel()
	ctx := deadline(t, 10*time.Minute)
	r := newRig(t)
	plane, err := r.StartEmbedded(ctx)
	if err != nil {
		t.Fatal(err)
	}
	met := map[string]int{}
	res, err := life.Play(ctx, life.Stage{Rig: r, Plane: plane}, life.Options{
		Tell: func(step, what string) { t.Logf("%s: %s", step, what) },
		Disturb: func(ctx context.Context, moment string) error {
			met[moment]++
			switch moment {
			case life.DuringDrill, life.AfterCommit:
				return restartAll(ctx, r, plane)
			}
			return nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, moment := range []string{life.DuringInitialReplication, life.DuringDrill, life.DuringFailover, life.AfterCommit, life.DuringWayBack} {
		if met[moment] == 0 {
			t.Errorf("the life went past %q without a disturbance", moment)
		}
	}
	t.Logf("%+v", res)
}

// lifeboatd, Redis and two replicators as processes. The replicator that takes in the first copy is killed and stays dead: the other
// takes over the session. Redis loses everything in the middle of the failover; then every Lifeboat process is restarted.
func TestLifeInSeparateProcesses(t *testing.T) {
	t.Parallel()
	ctx := deadline(t, 10*time.Minute)
	r := newRig(t)
	plane, err := r.StartSeparate(ctx)
	if err != nil {
		t.Fatal(err)
	}
	res, err := life.Play(ctx, life.Stage{Rig: r, Plane: plane}, life.Options{
		Tell: func(step, what string) { t.Logf("%s: %s", step, what) },
		Disturb: func(ctx context.Context, moment string) error {
			switch moment {
			case life.DuringInitialReplication:
				return killHolder(ctx, t, r)
			case life.DuringFailover:
				return r.FlushRedis(ctx)
			case life.AfterCommit:
				return restartAll(ctx, r, plane)
			}
			return nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%+v", res)
}

// killHolder kills the replicator that holds the agent's session, and waits until the other one does.
func killHolder(ctx context.Context, t *testing.T, r *rig.Rig) error {
	t.Helper()
	var victim *rig.Process
	if err := rig.Until(ctx, "a replicator holds the agent's session", func() (bool, error) {
		victim = holder(r)
		return victim != nil, nil
	}); err != nil {
		return err
	}
	if err := victim.Kill(); err != nil {
		return err
	}
	var heir *rig.Process
	if err := rig.Until(ctx, "another replicator holds the agent's session", func() (bool, error) {
		heir = holder(r)
		return heir != nil, nil
	}); err != nil {
		return err
	}
	t.Logf("killed %s; the session went over to %s", victim.Name, heir.Name)
	return nil
}

// holder returns the replicator that runs and whose log tells of a session that has not ended; nil when there is none.
func holder(r *rig.Rig) *rig.Process {
	for _, p := range r.Processes() {
		if !strings.HasPrefix(p.Name, "replicator-") || !p.Running() {
			continue
		}
		log := p.Tail(1000)
		if opened := strings.LastIndex(log, "replication session opened"); opened > strings.LastIndex(log, "replication session ended") {
			return p
		}
	}
	return nil
}

// restartAll kills every Lifeboat process that runs, all at once, and starts them again.
func restartAll(ctx context.Context, r *rig.Rig, plane *rig.Plane) error {
	var killed []*rig.Process
	for _, p := range r.Lifeboat() {
		if p.Running() {
			if err := p.Kill(); err != nil {
				return err
			}
			killed = append(killed, p)
		}
	}
	if len(killed) == 0 {
		return fmt.Errorf("no Lifeboat process was running")
	}
	for _, p := range killed {
		if err := p.Restart(); err != nil {
			return err
		}
	}
	return plane.WaitReady(ctx)
}
