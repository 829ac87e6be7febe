package dr

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"
)

// Throttle is what a machine's agent may send when: a policy's extension to what the field has. Outside all windows there is no
// limit; where windows overlap the lowest holds.
type Throttle struct {
	Zone    string           `json:"zone,omitempty"` // IANA; empty: each machine's own
	Windows []ThrottleWindow `json:"windows,omitempty"`
}

// ThrottleWindow is a time of the week with a limit. It ends on the next day when To is not later than From.
type ThrottleWindow struct {
	Days           []string `json:"days,omitempty"` // English names; empty: every day
	From           string   `json:"from"`           // such as 08:00
	To             string   `json:"to"`             // such as 18:00; 24:00 is the day's end
	BytesPerSecond int64    `json:"bytesPerSecond"` // 0: nothing is sent
}

const (
	throttleField = "throttle"
	maxWindows    = 64
	clockLayout   = "15:04"
	endOfDay      = "24:00"
)

// readThrottle reads a policy's throttle; nothing for null and for none.
func readThrottle(raw json.RawMessage) (t Throttle, refusal *Error) {
	if len(raw) == 0 || string(raw) == "null" {
		return t, nil
	}
	if err := json.Unmarshal(raw, &t); err != nil {
		return t, invalid("throttle is not an object with zone and windows", `send such as {"zone":"Europe/Berlin","windows":[{"from":"08:00","to":"18:00","bytesPerSecond":2500000}]}`)
	}
	if _, err := time.LoadLocation(t.Zone); err != nil {
		return t, invalid(fmt.Sprintf("throttle.zone is %q, which is no time zone", t.Zone), "send an IANA name such as Europe/Berlin, or none for each machine's own")
	}
	if len(t.Windows) > maxWindows {
		return t, invalid(fmt.Sprintf("throttle has %d windows", len(t.Windows)), fmt.Sprintf("send at most %d", maxWindows))
	}
	for i, w := range t.Windows {
		name := fmt.Sprintf("throttle.windows[%d]", i)
		if w.BytesPerSecond < 0 {
			return t, invalid(fmt.Sprintf("%s.bytesPerSecond is %d", name, w.BytesPerSecond), "send 0 for nothing at all, or more")
		}
		if !clock(w.From) || w.To != endOfDay && !clock(w.To) {
			return t, invalid(fmt.Sprintf("%s is from %q to %q", name, w.From, w.To), "send hours and minutes, such as 08:00, for both")
		}
		for _, d := range w.Days {
			if !slices.Contains(weekdays, d) {
				return t, invalid(fmt.Sprintf("%s has the day %q", name, d), "send English names such as Monday")
			}
		}
	}
	return t, nil
}

func clock(s string) bool {
	_, err := time.Parse(clockLayout, s)
	return err == nil && len(s) == len(clockLayout)
}

var weekdays = func() (names []string) {
	for d := time.Sunday; d <= time.Saturday; d++ {
		names = append(names, d.String())
	}
	return names
}()
