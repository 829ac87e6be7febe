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

// Scripts quiesce applications around a capture. An empty path runs nothing.
type Scripts struct {
	Pre, Post string
	Timeout   time.Duration // for each; 0 means 30 s
}

// Any tells whether a script would run before a capture.
func (s Scripts) Any() bool { return s.Pre != "" }

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

// RunPre runs the pre script. When it fails, RunPost is still owed: part of it may have been done.
func (s Scripts) RunPre(ctx context.Context, consistency string) error {
	return s.run(ctx, s.Pre, "pre", consistency)
}

// RunPost runs the post script, also when ctx was cancelled: applications must not stay quiesced.
func (s Scripts) RunPost(ctx context.Context, consistency string) error {
	return s.run(context.WithoutCancel(ctx), s.Post, "post", consistency)
}

func (s Scripts) run(ctx context.Context, path, phase, consistency string) error {
	if path == "" {
		return nil
	}
	limit := s.Timeout
	if limit <= 0 {
		limit = 30 * time.Second
	}
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("it ran longer than %s", limit))
	defer cancel()
	out := &tail{limit: 4 << 10}
	cmd := exec.CommandContext(ctx, path)
	cmd.Env = append(os.Environ(), "LIFEBOAT_PHASE="+phase, "LIFEBOAT_CONSISTENCY="+consistency)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			err = errors.Join(context.Cause(ctx))
		}
		return &ScriptError{Path: path, Output: string(bytes.TrimSpace(out.b)), Err: err}
	}
	return nil
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
