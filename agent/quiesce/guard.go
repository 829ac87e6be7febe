// Package quiesce stops a machine's writes for an instant: it freezes filesystems and runs the scripts that quiesce applications,
// both in a dead-man process. It never leaves a filesystem frozen or an application quiesced, whatever happens to the agent, and
// never thaws what somebody else froze.
package quiesce

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lifeboat-dr/lifeboat/agent/source"
)

var (
	// ErrBusy means that somebody else holds a filesystem frozen. Nothing was changed; try again later.
	ErrBusy = errors.New("quiesce: a filesystem is frozen by somebody else")
	// ErrExpired means that the deadline came before Thaw or RunPost: filesystems were thawed, applications let go, and what was
	// read meanwhile is of no instant.
	ErrExpired = errors.New("quiesce: the deadline passed before all was read")
	// ErrLost means that the dead-man process is gone. The filesystems were thawed.
	ErrLost = errors.New("quiesce: the dead-man process is gone")
)

const (
	startTimeout = 30 * time.Second // for a cold start on a slow machine
	replyGrace   = 5 * time.Second  // beyond the deadline, for a freeze that the kernel cannot break off
	maxMounts    = 200
)

// Guard owns the dead-man process, which does all freezing and thawing and runs all scripts. It is started before the first freeze, because a program
// cannot be started from a frozen disk, and kept. Not safe for concurrent use.
type Guard struct {
	command []string
	log     *slog.Logger
	cmd     *exec.Cmd
	conn    *net.UnixConn

	owed   *preRequest // what RunPost is for; nil when none is due
	owedBy *exec.Cmd   // the dead-man that was asked
	killed bool        // it ended, and not as it should
}

// NewGuard returns a guard that runs command as its dead-man: this program with arguments that lead to RunDeadman.
func NewGuard(log *slog.Logger, command ...string) *Guard { return &Guard{command: command, log: log} }

func (g *Guard) start() error {
	if g.conn != nil {
		return nil
	}
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("make the dead-man's socket: %w", err)
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "dead-man"), os.NewFile(uintptr(fds[1]), "dead-man")
	defer func() { _ = theirs.Close() }()
	c, err := net.FileConn(ours)
	err = errors.Join(err, ours.Close())
	if err != nil {
		return fmt.Errorf("make the dead-man's socket: %w", err)
	}
	conn := c.(*net.UnixConn)
	cmd := exec.Command(g.command[0], g.command[1:]...)
	cmd.ExtraFiles = []*os.File{theirs}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // a signal to our group must not reach it
	cmd.Stderr = os.Stderr                               // where it tells what it had to do without us
	if err := cmd.Start(); err != nil {
		return errors.Join(fmt.Errorf("start the dead-man process: %w", err), conn.Close())
	}
	g.cmd, g.conn = cmd, conn
	_ = conn.SetReadDeadline(time.Now().Add(startTimeout))
	var hello [2]byte
	if n, err := conn.Read(hello[:]); err != nil || n != 2 || hello[0] != opReady {
		g.stop()
		return fmt.Errorf("%w: it did not start: %w", ErrLost, errors.Join(err, errors.New("no answer")))
	}
	if hello[1] == 0 {
		g.log.Warn("the dead-man process could not lock its memory")
	}
	return nil
}

// stop lets the process go: it thaws what it holds and ends when its socket closes.
func (g *Guard) stop() {
	if g.conn == nil {
		return
	}
	_ = g.conn.Close()
	cmd := g.cmd
	g.conn, g.cmd = nil, nil
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }() // a freeze that hangs in the kernel cannot be waited for
	select {
	case err := <-done:
		g.killed = g.killed || err != nil && cmd == g.owedBy
	case <-time.After(replyGrace + g.postTime()):
		g.log.Warn("the dead-man process did not end yet")
	}
}

// PID returns the dead-man's process id; 0 when none runs.
func (g *Guard) PID() int {
	if g.cmd == nil {
		return 0
	}
	return g.cmd.Process.Pid
}

// Close ends the dead-man process.
func (g *Guard) Close() { g.stop() }

// Window is a set of filesystems about to be frozen, or frozen. Use: Prepare, Freeze, Thaw, Close.
type Window struct {
	g       *Guard
	mounts  []*os.File
	frozen  []bool
	held    bool
	start   time.Time
	reply   [2 + 2*maxMounts]byte
	request [8]byte
}

// Prepare starts the dead-man if need be, opens the filesystems and writes out what is dirty in them, so that the freeze has
// little to do. The order is that of freezing: children before parents.
func (g *Guard) Prepare(ctx context.Context, fs []source.Filesystem) (*Window, error) {
	if len(fs) > maxMounts {
		return nil, fmt.Errorf("%d filesystems are more than can be frozen together", len(fs))
	}
	if len(fs) > 0 {
		if err := g.start(); err != nil {
			return nil, err
		}
	}
	w := &Window{g: g, frozen: make([]bool, len(fs))}
	for _, f := range fs {
		m, err := openMount(f)
		if err != nil {
			w.Close()
			return nil, err
		}
		w.mounts = append(w.mounts, m)
	}
	if err := w.sync(ctx); err != nil {
		w.Close()
		return nil, err
	}
	return w, nil
}

