package nbd

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"

	"github.com/lifeboat-dr/lifeboat/replicator/block"
)

// piece is how much of a long read is held in memory at a time, where the client lets us answer in pieces.
const piece = 1 << 20

// maxExtents bounds one answer to a block status request; the client asks on where it ends.
const maxExtents = 1024

var buffers = sync.Pool{New: func() any { return new([piece]byte) }}

type request struct {
	flags, cmd uint16
	cookie     uint64
	off        int64
	length     int64
}

// transmit answers requests until the client leaves. Requests are worked on concurrently and answered in any order.
func (c *serverConn) transmit(ctx context.Context) error {
	// On the way out: stop the requests in work, then wait for them.
	var wg sync.WaitGroup
	defer wg.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	slots := make(chan struct{}, c.s.opt.Concurrency)
	for {
		var h [28]byte
		if _, err := io.ReadFull(c.r, h[:]); err != nil {
			if errors.Is(err, io.EOF) || ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("read nbd request: %w", err)
		}
		if binary.BigEndian.Uint32(h[:]) != magicRequest {
			return fmt.Errorf("%w: bad request magic", ErrProtocol)
		}
		q := request{
			flags:  binary.BigEndian.Uint16(h[4:]),
			cmd:    binary.BigEndian.Uint16(h[6:]),
			cookie: binary.BigEndian.Uint64(h[8:]),
			off:    int64(binary.BigEndian.Uint64(h[16:])),
			length: int64(binary.BigEndian.Uint32(h[24:])),
		}
		switch q.cmd {
		case cmdDisconnect:
			return nil
		case cmdWrite: // its data follows and must be taken off the wire
			if q.length > maxRequest {
				return fmt.Errorf("%w: write of %d bytes", ErrProtocol, q.length)
			}
			if _, err := io.CopyN(io.Discard, c.r, q.length); err != nil {
				return fmt.Errorf("read nbd request: %w", err)
			}
		}
		if errno := c.check(q); errno != 0 {
			if err := c.fail(q, errno, q.off); err != nil {
				return err
			}
			continue
		}
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			return nil
		}
		wg.Go(func() {
			defer func() { <-slots }()
			if err := c.do(ctx, q); err != nil {
				c.conn.Close() // a torn reply cannot be mended; the reader above sees the close
			}
		})
	}
}

// check returns the error with which a request is refused before any work; 0 when it is fine.
func (c *serverConn) check(q request) uint32 {
	switch q.cmd {
	case cmdFlush:
		return 0
	case cmdWrite, cmdTrim, cmdWriteZeroes:
		return errnoPerm
	case cmdRead, cmdBlockStatus:
	default:
		return errnoInval
	}
	if q.off < 0 || q.length == 0 || q.length > c.src.Size() || q.off > c.src.Size()-q.length {
		return errnoInval
	}
	if q.cmd == cmdRead && q.length > maxRequest {
		return errnoOverflow
	}
	if q.cmd == cmdBlockStatus && !c.status {
		return errnoInval
	}
	return 0
}

// do works on one request and answers it. An error means that the connection is broken.
func (c *serverConn) do(ctx context.Context, q request) error {
	switch q.cmd {
	case cmdFlush:
		return c.succeed(q, nil)
	case cmdBlockStatus:
		return c.blockStatus(ctx, q)
	}
	if c.structured {
		return c.readPieces(ctx, q)
	}
	return c.readWhole(ctx, q)
}

// readWhole answers a read in one reply. The header says whether it succeeded, so all of it must be at hand before.
func (c *serverConn) readWhole(ctx context.Context, q request) error {
	if err := c.s.memory.Acquire(ctx, q.length); err != nil {
		return c.fail(q, errnoShutdown, q.off)
	}
	defer c.s.memory.Release(q.length)
	p := make([]byte, q.length)
	if err := c.src.ReadAt(ctx, p, q.off); err != nil {
		return c.readFailed(ctx, q, block.Extent{Offset: q.off, Length: q.length}, err)
	}
	return c.succeed(q, p)
}

// readPieces answers a read with structured chunks, so that the length of a request does not set our memory.
func (c *serverConn) readPieces(ctx context.Context, q request) error {
	if err := c.s.memory.Acquire(ctx, piece); err != nil {
		return c.fail(q, errnoShutdown, q.off)
	}
	defer c.s.memory.Release(piece)
	buf := buffers.Get().(*[piece]byte)
	defer buffers.Put(buf)
	end := q.off + q.length
	data := block.Extent{Offset: q.off} // where data is; asked for when it is used up
	if q.length < holesFrom {
		data.Length = q.length
	}
	for off := q.off; off < end; {
		if off >= data.End() {
			var err error
			if data, err = c.nextData(ctx, off, end); err != nil {
				return c.readFailed(ctx, q, block.Extent{Offset: off, Length: end - off}, err)
			}
		}
		var n int64
		var err error
		if off < data.Offset {
			n = data.Offset - off
			err = c.sendHole(q, off, n, off+n == end)
		} else {
			// Pieces end at multiples of piece, so that a long read touches each stored frame once.
			n = min(data.End()-off, piece-off%piece)
			if err := c.src.ReadAt(ctx, buf[:n], off); err != nil {
				return c.readFailed(ctx, q, block.Extent{Offset: off, Length: n}, err)
			}
			err = c.sendData(q, off, buf[:n], off+n == end)
		}
		if err != nil {
			return err
		}
		off += n
	}
	return nil
}

