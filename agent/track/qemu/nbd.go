package qemu

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"time"

	"github.com/lifeboat-dr/lifeboat/replicator/block"
)

// The network block device protocol, as its doc/proto.md says: fixed newstyle negotiation, structured replies, metadata contexts.
const (
	nbdMagic        = 0x4e42444d41474943
	nbdOptionMagic  = 0x49484156454f5054
	nbdReplyMagic   = 0x0003e889045565a9
	nbdRequestMagic = 0x25609513
	nbdSimple       = 0x67446698
	nbdStructured   = 0x668e33ef

	nbdOptGo          = 7
	nbdOptStructured  = 8
	nbdOptMetaContext = 10
	nbdRepAck         = 1
	nbdRepInfo        = 3
	nbdRepMetaContext = 4
	nbdInfoExport     = 0

	nbdCmdRead        = 0
	nbdCmdDisconnect  = 2
	nbdCmdBlockStatus = 7

	nbdChunkNone   = 0
	nbdChunkData   = 1
	nbdChunkHole   = 2
	nbdChunkStatus = 5
	nbdChunkError  = 1 << 15
	nbdChunkDone   = 1

	contextAllocation = "base:allocation"
	contextBitmap     = "qemu:dirty-bitmap:"
	flagZero          = 2 // of contextAllocation: reads as zeros
	flagDirty         = 1 // of contextBitmap

	requestLimit = 30 * time.Second // for one request: the host's disk may be busy
	goodbyeLimit = time.Second
	maxRequest   = 32 << 20 // bytes to read with one
	statusSpan   = 1 << 31  // bytes to ask about with one
	maxStatus    = 64 << 20 // bytes of one answer about blocks
	maxOption    = 1 << 20  // bytes of one answer to an option
)

// errNBD is a server that does not keep to the protocol.
var errNBD = errors.New("qemu: bad NBD message")

// nbdClient is a connection to one export. Not safe for concurrent use. After an error that is no *nbdError it is unusable.
type nbdClient struct {
	conn    net.Conn
	r       *bufio.Reader
	size    int64
	context uint32 // id of the metadata context; 0 when there is none
	handle  uint64
}

// nbdError is a request that the server refused.
type nbdError struct {
	code    uint32
	message string
}

func (e *nbdError) Error() string { return fmt.Sprintf("nbd error %d %s", e.code, e.message) }

// dialNBD opens an export, with a metadata context if one is named.
func dialNBD(ctx context.Context, socket, export, metadata string) (*nbdClient, error) {
	conn, err := dialUnix(ctx, socket)
	if err != nil {
		return nil, err
	}
	c := &nbdClient{conn: conn, r: bufio.NewReaderSize(conn, 256<<10)}
	_ = conn.SetDeadline(soonest(ctx, requestLimit))
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Now()) })
	defer stop()
	if err := c.negotiate(export, metadata); err != nil {
		return nil, errors.Join(fmt.Errorf("open export %s: %w", export, err), conn.Close())
	}
	return c, nil
}

func (c *nbdClient) negotiate(export, metadata string) error {
	var hello [18]byte
	if _, err := io.ReadFull(c.r, hello[:]); err != nil {
		return err
	}
	flags := binary.BigEndian.Uint16(hello[16:])
	if binary.BigEndian.Uint64(hello[:]) != nbdMagic || binary.BigEndian.Uint64(hello[8:]) != nbdOptionMagic || flags&1 == 0 {
		return fmt.Errorf("%w: greeting", errNBD)
	}
	if _, err := c.conn.Write(binary.BigEndian.AppendUint32(nil, uint32(flags&3))); err != nil {
		return err
	}
	if err := c.option(nbdOptStructured, nil, nil); err != nil {
		return fmt.Errorf("structured replies: %w", err)
	}
	if metadata != "" {
		found := false
		q := append(nbdString(export), 0, 0, 0, 1)
		err := c.option(nbdOptMetaContext, append(q, nbdString(metadata)...), func(kind uint32, p []byte) error {
			if kind == nbdRepMetaContext && len(p) >= 4 && string(p[4:]) == metadata {
				c.context, found = binary.BigEndian.Uint32(p), true
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("metadata context %s: %w", metadata, err)
		}
		if !found {
			return fmt.Errorf("%w: no metadata context %s", errNBD, metadata)
		}
	}
	err := c.option(nbdOptGo, append(nbdString(export), 0, 0), func(kind uint32, p []byte) error {
		if kind == nbdRepInfo && len(p) >= 12 && binary.BigEndian.Uint16(p) == nbdInfoExport {
			c.size = int64(binary.BigEndian.Uint64(p[2:]))
		}
		return nil
	})
	if err == nil && (c.size <= 0 || c.size > block.MaxDisk) {
		err = fmt.Errorf("%w: an export of %d bytes", errNBD, c.size)
	}
	return err
}

func nbdString(s string) []byte {
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(s))), s...)
}

