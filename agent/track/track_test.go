package track

import (
	"slices"
	"testing"

	"github.com/lifeboat-dr/lifeboat/replicator/block"
)

func TestUnion(t *testing.T) {
	t.Parallel()
	e := func(pairs ...int64) (es []block.Extent) {
		for i := 0; i < len(pairs); i += 2 {
			es = append(es, block.Extent{Offset: pairs[i], Length: pairs[i+1] - pairs[i]})
		}
		return es
	}
	for name, tc := range map[string]struct{ a, b, want []block.Extent }{
		"nothing and nothing":              {nil, nil, nil},
		"something and nothing":            {e(0, 4), nil, e(0, 4)},
		"apart stay apart":                 {e(0, 4), e(8, 12), e(0, 4, 8, 12)},
		"neighbours become one":            {e(0, 4), e(4, 8), e(0, 8)},
		"one inside the other":             {e(0, 16), e(4, 8), e(0, 16)},
		"one bridges two":                  {e(0, 4, 8, 12), e(2, 10), e(0, 12)},
		"interleaved with different sizes": {e(0, 1, 10, 30), e(2, 3, 29, 31), e(0, 1, 2, 3, 10, 31)},
	} {
		if got := Union(tc.a, tc.b); !slices.Equal(got, tc.want) {
			t.Errorf("%s: got %v, want %v", name, got, tc.want)
		}
	}
	if got := Bytes(e(0, 4, 8, 12)); got != 8 {
		t.Errorf("got %d bytes, want 8", got)
	}
}
