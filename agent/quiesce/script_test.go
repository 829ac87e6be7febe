package quiesce_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/lifeboat-dr/lifeboat/agent/quiesce"
	"github.com/lifeboat-dr/lifeboat/agent/source"
)

// setup is what an agent of a test does: quiesce, freeze, and let go when told.
type setup struct {
	Scripts quiesce.Scripts
	Limit   time.Duration
	Freeze  []source.Filesystem
}

// runAgent says on standard output what it has done, and lets go with a line on standard input.
func runAgent(text string) error {
	var s setup
	if err := json.Unmarshal([]byte(text), &s); err != nil {
		return err
	}
	g := quiesce.NewGuard(slog.New(slog.NewTextHandler(os.Stderr, nil)), "/proc/self/exe", "deadman")
	defer g.Close()
	fmt.Println("pre", g.RunPre(context.Background(), s.Scripts, "ApplicationConsistent", s.Limit))
	w, err := g.Prepare(context.Background(), s.Freeze)
	if err != nil {
		return err
	}
	if err := w.Freeze(time.Minute); err != nil {
		return err
	}
	fmt.Println("frozen")
	if _, err := fmt.Scanln(); err != nil {
		return err
	}
	_, err = w.Thaw()
	w.Close()
	fmt.Println("thaw", err)
	fmt.Println("post", g.RunPost())
	return nil
}

// agent is a process of its own, with a dead-man of its own.
type agent struct {
	t        *testing.T
	cmd      *exec.Cmd
	in       io.Writer
	out, err *bufio.Reader
}

func startAgent(t *testing.T, s setup) *agent {
	t.Helper()
	text, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, exe, "agent", string(text))
	in, ierr := cmd.StdinPipe()
	out, oerr := cmd.StdoutPipe()
	diag, derr := cmd.StderrPipe()
	if err := errors.Join(ierr, oerr, derr, cmd.Start()); err != nil {
		t.Fatal(err)
	}
	return &agent{t: t, cmd: cmd, in: in, out: bufio.NewReader(out), err: bufio.NewReader(diag)}
}

// line reads lines until one has the words.
func (a *agent) line(r *bufio.Reader, words string) string {
	a.t.Helper()
	for {
		s, err := r.ReadString('\n')
		if strings.Contains(s, words) {
			return s
		}
		if err != nil {
			a.t.Fatalf("no line with %q before %v", words, err)
		}
	}
}

func (a *agent) says(words string) string { a.t.Helper(); return a.line(a.out, words) }
func (a *agent) logs(words string) string { a.t.Helper(); return a.line(a.err, words) }

func (a *agent) letGo() {
	a.t.Helper()
	if _, err := fmt.Fprintln(a.in); err != nil {
		a.t.Fatal(err)
	}
}

func (a *agent) kill() {
	a.t.Helper()
	if err := a.cmd.Process.Kill(); err != nil {
		a.t.Fatal(err)
	}
}

// gone waits until the agent and its dead-man are, and returns what they logged. The dead-man holds the agent's standard error.
func (a *agent) gone() string {
	a.t.Helper()
	b, err := io.ReadAll(a.err)
	if err != nil {
		a.t.Fatal(err)
	}
	_ = a.cmd.Wait()
	return string(b)
}

// writeScript writes a script that can be run at once: no child forked meanwhile holds it open for writing.
func writeScript(t *testing.T, dir, name, text string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+text+"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	return path
}

// recorder is a pair of scripts that record their runs.
func recorder(t *testing.T) (s quiesce.Scripts, ran func() string) {
	t.Helper()
	dir := t.TempDir()
	out := filepath.Join(dir, "out")
	s.Pre = writeScript(t, dir, "pre", `echo "$LIFEBOAT_PHASE $LIFEBOAT_CONSISTENCY" >> `+out)
	s.Post = writeScript(t, dir, "post", "echo all goes on; echo $LIFEBOAT_PHASE >> "+out)
	return s, func() string {
		t.Helper()
		b, err := os.ReadFile(out)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
		return strings.ReplaceAll(string(b), "\n", ";")
	}
}

const bothOnce = "pre ApplicationConsistent;post;"

