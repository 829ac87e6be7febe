package main

import (
	"fmt"
	"time"

	"github.com/lifeboat-dr/lifeboat/agent/throttle"
)

// throttleEntry limits what this agent sends, whatever lifeboatd says.
type throttleEntry struct {
	Zone    string        `koanf:"zone"`
	Windows []windowEntry `koanf:"windows"`
}

type windowEntry struct {
	Days  []string `koanf:"days"`
	From  string   `koanf:"from"`
	To    string   `koanf:"to"`
	Limit string   `koanf:"limit"`
}

// limiter returns nil when there is no throttle.
func (e throttleEntry) limiter() (*throttle.Limiter, error) {
	if len(e.Windows) == 0 {
		return nil, nil
	}
	var s throttle.Schedule
	var err error
	if e.Zone != "" {
		if s.Zone, err = time.LoadLocation(e.Zone); err != nil {
			return nil, fmt.Errorf("throttle: time zone %q: write an IANA name such as Europe/Berlin: %w", e.Zone, err)
		}
	}
	for i, w := range e.Windows {
		x, err := w.window()
		if err != nil {
			return nil, fmt.Errorf("throttle window %d: %w", i+1, err)
		}
		s.Windows = append(s.Windows, x)
	}
	if err := s.Check(); err != nil {
		return nil, err
	}
	l := new(throttle.Limiter)
	l.Set(s)
	return l, nil
}

// window reads an entry. Without from and to it lasts all day.
func (e windowEntry) window() (w throttle.Window, err error) {
	if w.BytesPerSecond, err = throttle.ParseRate(e.Limit); err != nil {
		return w, err
	}
	for _, c := range []struct {
		text string
		to   *time.Duration
	}{{e.From, &w.From}, {e.To, &w.To}} {
		if c.text == "" {
			continue
		}
		if *c.to, err = throttle.ParseClock(c.text); err != nil {
			return w, err
		}
	}
	for _, d := range e.Days {
		day, err := throttle.ParseDay(d)
		if err != nil {
			return w, err
		}
		w.Days = append(w.Days, day)
	}
	return w, nil
}
