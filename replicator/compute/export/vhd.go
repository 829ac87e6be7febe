package export

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lifeboat-dr/lifeboat/replicator/restore"
)

// vhdFooter is the length of what follows the disk's bytes in a fixed VHD.
const vhdFooter = 512

// vhdAlign is what Azure wants the virtual size to be a multiple of. The rest reads as zeros.
const vhdAlign = 1 << 20

// writeVHD writes a fixed VHD: the bytes of the disk, then the footer.
func writeVHD(ctx context.Context, src restore.Source, path string, opt Options) error {
	size := (src.Size() + vhdAlign - 1) / vhdAlign * vhdAlign
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	err = fillVHD(ctx, src, f, size, opt)
	if errors.Is(err, unix.ENOSPC) {
		err = fmt.Errorf("%w: %w", restore.ErrFull, err)
	}
	return errors.Join(err, f.Close())
}

func fillVHD(ctx context.Context, src restore.Source, f *os.File, size int64, opt Options) error {
	var id [16]byte
	if _, err := rand.Read(id[:]); err != nil {
		return err
	}
	footer := fixedFooter(size, id, time.Now())
	// The footer first: a target that is too small for it is noticed before the long copy. Its place also sets the length.
	if _, err := f.WriteAt(footer[:], size); err != nil {
		return err
	}
	return restore.CopyData(ctx, src, f, restore.ImageOptions{Progress: opt.Progress})
}

// fixedFooter makes the footer of a fixed disk of size bytes.
//
// Virtual Hard Disk Image Format Specification, version 1.0, "Hard Disk Footer Format"; all numbers big endian.
func fixedFooter(size int64, id [16]byte, now time.Time) [vhdFooter]byte {
	var b [vhdFooter]byte
	be := binary.BigEndian
	copy(b[0:], "conectix")
	be.PutUint32(b[8:], 2)           // features: the reserved bit, always set
	be.PutUint32(b[12:], 0x00010000) // version of the format
	be.PutUint64(b[16:], ^uint64(0)) // offset of a dynamic header: none
	be.PutUint32(b[24:], uint32(now.Unix()-time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC).Unix()))
	// Readers take the size from the geometry, which is rounded, unless the creator is one that they know to write it exactly.
	copy(b[28:], "win ")
	be.PutUint32(b[32:], 0x000a0000)
	copy(b[36:], "Wi2k")
	be.PutUint64(b[40:], uint64(size)) // original size
	be.PutUint64(b[48:], uint64(size)) // current size
	cylinders, heads, sectors := geometry(size / 512)
	be.PutUint16(b[56:], cylinders)
	b[58], b[59] = heads, sectors
	be.PutUint32(b[60:], 2) // fixed
	copy(b[68:], id[:])
	var sum uint32
	for _, v := range b {
		sum += uint32(v)
	}
	be.PutUint32(b[64:], ^sum)
	return b
}

// geometry returns cylinders, heads and sectors a track for a disk of n sectors.
//
// The same specification, "Appendix: CHS Calculation".
func geometry(n int64) (cylinders uint16, heads, sectors uint8) {
	n = min(n, 65535*16*255)
	var perTrack, h, tracks int64
	if n >= 65535*16*63 {
		perTrack, h = 255, 16
		tracks = n / perTrack
	} else {
		perTrack = 17
		tracks = n / perTrack
		h = max((tracks+1023)/1024, 4)
		if tracks >= h*1024 || h > 16 {
			perTrack, h = 31, 16
			tracks = n / perTrack
		}
		if tracks >= h*1024 {
			perTrack, h = 63, 16
			tracks = n / perTrack
		}
	}
	return uint16(tracks / h), uint8(h), uint8(perTrack)
}