// sync writes out what is dirty in the filesystems.
func (w *Window) sync(ctx context.Context) error {
	for _, m := range w.mounts {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err := unix.Syncfs(int(m.Fd())); err != nil {
			return fmt.Errorf("sync filesystem %s: %w", m.Name(), err)
		}
	}
	return nil
}

// Sync writes out what is dirty in filesystems that are not to be frozen yet.
func Sync(ctx context.Context, fs []source.Filesystem) error {
	var w Window
	defer w.Close()
	for _, f := range fs {
		m, err := openMount(f)
		if err != nil {
			return err
		}
		w.mounts = append(w.mounts, m)
	}
	return w.sync(ctx)
}

// openMount opens a filesystem and makes sure that it is the one meant: another may have been mounted over the place.
func openMount(f source.Filesystem) (*os.File, error) {
	fd, err := unix.Open(f.Path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open filesystem", Path: f.Path, Err: err}
	}
	m := os.NewFile(uintptr(fd), f.Path)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, errors.Join(&os.PathError{Op: "stat filesystem", Path: f.Path, Err: err}, m.Close())
	}
	if got := fmt.Sprintf("%d:%d", unix.Major(st.Dev), unix.Minor(st.Dev)); got != f.Device && f.Type != "btrfs" {
		return nil, errors.Join(fmt.Errorf("filesystem %s at %s is hidden under %s", f.Device, f.Path, got), m.Close())
	}
	return m, nil
}

// Freeze stops all writes to the filesystems. It returns ErrBusy if somebody holds one of them, and ErrExpired if limit passed
// before all stood; then all are thawed again. After limit the dead-man thaws whatever happens. Filesystems that cannot be
// frozen are left out; Unfrozen names them. Nothing is written to any disk here.
func (w *Window) Freeze(limit time.Duration) error {
	w.start = time.Now()
	if len(w.mounts) == 0 {
		w.held = true
		return nil
	}
	fds := make([]int, len(w.mounts))
	for i, m := range w.mounts {
		fds[i] = int(m.Fd())
	}
	binary.BigEndian.PutUint32(w.request[1:], uint32(limit.Milliseconds()))
	p, err := w.ask(opFreeze, unix.UnixRights(fds...), limit+replyGrace+w.g.postTime())
	if err != nil {
		return err
	}
	w.held = true
	if p[1] != 0 {
		w.held = false
		return ErrExpired
	}
	var failed error
	for i := range w.mounts {
		switch e := unix.Errno(binary.BigEndian.Uint16(p[2+2*i:])); e {
		case 0:
			w.frozen[i] = true
		case unix.EOPNOTSUPP:
		case unix.EBUSY:
			failed = fmt.Errorf("%w: %s", ErrBusy, w.mounts[i].Name())
		case notTried:
		default:
			failed = &os.PathError{Op: "freeze", Path: w.mounts[i].Name(), Err: e}
		}
	}
	if failed != nil { // the dead-man thawed the others
		w.held = false
		clear(w.frozen)
	}
	return failed
}

// Unfrozen returns the filesystems that the kernel cannot freeze.
func (w *Window) Unfrozen() (out []string) {
	for i, m := range w.mounts {
		if !w.frozen[i] {
			out = append(out, m.Name())
		}
	}
	return out
}

// Thaw lets writes go on, in the reverse order, and returns how long they stood. ErrExpired tells that the deadline came first.
func (w *Window) Thaw() (time.Duration, error) {
	if !w.held {
		return 0, ErrExpired
	}
	w.held = false
	if len(w.mounts) == 0 {
		return time.Since(w.start), nil
	}
	p, err := w.ask(opThaw, nil, replyGrace)
	took := time.Since(w.start)
	if err != nil {
		return took, err
	}
	if p[1] != 0 {
		return took, ErrExpired
	}
	for i := range w.mounts {
		if e := unix.Errno(binary.BigEndian.Uint16(p[2+2*i:])); e != 0 && w.frozen[i] {
			return took, &os.PathError{Op: "thaw", Path: w.mounts[i].Name(), Err: e}
		}
	}
	return took, nil
}

// ask sends one request and waits for its answer. When there is none, the filesystems that were frozen are thawed from here.
func (w *Window) ask(op byte, oob []byte, limit time.Duration) ([]byte, error) {
	w.request[0] = op
	_ = w.g.conn.SetDeadline(time.Now().Add(limit))
	_, _, err := w.g.conn.WriteMsgUnix(w.request[:], oob, nil)
	n := 0
	if err == nil {
		n, err = w.g.conn.Read(w.reply[:])
	}
	if err == nil && (n != 2+2*len(w.mounts) || w.reply[0] != op) {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		for i := len(w.mounts) - 1; i >= 0; i-- {
			if w.frozen[i] {
				_ = thaw(int(w.mounts[i].Fd()))
			}
		}
		w.held = false
		w.g.stop()
		return nil, fmt.Errorf("%w: %w", ErrLost, err)
	}
	return w.reply[:n], nil
}

// Close thaws if need be and lets the filesystems go.
func (w *Window) Close() {
	if w.held {
		_, _ = w.Thaw()
	}
	for _, m := range w.mounts {
		_ = m.Close()
	}
	w.mounts = nil
}
