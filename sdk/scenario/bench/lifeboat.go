package bench

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/lifeboat-dr/lifeboat/sdk/scenario/rig"
)

// Copy is one first copy and one restore by Lifeboat.
type Copy struct {
	First, Restore      Cost // PeakRSS is lifeboatd's; so is Restore.CPU
	AgentPeak           int64
	AgentCPU, DaemonCPU time.Duration
}

// FirstCopy protects image with an agent and lifeboatd as processes of their own, over TLS on loopback into a local bucket,
// then exports the point as a raw image. The first copy's time runs from the request to protect until the first recovery
// point is listed: it holds enrolment's task hand-offs, the whole pass and the commit.
func FirstCopy(ctx context.Context, bin, dir, image, codec string) (c Copy, err error) {
	r, err := rig.New(rig.Options{Dir: dir, Bin: bin})
	if err != nil {
		return c, err
	}
	defer func() {
		if closeErr := r.Close(); err == nil {
			err = closeErr
		}
	}()
	ctx, watch := newWatch(ctx)
	defer func() { err = watch.end(err) }()
	plane, err := r.StartEmbedded(ctx, "--compression", codec)
	if err != nil {
		return c, err
	}
	daemon := r.Process("lifeboatd")
	watch.process(daemon)
	vault, err := plane.CreateVault(ctx, "bench", rig.Policies{CrashConsistentMinutes: 60})
	if err != nil {
		return c, err
	}
	agent, err := r.StartAgent(ctx, plane, vault, rig.AgentSpec{Hostname: "bench", UUID: "0a1b2c3d-0000-4000-8000-0000000be0c4", Disk: "disk0", Image: image, Stopped: true})
	if err != nil {
		return c, err
	}
	watch.process(agent)
	protectable, err := vault.WaitProtectable(ctx, "bench")
	if err != nil {
		return c, err
	}
	start := time.Now()
	item, err := vault.Protect(ctx, "bench", protectable)
	if err != nil {
		return c, err
	}
	var point rig.Point
	if err := rig.Until(ctx, "the first point is listed", func() (bool, error) {
		points, err := item.Points(ctx)
		if len(points) > 0 {
			point = points[0]
		}
		return len(points) > 0, err
	}); err != nil {
		return c, fmt.Errorf("%w\n%s", err, r.Logs(20))
	}
	c.First.Wall = time.Since(start)
	if c.First.Stored, err = treeBytes(plane.Bucket()); err != nil {
		return c, err
	}
	if c.AgentPeak, err = PeakRSS(agent.Pid()); err != nil {
		return c, err
	}
	if c.AgentCPU, err = cpuTime(agent.Pid()); err != nil {
		return c, err
	}
	if c.DaemonCPU, err = cpuTime(daemon.Pid()); err != nil {
		return c, err
	}
	if c.First.PeakRSS, err = PeakRSS(daemon.Pid()); err != nil {
		return c, err
	}
	c.First.CPU = c.AgentCPU + c.DaemonCPU
	target := filepath.Join(dir, "restored")
	if err := os.Mkdir(target, 0o755); err != nil {
		return c, err
	}
	before, err := cpuTime(daemon.Pid())
	if err != nil {
		return c, err
	}
	start = time.Now()
	export, err := item.Export(ctx, point, "raw", target)
	if err != nil {
		return c, err
	}
	c.Restore.Wall = export.Ended.Sub(start) // clients look at jobs once a second only
	after, err := cpuTime(daemon.Pid())
	if err != nil {
		return c, err
	}
	c.Restore.CPU = after - before
	c.Restore.PeakRSS, err = PeakRSS(daemon.Pid())
	return c, err
}
