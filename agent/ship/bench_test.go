package ship_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/lifeboat-dr/lifeboat/agent/source"
	"github.com/lifeboat-dr/lifeboat/replicator/ingest"
	"github.com/lifeboat-dr/lifeboat/sdk/fleet"
)

// BenchmarkFirstCopy is agent to local bucket, in one process: 512 MiB, of which 60 % compress, 10 % do not and 30 % are zeros.
func BenchmarkFirstCopy(b *testing.B) {
	const size = 512 << 20
	path := filepath.Join(b.TempDir(), "disk.img")
	f := must(os.Create(path))
	defer f.Close()
	if err := f.Truncate(size); err != nil {
		b.Fatal(err)
	}
	line := 0
	for off := int64(0); off < size*6/10; off += 1 << 20 {
		p := make([]byte, 0, 1<<20)
		for len(p) < 1<<20 {
			line++
			p = fmt.Appendf(p, "%d GET /item/%x?session=%x 200 %d\n", line, line*7919, line*104729*31, line%977)
		}
		must(f.WriteAt(p[:1<<20], off))
	}
	must(f.WriteAt(randomBytes(size/10), size*6/10))
	b.SetBytes(size)
	for b.Loop() {
		r, err := openRepository(b.Context(), b.TempDir())
		if err != nil {
			b.Fatal(err)
		}
		s := newSite(b, ingest.FromRepo(r))
		src := source.Config{Disks: []source.Named{{ID: "disk0", Path: path, Stopped: true}}}
		a := s.run(s.config(src), s.want(disksOf(b, src)), nil)
		a.await("point", func(st fleet.ProtectionStatus) bool { return st.LastPoint.Sequence == 1 })
		a.stop()
		s.stop()
	}
}
