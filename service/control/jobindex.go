package control

import (
	"context"
	"encoding/hex"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/lifeboat-dr/lifeboat/service/job"
	"github.com/lifeboat-dr/lifeboat/service/store"
)

// scanned bounds how many jobs one page of a list looks at: what no index narrows may leave a page short, and its Next goes on.
const scanned = 1000

func jobStatePrefix(vault string, s job.State) string {
	return vault + "/" + strings.ToLower(string(s)) + "/"
}

// indexJob lets a job be found by its state.
func indexJob(tx store.Tx, j *job.Job) error {
	if j.Internal || j.Indexed == j.State {
		return nil
	}
	if err := unindexJob(tx, j); err != nil {
		return err
	}
	j.Indexed = j.State
	_, err := tx.Put(KindJobState, jobStatePrefix(j.Vault, j.State)+newestFirst(j.ID), -1, j.ID)
	return err
}

func unindexJob(tx store.Tx, j *job.Job) error {
	if j.Indexed == "" {
		return nil
	}
	err := tx.Delete(KindJobState, jobStatePrefix(j.Vault, j.Indexed)+newestFirst(j.ID), -1)
	if errors.Is(err, store.ErrNotFound) {
		return nil
	}
	return err
}

// IndexJobs indexes jobs from before there was an index. It does nothing when that was done.
func (s *Service) IndexJobs(ctx context.Context) error {
	const done = "all"
	after := ""
	for {
		next := ""
		err := s.store.Update(ctx, func(tx store.Tx) error {
			if _, err := tx.Get(KindJobState, done, nil); !errors.Is(err, store.ErrNotFound) {
				return err
			}
			next = ""
			if err := tx.List(KindJob, "", after, MaxPage, func(key string, version int64, decode func(any) error) error {
				var j job.Job
				if err := decode(&j); err != nil {
					return err
				}
				j.Version, next = version, key
				if j.Internal || j.Indexed == j.State {
					return nil
				}
				return SaveJob(tx, &j)
			}); err != nil {
				return err
			}
			if next != "" {
				return nil
			}
			_, err := tx.Put(KindJobState, done, 0, true)
			return err
		})
		if err != nil || next == "" {
			return err
		}
		after = next
	}
}

// span is the part of a vault's jobs, newest first, that a filter by time can find: keys after from, before to ("": no end). A
// job starts when it is made; a minute on either side is for the clock that made its id.
func (f JobFilter) span() (from, to string) {
	if !f.To.IsZero() {
		from = keyAt(f.To.Add(time.Minute))
	}
	if !f.From.IsZero() {
		to = keyAt(f.From.Add(-time.Minute)) + "~"
	}
	return from, to
}

// keyAt is the beginning that keys of jobs made in a millisecond have in common: that of a UUIDv7.
func keyAt(t time.Time) string {
	ms := max(0, t.UnixMilli())
	h := hex.EncodeToString([]byte{byte(ms >> 40), byte(ms >> 32), byte(ms >> 24), byte(ms >> 16), byte(ms >> 8), byte(ms)})
	return newestFirst(h[:8] + "-" + h[8:])
}

// walkJobs calls fn for a vault's jobs that a filter may take, newest first, behind the key after, until fn says stop. It reads
// ahead so many at first, and more the longer it goes on.
func walkJobs(tx store.Tx, vault string, f JobFilter, after string, ahead int, fn func(key string, j *job.Job) (stop bool, err error)) error {
	from, to := f.span()
	after = max(after, from)
	enough := errors.New("enough")
	visit := func(key string, version int64, decode func(any) error) error {
		if to != "" && key > to {
			return enough
		}
		var j job.Job
		if err := decode(&j); err != nil {
			return err
		}
		j.Version = version
		stop, err := fn(key, &j)
		if err == nil && stop {
			err = enough
		}
		return err
	}
	walk := walkAll
	if len(f.States) > 0 {
		walk = func(tx store.Tx, vault, after string, ahead int, visit visitor) error {
			return walkStates(tx, vault, f.States, after, ahead, visit)
		}
	}
	err := walk(tx, vault, after, ahead, visit)
	if errors.Is(err, enough) {
		return nil
	}
	return err
}

func walkAll(tx store.Tx, vault, after string, ahead int, visit visitor) error {
	prefix := vault + "/"
	return inSteps(tx, KindJob, prefix, prefix+after, ahead, func(key string, version int64, decode func(any) error) error {
		return visit(strings.TrimPrefix(key, prefix), version, decode)
	})
}

// walkStates merges the indexes of some states.
func walkStates(tx store.Tx, vault string, states []job.State, after string, ahead int, visit visitor) error {
	for ; ; ahead = min(2*ahead, scanned) {
		var keys []string
		reach := "" // up to here the keys of all states were read; empty: to the end
		for _, s := range states {
			prefix, n, last := jobStatePrefix(vault, s), 0, ""
			if err := tx.List(KindJobState, prefix, prefix+after, ahead, func(key string, _ int64, _ func(any) error) error {
				n, last = n+1, strings.TrimPrefix(key, prefix)
				keys = append(keys, last)
				return nil
			}); err != nil {
				return err
			}
			if n == ahead && (reach == "" || last < reach) {
				reach = last
			}
		}
		slices.Sort(keys)
		for _, key := range slices.Compact(keys) {
			if reach != "" && key > reach {
				break
			}
			var j job.Job
			version, err := tx.Get(KindJob, vault+"/"+key, &j)
			if errors.Is(err, store.ErrNotFound) {
				continue
			}
			if err != nil {
				return err
			}
			if err := visit(key, version, func(dst any) error { *dst.(*job.Job) = j; return nil }); err != nil {
				return err
			}
		}
		if reach == "" {
			return nil
		}
		after = reach
	}
}
