package main

import (
	"bytes"
	"encoding/json"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

const typescript = "../../../sdk/typescript"

// The document that lifeboatd serves makes a TypeScript client that the strict compiler accepts, and a program written against
// it works: it makes a vault and a site, waits for the operation, and reads both.
func TestTheServedDocumentMakesAWorkingTypeScriptClient(t *testing.T) {
	t.Parallel()
	for _, program := range []string{"node", "npm"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Fatalf("%s is needed: make packages", program)
		}
	}
	modules, err := filepath.Abs(filepath.Join(typescript, "node_modules"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(modules); err != nil {
		t.Fatalf("the npm packages of sdk/typescript are needed: make packages: %v", err)
	}
	d := start(t, t.TempDir())
	status, document := d.call(http.MethodGet, "/openapi.json", "", "")
	if status != http.StatusOK {
		t.Fatalf("GET /openapi.json: %d %s", status, document)
	}

	dir := t.TempDir()
	if err := os.CopyFS(filepath.Join(dir, "src"), os.DirFS(filepath.Join(typescript, "src"))); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"package.json", "tsconfig.json"} {
		raw, err := os.ReadFile(filepath.Join(typescript, name))
		if err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(dir, name), raw)
	}
	write(t, filepath.Join(dir, "openapi.json"), []byte(document))
	if err := os.Symlink(modules, filepath.Join(dir, "node_modules")); err != nil {
		t.Fatal(err)
	}
	runNode(t, dir, nil, filepath.Join(modules, "openapi-typescript/bin/cli.js"), "openapi.json", "-o", "src/arm.d.ts")
	runNode(t, dir, nil, filepath.Join(modules, "typescript/bin/tsc"))
	out := runNode(t, dir, []string{"LIFEBOAT_URL=https://" + d.address, "LIFEBOAT_TOKEN=" + d.token(), "NODE_EXTRA_CA_CERTS=" + filepath.Join(d.dir, "ca.pem")}, "dist/example.js")

	var got map[string]any
	if err := json.Unmarshal(out, &got); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if remedy, _ := got["remedy"].(string); remedy == "" {
		t.Errorf("the refusal has no remedy: %s", out)
	}
	delete(got, "remedy")
	want := map[string]any{"vault": "typed", "state": "Succeeded", "team": "ops", "begun": 202.0, "fabric": "site1", "kind": "InMageRcm", "processServers": 1.0, "refused": "NotFound"}
	if !maps.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func write(t *testing.T, path string, raw []byte) {
	t.Helper()
	if err := os.WriteFile(path, raw, 0o600); err != nil {
		t.Fatal(err)
	}
}

// runNode runs a script and returns what it prints.
func runNode(t *testing.T, dir string, env []string, args ...string) []byte {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "node", args...)
	var out, complaints bytes.Buffer
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = dir, append(os.Environ(), env...), &out, &complaints
	if err := cmd.Run(); err != nil {
		t.Fatalf("node %s: %v\n%s%s", strings.Join(args, " "), err, &out, &complaints)
	}
	return out.Bytes()
}
