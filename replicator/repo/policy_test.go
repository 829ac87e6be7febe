package repo

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/lifeboat-dr/lifeboat/replicator/manifest"
)

func TestMergeTakesTheNewestAndSparesAHeavyBase(t *testing.T) {
	t.Parallel()
	ones := func(n int, older ...int64) []int64 { return append(slices.Repeat([]int64{1}, n), older...) }
	for _, c := range []struct {
		name    string
		weights []int64
		want    int
	}{
		{"nothing", nil, 0},
		{"one", ones(1), 1},
		{"few are left alone", ones(16), 1},
		{"light ones are merged down to the heavy base", ones(16, 1000), 16},
		{"no more than it takes to reach a layer as heavy", ones(8, 8, 8, 8, 8, 8, 8, 8, 8, 8), 8},
		{"a heavy new layer draws in the base", append([]int64{5000}, ones(15, 1000)...), 17},
	} {
		if got := mergeNewest(c.weights); got != c.want {
			t.Errorf("%s: got %d, want %d", c.name, got, c.want)
		}
	}
}

func TestRetentionThinsWithAge(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 10, 12, 30, 0, 0, time.UTC)
	var points []*manifest.Entry
	for i := range 4 * 24 * 12 { // four days, every five minutes, app-consistent at a quarter past
		at := now.Add(-4*24*time.Hour + time.Duration(i)*5*time.Minute)
		e := &manifest.Entry{Generation: 1, Sequence: int64(i + 1), Time: at}
		if at.Minute() == 15 {
			e.Consistency = appConsistent
		}
		points = append(points, e)
	}
	keep := Retention{Daily: 72 * time.Hour}.withDefaults().choose(points, now)
	perHour, perDay := make(map[time.Time]int), make(map[time.Time]int)
	for _, e := range points {
		if !keep[refOf(e)] {
			if now.Sub(e.Time) < 2*time.Hour {
				t.Errorf("the point of %v is dropped, which is younger than two hours", e.Time)
			}
			continue
		}
		switch age := now.Sub(e.Time); {
		case age >= 72*time.Hour:
			t.Errorf("the point of %v is kept, which is older than all limits", e.Time)
		case age >= 24*time.Hour:
			perDay[e.Time.Truncate(24*time.Hour)]++
		case age >= 2*time.Hour:
			perHour[e.Time.Truncate(time.Hour)]++
			if e.Consistency != appConsistent && e.Time.Truncate(time.Hour) != now.Add(-24*time.Hour).Truncate(time.Hour) {
				t.Errorf("hour of %v: the app-consistent point was not preferred", e.Time)
			}
		}
	}
	if len(perHour) < 22 || len(perHour) > 23 || len(perDay) < 2 || len(perDay) > 4 {
		t.Errorf("got points of %d hours and %d days", len(perHour), len(perDay))
	}
	for h, n := range perHour {
		if n != 1 {
			t.Errorf("hour %v: %d points are kept", h, n)
		}
	}
	for d, n := range perDay {
		if n != 1 {
			t.Errorf("day %v: %d points are kept", d, n)
		}
	}
	if none := (Retention{}).withDefaults().choose(nil, now); len(none) != 0 {
		t.Errorf("of no points %d are kept", len(none))
	}
}

func FuzzVaultFile(f *testing.F) {
	file, err := NewVaultFile("v", Key{1}, formatRecoveryKey([32]byte{1}))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(file)
	f.Fuzz(func(t *testing.T, p []byte) {
		if _, k, err := Unwrap(p, formatRecoveryKey([32]byte{1})); err == nil && k != (Key{1}) {
			t.Fatal("another key came out")
		} else if err != nil && !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrRecoveryKey) {
			t.Fatalf("got %v", err)
		}
	})
}

func FuzzRecoveryKey(f *testing.F) {
	f.Add(formatRecoveryKey([32]byte{1, 2}))
	f.Fuzz(func(t *testing.T, s string) {
		k, err := parseRecoveryKey(s)
		if err != nil {
			return
		}
		if again, err := parseRecoveryKey(formatRecoveryKey(k)); err != nil || again != k {
			t.Fatalf("got %v, %v", again, err)
		}
	})
}
