// Package chunk owns the stored form of data: frames (compressed, then encrypted, authenticated pieces of disks) and the packs
// that hold them. It does no I/O of its own and never returns bytes that did not authenticate. The layout is in
// docs/formats.md.
package chunk

import "fmt"

// Codec says how the plain bytes of a frame were compressed. Values are stored: never renumber.
type Codec uint8

// The codecs of format version 1. Raw is chosen by Seal for data that does not compress, whatever was asked for.
const (
	Raw  Codec = 0
	Zstd Codec = 1
	S2   Codec = 2
)

// String returns the codec's name as used in configuration.
func (c Codec) String() string {
	switch c {
	case Raw:
		return "raw"
	case Zstd:
		return "zstd"
	case S2:
		return "s2"
	}
	return fmt.Sprintf("codec(%d)", uint8(c))
}
