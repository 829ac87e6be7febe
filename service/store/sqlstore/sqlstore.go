// Package sqlstore keeps documents in one table of SQLite or PostgreSQL, with one code path for both. It must never look into a
// document: kinds and shapes belong to the packages that save them.
package sqlstore

import (
	"context"
	"database/sql"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/url"
	"os"
	"sync"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"
	_ "modernc.org/sqlite" // driver sqlite

	"github.com/lifeboat-dr/lifeboat/service/store"
)

//go:embed migrations/*.sql
var migrations embed.FS

// Store is a store.Store. Safe for concurrent use.
type Store struct {
	write *sql.DB // SQLite: one connection, so that a writer waits in line instead of failing busy
	read  *sql.DB
	ready map[string]*sql.Stmt // by what they ask, of read; nil on PostgreSQL
	opts  dialect

	mu      sync.Mutex // orders writers of this process (SQLite only)
	subs    subscribers
	changes *changes
	feed    *feed    // of what all processes change; nil on SQLite
	lock    *os.File // keeps other processes out; nil on PostgreSQL
	news    *news    // of other processes; nil on SQLite, which one process has for itself
	slots   *slots   // nil on SQLite
}

// A dialect is what the two engines differ in.
type dialect struct {
	goose     goose.Dialect
	oneWriter bool
	update    *sql.TxOptions
	view      *sql.TxOptions
}

var _ store.Store = (*Store)(nil)

// OpenSQLite opens or creates the database file at path. Every commit is synced to disk before it returns. A database is open
// once: ErrInUse when another Store has it, in this process or another.
func OpenSQLite(ctx context.Context, path string) (*Store, error) {
	lock, err := lockFile(path + "-lock")
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	s, err := openSQLite(ctx, path)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open %s: %w", path, err), lock.Close())
	}
	s.lock = lock
	return s, nil
}

func openSQLite(ctx context.Context, path string) (*Store, error) {
	dsn := func(extra string) string {
		return "file:" + (&url.URL{Path: path}).EscapedPath() + "?_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)&_pragma=busy_timeout(10000)" + extra
	}
	write, err := sql.Open("sqlite", dsn("&_txlock=immediate"))
	if err != nil {
		return nil, err
	}
	write.SetMaxOpenConns(1)
	s := &Store{write: write, opts: dialect{goose: goose.DialectSQLite3, oneWriter: true}, changes: new(changes)}
	if err := s.migrate(ctx); err != nil {
		return nil, errors.Join(err, write.Close())
	}
	s.read, err = sql.Open("sqlite", dsn("&_pragma=query_only(true)"))
	if err != nil {
		return nil, errors.Join(err, write.Close())
	}
	s.read.SetMaxOpenConns(readers)
	s.read.SetMaxIdleConns(readers)
	if err := s.prepare(ctx); err != nil {
		return nil, errors.Join(err, write.Close(), s.read.Close())
	}
	return s, nil
}

// readers bounds how many connections views of a SQLite database take.
const readers = 8

// OpenPostgres connects to the server and database that url names (a libpq URL or keyword string).
func OpenPostgres(ctx context.Context, url string) (*Store, error) {
	cfg, err := pgx.ParseConfig(url)
	if err != nil {
		return nil, fmt.Errorf("open postgres: %w", err)
	}
	db := stdlib.OpenDB(*cfg, stdlib.OptionAfterConnect(narrow))
	db.SetMaxOpenConns(connections)
	s := &Store{write: db, read: db, changes: new(changes), opts: dialect{goose: goose.DialectPostgres,
		update: &sql.TxOptions{Isolation: sql.LevelSerializable},
		view:   &sql.TxOptions{Isolation: sql.LevelRepeatableRead, ReadOnly: true}}}
	if err := s.migrate(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("open postgres: %w", err), db.Close())
	}
	if s.slots, err = newSlots(ctx, db); err != nil {
		return nil, errors.Join(fmt.Errorf("open postgres: %w", err), db.Close())
	}
	if s.news, err = hear(ctx, cfg, db, &s.subs); err != nil {
		return nil, errors.Join(fmt.Errorf("open postgres: %w", err), db.Close())
	}
	s.feed = newFeed(ctx, cfg, s.changes, toldFor)
	return s, nil
}

// narrow keeps PostgreSQL from reading more of the table than a query asks for, which it does while the table is small. What a
// transaction read is what others collide with.
func narrow(ctx context.Context, conn *pgx.Conn) error {
	_, err := conn.Exec(ctx, "SET enable_seqscan = off; SET enable_bitmapscan = off")
	return err
}

// connections bounds how many one process holds, besides the one it listens on and the one it learns of changes on.
const connections = 16

