package sqlstore

import (
	"context"
	"database/sql"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/pressly/goose/v3"

	"github.com/lifeboat-dr/lifeboat/service/store"
)

// toldFor is how long at least word of a change is kept after everybody could read it.
const toldFor = 10 * time.Minute

// feed learns what was changed on a PostgreSQL database, by whomever. The server itself leaves word of each document in the table
// document_changes; the feed reads what came into sight since it looked last, when somebody asks, and once for all who ask at the
// same time. What it knows rests on one connection: a server that crashed, or another that took over, may count transactions
// anew, and would have cut it.
type feed struct {
	cfg     *pgx.ConnConfig
	toldFor time.Duration // after a pause half as long the feed does not count on having missed nothing
	changes *changes
	asked   chan chan<- bool
	stop    context.CancelFunc
	ended   chan struct{}

	// Of the goroutine that learns.
	conn   *pgx.Conn
	seen   string // snapshot of the newest look
	at     time.Time
	server time.Time // of the newest look, by the server's clock
	swept  string    // snapshot of the look at the last sweep; the next one, toldFor later, drops what could be seen in it
	sweep  time.Time
}

// changeWords makes PostgreSQL leave word of what is changed.
func (s *Store) changeWords() *goose.Migration {
	return goose.NewGoMigration(4, &goose.GoFunc{RunTx: func(ctx context.Context, tx *sql.Tx) error {
		if s.opts.goose != goose.DialectPostgres {
			return nil
		}
		for _, q := range []string{
			`CREATE TABLE document_changes (xid xid8 NOT NULL DEFAULT pg_current_xact_id(), kind TEXT NOT NULL, key TEXT NOT NULL)`,
			`CREATE INDEX document_changes_xid ON document_changes (xid)`,
			`CREATE FUNCTION document_changed() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
				IF TG_OP <> 'INSERT' THEN INSERT INTO document_changes (kind, key) VALUES (OLD.kind, OLD.key); END IF;
				IF TG_OP = 'INSERT' OR TG_OP = 'UPDATE' AND (OLD.kind, OLD.key) <> (NEW.kind, NEW.key) THEN INSERT INTO document_changes (kind, key) VALUES (NEW.kind, NEW.key); END IF;
				RETURN NULL;
			END $$`,
			`CREATE TRIGGER document_changed AFTER INSERT OR UPDATE OR DELETE ON documents FOR EACH ROW EXECUTE FUNCTION document_changed()`,
		} {
			if _, err := tx.ExecContext(ctx, q); err != nil {
				return err
			}
		}
		return nil
	}}, nil)
}

func newFeed(ctx context.Context, cfg *pgx.ConnConfig, c *changes, toldFor time.Duration) *feed {
	run, stop := context.WithCancel(context.WithoutCancel(ctx))
	f := &feed{cfg: cfg, toldFor: toldFor, changes: c, asked: make(chan chan<- bool), stop: stop, ended: make(chan struct{})}
	go f.run(run)
	return f
}

func (f *feed) close() {
	f.stop()
	<-f.ended
}

// current learns of all that was saved before it was called; false when it could not.
func (f *feed) current(ctx context.Context) bool {
	learned := make(chan bool, 1)
	select {
	case f.asked <- learned:
	case <-f.ended:
		return false
	case <-ctx.Done():
		return false
	}
	select {
	case ok := <-learned:
		return ok
	case <-ctx.Done():
		return false
	}
}

func (f *feed) run(ctx context.Context) {
	defer close(f.ended)
	defer func() { f.hangUp(ctx) }()
	sweep := time.NewTicker(f.toldFor) // words go, also when nobody asks
	defer sweep.Stop()
	for {
		var waiting []chan<- bool
		select {
		case <-ctx.Done():
			return
		case <-sweep.C:
		case one := <-f.asked:
			waiting = append(waiting, one)
		}
		for more := true; more; {
			select {
			case one := <-f.asked:
				waiting = append(waiting, one)
			default:
				more = false
			}
		}
		err := f.learn(ctx)
		if err != nil {
			f.hangUp(ctx)
		}
		for _, one := range waiting {
			one <- err == nil
		}
	}
}

func (f *feed) hangUp(ctx context.Context) {
	if f.conn != nil {
		_ = f.conn.Close(context.WithoutCancel(ctx)) // it is given up
		f.conn = nil
	}
}

// learn marks the places that were changed since the last look, or all when nobody can tell any more.
func (f *feed) learn(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	fresh := f.conn == nil
	if fresh {
		var err error
		if f.conn, err = pgx.ConnectConfig(ctx, f.cfg); err != nil {
			f.conn = nil
			return err
		}
		f.seen, f.swept, f.sweep = "", "", time.Now()
		if err := f.conn.QueryRow(ctx, `SELECT pg_current_snapshot()::text`).Scan(&f.seen); err != nil {
			return err
		}
	}
	var snapshot string
	var server time.Time
	var words []string
	err := f.conn.QueryRow(ctx, `SELECT pg_current_snapshot()::text, clock_timestamp(), ARRAY(SELECT kind || ' ' || key FROM document_changes
		WHERE xid >= pg_snapshot_xmin($1::text::pg_snapshot) AND NOT pg_visible_in_snapshot(xid, $1::text::pg_snapshot))`, f.seen).Scan(&snapshot, &server, &words)
	if err != nil {
		return err
	}
	now := time.Now()
	switch {
	case fresh || now.Sub(f.at) > f.toldFor/2 || server.Sub(f.server) > f.toldFor/2:
		f.changes.forget()
	case len(words) > 0:
		var touched []uint32
		for _, w := range words {
			kind, key, _ := strings.Cut(w, " ")
			touched = append(touched, placesOf(store.Kind(kind), key)...)
		}
		f.changes.learned(touched)
	}
	f.seen, f.at, f.server = snapshot, now, server
	if now.Sub(f.sweep) < f.toldFor {
		return nil
	}
	if f.swept != "" {
		if _, err := f.conn.Exec(ctx, `DELETE FROM document_changes WHERE xid < pg_snapshot_xmax($1::text::pg_snapshot) AND pg_visible_in_snapshot(xid, $1::text::pg_snapshot)`, f.swept); err != nil {
			return err
		}
	}
	f.swept, f.sweep = snapshot, now
	return nil
}
