package qemu

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// ErrNoMonitor says that a machine's monitor does not answer: QEMU has ended, is not up yet, or serves somebody else, as it
// serves one connection at a time.
var ErrNoMonitor = errors.New("qemu: the monitor does not answer")

// RefusedError is a command that QEMU refused.
type RefusedError struct {
	Command, Class, Desc string
}

func (e *RefusedError) Error() string { return fmt.Sprintf("qemu refused %s: %s", e.Command, e.Desc) }

const (
	greetingLimit = 10 * time.Second // somebody else may be using the monitor
	queueWait     = 10 * time.Millisecond
	commandLimit  = 30 * time.Second // QEMU's main loop may be waiting for a disk
	maxLine       = 16 << 20         // of what QEMU says: block nodes of very many disks stay below
)

// Monitor is a connection to a QEMU machine protocol socket. Others wait while it is open, so it is closed soon. Safe for
// concurrent use.
type Monitor struct {
	conn *net.UnixConn

	mu sync.Mutex // one command at a time: held until it is answered
	r  *bufio.Reader
}

// Dial connects to the monitor at path. The context bounds the connecting, not the Monitor.
func Dial(ctx context.Context, path string) (*Monitor, error) {
	conn, err := dialUnix(ctx, path)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoMonitor, err)
	}
	m := &Monitor{conn: conn.(*net.UnixConn), r: bufio.NewReaderSize(conn, 64<<10)}
	_ = conn.SetDeadline(soonest(ctx, greetingLimit))
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Now()) })
	defer stop()
	if _, err := m.line(); err != nil {
		return nil, errors.Join(fmt.Errorf("greeting: %w", err), conn.Close())
	}
	if err := m.Do(ctx, "qmp_capabilities", nil, nil); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return m, nil
}

// shortly runs f with a name of a socket whose path may be longer than the kernel takes.
func shortly(path string, f func(name string) error) error {
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(f(fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), filepath.Base(path))), dir.Close())
}

// dialUnix connects to a socket. While others wait for it already, the kernel refuses one more, which is tried again.
func dialUnix(ctx context.Context, path string) (c net.Conn, err error) {
	deadline := soonest(ctx, greetingLimit)
	err = shortly(path, func(name string) (err error) {
		for {
			c, err = (&net.Dialer{Deadline: deadline}).DialContext(ctx, "unix", name)
			if !errors.Is(err, unix.EAGAIN) || ctx.Err() != nil || time.Now().After(deadline) {
				return err
			}
			select {
			case <-ctx.Done():
			case <-time.After(queueWait):
			}
		}
	})
	return c, err
}

func soonest(ctx context.Context, limit time.Duration) time.Time {
	t := time.Now().Add(limit)
	if d, ok := ctx.Deadline(); ok && d.Before(t) {
		return d
	}
	return t
}

// Close lets the next one in.
func (m *Monitor) Close() error { return m.conn.Close() }

func (m *Monitor) line() ([]byte, error) {
	var line []byte
	for {
		part, err := m.r.ReadSlice('\n')
		line = append(line, part...)
		if err == nil {
			return line, nil
		}
		if !errors.Is(err, bufio.ErrBufferFull) {
			return nil, fmt.Errorf("%w: %w", ErrNoMonitor, err)
		}
		if len(line) > maxLine {
			return nil, fmt.Errorf("%w: endless line", ErrNoMonitor)
		}
	}
}

// Do runs a command and stores what it returns in result, which may be nil. Events are passed over: whoever needs a state asks
// for it. A *RefusedError leaves the monitor usable; after any other error it is not, and whether the command was run is unknown.
func (m *Monitor) Do(ctx context.Context, command string, arguments, result any) error {
	return m.do(ctx, command, arguments, nil, result)
}

// pass gives QEMU an open file, which it knows by the name until another command takes it.
func (m *Monitor) pass(ctx context.Context, name string, f *os.File) error {
	return m.do(ctx, "getfd", map[string]string{"fdname": name}, unix.UnixRights(int(f.Fd())), nil)
}

// lend gives QEMU an open file as a set of its own, and returns its number. The set stays until it is removed, or until no monitor is
// connected and nothing uses it.
func (m *Monitor) lend(ctx context.Context, name string, f *os.File) (set int64, err error) {
	var lent struct {
		Set int64 `json:"fdset-id"`
	}
	err = m.do(ctx, "add-fd", map[string]string{"opaque": name}, unix.UnixRights(int(f.Fd())), &lent)
	return lent.Set, err
}

func (m *Monitor) do(ctx context.Context, command string, arguments any, rights []byte, result any) error {
	b, err := json.Marshal(struct {
		Execute   string `json:"execute"`
		Arguments any    `json:"arguments,omitempty"`
	}{command, arguments})
	if err != nil {
		return fmt.Errorf("encode qemu command %s: %w", command, err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	_ = m.conn.SetDeadline(soonest(ctx, commandLimit))
	stop := context.AfterFunc(ctx, func() { _ = m.conn.SetDeadline(time.Now()) })
	defer stop()
	if _, _, err := m.conn.WriteMsgUnix(append(b, '\n'), rights, nil); err != nil {
		return fmt.Errorf("%w: %s: %w", ErrNoMonitor, command, err)
	}
	for {
		line, err := m.line()
		if err != nil {
			return fmt.Errorf("%s: %w", command, err)
		}
		var reply struct {
			Event  string
			Return json.RawMessage
			Error  *struct{ Class, Desc string }
		}
		if err := json.Unmarshal(line, &reply); err != nil {
			return fmt.Errorf("%w: decode the answer to %s: %w", ErrNoMonitor, command, err)
		}
		switch {
		case reply.Event != "":
			continue
		case reply.Error != nil:
			return &RefusedError{Command: command, Class: reply.Error.Class, Desc: reply.Error.Desc}
		case result == nil:
			return nil
		}
		if err := json.Unmarshal(reply.Return, result); err != nil {
			return fmt.Errorf("decode the answer of qemu to %s: %w", command, err)
		}
		return nil
	}
}
