package life

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/lifeboat-dr/lifeboat/sdk/scenario/guest"
	"github.com/lifeboat-dr/lifeboat/sdk/scenario/record"
	"github.com/lifeboat-dr/lifeboat/sdk/scenario/rig"
)

func (p *play) drill(ctx context.Context) error {
	point, err := p.item.Capture(ctx)
	if err != nil {
		return err
	}
	before, err := p.serials()
	if err != nil {
		return err
	}
	asked := time.Now()
	job, err := p.item.BeginTestFailover(ctx, "")
	if err != nil {
		return err
	}
	console, err := p.follow(ctx, before)
	if err != nil {
		return fmt.Errorf("%w; %w", err, p.failed(ctx, job))
	}
	defer console.Close()
	up, verdict, _, err := console.WaitUp(ctx, 0)
	if err != nil {
		return err
	}
	if p.res.DrillRecords, err = p.judge(up, verdict, point); err != nil {
		return err
	}
	p.res.DrillRecovery = up.Time.Sub(asked)
	if _, err := p.vault.Wait(ctx, job); err != nil {
		return err
	}
	p.tell("drill", "a copy runs isolated from point %d/%d: first line of userspace %s after the request, %d records unbroken", point.Generation, point.Sequence, Round(p.res.DrillRecovery), p.res.DrillRecords)
	if err := p.opt.Disturb(ctx, DuringDrill); err != nil {
		return err
	}
	if _, err := console.WaitRecords(ctx, 5); err != nil {
		return err
	}
	if err := unbroken(console); err != nil {
		return fmt.Errorf("the drill's machine: %w", err)
	}
	last := p.home.Console.Records()
	if err := p.keep(ctx, job, "drill"); err != nil {
		return err
	}
	if err := p.item.Cleanup(ctx); err != nil {
		return err
	}
	after, err := p.serials()
	if err != nil {
		return err
	}
	if len(after) > len(before) {
		return fmt.Errorf("the cleanup left %v", after)
	}
	if _, err := p.home.Console.WaitRecord(ctx, last[len(last)-1].N+1); err != nil {
		return fmt.Errorf("the source stopped writing during the drill: %w", err)
	}
	p.tell("cleanup", "the copy is gone, the source never stopped")
	return nil
}

func (p *play) failover(ctx context.Context) error {
	if _, err := p.home.Console.WaitRecords(ctx, 25); err != nil {
		return err
	}
	if _, err := p.item.Capture(ctx); err != nil {
		return err
	}
	if _, err := p.home.Console.WaitRecords(ctx, 10); err != nil {
		return err
	}
	if err := p.home.Cut(); err != nil {
		return err
	}
	shown := p.home.Console.Records()
	lastShown := shown[len(shown)-1]
	p.res.WrittenAtHome = lastShown.N
	p.tell("disaster", "the source machine was killed after record %d", lastShown.N)

	// A point of the schedule may have come in between.
	point, err := p.item.Newest(ctx)
	if err != nil {
		return err
	}
	before, err := p.serials()
	if err != nil {
		return err
	}
	asked := time.Now()
	job, err := p.item.BeginFailover(ctx, "")
	if err != nil {
		return err
	}
	if err := p.opt.Disturb(ctx, DuringFailover); err != nil {
		return err
	}
	console, err := p.follow(ctx, before)
	if err != nil {
		return fmt.Errorf("%w; %w", err, p.failed(ctx, job))
	}
	p.replica = console
	up, verdict, _, err := console.WaitUp(ctx, 0)
	if err != nil {
		return err
	}
	if p.res.RecoveredAt, err = p.judge(up, verdict, point); err != nil {
		return err
	}
	p.res.Recovery = up.Time.Sub(asked)
	p.res.LostRecords = lastShown.N - p.res.RecoveredAt
	for _, s := range shown {
		if s.N == p.res.RecoveredAt {
			p.res.LostTime = lastShown.Time.Sub(s.Time)
		}
	}
	if _, err := p.vault.Wait(ctx, job); err != nil {
		return err
	}
	points, err := p.item.Points(ctx)
	if err != nil {
		return err
	}
	for _, q := range points {
		if q.Generation == 1 && q.Sequence > 1 {
			p.res.PointsOutbound++
			p.res.BytesOutbound += q.ChangedBytes
		}
	}
	p.tell("failover", "the replica runs: first line of userspace %s after the request, %d records unbroken", Round(p.res.Recovery), p.res.RecoveredAt)
	p.tell("lost", "%d records (%s of writes after the newest point)", p.res.LostRecords, Round(p.res.LostTime))
	if _, err := console.WaitRecords(ctx, 10); err != nil {
		return err
	}
	if err := p.keep(ctx, job, "failover"); err != nil {
		return err
	}
	if err := p.item.Commit(ctx); err != nil {
		return err
	}
	p.tell("commit", "the failover is accepted")
	if err := p.opt.Disturb(ctx, AfterCommit); err != nil {
		return err
	}
	if _, err := console.WaitRecords(ctx, 5); err != nil {
		return err
	}
	return unbroken(console)
}

