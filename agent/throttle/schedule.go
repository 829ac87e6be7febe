// Package throttle keeps the agent's traffic below what the machine's owner allows by hour and weekday. It owns the schedule of
// limits and the wait before each message; it never drops or reorders anything, and never holds back what the link needs to live.
package throttle

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// ErrInvalid is a schedule, a time of day or a rate that means nothing. The error's text says what to write instead.
var ErrInvalid = errors.New("throttle: invalid")

// maxWindows bounds a schedule.
const maxWindows = 64

const (
	day    = 24 * time.Hour
	layout = "15:04"
)

// Window is a time of the week with a limit. It begins at From on each of Days and ends at To, on the next day when To is not
// later than From.
type Window struct {
	Days           []time.Weekday // empty: every day
	From, To       time.Duration  // wall clock since midnight, 0 <= From < 24h, 0 <= To <= 24h
	BytesPerSecond int64          // 0: nothing is sent
}

// Schedule is what is allowed when. Outside all windows there is no limit; where windows overlap the lowest holds. The zero value
// allows everything. A Schedule is not changed once it is in use.
type Schedule struct {
	Windows []Window
	Zone    *time.Location // of the windows; nil: the machine's own
}

// Limit is what a schedule allows at a time.
type Limit struct {
	BytesPerSecond int64
	None           bool // there is no limit
}

func (l Limit) below(o Limit) bool { return !l.None && (o.None || l.BytesPerSecond < o.BytesPerSecond) }

// String names the limit for people.
func (l Limit) String() string {
	if l.None {
		return "no limit"
	}
	return fmt.Sprintf("%d bytes/s", l.BytesPerSecond)
}

// Check tells what is wrong with a schedule; nil or an ErrInvalid.
func (s Schedule) Check() error {
	if len(s.Windows) > maxWindows {
		return fmt.Errorf("%w: %d windows in a throttle, at most %d are allowed", ErrInvalid, len(s.Windows), maxWindows)
	}
	for _, w := range s.Windows {
		switch {
		case w.From < 0 || w.From >= day || w.To < 0 || w.To > day:
			return fmt.Errorf("%w: a throttle window from %v to %v is outside the day", ErrInvalid, w.From, w.To)
		case w.BytesPerSecond < 0:
			return fmt.Errorf("%w: a throttle of %d bytes/s; write 0 to send nothing", ErrInvalid, w.BytesPerSecond)
		}
		for _, d := range w.Days {
			if d < time.Sunday || d > time.Saturday {
				return fmt.Errorf("%w: weekday %d", ErrInvalid, d)
			}
		}
	}
	return nil
}

// Equal tells whether both allow the same at all times, as far as their text goes.
func (s Schedule) Equal(o Schedule) bool {
	return s.zone().String() == o.zone().String() && slices.EqualFunc(s.Windows, o.Windows, func(a, b Window) bool {
		return slices.Equal(a.Days, b.Days) && a.From == b.From && a.To == b.To && a.BytesPerSecond == b.BytesPerSecond
	})
}

func (s Schedule) zone() *time.Location {
	if s.Zone == nil {
		return time.Local
	}
	return s.Zone
}

// At returns the limit at t and the next time at which it may be another; the zero time when that never is. Where clocks are
// put forward or back, windows begin and end by the wall clock.
func (s Schedule) At(t time.Time) (Limit, time.Time) {
	now := Limit{None: true}
	var until time.Time
	y, m, d := t.In(s.zone()).Date()
	at := func(days int, clock time.Duration) time.Time {
		return time.Date(y, m, d+days, int(clock/time.Hour), int(clock%time.Hour/time.Minute), int(clock%time.Minute/time.Second), 0, s.zone())
	}
	border := func(b time.Time) {
		if b.After(t) && (until.IsZero() || b.Before(until)) {
			until = b
		}
	}
	for _, w := range s.Windows {
		for days := -1; days <= 7; days++ { // from yesterday's, which may last into today, to the next of a weekly one
			weekday := time.Date(y, m, d+days, 12, 0, 0, 0, time.UTC).Weekday()
			if len(w.Days) > 0 && !slices.Contains(w.Days, weekday) {
				continue
			}
			from, to := at(days, w.From), at(days, w.To)
			if w.To <= w.From {
				to = at(days+1, w.To)
			}
			if l := (Limit{BytesPerSecond: w.BytesPerSecond}); !t.Before(from) && t.Before(to) && l.below(now) {
				now = l
			}
			border(from)
			border(to)
		}
	}
	return now, until
}

// ParseClock reads a time of day such as 08:30; 24:00 is the end of the day.
func ParseClock(s string) (time.Duration, error) {
	if s == "24:00" {
		return day, nil
	}
	t, err := time.Parse(layout, s)
	if err != nil {
		return 0, fmt.Errorf("%w: time of day %q; write hours and minutes, such as 08:30", ErrInvalid, s)
	}
	return time.Duration(t.Hour())*time.Hour + time.Duration(t.Minute())*time.Minute, nil
}

// ParseDay reads a weekday: its English name, in any case and cut after three letters or more.
func ParseDay(s string) (time.Weekday, error) {
	for d := time.Sunday; d <= time.Saturday; d++ {
		if name := strings.ToLower(d.String()); len(s) >= 3 && strings.HasPrefix(name, strings.ToLower(s)) {
			return d, nil
		}
	}
	return 0, fmt.Errorf("%w: weekday %q; write mon, tue, wed, thu, fri, sat or sun", ErrInvalid, s)
}
