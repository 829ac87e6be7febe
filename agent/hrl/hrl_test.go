package hrl

import (
	"errors"
	"hash/crc32"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/lifeboat-dr/lifeboat/replicator/block"
)

var id = Identity{Machine: "m", Disk: "d", Size: 64 << 20}

func mark() Mark {
	return Mark{
		Extents: []block.Extent{{Offset: 0, Length: 4096}, {Offset: 1 << 20, Length: 512}, {Offset: 64<<20 - 4096, Length: 4096}},
		State:   State{Boot: "b1", Number: "7", Hardware: "disk", Size: 64 << 20, Sectors: 99, Stamps: "s"},
	}
}

func open(t *testing.T, path string, id Identity) *Log {
	t.Helper()
	l, err := Open(path, id)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

func stopped(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "d.hrl")
	if err := open(t, path, id).Stop(mark()); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestMarkServesOnce(t *testing.T) {
	t.Parallel()
	path := stopped(t)
	got, running, err := open(t, path, id).Begin()
	if err != nil || running || !reflect.DeepEqual(got, mark()) {
		t.Fatalf("got %+v and %v, want %+v", got, err, mark())
	}
	if _, _, err := open(t, path, id).Begin(); !errors.Is(err, ErrNone) {
		t.Errorf("the second time: got %v, want ErrNone", err)
	}
}

func TestTrackerThatRunsIsVouchedForOnce(t *testing.T) {
	t.Parallel()
	path := stopped(t)
	l := open(t, path, id)
	if _, _, err := l.Begin(); err != nil {
		t.Fatal(err)
	}
	if _, running, err := open(t, path, id).Begin(); running || !errors.Is(err, ErrNone) {
		t.Errorf("killed after the begin: got %v and %v", running, err)
	}
	if err := l.Run(); err != nil {
		t.Fatal(err)
	}
	if _, running, err := open(t, path, Identity{"x", "d", id.Size}).Begin(); running || !errors.Is(err, ErrNone) {
		t.Errorf("of another machine: got %v and %v", running, err)
	}
	l = open(t, path, id)
	if err := l.Run(); err != nil {
		t.Fatal(err)
	}
	l = open(t, path, id)
	if _, running, err := l.Begin(); !running || !errors.Is(err, ErrNone) {
		t.Errorf("killed while it ran: got %v and %v", running, err)
	}
	if err := errors.Join(l.Run(), l.Doubt()); err != nil {
		t.Fatal(err)
	}
	if _, running, _ := open(t, path, id).Begin(); running {
		t.Error("a tracker that is doubted is vouched for")
	}
}

func TestFileNeverGrows(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "d.hrl")
	l := open(t, path, id)
	size := func() int64 {
		st, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		return st.Size()
	}
	if got, want := size(), int64(4096+65536*16); got != want {
		t.Fatalf("got %d bytes when made, want %d", got, want)
	}
	m := mark()
	m.Extents = nil
	big := Identity{Machine: "m", Disk: "d", Size: 1 << 40}
	for i := range int64(100_000) {
		m.Extents = append(m.Extents, block.Extent{Offset: i * 1 << 20, Length: 4096})
	}
	l.id = big
	if err := l.Stop(m); err != nil {
		t.Fatal(err)
	}
	if got, want := size(), int64(4096+65536*16); got != want {
		t.Errorf("got %d bytes after a stop, want %d", got, want)
	}
	got, _, err := open(t, path, big).Begin()
	if err != nil || len(got.Extents) > MaxExtents {
		t.Fatalf("got %d extents and %v", len(got.Extents), err)
	}
	covers(t, got.Extents, m.Extents)
}

func covers(t *testing.T, got, want []block.Extent) {
	t.Helper()
	at := 0
	for _, w := range want {
		for at < len(got) && got[at].End() < w.End() {
			at++
		}
		if at == len(got) || got[at].Offset > w.Offset {
			t.Fatalf("%+v is not covered", w)
		}
	}
}

func TestFitMergesTheNearest(t *testing.T) {
	t.Parallel()
	es := []block.Extent{{Offset: 0, Length: 10}, {Offset: 20, Length: 10}, {Offset: 100, Length: 10}, {Offset: 111, Length: 10}}
	want := []block.Extent{{Offset: 0, Length: 10}, {Offset: 20, Length: 10}, {Offset: 100, Length: 21}}
	if got := fit(es, 3); !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	rng := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		var es []block.Extent
		for at, n := int64(0), rng.IntN(50); n > 0; n-- {
			at += 1 + rng.Int64N(9)
			es = append(es, block.Extent{Offset: at, Length: 1 + rng.Int64N(5)})
			at = es[len(es)-1].End()
		}
		n := 1 + rng.IntN(20)
		got := fit(es, n)
		if len(got) > n && len(es) > n {
			t.Fatalf("%d extents where %d fit", len(got), n)
		}
		covers(t, got, es)
	}
}

