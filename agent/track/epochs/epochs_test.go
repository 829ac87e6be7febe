package epochs_test

import (
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lifeboat-dr/lifeboat/agent/track"
	"github.com/lifeboat-dr/lifeboat/agent/track/epochs"
	"github.com/lifeboat-dr/lifeboat/replicator/block"
)

func at(ns ...int64) (es []block.Extent) {
	for _, n := range ns {
		es = append(es, block.Extent{Offset: n * 8192, Length: 4096})
	}
	return es
}

func TestWhatMayHaveBeenReadTooEarlyIsReportedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := epochs.New()
		for i, step := range []struct {
			wait    time.Duration
			marked  []block.Extent
			settled bool
			want    []block.Extent
		}{
			{0, at(1), true, at(1)},
			{0, at(2), false, at(2)},
			{0, at(3), false, at(2, 3)},
			{time.Hour, at(4), false, at(2, 3, 4)}, // long ago, and still due once
			{time.Minute, at(5), false, at(3, 4, 5)},
			{0, at(6), true, at(4, 5, 6)},
			{0, nil, true, nil},
		} {
			time.Sleep(step.wait)
			if got := b.Seal(step.marked, step.settled, nil); !slices.Equal(got, step.want) {
				t.Errorf("step %d: got %v, want %v", i, got, step.want)
			}
		}
	})
}

func TestALostEpochStaysLostUntilItIsReleased(t *testing.T) {
	b := epochs.New()
	b.Seal(at(1), true, nil)
	b.Seal(at(2), true, errors.New("a reason"))
	b.Seal(at(3), true, nil)
	if _, err := b.Pending(); !errors.Is(err, track.ErrLost) {
		t.Errorf("got %v, want ErrLost", err)
	}
	if err := b.Release(2); err != nil {
		t.Fatal(err)
	}
	if es, err := b.Pending(); err != nil || !slices.Equal(es, at(3)) {
		t.Errorf("got %v and %v", es, err)
	}
	b.Lose(errors.New("found later"))
	if es, lost := b.Kept(); !lost || !slices.Equal(es, at(3)) {
		t.Errorf("got %v and %v", es, lost)
	}
	if b.Release(b.Epoch()) == nil {
		t.Error("the running epoch was released")
	}
}
