package qemu

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"github.com/lifeboat-dr/lifeboat/replicator/block"
)

// pollEvery is how often QEMU is asked whether something has gone: it says so in events, which a killed agent would miss.
const pollEvery = 2 * time.Millisecond

// sweep removes every view of ours, whoever left it: an agent holds the monitor as long as its view is open, so what is here now
// is nobody's. Bitmaps stay.
func (m *Machine) sweep(ctx context.Context, mon *Monitor) error {
	if err := m.deleteExports(ctx, mon); err != nil {
		return fmt.Errorf("remove exports: %w", err)
	}
	if err := m.cancelJobs(ctx, mon); err != nil {
		return fmt.Errorf("end views: %w", err)
	}
	nodes, err := blockNodes(ctx, mon)
	if err != nil {
		return err
	}
	for node := range nodes {
		if !strings.HasPrefix(node, prefix+"scratch-") {
			continue
		}
		if err := mon.Do(ctx, "blockdev-del", map[string]string{"node-name": node}, nil); err != nil {
			return err
		}
	}
	return m.emptyScratch()
}

// deleteExports removes our exports, and ends the server if it is ours.
func (m *Machine) deleteExports(ctx context.Context, mon *Monitor) error {
	var exports []struct {
		ID       string
		Shutting bool `json:"shutting-down"`
	}
	for deadline := time.Now().Add(endLimit); ; {
		if err := mon.Do(ctx, "query-block-exports", nil, &exports); err != nil {
			return err
		}
		ours := 0
		for _, e := range exports {
			if !strings.HasPrefix(e.ID, prefix) {
				continue
			}
			ours++
			if e.Shutting {
				continue
			}
			err := mon.Do(ctx, "block-export-del", map[string]string{"id": e.ID, "mode": "hard"}, nil)
			if _, refused := errors.AsType[*RefusedError](err); err != nil && !refused { // it may have gone by itself
				return err
			}
		}
		if ours == 0 {
			return m.stopServing(ctx, mon)
		}
		if err := pause(ctx, deadline); err != nil {
			return err
		}
	}
}

// stopServing ends QEMU's server of block exports, if it is the one that serve started: that at our socket.
func (m *Machine) stopServing(ctx context.Context, mon *Monitor) error {
	path := m.path(nbdSocket)
	if !m.serving {
		c, err := dialUnix(ctx, path)
		if err != nil {
			return nil
		}
		_ = c.Close()
	}
	m.serving = false
	if err := mon.Do(ctx, "nbd-server-stop", nil, nil); err != nil {
		return err
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// cancelJobs ends our jobs, and with them their filters. It may be called while another goroutine reads views.
func (m *Machine) cancelJobs(ctx context.Context, mon *Monitor) error {
	var jobs []struct{ ID, Status string }
	for deadline := time.Now().Add(endLimit); ; {
		if err := mon.Do(ctx, "query-jobs", nil, &jobs); err != nil {
			return err
		}
		ours := 0
		for _, j := range jobs {
			if !strings.HasPrefix(j.ID, prefix) {
				continue
			}
			ours++
			if j.Status == "aborting" {
				continue
			}
			err := mon.Do(ctx, "block-job-cancel", map[string]any{"device": j.ID, "force": true}, nil)
			if _, refused := errors.AsType[*RefusedError](err); err != nil && !refused { // it may have ended by itself
				return err
			}
		}
		if ours == 0 {
			return nil
		}
		if err := pause(ctx, deadline); err != nil {
			return err
		}
	}
}

func pause(ctx context.Context, deadline time.Time) error {
	if time.Now().After(deadline) {
		return fmt.Errorf("qemu did not let it go within %s", endLimit)
	}
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(pollEvery):
		return nil
	}
}

// serve starts QEMU's server of block exports, at a socket that is made here, so that QEMU needs no leave to make one. It has one
// such server; when somebody else uses it, there is no way to read.
func (m *Machine) serve(ctx context.Context, mon *Monitor) error {
	path := m.path(nbdSocket)
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	err := shortly(path, func(name string) error {
		l, err := net.ListenUnix("unix", &net.UnixAddr{Name: name, Net: "unix"})
		if err != nil {
			return err
		}
		l.SetUnlinkOnClose(false)
		f, err := l.File()
		if err != nil {
			return errors.Join(err, l.Close())
		}
		return errors.Join(mon.pass(ctx, nbdSocket, f), f.Close(), l.Close())
	})
	if err != nil {
		return fmt.Errorf("make a socket for views: %w", err)
	}
	err = mon.Do(ctx, "nbd-server-start", map[string]any{"addr": map[string]any{"type": "fd", "data": map[string]string{"str": nbdSocket}}}, nil)
	if err != nil {
		return fmt.Errorf("start qemu's server of block exports, which may be in use: %w", errors.Join(err, mon.Do(ctx, "closefd", map[string]string{"fdname": nbdSocket}, nil)))
	}
	m.serving = true
	return nil
}

// readBitmap reads the bitmap of a block node, which must not be recording.
func (m *Machine) readBitmap(ctx context.Context, mon *Monitor, node, name string) (out []block.Extent, err error) {
	if err := os.MkdirAll(m.cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("make a directory for sockets: %w", err)
	}
	if err := m.serve(ctx, mon); err != nil {
		return nil, err
	}
	id := prefix + "bitmap"
	defer func() { err = errors.Join(err, m.deleteExports(ctx, mon)) }()
	err = mon.Do(ctx, "block-export-add", map[string]any{"type": "nbd", "id": id, "name": id, "node-name": node, "bitmaps": []string{name}}, nil)
	if err != nil {
		return nil, err
	}
	c, err := dialNBD(ctx, m.path(nbdSocket), id, contextBitmap+name)
	if err != nil {
		return nil, err
	}
	out, err = c.dirty(ctx)
	return out, errors.Join(err, c.close())
}
