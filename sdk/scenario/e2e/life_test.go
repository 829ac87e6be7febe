package e2e

import (
	"context"
	"fmt"
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

// lifeboatd, Redis and two replicators as processes. One replicator is killed while the first copy travels and stays dead; Redis
// loses everything in the middle of the failover; then every Lifeboat process is restarted.
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
				return r.Process("replicator-2").Kill()
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
