package repo

import (
	"container/list"
	"context"
	"errors"
	"sync"

	"github.com/lifeboat-dr/lifeboat/replicator/manifest"
)

// cacheKey names a decoded page or frame.
type cacheKey struct {
	object manifest.ID
	number uint32
	page   bool
}

// cache keeps decoded pages and frames, the least recently used leave first. What is being loaded is loaded once, however many
// ask. Sizes are bounded by limit, apart from what is being loaded.
type cache struct {
	mu      sync.Mutex // guards all below
	limit   int64
	size    int64
	order   *list.List // of *cached, most recent first
	entries map[cacheKey]*list.Element
	loading map[cacheKey]*load
}

type cached struct {
	key  cacheKey
	v    any
	size int64
}

type load struct {
	done chan struct{}
	v    any
	err  error
}

func newCache(limit int64) *cache {
	return &cache{limit: limit, order: list.New(), entries: make(map[cacheKey]*list.Element), loading: make(map[cacheKey]*load)}
}

// get returns the value for key, from f if it is not there. The value must never be changed.
func (c *cache) get(ctx context.Context, key cacheKey, f func() (v any, size int64, err error)) (any, error) {
	for {
		c.mu.Lock()
		if e, ok := c.entries[key]; ok {
			c.order.MoveToFront(e)
			v := e.Value.(*cached).v
			c.mu.Unlock()
			return v, nil
		}
		l, busy := c.loading[key]
		if !busy {
			l = &load{done: make(chan struct{})}
			c.loading[key] = l
			c.mu.Unlock()
			c.load(key, l, f)
			return l.v, l.err
		}
		c.mu.Unlock()
		select {
		case <-l.done:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		// The one who loaded may have been cancelled, which is no answer for us.
		if l.err == nil || !errors.Is(l.err, context.Canceled) && !errors.Is(l.err, context.DeadlineExceeded) {
			return l.v, l.err
		}
	}
}

// peek returns the value for key, nil if it is not there.
func (c *cache) peek(key cacheKey) any {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.entries[key]
	if !ok {
		return nil
	}
	c.order.MoveToFront(e)
	return e.Value.(*cached).v
}

// add keeps a value that was made without get.
func (c *cache) add(key cacheKey, v any, size int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.entries[key]; !ok {
		c.keep(key, v, size)
	}
}

func (c *cache) load(key cacheKey, l *load, f func() (any, int64, error)) {
	var size int64
	l.v, size, l.err = f()
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.loading, key)
	close(l.done)
	if _, ok := c.entries[key]; l.err == nil && !ok {
		c.keep(key, l.v, size)
	}
}

// keep is called with mu held, for a key that has no entry.
func (c *cache) keep(key cacheKey, v any, size int64) {
	if size > c.limit {
		return
	}
	c.entries[key] = c.order.PushFront(&cached{key, v, size})
	for c.size += size; c.size > c.limit; {
		last := c.order.Back()
		old := last.Value.(*cached)
		c.order.Remove(last)
		delete(c.entries, old.key)
		c.size -= old.size
	}
}
