//go:build linux

// Package process starts programs that outlive the one that started them and finds them again: by the pid file in their
// directory and, when that was never written or lies, by a mark in their environment. It owns pid files; it must never signal
// a process that it has not recognised by start time or mark, because pids are reused.
package process

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// markVariable names the environment variable that tells whose process it is: "<directory>\x1f<name>" cannot be set by chance.
const markVariable = "LIFEBOAT_PROCESS"

// ErrGone says that the process has ended.
var ErrGone = errors.New("process has ended")

// Process is one process of this boot of the host. The zero value is none.
type Process struct {
	PID   int    `json:"pid"`
	Start uint64 `json:"start"` // clock ticks after boot at which it started
	Boot  string `json:"boot"`  // boot id of the host: pid and start repeat after a reboot
}

// Command says what to start. The process runs in Dir, in a session of its own, with both outputs appended to Log.
type Command struct {
	Name  string   // names the pid file: Dir/Name.pid
	Path  string   // program
	Args  []string // without the program's name
	Dir   string   // working directory; the process is found again by it
	Env   []string // the mark is added
	Log   string   // file name in Dir
	Input []byte   // written to its standard input, which is then closed; for secrets
}

// Child is a process that this one started. Its end is collected by a goroutine that lives exactly as long as the child.
type Child struct {
	Process
	done chan struct{}
	err  error // valid once done is closed
}

// Done is closed when the child has ended.
func (c *Child) Done() <-chan struct{} { return c.done }

// Err tells how the child ended; nil for exit code 0. Only valid after Done.
func (c *Child) Err() error { return c.err }

// Start starts the command and records it. When it returns an error no process is left running.
func Start(c Command) (*Child, error) {
	log, err := os.OpenFile(filepath.Join(c.Dir, c.Log), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open log of %s: %w", c.Name, err)
	}
	defer func() { _ = log.Close() }()
	cmd := exec.Command(c.Path, c.Args...)
	cmd.Dir = c.Dir
	cmd.Env = append(c.Env[:len(c.Env):len(c.Env)], mark(c.Dir, c.Name))
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if c.Input != nil {
		cmd.Stdin = bytes.NewReader(c.Input)
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", c.Name, err)
	}
	child := &Child{done: make(chan struct{})}
	p, _, err := stat(cmd.Process.Pid) // not reaped yet, so the pid is still the child's, even when it has ended
	go func() {
		child.err = cmd.Wait()
		close(child.done)
	}()
	if err == nil {
		child.Process = p
		err = p.record(c.Dir, c.Name)
	}
	if err != nil {
		_ = cmd.Process.Kill()
		<-child.done
		return nil, fmt.Errorf("record %s: %w", c.Name, err)
	}
	return child, nil
}

// Find returns the process that was started as name in dir, if it runs. The zero Process means that none does.
func Find(dir, name string) (Process, error) {
	var p Process
	b, err := os.ReadFile(pidFile(dir, name))
	if err == nil && json.Unmarshal(b, &p) == nil && p.Running() {
		return p, nil
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return Process{}, fmt.Errorf("find %s: %w", name, err)
	}
	// Whoever started it may have been killed before it wrote the pid file.
	return scan(mark(dir, name))
}

func scan(mark string) (Process, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return Process{}, fmt.Errorf("list processes: %w", err)
	}
	want := []byte(mark)
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		env, err := os.ReadFile("/proc/" + e.Name() + "/environ")
		if err != nil {
			continue // not ours, or gone meanwhile
		}
		for v := range bytes.SplitSeq(env, []byte{0}) {
			if bytes.Equal(v, want) {
				// Its children have inherited the mark; it alone leads its session.
				if sid, err := unix.Getsid(pid); err != nil || sid != pid {
					continue
				}
				if p, err := lookup(pid); err == nil && p.Running() {
					return p, nil
				}
			}
		}
	}
	return Process{}, nil
}

// Running tells whether the process has not ended. A zombie has ended, unless some of its threads have not.
func (p Process) Running() bool {
	if p.PID == 0 {
		return false
	}
	q, err := lookup(p.PID)
	return err == nil && q == p
}

// Wait returns nil when the process has ended, else the context's error.
func (p Process) Wait(ctx context.Context) error {
	fd, err := p.open()
	if errors.Is(err, ErrGone) {
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	for {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("wait for process %d: %w", p.PID, err)
		}
		// A pidfd turns readable when the process ends, whoever its parent is. Look at ctx now and then.
		fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, err := unix.Poll(fds, 20)
		if err != nil && err != unix.EINTR {
			return fmt.Errorf("wait for process %d: %w", p.PID, err)
		}
		if n > 0 {
			return nil
		}
	}
}

