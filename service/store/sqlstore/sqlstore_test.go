package sqlstore_test

import (
	"database/sql"
	"errors"
	"path/filepath"
	"testing"

	"github.com/lifeboat-dr/lifeboat/service/store"
	"github.com/lifeboat-dr/lifeboat/service/store/sqlstore"
	"github.com/lifeboat-dr/lifeboat/service/store/storetest"
)

func TestSQLite(t *testing.T) {
	storetest.Run(t, func(t *testing.T) store.Store {
		s, err := sqlstore.OpenSQLite(t.Context(), filepath.Join(t.TempDir(), "life boat?.db"))
		if err != nil {
			t.Fatal(err)
		}
		return s
	})
}

func TestPostgres(t *testing.T) {
	url := storetest.StartPostgres(t).URL
	storetest.Run(t, func(t *testing.T) store.Store {
		db, err := sql.Open("pgx", url)
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		if _, err := db.ExecContext(t.Context(), "DROP SCHEMA public CASCADE; CREATE SCHEMA public"); err != nil {
			t.Fatal(err)
		}
		s, err := sqlstore.OpenPostgres(t.Context(), url)
		if err != nil {
			t.Fatal(err)
		}
		return s
	})
}

func TestSQLiteKeepsWhatWasSavedOverReopening(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lifeboat.db")
	for want := range int64(3) {
		s, err := sqlstore.OpenSQLite(t.Context(), path)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Update(t.Context(), func(tx store.Tx) error {
			v, err := tx.Put("k", "key", -1, "text")
			if v != want+1 {
				t.Errorf("got version %d, want %d", v, want+1)
			}
			return err
		}); err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestASQLiteDatabaseIsOpenOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lifeboat.db")
	first, err := sqlstore.OpenSQLite(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	if s, err := sqlstore.OpenSQLite(t.Context(), path); !errors.Is(err, sqlstore.ErrInUse) {
		t.Errorf("got %v, %v while it is open, want ErrInUse", s, err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	again, err := sqlstore.OpenSQLite(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	if err := again.Close(); err != nil {
		t.Error(err)
	}
}
