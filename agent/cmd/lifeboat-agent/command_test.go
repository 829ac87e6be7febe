package main

import (
	"strings"
	"testing"
)

func TestVersionIsTheLinkers(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	c := command()
	c.SetOut(&out)
	c.SetArgs([]string{"--version"})
	if err := c.Execute(); err != nil {
		t.Fatal(err)
	}
	if got, want := out.String(), "lifeboat-agent version "+version+"\n"; got != want {
		t.Fatalf("--version printed %q, want %q", got, want)
	}
}
