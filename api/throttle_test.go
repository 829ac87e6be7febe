package api

import (
	"fmt"
	"strconv"
	"testing"
	"testing/synctest"
	"time"
)

func TestACallerThatIsTooFastIsToldWhenToComeBack(t *testing.T) {
	t.Parallel()
	s := newSite(t, func(c *Config) { c.Throttle = Throttle{Reads: 0.01, Writes: 0.01, Burst: 300} })
	first := s.must(201, "PUT", vaultURL, vaultIn)
	if got := first.header.Get("x-ms-ratelimit-remaining-subscription-writes"); got != "2" {
		t.Errorf("after the first of 3 writes %q are left", got)
	}
	for range 3 {
		s.must(200, "GET", vaultURL, "")
	}
	a := s.send(RoleContributor, "GET", vaultURL, "")
	seconds, err := strconv.Atoi(a.header.Get("Retry-After"))
	if a.status != 429 || a.at("error.code") != "TooManyRequests" || err != nil || seconds < 90 || seconds > 100 || a.header.Get("x-ms-ratelimit-remaining-subscription-reads") != "0" {
		t.Fatalf("got %s with %v, want 429 and to come back after about 100 s", a, a.header)
	}
	if a := s.send(RoleReader, "GET", vaultURL, ""); a.status != 200 {
		t.Errorf("another token is held up: %s", a)
	}
	if a := s.send(RoleContributor, "GET", "/subscriptions/other/providers/Microsoft.RecoveryServices/vaults", ""); a.status != 200 {
		t.Errorf("another subscription is held up: %s", a)
	}
	if a := s.send(RoleContributor, "GET", "/SUBSCRIPTIONS/SUB/providers/Microsoft.RecoveryServices/vaults", ""); a.status != 429 {
		t.Errorf("spelling the subscription otherwise opened another account: %s", a)
	}
	s.must(200, "PUT", vaultURL, vaultIn)
}

func TestRoomComesBackWithTime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		th := newThrottle(Throttle{Reads: 10, Burst: 1})
		key := bucketKey{token: "a"}
		burst := func() (n int) {
			for {
				if _, wait, _ := th.take(key); wait > 0 {
					return n
				}
				n++
			}
		}
		if n := burst(); n != 10 {
			t.Errorf("a quiet caller may send %d at once, want 10", n)
		}
		_, wait, _ := th.take(key)
		time.Sleep(wait)
		if n := burst(); n != 1 {
			t.Errorf("after the wait that was told %d went through, want 1", n)
		}
		time.Sleep(time.Hour)
		if n := burst(); n != 10 {
			t.Errorf("after an hour %d went through, want 10", n)
		}
		if _, _, bounded := th.take(bucketKey{token: "a", write: true}); bounded {
			t.Error("writes are bounded and should not be")
		}
	})
}

func TestBucketsAreBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		th := newThrottle(Throttle{Reads: 1, Burst: 2})
		for i := range maxBuckets {
			th.take(bucketKey{token: "a", subscription: fmt.Sprint(i)})
		}
		refused := 0
		for i := range 10 {
			if _, wait, _ := th.take(bucketKey{token: "a", subscription: fmt.Sprint("new", i)}); wait > 0 {
				refused++
			}
		}
		if len(th.buckets) > maxBuckets+1 || refused != 8 {
			t.Errorf("%d buckets, %d of 10 refused, want one shared bucket that takes 2", len(th.buckets), refused)
		}
		time.Sleep(time.Minute)
		th.take(bucketKey{token: "a", subscription: "fresh"})
		if len(th.buckets) > 2 {
			t.Errorf("%d buckets are kept of callers that went quiet", len(th.buckets))
		}
	})
}
