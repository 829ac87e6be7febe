package quiesce

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"time"
)

const (
	defaultScriptTimeout = 30 * time.Second
	outputKept           = 4 << 10
	outputDelay          = time.Second // for output held open by what a script left behind
)

// Scripts quiesce applications around a capture. An empty path runs nothing. Every pre script that was started is followed by the
// post script exactly once, whatever became of the pre script: post must tolerate a pre that failed, was killed half-way or did
// nothing.
type Scripts struct {
	Pre, Post string
	Timeout   time.Duration // for each; 0 means 30 s. A script that takes longer is killed with its process group
}

// Any tells whether a script would run before a capture.
func (s Scripts) Any() bool { return s.Pre != "" }

func (s Scripts) timeout() time.Duration {
	if s.Timeout <= 0 {
		return defaultScriptTimeout
	}
	return s.Timeout
}

// ScriptError is a script that failed or took too long.
type ScriptError struct {
	Path   string
	Output string // the end of what it printed
	Err    error
}

func (e *ScriptError) Error() string {
	s := fmt.Sprintf("script %s: %v", e.Path, e.Err)
	if e.Output != "" {
		s += ": " + e.Output
	}
	return s
}

func (e *ScriptError) Unwrap() error { return e.Err }

func (s Scripts) pre(ctx context.Context, consistency string) (output string, err error) {
	return s.run(ctx, s.Pre, "pre", consistency)
}

func (s Scripts) post(consistency string) (output string, err error) {
	return s.run(context.Background(), s.Post, "post", consistency)
}

// run returns the end of what the script printed. A context that ends kills it with its process group.
func (s Scripts) run(ctx context.Context, path, phase, consistency string) (string, error) {
	if path == "" {
		return "", nil
	}
	ctx, cancel := context.WithTimeoutCause(ctx, s.timeout(), fmt.Errorf("it ran longer than %s", s.timeout()))
	defer cancel()
	out := &tail{limit: outputKept}
	cmd := exec.CommandContext(ctx, path)
	cmd.Env = append(os.Environ(), "LIFEBOAT_PHASE="+phase, "LIFEBOAT_CONSISTENCY="+consistency)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = outputDelay
	err := cmd.Run()
	output := string(bytes.TrimSpace(out.b))
	if err != nil {
		if ctx.Err() != nil {
			err = errors.Join(context.Cause(ctx))
		}
		err = &ScriptError{Path: path, Output: output, Err: err}
	}
	return output, err
}

// tail keeps the end of what is written.
type tail struct {
	limit int
	b     []byte
}

func (t *tail) Write(p []byte) (int, error) {
	t.b = append(t.b, p...)
	if n := len(t.b) - t.limit; n > 0 {
		t.b = append(t.b[:0], t.b[n:]...)
	}
	return len(p), nil
}