func TestWhatIsNotOursHoldsNoMark(t *testing.T) {
	t.Parallel()
	change := func(at int, to byte) func(t *testing.T, path string) {
		return func(t *testing.T, path string) {
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			b[at] = to
			if err := os.WriteFile(path, b, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	for name, tc := range map[string]struct {
		do   func(*testing.T, string)
		id   Identity
		want error
	}{
		"a damaged magic":   {do: change(0, 'X'), id: id, want: ErrDamaged},
		"another version":   {do: change(6, '2'), id: id, want: ErrVersion},
		"a damaged tag":     {do: change(20, 'X'), id: id, want: ErrDamaged},
		"a damaged length":  {do: change(9, 0xff), id: id, want: ErrDamaged},
		"a damaged extent":  {do: change(4096+7, 1), id: id, want: ErrDamaged},
		"another machine":   {id: Identity{"x", "d", id.Size}, want: ErrNone},
		"another disk":      {id: Identity{"m", "x", id.Size}, want: ErrNone},
		"another size":      {id: Identity{"m", "d", id.Size + 512}, want: ErrNone},
		"a file cut short":  {do: func(t *testing.T, p string) { _ = os.Truncate(p, 4096+8) }, id: id, want: ErrNone},
		"a file of nothing": {do: func(t *testing.T, p string) { _ = os.Truncate(p, 0) }, id: id, want: ErrNone},
	} {
		path := stopped(t)
		if tc.do != nil {
			tc.do(t, path)
		}
		l := open(t, path, tc.id)
		if got, running, err := l.Begin(); running || !errors.Is(err, tc.want) || len(got.Extents) > 0 {
			t.Errorf("%s: got %v and %v, want %v", name, got, err, tc.want)
		}
		if err := l.Stop(Mark{}); err != nil { // it can be used all the same
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestVouch(t *testing.T) {
	t.Parallel()
	base := mark().State
	booted := base
	booted.Boot, booted.Sectors, booted.Number = "b2", 0, "1"
	type look struct {
		mark, now State
		early     *State
		offline   bool
	}
	sameBoot := func(f func(*look)) look {
		l := look{mark: base, now: base}
		f(&l)
		return l
	}
	otherBoot := func(f func(*look)) look {
		early := booted
		l := look{mark: base, now: booted, early: &early, offline: true}
		f(&l)
		return l
	}
	for name, tc := range map[string]struct {
		look look
		want string // of the error; empty: vouched for
	}{
		"nothing happened":                              {look: sameBoot(func(*look) {})},
		"written while no agent ran":                    {look: sameBoot(func(l *look) { l.now.Sectors++ }), want: "512 bytes were written"},
		"attached anew":                                 {look: sameBoot(func(l *look) { l.now.Number = "8" }), want: "attached anew"},
		"a kernel that does not number disks":           {look: sameBoot(func(l *look) { l.now.Number, l.mark.Number = "", "" }), want: "attached anew"},
		"another disk":                                  {look: sameBoot(func(l *look) { l.now.Hardware = "x" }), want: "another one"},
		"a disk that says nothing of itself":            {look: sameBoot(func(l *look) { l.now.Hardware, l.mark.Hardware = "", "" }), want: "another one"},
		"resized":                                       {look: sameBoot(func(l *look) { l.now.Size++ }), want: "another one"},
		"boots without ids":                             {look: sameBoot(func(l *look) { l.now.Boot, l.mark.Boot = "", "" }), want: "no id"},
		"booted, and all agree":                         {look: otherBoot(func(*look) {})},
		"booted, nothing excludes offline writes":       {look: otherBoot(func(l *look) { l.offline = false }), want: "does not exclude"},
		"booted, nobody looked in the initramfs":        {look: otherBoot(func(l *look) { l.early = nil }), want: "initramfs"},
		"booted, the look is of another boot":           {look: otherBoot(func(l *look) { l.early.Boot = "b0" }), want: "another boot"},
		"booted, the look is of another disk":           {look: otherBoot(func(l *look) { l.early.Hardware = "x" }), want: "another one"},
		"booted, a filesystem without a stamp":          {look: otherBoot(func(l *look) { l.mark.Stamps = "" }), want: "no stamp"},
		"booted, no stamp in the initramfs":             {look: otherBoot(func(l *look) { l.early.Stamps = "" }), want: "no stamp"},
		"booted, unmounted after the stop":              {look: otherBoot(func(l *look) { l.early.Stamps = "other" }), want: "after the agent was stopped"},
		"booted, written before the look":               {look: otherBoot(func(l *look) { l.early.Sectors = 8 }), want: "before the initramfs"},
		"booted, written between look and tracker":      {look: otherBoot(func(l *look) { l.now.Sectors = 8 }), want: "4096 bytes were written since the boot"},
		"booted, the disk number is not the looked one": {look: otherBoot(func(l *look) { l.now.Number = "9" }), want: "another boot or disk"},
	} {
		err := Vouch(tc.look.mark, tc.look.now, tc.look.early, tc.look.offline)
		if (err == nil) != (tc.want == "") || err != nil && !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: got %v, want %q", name, err, tc.want)
		}
	}
}

// TestReleasedVersionIsRead holds the format to a file that was written when it was released.
func TestReleasedVersionIsRead(t *testing.T) {
	t.Parallel()
	b, err := os.ReadFile("testdata/v1.hrl")
	if err != nil {
		t.Fatal(err)
	}
	got, _, err := decode(b, id)
	if err != nil || !reflect.DeepEqual(got, mark()) {
		t.Errorf("got %+v and %v, want %+v", got, err, mark())
	}
}

func FuzzDecode(f *testing.F) {
	b, err := os.ReadFile("testdata/v1.hrl")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		m, _, err := decode(b, id)
		if err != nil {
			if len(m.Extents) > 0 {
				t.Fatal("an error and extents")
			}
			return
		}
		es := encodeExtents(m.Extents)
		h, err := encodeHeader(tag{Machine: id.Machine, Disk: id.Disk, Size: id.Size, Clean: true, Extents: len(m.Extents), CRC: crc32.Checksum(es, castagnoli), State: m.State})
		if err != nil {
			return // a tag that was shorter in other words
		}
		again, _, err := decode(append(h, es...), id)
		if err != nil || !slices.Equal(again.Extents, m.Extents) || again.State != m.State {
			t.Fatalf("got %+v and %v, was %+v", again, err, m)
		}
	})
}
