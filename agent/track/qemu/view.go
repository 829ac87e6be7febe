package qemu

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/lifeboat-dr/lifeboat/replicator/block"
)

// readers is how many requests of a view are under way at once.
const readers = 2

// view implements track.View.
type view struct {
	s    *snapshot
	disk Disk
	pool chan *nbdClient // those that nobody uses; nil for one that has to be opened again
	open func() (*nbdClient, error)

	mu    sync.Mutex   // guards the rest
	known block.Extent // whose state is known
	data  []block.Extent
}

func (m *Machine) openView(ctx context.Context, mon *Monitor, s *snapshot, i int, d Disk) (*view, error) {
	err := mon.Do(ctx, "block-export-add", map[string]any{"type": "nbd", "id": viewName(i), "name": viewName(i), "node-name": scratchName(i)}, nil)
	if err != nil {
		return nil, fmt.Errorf("open the view of disk %s: %w", d.ID, err)
	}
	v := &view{s: s, disk: d, pool: make(chan *nbdClient, readers)}
	v.open = func() (*nbdClient, error) {
		return dialNBD(context.WithoutCancel(ctx), m.path(nbdSocket), viewName(i), contextAllocation)
	}
	c, err := v.open()
	if err != nil {
		return nil, fmt.Errorf("open the view of disk %s: %w", d.ID, err)
	}
	if c.size != d.Size {
		return nil, errors.Join(fmt.Errorf("the view of disk %s has %d bytes, the disk %d", d.ID, c.size, d.Size), c.close())
	}
	v.pool <- c
	for range readers - 1 {
		v.pool <- nil
	}
	return v, nil
}

// use runs f with a connection. What f found is of the instant only if use returns nil.
func (v *view) use(f func(*nbdClient) error) error {
	c := <-v.pool
	err := v.s.failure()
	if err == nil && c == nil {
		c, err = v.open()
	}
	if err != nil {
		v.pool <- c
		return err
	}
	err = f(c)
	if err != nil {
		if _, ok := errors.AsType[*nbdError](err); !ok {
			_ = c.close()
			c = nil
		}
	}
	v.pool <- c
	if broken := v.s.failure(); broken != nil {
		return broken
	}
	if err != nil {
		return fmt.Errorf("view of disk %s: %w", v.disk.ID, err)
	}
	return nil
}

// ReadAt implements track.View.
func (v *view) ReadAt(p []byte, off int64) (int, error) {
	for n := 0; n < len(p); {
		q := p[n:min(len(p), n+maxRequest)]
		if err := v.use(func(c *nbdClient) error { return c.readAt(q, off+int64(n)) }); err != nil {
			return n, err
		}
		n += len(q)
	}
	return len(p), nil
}

// NextData implements track.View.
func (v *view) NextData(off int64) (int64, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for off < v.disk.Size {
		if off < v.known.Offset || off >= v.known.End() {
			if err := v.learn(off); err != nil {
				return 0, err
			}
		}
		for _, e := range v.data {
			if e.End() > off {
				return max(off, e.Offset), nil
			}
		}
		off = v.known.End()
	}
	return v.disk.Size, nil
}

// learn asks for the state of blocks from off on.
func (v *view) learn(off int64) error {
	return v.use(func(c *nbdClient) error {
		v.known, v.data = block.Extent{}, v.data[:0]
		end, err := c.statusAt(off, v.disk.Size, func(e block.Extent, flags uint32) {
			if flags&flagZero == 0 {
				v.data = append(v.data, e)
			}
		})
		if err == nil {
			v.known = block.Extent{Offset: off, Length: end - off}
		}
		return err
	})
}

// Buffer implements track.View.
func (v *view) Buffer(size int) []byte { return make([]byte, size) }

// Size implements track.View.
func (v *view) Size() int64 { return v.disk.Size }

// close hangs up. Reads under way end with an error, because the snapshot is broken by then.
func (v *view) close() {
	for range readers {
		if c := <-v.pool; c != nil {
			_ = c.close()
		}
	}
	for range readers {
		v.pool <- nil
	}
}
