package sqlstore

import (
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/lifeboat-dr/lifeboat/service/store"
	"github.com/lifeboat-dr/lifeboat/service/store/storetest"
)

func TestWordOfChangesIsDroppedWhenEverybodyCouldReadIt(t *testing.T) {
	t.Parallel()
	url := storetest.StartPostgres(t).URL
	s, err := OpenPostgres(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}()
	cfg, err := pgx.ParseConfig(url)
	if err != nil {
		t.Fatal(err)
	}
	const toldFor = 300 * time.Millisecond
	var known changes
	f := newFeed(t.Context(), cfg, &known, toldFor)
	defer f.close()
	words := func() (n int) {
		t.Helper()
		if err := s.read.QueryRowContext(t.Context(), `SELECT COUNT(*) FROM document_changes`).Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	if err := s.Update(t.Context(), func(tx store.Tx) error {
		for _, key := range []string{"a", "b"} {
			if _, err := tx.Put("k", key, 0, 1); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if n := words(); n != 2 {
		t.Errorf("got word of %d changes, want 2", n)
	}
	forgotten := func() uint64 { return known.oldest.Load() }
	before := forgotten()
	began := time.Now()
	for words() > 0 {
		if !f.current(t.Context()) {
			t.Fatal("the feed does not learn")
		}
		if time.Since(began) > 30*time.Second {
			t.Fatal("word of changes is never dropped")
		}
	}
	if took := time.Since(began); took < toldFor {
		t.Errorf("word of changes was dropped after %s, want %s at least", took, toldFor)
	}

	// Who has not looked for long cannot tell what was dropped meanwhile.
	if before == forgotten() {
		t.Error("the first look counted on what was before it")
	}
	before = forgotten()
	time.Sleep(toldFor/2 + 10*time.Millisecond)
	if !f.current(t.Context()) || forgotten() == before {
		t.Error("a look after a long pause counted on having missed nothing")
	}
}
