package throttle_test

import (
	"errors"
	"testing"
	"time"

	"github.com/lifeboat-dr/lifeboat/agent/throttle"
)

func zone(t *testing.T, name string) *time.Location {
	t.Helper()
	z, err := time.LoadLocation(name)
	if err != nil {
		t.Fatalf("%v: install tzdata (Debian)", err)
	}
	return z
}

func clock(t *testing.T, s string) time.Duration {
	t.Helper()
	d, err := throttle.ParseClock(s)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestALimitHoldsInItsWindow(t *testing.T) {
	t.Parallel()
	berlin := zone(t, "Europe/Berlin")
	work := []time.Weekday{time.Monday, time.Tuesday, time.Wednesday, time.Thursday, time.Friday}
	schedule := throttle.Schedule{Zone: berlin, Windows: []throttle.Window{
		{Days: work, From: clock(t, "08:00"), To: clock(t, "18:00"), BytesPerSecond: 10},
		{From: clock(t, "12:00"), To: clock(t, "13:00"), BytesPerSecond: 5},
		{Days: []time.Weekday{time.Saturday}, From: clock(t, "22:00"), To: clock(t, "06:00"), BytesPerSecond: 7},
		{Days: []time.Weekday{time.Sunday}, From: clock(t, "20:00"), To: clock(t, "24:00"), BytesPerSecond: 0},
	}}
	for name, tc := range map[string]struct{ at, limit, until string }{
		"before work":                        {"2026-11-23T07:59:59+01:00", "no limit", "2026-11-23T08:00:00+01:00"},
		"work begins":                        {"2026-11-23T08:00:00+01:00", "10 bytes/s", "2026-11-23T12:00:00+01:00"},
		"the lower of two":                   {"2026-11-23T12:30:00+01:00", "5 bytes/s", "2026-11-23T13:00:00+01:00"},
		"the time is the zone's":             {"2026-11-23T16:59:59Z", "10 bytes/s", "2026-11-23T17:00:00Z"},
		"work has ended":                     {"2026-11-23T18:00:00+01:00", "no limit", "2026-11-24T08:00:00+01:00"},
		"a weekend's morning":                {"2026-11-28T09:00:00+01:00", "no limit", "2026-11-28T12:00:00+01:00"},
		"a night begins":                     {"2026-11-28T22:00:00+01:00", "7 bytes/s", "2026-11-29T06:00:00+01:00"},
		"a night goes on":                    {"2026-11-29T05:59:59+01:00", "7 bytes/s", "2026-11-29T06:00:00+01:00"},
		"the next night is not meant":        {"2026-11-30T05:00:00+01:00", "no limit", "2026-11-30T08:00:00+01:00"},
		"nothing is sent":                    {"2026-11-29T23:59:59+01:00", "0 bytes/s", "2026-11-30T00:00:00+01:00"},
		"an hour is missing (29 March)":      {"2026-03-28T23:00:00+01:00", "7 bytes/s", "2026-03-29T06:00:00+02:00"},
		"an hour comes twice (25 October)":   {"2026-10-24T23:00:00+02:00", "7 bytes/s", "2026-10-25T06:00:00+01:00"},
		"within the hour that comes twice":   {"2026-10-25T02:30:00+01:00", "7 bytes/s", "2026-10-25T06:00:00+01:00"},
		"a Monday, seen from the Sunday 23h": {"2026-11-22T23:30:00Z", "no limit", "2026-11-23T07:00:00Z"},
	} {
		at, err := time.Parse(time.RFC3339, tc.at)
		if err != nil {
			t.Fatal(err)
		}
		want, err := time.Parse(time.RFC3339, tc.until)
		if err != nil {
			t.Fatal(err)
		}
		limit, until := schedule.At(at)
		if limit.String() != tc.limit || !until.Equal(want) {
			t.Errorf("%s: got %v until %v, want %s until %v", name, limit, until.In(want.Location()), tc.limit, want)
		}
	}
	if limit, until := (throttle.Schedule{}).At(time.Now()); !limit.None || !until.IsZero() {
		t.Errorf("got %v until %v without windows, want no limit for ever", limit, until)
	}
	all := throttle.Schedule{Zone: time.UTC, Windows: []throttle.Window{{BytesPerSecond: 3}}}
	if limit, _ := all.At(time.Date(2026, 11, 23, 13, 0, 0, 0, time.UTC)); limit.BytesPerSecond != 3 || limit.None {
		t.Errorf("got %v of a window from 0:00 to 0:00, want it to last all day", limit)
	}
}

func TestSchedulesThatMeanNothingAreRefused(t *testing.T) {
	t.Parallel()
	for name, s := range map[string]throttle.Schedule{
		"a window after the day":  {Windows: []throttle.Window{{From: 24 * time.Hour}}},
		"a negative limit":        {Windows: []throttle.Window{{BytesPerSecond: -1}}},
		"an eighth day":           {Windows: []throttle.Window{{Days: []time.Weekday{7}}}},
		"more windows than there": {Windows: make([]throttle.Window, 65)},
	} {
		if err := s.Check(); !errors.Is(err, throttle.ErrInvalid) {
			t.Errorf("%s: got %v, want ErrInvalid", name, err)
		}
	}
	if err := (throttle.Schedule{Windows: make([]throttle.Window, 64)}).Check(); err != nil {
		t.Error(err)
	}
}

func TestRatesAreRead(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]int64{"0": 0, "1500": 1500, "500K": 500_000, "50M": 50_000_000, "50MB/s": 50_000_000, "1.5g": 1_500_000_000,
		"400Mbit": 50_000_000, "8bit": 1, "9600 bit": -1, "-1": -1, "": -1, "M": -1, "fast": -1, "1e30": -1, "NaN": -1, "5MiB": -1} {
		got, err := throttle.ParseRate(text)
		if want < 0 && !errors.Is(err, throttle.ErrInvalid) || want >= 0 && (err != nil || got != want) {
			t.Errorf("%q: got %d, %v; want %d", text, got, err, want)
		}
	}
}

func TestClocksAndDaysAreRead(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]time.Duration{"00:00": 0, "08:30": 8*time.Hour + 30*time.Minute, "24:00": 24 * time.Hour, "24:01": -1, "8": -1, "08:60": -1, "": -1} {
		got, err := throttle.ParseClock(text)
		if want < 0 && !errors.Is(err, throttle.ErrInvalid) || want >= 0 && (err != nil || got != want) {
			t.Errorf("%q: got %v, %v; want %v", text, got, err, want)
		}
	}
	for text, want := range map[string]time.Weekday{"mon": time.Monday, "Monday": time.Monday, "SUN": time.Sunday, "th": -1, "thurs": time.Thursday, "frosday": -1, "": -1} {
		got, err := throttle.ParseDay(text)
		if want < 0 && !errors.Is(err, throttle.ErrInvalid) || want >= 0 && (err != nil || got != want) {
			t.Errorf("%q: got %v, %v; want %v", text, got, err, want)
		}
	}
}
