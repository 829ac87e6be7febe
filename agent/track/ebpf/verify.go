package ebpf

import (
	"errors"
	"fmt"
	"os"
	"time"

	cilium "github.com/cilium/ebpf"

	"github.com/lifeboat-dr/lifeboat/agent/track"
)

// ErrUnchecked is what Verify returns when the accounting could not be done: requests were in flight all the time, or the kernel
// does not count for this disk. Nothing is known to be missing.
var ErrUnchecked = errors.New("ebpf: the marks were not checked")

// Verify compares the bytes that were marked with those that the kernel counted, at an instant without requests in flight. It is
// meant for the time in which the filesystems are frozen, after Seal; frozen says so, and that it may wait some milliseconds for
// that instant. It returns track.ErrLost when a mark is missing, since the last Verify that returned nil: the epoch sealed last is
// lost then. ErrUnchecked when there was no such instant. It writes and logs nothing.
func (t *Tracker) Verify(frozen bool) error {
	if t.kept == nil {
		return fmt.Errorf("verify: %w", os.ErrClosed)
	}
	var limit time.Duration
	if frozen {
		limit = 50 * time.Millisecond
	}
	known := t.state.based == 1
	off, err := t.balance(limit)
	switch {
	case err != nil:
		return err
	case !known:
		return fmt.Errorf("%w: disk %s was never without requests since it is tracked", ErrUnchecked, t.dev.Name())
	case off == 0:
		t.stats.Verified++
		return nil
	case !t.dev.Requests && t.state.counts == 0 && off > 0:
		return fmt.Errorf("%w: the driver of disk %s does not count what it writes", ErrUnchecked, t.dev.Name())
	}
	t.stats.Mismatched++
	t.state.lost = 1
	why := fmt.Errorf("the bytes that were marked and those that the kernel counted differ by %d", off)
	t.book.Lose(why)
	return fmt.Errorf("%w on disk %s: %w", track.ErrLost, t.dev.Name(), why)
}

// Verify does so for all disks that have a Tracker, and joins what they say. The trackers are not used meanwhile.
func (m *Machine) Verify(frozen bool) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	var errs []error
	for _, t := range m.trackers {
		errs = append(errs, t.Verify(frozen))
	}
	return errors.Join(errs...)
}

// idle tells whether the disk was without requests at an instant during the call, so that all that was marked before is done. Some
// kernels count a request a moment after it is issued, so its completion must have been seen, too.
func (t *Tracker) idle() bool {
	if !t.dev.Counting() || t.state.based == 0 {
		return false
	}
	if t.dev.Requests {
		if s := t.m.sum(t.slot); s.owed() != t.state.debt {
			return false
		}
	} else if t.state.counts == 0 {
		return false
	}
	c, err := t.dev.Counters()
	return err == nil && c.InFlight == 0
}

// owed is what was issued and not seen to complete.
func (t *tally) owed() int64 { return int64(t.issued - t.requeued - t.completed) }

// lasting is how long a difference must be seen before it is believed.
const lasting = 2 * time.Millisecond

// balance looks for an instant without requests and returns how many more bytes were marked since the last one than the kernel
// counted. The next call starts from here.
func (t *Tracker) balance(limit time.Duration) (int64, error) {
	if !t.dev.Counting() {
		return 0, fmt.Errorf("%w: the kernel does not count what is written to disk %s (queue/iostats)", ErrUnchecked, t.dev.Name())
	}
	limit = max(limit, 5*lasting)
	s := t.state
	var seen tally
	var counted int64
	var since time.Time
	for start := time.Now(); time.Since(start) < limit; time.Sleep(lasting / 10) {
		before := t.m.sum(t.slot)
		c, err := t.dev.Counters()
		if err != nil {
			return 0, err
		}
		after := t.m.sum(t.slot)
		if c.InFlight != 0 || before != after {
			since = time.Time{}
			continue
		}
		marked := int64(after.issued - after.requeued)
		off := marked - s.issued - (c.Bytes - s.stat)
		if s.based == 0 || off != 0 { // a request may have been issued and not be counted yet
			if since.IsZero() || after != seen || c.Bytes != counted {
				seen, counted, since = after, c.Bytes, time.Now()
				continue
			}
			if time.Since(since) < lasting {
				continue
			}
		} else if c.Bytes != s.stat {
			s.counts = 1
		}
		s.issued, s.stat, s.debt, s.based = marked, c.Bytes, after.owed(), 1
		return off, nil
	}
	return 0, fmt.Errorf("%w: disk %s was not without requests for an instant", ErrUnchecked, t.dev.Name())
}

// Stats of a Tracker since it was made.
type Stats struct {
	Events     int64 // that programs saw of the disk, since it is tracked
	Issued     int64 // bytes, as counted when requests are issued, since it is tracked
	Completed  int64 // the same at completion; some events of completion are lost by some kernels
	Granule    int64 // bytes that a mark stands for
	Sealed     int64 // epochs
	Marked     int64 // bytes reported as written in them
	Drained    int64 // Seals that had to wait for requests in flight
	Lingered   int64 // Seals that could not, and are reported once more
	Resized    int64
	Verified   int64
	Mismatched int64
	Drains     bool          // the disk can be drained
	Took       time.Duration // the last Seal
}

// Stats tells what the tracker did. It is called by the goroutine that uses the tracker.
func (t *Tracker) Stats() Stats {
	s, sum := t.stats, t.m.sum(t.slot)
	s.Events, s.Issued, s.Completed = int64(sum.entered), int64(sum.issued-sum.requeued), int64(sum.completed)
	s.Granule, s.Drains = sector<<t.state.shift[0], t.state.drains == 1
	return s
}

// Cost is what the programs took of the machine, by the kernel's own statistics. They cover the time in which somebody counts:
// CountCost.
type Cost struct {
	Runs int64
	Time time.Duration
}

// CountCost makes the kernel measure all its BPF programs until the returned function is called.
func CountCost() (stop func() error, err error) {
	c, err := cilium.EnableStats(0) // BPF_STATS_RUN_TIME
	if err != nil {
		return nil, fmt.Errorf("count the cost of programs: %w", err)
	}
	return c.Close, nil
}

// Cost adds up over the attached programs.
func (m *Machine) Cost() (c Cost, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for name, l := range m.links {
		info, err := l.Info()
		if err != nil {
			return c, fmt.Errorf("ask for link %s: %w", name, err)
		}
		p, err := cilium.NewProgramFromID(info.Program)
		if err != nil {
			return c, fmt.Errorf("ask for program %s: %w", name, err)
		}
		s, err := p.Stats()
		if err = errors.Join(err, p.Close()); err != nil {
			return c, fmt.Errorf("ask for the cost of program %s: %w", name, err)
		}
		c.Runs += int64(s.RunCount)
		c.Time += s.Runtime
	}
	return c, nil
}
