package worker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/lifeboat-dr/lifeboat/replicator/block"
	"github.com/lifeboat-dr/lifeboat/replicator/repo"
	"github.com/lifeboat-dr/lifeboat/replicator/restore"
)

// captureWindow is how many bytes of a disk are compared and put at once.
const captureWindow = 1 << 20

// consistencyOf a capture from a machine that is off: no writes are lost, but nobody asked the applications.
const captureConsistency = "CrashConsistent"

// capture reads the disks of a machine that is off and makes what differs from the newest point the next point. A second run
// after a crash finds what the first one put and ships only the rest.
type capture struct {
	repository *repo.Repository
	machine    string
	generation int64
	infos      []repo.DiskInfo
	disks      restore.Disks
	dir        string
	progress   func(done, total int64)
}

func (c *capture) run(ctx context.Context) (repo.Point, error) {
	now := time.Now().UTC() // the machine is off, so any instant since then shows the same bytes
	w, err := c.repository.NewWriter(ctx, c.machine, c.generation, c.infos, repo.WriterOptions{Dir: c.dir})
	if err != nil {
		return repo.Point{}, fmt.Errorf("open writer: %w", err)
	}
	hardware, err := c.hardware(ctx, w.Base())
	var total, done int64
	for _, d := range c.infos {
		total += d.Size
	}
	for _, d := range c.infos {
		if err != nil {
			break
		}
		err = c.disk(ctx, w, d, func(n int64) { done += n; c.progress(done, total) })
	}
	var point repo.Point
	if err == nil {
		point, err = w.Commit(ctx, repo.Commit{Time: now, Consistency: captureConsistency, Hardware: hardware})
	}
	return point, errors.Join(err, w.Close())
}

// hardware carries the machine's description over from the point that this one builds on.
func (c *capture) hardware(ctx context.Context, base *repo.PointRef) (h json.RawMessage, err error) {
	if base == nil {
		return nil, nil
	}
	s, err := c.repository.OpenPoint(ctx, c.machine, *base)
	if err != nil {
		return nil, fmt.Errorf("open base point: %w", err)
	}
	return s.Point().Hardware, s.Close()
}

func (c *capture) disk(ctx context.Context, w *repo.Writer, info repo.DiskInfo, passed func(int64)) error {
	src, err := c.disks.Disk(info.ID)
	if err != nil {
		return fmt.Errorf("open disk %s: %w", info.ID, err)
	}
	if src.Size() != info.Size {
		return fmt.Errorf("disk %s has %d bytes instead of %d: %w", info.ID, src.Size(), info.Size, restore.ErrSize)
	}
	summer := block.NewSummer(c.repository.SumKey(c.machine, info.ID))
	buf := make([]byte, captureWindow)
	have := make([]block.Sum, block.Count(captureWindow))
	data, ok, err := src.Next(ctx, 0)
	for off := int64(0); off < info.Size; {
		if err != nil {
			return fmt.Errorf("look for data of disk %s: %w", info.ID, err)
		}
		window := block.Extent{Offset: off, Length: min(captureWindow, info.Size-off)}
		sums := have[:block.Count(window.Length)]
		if err := w.Sums(ctx, info.ID, off/block.Size, sums); err != nil {
			return fmt.Errorf("compare sums of disk %s: %w", info.ID, err)
		}
		p := buf[:window.Length]
		if ok && data.Overlaps(window) {
			err = src.ReadAt(ctx, p, off)
		} else {
			clear(p)
		}
		if err == nil {
			err = putDifferent(ctx, w, info.ID, summer, window, p, sums)
		}
		if err != nil {
			return fmt.Errorf("capture disk %s at %d: %w", info.ID, off, err)
		}
		off = window.End()
		passed(window.Length)
		if ok && data.End() <= off && off < info.Size {
			data, ok, err = src.Next(ctx, off)
		}
	}
	return nil
}

// putDifferent puts the blocks of p, the bytes of window, whose sums are not those that the writer has.
func putDifferent(ctx context.Context, w *repo.Writer, disk string, summer *block.Summer, window block.Extent, p []byte, have []block.Sum) error {
	var extents []block.Extent
	var sums []block.Sum
	var data []byte
	zero := block.Extent{}
	flushZero := func() error {
		if zero.Length == 0 {
			return nil
		}
		err := w.Zero(ctx, disk, zero)
		zero = block.Extent{}
		return err
	}
	for i := range have {
		from := int64(i) * block.Size
		to := min(from+block.Size, window.Length)
		sum := summer.Of(p[from:to])
		if sum == have[i] {
			continue
		}
		at := window.Offset + from
		if (sum == block.Sum{}) {
			if zero.End() != at || zero.Length == 0 {
				if err := flushZero(); err != nil {
					return err
				}
				zero.Offset = at
			}
			zero.Length += to - from
			continue
		}
		if n := len(extents); n > 0 && extents[n-1].End() == at {
			extents[n-1].Length += to - from
		} else {
			extents = append(extents, block.Extent{Offset: at, Length: to - from})
		}
		sums = append(sums, sum)
		data = append(data, p[from:to]...)
	}
	if err := flushZero(); err != nil || len(extents) == 0 {
		return err
	}
	return w.Put(ctx, disk, extents, sums, data)
}
