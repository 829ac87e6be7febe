package api

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestTokenFileIsReadAndFollowed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, readAndFollowed)
}

func readAndFollowed(t *testing.T) {
	file := filepath.Join(t.TempDir(), "tokens")
	write := func(content string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	secret := NewToken()
	if other := NewToken(); len(secret) < 40 || secret == other {
		t.Fatalf("tokens %q and %q are not random", secret, other)
	}
	write("# who may do what\n\nadmin Contributor " + strings.ToUpper(HashToken(secret)[:7]) + "\n")
	if _, err := LoadTokens(file); err == nil {
		t.Error("a broken hash was taken")
	}
	write("admin Contributor " + HashToken(secret) + " # the first\n")
	tokens, err := LoadTokens(file)
	if err != nil {
		t.Fatal(err)
	}
	if k, ok := tokens.Find(secret); !ok || k.Name != "admin" || k.Role != RoleContributor {
		t.Errorf("got %+v, %v", k, ok)
	}
	if _, ok := tokens.Find(secret + "x"); ok {
		t.Error("another secret was let in")
	}
	write("reader Reader " + HashToken("other secret") + "\n")
	time.Sleep(reloadEvery + 1)
	if _, ok := tokens.Find(secret); ok {
		t.Error("a token that was removed from the file stays valid")
	}
	write("broken line\n")
	time.Sleep(reloadEvery + 1)
	if k, ok := tokens.Find("other secret"); !ok || k.Role != RoleReader {
		t.Errorf("a broken file took away what it said before: %+v, %v", k, ok)
	}
}

func TestBrokenTokenFilesAreRefusedByLine(t *testing.T) {
	t.Parallel()
	for content, want := range map[string]string{
		"a Contributor":                              "line 1",
		"\na Owner sha256:00":                        "line 2",
		"a Reader sha256:00":                         "64 hexadecimal",
		"a Reader " + strings.Repeat("0", 64):        "sha256:",
		"a Reader sha256:" + strings.Repeat("x", 64): "hexadecimal",
	} {
		if _, err := parseTokens(strings.NewReader(content)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want an error with %q", content, err, want)
		}
	}
}

func TestRolesCoverTheSmaller(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		role, needed Role
		want         bool
	}{{RoleContributor, RoleReader, true}, {RoleOperator, RoleOperator, true}, {RoleReader, RoleOperator, false}, {"", RoleReader, false}, {"Owner", RoleReader, false}} {
		if got := test.role.Covers(test.needed); got != test.want {
			t.Errorf("%q covers %q: got %v", test.role, test.needed, got)
		}
	}
}