func (p *play) reprotect(ctx context.Context) error {
	began := time.Now()
	target, err := p.vault.MasterTarget(ctx, p.Plane.DatastoreName)
	if err != nil {
		return err
	}
	if err := p.item.ReprotectHome(ctx, target, p.Plane.DatastoreName); err != nil {
		return err
	}
	disturbed := false
	var disturbance error
	err = p.item.WaitState(ctx, func(st rig.Status) {
		p.opt.Progress("replication home", st.Percent)
		if !disturbed {
			disturbed = true
			disturbance = p.opt.Disturb(ctx, DuringWayBack)
		}
	}, rig.StateProtected)
	if err := errors.Join(err, disturbance); err != nil {
		return err
	}
	p.res.WayBack = time.Since(began)
	p.tell("reprotect", "Protected the other way after %s", Round(p.res.WayBack))
	return unbroken(p.replica)
}

func (p *play) failback(ctx context.Context) error {
	if _, err := p.replica.WaitRecords(ctx, 5); err != nil {
		return err
	}
	from := len(p.home.Console.Lines())
	asked := time.Now()
	job, err := p.item.BeginPlannedFailover(ctx)
	if err != nil {
		return err
	}
	up, verdict, next, err := p.home.Console.WaitUp(ctx, from)
	if err != nil {
		return fmt.Errorf("%w; %w", err, p.failed(ctx, job))
	}
	count, sum, err := counted(up, verdict)
	if err != nil {
		return err
	}
	away := p.replica.Records()
	if err := agree(away, count, sum, away[len(away)-1]); err != nil {
		return err
	}
	p.res.FailBack = up.Time.Sub(asked)
	if _, err := p.vault.Wait(ctx, job); err != nil {
		return err
	}
	points, err := p.item.Points(ctx)
	if err != nil {
		return err
	}
	for _, q := range points {
		if q.Generation > 1 {
			p.res.BytesWayBack += q.ChangedBytes
		}
	}
	p.tell("failback", "the machine runs at home again, %s after the request, all %d records there: nothing lost", Round(p.res.FailBack), count)
	if _, _, err := p.home.Console.Wait(ctx, "a record at home", next, func(line string) bool {
		s, ok := record.ParseConsole(line)
		return ok && s.N >= count+5
	}); err != nil {
		return err
	}
	if err := p.item.Commit(ctx); err != nil {
		return err
	}
	p.tell("commit", "the failback is accepted")
	return nil
}

// again protects the machine as in the beginning; only what differs from its last point travels.
func (p *play) again(ctx context.Context) error {
	began := time.Now()
	if err := p.item.ReprotectAway(ctx); err != nil {
		return err
	}
	if err := p.item.WaitState(ctx, func(st rig.Status) { p.opt.Progress("replication", st.Percent) }, rig.StateProtected); err != nil {
		return err
	}
	p.res.Again = time.Since(began)
	points, err := p.item.Points(ctx)
	if err != nil {
		return err
	}
	p.res.BytesAgain = points[0].ChangedBytes
	if points[0].Generation < 3 {
		return fmt.Errorf("its newest point is of generation %d, want one after the two that were closed", points[0].Generation)
	}
	p.tell("protect", "Protected as in the beginning after %s: %s travelled", Round(p.res.Again), Size(p.res.BytesAgain))
	return nil
}

// checkHome switches the machine off and reads its disk from outside.
func (p *play) checkHome(ctx context.Context) error {
	if err := p.home.SwitchOff(ctx); err != nil {
		return err
	}
	data, err := guest.OpenRecords(ctx, filepath.Join(p.home.Dir, "disk0.raw"))
	if err != nil {
		return err
	}
	run, err := record.Verify(bytes.NewReader(data))
	if err != nil {
		return err
	}
	p.res.FinalRecords = run.Count
	for _, s := range p.replica.Records() {
		if s.N > run.Count || run.Sums[s.N-1] != s.Sum {
			return fmt.Errorf("record %d, announced by the replica, is not on the home disk", s.N)
		}
	}
	p.tell("check", "the home disk holds %d records, dense, every checksum right", run.Count)
	return nil
}
