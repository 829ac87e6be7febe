package record

import (
	"errors"
	"strings"
	"testing"
	"time"
)

func write(n int) string {
	var b strings.Builder
	var r Record
	for i := range n {
		r = Next(r, time.Unix(1700000000, 0).Add(time.Duration(i)*200*time.Millisecond), "0badcafe")
		b.WriteString(r.Line())
	}
	return b.String()
}

func TestVerify(t *testing.T) {
	good := write(20)
	lines := strings.SplitAfter(good, "\n")
	for _, tc := range []struct {
		name  string
		file  string
		count int64
		torn  int64
		at    int64 // 0: unbroken
	}{
		{"an empty file is unbroken", "", 0, 0, 0},
		{"a whole file is unbroken", good, 20, 0, 0},
		{"a line without its end is torn, not broken", good + "21 2023", 20, 7, 0},
		{"a missing line breaks the run", strings.Join(append(append([]string{}, lines[:4]...), lines[5:]...), ""), 4, 0, 5},
		{"a changed time breaks the sum", strings.Replace(good, "20.200Z", "20.201Z", 1), 1, 0, 2},
		{"zeros inside the file break it", strings.Join(lines[:3], "") + "\x00\x00\x00\n", 3, 0, 4},
		{"a line written twice breaks it", strings.Join(lines[:3], "") + lines[2], 3, 0, 4},
	} {
		t.Run(tc.name, func(t *testing.T) {
			run, err := Verify(strings.NewReader(tc.file))
			if run.Count != tc.count || run.Torn != tc.torn {
				t.Errorf("got %d records and %d torn bytes, want %d and %d", run.Count, run.Torn, tc.count, tc.torn)
			}
			broken, isBroken := errors.AsType[*BrokenError](err)
			if (tc.at == 0) != (err == nil) || isBroken && broken.At != tc.at {
				t.Errorf("got error %v, want broken at %d", err, tc.at)
			}
		})
	}
}

func TestParseConsole(t *testing.T) {
	r := Next(Record{}, time.Unix(1700000000, 0), "0badcafe")
	if got, ok := ParseConsole("[  3.1] " + r.Console() + "\r"); !ok || got.N != 1 || got.Sum != r.Sum {
		t.Errorf("got %v %v, want record 1", got, ok)
	}
	for _, line := range []string{"", "REC", "REC 1", "REC x " + r.Sum, r.Console()[:20], "LIFEBOAT-GUEST up"} {
		if got, ok := ParseConsole(line); ok {
			t.Errorf("line %q: got %v, want no record", line, got)
		}
	}
}
