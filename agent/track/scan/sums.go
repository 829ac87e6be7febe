package scan

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"

	"github.com/lifeboat-dr/lifeboat/replicator/block"
)

// The file of known sums:
//
//	offset   size   field
//	0        4096   header: magic "LBSUMS1\n", length u32, CRC-32C of the JSON u32, JSON (tag), zeros
//	4096     4n     CRC-32C of each page, XORed with that of a page of zeros, padded to 4096
//	...      4096n  pages: 256 sums of one window (1 MiB) of the disk each
const (
	sumsMagic = "LBSUMS1\n"

	// WindowSize is the bytes of a window.
	WindowSize = WindowBlocks * block.Size
)

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
	Based      bool   `json:"based,omitempty"` // what no tracker reported since is as it was at the point
	Generation int64  `json:"generation"`
	Sequence   int64  `json:"sequence"`
}

// Sums is the file of the sums of all blocks of a disk, as the replicator holds them. While data is shipped it runs ahead of the
// newest point, so it is opened (Open) before the first change and settled (Settle) when the point is durable; a file that was
// not settled, for whatever reason, says nothing. Windows may be read and written by several goroutines, each by one.
type Sums struct {
	pages
	tag  tag
	ours bool // the file has the tag's identity
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
	s := &Sums{pages: newPages(f, id.Size)}
	got, ok := readTag(f)
	if ok && got.Machine == want.Machine && got.Disk == want.Disk && got.Size == want.Size && bytes.Equal(got.Key, want.Key) {
		s.tag, s.ours = got, true
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
	s.ours = true
	s.dirty.Add(headerSize)
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
// byte is shipped that is not in the settled point. Its base stays the settled point.
func (s *Sums) Open() error {
	if !s.tag.Clean && s.ours {
		return nil
	}
	s.tag.Clean = false
	return s.writeTag()
}

// Base returns the point that the file was settled at last. Whatever the sums are now, those of blocks that were not written
// since are the point's. False when that cannot be said.
func (s *Sums) Base() (PointRef, bool) {
	return PointRef{s.tag.Generation, s.tag.Sequence}, s.ours && s.tag.Based
}

// Unsettle makes the file fit for any sums: from here on it has no base, until it is settled.
func (s *Sums) Unsettle() error {
	if !s.tag.Clean && !s.tag.Based && s.ours {
		return nil
	}
	s.tag.Clean, s.tag.Based = false, false
	return s.writeTag()
}

// Ours tells whether the file has the identity it was opened with. If not, its sums are those of something else, and must be
// emptied before others are written.
func (s *Sums) Ours() bool { return s.ours }

// Reset makes every sum that of zeros, unsettled.
func (s *Sums) Reset() error {
	s.tag.Clean, s.tag.Based = false, false
	if err := s.writeTag(); err != nil {
		return err
	}
	return s.empty()
}

// Settle records that the file holds the sums of a durable point.
func (s *Sums) Settle(p PointRef) error {
	if err := s.sync(); err != nil {
		return err
	}
	s.tag.Clean, s.tag.Based, s.tag.Generation, s.tag.Sequence = true, true, p.Generation, p.Sequence
	return s.writeTag()
}

// Read fills dst, of WindowBlocks sums, with those of a window. ErrDamaged when they are not what was written.
func (s *Sums) Read(window int64, dst []block.Sum) error { return s.read(window, bytesOf(dst)) }

// Write replaces the sums of a window.
func (s *Sums) Write(window int64, src []block.Sum) error { return s.write(window, bytesOf(src)) }

// Dirtied returns how many bytes of the file were made dirty since it was called last, in whole pages: that is what a disk gets to
// write when each is written out at once.
func (s *Sums) Dirtied() int64 { return s.dirty.Swap(0) }

// Close closes the file and changes nothing.
func (s *Sums) Close() error { return s.f.Close() }
