package scan

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"unsafe"

	"github.com/lifeboat-dr/lifeboat/replicator/block"
)

// The file of known sums:
//
//	offset   size   field
//	0        4096   header: magic "LBSUMS1\n", length u32, CRC-32C of the JSON u32, JSON (tag), zeros
//	4096     4n     CRC-32C of each page of sums, XORed with that of a page of zeros, padded to 4096
//	...      4096n  pages: 256 sums of one window (1 MiB) of the disk each
//
// A page that was never written reads as zeros and so does its checksum: the sums of a window of zeros.
const (
	sumsMagic  = "LBSUMS1\n"
	headerSize = 4096
	pageSize   = WindowBlocks * len(block.Sum{})

	// WindowBlocks is the number of blocks that are read, compared and looked up at once.
	WindowBlocks = 256
	// WindowSize is their size in bytes.
	WindowSize = WindowBlocks * block.Size
)

// ErrDamaged is what reading sums returns whose checksum is wrong. The sums must be fetched from the replicator.
var ErrDamaged = errors.New("scan: the file of known sums is damaged")

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

var zeroPageCRC = crc32.Checksum(make([]byte, pageSize), castagnoli)

// Identity says whose sums a file holds. A file with another identity is worthless.
type Identity struct {
	Machine string
	Disk    string
	Size    int64
	Key     block.SumKey
}

// PointRef is a place in the machine's point log.
type PointRef struct{ Generation, Sequence int64 }

type tag struct {
	Machine    string `json:"machine"`
	Disk       string `json:"disk"`
	Size       int64  `json:"size"`
	Key        []byte `json:"key"` // fingerprint
	Clean      bool   `json:"clean"`
	Generation int64  `json:"generation"`
	Sequence   int64  `json:"sequence"`
}

// Sums is the file of the sums of all blocks of a disk, as the replicator holds them. While data is shipped it runs ahead of the
// newest point, so it is opened (Open) before the first change and settled (Settle) when the point is durable; a file that was
// not settled, for whatever reason, says nothing. Pages may be read and written by several goroutines, each page by one.
type Sums struct {
	f     *os.File
	tag   tag
	pages int64
	first int64 // offset of the first page
	ready bool  // the running session made or trusted the content
}

// OpenSums opens the file of known sums at path, or makes one. Whatever is not understood counts as not settled.
func OpenSums(path string, id Identity) (*Sums, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open known sums of disk %s: %w", id.Disk, err)
	}
	fp := sha256.Sum256(append([]byte("lifeboat sums key\x00"), id.Key[:]...))
	want := tag{Machine: id.Machine, Disk: id.Disk, Size: id.Size, Key: fp[:16]}
	s := &Sums{f: f, pages: (id.Size + WindowSize - 1) / WindowSize}
	s.first = headerSize + (s.pages*4+headerSize-1)/headerSize*headerSize
	got, ok := readTag(f)
	if ok && got.Machine == want.Machine && got.Disk == want.Disk && got.Size == want.Size && bytes.Equal(got.Key, want.Key) {
		s.tag = got
		return s, nil
	}
	s.tag = want
	return s, nil
}

func readTag(f *os.File) (t tag, ok bool) {
	h := make([]byte, headerSize)
	if _, err := f.ReadAt(h, 0); err != nil || string(h[:len(sumsMagic)]) != sumsMagic {
		return tag{}, false
	}
	n := binary.BigEndian.Uint32(h[8:])
	if n > headerSize-16 {
		return tag{}, false
	}
	p := h[16 : 16+n]
	if crc32.Checksum(p, castagnoli) != binary.BigEndian.Uint32(h[12:]) || json.Unmarshal(p, &t) != nil {
		return tag{}, false
	}
	return t, true
}

