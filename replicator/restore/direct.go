package restore

import (
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/lifeboat-dr/lifeboat/replicator/block"
)

// directRun is the least that is written past the page cache. Small runs are better gathered there, above all on spinning disks.
const directRun = 256 << 10

// runWriter writes long runs past the page cache: an image is as large as a disk, nobody reads it back soon, and copying it through
// memory costs as much as decompressing it. Safe for concurrent use on runs that do not overlap.
type runWriter struct {
	f       *os.File
	direct  *os.File // the same file; nil where the filesystem cannot do it
	refused atomic.Bool
}

func newRunWriter(f *os.File) *runWriter {
	w := &runWriter{f: f}
	if d, err := os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", f.Fd()), os.O_WRONLY|unix.O_DIRECT, 0); err == nil {
		w.direct = d
	}
	return w
}

func (w *runWriter) close() {
	if w.direct != nil {
		_ = w.direct.Close() // what was written is there or WriteAt said so
	}
}

// writeAt writes p. Long runs have to be aligned, in memory and in the file, which a short last block is not: it goes the other way,
// and so do all when the device wants more than we have. The two ways never meet in one block.
func (w *runWriter) writeAt(p []byte, off int64) error {
	if w.direct != nil && len(p) >= directRun && !w.refused.Load() && off%block.Size == 0 && uintptr(unsafe.Pointer(&p[0]))%block.Size == 0 {
		n, err := w.direct.WriteAt(p[:len(p)/block.Size*block.Size], off)
		if err != nil && !errors.Is(err, unix.EINVAL) {
			return err
		}
		if err != nil {
			w.refused.Store(true)
		}
		p, off = p[n:], off+int64(n)
	}
	if len(p) == 0 {
		return nil
	}
	_, err := w.f.WriteAt(p, off)
	return err
}
