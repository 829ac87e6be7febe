package block

import (
	"fmt"
	"testing"
)

func TestExtentsMeetBlocks(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name       string
		e          Extent
		first, end int64
		aligned    bool // in a disk of 2.5 blocks
	}{
		{"whole blocks", Extent{0, 2 * Size}, 0, 2, true},
		{"the short tail", Extent{2 * Size, Size / 2}, 2, 3, true},
		{"up to the end", Extent{Size, Size + Size/2}, 1, 3, true},
		{"part of a block", Extent{0, Sector}, 0, 1, false},
		{"off the grid", Extent{Sector, Size}, 0, 2, false},
		{"beyond the end", Extent{2 * Size, Size}, 2, 3, false},
		{"far beyond the end", Extent{1 << 61, 1 << 61}, 1 << 49, 1 << 50, false},
		{"nothing", Extent{Size, 0}, 1, 1, false},
		{"before the start", Extent{-Size, Size}, -1, 0, false},
	} {
		if first, end := c.e.Blocks(); first != c.first || end != c.end {
			t.Errorf("%s: got blocks %d to %d, want %d to %d", c.name, first, end, c.first, c.end)
		}
		if got := c.e.AlignedIn(2*Size + Size/2); got != c.aligned {
			t.Errorf("%s: aligned: got %v, want %v", c.name, got, c.aligned)
		}
	}
	for i, want := range []int64{Size, Size, Size / 2, 0, 0} {
		if got := Length(int64(i), 2*Size+Size/2); got != want {
			t.Errorf("length of block %d: got %d, want %d", i, got, want)
		}
	}
}

func TestSumsTellBlocksApart(t *testing.T) {
	t.Parallel()
	a, b := NewSummer(SumKey{1}), NewSummer(SumKey{2})
	p := make([]byte, Size)
	if a.Of(p) != (Sum{}) || a.Of(p[:Sector]) != (Sum{}) {
		t.Error("a block of zeros has a sum")
	}
	p[Size-1] = 1
	if a.Of(p) == (Sum{}) || a.Of(p) == b.Of(p) {
		t.Error("the sum of a block does not depend on key and content")
	}
}

// The sums are those of OpenSSL 3: `openssl mac -cipher AES-256-GCM … GMAC`, then `openssl enc -aes-256-ecb -nopad`.
func TestSumsAreThoseOfTheFormat(t *testing.T) {
	t.Parallel()
	var key SumKey
	for i := range key {
		key[i] = byte(i)
	}
	p := make([]byte, Size)
	for i := range p {
		p[i] = byte(i*7 + i/256)
	}
	s := NewSummer(key)
	for _, c := range []struct {
		length int
		want   string
	}{{Size, "0742356fba60e04fcdc4aab1839494a5"}, {Sector, "196ee15544eaca8b29a9997f167f53d7"}} {
		if got := fmt.Sprintf("%x", s.Of(p[:c.length])); got != c.want {
			t.Errorf("%d bytes: got %s, want %s", c.length, got, c.want)
		}
	}
}

func TestBitmap(t *testing.T) {
	t.Parallel()
	b := NewBitmap(130)
	for _, i := range []int64{0, 63, 64, 129} {
		b.Set(i)
	}
	b.Clear(63)
	if b.Count() != 3 || b.Len() != 130 || !b.Get(129) || b.Get(63) || b.Get(1) {
		t.Errorf("got %d bits of %d", b.Count(), b.Len())
	}
}
