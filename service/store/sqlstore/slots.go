package sqlstore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/pressly/goose/v3"
)

// slots tell what became of a commit whose answer was lost. Each transaction holds a slot, a row of its own that it counts up;
// whoever lost the answer looks whether the row has its number. A number of PostgreSQL's own would not do: after a crash it
// gives those of unfinished transactions to others.
type slots struct {
	db   *sql.DB
	free chan *slot
}

type slot struct {
	name   string
	number int64
}

// commitSlots makes the table of slots.
func (s *Store) commitSlots() *goose.Migration {
	return goose.NewGoMigration(3, &goose.GoFunc{RunTx: func(ctx context.Context, tx *sql.Tx) error {
		if s.opts.goose != goose.DialectPostgres {
			return nil
		}
		_, err := tx.ExecContext(ctx, `CREATE TABLE commit_slots (name TEXT PRIMARY KEY, number BIGINT NOT NULL, used TIMESTAMPTZ NOT NULL DEFAULT now()) WITH (fillfactor = 20)`)
		return err
	}}, nil)
}

// newSlots makes the slots of a process and drops those of processes that have written nothing for a week.
func newSlots(ctx context.Context, db *sql.DB) (*slots, error) {
	if _, err := db.ExecContext(ctx, `DELETE FROM commit_slots WHERE used < now() - INTERVAL '7 days'`); err != nil {
		return nil, fmt.Errorf("drop old slots: %w", err)
	}
	s := &slots{db: db, free: make(chan *slot, connections)}
	process := uuid.NewString()
	for i := range connections {
		s.free <- &slot{name: fmt.Sprintf("%s/%d", process, i)}
	}
	return s, nil
}

// commit commits tx. When the connection is lost meanwhile it finds out whether tx was committed.
func (s *slots) commit(ctx context.Context, tx *sql.Tx) error {
	mine := <-s.free // there are as many as connections, and tx has one
	defer func() { s.free <- mine }()
	mine.number++
	_, err := tx.ExecContext(ctx, `INSERT INTO commit_slots (name, number) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET number = excluded.number, used = now()`, mine.name, mine.number)
	if err != nil {
		return err
	}
	err = tx.Commit()
	if err == nil || !lost(err) {
		return err
	}
	for began := time.Now(); ; {
		done, asked := s.committed(context.WithoutCancel(ctx), mine)
		switch {
		case asked == nil && done:
			return nil
		case asked == nil:
			return err
		case !lost(asked) || time.Since(began) > outage:
			return errors.Join(fmt.Errorf("nobody told whether it was committed: %w", err), asked)
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// committed tells whether the slot has its number. It locks the row, so that a transaction that still hangs on a lost connection
// ends first.
func (s *slots) committed(ctx context.Context, mine *slot) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, outage)
	defer cancel()
	var number int64
	err := s.db.QueryRowContext(ctx, `SELECT number FROM commit_slots WHERE name = $1 FOR UPDATE`, mine.name).Scan(&number)
	if errors.Is(err, sql.ErrNoRows) {
		return false, nil
	}
	return number == mine.number, err
}
