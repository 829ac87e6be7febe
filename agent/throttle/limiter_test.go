package throttle_test

import (
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lifeboat-dr/lifeboat/agent/throttle"
)

// A bubble begins at midnight UTC on Saturday, 1 January 2000.
var never chan struct{} // nil: nobody stops the sender

// send takes total bytes in messages, with so many senders, and returns how long that took.
func send(t *testing.T, l *throttle.Limiter, senders, messages int, size int64) time.Duration {
	t.Helper()
	start := time.Now()
	var wg sync.WaitGroup
	for range senders {
		wg.Go(func() {
			for range messages {
				if !l.Take(size, never) {
					t.Error("a sender was stopped")
				}
			}
		})
	}
	wg.Wait()
	return time.Since(start)
}

func near(got, want time.Duration) bool { return got >= want-want/20 && got <= want+want/20 }

func TestSendersShareALimit(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var l throttle.Limiter
		l.Set(throttle.Schedule{Windows: []throttle.Window{{BytesPerSecond: 1 << 20}}})
		// 63 MiB have to be paid for before the 64th message may go.
		if got, want := send(t, &l, 2, 32, 1<<20), 63*time.Second; !near(got, want) {
			t.Errorf("64 MiB at 1 MiB/s took %v, want %v", got, want)
		}
		if got, want := l.Held(), 63*time.Second; !near(got, want) {
			t.Errorf("senders were held for %v, want %v", got, want)
		}
		time.Sleep(time.Hour) // saves nothing up
		if got, want := send(t, &l, 1, 101, 1<<20), 100*time.Second; !near(got, want) {
			t.Errorf("after a pause 101 MiB took %v, want %v", got, want)
		}
	})
}

func TestTheLimitChangesAtTheBordersOfWindows(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var l throttle.Limiter
		l.Set(throttle.Schedule{Zone: time.UTC, Windows: []throttle.Window{
			{Days: []time.Weekday{time.Saturday}, From: 0, To: time.Hour, BytesPerSecond: 1000},
			{Days: []time.Weekday{time.Saturday}, From: time.Hour, To: 2 * time.Hour, BytesPerSecond: 10_000},
			{Days: []time.Weekday{time.Saturday}, From: 2 * time.Hour, To: 3 * time.Hour, BytesPerSecond: 0},
		}})
		start := time.Now()
		var at [4]int64 // bytes that went in each hour
		for range 40_000 + 3_600 {
			if !l.Take(1000, never) {
				t.Fatal("stopped")
			}
			at[min(3, int(time.Since(start)/time.Hour))] += 1000
			if l.Limit().None {
				break
			}
		}
		for hour, want := range []int64{3_600_000, 36_000_000, 0} {
			if got := at[hour]; got < want-want/100-1000 || got > want+want/100+1000 {
				t.Errorf("got %d bytes in hour %d, want %d", got, hour, want)
			}
		}
		if got, want := time.Since(start), 3*time.Hour; got != want {
			t.Errorf("the limit ended after %v, want %v", got, want)
		}
		if took := send(t, &l, 1, 1000, 1<<30); took != 0 {
			t.Errorf("without a limit 1 TiB took %v, want no wait", took)
		}
	})
}

func TestAMessageLargerThanALimitGoesAndIsPaidFor(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var l throttle.Limiter
		l.Set(throttle.Schedule{Windows: []throttle.Window{{BytesPerSecond: 100}}})
		if got, want := send(t, &l, 1, 2, 1<<20), (1<<20)/100*time.Second; !near(got, want) {
			t.Errorf("got %v for the second MiB at 100 bytes/s, want %v", got, want)
		}
	})
}

func TestAnotherScheduleWakesThoseWhoWait(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var l throttle.Limiter
		l.Set(throttle.Schedule{Windows: []throttle.Window{{BytesPerSecond: 0}}})
		done := make(chan time.Duration)
		go func() { done <- send(t, &l, 3, 1, 1000) }()
		time.Sleep(40 * time.Minute) // past a look at the clock
		synctest.Wait()
		select {
		case <-done:
			t.Fatal("sent though nothing may be sent")
		default:
		}
		l.Set(throttle.Schedule{})
		if got, want := <-done, 40*time.Minute; got != want {
			t.Errorf("went after %v, want %v", got, want)
		}
		if got, want := l.Held(), 40*time.Minute; got != want {
			t.Errorf("held for %v, want %v", got, want)
		}
	})
}

func TestASenderThatIsStoppedTakesNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var l throttle.Limiter
		l.Set(throttle.Schedule{Windows: []throttle.Window{{BytesPerSecond: 0}}})
		stop := make(chan struct{})
		time.AfterFunc(time.Minute, func() { close(stop) })
		if l.Take(1, stop) {
			t.Error("took though nothing may be sent")
		}
		var none *throttle.Limiter
		if !none.Take(1<<40, never) || !none.Limit().None || none.Held() != 0 {
			t.Error("no limiter limits")
		}
	})
}
