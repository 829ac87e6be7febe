package ship

import (
	"errors"
	"fmt"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/lifeboat-dr/lifeboat/agent/track/scan"
)

// errSpoolFull is a last pass that found more than the spool may hold.
var errSpoolFull = errors.New("ship: more changed than fits into memory")

// spool holds what the last pass finds while the filesystems are frozen: memory that was touched before, and cannot be swapped
// out to a disk where that is allowed. Safe for concurrent use by a pass.
type spool struct {
	limit int64
	mem   []byte

	mu      sync.Mutex // guards the rest
	used    int        // bytes of mem
	weight  int        // used and what the changes' lists take: weight <= len(mem)
	changes []kept
}

type kept struct {
	disk int
	c    scan.Change
}

// A spool starts with firstSpool, or with spoolMargin times what the last pass before the freeze found. After a window that needed more
// it has all it may have.
const (
	firstSpool  = 8 << 20
	spoolMargin = 4
)

// grow makes the spool empty and as large as asked for, but not beyond its limit.
func (s *spool) grow(size int64) error {
	size = min(size, s.limit)
	if size == s.size() {
		return nil
	}
	s.close()
	mem, err := unix.Mmap(-1, 0, int(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE|unix.MAP_POPULATE)
	if err != nil {
		return fmt.Errorf("reserve %d bytes for the freeze window: %w", size, err)
	}
	_ = unix.Mlock(mem) // only a help: without it the machine's swap may take part
	s.mem, s.changes = mem, make([]kept, 0, 1024)
	return nil
}

func (s *spool) size() int64 { return int64(len(s.mem)) }

// keep copies a change.
func (s *spool) keep(disk int, c *scan.Change) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	weight := len(c.Data) + 256 + 64*len(c.Index)
	if s.weight+weight > len(s.mem) {
		return errSpoolFull
	}
	s.weight += weight
	k := c.Clone(s.mem[s.used : s.used : s.used+len(c.Data)])
	s.used += len(c.Data)
	s.changes = append(s.changes, kept{disk, k})
	return nil
}

// each hands out the changes in the order they came.
func (s *spool) each(f func(disk int, c *scan.Change) error) error {
	for i := range s.changes {
		if err := f(s.changes[i].disk, &s.changes[i].c); err != nil {
			return err
		}
	}
	return nil
}

func (s *spool) reset() { s.used, s.weight, s.changes = 0, 0, s.changes[:0] }

func (s *spool) close() {
	if s.mem != nil {
		_ = unix.Munmap(s.mem)
		s.mem = nil
	}
	s.reset()
}
