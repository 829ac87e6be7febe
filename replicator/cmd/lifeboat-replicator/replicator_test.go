package main

import (
	"bytes"
	"encoding/json"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"github.com/lifeboat-dr/lifeboat/replicator/localbucket"
	"github.com/lifeboat-dr/lifeboat/replicator/repo"
	"github.com/lifeboat-dr/lifeboat/service/control"
	"github.com/lifeboat-dr/lifeboat/service/keyfile"
	"github.com/lifeboat-dr/lifeboat/service/store/sqlstore"
)

// makeBucket makes a bucket with one machine and two points, and returns its URL and recovery key.
func makeBucket(t *testing.T) (bucket, key string) {
	t.Helper()
	ctx, dir := t.Context(), t.TempDir()
	b, err := localbucket.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = b.Close() }()
	key = repo.NewRecoveryKey()
	data := repo.Key{1, 2, 3}
	file, err := repo.NewVaultFile("vault-1", data, key)
	if err != nil {
		t.Fatal(err)
	}
	r, err := repo.Open(ctx, b, "vault-1", data, file, repo.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := r.OpenGeneration(ctx, "machine-1", 1, nil); err != nil {
		t.Fatal(err)
	}
	disks := []repo.DiskInfo{{ID: "data", Size: 1 << 20}, {ID: "root", Size: 1 << 21, OS: true}}
	w, err := r.NewWriter(ctx, "machine-1", 1, disks, repo.WriterOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 2 {
		if _, err := w.Commit(ctx, repo.Commit{Time: time.Date(2030, 1, 2, 3, 4, i, 0, time.UTC), Consistency: "CrashConsistent",
			Hardware: json.RawMessage(`{"hostname":"web01","productUuid":"UUID-1","cpuCount":2,"memoryBytes":1073741824,"firmware":"bios","disks":[]}`)}); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return (&url.URL{Scheme: "file", Path: dir}).String(), key
}

func execute(t *testing.T, args ...string) (string, error) {
	t.Helper()
	cmd := command()
	var out bytes.Buffer
	cmd.SetOut(&out)
	cmd.SetArgs(args)
	err := cmd.ExecuteContext(t.Context())
	return out.String(), err
}

func TestRebuildNeedsNothingButBucketAndKey(t *testing.T) {
	bucket, key := makeBucket(t)
	keyFile := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(keyFile, []byte(key+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := execute(t, "catalogue", "rebuild", "--bucket", bucket, "--recovery-key-file", keyFile)
	if err != nil || !strings.Contains(out, "web01") || !strings.Contains(out, "1/2") || !strings.Contains(out, "root 2.0 MiB") {
		t.Fatalf("table: got %v\n%s", err, out)
	}
	dir := filepath.Join(t.TempDir(), "new")
	out, err = execute(t, "catalogue", "rebuild", "--bucket", bucket, "--recovery-key", strings.ToLower(key), "-o", "json", "--data-dir", dir)
	if err != nil {
		t.Fatal(err)
	}
	var c catalogue
	if err := json.Unmarshal([]byte(out), &c); err != nil {
		t.Fatal(err)
	}
	if len(c.Vaults) != 1 || len(c.Vaults[0].Machines) != 1 || len(c.Vaults[0].Machines[0].Points) != 2 || c.Vaults[0].Machines[0].Hardware.CpuCount != 2 {
		t.Fatalf("json: got %+v", c)
	}
	if strings.Contains(out, key) {
		t.Fatal("the answer shows the recovery key")
	}

	db, err := sqlstore.OpenSQLite(t.Context(), filepath.Join(dir, "lifeboat.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	seal, err := keyfile.Open(filepath.Join(dir, "secret.key"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = seal.Close() }()
	ctl := control.New(control.Config{Store: db, Sealer: seal})
	secrets, err := ctl.VaultSecrets(t.Context(), "vault-1")
	if err != nil || len(secrets.DataKey) != 32 || secrets.CAKey == "" {
		t.Fatalf("VaultSecrets: got %d bytes, %v", len(secrets.DataKey), err)
	}
	items, err := ctl.Items(t.Context(), control.Ref{Vault: "vault-1"}, control.ItemFilter{}, control.Paging{})
	if err != nil || len(items.Items) != 1 {
		t.Fatalf("Items: got %d, %v, want one", len(items.Items), err)
	}
	it := items.Items[0].Item
	if it.FriendlyName != "web01" || it.HomeUUID != "uuid-1" || len(it.Disks) != 2 || it.Disks[0].ID != "root" || it.Hardware.MemoryBytes != 1<<30 {
		t.Fatalf("item: got %+v", it)
	}
	if _, err := execute(t, "catalogue", "rebuild", "--bucket", bucket, "--recovery-key", key, "--data-dir", dir); err == nil {
		t.Fatal("a data directory in use was changed")
	}
}

func TestRebuildRefusals(t *testing.T) {
	bucket, key := makeBucket(t)
	for name, args := range map[string][]string{
		"no bucket":          {"--recovery-key", key},
		"no key":             {"--bucket", bucket},
		"another key":        {"--bucket", bucket, "--recovery-key", repo.NewRecoveryKey()},
		"a mistyped key":     {"--bucket", bucket, "--recovery-key", key[1:]},
		"an empty bucket":    {"--bucket", (&url.URL{Scheme: "file", Path: t.TempDir()}).String(), "--recovery-key", key},
		"an unknown output":  {"--bucket", bucket, "--recovery-key", key, "-o", "xml"},
		"an unknown scheme":  {"--bucket", "gopher://x", "--recovery-key", key},
		"a key file missing": {"--bucket", bucket, "--recovery-key-file", "/does/not/exist"},
	} {
		if out, err := execute(t, append([]string{"catalogue", "rebuild"}, args...)...); err == nil || strings.Contains(err.Error(), key) {
			t.Errorf("%s: got %v\n%s", name, err, out)
		}
	}
}

func TestConfiguration(t *testing.T) {
	parse := func(args ...string) (config, error) {
		var c config
		cmd := &cobra.Command{RunE: func(cmd *cobra.Command, _ []string) error { return c.load(cmd) }, SilenceErrors: true, SilenceUsage: true}
		c.flags(cmd)
		cmd.SetArgs(args)
		return c, cmd.Execute()
	}
	file := filepath.Join(t.TempDir(), "r.yaml")
	if err := os.WriteFile(file, []byte("server: h:1\nsite: home\nroles: [processServer]\ndatastores: {a: /a}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := parse("--config", file, "--site", "recovery", "--state-dir", "/s")
	if err != nil || c.Server != "h:1" || c.Site != "recovery" || !slices.Equal(c.Roles, []string{"processServer"}) || c.Datastores["a"] != "/a" || c.DataListen != ":9443" {
		t.Errorf("file under flags: got %+v, %v", c, err)
	}
	c, err = parse("--server", "h:1", "--control-listen", ":8444")
	if err != nil || len(c.Roles) != 3 {
		t.Errorf("with a control port: got roles %v, %v, want all", c.Roles, err)
	}
	for name, args := range map[string][]string{
		"no server":                         {},
		"an unknown site":                   {"--server", "h", "--site", "moon"},
		"a relay without a port":            {"--server", "h", "--roles", "configurationServer"},
		"a configuration that is not there": {"--config", "/does/not/exist"},
	} {
		if _, err := parse(args...); err == nil {
			t.Errorf("%s: was accepted", name)
		}
	}
}
