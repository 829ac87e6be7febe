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
	began := time.Now()
	for words() > 0 { // though nobody asks the feed for anything
		if time.Since(began) > 30*time.Second {
			t.Fatal("word of changes is never dropped")
		}
	}
	if took := time.Since(began); took < toldFor {
		t.Errorf("word of changes was dropped after %s, want %s at least", took, toldFor)
	}
}

// TestAFeedThatHasNotLookedForLongKnowsNothing lets half of the time pass for which word of changes is kept.
func TestAFeedThatHasNotLookedForLongKnowsNothing(t *testing.T) {
	t.Parallel()
	cfg, err := pgx.ParseConfig(storetest.StartPostgres(t).URL)
	if err != nil {
		t.Fatal(err)
	}
	s, err := OpenPostgres(t.Context(), cfg.ConnString())
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}()
	const toldFor = 4 * time.Second
	var known changes
	f := newFeed(t.Context(), cfg, &known, toldFor)
	defer f.close()
	look := func() (forgot bool) {
		t.Helper()
		before := known.oldest.Load()
		if !f.current(t.Context()) {
			t.Fatal("the feed does not learn")
		}
		return known.oldest.Load() != before
	}
	if !look() {
		t.Error("the first look counted on what was before it")
	}
	if time.Sleep(toldFor/2 + 10*time.Millisecond); !look() {
		t.Error("a look after a long pause counted on having missed nothing")
	}
}
