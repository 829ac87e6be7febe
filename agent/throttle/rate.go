package throttle

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// ParseRate reads a rate into bytes per second: a number with K, M or G for powers of 1000, optionally followed by B, or by
// bit for an eighth of it. So 50M and 50MB are 50,000,000 bytes/s, and 50Mbit 6,250,000.
func ParseRate(s string) (int64, error) {
	refuse := func() (int64, error) {
		return 0, fmt.Errorf("%w: rate %q; write bytes per second such as 500K, 50M or 1.5G, or bits such as 400Mbit", ErrInvalid, s)
	}
	text := strings.ToLower(strings.TrimSuffix(strings.TrimSpace(s), "/s"))
	scale := 1.0
	if rest, ok := strings.CutSuffix(text, "bit"); ok {
		text, scale = rest, 1.0/8
	} else {
		text = strings.TrimSuffix(text, "b")
	}
	for suffix, factor := range map[string]float64{"k": 1e3, "m": 1e6, "g": 1e9} {
		if rest, ok := strings.CutSuffix(text, suffix); ok {
			text, scale = rest, scale*factor
			break
		}
	}
	n, err := strconv.ParseFloat(text, 64)
	if err != nil || math.IsNaN(n) || n < 0 || n*scale > 1e15 {
		return refuse()
	}
	return int64(math.Round(n * scale)), nil
}
