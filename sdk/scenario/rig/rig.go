// Package rig runs real Lifeboat processes for tests and the demo: lifeboatd in its embedded shape, or lifeboatd with a real
// Redis and separate replicators; agents on this host; and a source machine under QEMU in a datastore folder. It owns a
// directory, the ports and every process started in it: all can be killed and started again by name, everything it waits for
// is a fact it can see, and nothing runs when Close has returned. It reaches Lifeboat only as a user does, through binaries,
// files and the API.
package rig

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// Options of a rig. Dir and Bin are required.
type Options struct {
	// Dir is the rig's own directory; it must be new or empty. Keep it short: sockets live in it.
	Dir string
	// Bin holds the Lifeboat binaries.
	Bin string
	// Logf tells what the rig does. Default: nothing.
	Logf func(format string, args ...any)
}

// Rig owns processes and the directory they live in. Safe for concurrent use.
type Rig struct {
	Dir string
	bin string

	logf func(format string, args ...any)

	redis string // address, once started

	mu        sync.Mutex // guards processes
	processes []*Process
}

// New lays the rig's directory out. It starts nothing.
func New(opt Options) (*Rig, error) {
	dir, err := filepath.Abs(opt.Dir)
	if err != nil {
		return nil, err
	}
	for _, d := range []string{dir, filepath.Join(dir, "log")} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return nil, err
		}
	}
	bin, err := filepath.Abs(opt.Bin)
	if err != nil {
		return nil, err
	}
	logf := opt.Logf
	if logf == nil {
		logf = func(string, ...any) {}
	}
	return &Rig{Dir: dir, bin: bin, logf: logf}, nil
}

// Path returns a path below the rig's directory.
func (r *Rig) Path(elem ...string) string {
	return filepath.Join(append([]string{r.Dir}, elem...)...)
}

// Bin returns the path of a Lifeboat binary.
func (r *Rig) Bin(name string) (string, error) {
	path := filepath.Join(r.bin, name)
	if _, err := os.Stat(path); err != nil {
		return "", fmt.Errorf("%s is not built: run make build: %w", name, err)
	}
	return path, nil
}

// Process returns the process of that name, nil when there is none.
func (r *Rig) Process(name string) *Process {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, p := range r.processes {
		if p.Name == name {
			return p
		}
	}
	return nil
}

// Processes returns all processes in the order of their making, ended ones too.
func (r *Rig) Processes() []*Process {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]*Process(nil), r.processes...)
}

// Close stops all processes, the newest first: politely, then by force. Then it ends what Lifeboat left behind on purpose
// (recovered machines and their disk servers), which it finds by the rig's directory in their command lines. It returns an
// error when something would not end. The directory stays.
func (r *Rig) Close() error {
	var errs []error
	processes := r.Processes()
	for i := len(processes) - 1; i >= 0; i-- {
		if err := processes[i].Stop(10 * time.Second); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(append(errs, r.killStrays())...)
}

// killStrays ends every process that names the rig's directory in its command line, and waits until they are gone.
func (r *Rig) killStrays() error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	var left []int
	err := Until(ctx, "strays of "+r.Dir+" are gone", func() (bool, error) {
		left = r.Strays()
		for _, pid := range left {
			if p, err := os.FindProcess(pid); err == nil {
				_ = p.Kill()
			}
		}
		return len(left) == 0, nil
	})
	if err != nil {
		return fmt.Errorf("processes %v would not end: %w", left, err)
	}
	return nil
}

// FreePort returns a TCP port of 127.0.0.1 that nothing listens on. Ports of processes that run are never returned; one
// that was just handed out may be, with a small chance, so a process should be started soon after.
func FreePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	port := l.Addr().(*net.TCPAddr).Port
	return port, l.Close()
}

// Until calls ready until it returns true, an error, or ctx ends; the error then says what was waited for. That lifeboatd does
// not answer is no error: somebody may be starting it again.
// It is the one place where the rig looks at facts that nobody announces.
func Until(ctx context.Context, what string, ready func() (bool, error)) error {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		ok, err := ready()
		if away(err) {
			ok, err = false, nil
		}
		if err != nil {
			return fmt.Errorf("wait until %s: %w", what, err)
		}
		if ok {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait until %s: %w", what, context.Cause(ctx))
		case <-tick.C:
		}
	}
}
