package priority_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/lifeboat-dr/lifeboat/agent/priority"
)

// TestMain doubles as the process that is lowered: its priorities cannot be given back by every user.
func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == "lowered" {
		if err := lowered(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// lowered lowers itself, with threads from before and after, and waits to be looked at.
func lowered() error {
	var up sync.WaitGroup
	held := make(chan struct{})
	thread := func() {
		up.Add(1)
		go func() {
			runtime.LockOSThread()
			up.Done()
			<-held
		}()
	}
	for range 8 {
		thread()
	}
	up.Wait()
	if err := priority.Lower(); err != nil {
		return err
	}
	for range 8 {
		thread()
	}
	up.Wait()
	fmt.Println(debug.SetMemoryLimit(-1))
	_, _ = os.Stdin.Read(make([]byte, 1))
	if err := priority.Normal(); err != nil {
		return err
	}
	fmt.Println("normal")
	_, _ = os.Stdin.Read(make([]byte, 1))
	return nil
}

type want struct{ nice, ioprio, score int }

// look compares what the kernel says of every thread of a process.
func look(t *testing.T, pid int, w want) {
	t.Helper()
	tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		t.Fatal(err)
	}
	if len(tasks) < 16 {
		t.Errorf("got %d threads, want at least the 16 that were made", len(tasks))
	}
	for _, task := range tasks {
		id, err := strconv.Atoi(task.Name())
		if err != nil {
			t.Fatal(err)
		}
		stat, err := os.ReadFile(filepath.Join("/proc", task.Name(), "stat"))
		if err != nil {
			continue // a thread that ended
		}
		fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:])) // proc(5): from the third on
		if nice, err := strconv.Atoi(fields[16]); err != nil || nice != w.nice {
			t.Errorf("thread %d has nice %s, want %d", id, fields[16], w.nice)
		}
		prio, _, errno := unix.Syscall(unix.SYS_IOPRIO_GET, 1, uintptr(id), 0)
		if errno != 0 || int(prio) != w.ioprio {
			t.Errorf("thread %d has I/O priority %#x (%v), want %#x", id, prio, errno, w.ioprio)
		}
	}
	score, err := os.ReadFile(fmt.Sprintf("/proc/%d/oom_score_adj", pid))
	if err != nil || strings.TrimSpace(string(score)) != strconv.Itoa(w.score) {
		t.Errorf("got oom_score_adj %s, %v; want %d", score, err, w.score)
	}
}

func TestEveryThreadIsBehindOthersUntilItIsNot(t *testing.T) {
	t.Parallel()
	cmd := exec.Command("/proc/self/exe", "lowered")
	cmd.Stderr = t.Output()
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	var said string
	if _, err := fmt.Fscanln(out, &said); err != nil || said != strconv.Itoa(priority.HeapLimit) {
		t.Fatalf("got memory limit %s, %v; want %d", said, err, priority.HeapLimit)
	}
	look(t, cmd.Process.Pid, want{nice: 10, ioprio: 2<<13 | 7, score: 500})
	if os.Geteuid() != 0 {
		return // only root may go back
	}
	if _, err := in.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Fscanln(out, &said); err != nil || said != "normal" {
		t.Fatalf("got %s, %v", said, err)
	}
	// Without a priority of its own a thread's reads follow its nice value: best effort, level 4.
	prio, _, _ := unix.Syscall(unix.SYS_IOPRIO_GET, 1, 0, 0)
	look(t, cmd.Process.Pid, want{nice: 0, ioprio: int(prio), score: 0})
}
