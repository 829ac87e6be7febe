package main

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"gocloud.dev/blob"
	"gocloud.dev/blob/memblob"

	"github.com/lifeboat-dr/lifeboat/replicator/faultbucket/faulttest"
	"github.com/lifeboat-dr/lifeboat/replicator/repo"
)

// fillBucket makes a vault with two machines, one of which failed over, and returns its recovery key.
func fillBucket(t *testing.T, b *blob.Bucket) (key string) {
	t.Helper()
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	ctx, data := t.Context(), repo.Key{1, 2, 3}
	key = repo.NewRecoveryKey()
	file, err := repo.NewVaultFile("vault-1", data, key)
	check(err)
	r, err := repo.Open(ctx, b, "vault-1", data, file, repo.Options{})
	check(err)
	for _, machine := range []string{"machine-1", "machine-2"} {
		check(r.OpenGeneration(ctx, machine, 1, nil))
		w, err := r.NewWriter(ctx, machine, 1, []repo.DiskInfo{{ID: "root", Size: 1 << 20, OS: true}}, repo.WriterOptions{Workers: 1})
		check(err)
		for i := range 2 {
			_, err := w.Commit(ctx, repo.Commit{Time: time.Date(2030, 1, 2, 3, 4, i, 0, time.UTC), Consistency: "CrashConsistent",
				Hardware: json.RawMessage(`{"hostname":"` + machine + `","disks":[]}`)})
			check(err)
		}
		check(w.Close())
	}
	last, err := r.CloseGeneration(ctx, "machine-1", 1, "failover")
	check(err)
	check(r.OpenGeneration(ctx, "machine-1", 2, last))
	return key
}

// TestEveryBucketCallOfARebuildMayFail reads the catalogue over every kind of fault: it is whole, or what is missing is told.
func TestEveryBucketCallOfARebuildMayFail(t *testing.T) {
	t.Parallel()
	from := memblob.OpenBucket(nil)
	defer from.Close()
	var key string
	synctest.Test(t, func(t *testing.T) { key = fillBucket(t, from) })
	c, err := catalogueOf(t.Context(), from, key, slog.New(slog.DiscardHandler))
	if err != nil || len(c.Vaults) != 1 || len(c.Vaults[0].Machines) != 2 || c.problems() != nil {
		t.Fatalf("without a fault: %+v, %v", c, err)
	}
	want, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Run("calls", func(t *testing.T) { // so that the bucket is closed after them
		faulttest.EveryCall(t, 20, func(t *testing.T, run *faulttest.Run) {
			inner := memblob.OpenBucket(nil)
			defer inner.Close()
			b := run.Bucket(inner)
			run.Fill(t, b, from)
			run.Arm()
			var log bytes.Buffer
			c, err := catalogueOf(t.Context(), b, key, slog.New(slog.NewTextHandler(&log, nil)))
			run.Disarm()
			told := err != nil || c.problems() != nil
			if told && (run.Counts() || !run.Lasts() && !run.Flips()) {
				t.Errorf("got %v, %v, want it tried again", err, c.problems())
			}
			got, merr := json.Marshal(c)
			if merr != nil {
				t.Fatal(merr)
			}
			if !told && string(got) != string(want) && !(run.Flips() && strings.Contains(log.String(), "level=ERROR msg=\"log entry did not verify\"")) {
				t.Errorf("got another catalogue without a word:\n%s\nlog:\n%s", got, log.String())
			}
			for _, v := range c.Vaults { // what is imported is a machine as it is
				for _, m := range v.Machines {
					if !run.Flips() && m.Problem == "" && len(m.Points) != 2 {
						t.Errorf("machine %s: got %d points", m.ID, len(m.Points))
					}
				}
			}
		})
	})
}

// TestRebuildTellsWhatItLeavesOut has a machine whose log cannot be read: the other one is recovered, and the command fails.
func TestRebuildTellsWhatItLeavesOut(t *testing.T) {
	bucket, key := makeBucket(t)
	dir := strings.TrimPrefix(bucket, "file://")
	floor := filepath.Join(dir, "vaults", "vault-1", "floors", "machine-1", "00000001")
	if err := os.MkdirAll(filepath.Dir(floor), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(floor, []byte("no record"), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := execute(t, "catalogue", "rebuild", "--bucket", bucket, "--recovery-key", key, "--data-dir", filepath.Join(t.TempDir(), "new"))
	if err == nil || !strings.Contains(err.Error(), "machine machine-1 of vault vault-1 is not recovered") || !strings.Contains(err.Error(), "floors/machine-1/00000001") {
		t.Errorf("got %v\n%s", err, out)
	}
	if !strings.Contains(out, "machine-1") {
		t.Errorf("the table hides the machine:\n%s", out)
	}
}
