package chunk

import (
	"fmt"
	"runtime"

	"github.com/klauspost/compress"
	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zstd"
)

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

// ParseCodec reads the name of a codec that can be asked for.
func ParseCodec(name string) (Codec, error) {
	switch name {
	case "zstd":
		return Zstd, nil
	case "s2":
		return S2, nil
	}
	return Raw, fmt.Errorf("unknown compression %q: choose zstd or s2", name)
}

// The coders are shared by the whole process: they keep their tables between calls and both are safe for concurrent use.
// A frame needs no checksum of the codec's: encryption authenticates it.
var (
	zstdEncoder = mustEncoder(zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderCRC(false),
		zstd.WithSingleSegment(true), zstd.WithWindowSize(MaxPlain), zstd.WithEncoderConcurrency(runtime.GOMAXPROCS(0))))
	zstdDecoder = mustDecoder(zstd.NewReader(nil, zstd.WithDecoderConcurrency(runtime.GOMAXPROCS(0)),
		zstd.WithDecoderMaxMemory(MaxPlain), zstd.WithDecodeAllCapLimit(true)))
)

func mustEncoder(e *zstd.Encoder, err error) *zstd.Encoder {
	if err != nil {
		panic(err) // the options above are constants
	}
	e.EncodeAll([]byte{0}, nil) // it makes its channels now, not in a test's bubble
	return e
}

func mustDecoder(d *zstd.Decoder, err error) *zstd.Decoder {
	if err != nil {
		panic(err)
	}
	return d
}

// compressBound is how much room compressed needs behind dst for n plain bytes.
func compressBound(n int) int { return n + n/64 + 1024 }

// compressed returns the compressed form of plain, written behind dst, which must have compressBound(len(plain)) bytes of room. It
// falls back to Raw, and plain itself, when compressing saves less than 1/32, and does not try when samples look random.
func compressed(dst, plain []byte, codec Codec) ([]byte, Codec) {
	if codec != Raw && !looksRandom(plain) {
		var out []byte
		switch codec {
		case Zstd:
			out = zstdEncoder.EncodeAll(plain, dst)
		case S2:
			room := dst[len(dst):cap(dst)]
			enc := s2.Encode(room, plain)
			out = append(dst, enc...) // in place: enc is room[:n]
		}
		if packed := out[len(dst):]; len(packed) <= len(plain)-len(plain)/32 {
			return packed, codec
		}
	}
	return plain, Raw
}

// looksRandom samples a few places of p. It may only err towards compressing: all samples have to look random. The estimate for
// 2 KiB of true noise lies between 0.01 and 0.06, that of the least compressible sample of anything that compresses well above
// (of 549 chunks of files, none that zstd makes smaller had all its samples below 0.07).
func looksRandom(p []byte) bool {
	const sample, places, noise = 2048, 12, 0.07
	if len(p) < sample*places {
		return false
	}
	step := (len(p) - sample) / (places - 1)
	for i := range places {
		if compress.Estimate(p[i*step:i*step+sample]) > noise {
			return false
		}
	}
	return true
}

// decompressed appends the plain bytes to dst, which must have room for exactly n of them.
func decompressed(dst, src []byte, codec Codec, n int) ([]byte, error) {
	have := len(dst)
	switch codec {
	case Raw:
		if len(src) != n {
			return nil, fmt.Errorf("%w: raw frame of %d bytes, want %d", ErrFormat, len(src), n)
		}
		return append(dst, src...), nil
	case Zstd:
		out, err := zstdDecoder.DecodeAll(src, dst[:have:have+n])
		if err != nil {
			return nil, fmt.Errorf("%w: zstd: %w", ErrFormat, err)
		}
		if len(out)-have != n {
			return nil, fmt.Errorf("%w: zstd frame holds %d bytes, want %d", ErrFormat, len(out)-have, n)
		}
		return out, nil
	case S2:
		got, err := s2.DecodedLen(src)
		if err != nil || got != n {
			return nil, fmt.Errorf("%w: s2 frame holds %d bytes, want %d", ErrFormat, got, n)
		}
		if _, err := s2.Decode(dst[have:have+n], src); err != nil {
			return nil, fmt.Errorf("%w: s2: %w", ErrFormat, err)
		}
		return dst[:have+n], nil
	}
	return nil, fmt.Errorf("%w: unknown codec %d", ErrFormat, codec)
}
