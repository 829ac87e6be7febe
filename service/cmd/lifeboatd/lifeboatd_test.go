package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"github.com/lifeboat-dr/lifeboat/replicator/node/program"
)

// daemon is a lifeboatd in this process.
type daemon struct {
	t       testing.TB
	dir     string
	address string
	client  *http.Client
	stop    func()
}

func freeAddress(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}

func parse(t testing.TB, args ...string) (config, error) {
	t.Helper()
	var c config
	cmd := &cobra.Command{RunE: func(cmd *cobra.Command, _ []string) error { return c.load(cmd) }, SilenceErrors: true, SilenceUsage: true}
	c.flags(cmd)
	cmd.SetArgs(args)
	return c, cmd.Execute()
}

// start runs lifeboatd on dir until stop, and returns once it answers.
func start(t testing.TB, dir string, args ...string) *daemon {
	t.Helper()
	d := &daemon{t: t, dir: dir, address: freeAddress(t)}
	c, err := parse(t, append([]string{"--data-dir", dir, "--listen", d.address, "--replication-listen", "127.0.0.1:0"}, args...)...)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- run(ctx, c) }()
	stopped := false
	d.stop = func() {
		t.Helper()
		if stopped {
			return
		}
		stopped = true
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("run: %v", err)
			}
		case <-time.After(time.Minute):
			t.Error("lifeboatd did not stop")
		}
	}
	t.Cleanup(d.stop)
	until(t, "answer of lifeboatd", func() bool {
		if pem, err := os.ReadFile(filepath.Join(dir, "ca.pem")); err == nil {
			roots := x509.NewCertPool()
			roots.AppendCertsFromPEM(pem)
			d.client = &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}}
			if resp, err := d.client.Get("https://" + d.address + "/healthz"); err == nil {
				_ = resp.Body.Close()
				if resp.StatusCode == http.StatusOK {
					return true
				}
			}
		}
		select {
		case err := <-done:
			done <- err
			t.Fatalf("lifeboatd ended: %v", err)
		default:
		}
		return false
	})
	return d
}

// until waits for what nobody announces.
func until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for end := time.After(time.Minute); !ok(); {
		select {
		case <-tick.C:
		case <-end:
			t.Fatalf("no %s within a minute", what)
		}
	}
}

func (d *daemon) call(method, path, body string, token string) (int, string) {
	d.t.Helper()
	req, err := http.NewRequestWithContext(d.t.Context(), method, "https://"+d.address+path, strings.NewReader(body))
	if err != nil {
		d.t.Fatal(err)
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := d.client.Do(req)
	if err != nil {
		d.t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		d.t.Fatal(err)
	}
	return resp.StatusCode, string(answer)
}

func (d *daemon) token() string {
	d.t.Helper()
	raw, err := os.ReadFile(filepath.Join(d.dir, "admin.token"))
	if err != nil {
		d.t.Fatal(err)
	}
	return strings.TrimSpace(string(raw))
}

const vaults = "/subscriptions/00000000-0000-0000-0000-000000000001/resourceGroups/rg/providers/Microsoft.RecoveryServices/vaults"

func TestACompleteMachineWithNoConfiguration(t *testing.T) {
	dir := t.TempDir()
	d := start(t, dir)
	for name, mode := range map[string]os.FileMode{"admin.token": 0o600, "secret.key": 0o600, "tokens": 0o600, "ca.pem": 0o644} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil || info.Mode().Perm() != mode {
			t.Errorf("%s: got %v, %v, want mode %v", name, info, err, mode)
		}
	}
	if status, _ := d.call("GET", vaults+"?api-version=2025-01-01", "", ""); status != http.StatusUnauthorized {
		t.Errorf("without a token: got %d, want 401", status)
	}
	status, answer := d.call("PUT", vaults+"/v1?api-version=2025-01-01", `{"location":"here","sku":{"name":"RS0"},"properties":{}}`, d.token())
	if status != http.StatusCreated && status != http.StatusOK {
		t.Fatalf("PUT vault: got %d %s", status, answer)
	}
	// The embedded replicator hears of the vault over the fleet protocol and lays it out in the bucket.
	until(t, "vault in the bucket", func() bool {
		files, err := filepath.Glob(filepath.Join(dir, "bucket", "vaults", "*", "vault.json"))
		return err == nil && len(files) == 1
	})
	if status, answer := d.call("GET", "/metrics", "", ""); status != http.StatusOK || !strings.Contains(answer, "lifeboat_request_seconds") {
		t.Errorf("/metrics: got %d", status)
	}
	if status, _ := d.call("GET", "/metrics/machines", "", "not a token"); status != http.StatusUnauthorized {
		t.Errorf("/metrics/machines without a token: got %d, want 401", status)
	}
	if status, answer := d.call("GET", "/metrics/machines", "", d.token()); status != http.StatusOK || !strings.Contains(answer, "lifeboat_machines_unshown 0") {
		t.Errorf("/metrics/machines: got %d %s", status, answer)
	}
	if status, answer := d.call("POST", "/fleet/v1/agents/sync", `{"version":"1","revision":0,"machine":{"hostname":"x","productUuid":"u","disks":[]},"protections":[]}`, d.token()); status != http.StatusUnauthorized || !strings.Contains(answer, `"unauthenticated"`) {
		t.Errorf("the fleet protocol with a bearer token: got %d %s, want 401", status, answer)
	}
	token := d.token()
	d.stop()

	again := start(t, dir)
	if again.token() != token {
		t.Error("the token changed with a restart")
	}
	status, answer = again.call("GET", vaults+"?api-version=2025-01-01", "", token)
	var list struct{ Value []struct{ Name string } }
	if err := json.Unmarshal([]byte(answer), &list); err != nil || status != http.StatusOK || len(list.Value) != 1 || list.Value[0].Name != "v1" {
		t.Fatalf("after a restart: got %d %s, want the vault", status, answer)
	}
}

