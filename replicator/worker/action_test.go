package worker_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/lifeboat-dr/lifeboat/replicator/worker"
	"github.com/lifeboat-dr/lifeboat/service/job"
	"github.com/lifeboat-dr/lifeboat/service/queue"
)

// do calls the handler of a kind with a payload.
func do[T any](ctx context.Context, t *testing.T, tasks *worker.Tasks, kind string, payload any) (out T, err error) {
	t.Helper()
	raw, err := json.Marshal(payload)
	if err != nil {
		t.Fatal(err)
	}
	got, err := tasks.Handlers()[kind](ctx, &worker.Task{Message: queue.Message{TaskID: "job.Stage1Task", JobID: "job", Kind: kind, Payload: raw}})
	if v, ok := got.(T); ok {
		out = v
	}
	return out, err
}

func runner(t *testing.T, scripts map[string]string) *worker.Tasks {
	t.Helper()
	dir := t.TempDir()
	for name, text := range scripts {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte("#!/bin/sh\n"+text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return &worker.Tasks{Scripts: &worker.Scripts{Runner: "cellar", Dir: dir}}
}

var planContext = json.RawMessage(`{"RecoveryPlanName":"shop","FailoverType":"Test","FailoverDirection":"PrimaryToSecondary","GroupId":"3"}`)

func TestAScriptGetsTheContextAndItsOutputIsKept(t *testing.T) {
	t.Setenv("LIFEBOAT_REGISTRATION_KEY", "secret")
	tasks := runner(t, map[string]string{"in/a.sh": `cat; echo; echo "$LIFEBOAT_PLAN $LIFEBOAT_FAILOVER_TYPE $LIFEBOAT_GROUP $LIFEBOAT_TASK_ID $LIFEBOAT_REGISTRATION_KEY." >&2`})
	got, err := do[job.ScriptRan](t.Context(), t, tasks, job.KindScriptRun, job.ScriptRun{Script: "in/a.sh", Timeout: time.Minute, Context: planContext})
	want := string(planContext) + "\nshop Test 3 job.Stage1Task ."
	if err != nil || got.Output != want || got.Runner != "cellar" || got.Truncated {
		t.Errorf("got %+v, %v, want output %q", got, err, want)
	}
}

func TestAScriptThatPrintsMuchKeepsItsEnd(t *testing.T) {
	tasks := runner(t, map[string]string{"a.sh": `i=0; while [ $i -lt 3000 ]; do echo "$i xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"; i=$((i+1)); done; echo end`})
	got, err := do[job.ScriptRan](t.Context(), t, tasks, job.KindScriptRun, job.ScriptRun{Script: "a.sh", Timeout: time.Minute})
	if err != nil || len(got.Output) > job.MaxActionOutput || !strings.HasSuffix(got.Output, "end") || !got.Truncated {
		t.Errorf("got %d bytes, truncated %v, %v", len(got.Output), got.Truncated, err)
	}
}

func TestAScriptThatCannotRunIsRefused(t *testing.T) {
	tasks := runner(t, map[string]string{"fails.sh": "echo why; exit 3", "sleeps.sh": "sleep 60 & wait"})
	outside := filepath.Join(t.TempDir(), "x.sh")
	dir := tasks.Scripts.Dir
	for _, err := range []error{os.WriteFile(outside, []byte("#!/bin/sh\n"), 0o755), os.Symlink(outside, filepath.Join(dir, "link.sh")), os.WriteFile(filepath.Join(dir, "plain"), nil, 0o644)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	for script, says := range map[string]string{"fails.sh": "why", "sleeps.sh": "ran longer", "gone.sh": "has no script", "link.sh": "not below", "../x.sh": "not below", "plain": "cannot be run", ".": "cannot be run"} {
		begun := time.Now()
		_, err := do[job.ScriptRan](t.Context(), t, tasks, job.KindScriptRun, job.ScriptRun{Script: script, Timeout: 500 * time.Millisecond})
		f, ok := errors.AsType[*worker.Fault](err)
		if !ok || !strings.Contains(f.Message, says) || f.Code == "unavailable" {
			t.Errorf("%s: got %v, want a failure that says %q and is not tried again", script, err, says)
		}
		if took := time.Since(begun); took > 20*time.Second {
			t.Errorf("%s took %s", script, took)
		}
	}
}

func TestAReplicatorWithoutScriptsRunsNone(t *testing.T) {
	if _, ok := (&worker.Tasks{}).Handlers()[job.KindScriptRun]; ok {
		t.Error("it has a handler for scripts")
	}
}

func TestAWebhookIsCalledUntilItAnswers(t *testing.T) {
	tries := 0
	keys := map[string]bool{}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		tries++
		keys[r.Header.Get("Idempotency-Key")] = true
		body, err := io.ReadAll(r.Body)
		if err != nil || string(body) != string(planContext) || r.Method != http.MethodPost {
			t.Errorf("got %s %s, %v", r.Method, body, err)
		}
		if tries == 1 {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		w.WriteHeader(http.StatusAccepted)
		_, _ = w.Write([]byte("thanks")) // the test sees what arrives
	}))
	defer srv.Close()
	got, err := do[job.WebhookCalled](t.Context(), t, &worker.Tasks{}, job.KindWebhookCall, job.WebhookCall{URL: srv.URL, Timeout: time.Minute, Context: planContext})
	if err != nil || got.Status != 202 || got.Output != "thanks" || got.Tries != 2 || len(keys) != 1 || !keys["job.Stage1Task"] {
		t.Errorf("got %+v, %v, keys %v", got, err, keys)
	}
	http.DefaultClient.CloseIdleConnections()
	worker.CloseIdle()
}

func TestAWebhookThatRefusesOrIsAwayFails(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/moved" {
			http.Redirect(w, r, "/", http.StatusFound)
			return
		}
		w.WriteHeader(http.StatusNotFound)
	}))
	defer srv.Close()
	defer worker.CloseIdle()
	for url, says := range map[string]string{srv.URL: "answered 404", srv.URL + "/moved": "answered 302", "http://127.0.0.1:1/": "took no call within"} {
		_, err := do[job.WebhookCalled](t.Context(), t, &worker.Tasks{}, job.KindWebhookCall, job.WebhookCall{URL: url, Timeout: 1500 * time.Millisecond})
		f, ok := errors.AsType[*worker.Fault](err)
		if !ok || !strings.Contains(f.Message, says) || f.Code == "unavailable" {
			t.Errorf("%s: got %v, want a failure that says %q and is not tried again", url, err, says)
		}
	}
}
