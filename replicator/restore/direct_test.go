package restore

import (
	"bytes"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/lifeboat-dr/lifeboat/replicator/block"
)

// Runs of all lengths and alignments, beside each other, must end up where they belong whichever way they went.
func TestRunsMeetInTheFileWhicheverWayTheyWent(t *testing.T) {
	t.Parallel()
	const size = 9<<20 + block.Sector
	want, got := make([]byte, size), make([]byte, size)
	rng := rand.NewChaCha8([32]byte{1})
	_, _ = rng.Read(want) // never fails
	for name, shift := range map[string]int{"aligned memory": 0, "unaligned memory": 1} {
		f, err := os.Create(filepath.Join(t.TempDir(), "image"))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if err := f.Truncate(size); err != nil {
			t.Fatal(err)
		}
		w := newRunWriter(f)
		buf := make([]byte, 4<<20+block.Size)
		lengths := []int64{block.Size, directRun, directRun - block.Size, 4 << 20, 3 * block.Size, directRun + 3*block.Size}
		for off, i := int64(0), 0; off < size; i++ {
			n := min(lengths[i%len(lengths)], size-off)
			p := buf[shift : int64(shift)+n]
			copy(p, want[off:])
			if err := w.writeAt(p, off); err != nil {
				t.Fatalf("%s: write %d bytes at %d: %v", name, n, off, err)
			}
			off += n
		}
		w.close()
		if _, err := f.ReadAt(got, 0); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s: the file does not hold what was written", name)
		}
	}
}
