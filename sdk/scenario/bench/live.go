package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/lifeboat-dr/lifeboat/sdk/scenario/rig"
)

// Taken is one point as the log of the agent that made it tells it.
type Taken struct {
	Sequence         int64
	Instant, Durable time.Time
	Freeze, Took     time.Duration // of the window; of the whole capture
	Changed, Shipped int64         // bytes since the point before
}

// Live is a running Lifeboat and agents of this host that protect disks which are written to.
type Live struct {
	rig    *rig.Rig
	agents map[string]*rig.Process
	items  map[string]*rig.Item
}

// NewLive protects the disks, each as a machine of its own, with a point every so many seconds; with 0, only when one is asked for.
func NewLive(ctx context.Context, bin, dir string, seconds int, disks map[string]*Disk) (*Live, error) {
	r, err := rig.New(rig.Options{Dir: dir, Bin: bin})
	if err != nil {
		return nil, err
	}
	l := &Live{rig: r, agents: map[string]*rig.Process{}, items: map[string]*rig.Item{}}
	if err := l.prepare(ctx, seconds, disks); err != nil {
		return nil, errors.Join(fmt.Errorf("%w\n%s", err, r.Logs(20)), l.Close())
	}
	return l, nil
}

func (l *Live) prepare(ctx context.Context, seconds int, disks map[string]*Disk) (err error) {
	ctx, watch := newWatch(ctx)
	defer func() { err = watch.end(err) }()
	plane, err := l.rig.StartEmbedded(ctx)
	if err != nil {
		return err
	}
	watch.process(l.rig.Process("lifeboatd"))
	vault, err := plane.CreateVault(ctx, "bench", rig.Policies{CrashConsistentMinutes: 720, CrashConsistentSeconds: seconds})
	if err != nil {
		return err
	}
	n := 0
	for name, d := range disks {
		n++
		agent, err := l.rig.StartAgent(ctx, plane, vault, rig.AgentSpec{Hostname: name, UUID: fmt.Sprintf("0a1b2c3d-0000-4000-8000-%012x", n), Disk: "disk0", Image: d.Device})
		if err != nil {
			return err
		}
		l.agents[name] = agent
		watch.process(agent)
		protectable, err := vault.WaitProtectable(ctx, name)
		if err != nil {
			return err
		}
		if l.items[name], err = vault.Protect(ctx, name, protectable); err != nil {
			return err
		}
		if err := l.items[name].WaitState(ctx, nil, rig.StateProtected); err != nil {
			return err
		}
	}
	return nil
}

// Capture asks for a point of a machine and waits for it.
func (l *Live) Capture(ctx context.Context, name string) (out Taken, err error) {
	ctx, watch := newWatch(ctx)
	defer func() { err = watch.end(err) }()
	for _, p := range l.rig.Lifeboat() {
		watch.process(p)
	}
	before, err := l.Taken(name)
	if err != nil {
		return out, err
	}
	if _, err := l.items[name].Capture(ctx); err != nil {
		return out, err
	}
	after, err := l.Taken(name)
	if err == nil && len(after) == len(before) {
		err = errors.New("the agent's log tells of no new point")
	}
	if err != nil {
		return out, err
	}
	return after[len(after)-1], nil
}

// Taken returns the points that an agent has told of, in order.
func (l *Live) Taken(name string) (out []Taken, err error) {
	b, err := os.ReadFile(l.agents[name].Log)
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(b)) {
		if !strings.Contains(line, `msg="point is durable"`) || !strings.HasSuffix(line, "\n") {
			continue
		}
		t, err := parseTaken(line)
		if err != nil {
			return nil, fmt.Errorf("%w in %q", err, line)
		}
		out = append(out, t)
	}
	return out, nil
}

func parseTaken(line string) (t Taken, err error) {
	text := map[string]string{}
	for field := range strings.FieldsSeq(line) {
		if k, v, ok := strings.Cut(field, "="); ok {
			text[k] = v
		}
	}
	number := func(name string) int64 {
		n, e := strconv.ParseInt(text[name], 10, 64)
		err = errors.Join(err, e)
		return n
	}
	at := func(name string) time.Time {
		v, e := time.Parse(time.RFC3339Nano, text[name])
		err = errors.Join(err, e)
		return v
	}
	span := func(name string) time.Duration {
		v, e := time.ParseDuration(text[name])
		err = errors.Join(err, e)
		return v
	}
	t = Taken{Sequence: number("point"), Instant: at("instant"), Durable: at("time"), Freeze: span("freeze"), Took: span("took"),
		Changed: number("changed"), Shipped: number("shipped")}
	return t, err
}

// AgentCPU returns the processor time that an agent has used, and AgentPeak the most memory that it held.
func (l *Live) AgentCPU(name string) (time.Duration, error) { return cpuTime(l.agents[name].Pid()) }

// AgentPeak is told in bytes.
func (l *Live) AgentPeak(name string) (int64, error) { return PeakRSS(l.agents[name].Pid()) }

// Close ends everything, the tracking in the kernel too.
func (l *Live) Close() error {
	err := l.rig.Close()
	pins, _ := filepath.Glob(l.rig.Path("agent-*", "track", "bpf"))
	for _, p := range pins {
		if uerr := syscall.Unmount(p, 0); uerr != nil && !errors.Is(uerr, syscall.EINVAL) { // not mounted
			err = errors.Join(err, fmt.Errorf("end the tracking of %s: %w", p, uerr))
		}
	}
	return err
}

// Lags samples how old the newest durable point was, ten times a second from the first to the last one's durability.
func Lags(points []Taken) (out []time.Duration) {
	for i := 1; i < len(points); i++ {
		for at := points[i-1].Durable; at.Before(points[i].Durable); at = at.Add(100 * time.Millisecond) {
			out = append(out, at.Sub(points[i-1].Instant))
		}
	}
	return out
}
