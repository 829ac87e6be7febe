package sqlstore

import (
	"context"
	"database/sql"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/lifeboat-dr/lifeboat/service/store"
)

// channel is where processes on one database tell each other what kinds they saved.
const channel = "lifeboat_saved"

// deafPoll is how often subscribers are woken while no news can be heard.
const deafPoll = time.Second

// news carries word of saves between the processes on a PostgreSQL database. It is told after the commit, on a connection that
// no transaction waits for: a NOTIFY within a transaction would make all commits of the server stand in line. Kinds that come
// while one NOTIFY is under way go out together with the next.
type news struct {
	process string // ours, to leave out what we said ourselves
	subs    *subscribers
	db      *sql.DB
	stop    context.CancelFunc
	parts   sync.WaitGroup

	mu      sync.Mutex // guards pending
	pending map[store.Kind]bool
	ready   chan struct{} // one place: there is something pending
}

// hear starts to listen before it returns.
func hear(ctx context.Context, cfg *pgx.ConnConfig, db *sql.DB, subs *subscribers) (*news, error) {
	n := &news{process: uuid.NewString(), subs: subs, db: db, pending: map[store.Kind]bool{}, ready: make(chan struct{}, 1)}
	conn, err := listen(ctx, cfg)
	if err != nil {
		return nil, err
	}
	run, stop := context.WithCancel(context.WithoutCancel(ctx))
	n.stop = stop
	n.parts.Go(func() { n.listen(run, cfg, conn) })
	n.parts.Go(func() { n.send(run) })
	return n, nil
}

func (n *news) close() {
	n.stop()
	n.parts.Wait()
}

func listen(ctx context.Context, cfg *pgx.ConnConfig) (*pgx.Conn, error) {
	conn, err := pgx.ConnectConfig(ctx, cfg)
	if err != nil {
		return nil, err
	}
	if _, err := conn.Exec(ctx, "LISTEN "+channel); err != nil {
		_ = conn.Close(context.WithoutCancel(ctx)) // useless now
		return nil, fmt.Errorf("listen: %w", err)
	}
	return conn, nil
}

// listen wakes subscribers on what others saved, over lost connections, until ctx ends.
func (n *news) listen(ctx context.Context, cfg *pgx.ConnConfig, conn *pgx.Conn) {
	for ctx.Err() == nil {
		if conn == nil {
			n.subs.wakeAll() // nobody knows what was missed
			attempt, cancel := context.WithTimeout(ctx, 5*time.Second)
			var err error
			if conn, err = listen(attempt, cfg); err != nil {
				conn = nil
			}
			cancel()
			if conn == nil {
				pause(ctx, deafPoll)
				continue
			}
			n.subs.wakeAll()
		}
		// A connection that died without a word is noticed here, at the latest.
		quiet, cancel := context.WithTimeout(ctx, 30*time.Second)
		got, err := conn.WaitForNotification(quiet)
		if err != nil && quiet.Err() != nil && ctx.Err() == nil && !conn.IsClosed() {
			err = conn.Ping(ctx)
		}
		cancel()
		if err != nil {
			_ = conn.Close(context.WithoutCancel(ctx)) // it is given up
			conn = nil
			continue
		}
		if got == nil {
			continue
		}
		from, kinds, _ := strings.Cut(got.Payload, " ")
		if from == n.process {
			continue
		}
		saved := map[store.Kind]bool{}
		for kind := range strings.SplitSeq(kinds, " ") {
			saved[store.Kind(kind)] = true
		}
		n.subs.notify(saved)
	}
	if conn != nil {
		_ = conn.Close(context.WithoutCancel(ctx)) // the end of the process closes it too
	}
}

// tell lets the others know soon.
func (n *news) tell(kinds map[store.Kind]bool) {
	if len(kinds) == 0 {
		return
	}
	n.mu.Lock()
	for k := range kinds {
		n.pending[k] = true
	}
	n.mu.Unlock()
	select {
	case n.ready <- struct{}{}:
	default:
	}
}

// send says what was told. What cannot be said is said later; listeners were woken meanwhile, because they lost their connection
// too.
func (n *news) send(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-n.ready:
		}
		n.mu.Lock()
		words := []string{n.process}
		for k := range n.pending {
			words = append(words, string(k))
		}
		said := n.pending
		n.pending = map[store.Kind]bool{}
		n.mu.Unlock()
		if _, err := n.db.ExecContext(ctx, `SELECT pg_notify($1, $2)`, channel, strings.Join(words, " ")); err != nil && ctx.Err() == nil {
			n.tell(said)
			pause(ctx, deafPoll/4)
		}
	}
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
