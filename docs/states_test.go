package docs_test

import (
	"flag"
	"os"
	"testing"

	"github.com/lifeboat-dr/lifeboat/service/dr"
)

var update = flag.Bool("update", false, "write made documents again")

func TestStatesEqualTheTable(t *testing.T) {
	want := dr.Diagram()
	if *update {
		if err := os.WriteFile("states.md", []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile("states.md")
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != want {
		t.Error("docs/states.md is not what the table says; run: go test ./docs -update")
	}
}
