package sqlstore

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/lifeboat-dr/lifeboat/service/store"
)

// outage is how long a transaction waits for an engine that is away: longer than PostgreSQL takes to start again or to fail
// over to a standby, shorter than clients wait for an answer.
const outage = 30 * time.Second

// collisions is how often a transaction that could not be serialized is tried, with the waits below about ten seconds.
const collisions = 100

// View implements store.Store.
func (s *Store) View(ctx context.Context, fn func(store.Tx) error) error {
	return s.persist(ctx, func() error { return s.viewOnce(ctx, fn) })
}

func (s *Store) viewOnce(ctx context.Context, fn func(store.Tx) error) error {
	sqlTx, err := s.read.BeginTx(ctx, s.opts.view)
	if err != nil {
		return fmt.Errorf("begin: %w", &engineError{err})
	}
	defer func() { _ = sqlTx.Rollback() }()
	t := &tx{ctx: ctx, tx: sqlTx, readOnly: true, ready: s.ready, notes: basisOf(ctx)}
	err = fn(t)
	if t.broken != nil {
		return &engineError{t.broken}
	}
	return err
}

// Update implements store.Store.
func (s *Store) Update(ctx context.Context, fn func(store.Tx) error) error {
	basisOf(ctx).written()
	return s.persist(ctx, func() error {
		kinds, err := s.updateOnce(ctx, fn)
		if err == nil {
			s.subs.notify(kinds)
			if s.news != nil {
				s.news.tell(kinds)
			}
		}
		return err
	})
}

func (s *Store) updateOnce(ctx context.Context, fn func(store.Tx) error) (map[store.Kind]bool, error) {
	if s.opts.oneWriter {
		s.mu.Lock()
		defer s.mu.Unlock()
	}
	sqlTx, err := s.write.BeginTx(ctx, s.opts.update)
	if err != nil {
		return nil, fmt.Errorf("begin: %w", &engineError{err})
	}
	defer func() { _ = sqlTx.Rollback() }()
	t := &tx{ctx: ctx, tx: sqlTx, kinds: map[store.Kind]bool{}, touched: map[uint32]bool{}}
	err = fn(t)
	switch {
	case t.broken != nil:
		return nil, &engineError{t.broken}
	case err != nil:
		return nil, err
	case t.conflict != nil: // also when fn did not pass it on: the contract says that nothing is saved
		return nil, t.conflict
	}
	if s.opts.oneWriter {
		defer s.changes.begin(t.touched)()
	}
	if s.slots == nil || len(t.kinds) == 0 {
		if err := sqlTx.Commit(); err != nil {
			return nil, fmt.Errorf("commit: %w", &engineError{err})
		}
		return t.kinds, nil
	}
	if err := s.slots.commit(ctx, sqlTx); err != nil {
		return nil, fmt.Errorf("commit: %w", &engineError{err})
	}
	return t.kinds, nil
}

// engineError marks what the engine answered, apart from what fn did: only the former is tried again.
type engineError struct{ err error }

func (e *engineError) Error() string { return e.err.Error() }
func (e *engineError) Unwrap() error { return e.err }

// persist runs one try of a transaction until it succeeds or fails for a reason that another try does not change.
func (s *Store) persist(ctx context.Context, once func() error) error {
	var began time.Time // of the outage
	for try := 1; ; try++ {
		err := once()
		if _, ours := errors.AsType[*engineError](err); err == nil || !ours || s.opts.oneWriter || ctx.Err() != nil {
			return err
		}
		var wait time.Duration
		switch {
		case collided(err) && try < collisions:
			wait = rand.N(time.Duration(min(try, 20)) * 10 * time.Millisecond) // apart from those we collided with
		case collided(err):
			return fmt.Errorf("%w: %w", store.ErrUnavailable, err)
		case lost(err):
			now := time.Now()
			if began.IsZero() {
				began = now
			}
			if now.Sub(began) > outage {
				return fmt.Errorf("%w: %w", store.ErrUnavailable, err)
			}
			wait = time.Duration(min(try, 10)) * 25 * time.Millisecond
			wait += rand.N(wait)
		default:
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(wait):
		}
	}
}

// collided tells that the engine gave a transaction up in favour of another: serialization_failure, deadlock_detected.
func collided(err error) bool {
	pg, ok := errors.AsType[*pgconn.PgError](err)
	return ok && (pg.Code == "40001" || pg.Code == "40P01")
}

// lost tells that the engine could not be reached, or went away in the middle.
func lost(err error) bool {
	if pg, ok := errors.AsType[*pgconn.PgError](err); ok {
		// connection_exception; admin_shutdown, crash_shutdown, cannot_connect_now; too_many_connections
		return strings.HasPrefix(pg.Code, "08") || pg.Code == "57P01" || pg.Code == "57P02" || pg.Code == "57P03" || pg.Code == "53300"
	}
	if _, ok := errors.AsType[*pgconn.ConnectError](err); ok {
		return true
	}
	if _, ok := errors.AsType[net.Error](err); ok {
		return true
	}
	return errors.Is(err, driver.ErrBadConn) || errors.Is(err, sql.ErrConnDone) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed) ||
		pgconn.SafeToRetry(err)
}
