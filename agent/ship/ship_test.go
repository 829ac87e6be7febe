package ship_test

import (
	"bytes"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/lifeboat-dr/lifeboat/agent/source"
	"github.com/lifeboat-dr/lifeboat/sdk/fleet"
)

// image makes a file of random and zero stretches.
func image(t *testing.T, size int64, seed uint64) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "disk.img")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	scribble(t, f, size, 40, seed)
	return path
}

// scribble writes n stretches of random bytes or zeros at random places.
func scribble(t *testing.T, f *os.File, size int64, n int, seed uint64) {
	t.Helper()
	rng := rand.New(rand.NewPCG(seed, 1))
	for range n {
		p := make([]byte, 512*(1+rng.Int64N(400)))
		if rng.IntN(4) > 0 {
			for i := range p {
				p[i] = byte(rng.Uint32())
			}
		}
		if _, err := f.WriteAt(p, rng.Int64N((size-int64(len(p)))/512)*512); err != nil {
			t.Fatal(err)
		}
	}
}

func TestStoppedImageIsShippedAndThenOnlyWhatDiffers(t *testing.T) {
	t.Parallel()
	const size = 24<<20 + 512 // a tail of one sector
	path := image(t, size, 7)
	src := source.Config{Disks: []source.Named{{ID: "disk0", Path: path, Stopped: true}}}
	m := newMemory()
	s := newSite(t, m)
	a := s.run(s.config(src), s.want(disksOf(t, src)), nil)
	a.await("first point", func(st fleet.ProtectionStatus) bool { return st.LastPoint.Sequence == 1 && st.Phase == fleet.Delta })
	sameImage(t, "first point", m.point(t, 1).images["disk0"], read(t, path))

	before := m.putBytes("disk0")
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	want := bytes.Repeat([]byte("lifeboat"), 64)
	for _, off := range []int64{4096 * 3, size - 512} {
		if _, err := f.WriteAt(want, off); err != nil {
			t.Fatal(err)
		}
	}
	a.capture()
	sameImage(t, "second point", m.point(t, 2).images["disk0"], read(t, path))
	if n := m.putBytes("disk0") - before; n != 4096+512 {
		t.Errorf("a change of two blocks shipped %d bytes, want %d", n, 4096+512)
	}
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