// option sends an option and hands its replies to f, which may be nil, until the server is through.
func (c *nbdClient) option(option uint32, data []byte, f func(kind uint32, p []byte) error) error {
	b := binary.BigEndian.AppendUint64(nil, nbdOptionMagic)
	b = binary.BigEndian.AppendUint32(b, option)
	b = binary.BigEndian.AppendUint32(b, uint32(len(data)))
	if _, err := c.conn.Write(append(b, data...)); err != nil {
		return err
	}
	for {
		var h [20]byte
		if _, err := io.ReadFull(c.r, h[:]); err != nil {
			return err
		}
		kind, n := binary.BigEndian.Uint32(h[12:]), binary.BigEndian.Uint32(h[16:])
		if binary.BigEndian.Uint64(h[:]) != nbdReplyMagic || binary.BigEndian.Uint32(h[8:]) != option || n > maxOption {
			return fmt.Errorf("%w: reply to option %d", errNBD, option)
		}
		p := make([]byte, n)
		if _, err := io.ReadFull(c.r, p); err != nil {
			return err
		}
		switch {
		case kind == nbdRepAck:
			return nil
		case kind&(1<<31) != 0:
			return &nbdError{kind, string(p)}
		case f != nil:
			if err := f(kind, p); err != nil {
				return err
			}
		}
	}
}

func (c *nbdClient) request(command uint16, off int64, n uint32) error {
	_ = c.conn.SetDeadline(time.Now().Add(requestLimit))
	c.handle++
	b := binary.BigEndian.AppendUint32(make([]byte, 0, 28), nbdRequestMagic)
	b = binary.BigEndian.AppendUint16(b, 0)
	b = binary.BigEndian.AppendUint16(b, command)
	b = binary.BigEndian.AppendUint64(b, c.handle)
	b = binary.BigEndian.AppendUint64(b, uint64(off))
	_, err := c.conn.Write(binary.BigEndian.AppendUint32(b, n))
	return err
}

// reply hands the chunks of an answer to f, which reads n bytes from c.r for each, until the answer is complete. A refusal is
// returned when the answer was read to its end.
func (c *nbdClient) reply(f func(kind uint16, n uint32) error) error {
	var refused error
	for {
		var h [20]byte
		if _, err := io.ReadFull(c.r, h[:4]); err != nil {
			return err
		}
		if binary.BigEndian.Uint32(h[:]) != nbdStructured {
			return fmt.Errorf("%w: magic of a reply", errNBD)
		}
		if _, err := io.ReadFull(c.r, h[4:]); err != nil {
			return err
		}
		flags, kind := binary.BigEndian.Uint16(h[4:]), binary.BigEndian.Uint16(h[6:])
		n := binary.BigEndian.Uint32(h[16:])
		if binary.BigEndian.Uint64(h[8:]) != c.handle {
			return fmt.Errorf("%w: handle of a reply", errNBD)
		}
		switch {
		case kind&nbdChunkError != 0:
			if n < 6 || n > maxOption {
				return fmt.Errorf("%w: an error of %d bytes", errNBD, n)
			}
			p := make([]byte, n)
			if _, err := io.ReadFull(c.r, p); err != nil {
				return err
			}
			refused = errors.Join(refused, &nbdError{binary.BigEndian.Uint32(p), string(p[min(6, len(p)):])})
		case kind == nbdChunkNone:
			if n != 0 {
				return fmt.Errorf("%w: an empty chunk of %d bytes", errNBD, n)
			}
		default:
			if err := f(kind, n); err != nil {
				return err
			}
		}
		if flags&nbdChunkDone != 0 {
			return refused
		}
	}
}

