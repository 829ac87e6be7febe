package quiesce

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// A request is 8 bytes: the operation, and for opFreeze the deadline in milliseconds (uint32) with the filesystems as passed
// descriptors. An answer is the operation, whether the deadline came first, and an errno (uint16) for each filesystem.
const (
	opReady  = 'R'
	opFreeze = 'F'
	opThaw   = 'T'

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
// thawed that it froze. It locks its memory, so that it needs nothing from a disk while one is frozen.
func RunDeadman() error {
	signal.Ignore(unix.SIGTERM, unix.SIGINT, unix.SIGHUP, unix.SIGPIPE)
	_ = os.WriteFile("/proc/self/oom_score_adj", []byte("-1000"), 0) // fails without the right to; still worth running
	c, err := net.FileConn(os.NewFile(3, "guard"))
	if err != nil {
		return fmt.Errorf("dead-man: no guard on descriptor 3: %w", err)
	}
	conn, ok := c.(*net.UnixConn)
	if !ok {
		return errors.New("dead-man: descriptor 3 is no socket")
	}
	defer func() { _ = conn.Close() }()
	// What is touched stays in memory; locking all that Go reserved would cost 86 MiB. The rehearsal touches what a thaw needs.
	locked := byte(1)
	if unix.Mlockall(unix.MCL_CURRENT|unix.MCL_FUTURE|unix.MCL_ONFAULT) != nil {
		locked = 0
	}
	rehearse()
	if _, err := conn.Write([]byte{opReady, locked}); err != nil {
		return nil
	}
	req, oob := make([]byte, 16), make([]byte, unix.CmsgSpace(4*maxMounts))
	reply := make([]byte, 2+2*maxMounts)
	var h *hold
	for {
		n, on, _, _, err := conn.ReadMsgUnix(req, oob)
		if err != nil || n < 1 {
			if h != nil {
				h.end(true)
				h.wait()
			}
			return nil
		}
		switch {
		case req[0] == opFreeze && h == nil && n >= 5:
			h = newHold(descriptors(oob[:on]), time.Duration(binary.BigEndian.Uint32(req[1:]))*time.Millisecond)
			h.wait()
		case req[0] == opThaw && h != nil:
			h.end(false)
		default:
			return fmt.Errorf("dead-man: request %q is out of turn", req[:n])
		}
		reply = h.answer(reply[:0], req[0])
		if req[0] == opThaw || h.over() {
			h.close()
			h = nil
		}
		_, _ = conn.Write(reply) // a guard that is gone shows in the next read
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
