package throttle

import (
	"fmt"
	"time"

	"github.com/lifeboat-dr/lifeboat/sdk/fleet"
)

// FromWire reads a schedule as lifeboatd sends it. An error is ErrInvalid: this machine may not know the zone.
func FromWire(t fleet.Throttle) (s Schedule, err error) {
	if t.Zone != "" {
		if s.Zone, err = time.LoadLocation(t.Zone); err != nil {
			return Schedule{}, fmt.Errorf("%w: time zone %q: %w", ErrInvalid, t.Zone, err)
		}
	}
	for _, w := range t.Windows {
		x := Window{BytesPerSecond: w.BytesPerSecond}
		if x.From, err = ParseClock(w.From); err != nil {
			return Schedule{}, err
		}
		if x.To, err = ParseClock(w.To); err != nil {
			return Schedule{}, err
		}
		for _, d := range w.Days {
			day, err := ParseDay(string(d))
			if err != nil {
				return Schedule{}, err
			}
			x.Days = append(x.Days, day)
		}
		s.Windows = append(s.Windows, x)
	}
	return s, s.Check()
}
