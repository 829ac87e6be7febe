package main

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/lifeboat-dr/lifeboat/replicator/repo"
)

// key sends a request that answers with a recovery key, and returns that with the URL to poll.
func (d *daemon) key(method, path, body string) (key, poll string) {
	d.t.Helper()
	req, err := http.NewRequestWithContext(d.t.Context(), method, "https://"+d.address+path, strings.NewReader(body))
	if err != nil {
		d.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+d.token())
	req.Header.Set("Content-Type", "application/json")
	resp, err := d.client.Do(req)
	if err != nil {
		d.t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if key = resp.Header.Get("Lifeboat-Recovery-Key"); key == "" {
		d.t.Fatalf("%s %s: got %s without a recovery key", method, path, resp.Status)
	}
	return key, strings.TrimPrefix(resp.Header.Get("Azure-AsyncOperation"), "https://"+d.address)
}

// TestALostRecoveryKeyIsReplaced reissues the key of a vault through the whole of lifeboatd: API, engine, queue, embedded
// replicator and bucket.
func TestALostRecoveryKeyIsReplaced(t *testing.T) {
	dir := t.TempDir()
	d := start(t, dir)
	first, _ := d.key("PUT", vaults+"/v1?api-version=2025-01-01", `{"location":"here","sku":{"name":"RS0"},"properties":{}}`)
	opens := func(key string) bool {
		files, err := filepath.Glob(filepath.Join(dir, "bucket", "vaults", "*", "vault.json"))
		if err != nil || len(files) != 1 {
			return false
		}
		file, err := os.ReadFile(files[0])
		if err != nil {
			return false
		}
		_, _, err = repo.Unwrap(file, key)
		return err == nil
	}
	until(t, "vault in the bucket", func() bool { return opens(first) })

	second, poll := d.key("POST", vaults+"/v1/reissueRecoveryKey?api-version=2025-01-01", "")
	until(t, "new key in the bucket", func() bool {
		_, answer := d.call("GET", poll, "", d.token())
		if strings.Contains(answer, `"Failed"`) {
			t.Fatalf("the operation failed: %s", answer)
		}
		return strings.Contains(answer, `"Succeeded"`)
	})
	if opens(first) || !opens(second) {
		t.Errorf("the first key opens the vault: %v, the second: %v, want the second alone", opens(first), opens(second))
	}

	// The vault is served after a restart, and a third key can be made.
	d.stop()
	again := start(t, dir)
	third, _ := again.key("POST", vaults+"/v1/reissueRecoveryKey?api-version=2025-01-01", "")
	until(t, "third key in the bucket", func() bool { return opens(third) })
}