func (s *Store) migrate(ctx context.Context) error {
	dir, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return err
	}
	opts := []goose.ProviderOption{goose.WithGoMigrations(s.bytewiseKeys(), s.commitSlots(), s.changeWords()), goose.WithDisableGlobalRegistry(true), goose.WithSlog(slog.New(slog.DiscardHandler))}
	if s.opts.goose == goose.DialectPostgres {
		locker, err := lock.NewPostgresSessionLocker()
		if err != nil {
			return err
		}
		opts = append(opts, goose.WithSessionLocker(locker))
	}
	p, err := goose.NewProvider(s.opts.goose, s.write, dir, opts...)
	if err != nil {
		return err
	}
	if _, err := p.Up(ctx); err != nil {
		return fmt.Errorf("migrate: %w", err)
	}
	return nil
}

// bytewiseKeys makes PostgreSQL compare keys as SQLite does: by bytes, not by the database's language.
func (s *Store) bytewiseKeys() *goose.Migration {
	return goose.NewGoMigration(2, &goose.GoFunc{RunTx: func(ctx context.Context, tx *sql.Tx) error {
		if s.opts.goose != goose.DialectPostgres {
			return nil
		}
		_, err := tx.ExecContext(ctx, `ALTER TABLE documents ALTER COLUMN kind TYPE TEXT COLLATE "C", ALTER COLUMN key TYPE TEXT COLLATE "C"`)
		return err
	}}, nil)
}

// Subscribe implements store.Store.
func (s *Store) Subscribe(kinds ...store.Kind) (<-chan struct{}, func()) { return s.subs.add(kinds) }

// Close implements store.Store. It waits for the running transactions.
func (s *Store) Close() error {
	if s.news != nil {
		s.news.close()
		s.feed.close()
	}
	err := s.write.Close()
	if s.read != s.write {
		err = errors.Join(err, s.read.Close())
	}
	if s.lock != nil {
		err = errors.Join(err, s.lock.Close())
	}
	return err
}

type tx struct {
	ctx      context.Context // of the View or Update that owns it
	tx       *sql.Tx
	readOnly bool
	ready    map[string]*sql.Stmt // nil: none
	notes    *basis               // nil: nobody wants to know what is read
	kinds    map[store.Kind]bool
	touched  map[uint32]bool // places in changes
	conflict error
	broken   error // what the engine answered first, whatever fn made of it
}

// note keeps the engine's first error: fn may hide it, and whether to try again depends on it.
func (t *tx) note(err error) error {
	if t.broken == nil {
		t.broken = err
	}
	return err
}

func (t *tx) Get(kind store.Kind, key string, dst any) (int64, error) {
	t.notes.document(kind, key)
	var version int64
	var body string
	err := t.queryRow(getQuery, string(kind), key).Scan(&version, &body)
	if errors.Is(err, sql.ErrNoRows) {
		return 0, fmt.Errorf("%s %s: %w", kind, key, store.ErrNotFound)
	}
	if err != nil {
		return 0, fmt.Errorf("read %s %s: %w", kind, key, t.note(err))
	}
	if dst != nil {
		if err := json.Unmarshal([]byte(body), dst); err != nil {
			return 0, fmt.Errorf("decode %s %s: %w", kind, key, err)
		}
	}
	return version, nil
}

func (t *tx) Put(kind store.Kind, key string, expect int64, doc any) (int64, error) {
	if t.readOnly {
		return 0, errors.New("sqlstore: put in a view")
	}
	body, err := json.Marshal(doc)
	if err != nil {
		return 0, fmt.Errorf("encode %s %s: %w", kind, key, err)
	}
	var q string
	args := []any{string(kind), key, string(body)}
	switch {
	case expect == 0:
		q = `INSERT INTO documents (kind, key, version, body) VALUES ($1, $2, 1, $3) ON CONFLICT (kind, key) DO NOTHING RETURNING version`
	case expect == -1:
		q = `INSERT INTO documents (kind, key, version, body) VALUES ($1, $2, 1, $3)
			ON CONFLICT (kind, key) DO UPDATE SET version = documents.version + 1, body = excluded.body RETURNING version`
	default:
		q = `UPDATE documents SET version = version + 1, body = $3 WHERE kind = $1 AND key = $2 AND version = $4 RETURNING version`
		args = append(args, expect)
	}
	var version int64
	err = t.tx.QueryRowContext(t.ctx, q, args...).Scan(&version)
	if errors.Is(err, sql.ErrNoRows) {
		t.conflict = fmt.Errorf("%s %s, expected version %d: %w", kind, key, expect, store.ErrConflict)
		return 0, t.conflict
	}
	if err != nil {
		return 0, fmt.Errorf("save %s %s: %w", kind, key, t.note(err))
	}
	t.saved(kind, key)
	return version, nil
}

