package bench

import (
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"sync"
	"time"

	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zstd"

	"github.com/lifeboat-dr/lifeboat/replicator/block"
)

const ceilingChunk = 1 << 20

// Ceiling is the least that a first copy can cost: one process, two workers, no network and no format. It reads image, skips
// chunks of zeros, compresses 1 MiB chunks with codec ("zstd" at its fastest level, or "s2") with the settings that Lifeboat
// has, encrypts them with AES-256-GCM and appends them to target, which it syncs.
func Ceiling(image, target, codec string) (c Cost, err error) {
	before, err := selfCPU()
	if err != nil {
		return c, err
	}
	start := time.Now()
	if c.Stored, err = ceiling(image, target, codec); err != nil {
		return c, err
	}
	c.Wall = time.Since(start)
	after, err := selfCPU()
	c.CPU = after - before
	return c, err
}

func ceiling(image, target, codec string) (stored int64, err error) {
	in, err := os.Open(image)
	if err != nil {
		return 0, err
	}
	defer func() { _ = in.Close() }()
	out, err := os.Create(target)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	cipherBlock, err := aes.NewCipher(make([]byte, 32))
	if err != nil {
		return 0, err
	}
	seal, err := cipher.NewGCM(cipherBlock)
	if err != nil {
		return 0, err
	}
	info, err := in.Stat()
	if err != nil {
		return 0, err
	}
	var mu sync.Mutex
	var next, at int64
	var failed error
	work := func() error {
		encoder, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderCRC(false),
			zstd.WithSingleSegment(true), zstd.WithWindowSize(ceilingChunk), zstd.WithEncoderConcurrency(1))
		if err != nil {
			return err
		}
		plain, packed, sealed := make([]byte, ceilingChunk), []byte(nil), []byte(nil)
		for {
			mu.Lock()
			offset := next
			next += ceilingChunk
			stop := failed != nil
			mu.Unlock()
			if stop || offset >= info.Size() {
				return nil
			}
			n, err := in.ReadAt(plain, offset)
			if err != nil && err != io.EOF {
				return err
			}
			if block.IsZero(plain[:n]) {
				continue
			}
			if codec == "s2" {
				packed = s2.Encode(packed[:cap(packed)], plain[:n])
			} else {
				packed = encoder.EncodeAll(plain[:n], packed[:0])
			}
			var nonce [12]byte
			binary.LittleEndian.PutUint64(nonce[:], uint64(offset))
			sealed = seal.Seal(sealed[:0], nonce[:], packed, nil)
			mu.Lock()
			place := at
			at += int64(len(sealed))
			mu.Unlock()
			if _, err := out.WriteAt(sealed, place); err != nil {
				return err
			}
		}
	}
	var workers sync.WaitGroup
	for range 2 {
		workers.Go(func() {
			if err := work(); err != nil {
				mu.Lock()
				failed = errors.Join(failed, err)
				mu.Unlock()
			}
		})
	}
	workers.Wait()
	return at, errors.Join(failed, out.Sync())
}
