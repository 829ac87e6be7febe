package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/spf13/cobra"

	"github.com/lifeboat-dr/lifeboat/sdk"
	"github.com/lifeboat-dr/lifeboat/sdk/oas"
)

func TestColumnsFollowTheQuery(t *testing.T) {
	t.Parallel()
	for query, want := range map[string][]string{
		"[].{zeta: a, alpha: b}":                        {"zeta", "alpha"},
		"[].{z: {deep: a}, \"b-c\": f(x, y), d: [e,f]}": {"z", "b-c", "d"},
		"[?a=='}'].{x: a}":                              {"x"},
		"[].{first: a} | [].{second: first}":            {"second"},
		"[].name":                                       nil,
		"}":                                             nil,
	} {
		if checkQuery(query) != nil && query != "}" {
			t.Errorf("%s does not compile", query)
		}
		if got := namesIn(query); !slices.Equal(got, want) && query != "}" {
			t.Errorf("names in %s: got %q, want %q", query, got, want)
		}
	}
}

func TestQueriesPrintAsText(t *testing.T) {
	t.Parallel()
	list := []map[string]any{{"a": "x", "n": 1, "tags": []string{"p", "q"}}, {"a": "y\ttab", "n": nil}}
	for query, want := range map[string]string{
		"[].a":                "x\ny tab\n",
		"[0].n":               "1\n",
		"[].{z: n, b: a}":     "Z  B\n1  x\n-  y tab\n",
		"[].[a, n]":           "x      1\ny tab  \n",
		"[0].{b: a, k: tags}": "B  K\nx  [\"p\",\"q\"]\n",
		"[?a=='none']":        "",
		"[0].absent":          "\n",
	} {
		var out bytes.Buffer
		if err := showList(&app{out: &out, format: "table", query: query}, list, nil); err != nil || out.String() != want {
			t.Errorf("%s: got %q, %v, want %q", query, out.String(), err, want)
		}
	}
}

func TestErrorsPrintMessageCauseAndRemedy(t *testing.T) {
	t.Parallel()
	refused := &sdk.Error{Status: 409, Code: "Conflict", Message: "not now", Target: "properties.x", PossibleCauses: "too early", RecommendedAction: "wait", RequestID: "r1"}
	for _, test := range []struct {
		err  error
		code int
		want string
	}{
		{nil, 0, ""},
		{refused, 1, "lifeboat: not now (Conflict)\nat:       properties.x\ncause:    too early\nremedy:   wait\nrequest:  r1\n"},
		{fmt.Errorf("protect: %w", refused), 1, "lifeboat: not now (Conflict)\nat:       properties.x\ncause:    too early\nremedy:   wait\nrequest:  r1\n"},
		{&sdk.OperationError{JobID: "j1", Status: "Failed", Err: &sdk.Error{Code: "Full", Message: "the disk is full", RecommendedAction: "free some"}}, 3,
			"lifeboat: the operation was accepted and has failed: the disk is full (Full)\nremedy:   free some\njob:      j1, see lifeboat job show j1\n"},
		{&sdk.OperationError{JobID: "j1", Status: "Canceled", Err: &sdk.Error{Message: "someone cancelled it"}}, 3,
			"lifeboat: the operation was accepted and has been cancelled: someone cancelled it\njob:      j1, see lifeboat job show j1\n"},
		{&usageError{"use less"}, 2, "lifeboat: use less\nremedy:   see lifeboat --help\n"},
		{&sdk.Error{Code: sdk.CodeAmbiguous, Message: "two of them"}, 2, "lifeboat: two of them (Ambiguous)\n"},
		{context.Canceled, 1, "lifeboat: interrupted; an operation that was accepted goes on\n"},
		{errors.New("disk gone"), 1, "lifeboat: disk gone\n"},
	} {
		var out bytes.Buffer
		if code := report(&out, test.err); code != test.code || out.String() != test.want {
			t.Errorf("%v: got code %d and %q, want %d and %q", test.err, code, out.String(), test.code, test.want)
		}
	}
}

// running is a job with one task that counts bytes.
func running(state, task string, done, total int64) sdk.Job {
	return sdk.Job{Properties: oas.JobProperties{FriendlyName: "Export", State: state, Tasks: []oas.ASRTask{
		{TaskId: "t1", FriendlyName: "Writing disks", State: task, Progress: oas.TaskProgress{DoneBytes: &done, TotalBytes: &total}}, {TaskId: "t2", Name: "Later", State: "NotStarted"}}}}
}

func TestALineForEachChangeOfState(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	l := &lines{w: &out}
	for _, j := range []sdk.Job{running("InProgress", "NotStarted", 0, 0), running("InProgress", "InProgress", 1<<20, 4<<20), running("InProgress", "InProgress", 2<<20, 4<<20),
		running("InProgress", "Succeeded", 4<<20, 4<<20), running("Succeeded", "Succeeded", 4<<20, 4<<20)} {
		l.show(j)
	}
	l.end()
	var got []string
	for line := range strings.Lines(out.String()) {
		got = append(got, strings.TrimSpace(line[len("15:04:05"):]))
	}
	want := []string{"Export: InProgress", "task Writing disks: InProgress", "task Writing disks: Succeeded, 4.0 MiB", "Export: Succeeded"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestBarShowsBytesRateAndTimeLeft(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		b := &bars{lines: lines{w: &out}}
		b.show(running("InProgress", "InProgress", 1<<20, 4<<20)) // done before we looked: no rate
		time.Sleep(time.Second)
		b.show(running("InProgress", "InProgress", 2<<20, 8<<20)) // the total grew as more was found
		time.Sleep(time.Second)
		b.show(running("InProgress", "InProgress", 0, 0)) // counts no bytes any more: no bar
		b.end()
		for _, want := range []string{"25% |██████", "task Writing disks: InProgress\n", "Writing disks  1.0 MiB of 4.0 MiB", "2.0 MiB of 8.0 MiB, 1.0 MiB/s, 6s left"} {
			if !strings.Contains(out.String(), want) {
				t.Errorf("got %q, want %q in it", out.String(), want)
			}
		}
		if strings.Contains(out.String(), "GiB/s") {
			t.Errorf("got %q: what was done before counts as speed", out.String())
		}
	})
}

func TestEveryVerbIsInTheDocument(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../../docs/cli.md")
	if err != nil {
		t.Fatal(err)
	}
	each((&app{}).command(), func(c *cobra.Command) {
		if !c.HasSubCommands() && !strings.Contains(string(text), "`"+c.CommandPath()+"`") {
			t.Errorf("docs/cli.md does not tell of %s", c.CommandPath())
		}
		if c.Short == "" {
			t.Errorf("%s has no description", c.CommandPath())
		}
	})
}
