package repo_test

import (
	"crypto/aes"
	"crypto/cipher"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/lifeboat-dr/lifeboat/replicator/block"
	"github.com/lifeboat-dr/lifeboat/replicator/localbucket"
	"github.com/lifeboat-dr/lifeboat/replicator/repo"
)

const benchBytes = 512 << 20

// benchData is real files (of /usr) with a tenth of random bytes and a tenth of zeros.
var benchData = sync.OnceValue(func() []byte {
	data := make([]byte, 0, benchBytes)
	for len(data) < benchBytes {
		before := len(data)
		err := filepath.WalkDir("/usr", func(path string, d fs.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() || len(data) >= benchBytes {
				return nil
			}
			if p, err := os.ReadFile(path); err == nil {
				data = append(data, p...)
			}
			return nil
		})
		if err != nil || len(data) == before {
			panic(fmt.Sprint("no files below /usr: ", err))
		}
	}
	data = data[:benchBytes]
	rng := rand.NewChaCha8([32]byte{7})
	for off := 0; off < benchBytes; off += 10 << 20 {
		_, _ = rng.Read(data[off : off+1<<20]) // never fails
		if off+3<<20 <= benchBytes {
			clear(data[off+2<<20 : off+3<<20])
		}
	}
	return data
})

// BenchmarkFirstCopy compares a Writer on a local bucket with a plain pipeline of the same steps: skip zeros, compress, encrypt,
// write, sync. Sums are made beforehand, as they come from the agent.
func BenchmarkFirstCopy(b *testing.B) {
	data := benchData()
	key := repo.Key{1}
	b.Run("plain", func(b *testing.B) {
		b.SetBytes(benchBytes)
		start := cpuSeconds()
		for b.Loop() {
			plainPipeline(b, data)
		}
		b.ReportMetric((cpuSeconds()-start)/float64(b.N), "cpu-s/op")
	})
	b.Run("writer", func(b *testing.B) {
		b.SetBytes(benchBytes)
		bucket, err := localbucket.Open(b.TempDir())
		if err != nil {
			b.Fatal(err)
		}
		defer bucket.Close()
		r, err := repo.Open(b.Context(), bucket, vaultID, key, nil, repo.Options{})
		if err != nil {
			b.Fatal(err)
		}
		summer := block.NewSummer(r.SumKey("vm", "a"))
		sums := make([]block.Sum, benchBytes/block.Size)
		for i := range sums {
			sums[i] = summer.Of(data[i*block.Size : (i+1)*block.Size])
		}
		start := cpuSeconds()
		defer func() { b.ReportMetric((cpuSeconds()-start)/float64(b.N), "cpu-s/op") }()
		for b.Loop() {
			if err := r.DeleteMachine(b.Context(), "vm"); err != nil {
				b.Fatal(err)
			}
			if err := r.OpenGeneration(b.Context(), "vm", 1, nil); err != nil {
				b.Fatal(err)
			}
			w, err := r.NewWriter(b.Context(), "vm", 1, []repo.DiskInfo{{ID: "a", Size: benchBytes}}, repo.WriterOptions{Dir: b.TempDir()})
			if err != nil {
				b.Fatal(err)
			}
			for off := int64(0); off < benchBytes; off += repo.MaxPut {
				first := off / block.Size
				if err := w.Put(b.Context(), "a", []block.Extent{{Offset: off, Length: repo.MaxPut}}, sums[first:first+repo.MaxPut/block.Size],
					data[off:off+repo.MaxPut]); err != nil {
					b.Fatal(err)
				}
			}
			p, err := w.Commit(b.Context(), repo.Commit{Time: t0})
			if err != nil {
				b.Fatal(err)
			}
			b.ReportMetric(float64(p.StoredBytes)/1e6, "stored-MB")
			if err := w.Close(); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// cpuSeconds is what this process used so far: on a shared machine it says more than the clock.
func cpuSeconds() float64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()).Seconds()
}

func plainPipeline(b *testing.B, data []byte) {
	f, err := os.CreateTemp(b.TempDir(), "plain")
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	blockCipher, err := aes.NewCipher(make([]byte, 32))
	if err != nil {
		b.Fatal(err)
	}
	gcm, err := cipher.NewGCM(blockCipher)
	if err != nil {
		b.Fatal(err)
	}
	work := make(chan []byte)
	var wg sync.WaitGroup
	var mu sync.Mutex
	for n := range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			enc, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1))
			if err != nil {
				panic(err)
			}
			out := make([]byte, 0, 2<<20)
			nonce := make([]byte, 12)
			for p := range work {
				out = enc.EncodeAll(p, out[:0])
				nonce[0] = byte(n)
				out = gcm.Seal(out[:0], nonce, out, nil)
				mu.Lock()
				_, err := f.Write(out)
				mu.Unlock()
				if err != nil {
					panic(err)
				}
			}
		})
	}
	for off := 0; off < len(data); off += 1 << 20 {
		if p := data[off : off+1<<20]; !block.IsZero(p) {
			work <- p
		}
	}
	close(work)
	wg.Wait()
	if err := f.Sync(); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkReadBack reads a point from front to back, 4 MiB at a time.
func BenchmarkReadBack(b *testing.B) {
	data := benchData()
	bucket, err := localbucket.Open(b.TempDir())
	if err != nil {
		b.Fatal(err)
	}
	defer bucket.Close()
	v := openVault(b, bucket, repo.Options{})
	g := &guest{machine: "vm", disks: []repo.DiskInfo{{ID: "a", Size: benchBytes}}, bytes: map[string][]byte{"a": data}}
	mustOpen(b, v, "vm", 1, nil)
	w := mustWriter(b, v, g, 1, b.TempDir())
	putAll(b, v, w, g, "a")
	ref := mustCommit(b, w, repo.Commit{}).PointRef
	b.SetBytes(benchBytes)
	start := cpuSeconds()
	buf := make([]byte, 4<<20)
	for b.Loop() {
		s, err := v.OpenPoint(b.Context(), "vm", ref)
		if err != nil {
			b.Fatal(err)
		}
		d, err := s.Disk("a")
		if err != nil {
			b.Fatal(err)
		}
		for off := int64(0); off < benchBytes; off += int64(len(buf)) {
			if err := d.ReadAt(b.Context(), buf, off); err != nil {
				b.Fatal(err)
			}
		}
	}
	b.ReportMetric((cpuSeconds()-start)/float64(b.N), "cpu-s/op")
}
