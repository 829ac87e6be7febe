package guest

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io/fs"
)

// cpioWriter makes an initramfs archive ("newc", Documentation/driver-api/early-userspace/buffer-format.rst of Linux).
type cpioWriter struct {
	buf   bytes.Buffer
	inode int
}

const (
	cpioDir  = 0o040000
	cpioFile = 0o100000
)

func (w *cpioWriter) dir(name string) { w.entry(name, cpioDir|0o755, nil) }

func (w *cpioWriter) file(name string, mode fs.FileMode, data []byte) {
	w.entry(name, cpioFile|int(mode.Perm()), data)
}

func (w *cpioWriter) entry(name string, mode int, data []byte) {
	w.inode++
	fmt.Fprintf(&w.buf, "070701%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%s\x00",
		w.inode, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name)+1, 0, name)
	w.pad()
	w.buf.Write(data)
	w.pad()
}

func (w *cpioWriter) pad() {
	for w.buf.Len()%4 != 0 {
		w.buf.WriteByte(0)
	}
}

// finish ends the archive and returns it compressed. Fast beats small: an emulated guest unpacks it.
func (w *cpioWriter) finish() ([]byte, error) {
	w.entry("TRAILER!!!", 0, nil)
	var out bytes.Buffer
	z, err := gzip.NewWriterLevel(&out, gzip.BestSpeed)
	if err != nil {
		return nil, err
	}
	if _, err := z.Write(w.buf.Bytes()); err != nil {
		return nil, err
	}
	if err := z.Close(); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}
