package chunk

import (
	"bytes"
	"errors"
	"flag"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/lifeboat-dr/lifeboat/replicator/block"
)

var update = flag.Bool("update", false, "write samples that are missing; samples that are there are never changed")

var testKey = [32]byte{1, 2, 3}

func randomBytes(seed uint64, n int) []byte {
	p := make([]byte, n)
	rng := rand.New(rand.NewPCG(seed, 0))
	for i := range p {
		p[i] = byte(rng.Uint32())
	}
	return p
}

func textBytes(n int) []byte { return []byte(strings.Repeat("every byte counts. ", n/19+1)[:n]) }

func TestFrameGivesBackItsBytes(t *testing.T) {
	t.Parallel()
	c := NewCipher(testKey)
	full := textBytes(MaxPlain)
	copy(full[100<<10:], randomBytes(1, 300<<10))
	for _, tc := range []struct {
		name  string
		plain []byte
		codec Codec
		want  Codec
	}{
		{"text with zstd", textBytes(16 * block.Size), Zstd, Zstd},
		{"text with s2", textBytes(16 * block.Size), S2, S2},
		{"random bytes are stored raw", randomBytes(2, 64*block.Size), Zstd, Raw},
		{"few random bytes are stored raw", randomBytes(2, block.Size), S2, Raw},
		{"raw on request", textBytes(block.Size), Raw, Raw},
		{"a full frame of mixed bytes", full, Zstd, Zstd},
		{"holes only", nil, Zstd, Raw},
	} {
		runs := []Run{{Disk: 3, Hole: true, First: 1 << 40, Blocks: 1 << 33}}
		if len(tc.plain) > 0 {
			runs = append(runs, Run{Disk: 0, First: 7, Blocks: int64(len(tc.plain) / block.Size)})
		}
		lead := []byte("before")
		p := c.Seal(slices.Clone(lead), tc.codec, 9, runs, tc.plain)
		if !bytes.HasPrefix(p, lead) {
			t.Fatalf("%s: seal did not append", tc.name)
		}
		p = p[len(lead):]
		f, err := Parse(append(slices.Clone(p), "after"...))
		if err != nil || f.Codec != tc.want || f.Index != 9 || f.Size() != len(p) || !slices.Equal(f.Runs, runs) {
			t.Errorf("%s: parse: got %+v, %v", tc.name, f, err)
		}
		got, err := c.Open(slices.Clone(p), 9)
		if err != nil || !bytes.Equal(got, tc.plain) {
			t.Errorf("%s: open: got %d bytes, %v", tc.name, len(got), err)
		}
		if _, err := c.Open(slices.Clone(p), 8); !errors.Is(err, ErrFormat) {
			t.Errorf("%s: open as another index: got %v, want ErrFormat", tc.name, err)
		}
		if _, err := NewCipher([32]byte{9}).Open(slices.Clone(p), 9); !errors.Is(err, ErrAuth) {
			t.Errorf("%s: open with another key: got %v, want ErrAuth", tc.name, err)
		}
		for _, cut := range []int{0, 10, len(p) - 1} {
			if _, err := c.Open(slices.Clone(p[:cut]), 9); err == nil {
				t.Errorf("%s: open of %d of %d bytes succeeded", tc.name, cut, len(p))
			}
		}
	}
}

func TestNoChangedBitOpens(t *testing.T) {
	t.Parallel()
	c := NewCipher(testKey)
	p := c.Seal(nil, Zstd, 1, []Run{{First: 1, Blocks: 2}}, textBytes(2*block.Size))
	for i := range p {
		for bit := range 8 {
			bad := slices.Clone(p)
			bad[i] ^= 1 << bit
			if _, err := c.Open(bad, 1); err == nil {
				t.Fatalf("byte %d bit %d changed: it opened", i, bit)
			}
		}
	}
}

// TestFrameLayout shows the bytes of docs/formats.md.
func TestFrameLayout(t *testing.T) {
	t.Parallel()
	p := NewCipher(testKey).Seal(nil, Raw, 5, []Run{{Disk: 1, First: 300, Blocks: 1}, {Disk: 1, Hole: true, First: 299, Blocks: 2}}, make([]byte, block.Size))
	for _, f := range []struct {
		name     string
		from, to int
		want     string
	}{
		{"magic", 0, 4, "LBFR"},
		{"version", 4, 5, "\x01"},
		{"codec raw", 5, 6, "\x00"},
		{"two runs", 6, 8, "\x02\x00"},
		{"index", 8, 12, "\x05\x00\x00\x00"},
		{"plain length", 12, 16, "\x00\x10\x00\x00"},
		{"payload with tag", 16, 20, "\x10\x10\x00\x00"},
		{"run table length", 20, 24, "\x07\x00\x00\x00"},
		{"disk 1, 300 from 0, 1 block", 24, 28, "\x02\xd8\x04\x01"},
		{"disk 1 hole, 2 back from 301, 2 blocks", 28, 31, "\x03\x03\x02"},
	} {
		if got := string(p[f.from:f.to]); got != f.want {
			t.Errorf("%s: got %x, want %x", f.name, got, f.want)
		}
	}
	if want := 24 + 7 + 4 + block.Size + 16; len(p) != want {
		t.Errorf("frame of %d bytes, want %d", len(p), want)
	}
}

