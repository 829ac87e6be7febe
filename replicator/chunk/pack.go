package chunk

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
)

// TrailerSize is the length of the last bytes of a pack or map.
const TrailerSize = 24

const trailerVersion = 1

// Trailer says where an object's index record lies.
type Trailer struct {
	Offset int64 // of the index record
	Length int64
}

// The trailers' magics: of packs and of maps.
const (
	PackTrailer = "LBPE"
	MapTrailer  = "LBME"
)

// Append appends the trailer with the given magic to dst.
func (t Trailer) Append(dst []byte, magic string) []byte {
	start := len(dst)
	dst = append(dst, magic...)
	dst = binary.LittleEndian.AppendUint16(dst, trailerVersion)
	dst = append(dst, 0, 0)
	dst = binary.LittleEndian.AppendUint64(dst, uint64(t.Offset))
	dst = binary.LittleEndian.AppendUint32(dst, uint32(t.Length))
	return binary.LittleEndian.AppendUint32(dst, crc32.Checksum(dst[start:], castagnoli))
}

// ParseTrailer reads the trailer of an object of size bytes from its last TrailerSize bytes.
func ParseTrailer(p []byte, magic string, size int64) (Trailer, error) {
	if len(p) != TrailerSize || string(p[:4]) != magic {
		return Trailer{}, fmt.Errorf("%w: no trailer %s", ErrFormat, magic)
	}
	le := binary.LittleEndian
	if v := le.Uint16(p[4:]); v != trailerVersion {
		return Trailer{}, fmt.Errorf("%w: trailer version %d is unknown", ErrFormat, v)
	}
	if crc32.Checksum(p[:20], castagnoli) != le.Uint32(p[20:]) || p[6] != 0 || p[7] != 0 {
		return Trailer{}, fmt.Errorf("%w: trailer checksum", ErrFormat)
	}
	t := Trailer{Offset: int64(le.Uint64(p[8:])), Length: int64(le.Uint32(p[16:]))}
	if t.Offset < 0 || t.Offset > size || t.Offset+t.Length+TrailerSize != size {
		return Trailer{}, fmt.Errorf("%w: trailer points outside", ErrFormat)
	}
	return t, nil
}
