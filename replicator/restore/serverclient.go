package restore

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/lifeboat-dr/lifeboat/replicator/restore/process"
)

// ServerStatus is what a disk server has done so far.
type ServerStatus struct {
	Requests    int64    `json:"requests"` // to the bucket
	Bytes       int64    `json:"bytes"`    // from the bucket
	FailedReads int64    `json:"failedReads"`
	Corrupt     string   `json:"corrupt,omitempty"` // the first read that failed its verification; empty is none
	Errors      []string `json:"errors,omitempty"`  // the first failed reads, oldest first, each with its disk and extent
}

// Dial connects to a unix socket in dir, whatever the length of dir.
func Dial(ctx context.Context, dir, name string) (net.Conn, error) {
	path, f, err := socketPath(dir, name)
	if err != nil {
		return nil, err
	}
	if f != nil {
		defer func() { _ = f.Close() }()
	}
	var d net.Dialer
	return d.DialContext(ctx, "unix", path)
}

// StartServer makes sure that a disk server serves dir: it finds the one that runs, or starts command (a program and its
// arguments, which must end up in ServeDisks) in a session of its own and waits until the disks can be attached. Its log is
// in dir. The caller makes sure that only one StartServer runs for dir at a time.
func StartServer(ctx context.Context, dir string, command []string, cfg ServerConfig) error {
	if _, err := Status(ctx, dir); err == nil {
		return nil
	}
	// One that runs and does not answer is on its way up or down, or stuck: it has no state worth waiting for.
	if err := StopServer(ctx, dir); err != nil {
		return err
	}
	input, err := json.Marshal(cfg)
	if err != nil {
		return fmt.Errorf("encode disk server configuration: %w", err)
	}
	_ = os.Remove(filepath.Join(dir, serverVerdict)) // of an earlier one
	child, err := process.Start(process.Command{
		Name: serverName, Path: command[0], Args: command[1:], Dir: dir, Env: os.Environ(), Log: serverLog, Input: input,
	})
	if err != nil {
		return err
	}
	for {
		if _, err = Status(ctx, dir); err == nil {
			return nil
		}
		select {
		case <-child.Done():
			return fmt.Errorf("disk server ended: %w", errors.Join(child.Err(), readVerdict(dir)))
		case <-ctx.Done():
			return errors.Join(fmt.Errorf("wait for disk server: %w", context.Cause(ctx)), StopServer(context.WithoutCancel(ctx), dir))
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// readVerdict returns the error with which the disk server of dir ended.
func readVerdict(dir string) error {
	var v verdict
	b, err := os.ReadFile(filepath.Join(dir, serverVerdict))
	if err != nil || json.Unmarshal(b, &v) != nil {
		return errors.New(process.LogTail(filepath.Join(dir, serverLog), 2048)) // it was killed
	}
	if v.Corrupt {
		return fmt.Errorf("%w: %s", ErrCorrupt, v.Error)
	}
	return errors.New(v.Error)
}

// Status asks the disk server of dir what it has done. An error means that none answers.
func Status(ctx context.Context, dir string) (ServerStatus, error) {
	var st ServerStatus
	err := ask(ctx, dir, "status", &st)
	return st, err
}

// StopServer ends the disk server of dir and returns when it has ended; nil when there is none.
func StopServer(ctx context.Context, dir string) error {
	p, err := process.Find(dir, serverName)
	if err != nil {
		return fmt.Errorf("stop disk server: %w", err)
	}
	if p != (process.Process{}) {
		ctx, cancel := context.WithTimeout(ctx, process.StopDeadline)
		defer cancel()
		var none struct{}
		if err := ask(ctx, dir, "quit", &none); err == nil {
			grace, cancel := context.WithTimeout(ctx, 5*time.Second)
			defer cancel()
			if p.Wait(grace) == nil {
				return process.Forget(dir, serverName)
			}
		}
		if err := p.Kill(ctx); err != nil {
			return fmt.Errorf("stop disk server: %w", err)
		}
	}
	return process.Forget(dir, serverName)
}

func ask(ctx context.Context, dir, command string, answer any) error {
	conn, err := Dial(ctx, dir, controlSocket)
	if err != nil {
		return fmt.Errorf("connect to disk server: %w", err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(5 * time.Second))
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	if _, err := fmt.Fprintf(conn, "{\"command\":%q}\n", command); err != nil {
		return fmt.Errorf("ask disk server: %w", err)
	}
	line, err := bufio.NewReader(conn).ReadBytes('\n')
	if err != nil {
		return fmt.Errorf("ask disk server: %w", err)
	}
	if err := json.Unmarshal(line, answer); err != nil {
		return fmt.Errorf("ask disk server: %w", err)
	}
	return nil
}
