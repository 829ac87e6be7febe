package process

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func start(t *testing.T, dir, script string) *Child {
	t.Helper()
	c, err := Start(Command{Name: "p", Path: "/bin/sh", Args: []string{"-c", script}, Dir: dir, Env: os.Environ(), Log: "p.log"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = c.Kill(context.Background())
		<-c.Done()
	})
	return c
}

// startSaying starts a script and waits for what it writes to descriptor 3 until it closes that.
func startSaying(t *testing.T, dir, script string) (*Child, string) {
	t.Helper()
	fifo := filepath.Join(t.TempDir(), "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	c := start(t, dir, "exec 3> "+fifo+"; "+script)
	b, err := os.ReadFile(fifo)
	if err != nil {
		t.Fatal(err)
	}
	return c, string(b)
}

func bounded(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func TestLifeOfAProcess(t *testing.T) {
	ctx, dir := bounded(t), t.TempDir()
	c, _ := startSaying(t, dir, "echo said; exec 3>&-; sleep 2 & exec sleep 60")
	if sid, err := unix.Getsid(c.PID); err != nil || sid != c.PID {
		t.Errorf("session %d of process %d: %v", sid, c.PID, err)
	}
	if p, err := Find(dir, "p"); err != nil || p != c.Process {
		t.Errorf("found %+v, %v; want %+v", p, err, c.Process)
	}
	if p, err := Find(dir, "other"); err != nil || p != (Process{}) {
		t.Errorf("found %+v, %v under another name", p, err)
	}
	// Without its pid file, and with one that lies.
	for _, pid := range []string{"", "{", `{"pid":1,"start":1,"boot":""}`} {
		if err := os.WriteFile(filepath.Join(dir, "p.pid"), []byte(pid), 0o600); err != nil {
			t.Fatal(err)
		}
		if p, err := Find(dir, "p"); err != nil || p != c.Process {
			t.Errorf("pid file %q: found %+v, %v", pid, p, err)
		}
	}
	if !c.Running() {
		t.Error("not running")
	}
	short, cancel := context.WithTimeout(ctx, 30*time.Millisecond)
	defer cancel()
	if err := c.Wait(short); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("wait for a running process: %v", err)
	}
	if err := c.Kill(ctx); err != nil {
		t.Fatal(err)
	}
	<-c.Done()
	if c.Running() || c.Err() == nil {
		t.Errorf("after kill: running %v, ended with %v", c.Running(), c.Err())
	}
	if err := errors.Join(c.Kill(ctx), c.Wait(ctx), c.Terminate(ctx, time.Second), (Process{}).Kill(ctx)); err != nil {
		t.Errorf("ending what has ended: %v", err)
	}
	if p, err := Find(dir, "p"); err != nil || p != (Process{}) {
		t.Errorf("found %+v, %v after its end", p, err)
	}
	if got := LogTail(filepath.Join(dir, "p.log"), 100); got != "said" {
		t.Errorf("log %q", got)
	}
}

func TestTerminate(t *testing.T) {
	ctx := bounded(t)
	end := func(trap string, patience time.Duration) *Child {
		c, says := startSaying(t, t.TempDir(), "trap '"+trap+"' TERM; echo ready >&3; exec 3>&-; while :; do sleep 0.01; done")
		if says != "ready\n" {
			t.Fatalf("got %q, want ready", says)
		}
		if err := c.Terminate(ctx, patience); err != nil {
			t.Fatal(err)
		}
		<-c.Done()
		return c
	}
	polite, stubborn := end("exit 0", time.Minute), end("", 100*time.Millisecond)
	if polite.Err() != nil {
		t.Errorf("the polite one ended with %v", polite.Err())
	}
	if stubborn.Err() == nil || !strings.Contains(stubborn.Err().Error(), "killed") {
		t.Errorf("the stubborn one ended with %v", stubborn.Err())
	}
}

func TestAPidThatWasReusedIsNobodys(t *testing.T) {
	ctx := bounded(t)
	c := start(t, t.TempDir(), "exec sleep 60")
	old := c.Process
	old.Start--
	rebooted := c.Process
	rebooted.Boot = "another"
	for _, p := range []Process{old, rebooted} {
		if p.Running() {
			t.Errorf("%+v is taken for %+v", c.Process, p)
		}
		if err := p.Kill(ctx); err != nil {
			t.Error(err)
		}
	}
	if !c.Running() {
		t.Error("another process was killed")
	}
}

func TestStartOfAProgramThatIsNotThere(t *testing.T) {
	dir := t.TempDir()
	if _, err := Start(Command{Name: "p", Path: "/no/such/program", Dir: dir, Log: "p.log"}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v", err)
	}
	if _, err := Start(Command{Name: "p", Path: "/bin/true", Dir: filepath.Join(dir, "none"), Log: "p.log"}); err == nil {
		t.Error("started in a directory that is not there")
	}
}

func TestInputGoesThroughThePipeOnly(t *testing.T) {
	ctx, dir := bounded(t), t.TempDir()
	c, err := Start(Command{Name: "p", Path: "/bin/sh", Args: []string{"-c", "cat"}, Dir: dir, Log: "p.log", Input: []byte("through the pipe")})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Wait(ctx); err != nil {
		t.Fatal(err)
	}
	<-c.Done()
	if got := LogTail(filepath.Join(dir, "p.log"), 100); got != "through the pipe" {
		t.Errorf("the process read %q", got)
	}
}

// TestMain makes this test binary the process of TestProcessWhoseFirstThreadHasEndedRuns when it is asked to.
func TestMain(m *testing.M) {
	if os.Getenv(firstThreadEnds) == "" {
		os.Exit(m.Run())
	}
	// TestMain runs on the first thread while nothing has moved it from there.
	runtime.LockOSThread()
	if unix.Gettid() != unix.Getpid() {
		panic("not on the first thread")
	}
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	_, _, _ = unix.RawSyscall(unix.SYS_EXIT, 0, 0, 0) // ends this thread alone
}

const firstThreadEnds = "LIFEBOAT_TEST_FIRST_THREAD_ENDS"

func TestProcessWhoseFirstThreadHasEndedRuns(t *testing.T) {
	ctx, dir := bounded(t), t.TempDir()
	in, release, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(ctx, "/proc/self/exe")
	cmd.Env = append(os.Environ(), firstThreadEnds+"=1", mark(dir, "p"))
	cmd.Stdin = in
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p, _, err := stat(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	for {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/stat", p.PID, p.PID))
		if err != nil || ctx.Err() != nil {
			t.Fatalf("the first thread has not ended: %v, %v", err, ctx.Err())
		}
		if strings.Contains(string(b), ") Z ") {
			break
		}
	}
	if !p.Running() {
		t.Error("a process whose other threads live has ended")
	}
	if err := errors.Join(in.Close(), release.Close(), p.Wait(ctx), cmd.Wait()); err != nil {
		t.Fatal(err)
	}
	if p.Running() {
		t.Error("runs after its end")
	}
}
