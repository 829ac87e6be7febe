package host

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/lifeboat-dr/lifeboat/agent/ship"
	"github.com/lifeboat-dr/lifeboat/agent/track"
	"github.com/lifeboat-dr/lifeboat/agent/track/qemu"
	"github.com/lifeboat-dr/lifeboat/sdk/fleet"
)

const (
	powerLimit = 3 * time.Minute        // for a guest to shut down
	pressEvery = 5 * time.Second        // a guest that is still booting does not hear the button
	pollEvery  = 100 * time.Millisecond // of the state of a guest that shuts down
)

// machine implements guest.Machine.
type machine struct {
	h       *Hypervisor
	uuid    string
	owner   string
	log     *slog.Logger
	stopped string // file that says that the machine was shut down here, and is to be started again unless it is fenced
}

// Kind implements ship.Host.
func (m *machine) Kind() string { return "qemu" }

// socket returns where the machine's monitor is, after another look if it was not seen.
func (m *machine) socket(ctx context.Context) (string, error) {
	for try := range 2 {
		m.h.mu.Lock()
		at, ok := m.h.found[m.uuid]
		m.h.mu.Unlock()
		if ok && alive(at.socket) {
			return at.socket, nil
		}
		if try == 0 {
			m.h.look(ctx)
		}
	}
	return "", &ship.Fault{Code: "not_found", Message: fmt.Sprintf("machine %s does not run on this host", m.uuid),
		Causes: "It is off, it was moved to another host, or its monitor socket is not where the agent looks.", Action: "Start it, or correct the patterns of sockets in the agent's configuration."}
}

// ask runs f with the machine's monitor.
func (m *machine) ask(ctx context.Context, f func(*qemu.Monitor) error) error {
	socket, err := m.socket(ctx)
	if err != nil {
		return err
	}
	mon, err := qemu.Dial(ctx, socket)
	if err != nil {
		return fmt.Errorf("reach machine %s: %w", m.uuid, err)
	}
	return errors.Join(f(mon), mon.Close())
}

// info describes the machine, and makes sure that it is the one.
func (m *machine) info(ctx context.Context) (in qemu.Info, err error) {
	err = m.ask(ctx, func(mon *qemu.Monitor) (err error) {
		in, err = qemu.Describe(ctx, mon)
		return err
	})
	if err == nil && in.UUID != m.uuid {
		err = fmt.Errorf("machine %s is where machine %s was", in.UUID, m.uuid)
	}
	return in, err
}

// Describe implements ship.Host.
func (m *machine) Describe(ctx context.Context) (fleet.Machine, error) {
	in, err := m.info(ctx)
	if err != nil {
		return fleet.Machine{}, err
	}
	return describe(in, m.uuid), nil
}

func (m *machine) config(socket string, disks []string) qemu.Config {
	return qemu.Config{Socket: socket, UUID: m.uuid, Owner: m.owner, Dir: filepath.Join(m.h.cfg.Dir, m.uuid), Reserve: m.h.cfg.Reserve, Disks: disks, Log: m.log}
}

// Open implements ship.Host.
func (m *machine) Open(ctx context.Context, disks []string) (track.Machine, error) {
	socket, err := m.socket(ctx)
	if err != nil {
		return nil, err
	}
	return qemu.Open(ctx, m.config(socket, disks))
}

// Forget implements guest.Machine.
func (m *machine) Forget(ctx context.Context) error {
	socket, err := m.socket(ctx)
	if err != nil {
		return nil // the bitmaps went with the process
	}
	q, err := qemu.Open(ctx, m.config(socket, nil))
	if err != nil {
		return err
	}
	return errors.Join(q.Discard(ctx), os.RemoveAll(filepath.Join(m.h.cfg.Dir, m.uuid)))
}

// Shutdown implements ship.Host. QEMU stays, so that the stopped disks can be read through it.
func (m *machine) Shutdown(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, powerLimit)
	defer cancel()
	for pressed := (time.Time{}); ; {
		in, err := m.info(ctx)
		if err != nil {
			return fmt.Errorf("shut machine %s down: %w", m.uuid, err)
		}
		if in.Status == qemu.StatusShutdown {
			return nil
		}
		if time.Since(pressed) > pressEvery {
			if err := m.press(ctx); err != nil {
				return fmt.Errorf("shut machine %s down: %w", m.uuid, err)
			}
			pressed = time.Now()
		}
		select {
		case <-ctx.Done():
			return &ship.Fault{Code: "precondition_failed", Message: fmt.Sprintf("the guest did not shut down within %s", powerLimit),
				Causes: "It ignores the power button, is paused, or waits for somebody.", Action: "Shut it down from inside, or fail over unplanned."}
		case <-time.After(pollEvery):
		}
	}
}

// press makes QEMU outlive the guest, and pushes the power button.
func (m *machine) press(ctx context.Context) error {
	if err := os.WriteFile(m.stopped, nil, 0o600); err != nil {
		return err
	}
	return m.ask(ctx, func(mon *qemu.Monitor) error {
		if err := mon.Do(ctx, "set-action", map[string]string{"shutdown": "pause"}, nil); err != nil {
			return err
		}
		return mon.Do(ctx, "system_powerdown", nil, nil)
	})
}

// Resume implements ship.Host.
func (m *machine) Resume(ctx context.Context) error {
	if _, err := os.Stat(m.stopped); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	in, err := m.info(ctx)
	if err == nil && in.Status == qemu.StatusShutdown {
		err = m.ask(ctx, func(mon *qemu.Monitor) error {
			if err := mon.Do(ctx, "system_reset", nil, nil); err != nil {
				return err
			}
			return mon.Do(ctx, "cont", nil, nil)
		})
	}
	if err != nil {
		return fmt.Errorf("start machine %s again: %w", m.uuid, err)
	}
	return os.Remove(m.stopped)
}
