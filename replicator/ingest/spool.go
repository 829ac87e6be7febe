package ingest

import (
	"context"
	"sync"
	"time"
)

// spool counts the bytes that sessions took in and that are not in a bucket yet: used <= limit, but for one message when a
// single one is larger. Who finds it full asks all sessions to bring theirs to the bucket and waits.
type spool struct {
	limit int64

	mu       sync.Mutex
	used     int64
	freed    chan struct{} // closed and replaced when used falls
	pressure chan struct{} // closed and replaced when somebody waits
}

func newSpool(limit int64) *spool {
	return &spool{limit: limit, freed: make(chan struct{}), pressure: make(chan struct{})}
}

// take reserves n bytes if there is room.
func (s *spool) take(n int64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.used > 0 && s.used+n > s.limit {
		return false
	}
	s.used += n
	return true
}

func (s *spool) give(n int64) {
	if n == 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.used -= n
	close(s.freed)
	s.freed = make(chan struct{})
}

// wait asks the other sessions for room and returns once some was given back or ctx ended.
func (s *spool) wait(ctx context.Context) error {
	s.mu.Lock()
	freed := s.freed
	close(s.pressure)
	s.pressure = make(chan struct{})
	s.mu.Unlock()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-freed:
		return nil
	case <-time.After(time.Second): // a session may have taken bytes in after it was asked
		return nil
	}
}

// pressed is closed when somebody waits for room.
func (s *spool) pressed() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.pressure
}

func (s *spool) bytes() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.used
}

// meter counts bytes and averages them over the last seconds.
type meter struct {
	mu      sync.Mutex
	total   int64
	seconds [meterSeconds]int64
	newest  int64 // unix second of the newest slot
}

const meterSeconds = 8

func (m *meter) add(n int64, now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.advance(now.Unix())
	m.total += n
	m.seconds[m.newest%meterSeconds] += n
}

// rate returns bytes per second over the whole seconds in view.
func (m *meter) rate(now time.Time) int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.advance(now.Unix())
	var sum int64
	for i, n := range m.seconds {
		if int64(i) != m.newest%meterSeconds {
			sum += n
		}
	}
	return sum / (meterSeconds - 1)
}

func (m *meter) advance(now int64) {
	if now-m.newest >= meterSeconds {
		clear(m.seconds[:])
		m.newest = now
	}
	for m.newest < now {
		m.newest++
		m.seconds[m.newest%meterSeconds] = 0
	}
}
