package sqlstore_test

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lifeboat-dr/lifeboat/service/store"
	"github.com/lifeboat-dr/lifeboat/service/store/sqlstore"
	"github.com/lifeboat-dr/lifeboat/service/store/storetest"
)

// share opens the database as n processes would.
func share(t *testing.T, url string, n int) (out []*sqlstore.Store) {
	t.Helper()
	for range n {
		s, err := sqlstore.OpenPostgres(t.Context(), url)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		})
		out = append(out, s)
	}
	return out
}

func heard(ch <-chan struct{}, within time.Duration) bool {
	select {
	case <-ch:
		return true
	case <-time.After(within):
		return false
	}
}

func save(t *testing.T, s store.Store, kind store.Kind, key string) {
	t.Helper()
	if err := s.Update(t.Context(), func(tx store.Tx) error { _, err := tx.Put(kind, key, -1, 1); return err }); err != nil {
		t.Fatal(err)
	}
}

func TestProcessesHearOfEachOthersSaves(t *testing.T) {
	server := storetest.StartPostgres(t)
	both := share(t, server.URL, 2)
	ch, end := both[1].Subscribe("a")
	defer end()
	save(t, both[0], "b", "k")
	if heard(ch, 300*time.Millisecond) {
		t.Error("heard of a kind that was not asked for")
	}
	began := time.Now()
	save(t, both[0], "a", "k")
	if !heard(ch, 10*time.Second) {
		t.Fatal("heard nothing of another process's save")
	}
	if took := time.Since(began); took > time.Second {
		t.Errorf("word of a save took %s", took)
	}

	// The listeners lose their connections and find new ones, and nobody sleeps over what was missed.
	server.Crash()
	if !heard(ch, 10*time.Second) {
		t.Error("nothing was heard after the server's restart")
	}
	for end := time.Now().Add(10 * time.Second); ; {
		for heard(ch, 2*time.Second) { // the poll of the deaf ends with the new connection
		}
		save(t, both[0], "a", "k")
		if heard(ch, 500*time.Millisecond) {
			break
		}
		if time.Now().After(end) {
			t.Fatal("saves are not heard of after the server's restart")
		}
	}
}

func TestACrashOfTheServerLosesAndRepeatsNothing(t *testing.T) {
	server := storetest.StartPostgres(t)
	both := share(t, server.URL, 2)
	save(t, both[0], "n", "shared")
	var views atomic.Int64
	var done [6]int64
	stop, saved := make(chan struct{}), make(chan struct{})
	var parts sync.WaitGroup
	for w := range done {
		s := both[w%2]
		parts.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				// Not idempotent: what is run again although it was saved counts twice.
				err := s.Update(t.Context(), func(tx store.Tx) error {
					for _, key := range []string{"shared", fmt.Sprint(w)} {
						n := 0
						_, err := tx.Get("n", key, &n)
						if err != nil && !errors.Is(err, store.ErrNotFound) {
							return err
						}
						if _, err := tx.Put("n", key, -1, n+1); err != nil {
							return err
						}
					}
					return nil
				})
				if err != nil {
					t.Errorf("update: %v", err)
					return
				}
				done[w]++
				select {
				case saved <- struct{}{}:
				default:
				}
				if err := s.View(t.Context(), func(tx store.Tx) error { _, err := tx.Get("n", "shared", nil); return err }); err != nil {
					t.Errorf("view: %v", err)
					return
				}
				views.Add(1)
			}
		})
	}
	work := func() { // until some were saved
		t.Helper()
		limit := time.After(time.Minute)
		for range 50 {
			select {
			case <-saved:
			case <-limit:
				t.Fatal("nothing is saved any more")
			}
		}
	}
	for range 4 {
		work()
		server.Crash()
	}
	work()
	close(stop)
	parts.Wait()
	var sum int64
	if err := both[0].View(t.Context(), func(tx store.Tx) error {
		sum = 0
		for w := range done {
			var n int64
			if _, err := tx.Get("n", fmt.Sprint(w), &n); err != nil {
				return err
			}
			if n != done[w] {
				t.Errorf("writer %d saved %d times, the store has %d", w, done[w], n)
			}
			sum += n
		}
		var n int64
		_, err := tx.Get("n", "shared", &n)
		if n != sum+1 {
			t.Errorf("got %d saves of all, want %d", n, sum+1)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if sum == 0 {
		t.Error("nothing was saved")
	}
	t.Logf("%d saves, %d views over 4 crashes", sum, views.Load())
}

func TestProcessesReadNoLessThanAnotherSaved(t *testing.T) {
	both := share(t, storetest.StartPostgres(t).URL, 2)
	storetest.CurrentBasis(t, both[0], both[1])
}

func TestWhatIsKnownEndsWithTheServer(t *testing.T) {
	server := storetest.StartPostgres(t)
	s := share(t, server.URL, 1)[0]
	save(t, s, "a", "k")
	note := func() store.Basis {
		ctx, b := s.Note(t.Context())
		if err := s.View(ctx, func(tx store.Tx) error { _, err := tx.Get("a", "k", nil); return err }); err != nil {
			t.Fatal(err)
		}
		return b
	}
	note().Holds(t.Context()) // learns of the save
	b := note()
	if !b.Holds(t.Context()) {
		t.Fatal("a basis does not hold although nothing changed")
	}
	server.Crash()
	if first, second := b.Holds(t.Context()), b.Holds(t.Context()); first || second {
		t.Error("a basis from before the server's crash holds")
	}
	if b := note(); !b.Holds(t.Context()) {
		t.Error("a basis from after the server's crash does not hold")
	}
}
