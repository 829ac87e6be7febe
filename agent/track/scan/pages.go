package scan

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"sync/atomic"
	"unsafe"
)

const (
	headerSize = 4096
	pageSize   = WindowBlocks * 16

	// WindowBlocks is the number of blocks that are read, compared and looked up at once.
	WindowBlocks = 256
)

// ErrDamaged is what reading pages returns whose checksum is wrong. The sums must be fetched from the replicator.
var ErrDamaged = errors.New("scan: the file of known sums is damaged")

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

var zeroPageCRC = crc32.Checksum(make([]byte, pageSize), castagnoli)

// pages is a file with a page of 16 bytes a block for each window, checksummed. A page that was never written reads as zeros, and
// so does its checksum, which is stored XORed with that of a page of zeros. Pages may be read and written by several goroutines,
// each page by one.
type pages struct {
	f     *os.File
	first int64         // offset of the first page
	dirty *atomic.Int64 // bytes of the file's pages that were written to
}

func newPages(f *os.File, size int64) pages {
	n := (size + WindowSize - 1) / WindowSize
	return pages{f: f, dirty: new(atomic.Int64), first: headerSize + (n*4+headerSize-1)/headerSize*headerSize}
}

func (p pages) read(window int64, dst []byte) error {
	if err := p.readAt(dst, p.first+window*pageSize); err != nil {
		return err
	}
	var c [4]byte
	if err := p.readAt(c[:], headerSize+4*window); err != nil {
		return err
	}
	if binary.BigEndian.Uint32(c[:]) != crc32.Checksum(dst, castagnoli)^zeroPageCRC {
		return fmt.Errorf("%w: %s, window %d", ErrDamaged, p.f.Name(), window)
	}
	return nil
}

// readAt reads what is there and zeros beyond the end.
func (p pages) readAt(dst []byte, off int64) error {
	n, err := p.f.ReadAt(dst, off)
	if errors.Is(err, io.EOF) {
		clear(dst[n:])
		return nil
	}
	if err != nil {
		return fmt.Errorf("read known sums: %w", err)
	}
	return nil
}

func (p pages) write(window int64, src []byte) error {
	if _, err := p.f.WriteAt(src, p.first+window*pageSize); err != nil {
		return fmt.Errorf("write known sums: %w", err)
	}
	var c [4]byte
	binary.BigEndian.PutUint32(c[:], crc32.Checksum(src, castagnoli)^zeroPageCRC)
	if _, err := p.f.WriteAt(c[:], headerSize+4*window); err != nil {
		return fmt.Errorf("write known sums: %w", err)
	}
	p.dirty.Add(2 * pageSize)
	return nil
}

// empty makes all pages zero.
func (p pages) empty() error {
	if err := p.f.Truncate(headerSize); err != nil {
		return fmt.Errorf("empty known sums: %w", err)
	}
	return nil
}

// bytesOf returns the memory of s, whose elements are 16 bytes without padding.
func bytesOf[T ~[16]byte](s []T) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(s))), len(s)*16)
}