func (s *Sums) writeTag() error {
	p, err := json.Marshal(s.tag)
	if err != nil {
		return err
	}
	if len(p) > headerSize-16 {
		return fmt.Errorf("known sums: a tag of %d bytes", len(p))
	}
	h := make([]byte, headerSize)
	copy(h, sumsMagic)
	binary.BigEndian.PutUint32(h[8:], uint32(len(p)))
	binary.BigEndian.PutUint32(h[12:], crc32.Checksum(p, castagnoli))
	copy(h[16:], p)
	if _, err := s.f.WriteAt(h, 0); err != nil {
		return fmt.Errorf("write known sums: %w", err)
	}
	return s.sync()
}

func (s *Sums) sync() error {
	if err := s.f.Sync(); err != nil {
		return fmt.Errorf("sync known sums: %w", err)
	}
	return nil
}

// Settled returns the point whose sums the file holds; false when it may hold others.
func (s *Sums) Settled() (PointRef, bool) {
	return PointRef{s.tag.Generation, s.tag.Sequence}, s.tag.Clean
}

// Open makes the file fit for changes: from here on it is unsettled, also after a crash. It must be called before the first
// byte is shipped that is not in the settled point.
func (s *Sums) Open() error {
	if !s.tag.Clean {
		return nil
	}
	s.tag.Clean = false
	return s.writeTag()
}

// Reset makes every sum that of zeros, unsettled.
func (s *Sums) Reset() error {
	s.tag.Clean = false
	if err := s.writeTag(); err != nil {
		return err
	}
	if err := s.f.Truncate(headerSize); err != nil {
		return fmt.Errorf("empty known sums: %w", err)
	}
	return nil
}

// Settle records that the file holds the sums of a durable point.
func (s *Sums) Settle(p PointRef) error {
	if err := s.sync(); err != nil {
		return err
	}
	s.tag.Clean, s.tag.Generation, s.tag.Sequence = true, p.Generation, p.Sequence
	return s.writeTag()
}

// Read fills dst, of WindowBlocks sums, with those of a window. ErrDamaged when they are not what was written.
func (s *Sums) Read(window int64, dst []block.Sum) error {
	p := bytesOf(dst)
	if err := s.readAt(p, s.first+window*int64(pageSize)); err != nil {
		return err
	}
	var c [4]byte
	if err := s.readAt(c[:], headerSize+4*window); err != nil {
		return err
	}
	if binary.BigEndian.Uint32(c[:]) != crc32.Checksum(p, castagnoli)^zeroPageCRC {
		return fmt.Errorf("%w: disk %s, window %d", ErrDamaged, s.tag.Disk, window)
	}
	return nil
}

// readAt reads what is there and zeros beyond the end.
func (s *Sums) readAt(p []byte, off int64) error {
	n, err := s.f.ReadAt(p, off)
	if errors.Is(err, io.EOF) {
		clear(p[n:])
		return nil
	}
	if err != nil {
		return fmt.Errorf("read known sums: %w", err)
	}
	return nil
}

// Write replaces the sums of a window.
func (s *Sums) Write(window int64, src []block.Sum) error {
	p := bytesOf(src)
	if _, err := s.f.WriteAt(p, s.first+window*int64(pageSize)); err != nil {
		return fmt.Errorf("write known sums: %w", err)
	}
	var c [4]byte
	binary.BigEndian.PutUint32(c[:], crc32.Checksum(p, castagnoli)^zeroPageCRC)
	if _, err := s.f.WriteAt(c[:], headerSize+4*window); err != nil {
		return fmt.Errorf("write known sums: %w", err)
	}
	return nil
}

// Update replaces single sums of a window: sums[i] at the block that index[i] says, counted from the window's first.
func (s *Sums) Update(window int64, index []uint8, sums []block.Sum) error {
	page := make([]block.Sum, WindowBlocks)
	if err := s.Read(window, page); err != nil {
		return err
	}
	for i, at := range index {
		page[at] = sums[i]
	}
	return s.Write(window, page)
}

// Close closes the file and changes nothing.
func (s *Sums) Close() error { return s.f.Close() }

func bytesOf(s []block.Sum) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(s))), len(s)*len(block.Sum{}))
}
