package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var word = regexp.MustCompile(`"[^"]*"|\S+`)

// TestRunbooksFitTheCommandLine holds every command of lifeboat in the runbooks to the verbs, arguments and flags that there are:
// nobody should learn on the bad day that a runbook is old.
func TestRunbooksFitTheCommandLine(t *testing.T) {
	t.Parallel()
	pages, err := filepath.Glob("../../../docs/runbooks/*.md")
	if err != nil || len(pages) == 0 {
		t.Fatalf("found no runbooks: %v", err)
	}
	seen := 0
	for _, page := range pages {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			line, _, _ = strings.Cut(strings.TrimSpace(line), " #")
			rest, ok := strings.CutPrefix(line, "lifeboat ")
			if !ok {
				continue
			}
			seen++
			root := new(app).command()
			cmd, args, err := root.Find(word.FindAllString(rest, -1))
			if err == nil {
				err = cmd.ParseFlags(args)
			}
			if err == nil && !cmd.Runnable() {
				t.Errorf("%s: %q is no command", page, line)
				continue
			}
			if err == nil && cmd.Args != nil {
				err = cmd.Args(cmd, cmd.Flags().Args())
			}
			if err != nil {
				t.Errorf("%s: %q: %v", page, line, err)
			}
		}
	}
	if seen == 0 {
		t.Error("no runbook has a command")
	}
}
