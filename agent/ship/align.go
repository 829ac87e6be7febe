package ship

import (
	"context"
	"errors"
	"fmt"

	"github.com/lifeboat-dr/lifeboat/agent/track"
	"github.com/lifeboat-dr/lifeboat/agent/track/scan"
	"github.com/lifeboat-dr/lifeboat/replicator/block"
	"github.com/lifeboat-dr/lifeboat/replicator/wire"
	"github.com/lifeboat-dr/lifeboat/sdk/fleet"
)

// Ways to make the known sums of a disk those of the replicator.
type alignment int

const (
	sumsKnown   alignment = iota // they are
	sumsOfOwed                   // but for what was written since the newest point
	sumsOfAll                    // nothing is known of them
	sumsOfZeros                  // the replicator holds nothing
)

// align makes the files of known sums say what the replicator holds, and has every disk be compared as far as its tracker cannot
// vouch for it. Known sums are trusted only if they are those of the replicator's newest point and it holds nothing beyond; where
// it does, that lies in what was written since, if the tracker knows that. A disk that is new beside others that are trusted gets
// its first copy; they go on as they are.
func (s *session) align(ctx context.Context, resync bool) error {
	w := s.link.welcome
	vouched := !resync && w.Clean && w.Head != nil && !s.opened
	trusted := make([]bool, len(s.disks))
	known, fresh := 0, 0
	for i, d := range s.disks {
		at, ok := d.sums.Settled()
		trusted[i] = vouched && ok && at == pointRef(w.Head)
		switch {
		case trusted[i]:
			known++
		case at == scan.PointRef{}:
			fresh++
		}
	}
	added := known > 0 && fresh > 0 && known+fresh == len(s.disks)
	reason := ""
	because := func(format string, args ...any) {
		if reason == "" {
			reason = fmt.Sprintf(format, args...)
		}
	}
	if resync {
		because("it was asked for")
	}
	plan := make([]alignment, len(s.disks))
	for i, d := range s.disks {
		pending, err := d.tracker.pending(ctx)
		if err != nil && !errors.Is(err, track.ErrLost) {
			return fmt.Errorf("read the changes of disk %s: %w", d.src.Id, err)
		}
		lost := err
		d.owed = d.whole()
		switch {
		case trusted[i] && lost == nil:
			d.owed = pending
		case trusted[i]:
			because("disk %s: %s", d.src.Id, d.tracker.whole)
		case added:
			plan[i] = sumsOfAll
		case w.Head == nil && w.Clean && !s.opened:
			plan[i] = sumsOfZeros
		case !resync && lost == nil && marked(d) && s.based(d):
			plan[i], d.owed = sumsOfOwed, pending
		default:
			plan[i] = sumsOfAll
			if lost != nil {
				because("disk %s: %s", d.src.Id, d.tracker.whole)
			}
			because("what is known of disk %s is not the newest point", d.src.Id)
		}
	}
	s.prog.end()
	s.ph = fleet.Delta
	switch {
	case w.Head == nil && s.p.memo.Generation != s.want.Generation:
		s.ph, reason = fleet.InitialReplication, ""
	case added && reason == "":
		s.ph = fleet.InitialReplication
	}
	s.p.status.set(func(st *fleet.ProtectionStatus) {
		st.Generation, st.Error = s.want.Generation, fleet.Error{}
		if reason == "" {
			st.Phase = s.ph
		}
	})
	if reason != "" {
		s.resync(reason)
	}
	for i, d := range s.disks {
		if err := s.fetchSums(ctx, i, d, plan[i]); err != nil {
			return err
		}
	}
	return nil
}

func pointRef(p *wire.PointRef) scan.PointRef {
	return scan.PointRef{Generation: p.Generation, Sequence: p.Sequence}
}

// based tells whether the known sums of a disk are those of the replicator outside what the tracker says was written. The
// replicator may have the point after the one they were settled at: made of what this agent sent, but its word did not arrive.
func (s *session) based(d *disk) bool {
	at, ok := d.sums.Base()
	head := s.link.welcome.Head
	return ok && head != nil && at.Generation == head.Generation && (at.Sequence == head.Sequence || at.Sequence+1 == head.Sequence)
}

func (s *session) fetchSums(ctx context.Context, i int, d *disk, how alignment) error {
	switch how {
	case sumsKnown:
		return nil
	case sumsOfZeros:
		return errors.Join(d.sums.Reset(), d.prints.Forget())
	case sumsOfOwed:
		if err := d.sums.Open(); err != nil {
			return err
		}
		if err := s.link.fetchWindows(ctx, i, d.src.SizeBytes, d.owed, d.scanner); err != nil {
			return fmt.Errorf("fetch sums of disk %s: %w", d.src.Id, err)
		}
		return nil
	case sumsOfAll:
		if !d.sums.Ours() {
			if err := errors.Join(d.sums.Reset(), d.prints.Forget()); err != nil {
				return err
			}
		}
		if err := d.sums.Unsettle(); err != nil {
			return err
		}
		s.prog.begin(i, d.src.SizeBytes)
		if err := s.link.fetch(ctx, i, d.src.SizeBytes, d.scanner, func(int64) {}); err != nil {
			return fmt.Errorf("fetch sums of disk %s: %w", d.src.Id, err)
		}
		return nil
	}
	panic("ship: no such alignment")
}

// fetchGap is how many windows between two that are asked for are asked for with them.
const fetchGap = 8

// fetchWindows makes the known sums of the windows that the extents lie in those of the replicator.
func (l *link) fetchWindows(ctx context.Context, disk int, size int64, es []block.Extent, into *scan.Scanner) error {
	var asked []*wire.SumsRequest // not answered yet
	answer := func() error {
		r := asked[0]
		select {
		case s := <-l.sums:
			if int(s.Disk) != disk || s.First != r.First || len(s.Sums) != int(r.Count) {
				return fmt.Errorf("%w: sums of disk %d from %d, asked for disk %d from %d", wire.ErrProtocol, s.Disk, s.First, disk, r.First)
			}
			asked = asked[1:]
			return keep(s, into)
		case <-l.done:
			return l.failure()
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	for r := range sumRequests(disk, size, es) {
		if len(asked) == sumsInFlight {
			if err := answer(); err != nil {
				return err
			}
		}
		if err := l.send(r); err != nil {
			return err
		}
		asked = append(asked, r)
	}
	for len(asked) > 0 {
		if err := answer(); err != nil {
			return err
		}
	}
	return nil
}

// sumRequests asks for whole windows, each once.
func sumRequests(disk int, size int64, es []block.Extent) func(func(*wire.SumsRequest) bool) {
	return func(yield func(*wire.SumsRequest) bool) {
		all := block.Count(size)
		for i := 0; i < len(es); {
			first, end := es[i].Offset/scan.WindowSize, (es[i].End()-1)/scan.WindowSize+1
			for i++; i < len(es) && es[i].Offset/scan.WindowSize <= end+fetchGap; i++ {
				end = (es[i].End()-1)/scan.WindowSize + 1
			}
			for at, last := first*scan.WindowBlocks, min(end*scan.WindowBlocks, all); at < last; {
				n := min(wire.MaxSums, last-at)
				if !yield(&wire.SumsRequest{Disk: uint16(disk), First: at, Count: uint32(n)}) {
					return
				}
				at += n
			}
		}
	}
}