// hanging makes the pre script hang. The returned function waits until it runs, and a second call until it and its child are gone.
func hanging(t *testing.T, s *quiesce.Scripts) func() {
	t.Helper()
	dir := t.TempDir()
	fifo := filepath.Join(dir, "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	s.Pre = writeScript(t, dir, "hang", "exec 9> "+fifo+"; echo runs >&9; sleep 1000 & wait")
	var r *os.File
	return func() {
		t.Helper()
		var err error
		if r == nil {
			if r, err = os.Open(fifo); err == nil {
				_, err = io.ReadFull(r, make([]byte, len("runs\n")))
			}
		} else {
			_, err = io.Copy(io.Discard, r)
			err = errors.Join(err, r.Close())
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

func TestPostScriptRunsOnce(t *testing.T) {
	t.Parallel()
	t.Run("when the agent lets go", func(t *testing.T) {
		t.Parallel()
		s, ran := recorder(t)
		a := startAgent(t, setup{Scripts: s, Limit: time.Minute})
		a.says("pre <nil>")
		if got := ran(); got != "pre ApplicationConsistent;" {
			t.Errorf("%q ran before the agent let go", got)
		}
		a.letGo()
		a.says("post <nil>")
		if log := a.gone(); ran() != bothOnce || strings.Contains(log, "dead-man") {
			t.Errorf("got %q and log %s", ran(), log)
		}
	})
	t.Run("when the agent was killed after the pre script", func(t *testing.T) {
		t.Parallel()
		s, ran := recorder(t)
		a := startAgent(t, setup{Scripts: s, Limit: time.Minute})
		a.says("pre <nil>")
		a.kill()
		if log := a.gone(); ran() != bothOnce || !strings.Contains(log, "the agent is gone") || !strings.Contains(log, "all goes on") {
			t.Errorf("got %q and log %s", ran(), log)
		}
	})
	t.Run("when the agent was killed while a filesystem stood", func(t *testing.T) {
		t.Parallel()
		fs := volume(t, "", ext4...)
		s, ran := recorder(t)
		s.Post = writeScript(t, t.TempDir(), "post", "echo x > "+fs.Path+"/x && exec "+s.Post) // can write: it was thawed before
		a := startAgent(t, setup{Scripts: s, Limit: time.Minute, Freeze: []source.Filesystem{fs}})
		a.says("frozen")
		done := write(fs)
		stands(t, done)
		a.kill()
		goesOn(t, done)
		if log := a.gone(); ran() != bothOnce {
			t.Errorf("got %q and log %s", ran(), log)
		}
	})
	t.Run("when the deadline passed", func(t *testing.T) {
		t.Parallel()
		fs := volume(t, "", ext4...)
		for limit := 500 * time.Millisecond; ; limit *= 2 {
			s, ran := recorder(t)
			a := startAgent(t, setup{Scripts: s, Limit: limit, Freeze: []source.Filesystem{fs}})
			if l := a.logs("post script was run by the dead-man"); !strings.Contains(l, "the deadline passed") || !strings.Contains(l, "all goes on") {
				t.Errorf("got log %s", l)
			}
			a.says("frozen")
			done := write(fs)
			a.letGo()
			thaw := a.says("thaw")
			goesOn(t, done)
			a.says("post " + quiesce.ErrExpired.Error())
			if log := a.gone(); ran() != bothOnce {
				t.Errorf("got %q and log %s", ran(), log)
			}
			if strings.Contains(thaw, quiesce.ErrExpired.Error()) {
				break
			}
			if limit > 30*time.Second { // else this machine is busy: the deadline came before the freeze, which then was a good one
				t.Fatalf("got %s", thaw)
			}
		}
	})
	t.Run("when the agent was killed after the deadline", func(t *testing.T) {
		t.Parallel()
		s, ran := recorder(t)
		a := startAgent(t, setup{Scripts: s, Limit: 10 * time.Millisecond})
		a.logs("post script was run by the dead-man")
		a.kill()
		if log := a.gone(); ran() != bothOnce {
			t.Errorf("got %q and log %s", ran(), log)
		}
	})
	t.Run("when the pre script hangs", func(t *testing.T) {
		t.Parallel()
		s, ran := recorder(t)
		s.Timeout = 300 * time.Millisecond
		at := hanging(t, &s)
		a := startAgent(t, setup{Scripts: s, Limit: time.Minute})
		at() // runs
		at() // is gone, with what it started
		a.says("longer than 300ms")
		a.letGo()
		a.says("post <nil>")
		if log := a.gone(); ran() != "post;" {
			t.Errorf("got %q and log %s", ran(), log)
		}
	})
	t.Run("when the agent was killed while the pre script ran", func(t *testing.T) {
		t.Parallel()
		s, ran := recorder(t)
		at := hanging(t, &s)
		a := startAgent(t, setup{Scripts: s, Limit: time.Minute})
		at()
		a.kill()
		at()
		if log := a.gone(); ran() != "post;" {
			t.Errorf("got %q and log %s", ran(), log)
		}
	})
	t.Run("when the capture was cancelled while the pre script ran", func(t *testing.T) {
		t.Parallel()
		s, ran := recorder(t)
		at := hanging(t, &s)
		ctx, cancel := context.WithCancel(context.Background())
		g := guard(t)
		done := make(chan error, 1)
		go func() { done <- g.RunPre(ctx, s, "ApplicationConsistent", time.Minute) }()
		at()
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("got %v, want the context's error", err)
		}
		if err := g.RunPost(); err != nil {
			t.Error(err)
		}
		at()
		if got := ran(); got != "post;" {
			t.Errorf("got %q", got)
		}
	})
	t.Run("when the dead-man was killed", func(t *testing.T) {
		t.Parallel()
		s, ran := recorder(t)
		g := guard(t)
		if err := g.RunPre(context.Background(), s, "ApplicationConsistent", time.Minute); err != nil {
			t.Fatal(err)
		}
		if err := syscall.Kill(g.PID(), syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		if err := g.RunPost(); !errors.Is(err, quiesce.ErrLost) || !errors.Is(err, quiesce.ErrExpired) {
			t.Errorf("got %v, want ErrLost and ErrExpired", err)
		}
		if got := ran(); got != bothOnce {
			t.Errorf("got %q", got)
		}
		if err := errors.Join(g.RunPre(context.Background(), s, "ApplicationConsistent", time.Minute), g.RunPost(), g.RunPost()); err != nil {
			t.Errorf("with another dead-man: %v", err)
		}
		if got := ran(); got != bothOnce+bothOnce {
			t.Errorf("got %q", got)
		}
	})
}

func TestScriptsThatFailSayWhy(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	s, ran := recorder(t)
	g := guard(t)
	good := s.Pre
	s.Pre = writeScript(t, t.TempDir(), "bad", "echo no database >&2; exit 3")
	err := g.RunPre(ctx, s, "", time.Minute)
	if e, ok := errors.AsType[*quiesce.ScriptError](err); !ok || e.Path != s.Pre || !strings.Contains(err.Error(), "no database") || !strings.Contains(err.Error(), "exit status 3") {
		t.Errorf("got %v, want what it printed and its status", err)
	}
	if err := g.RunPost(); err != nil {
		t.Error(err)
	}
	if got := ran(); got != "post;" {
		t.Errorf("got %q, want the post script also after a pre script that failed", got)
	}
	s.Pre, s.Post = good, writeScript(t, t.TempDir(), "bad", "echo lost >&2; exit 4")
	if err := g.RunPre(ctx, s, "", time.Minute); err != nil {
		t.Error(err)
	}
	if err := g.RunPost(); err == nil || !strings.Contains(err.Error(), "lost") || !strings.Contains(err.Error(), "exit status 4") {
		t.Errorf("got %v, want what the post script printed and its status", err)
	}
	s.Post = "/nowhere/post"
	if err := errors.Join(g.RunPre(ctx, s, "", time.Minute), g.RunPost()); err == nil || !strings.Contains(err.Error(), "/nowhere/post") {
		t.Errorf("got %v, want the post script missed before anything is quiesced", err)
	}
	if got := ran(); got != "post;pre ;" {
		t.Errorf("got %q: the pre script ran though there is no post script", got)
	}
}

func TestScriptsOfTwoAgentsAreKeptApart(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	s, ran := recorder(t)
	old, young := guard(t), guard(t)
	if err := old.RunPre(ctx, s, "", time.Minute); err != nil {
		t.Fatal(err)
	}
	if err := young.RunPre(ctx, s, "", time.Minute); err == nil || !strings.Contains(err.Error(), "lock") {
		t.Errorf("got %v for an application that is quiesced", err)
	}
	if err := errors.Join(young.RunPost(), old.RunPost()); err != nil {
		t.Error(err)
	}
	if err := errors.Join(young.RunPre(ctx, s, "", time.Minute), young.RunPost()); err != nil {
		t.Error(err)
	}
	if got, want := ran(), "pre ;post;pre ;post;"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
