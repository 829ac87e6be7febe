package throttle

import (
	"sync"
	"time"
)

const (
	burst   = 100 * time.Millisecond // how much of a limit that was not used may be made up for
	recheck = 10 * time.Minute       // the schedule is looked at again: the machine's clock may have been set
)

// Limiter makes senders wait as its schedule says. Its zero value, and a nil one, let everything pass. Safe for concurrent use:
// all who take from it share the limit.
//
// A sender may begin as soon as nothing is owed, whatever the size of its message, and the others then wait until that is paid
// for: over any span the bytes let through are at most the limit's, its burst and one message.
type Limiter struct {
	mu       sync.Mutex // guards the rest
	schedule Schedule
	limit    Limit
	until    time.Time // limit holds before it
	known    bool      // limit and until are those of the schedule
	credit   float64   // bytes that may go at last; negative while some are owed
	last     time.Time
	changed  chan struct{} // closed when the schedule is another
	held     Stopwatch
}

// Set replaces the schedule. Those who wait go by the new one.
func (l *Limiter) Set(s Schedule) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.known && l.schedule.Equal(s) {
		return
	}
	l.settle(time.Now())
	l.schedule, l.known = s, false
	if l.changed != nil {
		close(l.changed)
		l.changed = nil
	}
}

// Limit returns the limit in force.
func (l *Limiter) Limit() Limit {
	if l == nil {
		return Limit{None: true}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.settle(time.Now())
	return l.limit
}

// Held returns for how long somebody has been waiting here so far.
func (l *Limiter) Held() time.Duration {
	if l == nil {
		return 0
	}
	return l.held.Total()
}

// Take waits until n bytes may be sent, or until stop is closed; then it returns false.
func (l *Limiter) Take(n int64, stop <-chan struct{}) bool {
	if l == nil {
		return true
	}
	waited := false
	defer func() {
		if waited {
			l.held.End()
		}
	}()
	for {
		wait, changed := l.try(n)
		if changed == nil {
			return true
		}
		if !waited {
			waited = true
			l.held.Begin()
		}
		t := time.NewTimer(wait)
		select {
		case <-stop:
			t.Stop()
			return false
		case <-changed:
		case <-t.C:
		}
		t.Stop()
	}
}

// try takes n bytes and returns nil, or returns how long to wait and what may end the wait before.
func (l *Limiter) try(n int64) (time.Duration, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	l.settle(now)
	if l.limit.None {
		return 0, nil
	}
	if l.limit.BytesPerSecond > 0 && l.credit >= 0 {
		l.credit -= float64(n)
		return 0, nil
	}
	if l.changed == nil {
		l.changed = make(chan struct{})
	}
	wait := l.until.Sub(now)
	if rate := float64(l.limit.BytesPerSecond); rate > 0 {
		if seconds := -l.credit / rate; seconds < wait.Seconds() { // not beyond what a Duration holds
			wait = time.Duration(seconds*float64(time.Second)) + 1
		}
	}
	return wait, l.changed
}

// settle brings the credit up to now. Of limits that came and went while nobody asked only the first one counts.
func (l *Limiter) settle(now time.Time) {
	if l.known {
		end := now
		if l.until.Before(end) {
			end = l.until
		}
		if span := end.Sub(l.last); span > 0 && !l.limit.None {
			rate := float64(l.limit.BytesPerSecond)
			l.credit = min(l.credit+rate*span.Seconds(), rate*burst.Seconds())
		}
		l.last = now
		if now.Before(l.until) {
			return
		}
	}
	l.limit, l.until = l.schedule.At(now)
	if later := now.Add(recheck); l.until.IsZero() || later.Before(l.until) {
		l.until = later
	}
	if l.limit.None {
		l.credit = 0
	}
	l.known, l.last = true, now
}

// Stopwatch measures for how long at least one of many waits. Its zero value is ready. Safe for concurrent use.
type Stopwatch struct {
	mu    sync.Mutex // guards the rest
	n     int
	since time.Time
	total time.Duration
}

// Begin counts one more.
func (s *Stopwatch) Begin() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.n == 0 {
		s.since = time.Now()
	}
	s.n++
}

// End counts one less; each Begin has one.
func (s *Stopwatch) End() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.n--; s.n == 0 {
		s.total += time.Since(s.since)
	}
}

// Total returns the time so far, with that of those who wait now.
func (s *Stopwatch) Total() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.n > 0 {
		return s.total + time.Since(s.since)
	}
	return s.total
}
