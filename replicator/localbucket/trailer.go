package localbucket

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
)

// The trailer of an object file:
//
//	body | attributes as JSON, n bytes | n (4, little endian) | CRC-32C of the JSON (4) | magic (8)
//
// A file that does not end in the magic is all body, with the default attributes. So the writer appends a trailer where
// attributes differ from the default, and also where the body itself ends in the magic.
const (
	trailerMagic  = "LBattrs\x01"
	footerSize    = 8 + len(trailerMagic)
	maxAttributes = 64 << 10
	plainType     = "application/octet-stream"
)

var errTrailer = errors.New("the object's attributes are damaged")

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// attributes are the fields of a blob that the filesystem does not keep by itself.
type attributes struct {
	ContentType        string            `json:"contentType,omitempty"`
	CacheControl       string            `json:"cacheControl,omitempty"`
	ContentDisposition string            `json:"contentDisposition,omitempty"`
	ContentEncoding    string            `json:"contentEncoding,omitempty"`
	ContentLanguage    string            `json:"contentLanguage,omitempty"`
	Metadata           map[string]string `json:"metadata,omitempty"`
}

func (a *attributes) plain() bool {
	return a.ContentType == plainType && a.CacheControl == "" && a.ContentDisposition == "" && a.ContentEncoding == "" &&
		a.ContentLanguage == "" && len(a.Metadata) == 0
}

// encodeTrailer returns the trailer for a.
func encodeTrailer(a *attributes) ([]byte, error) {
	p, err := json.Marshal(a)
	if err != nil {
		return nil, err
	}
	if len(p) > maxAttributes {
		return nil, fmt.Errorf("%w: attributes of %d bytes, %d are possible", errKey, len(p), maxAttributes)
	}
	sum := crc32.Checksum(p, castagnoli)
	p = binary.LittleEndian.AppendUint32(p, uint32(len(p)))
	p = binary.LittleEndian.AppendUint32(p, sum)
	return append(p, trailerMagic...), nil
}

// readTrailer returns the attributes of an open object file and the length of its body.
func readTrailer(f io.ReaderAt, size int64) (a attributes, body int64, err error) {
	a.ContentType = plainType
	if size < int64(footerSize) {
		return a, size, nil
	}
	var footer [footerSize]byte
	if _, err := f.ReadAt(footer[:], size-int64(footerSize)); err != nil {
		return a, 0, err
	}
	if string(footer[8:]) != trailerMagic {
		return a, size, nil
	}
	n := int64(binary.LittleEndian.Uint32(footer[:4]))
	body = size - int64(footerSize) - n
	if n > maxAttributes || body < 0 {
		return a, 0, fmt.Errorf("%w: a length of %d", errTrailer, n)
	}
	p := make([]byte, n)
	if _, err := f.ReadAt(p, body); err != nil {
		return a, 0, err
	}
	if crc32.Checksum(p, castagnoli) != binary.LittleEndian.Uint32(footer[4:8]) {
		return a, 0, fmt.Errorf("%w: wrong checksum", errTrailer)
	}
	a = attributes{}
	if err := json.Unmarshal(p, &a); err != nil {
		return a, 0, fmt.Errorf("%w: %w", errTrailer, err)
	}
	return a, body, nil
}

// endsInMagic tells whether a body would be taken for one with a trailer.
func endsInMagic(f *os.File, size int64) (bool, error) {
	if size < int64(len(trailerMagic)) {
		return false, nil
	}
	var end [len(trailerMagic)]byte
	if _, err := f.ReadAt(end[:], size-int64(len(end))); err != nil {
		return false, err
	}
	return string(end[:]) == trailerMagic, nil
}
