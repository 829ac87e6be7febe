// Package restore turns a recovery point into disks: lazily served ones (a disk server process that speaks NBD), image files,
// and write-back onto a machine's home disks, where only what differs is written.
//
// It reads points through Source; only point.go knows the repository. Every byte passes the verification of whoever implements
// Source. It must never hand out a byte that Source did not vouch for, and never write outside its target.
package restore

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/lifeboat-dr/lifeboat/replicator/block"
)

// Source is one disk of a recovery point. Safe for concurrent use.
type Source interface {
	// Size is the disk's length in bytes, a multiple of block.Sector.
	Size() int64

	// ReadAt fills p with the bytes at off, holes as zeros. It reads all of p or returns an error, and every byte that it
	// returns was verified. On an error p holds nothing that may be used.
	ReadAt(ctx context.Context, p []byte, off int64) error

	// Next returns the first extent at or after off that may hold something other than zeros; everything between off and it
	// reads as zeros. ok is false when there is none. The extent may start before off when off lies within it.
	Next(ctx context.Context, off int64) (data block.Extent, ok bool, err error)
}

// Disks is an open recovery point, or the disks of a machine that is off.
type Disks interface {
	// Disk returns a disk by its id. The Source is valid until Close.
	Disk(id string) (Source, error)

	// Traffic tells how many requests went to the bucket so far and how many bytes they brought. Zero where there is none.
	Traffic() (requests, bytes int64)

	io.Closer
}

// Target is a disk that is written back: a file, a block device, or an image that a hypervisor's tool opened for us. Its
// methods are called concurrently, on ranges that do not overlap.
type Target interface {
	Size() int64
	ReadAt(p []byte, off int64) (int, error)
	WriteAt(p []byte, off int64) (int, error)
	// Zero makes the range read as zeros, by deallocating it where that is possible.
	Zero(off, length int64) error
	// Sync returns when all that was written is on stable storage.
	Sync() error
}

var (
	// ErrCorrupt says that stored bytes failed their verification. It is never retried into silence. Errors of a Source for
	// which this is the cause wrap it.
	ErrCorrupt = errors.New("stored data is corrupt")

	// ErrSize says that a target's length does not fit the disk that is written to it.
	ErrSize = errors.New("target size differs from the disk's")

	// ErrFull says that the target has no space left. What was written so far is kept or removed as the function says.
	ErrFull = errors.New("no space left on target")

	// ErrGone says that the target vanished or failed while it was used. The work may be started again when it is back.
	ErrGone = errors.New("target vanished")
)

// ReadError names the extent of a disk that could not be read. Nothing of the extent was handed out.
type ReadError struct {
	Disk   string // empty where only one disk is in question
	Extent block.Extent
	Err    error
}

func (e *ReadError) Error() string {
	name := "disk"
	if e.Disk != "" {
		name += " " + e.Disk
	}
	return fmt.Sprintf("read %s at %d, %d bytes: %v", name, e.Extent.Offset, e.Extent.Length, e.Err)
}

func (e *ReadError) Unwrap() error { return e.Err }
