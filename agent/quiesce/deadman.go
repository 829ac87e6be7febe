package quiesce

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// A request is the operation and its body. That of opFreeze is the deadline in milliseconds (uint32) with the filesystems as passed
// descriptors, that of opPre a preRequest in JSON. An answer is the operation and, for opFreeze and opThaw, whether the deadline came
// first and an errno (uint16) for each filesystem; for opPre and opPost a scriptAnswer in JSON.
const (
	opReady  = 'R'
	opPre    = 'Q'
	opFreeze = 'F'
	opThaw   = 'T'
	opPost   = 'P'

	maxScriptMessage = 64 << 10
	unkillable       = "-1000"

	notTried = unix.Errno(0xffff)

	fiFreeze = 0xC0045877
	fiThaw   = 0xC0045878
)

func freeze(fd int) error { return ioctl(fd, fiFreeze) }
func thaw(fd int) error   { return ioctl(fd, fiThaw) }

func ioctl(fd int, req uintptr) error {
	if _, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), req, 0); e != 0 {
		return e
	}
	return nil
}

// RunDeadman is the dead-man process. It serves the guard on descriptor 3 and returns when the guard is gone, with everything
// thawed that it froze and the post script run that it owed. It locks its memory, so that it needs nothing from a disk while one
// is frozen. What it does on its own it logs to standard error.
func RunDeadman() error {
	deaf := make(chan os.Signal, 1) // caught and not ignored: scripts would inherit that
	signal.Notify(deaf, unix.SIGTERM, unix.SIGINT, unix.SIGHUP, unix.SIGPIPE)
	socket := os.NewFile(3, "guard")
	c, err := net.FileConn(socket)
	if err = errors.Join(err, socket.Close()); err != nil { // scripts must not inherit it
		return fmt.Errorf("dead-man: no guard on descriptor 3: %w", err)
	}
	conn, ok := c.(*net.UnixConn)
	if !ok {
		return errors.New("dead-man: descriptor 3 is no socket")
	}
	defer func() { _ = conn.Close() }()
	d := &deadman{conn: conn, log: slog.New(slog.NewTextHandler(os.Stderr, nil))}
	if old, err := os.ReadFile("/proc/self/oom_score_adj"); err == nil && os.WriteFile("/proc/self/oom_score_adj", []byte(unkillable), 0) == nil {
		d.oomScore = old // fails without the right to; still worth running
	}
	// What is touched stays in memory; locking all that Go reserved would cost 86 MiB. The rehearsal touches what a thaw needs.
	locked := byte(1)
	if unix.Mlockall(unix.MCL_CURRENT|unix.MCL_FUTURE|unix.MCL_ONFAULT) != nil {
		locked = 0
	}
	rehearse()
	if _, err := conn.Write([]byte{opReady, locked}); err != nil {
		return nil
	}
	req, oob := make([]byte, maxScriptMessage), make([]byte, unix.CmsgSpace(4*maxMounts))
	for {
		n, on, _, _, err := conn.ReadMsgUnix(req, oob)
		if err != nil || n < 1 {
			d.lost()
			return nil
		}
		if err := d.serve(req[:n], oob[:on]); err != nil {
			d.lost()
			return err
		}
	}
}

// deadman is the process's state. Its requests come one after the other; the duty's deadline comes when it will.
type deadman struct {
	conn     *net.UnixConn
	log      *slog.Logger
	oomScore []byte // what it was before
	reply    []byte
	duty     *duty

	mu sync.Mutex // guards h
	h  *hold
}

func (d *deadman) serve(req, oob []byte) error {
	switch op := req[0]; {
	case op == opPre && d.duty == nil:
		var r preRequest
		if err := json.Unmarshal(req[1:], &r); err != nil {
			return fmt.Errorf("dead-man: %w", err)
		}
		var err error
		if d.duty, err = newDuty(d.conn, r, d.oomScore, d.log, d.thaw); err != nil {
			a := answerOf(err)
			a.NotStarted = true
			send(d.conn, opPre, a)
		}
	case op == opPost && d.duty != nil:
		a := d.duty.settle("")
		d.duty = nil
		send(d.conn, opPost, a)
	case op == opFreeze && d.h == nil && len(req) >= 5:
		h := d.freeze(descriptors(oob), time.Duration(binary.BigEndian.Uint32(req[1:]))*time.Millisecond)
		h.wait()
		d.answer(h, op)
	case op == opThaw && d.h != nil:
		d.h.end(false)
		d.answer(d.h, op)
	default:
		return fmt.Errorf("dead-man: request %q is out of turn", req[:min(len(req), 8)])
	}
	return nil
}