// TestSamples reads the frames of released versions. What a codec writes may change with its library; what it reads may not.
func TestSamples(t *testing.T) {
	t.Parallel()
	plain := append(textBytes(2*block.Size), randomBytes(4, block.Size)...)
	runs := []Run{{Disk: 0, First: 10, Blocks: 2}, {Disk: 2, First: 0, Blocks: 1}, {Disk: 0, Hole: true, First: 10, Blocks: 1}}
	for _, codec := range []Codec{Raw, Zstd, S2} {
		path := filepath.Join("testdata", "frame-v1-"+codec.String()+".bin")
		if _, err := os.Stat(path); *update && errors.Is(err, os.ErrNotExist) {
			if err := os.WriteFile(path, NewCipher(testKey).Seal(nil, codec, 3, runs, plain), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		p, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		f, err := Parse(p)
		if err != nil || !slices.Equal(f.Runs, runs) || f.Codec != codec {
			t.Errorf("%s: got %+v, %v", path, f, err)
		}
		got, err := NewCipher(testKey).Open(p, 3)
		if err != nil || !bytes.Equal(got, plain) {
			t.Errorf("%s: got %d bytes, %v", path, len(got), err)
		}
	}
}

func TestTrailer(t *testing.T) {
	t.Parallel()
	want := Trailer{Offset: 1000, Length: 76}
	p := want.Append(nil, PackTrailer)
	if got, err := ParseTrailer(p, PackTrailer, 1100); err != nil || got != want {
		t.Errorf("got %+v, %v", got, err)
	}
	if _, err := ParseTrailer(p, MapTrailer, 1100); !errors.Is(err, ErrFormat) {
		t.Errorf("another magic: got %v, want ErrFormat", err)
	}
	if _, err := ParseTrailer(p, PackTrailer, 1101); !errors.Is(err, ErrFormat) {
		t.Errorf("another object size: got %v, want ErrFormat", err)
	}
}

func FuzzParse(f *testing.F) {
	c := NewCipher(testKey)
	f.Add(c.Seal(nil, Raw, 0, []Run{{First: 1, Blocks: 1}}, make([]byte, block.Size)))
	f.Add(c.Seal(nil, Zstd, 70, []Run{{Disk: 2, Hole: true, First: 1 << 30, Blocks: 1 << 20}}, nil))
	f.Fuzz(func(t *testing.T, p []byte) {
		h, err := Parse(p)
		if err != nil {
			if !errors.Is(err, ErrFormat) {
				t.Fatalf("got %v, want ErrFormat", err)
			}
			return
		}
		again, blocks, err := parseRuns(appendRuns(nil, h.Runs), len(h.Runs))
		if err != nil || blocks*block.Size != int64(h.Plain) || !slices.Equal(again, h.Runs) {
			t.Fatalf("runs encoded again differ: %v", err)
		}
	})
}

func FuzzParseRuns(f *testing.F) {
	f.Add(appendRuns(nil, []Run{{First: 5, Blocks: 3}, {Disk: 1, Hole: true, First: 1, Blocks: 1 << 30}}), 2)
	f.Fuzz(func(t *testing.T, p []byte, n int) {
		if n < 0 || n > MaxRuns {
			return
		}
		runs, blocks, err := parseRuns(p, n)
		if err != nil {
			return
		}
		again, blocks2, err := parseRuns(appendRuns(nil, runs), n)
		if err != nil || blocks2 != blocks || !slices.Equal(again, runs) {
			t.Fatalf("runs encoded again differ: %v", err)
		}
	})
}

// FuzzDecompressed plays a writer with the key and bad intentions: only then do a codec's bytes get this far.
func FuzzDecompressed(f *testing.F) {
	for _, codec := range []Codec{Raw, Zstd, S2} {
		plain := textBytes(block.Size)
		p, got := compressed(make([]byte, 0, compressBound(len(plain))), plain, codec)
		f.Add(p, byte(got), len(plain))
	}
	f.Fuzz(func(t *testing.T, p []byte, codec byte, n int) {
		if n <= 0 || n > MaxPlain {
			return
		}
		out, err := decompressed(make([]byte, 0, n), p, Codec(codec), n)
		if (err == nil) != (len(out) == n) {
			t.Fatalf("got %d bytes of %d and %v", len(out), n, err)
		}
	})
}

func FuzzParseTrailer(f *testing.F) {
	f.Add(Trailer{Offset: 10, Length: 5}.Append(nil, MapTrailer), int64(39))
	f.Fuzz(func(t *testing.T, p []byte, size int64) {
		tr, err := ParseTrailer(p, MapTrailer, size)
		if err == nil && !bytes.Equal(tr.Append(nil, MapTrailer), p) {
			t.Fatal("the trailer encoded again differs")
		}
	})
}
