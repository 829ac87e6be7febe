package qemu

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/lifeboat-dr/lifeboat/replicator/restore"
)

// errNoMonitor says that a machine's monitor cannot be reached: QEMU has ended, or is about to, or is not up yet.
var errNoMonitor = errors.New("qemu monitor does not answer")

// qmpError is a command that QEMU refused.
type qmpError struct {
	Command, Class, Desc string
}

func (e *qmpError) Error() string { return fmt.Sprintf("qemu refused %s: %s", e.Command, e.Desc) }

// monitor is a connection to a QEMU machine protocol socket. QEMU serves one at a time, so they are short-lived: open, ask,
// close. Not safe for concurrent use.
type monitor struct {
	conn net.Conn
	r    *bufio.Reader
	stop func() bool
}

// monitorDeadline bounds one connection. QEMU's main loop answers within milliseconds unless it waits for a disk.
const monitorDeadline = 20 * time.Second

func dialMonitor(ctx context.Context, dir, socket string) (*monitor, error) {
	conn, err := restore.Dial(ctx, dir, socket)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errNoMonitor, err)
	}
	deadline := time.Now().Add(monitorDeadline)
	if t, ok := ctx.Deadline(); ok && t.Before(deadline) {
		deadline = t
	}
	conn.SetDeadline(deadline)
	m := &monitor{conn: conn, r: bufio.NewReaderSize(conn, 64<<10), stop: context.AfterFunc(ctx, func() { conn.Close() })}
	if _, err := m.line(); err != nil { // greeting
		m.close()
		return nil, err
	}
	if err := m.do("qmp_capabilities", nil, nil); err != nil {
		m.close()
		return nil, err
	}
	return m, nil
}

func (m *monitor) close() {
	m.stop()
	m.conn.Close()
}

// maxLine bounds a line of QEMU's: query-named-block-nodes of many disks stays far below.
const maxLine = 4 << 20

func (m *monitor) line() ([]byte, error) {
	var line []byte
	for {
		part, err := m.r.ReadSlice('\n')
		line = append(line, part...)
		if err == nil {
			return line, nil
		}
		if !errors.Is(err, bufio.ErrBufferFull) {
			return nil, fmt.Errorf("%w: %w", errNoMonitor, err)
		}
		if len(line) > maxLine {
			return nil, fmt.Errorf("%w: endless line", errNoMonitor)
		}
	}
}

// do runs a command and stores what it returns in result, which may be nil. Events are passed over: whoever needs a state
// asks for it.
func (m *monitor) do(command string, arguments, result any) error {
	b, err := json.Marshal(struct {
		Execute   string `json:"execute"`
		Arguments any    `json:"arguments,omitempty"`
	}{command, arguments})
	if err != nil {
		return fmt.Errorf("encode qemu command %s: %w", command, err)
	}
	if _, err := m.conn.Write(append(b, '\n')); err != nil {
		return fmt.Errorf("%w: %w", errNoMonitor, err)
	}
	for {
		line, err := m.line()
		if err != nil {
			return err
		}
		var reply struct {
			Event  string
			Return json.RawMessage
			Error  *struct{ Class, Desc string }
		}
		if err := json.Unmarshal(line, &reply); err != nil {
			return fmt.Errorf("decode qemu reply to %s: %w", command, err)
		}
		switch {
		case reply.Event != "":
			continue
		case reply.Error != nil:
			return &qmpError{Command: command, Class: reply.Error.Class, Desc: reply.Error.Desc}
		case result == nil:
			return nil
		}
		if err := json.Unmarshal(reply.Return, result); err != nil {
			return fmt.Errorf("decode qemu reply to %s: %w", command, err)
		}
		return nil
	}
}

// ask runs one command on a connection of its own.
func ask(ctx context.Context, dir, socket, command string, arguments, result any) error {
	m, err := dialMonitor(ctx, dir, socket)
	if err != nil {
		return err
	}
	defer m.close()
	return m.do(command, arguments, result)
}