// Kill ends the process at once and returns when it has ended.
func (p Process) Kill(ctx context.Context) error {
	if err := p.signal(unix.SIGKILL); err != nil {
		return err
	}
	return p.Wait(ctx)
}

// Terminate asks the process to end, kills it when it has not after grace, and returns when it has ended.
func (p Process) Terminate(ctx context.Context, grace time.Duration) error {
	if err := p.signal(unix.SIGTERM); err != nil {
		return err
	}
	wait, cancel := context.WithTimeout(ctx, grace)
	defer cancel()
	if p.Wait(wait) == nil {
		return nil
	}
	return p.Kill(ctx)
}

func (p Process) signal(s unix.Signal) error {
	fd, err := p.open()
	if errors.Is(err, ErrGone) {
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	if err := unix.PidfdSendSignal(fd, s, nil, 0); err != nil && err != unix.ESRCH {
		return fmt.Errorf("signal process %d: %w", p.PID, err)
	}
	return nil
}

// open returns a pidfd of exactly this process.
func (p Process) open() (int, error) {
	if p.PID <= 1 {
		return -1, ErrGone
	}
	fd, err := unix.PidfdOpen(p.PID, 0)
	if err == unix.ESRCH || err == unix.EINVAL {
		return -1, ErrGone
	}
	if err != nil {
		return -1, fmt.Errorf("open process %d: %w", p.PID, err)
	}
	// The pid may have been reused before the open; what holds the fd is what has this start time after it.
	if !p.Running() {
		_ = unix.Close(fd)
		return -1, ErrGone
	}
	return fd, nil
}

func (p Process) record(dir, name string) error {
	b, err := json.Marshal(p)
	if err != nil {
		return err
	}
	tmp := pidFile(dir, name) + ".tmp"
	if err := os.WriteFile(tmp, append(b, '\n'), 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, pidFile(dir, name))
}

// Forget removes the pid file.
func Forget(dir, name string) error {
	if err := os.Remove(pidFile(dir, name)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

func pidFile(dir, name string) string { return filepath.Join(dir, name+".pid") }

func mark(dir, name string) string {
	if abs, err := filepath.Abs(dir); err == nil {
		dir = abs
	}
	return markVariable + "=" + dir + "\x1f" + name
}

// lookup describes the running process with this pid; ErrGone when there is none or it is a zombie.
func lookup(pid int) (Process, error) {
	p, ended, err := stat(pid)
	if err == nil && ended {
		return Process{}, ErrGone
	}
	return p, err
}

// stat reads what the kernel tells of a process. One has ended when all its threads have: until the last one is gone, its files
// are open and its locks held, though the first one may be a zombie already.
func stat(pid int) (p Process, ended bool, err error) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return Process{}, false, ErrGone
	}
	// The name, in parentheses, may hold anything; fields are counted from its end (proc(5): state is field 3, num_threads 20,
	// starttime 22).
	f := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	if len(f) < 20 {
		return Process{}, false, fmt.Errorf("parse state of process %d: %q", pid, b)
	}
	threads, err := strconv.Atoi(f[17])
	if err != nil {
		return Process{}, false, fmt.Errorf("parse threads of process %d: %w", pid, err)
	}
	start, err := strconv.ParseUint(f[19], 10, 64)
	if err != nil {
		return Process{}, false, fmt.Errorf("parse start time of process %d: %w", pid, err)
	}
	boot, err := bootID()
	return Process{PID: pid, Start: start, Boot: boot}, f[0] == "X" || f[0] == "Z" && threads <= 1, err
}

func bootID() (string, error) {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fmt.Errorf("read boot id: %w", err)
	}
	return strings.TrimSpace(string(b)), nil
}

// LogTail returns the end of a log file, at most n bytes, for an error message. Empty when it cannot be read.
func LogTail(path string, n int64) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer func() { _ = f.Close() }()
	st, err := f.Stat()
	if err != nil {
		return ""
	}
	b := make([]byte, min(n, st.Size()))
	k, _ := f.ReadAt(b, st.Size()-int64(len(b)))
	return strings.TrimSpace(string(b[:k]))
}

// StopDeadline bounds how long ending a process may take: SIGKILL is answered at once, except in uninterruptible I/O.
const StopDeadline = 30 * time.Second