func (t *tx) saved(kind store.Kind, key string) {
	t.kinds[kind] = true
	for _, p := range placesOf(kind, key) {
		t.touched[p] = true
	}
}

func (t *tx) Delete(kind store.Kind, key string, expect int64) error {
	if t.readOnly || expect == 0 {
		return errors.New("sqlstore: delete in a view, or of a document expected not to exist")
	}
	q, args := `DELETE FROM documents WHERE kind = $1 AND key = $2`, []any{string(kind), key}
	if expect > 0 {
		q, args = q+` AND version = $3`, append(args, expect)
	}
	r, err := t.tx.ExecContext(t.ctx, q, args...)
	if err != nil {
		return fmt.Errorf("delete %s %s: %w", kind, key, t.note(err))
	}
	n, err := r.RowsAffected()
	if err != nil {
		return fmt.Errorf("delete %s %s: %w", kind, key, err)
	}
	if n == 0 {
		if _, err := t.Get(kind, key, nil); err != nil {
			return err
		}
		t.conflict = fmt.Errorf("%s %s, expected version %d: %w", kind, key, expect, store.ErrConflict)
		return t.conflict
	}
	t.saved(kind, key)
	return nil
}

// chunk bounds what List holds in memory. It reads ahead because fn may use the transaction, which a PostgreSQL connection
// cannot do while rows are open.
const chunk = 256

type row struct {
	key, body string
	version   int64
}

func (t *tx) List(kind store.Kind, prefix, after string, limit int, fn func(string, int64, func(any) error) error) error {
	t.notes.under(kind, prefix)
	for left := limit; limit == 0 || left > 0; {
		n := chunk
		if limit > 0 {
			n = min(n, left)
		}
		rows, err := t.page(kind, prefix, after, n)
		if err != nil {
			return fmt.Errorf("list %s %s: %w", kind, prefix, t.note(err))
		}
		for _, r := range rows {
			decode := func(dst any) error {
				if err := json.Unmarshal([]byte(r.body), dst); err != nil {
					return fmt.Errorf("decode %s %s: %w", kind, r.key, err)
				}
				return nil
			}
			if err := fn(r.key, r.version, decode); err != nil {
				return err
			}
		}
		if len(rows) < n {
			return nil
		}
		after, left = rows[len(rows)-1].key, left-len(rows)
	}
	return nil
}

func (t *tx) Count(kind store.Kind, prefix string, limit int) (n int, err error) {
	t.notes.under(kind, prefix)
	where, args := within(kind, prefix)
	q := `SELECT COUNT(*) FROM documents` + where
	if limit > 0 {
		args = append(args, limit)
		q = `SELECT COUNT(*) FROM (SELECT 1 FROM documents` + where + fmt.Sprintf(` LIMIT $%d) AS found`, len(args))
	}
	if err := t.tx.QueryRowContext(t.ctx, q, args...).Scan(&n); err != nil {
		return 0, fmt.Errorf("count %s %s: %w", kind, prefix, t.note(err))
	}
	return n, nil
}

// within is the condition that a document is of the kind and its key starts with prefix.
func within(kind store.Kind, prefix string) (where string, args []any) {
	where, args = ` WHERE kind = $1 AND key >= $2`, []any{string(kind), prefix}
	if end := prefixEnd(prefix); end != "" {
		where, args = where+` AND key < $3`, append(args, end)
	}
	return where, args
}

func (t *tx) page(kind store.Kind, prefix, after string, n int) ([]row, error) {
	from, args, end := fromKey, []any{string(kind), prefix}, prefixEnd(prefix)
	if after > prefix {
		from, args[1] = behindKey, after
	}
	if end != "" {
		args = append(args, end)
	}
	args = append(args, n)
	rows, err := t.query(pageQuery(from, end != ""), args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	out := make([]row, 0, n)
	for rows.Next() {
		var r row
		if err := rows.Scan(&r.key, &r.version, &r.body); err != nil {
			return nil, err
		}
		out = append(out, r)
	}
	return out, rows.Err()
}

// prefixEnd is the first string after all that begin with prefix; empty when there is no end. Keys are ASCII: adding one to the
// last byte stays valid UTF-8, which PostgreSQL insists on.
func prefixEnd(prefix string) string {
	for i := len(prefix) - 1; i >= 0; i-- {
		if prefix[i] < 0x7f {
			return prefix[:i] + string(prefix[i]+1)
		}
	}
	return ""
}
