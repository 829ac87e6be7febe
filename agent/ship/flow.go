package ship

import (
	"context"
	"time"

	"github.com/lifeboat-dr/lifeboat/agent/track"
	"github.com/lifeboat-dr/lifeboat/sdk/fleet"
)

// Between points changes keep flowing, so that the next capture has little left. A block that is written all the time is shipped
// each time, so passes are no more frequent than it takes: a tenth of the interval between captures, within these bounds, and not
// for less than flowBytes.
const (
	flowShortest = 2 * time.Second
	flowLongest  = 30 * time.Second
	flowBytes    = 1 << 20
)

// marked tells that a disk's tracker knows what was written, so that passes over it cost no more than that.
func marked(d *disk) bool { return !d.tracker.Whole }

func (s *session) flowEvery() time.Duration {
	return min(max(s.interval()/10, flowShortest), flowLongest)
}

// flow ships what was written since the last pass, where that is enough to be worth it.
func (s *session) flow(ctx context.Context) error {
	if err := s.measure(); err != nil {
		return err
	}
	_, err := s.passes(ctx, func(d *disk) bool { return marked(d) && d.dirty >= flowBytes })
	return err
}

// measure looks at how much was written to each disk since it was last read, and shows it.
func (s *session) measure() error {
	var all int64
	for _, d := range s.disks {
		w, err := d.src.Writes()
		if err != nil {
			return err
		}
		d.dirty = track.Bytes(d.owed)
		if w.Known {
			d.dirty += max(0, w.Sectors-d.tracker.sealed) * 512
		} else {
			d.dirty += flowBytes // the kernel does not tell
		}
		if marked(d) {
			all += min(d.dirty, d.src.SizeBytes)
		}
	}
	s.p.status.set(func(st *fleet.ProtectionStatus) { st.DirtyBytes = all })
	return nil
}
