package api

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Throttle bounds how fast a token may call, apart for each subscription and for reads and writes, as the field's service does.
// A zero rate does not bound.
type Throttle struct {
	// Reads and Writes are requests per second that may go on for ever.
	Reads, Writes float64
	// Burst is for how many seconds' worth of requests a caller that was quiet may exceed its rate. Zero means 10.
	Burst float64
}

// maxBuckets bounds what is remembered: a caller can name any number of subscriptions.
const maxBuckets = 10_000

// throttle refuses requests beyond the rate. A bucket is a time: how far it lies ahead of now is how much was used up. It is
// safe for concurrent use.
type throttle struct {
	limits Throttle
	now    func() time.Time

	mu      sync.Mutex // guards buckets
	buckets map[bucketKey]time.Time
}

type bucketKey struct {
	token, subscription string
	write               bool
}

func newThrottle(t Throttle) *throttle {
	if t.Burst <= 0 {
		t.Burst = 10
	}
	return &throttle{limits: t, now: time.Now, buckets: map[bucketKey]time.Time{}}
}

// take counts a request. It returns how many more may follow at once, or how long the caller has to wait. bounded is false
// where there is no limit.
func (t *throttle) take(key bucketKey) (left int, wait time.Duration, bounded bool) {
	rate := t.limits.Reads
	if key.write {
		rate = t.limits.Writes
	}
	if rate <= 0 {
		return 0, 0, false
	}
	cost := time.Duration(float64(time.Second) / rate)
	room := max(time.Duration(t.limits.Burst*float64(time.Second)), cost)
	now := t.now()
	t.mu.Lock()
	defer t.mu.Unlock()
	used, ok := t.buckets[key]
	if !ok && len(t.buckets) >= maxBuckets {
		if t.forget(now); len(t.buckets) >= maxBuckets {
			key.subscription = "" // all that are new share one until others have been quiet
			used = t.buckets[key]
		}
	}
	if used.Before(now) {
		used = now
	}
	used = used.Add(cost)
	if over := used.Sub(now) - room; over > 0 {
		return 0, over, true
	}
	t.buckets[key] = used
	return int((room - used.Sub(now)) / cost), 0, true
}

// forget drops the buckets of callers that have been quiet long enough to have all their room back.
func (t *throttle) forget(now time.Time) {
	for k, used := range t.buckets {
		if !used.After(now) {
			delete(t.buckets, k)
		}
	}
}

// slow answers 429 to a token that calls too fast, and tells everyone else how many requests are left.
func (s *server) slow(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		x := of(r)
		write := r.Method != http.MethodGet && r.Method != http.MethodHead
		left, wait, bounded := s.throttle.take(bucketKey{token: x.token.Name, subscription: subscriptionOf(x.path), write: write})
		if !bounded {
			next.ServeHTTP(w, r)
			return
		}
		kind := "reads"
		if write {
			kind = "writes"
		}
		w.Header().Set("x-ms-ratelimit-remaining-subscription-"+kind, strconv.Itoa(left))
		if wait > 0 {
			seconds := int((wait + time.Second - 1) / time.Second)
			s.refuse(w, r, refusal{Status: http.StatusTooManyRequests, Code: "TooManyRequests", RetryAfter: seconds,
				Message: fmt.Sprintf("%s sends more %s than this server allows", x.token.Name, kind), Causes: "requests come faster than the server's limit for one token and subscription",
				Action: fmt.Sprintf("try again after %d s, and poll as seldom as Retry-After says", seconds)})
			return
		}
		next.ServeHTTP(w, r)
	})
}

// subscriptionOf is the subscription in a path, in lower case; empty where there is none. It is cut to what one can be long.
func subscriptionOf(path string) string {
	parts := strings.SplitN(path, "/", 4)
	if len(parts) < 3 || !strings.EqualFold(parts[1], "subscriptions") {
		return ""
	}
	name := strings.ToLower(parts[2])
	return name[:min(len(name), 64)]
}