// readAt fills p. A piece of p that no chunk spoke of is an error.
func (c *nbdClient) readAt(p []byte, off int64) error {
	if len(p) == 0 || len(p) > maxRequest || off < 0 || off > c.size-int64(len(p)) {
		return fmt.Errorf("read [%d,+%d) of an export of %d bytes", off, len(p), c.size)
	}
	if err := c.request(nbdCmdRead, off, uint32(len(p))); err != nil {
		return err
	}
	var got int64
	err := c.reply(func(kind uint16, n uint32) error {
		var h [12]byte
		head := h[:8]
		if kind == nbdChunkHole {
			head = h[:12]
		}
		if kind != nbdChunkData && kind != nbdChunkHole || int(n) < len(head) || kind == nbdChunkHole && n != 12 {
			return fmt.Errorf("%w: chunk of kind %d and %d bytes in a read", errNBD, kind, n)
		}
		if _, err := io.ReadFull(c.r, head); err != nil {
			return err
		}
		at, length := int64(binary.BigEndian.Uint64(h[:]))-off, int64(n)-8
		if kind == nbdChunkHole {
			length = int64(binary.BigEndian.Uint32(h[8:]))
		}
		if at < 0 || length <= 0 || length > int64(len(p)) || at > int64(len(p))-length {
			return fmt.Errorf("%w: chunk [%d,+%d) in a read of [%d,+%d)", errNBD, at+off, length, off, len(p))
		}
		got += length
		if kind == nbdChunkHole {
			clear(p[at : at+length])
			return nil
		}
		_, err := io.ReadFull(c.r, p[at:at+length])
		return err
	})
	if err == nil && got != int64(len(p)) {
		err = fmt.Errorf("%w: %d bytes of %d", errNBD, got, len(p))
	}
	return err
}

// statusAt calls f with the state of blocks from off on, ascending, and returns where it stopped: after off, and not beyond end.
func (c *nbdClient) statusAt(off, end int64, f func(e block.Extent, flags uint32)) (int64, error) {
	n := min(end-off, statusSpan)
	if err := c.request(nbdCmdBlockStatus, off, uint32(n)); err != nil {
		return off, err
	}
	at := off
	err := c.reply(func(kind uint16, n uint32) error {
		if kind != nbdChunkStatus || n < 12 || n > maxStatus || (n-4)%8 != 0 {
			return fmt.Errorf("%w: chunk of kind %d and %d bytes in a block status", errNBD, kind, n)
		}
		var h [8]byte
		if _, err := io.ReadFull(c.r, h[:4]); err != nil {
			return err
		}
		ours := binary.BigEndian.Uint32(h[:]) == c.context
		for n -= 4; n > 0; n -= 8 {
			if _, err := io.ReadFull(c.r, h[:]); err != nil {
				return err
			}
			if !ours || at >= end {
				continue
			}
			length := min(int64(binary.BigEndian.Uint32(h[:])), end-at) // the last may reach beyond what was asked
			if length == 0 {
				return fmt.Errorf("%w: an empty extent", errNBD)
			}
			f(block.Extent{Offset: at, Length: length}, binary.BigEndian.Uint32(h[4:]))
			at += length
		}
		return nil
	})
	if err == nil && at == off {
		err = fmt.Errorf("%w: no state of blocks at %d", errNBD, off)
	}
	return at, err
}

// dirty returns the extents of the export whose bitmap is set, sorted and coalesced.
func (c *nbdClient) dirty(ctx context.Context) (out []block.Extent, err error) {
	for off := int64(0); off < c.size; {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		off, err = c.statusAt(off, c.size, func(e block.Extent, flags uint32) {
			if flags&flagDirty == 0 {
				return
			}
			if n := len(out); n > 0 && out[n-1].End() == e.Offset {
				out[n-1].Length += e.Length
				return
			}
			out = append(out, e)
		})
		if err != nil {
			return nil, err
		}
	}
	return slices.Clip(out), nil
}

// close says goodbye, lets the server hang up first, and closes the connection.
func (c *nbdClient) close() error {
	if c.request(nbdCmdDisconnect, 0, 0) == nil {
		_ = c.conn.SetDeadline(time.Now().Add(goodbyeLimit))
		_, _ = io.Copy(io.Discard, c.r)
	}
	return c.conn.Close()
}
