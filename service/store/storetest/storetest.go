// Package storetest is the suite that every store.Store passes. It owns no store of its own.
package storetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/lifeboat-dr/lifeboat/service/store"
)

type doc struct {
	N    int
	Text string
}

const (
	kindA store.Kind = "a"
	kindB store.Kind = "b"
)

// Run runs the suite. open returns an empty store; the suite closes it.
func Run(t *testing.T, open func(t *testing.T) store.Store) {
	cases := []struct {
		name string
		run  func(*testing.T, store.Store)
	}{
		{"a document comes back as it was put, with versions that grow", roundTrip},
		{"an unexpected version saves nothing of the transaction", conflict},
		{"a swallowed conflict saves nothing either", swallowed},
		{"an error of the function is returned and nothing is saved", abort},
		{"lists are in byte order, by prefix, after a key, up to a limit", list},
		{"a count is of a prefix, up to a limit", counted},
		{"a long list may use the transaction for every row", nested},
		{"a delete is of the expected version", remove},
		{"no increment is lost between writers", writers},
		{"a view sees one state", viewIsConsistent},
		{"a subscriber hears of saves of its kinds only", subscribe},
		{"a cancelled context saves nothing", cancelled},
		{"a basis holds until what was read changes", basis},
		{"who asks a basis first sees what was saved, and what anybody saw", basisIsCurrent},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			s := open(t)
			t.Cleanup(func() {
				if err := s.Close(); err != nil {
					t.Error(err)
				}
			})
			c.run(t, s)
		})
	}
}

