package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"lifeboat": main})
}

type stageKey struct{}

// TestScripts runs testdata/script. Beside testscript's own commands there are: exits CODE COMMAND..., which runs a command that
// must end with a code; until PATTERN COMMAND..., which repeats one until its output has a text; keep NAME, which puts the
// output without its last newline into the environment; and enrol, lose, corrupt for what happens at the machine and its data.
func TestScripts(t *testing.T) {
	t.Parallel()
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		Setup: func(env *testscript.Env) error {
			dir := env.WorkDir + "/server"
			if err := os.Mkdir(dir, 0o700); err != nil {
				return err
			}
			st, end, err := serve(t, dir)
			if err != nil {
				return err
			}
			env.Defer(end)
			env.Values[stageKey{}] = st
			env.Setenv("LIFEBOAT_ENDPOINT", st.web.URL)
			env.Setenv("LIFEBOAT_DATA_DIR", dir)
			env.Setenv("TOKEN", token)
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits": exits,
			"until": until,
			"keep": func(ts *testscript.TestScript, _ bool, args []string) {
				ts.Setenv(args[0], strings.TrimSpace(ts.ReadFile("stdout")))
			},
			"enrol": func(ts *testscript.TestScript, _ bool, args []string) {
				ts.Check(ts.Value(stageKey{}).(*stage).enrol(args[0]))
			},
			"corrupt": func(ts *testscript.TestScript, _ bool, _ []string) {
				st := ts.Value(stageKey{}).(*stage)
				st.mu.Lock()
				defer st.mu.Unlock()
				st.corrupt = true
			},
			"lose": func(ts *testscript.TestScript, _ bool, _ []string) {
				st := ts.Value(stageKey{}).(*stage)
				st.mu.Lock()
				defer st.mu.Unlock()
				delete(st.running, homeUUID)
			},
		},
	})
}

func exits(ts *testscript.TestScript, _ bool, args []string) {
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		e, ok := errors.AsType[*exec.ExitError](err)
		if !ok {
			ts.Fatalf("%v", err)
		}
		got = e.ExitCode()
	}
	if got != want {
		ts.Fatalf("got exit code %d, want %d", got, want)
	}
}

func until(ts *testscript.TestScript, _ bool, args []string) {
	tick := time.NewTicker(50 * time.Millisecond) // a process a round
	defer tick.Stop()
	for end := time.After(2 * time.Minute); ; {
		err := ts.Exec(args[1], args[2:]...)
		if err == nil && strings.Contains(ts.ReadFile("stdout"), args[0]) {
			return
		}
		select {
		case <-tick.C:
		case <-end:
			ts.Fatalf("%s did not come up in the output: %v", args[0], fmt.Sprint(err))
		}
	}
}
