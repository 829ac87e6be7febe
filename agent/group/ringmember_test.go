package group_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"testing"
	"time"

	"github.com/lifeboat-dr/lifeboat/agent/group"
	"github.com/lifeboat-dr/lifeboat/agent/quiesce"
	"github.com/lifeboat-dr/lifeboat/agent/ship"
	"github.com/lifeboat-dr/lifeboat/agent/source"
	"github.com/lifeboat-dr/lifeboat/sdk/fleet"
)

// TestMain doubles as the processes of the machines.
func TestMain(m *testing.M) {
	var err error
	switch {
	case len(os.Args) == 2 && os.Args[1] == "deadman":
		err = quiesce.RunDeadman()
	case len(os.Args) == 3 && os.Args[1] == "member":
		err = memberProcess(os.Args[2])
	case len(os.Args) == 3 && os.Args[1] == "app":
		err = appProcess(os.Args[2])
	default:
		os.Exit(m.Run())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// memberSetup is what the agent of a machine is told.
type memberSetup struct {
	State            string
	Disk             string
	CA               []byte
	Certificate, Key []byte
	Want             fleet.Protection
	Group            group.Group
	Clock            bool          // in place of the group: capture when it is time, whatever the others do
	Fast             time.Duration // by which this machine's clock is
}

// memberProcess is the agent of one machine, until it is killed.
func memberProcess(path string) error {
	var s memberSetup
	raw, err := os.ReadFile(path)
	if err == nil {
		err = json.Unmarshal(raw, &s)
	}
	if err != nil {
		return err
	}
	ca, err := x509.ParseCertificate(s.CA)
	if err != nil {
		return err
	}
	key, err := x509.ParsePKCS8PrivateKey(s.Key)
	if err != nil {
		return err
	}
	pool := x509.NewCertPool()
	pool.AddCert(ca)
	identity := func() (tls.Certificate, *x509.CertPool, error) {
		return tls.Certificate{Certificate: [][]byte{s.Certificate}, PrivateKey: key}, pool, nil
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	gate := quiesce.NewGate(os.Stderr)
	log := slog.New(slog.NewTextHandler(gate, &slog.HandlerOptions{Level: slog.LevelDebug}))
	cfg := group.Config{Self: s.Want.MachineId, Identity: identity, Log: log}
	group.Brisk(&cfg)
	node := group.New(cfg)
	defer node.Close()
	var b ship.Barrier = barrier{node}
	if s.Clock {
		b = clock(s.Fast)
	}
	var p *ship.Protector
	var told fleet.PointRef
	changed := func() {
		if p == nil {
			return
		}
		if st := p.Status(); st.LastPoint != told {
			told = st.LastPoint
			log.Info("froze", "micros", st.FreezeMicros)
		}
	}
	p, err = ship.New(ship.Config{StateDir: s.State, Source: source.Config{Disks: []source.Named{{ID: "disk0", Path: s.Disk}}}, Identity: identity,
		Deadman: []string{"/proc/self/exe", "deadman"}, Gate: gate, Barrier: b, Changed: changed, Log: log}, s.Want)
	if err != nil {
		return err
	}
	if s.Clock {
		go func() {
			for ctx.Err() == nil {
				p.Call()
				time.Sleep(100 * time.Millisecond)
			}
		}()
	} else if err := node.Set(map[string]group.Membership{s.Want.MachineId: {Group: s.Group, Call: func() error {
		if ph := p.Status().Phase; ph != fleet.Delta && ph != fleet.Capturing {
			return fmt.Errorf("it is %s", ph)
		}
		p.Call()
		return nil
	}}}); err != nil {
		return err
	}
	return p.Run(ctx)
}

// barrier is how the agent brings a protector and its group together.
type barrier struct{ node *group.Node }

func (b barrier) Leads(want fleet.Protection) bool { return b.node.Leads(want.MachineId) }

func (b barrier) App(want fleet.Protection, due bool) bool { return b.node.App(want.MachineId, due) }

func (b barrier) Join(ctx context.Context, want fleet.Protection) (ship.Meeting, error) {
	m, err := b.node.Join(ctx, want.MachineId)
	if m == nil || err != nil {
		return nil, err
	}
	return meeting{m}, nil
}

type meeting struct{ *group.Meeting }

func (m meeting) Done(_ fleet.PointRef, err error) { m.Meeting.Done(err) }

// clock is the barrier that this package is there to do without: all freeze when their clocks show the same time, and nobody asks
// whether the others did. Its value is by how much this machine's clock is fast.
type clock time.Duration

// clockRound is the time between two such points: enough for a capture on a busy machine.
const clockRound = 4 * time.Second

func (clock) Leads(fleet.Protection) bool { return true }

func (clock) App(_ fleet.Protection, due bool) bool { return due }

func (c clock) Join(ctx context.Context, _ fleet.Protection) (ship.Meeting, error) {
	now := time.Now().Add(time.Duration(c))
	at := now.Truncate(clockRound).Add(clockRound)
	select {
	case <-time.After(at.Sub(now)):
	case <-ctx.Done():
	}
	return tick(at), nil
}

type tick time.Time

func (tick) Frozen(context.Context) error           { return nil }
func (tick) Sealed(context.Context) error           { return nil }
func (tick) Done(fleet.PointRef, error)             {}
func (x tick) Held(context.Context) (string, error) { return time.Time(x).Format(time.TimeOnly), nil }
