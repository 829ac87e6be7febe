package rig

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Process is a program with a name, which can be killed and started again with the same arguments. All its lives write to
// one log. Safe for concurrent use.
type Process struct {
	Name string
	Log  string // path of stdout and stderr

	rig  *Rig
	path string
	args []string
	env  []string

	mu    sync.Mutex // guards the rest
	cmd   *exec.Cmd
	done  chan struct{} // closed when cmd has ended
	ended error
	asked bool // the rig itself asked this life to end
}

// Start adds a process under a new name and starts it.
func (r *Rig) Start(name, path string, args, env []string) (*Process, error) {
	r.mu.Lock()
	for _, p := range r.processes {
		if p.Name == name {
			r.mu.Unlock()
			return nil, fmt.Errorf("a process named %s exists", name)
		}
	}
	p := &Process{Name: name, Log: r.Path("log", name+".log"), rig: r, path: path, args: args, env: env}
	r.processes = append(r.processes, p)
	r.mu.Unlock()
	return p, p.Restart()
}

// Restart starts the process; one that runs is killed first.
func (p *Process) Restart() error {
	if err := p.Kill(); err != nil {
		return err
	}
	log, err := os.OpenFile(p.Log, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }() // the child has its own descriptor
	p.mu.Lock()
	defer p.mu.Unlock()
	cmd := exec.Command(p.path, p.args...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Env = append(os.Environ(), p.env...)
	cmd.Dir = p.rig.Dir
	// A signal to the test's process group (an interrupt from the keyboard) must not reach it: the rig decides what ends when.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", p.Name, err)
	}
	p.rig.logf("started %s (pid %d)", p.Name, cmd.Process.Pid)
	done := make(chan struct{})
	p.cmd, p.done, p.ended, p.asked = cmd, done, nil, false
	go func() {
		err := cmd.Wait()
		p.mu.Lock()
		p.ended = err
		if !p.asked {
			p.rig.logf("%s (pid %d) ended by itself: %v", p.Name, cmd.Process.Pid, err)
		}
		p.mu.Unlock()
		close(done)
	}()
	return nil
}

// Pid returns the process id of the running life, 0 when there is none.
func (p *Process) Pid() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd == nil {
		return 0
	}
	select {
	case <-p.done:
		return 0
	default:
		return p.cmd.Process.Pid
	}
}

// Running tells whether it runs.
func (p *Process) Running() bool { return p.Pid() != 0 }

// Kill ends the process the hard way (SIGKILL) and waits for its end. Nil when it does not run.
func (p *Process) Kill() error {
	_, err := p.signal(syscall.SIGKILL, 10*time.Second)
	return err
}

// Stop asks the process to end (SIGTERM) and kills it when it has not done so in time.
func (p *Process) Stop(timeout time.Duration) error {
	ended, err := p.signal(syscall.SIGTERM, timeout)
	if err != nil || ended {
		return err
	}
	p.rig.logf("%s did not end in %s, killing it", p.Name, timeout)
	return p.Kill()
}

func (p *Process) signal(sig syscall.Signal, timeout time.Duration) (ended bool, err error) {
	p.mu.Lock()
	cmd, done := p.cmd, p.done
	p.asked = true
	p.mu.Unlock()
	if cmd == nil {
		return true, nil
	}
	if err := cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return false, fmt.Errorf("signal %s: %w", p.Name, err)
	}
	select {
	case <-done:
		return true, nil
	case <-time.After(timeout):
		if sig == syscall.SIGKILL {
			return false, fmt.Errorf("%s (pid %d) survived SIGKILL for %s", p.Name, cmd.Process.Pid, timeout)
		}
		return false, nil
	}
}

// Done is closed when the running life ends; nil before the first.
func (p *Process) Done() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.done
}

// Tail returns the last lines of the log.
func (p *Process) Tail(lines int) string { return tail(p.Log, lines) }

func tail(path string, lines int) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	all := strings.Split(strings.TrimRight(string(b), "\n"), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

// Strays returns the ids of running processes, this one left out, that work in the rig's directory or name it in their
// command line. The directory is the rig's own, so the processes are.
func (r *Rig) Strays() []int {
	var pids []int
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		line, err := os.ReadFile(filepath.Join("/proc", e.Name(), "cmdline"))
		if err != nil || len(line) == 0 { // gone, a zombie or the kernel's
			continue
		}
		cwd, _ := os.Readlink(filepath.Join("/proc", e.Name(), "cwd"))
		if bytes.Contains(line, []byte(r.Dir+"/")) || strings.HasPrefix(cwd+"/", r.Dir+"/") {
			pids = append(pids, pid)
		}
	}
	return pids
}

// Logs returns the end of every log below the rig's directory, for a failed test to show.
func (r *Rig) Logs(lines int) string {
	var b strings.Builder
	_ = filepath.WalkDir(r.Dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() && filepath.Ext(path) == ".log" {
			rel, _ := filepath.Rel(r.Dir, path)
			fmt.Fprintf(&b, "==> %s\n%s\n", rel, tail(path, lines))
		}
		return nil
	})
	return b.String()
}
