package qemu

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lifeboat-dr/lifeboat/agent/track"
)

const (
	defaultReserve = 1 << 30
	watchEvery     = 100 * time.Millisecond // a guest that overwrites 10 GB/s stays within the reserve
	endLimit       = 60 * time.Second       // for a job or an export to go away
	nbdSocket      = prefix + "nbd.sock"
)

func scratchName(i int) string { return prefix + "scratch-" + strconv.Itoa(i) }
func jobName(i int) string     { return prefix + "fleece-" + strconv.Itoa(i) }
func filterName(i int) string  { return prefix + "filter-" + strconv.Itoa(i) }
func viewName(i int) string    { return prefix + "view-" + strconv.Itoa(i) }

var errOpen = errors.New("a snapshot of the machine is open")

// snapshot implements track.Snapshot.
type snapshot struct {
	m       *Machine
	mon     *Monitor // held until the view is gone
	instant time.Time
	views   []*view

	broken atomic.Pointer[error] // why the view is of no instant any more
	stop   context.CancelFunc    // of the watch over free space
	done   chan struct{}         // closed when the watch has ended
}

// Snapshot implements track.Machine. It needs room for what the guest overwrites while the view is open.
func (m *Machine) Snapshot(ctx context.Context) (_ track.Snapshot, err error) {
	if m.snap != nil {
		return nil, errOpen
	}
	mon, err := m.dial(ctx)
	if err != nil {
		return nil, err
	}
	s := &snapshot{m: m, mon: mon}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.end())
		}
	}()
	if err := m.sweep(ctx, mon); err != nil {
		return nil, err
	}
	if err := m.survey(ctx, mon); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(m.cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("make a directory for fleecing images: %w", err)
	}
	if free, err := freeSpace(m.cfg.Dir); err != nil {
		return nil, err
	} else if free < m.cfg.Reserve {
		return nil, &SpaceError{Dir: m.cfg.Dir, Free: free, Reserve: m.cfg.Reserve}
	}
	var actions []action
	for i, t := range m.disks {
		if err := m.scratch(ctx, mon, i, t.disk); err != nil {
			return nil, err
		}
		actions = append(actions, action{"blockdev-backup", map[string]any{
			"device": t.disk.Node, "target": scratchName(i), "sync": "none", "job-id": jobName(i), "filter-node-name": filterName(i)}})
	}
	s.instant = time.Now().UTC()
	if err := m.seal(ctx, mon, m.disks, actions); err != nil {
		return nil, err
	}
	m.snap = s
	defer func() {
		if err != nil {
			m.snap = nil
		}
	}()
	if err := s.check(ctx); err != nil {
		return nil, err
	}
	for _, t := range m.disks {
		if err := t.load(ctx, mon); err != nil {
			return nil, err
		}
	}
	if err := m.serve(ctx, mon); err != nil {
		return nil, err
	}
	for i, t := range m.disks {
		v, err := m.openView(ctx, mon, s, i, t.disk)
		if err != nil {
			return nil, err
		}
		s.views = append(s.views, v)
	}
	wctx, stop := context.WithCancel(context.WithoutCancel(ctx)) // Close ends it, and waits
	s.stop, s.done = stop, make(chan struct{})
	go s.watch(wctx)
	return s, nil
}

// check makes sure that the views are of what the guest uses: somebody may have put another image on top of a disk just before.
// And that they still stand.
func (s *snapshot) check(ctx context.Context) error {
	found, err := s.m.find(ctx, s.mon)
	if err != nil {
		return err
	}
	for i := range s.m.disks {
		if found[i].Node != filterName(i) {
			return fmt.Errorf("%w: the guest's disk %s lies on block node %s, not on the view's", track.ErrBroken, found[i].ID, found[i].Node)
		}
	}
	return nil
}

// SpaceError tells that the place for fleecing images is too full to open a view, or became so.
type SpaceError struct {
	Dir           string
	Free, Reserve int64 // bytes
}

func (e *SpaceError) Error() string {
	return fmt.Sprintf("%s has %d MiB free, and %d MiB must stay so", e.Dir, e.Free>>20, e.Reserve>>20)
}

func freeSpace(dir string) (int64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, &os.PathError{Op: "statfs", Path: dir, Err: err}
	}
	return int64(st.Bavail) * st.Bsize, nil
}

// watch gives the view up when the fleecing images fill their filesystem: QEMU would refuse the guest's writes.
func (s *snapshot) watch(ctx context.Context) {
	defer close(s.done)
	t := time.NewTicker(watchEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		free, err := freeSpace(s.m.cfg.Dir)
		if err == nil && free >= s.m.cfg.Reserve {
			continue
		}
		if err == nil {
			err = &SpaceError{Dir: s.m.cfg.Dir, Free: free, Reserve: s.m.cfg.Reserve}
		}
		s.spoil(err)
		ectx, cancel := context.WithTimeout(ctx, endLimit)
		if err := s.m.cancelJobs(ectx, s.mon); err != nil && ctx.Err() == nil {
			s.m.log.Error("a view was not given up; the guest may run out of room", "err", err)
		}
		cancel()
		return
	}
}

// spoil makes every read fail from here on, those under way too: what is under the view may change next.
func (s *snapshot) spoil(err error) {
	err = fmt.Errorf("%w: %w", track.ErrBroken, err)
	s.broken.CompareAndSwap(nil, &err)
}

func (s *snapshot) failure() error {
	if err := s.broken.Load(); err != nil {
		return *err
	}
	return nil
}

// Instant implements track.Snapshot.
func (s *snapshot) Instant() time.Time { return s.instant }

// View implements track.Snapshot.
func (s *snapshot) View(i int) track.View { return s.views[i] }

// Close implements track.Snapshot.
func (s *snapshot) Close() error {
	if s.m.snap != s {
		return errors.New("the snapshot is closed")
	}
	s.stop()
	<-s.done
	ctx, cancel := context.WithTimeout(context.Background(), endLimit)
	defer cancel()
	err := s.failure()
	if err == nil {
		err = s.check(ctx) // the filters stood until now
	}
	s.spoil(errors.New("it was closed"))
	s.m.snap = nil
	return errors.Join(err, s.end())
}

// end cleans the view away, as far as QEMU lets, and hangs up. What is left is swept by the next one.
func (s *snapshot) end() error {
	ctx, cancel := context.WithTimeout(context.Background(), endLimit)
	defer cancel()
	for _, v := range s.views {
		v.close()
	}
	if s.stop != nil {
		s.stop()
	}
	err := s.m.sweep(ctx, s.mon)
	if errors.Is(err, ErrNoMonitor) {
		err = fmt.Errorf("%w: %w", track.ErrBroken, err)
	}
	return errors.Join(err, s.mon.Close())
}