// holesFrom is the length from which a read first asks where data is: holes then cost neither reading nor copying, which is
// most of the work of filling a sparse disk.
const holesFrom = 64 << 10

// nextData returns the next data in [off, end), empty at end when there is none. Holes shorter than a block group are data: a
// chunk each would cost more than their zeros.
func (c *serverConn) nextData(ctx context.Context, off, end int64) (block.Extent, error) {
	data := block.Extent{Offset: end}
	for at := off; at < end; {
		e, ok, err := c.src.Next(ctx, at)
		if err != nil {
			return block.Extent{}, err
		}
		if !ok || e.Offset >= end {
			break
		}
		start := max(e.Offset, at)
		switch {
		case data.Length == 0 && start-off < holesFrom:
			data.Offset = off
		case data.Length == 0:
			data.Offset = start
		case start-data.End() >= holesFrom:
			return data, nil
		}
		if e.End() <= at {
			return block.Extent{}, errors.New("source returned an extent before the one asked for")
		}
		data.Length = min(e.End(), end) - data.Offset
		at = data.End()
	}
	return data, nil
}

func (c *serverConn) sendData(q request, off int64, p []byte, last bool) error {
	head := chunkHead(q, doneIf(last), chunkOffsetData, 8+int64(len(p)))
	return c.send(binary.BigEndian.AppendUint64(head, uint64(off)), p)
}

func (c *serverConn) sendHole(q request, off, length int64, last bool) error {
	head := binary.BigEndian.AppendUint64(chunkHead(q, doneIf(last), chunkOffsetHole, 12), uint64(off))
	return c.send(binary.BigEndian.AppendUint32(head, uint32(length)), nil)
}

func doneIf(last bool) uint16 {
	if last {
		return replyDone
	}
	return 0
}

func (c *serverConn) readFailed(ctx context.Context, q request, e block.Extent, err error) error {
	if ctx.Err() != nil {
		return c.fail(q, errnoShutdown, e.Offset)
	}
	c.s.opt.OnError(c.name, e, err)
	return c.fail(q, errnoIO, e.Offset)
}

// blockStatus tells which parts hold data and which are holes.
func (c *serverConn) blockStatus(ctx context.Context, q request) error {
	payload := binary.BigEndian.AppendUint32(nil, metaBaseID)
	add := func(n int64, state uint32) {
		payload = binary.BigEndian.AppendUint32(payload, uint32(n))
		payload = binary.BigEndian.AppendUint32(payload, state)
	}
	limit := maxExtents
	if q.flags&cmdFlagReqOne != 0 {
		limit = 1
	}
	for off, end := q.off, q.off+q.length; off < end && limit > 0; limit-- {
		e, ok, err := c.src.Next(ctx, off)
		if err != nil {
			return c.readFailed(ctx, q, block.Extent{Offset: off, Length: end - off}, err)
		}
		if !ok || e.Offset >= end {
			add(end-off, stateHole|stateZero)
			break
		}
		if e.Offset > off {
			add(e.Offset-off, stateHole|stateZero)
			off = e.Offset
			if limit--; limit == 0 {
				break
			}
		}
		n := min(e.End(), end) - off
		if n <= 0 {
			return c.readFailed(ctx, q, block.Extent{Offset: off, Length: end - off}, errors.New("source returned an extent before the one asked for"))
		}
		add(n, 0)
		off += n
	}
	return c.send(chunkHead(q, replyDone, chunkBlockStatus, int64(len(payload))), payload)
}

// succeed ends a request that is answered in one piece.
func (c *serverConn) succeed(q request, data []byte) error {
	if c.structured {
		return c.send(chunkHead(q, replyDone, chunkNone, 0), nil)
	}
	return c.send(simpleHead(q, 0), data)
}

// fail ends a request with an error; off is where it happened.
func (c *serverConn) fail(q request, errno uint32, off int64) error {
	if !c.structured {
		return c.send(simpleHead(q, errno), nil)
	}
	if q.cmd != cmdRead {
		b := binary.BigEndian.AppendUint32(chunkHead(q, replyDone, chunkError, 6), errno)
		return c.send(binary.BigEndian.AppendUint16(b, 0), nil)
	}
	b := binary.BigEndian.AppendUint32(chunkHead(q, replyDone, chunkErrorOffset, 14), errno)
	b = binary.BigEndian.AppendUint16(b, 0)
	return c.send(binary.BigEndian.AppendUint64(b, uint64(off)), nil)
}

func simpleHead(q request, errno uint32) []byte {
	b := binary.BigEndian.AppendUint32(make([]byte, 0, 16), magicSimple)
	b = binary.BigEndian.AppendUint32(b, errno)
	return binary.BigEndian.AppendUint64(b, q.cookie)
}

func chunkHead(q request, flags, typ uint16, length int64) []byte {
	b := binary.BigEndian.AppendUint32(make([]byte, 0, 40), magicStructured)
	b = binary.BigEndian.AppendUint16(b, flags)
	b = binary.BigEndian.AppendUint16(b, typ)
	b = binary.BigEndian.AppendUint64(b, q.cookie)
	return binary.BigEndian.AppendUint32(b, uint32(length))
}

func (c *serverConn) send(head, data []byte) error {
	bufs := net.Buffers{head}
	if len(data) > 0 {
		bufs = append(bufs, data)
	}
	c.writing.Lock()
	defer c.writing.Unlock()
	_, err := bufs.WriteTo(c.conn)
	return err
}
