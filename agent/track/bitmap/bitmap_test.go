package bitmap_test

import (
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/lifeboat-dr/lifeboat/agent/track/bitmap"
	"github.com/lifeboat-dr/lifeboat/replicator/block"
)

func TestTheGranuleGrowsWithTheDisk(t *testing.T) {
	for gib, want := range map[int64]uint32{1: 3, 128: 3, 129: 4, 1024: 6, 16 << 10: 10} {
		words, shift := bitmap.Layout(gib << 21)
		if shift != want || int64(words)*64<<shift < gib<<21 || words*8 > 4<<20 {
			t.Errorf("%d GiB: %d words of %d sectors, want %d", gib, words, 1<<shift, 1<<want)
		}
	}
	if words, _ := bitmap.Layout(1); words != 1 {
		t.Errorf("a sector has %d words", words)
	}
}

// Against a plain slice of granules.
func TestMarksAndExtentsAreTheSame(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		shift := rapid.Uint32Range(3, 6).Draw(t, "shift")
		sectors := rapid.Int64Range(1, 4000).Draw(t, "sectors")
		granule := int64(1) << shift
		n := (sectors + granule - 1) / granule
		words := make([]uint64, (n+63)/64)
		want := make([]bool, n)
		for range rapid.IntRange(0, 8).Draw(t, "marks") {
			first := rapid.Int64Range(0, sectors-1).Draw(t, "first")
			count := rapid.Int64Range(1, sectors-first).Draw(t, "count")
			if !bitmap.Mark(words, shift, first, count) {
				t.Fatalf("%d sectors at %d of %d are outside", count, first, sectors)
			}
			for g := first / granule; g <= (first+count-1)/granule; g++ {
				want[g] = true
			}
		}
		es := bitmap.Extents(words, shift, sectors*512)
		got := make([]bool, n)
		end := int64(-1)
		for _, e := range es {
			if e.Offset <= end || e.End() > sectors*512 || e.Length <= 0 {
				t.Fatalf("extents %v", es)
			}
			end = e.End()
			for g := e.Offset / 512 / granule; g*granule*512 < e.End(); g++ {
				got[g] = true
			}
		}
		if !slices.Equal(got, want) {
			t.Fatalf("got %v, want %v", got, want)
		}
		again := make([]uint64, len(words))
		for i := range again {
			again[i] = rapid.Uint64().Draw(t, "before")
		}
		bitmap.Set(again, es, shift)
		if !slices.Equal(again, words) {
			t.Fatalf("got %x, want %x", again, words)
		}
	})
}

func TestAMarkBeyondTheEndIsTold(t *testing.T) {
	words := make([]uint64, 1)
	if bitmap.Mark(words, 3, 63*8, 16) || words[0] != 1<<63 {
		t.Errorf("got %x", words[0])
	}
	if got := bitmap.Extents(words, 3, 64*4096); !slices.Equal(got, []block.Extent{{Offset: 63 * 4096, Length: 4096}}) {
		t.Errorf("got %v", got)
	}
}