func TestAStopDuringTheStartIsNoError(t *testing.T) {
	c, err := parse(t, "--data-dir", t.TempDir(), "--listen", freeAddress(t), "--replication-listen", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := run(ctx, c); err != nil {
		t.Errorf("run: %v", err)
	}
}

func TestTheCertificateFitsEveryNameOfTheHost(t *testing.T) {
	d := start(t, t.TempDir(), "--no-replicator", "--name", "vault.example", "--name", "10.0.2.2")
	transport := d.client.Transport.(*http.Transport)
	for _, name := range []string{"lifeboatd", "localhost", "127.0.0.1", "vault.example", "10.0.2.2"} {
		cfg := transport.TLSClientConfig.Clone()
		cfg.ServerName = name
		c, err := tls.Dial("tcp", d.address, cfg)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if n := len(c.ConnectionState().PeerCertificates); n != 2 {
			t.Errorf("%s: got %d certificates, want the server's and the authority's, which agents pin", name, n)
		}
		_ = c.Close()
	}
}

func TestConfiguration(t *testing.T) {
	dir := t.TempDir()
	file := func(text string) string {
		path := filepath.Join(dir, fmt.Sprintf("%d.yaml", len(text)))
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	c, err := parse(t, "--data-dir", dir)
	if err != nil || c.Listen != ":8443" || c.ReplicationListen != ":9443" || c.replicationAsked || c.Bucket != "file://"+dir+"/bucket" {
		t.Errorf("defaults: got %+v, %v", c, err)
	}
	c, err = parse(t, "--config", file("data-dir: /a\nlisten: 127.0.0.1:1\nreplication-address: [h:1, i:2]\ndatastores: {home: /d}\nprune-every: 90s\n"), "--listen", "127.0.0.1:2")
	if err != nil || c.DataDir != "/a" || c.Listen != "127.0.0.1:2" || len(c.ReplicationAddress) != 2 || c.Datastores["home"] != "/d" || c.ReplicationListen != "127.0.0.1:9443" || c.PruneEvery != 90*time.Second {
		t.Errorf("file under flags: got %+v, %v", c, err)
	}
	for name, args := range map[string][]string{
		"no data directory":         {},
		"a setting nobody knows":    {"--config", file("data-dir: /a\nlisten-on: x\n")},
		"a file that is not there":  {"--config", dir + "/none"},
		"an address without a port": {"--data-dir", dir, "--listen", "localhost"},
		"an unknown log format":     {"--data-dir", dir, "--log", "xml"},
	} {
		if _, err := parse(t, args...); err == nil {
			t.Errorf("%s: was accepted", name)
		}
	}
}

func TestABusyReplicationPort(t *testing.T) {
	busy, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = busy.Close() }()
	address := busy.Addr().String()
	if _, err := listenReplication(address, true, program.Logger("text", false)); err == nil {
		t.Error("an address that was asked for and is busy was replaced")
	}
	l, err := listenReplication(address, false, program.Logger("text", false))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	if l.Addr().String() == address {
		t.Error("got the busy port")
	}
}
