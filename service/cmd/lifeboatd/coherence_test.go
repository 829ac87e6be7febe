package main

import (
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"github.com/lifeboat-dr/lifeboat/service/store/storetest"
)

// TestAWriteIsReadThroughEveryLifeboatd changes a vault through one process and reads it through another, which has answered the
// same from memory before.
func TestAWriteIsReadThroughEveryLifeboatd(t *testing.T) {
	database := storetest.StartPostgres(t).URL
	first := start(t, t.TempDir(), "--no-replicator", "--database", database)
	both := []*daemon{first, start(t, t.TempDir(), "--no-replicator", "--database", database, "--key-file", filepath.Join(first.dir, "secret.key"))}
	const vault = vaults + "/shared?api-version=2025-01-01"
	token := first.token()
	call := func(d *daemon, method, body string, want int) string {
		t.Helper()
		status, answer := d.call(method, vault, body, token)
		if status != want {
			t.Fatalf("%s: got %d %s, want %d", method, status, answer, want)
		}
		return answer
	}
	call(first, "PUT", `{"location":"here","sku":{"name":"RS0"},"properties":{}}`, http.StatusCreated)
	for n := range 60 {
		tag := fmt.Sprintf(`"n":"%d"`, n)
		call(both[n%2], "PATCH", `{"tags":{`+tag+`}}`, http.StatusOK)
		for _, d := range []*daemon{both[1-n%2], both[n%2], both[1-n%2]} {
			if got := call(d, "GET", "", http.StatusOK); !strings.Contains(got, tag) {
				t.Fatalf("after change %d got %s", n, got)
			}
		}
	}
	call(both[0], "DELETE", "", http.StatusNoContent)
	call(both[1], "GET", "", http.StatusNotFound)
}
