package worker

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/lifeboat-dr/lifeboat/service/job"
)

// Scripts lets a replicator run scripts of recovery plans: it is a runner then.
type Scripts struct {
	Runner string // its name, by which plans ask for it
	Dir    string // only what is below it is run
}

// scriptRun runs a file of the directory of scripts until its deadline. It gets nothing of this process's environment but what a
// program needs to run, and dies with this process, so that a task that is taken over does not run twice at the same time.
func (t *Tasks) scriptRun(ctx context.Context, task *Task) (any, error) {
	var p job.ScriptRun
	if err := task.Decode(&p); err != nil {
		return nil, err
	}
	path, err := t.Scripts.find(p.Script)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, p.Timeout, fmt.Errorf("it ran longer than %s", p.Timeout))
	defer cancel()
	out := &lastBytes{limit: job.MaxActionOutput}
	cmd := exec.CommandContext(ctx, path)
	cmd.Dir = t.Scripts.Dir
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "LANG=C.UTF-8", "LIFEBOAT_TASK_ID=" + task.TaskID, "LIFEBOAT_JOB_ID=" + task.JobID}, contextVariables(p.Context)...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(p.Context), out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second
	// The kernel watches the thread that started the process, not the whole of its parent.
	runtime.LockOSThread()
	err = cmd.Run()
	runtime.UnlockOSThread()
	if err == nil {
		return job.ScriptRan{Output: out.text(), Truncated: out.cut, Runner: t.Scripts.Runner}, nil
	}
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return nil, &Fault{Code: codeConflict, Message: fmt.Sprintf("Script %s at runner %s failed (%v): %s", p.Script, t.Scripts.Runner, err, out.text()),
		PossibleCauses: "The script itself failed; its output is above.", RecommendedAction: "Mend what it complains about, then restart the job.", Err: err}
}

// find returns the path of a script. Links that lead out of the directory are not followed.
func (s *Scripts) find(script string) (string, error) {
	root, err := os.OpenRoot(s.Dir)
	if err != nil {
		return "", &Fault{Code: codeConflict, Message: fmt.Sprintf("The directory of scripts of runner %s cannot be read.", s.Runner), Err: err}
	}
	defer func() { _ = root.Close() }() // nothing was written
	info, err := root.Stat(filepath.FromSlash(script))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "", &Fault{Code: codeNotFound, Message: fmt.Sprintf("Runner %s has no script %s.", s.Runner, script), PossibleCauses: "It was not put into the runner's directory, or the path is misspelled.",
			RecommendedAction: "Put it there, then restart the job.", Err: err}
	case err != nil:
		return "", &Fault{Code: codeInvalid, Message: fmt.Sprintf("Script %s is not below the directory of runner %s.", script, s.Runner), PossibleCauses: "The path leaves the directory.", RecommendedAction: "Name a file below it.", Err: err}
	case !info.Mode().IsRegular() || info.Mode()&0o111 == 0:
		return "", &Fault{Code: codeConflict, Message: fmt.Sprintf("Script %s of runner %s cannot be run.", script, s.Runner), PossibleCauses: "It is a directory, or may not be executed.", RecommendedAction: "Make it executable, then restart the job."}
	}
	return filepath.Join(s.Dir, filepath.FromSlash(script)), nil
}

// contextVariables are the parts of the context that a shell script wants without reading JSON.
func contextVariables(raw json.RawMessage) []string {
	var c struct{ RecoveryPlanName, FailoverType, FailoverDirection, GroupId string }
	if json.Unmarshal(raw, &c) != nil {
		return nil // the script has it as it is on its standard input
	}
	out := []string{}
	for name, v := range map[string]string{"PLAN": c.RecoveryPlanName, "FAILOVER_TYPE": c.FailoverType, "FAILOVER_DIRECTION": c.FailoverDirection, "GROUP": c.GroupId} {
		if !strings.ContainsRune(v, 0) {
			out = append(out, "LIFEBOAT_"+name+"="+v)
		}
	}
	return out
}

// lastBytes keeps the end of what is written.
type lastBytes struct {
	limit int
	b     []byte
	cut   bool
}

func (t *lastBytes) Write(p []byte) (int, error) {
	t.b = append(t.b, p...)
	if n := len(t.b) - t.limit; n > 0 {
		t.b, t.cut = append(t.b[:0], t.b[n:]...), true
	}
	return len(p), nil
}

func (t *lastBytes) text() string { return strings.ToValidUTF8(string(bytes.TrimSpace(t.b)), "�") }
