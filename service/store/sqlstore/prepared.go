package sqlstore

import (
	"context"
	"database/sql"
	"fmt"
)

// getQuery and pageQuery are what views ask most.
const getQuery = `SELECT version, body FROM documents WHERE kind = $1 AND key = $2`

// pageQuery asks for documents of a kind from a key on, or behind it, up to an end where there is one.
func pageQuery(from string, ends bool) string {
	q, limit := `SELECT key, version, body FROM documents WHERE kind = $1 AND key `+from+` $2`, "$3"
	if ends {
		q, limit = q+` AND key < $3`, "$4"
	}
	return q + ` ORDER BY key LIMIT ` + limit
}

const (
	fromKey   = ">="
	behindKey = ">"
)

// prepare lets each connection of the database parse what is asked most once. pgx does so itself.
func (s *Store) prepare(ctx context.Context) error {
	s.ready = map[string]*sql.Stmt{}
	for _, q := range []string{getQuery, pageQuery(fromKey, true), pageQuery(fromKey, false), pageQuery(behindKey, true), pageQuery(behindKey, false)} {
		stmt, err := s.read.PrepareContext(ctx, q) //nolint:sqlclosecheck // it ends with the database
		if err != nil {
			return fmt.Errorf("prepare %s: %w", q, err)
		}
		s.ready[q] = stmt
	}
	return nil
}

func (t *tx) queryRow(q string, args ...any) *sql.Row {
	if stmt := t.ready[q]; stmt != nil {
		return t.tx.StmtContext(t.ctx, stmt).QueryRowContext(t.ctx, args...) //nolint:sqlclosecheck // it ends with the transaction
	}
	return t.tx.QueryRowContext(t.ctx, q, args...)
}

func (t *tx) query(q string, args ...any) (*sql.Rows, error) {
	if stmt := t.ready[q]; stmt != nil {
		return t.tx.StmtContext(t.ctx, stmt).QueryContext(t.ctx, args...) //nolint:sqlclosecheck // it ends with the transaction
	}
	return t.tx.QueryContext(t.ctx, q, args...)
}
