package tracefs

import (
	"encoding/binary"
	"errors"
	"testing"
)

// What the letters mean is blk_fill_rwbs of the kernel.
func TestEffects(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		rwbs  string
		count int64
		want  effect
	}{
		{"R", 8, nothing}, {"RAM", 8, nothing}, {"F", 0, nothing}, {"FF", 0, nothing}, {"FR", 8, nothing},
		{"W", 8, overwrite}, {"WS", 8, overwrite}, {"FWFS", 8, overwrite}, {"FWS", 0, overwrite}, {"WSM", 8, overwrite},
		{"D", 8, discard}, {"DS", 8, discard}, {"DE", 8, overwrite}, {"DES", 8, overwrite},
		{"N", 8, overwrite}, {"NS", 8, overwrite}, {"N", 0, unknown}, {"ZA", 8, unknown}, {"", 0, nothing},
	} {
		if got := (&event{rwbs: c.rwbs, count: c.count}).effect(); got != c.want {
			t.Errorf("%q with %d sectors: got %d, want %d", c.rwbs, c.count, got, c.want)
		}
	}
}

// page puts events on a page as kernel/trace/ring_buffer.c does.
func page(flags uint64, events ...[]byte) []byte {
	var data []byte
	for _, e := range events {
		data = append(data, e...)
	}
	p := binary.NativeEndian.AppendUint64(nil, 1)
	p = binary.NativeEndian.AppendUint64(p, flags|uint64(len(data)))
	return append(append(p, data...), make([]byte, 64)...)
}

func words(ws ...uint32) (b []byte) {
	for _, w := range ws {
		b = binary.NativeEndian.AppendUint32(b, w)
	}
	return b
}

func TestWalk(t *testing.T) {
	t.Parallel()
	var got [][]byte
	lost, err := walk(page(missed,
		words(2|5<<5, 11, 12), // two words
		words(30, 99),         // time goes on
		words(31, 99),         // a time
		words(0, 12, 21, 22),  // a length in the word behind
		words(29|1<<5, 4),     // padding
		words(1, 31),
		words(29), words(1, 41), // the rest is padding
	), func(p []byte) error { got = append(got, p); return nil })
	if err != nil || !lost || len(got) != 3 {
		t.Fatalf("got %v, lost %v, %v", got, lost, err)
	}
	for i, want := range [][]byte{words(11, 12), words(21, 22), words(31)} {
		if string(got[i]) != string(want) {
			t.Errorf("event %d: got %v, want %v", i, got[i], want)
		}
	}
	for name, p := range map[string][]byte{
		"no header":                {1, 2},
		"more than the page":       page(1 << 20),
		"an event longer than all": page(0, words(28, 1)),
		"a length that is cut off": page(0, words(0)),
		"a length of nothing":      page(0, words(0, 0)),
	} {
		if _, err := walk(p, func([]byte) error { return nil }); !errors.Is(err, errFormat) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

const issueFormat = `name: block_rq_issue
ID: 2104
format:
	field:unsigned short common_type;	offset:0;	size:2;	signed:0;
	field:dev_t dev;	offset:8;	size:4;	signed:0;
	field:sector_t sector;	offset:16;	size:8;	signed:0;
	field:unsigned int nr_sector;	offset:24;	size:4;	signed:0;
	field:char rwbs[10];	offset:34;	size:10;	signed:0;
`

func FuzzWalk(f *testing.F) {
	form, err := parseFormat(issueFormat)
	if err != nil || form.id != 2104 || form.rwbs != (field{34, 10}) {
		f.Fatalf("got %+v and %v", form, err)
	}
	f.Add(page(0, words(2, 11, 12), words(0, 12, 21, 22)))
	f.Add(page(missed, words(29)))
	f.Fuzz(func(t *testing.T, p []byte) {
		total := 0
		_, err := walk(p, func(e []byte) error {
			total += len(e)
			_, err := form.decode(e)
			if err != nil && !errors.Is(err, errFormat) {
				t.Errorf("got %v", err)
			}
			return nil
		})
		if total > len(p) || err != nil && !errors.Is(err, errFormat) {
			t.Errorf("%d bytes of events on a page of %d, %v", total, len(p), err)
		}
	})
}
