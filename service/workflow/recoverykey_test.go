package workflow_test

import (
	"crypto/sha256"
	"slices"
	"strings"
	"testing"

	"github.com/lifeboat-dr/lifeboat/service/control"
	"github.com/lifeboat-dr/lifeboat/service/dr"
	"github.com/lifeboat-dr/lifeboat/service/job"
	"github.com/lifeboat-dr/lifeboat/service/queue"
)

// expected is the vault.json that replicators are to find; empty when either may be there.
func (w *world) expected() string {
	w.t.Helper()
	s, err := w.control.VaultSecrets(w.ctx, w.vault)
	if err != nil {
		w.t.Fatal(err)
	}
	return string(s.VaultFile)
}

func (w *world) reissue() (id, key string) {
	w.t.Helper()
	id, key, err := w.control.ReissueRecoveryKey(w.ctx, w.vault)
	if err != nil {
		w.t.Fatal(err)
	}
	return id, key
}

func TestAReissuedRecoveryKeyCountsWhenTheBucketHasIt(t *testing.T) {
	w := newWorld(t)
	w.fail(job.KindVaultFileWrite, slices.Repeat([]queue.Failure{away}, 5)...)
	id, key := w.reissue()
	if got := w.expected(); got != "" || key != "key 1" {
		t.Errorf("got key %q and file %q expected while the new one is under way, want key 1, and any file", key, got)
	}
	if _, _, err := w.control.ReissueRecoveryKey(w.ctx, w.vault); dr.CodeOf(err) != dr.CodeConflict || !strings.Contains(err.Error(), id) {
		t.Errorf("got %v, want a refusal that names job %s", err, id)
	}
	w.engine(w.store)
	w.ask(id, nil)
	w.waitJob(id)
	v, err := w.control.VaultByID(w.ctx, w.vault)
	if sum := sha256.Sum256([]byte(key)); err != nil || string(v.RecoveryKeyHash) != string(sum[:]) {
		t.Errorf("got %+v, %v, want the hash of the new key", v, err)
	}
	w.mu.Lock()
	written := w.vaultFile
	w.mu.Unlock()
	if got := w.expected(); got != written || written != "file 1" {
		t.Errorf("got %q expected and %q in the bucket", got, written)
	}

	// When nobody knows whether the bucket has it, either file is taken, and asking again settles it.
	w.fail(job.KindVaultFileWrite, broken)
	id, _ = w.reissue()
	if j := w.waitJob(id); j.State != job.Failed {
		t.Fatalf("got %s, want it failed", j.State)
	}
	if got := w.expected(); got != "" {
		t.Errorf("got %q expected after a failure, want any file", got)
	}
	id, _ = w.reissue()
	w.ask(id, nil)
	if got := w.expected(); got == "" || got == written {
		t.Errorf("got %q expected, want the newest", got)
	}
	page, err := w.control.Events(w.ctx, w.vault, control.EventFilter{Type: "ServerHealth"}, control.Paging{})
	if err != nil || len(page.Items) < 5 {
		t.Errorf("got %+v, %v, want an event for each of the keys, and for two that count", page.Items, err)
	}
}