func put(t *testing.T, s store.Store, k store.Kind, key string, expect int64, d doc) (version int64) {
	t.Helper()
	if err := s.Update(t.Context(), func(tx store.Tx) (err error) {
		version, err = tx.Put(k, key, expect, d)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return version
}

func get(t *testing.T, s store.Store, k store.Kind, key string) (d doc, version int64, err error) {
	t.Helper()
	err = s.View(t.Context(), func(tx store.Tx) (err error) {
		version, err = tx.Get(k, key, &d)
		return err
	})
	return d, version, err
}

func roundTrip(t *testing.T, s store.Store) {
	want := doc{7, "zwölf \" \\ \n"}
	if v := put(t, s, kindA, "x/y", 0, want); v != 1 {
		t.Errorf("got version %d, want 1", v)
	}
	if v := put(t, s, kindA, "x/y", 1, want); v != 2 {
		t.Errorf("got version %d, want 2", v)
	}
	if v := put(t, s, kindA, "x/y", -1, want); v != 3 {
		t.Errorf("got version %d, want 3", v)
	}
	got, v, err := get(t, s, kindA, "x/y")
	if err != nil || got != want || v != 3 {
		t.Errorf("got %+v version %d, %v, want %+v version 3", got, v, err, want)
	}
	if _, _, err := get(t, s, kindB, "x/y"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("got %v for another kind, want ErrNotFound", err)
	}
}

func conflict(t *testing.T, s store.Store) {
	put(t, s, kindA, "k", 0, doc{N: 1})
	for _, expect := range []int64{0, 2} {
		err := s.Update(t.Context(), func(tx store.Tx) error {
			if _, err := tx.Put(kindA, "other", -1, doc{}); err != nil {
				return err
			}
			_, err := tx.Put(kindA, "k", expect, doc{N: 2})
			return err
		})
		if !errors.Is(err, store.ErrConflict) {
			t.Errorf("expect %d: got %v, want ErrConflict", expect, err)
		}
	}
	if _, _, err := get(t, s, kindA, "other"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("got %v, want the transaction's other document not saved", err)
	}
	if err := s.Update(t.Context(), func(tx store.Tx) error { _, err := tx.Put(kindA, "none", 1, doc{}); return err }); !errors.Is(err, store.ErrConflict) {
		t.Errorf("got %v for a version of a document that does not exist, want ErrConflict", err)
	}
}

func swallowed(t *testing.T, s store.Store) {
	put(t, s, kindA, "k", 0, doc{N: 1})
	err := s.Update(t.Context(), func(tx store.Tx) error {
		_, _ = tx.Put(kindA, "k", 0, doc{N: 2})
		_, _ = tx.Put(kindA, "other", 0, doc{})
		return nil
	})
	if !errors.Is(err, store.ErrConflict) {
		t.Errorf("got %v, want ErrConflict", err)
	}
	if _, _, err := get(t, s, kindA, "other"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("got %v, want nothing saved", err)
	}
}

func abort(t *testing.T, s store.Store) {
	boom := errors.New("boom")
	err := s.Update(t.Context(), func(tx store.Tx) error {
		if _, err := tx.Put(kindA, "k", 0, doc{}); err != nil {
			return err
		}
		return boom
	})
	if !errors.Is(err, boom) {
		t.Errorf("got %v, want the function's error", err)
	}
	if _, _, err := get(t, s, kindA, "k"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("got %v, want nothing saved", err)
	}
}

func keys(t *testing.T, s store.Store, prefix, after string, limit int) (out []string) {
	t.Helper()
	if err := s.View(t.Context(), func(tx store.Tx) error {
		return tx.List(kindA, prefix, after, limit, func(key string, _ int64, decode func(any) error) error {
			var d doc
			if err := decode(&d); err != nil {
				return err
			}
			if d.Text != key {
				t.Errorf("got document %q under key %q", d.Text, key)
			}
			out = append(out, key)
			return nil
		})
	}); err != nil {
		t.Fatal(err)
	}
	return out
}

func list(t *testing.T, s store.Store) {
	all := []string{"A", "a", "a/1", "a/10", "a/2", "a/Z", "a/_", "a/a", "a0", "b/1"}
	for _, k := range slices.Backward(all) {
		put(t, s, kindA, k, 0, doc{Text: k})
	}
	put(t, s, kindB, "a/3", 0, doc{})
	for _, c := range []struct {
		prefix, after string
		limit         int
		want          []string
	}{
		{"", "", 0, all},
		{"a/", "", 0, []string{"a/1", "a/10", "a/2", "a/Z", "a/_", "a/a"}},
		{"a/", "a/10", 2, []string{"a/2", "a/Z"}},
		{"a/", "a/a", 0, nil},
		{"a/", "", 1, []string{"a/1"}},
		{"c", "", 0, nil},
	} {
		if got := keys(t, s, c.prefix, c.after, c.limit); !slices.Equal(got, c.want) {
			t.Errorf("prefix %q after %q limit %d: got %v, want %v", c.prefix, c.after, c.limit, got, c.want)
		}
	}
}

func counted(t *testing.T, s store.Store) {
	for _, k := range []string{"a/1", "a/2", "a/3", "b/1"} {
		put(t, s, kindA, k, 0, doc{})
	}
	if err := s.View(t.Context(), func(tx store.Tx) error {
		for _, c := range []struct {
			prefix      string
			limit, want int
		}{{"", 0, 4}, {"a/", 0, 3}, {"a/", 2, 2}, {"a/", 9, 3}, {"c", 0, 0}, {"c", 1, 0}} {
			if got, err := tx.Count(kindA, c.prefix, c.limit); err != nil || got != c.want {
				t.Errorf("prefix %q limit %d: got %d, %v, want %d", c.prefix, c.limit, got, err, c.want)
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}

func nested(t *testing.T, s store.Store) {
	const n = 1000
	if err := s.Update(t.Context(), func(tx store.Tx) error {
		for i := range n {
			if _, err := tx.Put(kindA, fmt.Sprintf("k/%04d", i), 0, doc{N: i}); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	sum := 0
	if err := s.Update(t.Context(), func(tx store.Tx) error {
		sum = 0
		return tx.List(kindA, "k/", "", 0, func(key string, version int64, decode func(any) error) error {
			var d doc
			if _, err := tx.Get(kindA, key, &d); err != nil {
				return err
			}
			sum++
			_, err := tx.Put(kindA, key, version, doc{N: d.N + 1})
			return err
		})
	}); err != nil {
		t.Fatal(err)
	}
	if sum != n {
		t.Errorf("got %d rows, want %d", sum, n)
	}
}

func remove(t *testing.T, s store.Store) {
	put(t, s, kindA, "k", 0, doc{})
	del := func(key string, expect int64) error {
		return s.Update(t.Context(), func(tx store.Tx) error { return tx.Delete(kindA, key, expect) })
	}
	if err := del("k", 2); !errors.Is(err, store.ErrConflict) {
		t.Errorf("got %v, want ErrConflict", err)
	}
	if err := del("k", 1); err != nil {
		t.Error(err)
	}
	if err := del("k", -1); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("got %v, want ErrNotFound", err)
	}
	if v := put(t, s, kindA, "k", 0, doc{}); v != 1 {
		t.Errorf("got version %d of a document made anew, want 1", v)
	}
}

func writers(t *testing.T, s store.Store) {
	put(t, s, kindA, "n", 0, doc{})
	const workers, each = 8, 25
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for range each {
				if err := s.Update(t.Context(), func(tx store.Tx) error {
					var d doc
					v, err := tx.Get(kindA, "n", &d)
					if err != nil {
						return err
					}
					d.N++
					_, err = tx.Put(kindA, "n", v, d)
					return err
				}); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	if got, _, _ := get(t, s, kindA, "n"); got.N != workers*each {
		t.Errorf("got %d, want %d", got.N, workers*each)
	}
}

func viewIsConsistent(t *testing.T, s store.Store) {
	put(t, s, kindA, "x", 0, doc{N: 1})
	put(t, s, kindA, "y", 0, doc{N: 1})
	if err := s.View(t.Context(), func(tx store.Tx) error {
		var x, y doc
		if _, err := tx.Get(kindA, "x", &x); err != nil {
			return err
		}
		if err := s.Update(t.Context(), func(w store.Tx) error {
			_, err := w.Put(kindA, "y", 1, doc{N: 2})
			return err
		}); err != nil {
			return err
		}
		if _, err := tx.Get(kindA, "y", &y); err != nil {
			return err
		}
		if y.N != 1 {
			t.Errorf("got %d from a save made during the view, want 1", y.N)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}

func subscribe(t *testing.T, s store.Store) {
	ch, end := s.Subscribe(kindA)
	put(t, s, kindB, "k", 0, doc{})
	select {
	case <-ch:
		t.Error("heard of a kind that was not asked for")
	default:
	}
	put(t, s, kindA, "k", 0, doc{})
	put(t, s, kindA, "k", 1, doc{})
	select {
	case <-ch:
	case <-time.After(10 * time.Second):
		t.Error("heard nothing of a save")
	}
	end()
	put(t, s, kindA, "k", 2, doc{})
	select {
	case <-ch:
		t.Error("heard of a save after the subscription ended")
	default:
	}
}

func cancelled(t *testing.T, s store.Store) {
	ctx, cancel := context.WithCancel(t.Context())
	err := s.Update(ctx, func(tx store.Tx) error {
		if _, err := tx.Put(kindA, "k", 0, doc{}); err != nil {
			return err
		}
		cancel()
		_, err := tx.Put(kindA, "l", 0, doc{})
		return err
	})
	if err == nil {
		t.Error("got no error of a cancelled transaction")
	}
	if _, _, err := get(t, s, kindA, "k"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("got %v, want nothing saved", err)
	}
}