// freeze begins a hold, but not while a post script runs that its deadline called for: that must be able to write.
func (d *deadman) freeze(fds []int, limit time.Duration) *hold {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.duty != nil && d.duty.due() {
		d.mu.Unlock()
		d.duty.settle("") // waits
		d.mu.Lock()
	}
	d.h = newHold(fds, limit)
	return d.h
}

// thaw lets go what is frozen, because the application's deadline passed.
func (d *deadman) thaw() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.h != nil {
		d.h.end(true)
	}
}

func (d *deadman) answer(h *hold, op byte) {
	d.reply = h.answer(d.reply[:0], op)
	if op == opThaw || h.over() {
		d.mu.Lock()
		h.close()
		d.h = nil
		d.mu.Unlock()
	}
	_, _ = d.conn.Write(d.reply) // a guard that is gone shows in the next read
}

// lost does what is owed when the guard is gone: first the filesystems, then the application.
func (d *deadman) lost() {
	d.thaw()
	if d.duty != nil {
		d.duty.settle("the agent is gone")
	}
	if d.h != nil {
		d.h.wait() // for a freeze that the kernel is still at
	}
}

// rehearse goes through a freeze of nothing, by deadline and by request.
func rehearse() {
	for _, limit := range []time.Duration{0, time.Hour} {
		h := newHold([]int{-1}, limit)
		h.wait()
		h.end(false)
		_ = h.answer(nil, opThaw)
		h.close()
	}
}

func descriptors(oob []byte) (fds []int) {
	ms, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil
	}
	for i := range ms {
		f, err := unix.ParseUnixRights(&ms[i])
		if err == nil {
			fds = append(fds, f...)
		}
	}
	return fds
}

// hold is one freeze, from the first filesystem frozen until the last one is thawed.
type hold struct {
	fds     []int
	timer   *time.Timer
	settled chan struct{} // closed when all are frozen or given up

	mu      sync.Mutex // guards the rest
	frozen  []int      // indexes of fds, in order; those we froze and did not thaw
	errno   []unix.Errno
	ended   bool // nothing may be frozen any more
	expired bool // by the deadline
	failed  bool // by a filesystem that could not be frozen
}

func newHold(fds []int, limit time.Duration) *hold {
	h := &hold{fds: fds, settled: make(chan struct{}), frozen: make([]int, 0, len(fds)), errno: make([]unix.Errno, len(fds))}
	for i := range h.errno {
		h.errno[i] = notTried
	}
	h.timer = time.AfterFunc(limit, func() { h.end(true) })
	go h.freeze()
	return h
}

// freeze runs on its own, because the kernel may take its time and the deadline must not wait for it.
func (h *hold) freeze() {
	defer close(h.settled)
	for i, fd := range h.fds {
		h.mu.Lock()
		stop := h.ended
		h.mu.Unlock()
		if stop {
			return
		}
		err := freeze(fd)
		h.mu.Lock()
		switch e, _ := errors.AsType[unix.Errno](err); {
		case err == nil && h.ended:
			_ = thaw(fd)
		case err == nil:
			h.errno[i] = 0
			h.frozen = append(h.frozen, i)
		case e == unix.EOPNOTSUPP || e == unix.ENOTTY:
			h.errno[i] = unix.EOPNOTSUPP
		default:
			h.failed = true
			h.errno[i] = e
		}
		failed := h.failed
		h.mu.Unlock()
		if failed {
			h.end(false)
			return
		}
	}
}

// end thaws what is frozen, in reverse. by tells whether the deadline or the loss of the guard did it, not the guard.
func (h *hold) end(by bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.ended {
		return
	}
	h.ended, h.expired = true, by
	for i := len(h.frozen) - 1; i >= 0; i-- {
		at := h.frozen[i]
		if e, ok := errors.AsType[unix.Errno](thaw(h.fds[at])); ok && !h.failed {
			h.errno[at] = e
		}
	}
	h.frozen = h.frozen[:0]
}

func (h *hold) wait() { <-h.settled }

func (h *hold) over() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.ended
}

func (h *hold) answer(p []byte, op byte) []byte {
	h.mu.Lock()
	defer h.mu.Unlock()
	p = append(p, op, 0)
	if h.expired {
		p[1] = 1
	}
	for _, e := range h.errno {
		p = binary.BigEndian.AppendUint16(p, uint16(e))
	}
	return p
}

func (h *hold) close() {
	h.timer.Stop()
	for _, fd := range h.fds {
		_ = unix.Close(fd)
	}
}
