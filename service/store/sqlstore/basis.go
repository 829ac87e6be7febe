package sqlstore

import (
	"context"
	"hash/fnv"
	"math"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/lifeboat-dr/lifeboat/service/store"
)

// places is how many counters tell apart what changed. Documents that share one only make each other's readers look again.
const places = 1 << 16

// changing stands at a place while a commit that changes something there is under way: nobody can tell what views see.
const changing = math.MaxUint64

// changes knows which commit changed a document last, and which one changed any whose key begins with some of the parts between
// slashes. It hears of commits one after the other, and numbers them as it does: on SQLite from the one process there is, on
// PostgreSQL from a feed, of several at once. The zero value is ready.
type changes struct {
	newest atomic.Uint64         // number of the newest commit that has ended
	oldest atomic.Uint64         // what was read before the commit of this number may have changed unheard
	at     [places]atomic.Uint64 // number of the newest commit that changed something there, or changing
}

// placeOf is where a document is told of (whole), or all whose key begins so.
func placeOf(kind store.Kind, key string, whole bool) uint32 {
	h := fnv.New64a()
	of := byte(1)
	if whole {
		of = 0
	}
	_, _ = h.Write(append(append(make([]byte, 0, 128), kind...), of)) // never fails
	_, _ = h.Write([]byte(key))
	return uint32(h.Sum64() >> 32 % places)
}

// begin marks the places as changing. The commit may come when it has returned; the function it returns has to be called when the
// commit has ended, however that was.
func (c *changes) begin(touched map[uint32]bool) (end func()) {
	number := c.newest.Load() + 1
	for p := range touched {
		c.at[p].Store(changing)
	}
	return func() {
		for p := range touched {
			c.at[p].Store(number)
		}
		c.newest.Store(number)
	}
}

// learned tells of changes that ended elsewhere, each in its places.
func (c *changes) learned(touched []uint32) {
	number := c.newest.Load() + 1
	for _, p := range touched {
		c.at[p].Store(number)
	}
	c.newest.Store(number)
}

// forget tells that nobody knows what was changed until now.
func (c *changes) forget() {
	number := c.newest.Load() + 1
	c.oldest.Store(number)
	c.newest.Store(number)
}

// placesOf are the places of a document that changes: its own, and those of all lists it is in.
func placesOf(kind store.Kind, key string) []uint32 {
	out := []uint32{placeOf(kind, key, true), placeOf(kind, "", false)}
	for i := range len(key) {
		if key[i] == '/' {
			out = append(out, placeOf(kind, key[:i+1], false))
		}
	}
	return out
}

// basis implements store.Basis. Everything was read after commit number mark had ended; a place with a higher number was changed
// since, perhaps before it was read.
type basis struct {
	changes *changes
	feed    *feed // nil on SQLite
	mark    uint64

	mu    sync.Mutex // guards what follows while views run; Holds comes after them
	read  []uint32
	wrote bool // an Update ran under the context, which shows its own transaction
}

type basisKey struct{}

// Note implements store.Store.
func (s *Store) Note(ctx context.Context) (context.Context, store.Basis) {
	b := &basis{changes: s.changes, feed: s.feed, mark: s.changes.newest.Load()}
	return context.WithValue(ctx, basisKey{}, b), b
}

func basisOf(ctx context.Context) *basis {
	b, _ := ctx.Value(basisKey{}).(*basis)
	return b
}

// Holds implements store.Basis. Where others write too it asks the engine what they wrote, unless it is too late already.
func (b *basis) Holds(ctx context.Context) bool {
	return b.unchanged() && (b.feed == nil || b.feed.current(ctx) && b.unchanged())
}

func (b *basis) unchanged() bool {
	return !b.wrote && b.mark >= b.changes.oldest.Load() && !slices.ContainsFunc(b.read, func(p uint32) bool { return b.changes.at[p].Load() > b.mark })
}

// What follows does nothing to a nil basis.

// document notes that a document was looked for.
func (b *basis) document(kind store.Kind, key string) {
	if b != nil {
		b.add(placeOf(kind, key, true))
	}
}

// under notes that documents under the prefix were looked for.
func (b *basis) under(kind store.Kind, prefix string) {
	if b != nil {
		b.add(placeOf(kind, prefix[:strings.LastIndexByte(prefix, '/')+1], false))
	}
}

func (b *basis) written() {
	if b == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.wrote = true
}

func (b *basis) add(place uint32) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !slices.Contains(b.read, place) {
		b.read = append(b.read, place)
	}
}
