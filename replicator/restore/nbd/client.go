package nbd

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/lifeboat-dr/lifeboat/replicator/block"
)

// Client is a connection to one export of a server. Safe for concurrent use: requests are in flight together. Any protocol
// error closes the connection and fails all requests with it.
type Client struct {
	conn       net.Conn
	size       int64
	flags      uint16
	structured bool
	status     bool

	sending sync.Mutex // guards the order of bytes written to conn
	done    chan struct{}

	mu      sync.Mutex // guards the fields below
	next    uint64
	pending map[uint64]*call
	err     error // why the connection ended
}

// call is one request that waits for its reply.
type call struct {
	buf    []byte // read: where the data goes
	off    int64
	got    int64 // bytes of buf filled; chunks do not overlap by the protocol, so a full count means a full buffer
	state  []descriptor
	err    error
	result chan error
}

type descriptor struct {
	length int64
	state  uint32
}

// Dial connects to an export. ctx bounds the handshake only; Close ends the connection.
func Dial(ctx context.Context, network, address, export string) (*Client, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, network, address)
	if err != nil {
		return nil, fmt.Errorf("connect to nbd server: %w", err)
	}
	return NewClient(ctx, conn, export)
}

// NewClient opens an export on a connection, which it owns from then on.
func NewClient(ctx context.Context, conn net.Conn, export string) (*Client, error) {
	deadline := time.Now().Add(30 * time.Second)
	if t, ok := ctx.Deadline(); ok && t.Before(deadline) {
		deadline = t
	}
	conn.SetDeadline(deadline)
	c := &Client{conn: conn, done: make(chan struct{}), pending: map[uint64]*call{}}
	r := bufio.NewReaderSize(conn, 64<<10)
	if err := c.handshake(r, export); err != nil {
		conn.Close()
		return nil, fmt.Errorf("open nbd export %q: %w", export, err)
	}
	conn.SetDeadline(time.Time{})
	go c.receive(r)
	return c, nil
}

// Size returns the export's length in bytes.
func (c *Client) Size() int64 { return c.size }

// Close ends the connection; requests in flight fail with ErrClosed. It waits until nothing of the client runs any more.
func (c *Client) Close() error {
	c.sending.Lock()
	c.conn.SetWriteDeadline(time.Now().Add(time.Second))
	_, _ = c.conn.Write(requestHead(cmdDisconnect, 0, 0, 0)) // a courtesy; the close below tells the same
	c.sending.Unlock()
	c.fail(ErrClosed)
	<-c.done
	return nil
}

func (c *Client) handshake(r *bufio.Reader, export string) error {
	var hello [18]byte
	if _, err := io.ReadFull(r, hello[:]); err != nil {
		return err
	}
	if binary.BigEndian.Uint64(hello[:]) != magicInit || binary.BigEndian.Uint64(hello[8:]) != magicOption {
		return fmt.Errorf("%w: not an nbd server", ErrProtocol)
	}
	flags := binary.BigEndian.Uint16(hello[16:])
	if flags&flagFixedNewstyle == 0 {
		return fmt.Errorf("%w: no fixed newstyle handshake", ErrProtocol)
	}
	if _, err := c.conn.Write(binary.BigEndian.AppendUint32(nil, uint32(flags&(flagFixedNewstyle|flagNoZeroes)))); err != nil {
		return err
	}
	if _, err := c.negotiate(r, optStructuredReply, nil); err == nil {
		c.structured = true
	} else if !errors.Is(err, ErrRefused) {
		return err
	}
	name := append(binary.BigEndian.AppendUint32(nil, uint32(len(export))), export...)
	if c.structured {
		q := binary.BigEndian.AppendUint32(name[:len(name):len(name)], 1)
		q = binary.BigEndian.AppendUint32(q, uint32(len(metaBase)))
		replies, err := c.negotiate(r, optSetMeta, append(q, metaBase...))
		if err != nil && !errors.Is(err, ErrRefused) {
			return err
		}
		for _, a := range replies {
			if a.typ == repMetaContext && len(a.data) >= 4 && string(a.data[4:]) == metaBase {
				c.status = true
			}
		}
	}
	replies, err := c.negotiate(r, optGo, append(name, 0, 0))
	if err != nil {
		return err
	}
	for _, a := range replies {
		if a.typ == repInfo && len(a.data) == 12 && binary.BigEndian.Uint16(a.data) == infoExport {
			size := binary.BigEndian.Uint64(a.data[2:])
			if size > 1<<62 {
				return fmt.Errorf("%w: export of %d bytes", ErrProtocol, size)
			}
			c.size, c.flags = int64(size), binary.BigEndian.Uint16(a.data[10:])
			return nil
		}
	}
	return fmt.Errorf("%w: server did not tell the size", ErrProtocol)
}

type optionReply struct {
	typ  uint32
	data []byte
}

// negotiate sends an option and collects the replies up to the acknowledgement. An error reply becomes ErrRefused.
func (c *Client) negotiate(r *bufio.Reader, opt uint32, data []byte) ([]optionReply, error) {
	b := binary.BigEndian.AppendUint64(nil, magicOption)
	b = binary.BigEndian.AppendUint32(b, opt)
	b = binary.BigEndian.AppendUint32(b, uint32(len(data)))
	if _, err := c.conn.Write(append(b, data...)); err != nil {
		return nil, err
	}
	var replies []optionReply
	for {
		var h [20]byte
		if _, err := io.ReadFull(r, h[:]); err != nil {
			return nil, err
		}
		typ, n := binary.BigEndian.Uint32(h[12:]), binary.BigEndian.Uint32(h[16:])
		if binary.BigEndian.Uint64(h[:]) != magicReply || binary.BigEndian.Uint32(h[8:]) != opt || n > maxOption || len(replies) > 1000 {
			return nil, fmt.Errorf("%w: bad reply to option %d", ErrProtocol, opt)
		}
		data := make([]byte, n)
		if _, err := io.ReadFull(r, data); err != nil {
			return nil, err
		}
		switch {
		case typ == repAck:
			return replies, nil
		case typ&repErrBit != 0:
			return nil, fmt.Errorf("%w option %d: error %d %s", ErrRefused, opt, typ&^repErrBit, data)
		}
		replies = append(replies, optionReply{typ, data})
	}
}

// Read fills p from off.
func (c *Client) Read(ctx context.Context, p []byte, off int64) error {
	for len(p) > 0 {
		n := min(len(p), maxRequest/4)
		k := &call{buf: p[:n], off: off}
		if err := c.do(ctx, k, cmdRead, 0, off, int64(n), nil); err != nil {
			return err
		}
		p, off = p[n:], off+int64(n)
	}
	return nil
}

// Write writes p at off. It is on stable storage after the next Flush.
func (c *Client) Write(ctx context.Context, p []byte, off int64) error {
	for len(p) > 0 {
		n := min(len(p), maxRequest/4)
		if err := c.do(ctx, &call{}, cmdWrite, 0, off, int64(n), p[:n]); err != nil {
			return err
		}
		p, off = p[n:], off+int64(n)
	}
	return nil
}

// WriteZeroes makes the range read as zeros; the server may deallocate it.
func (c *Client) WriteZeroes(ctx context.Context, off, length int64) error {
	for length > 0 {
		n := min(length, 1<<30)
		if err := c.do(ctx, &call{}, cmdWriteZeroes, 0, off, n, nil); err != nil {
			return err
		}
		off, length = off+n, length-n
	}
	return nil
}

// Flush returns when all completed writes are on stable storage.
func (c *Client) Flush(ctx context.Context) error {
	if c.flags&flagFlush == 0 {
		return nil
	}
	return c.do(ctx, &call{}, cmdFlush, 0, 0, 0, nil)
}

// Next returns the first extent at or after off that may hold something other than zeros. A server that cannot tell makes it
// the whole rest.
func (c *Client) Next(ctx context.Context, off int64) (block.Extent, bool, error) {
	for off < c.size {
		if !c.status {
			return block.Extent{Offset: off, Length: c.size - off}, true, nil
		}
		k := &call{}
		if err := c.do(ctx, k, cmdBlockStatus, 0, off, min(c.size-off, 1<<30), nil); err != nil {
			return block.Extent{}, false, err
		}
		if len(k.state) == 0 {
			return block.Extent{}, false, fmt.Errorf("%w: empty block status", ErrProtocol)
		}
		data := block.Extent{Offset: off}
		for _, d := range k.state {
			length := min(d.length, c.size-off)
			switch {
			case d.state&stateZero == 0:
				data.Length += length
			case data.Length > 0:
				return data, true, nil
			default:
				data.Offset += length
			}
			off += length
		}
		if data.Length > 0 {
			return data, true, nil
		}
	}
	return block.Extent{}, false, nil
}

// do sends a request and waits for its reply. When ctx ends first the connection is closed, because the reply could still
// arrive in the caller's buffer.
func (c *Client) do(ctx context.Context, k *call, cmd, flags uint16, off, length int64, data []byte) error {
	if off < 0 || length < 0 || off > c.size-length {
		return fmt.Errorf("%w: range %d+%d outside the export", ErrRefused, off, length)
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	k.result = make(chan error, 1)
	c.mu.Lock()
	if c.err != nil {
		c.mu.Unlock()
		return c.err
	}
	c.next++
	cookie := c.next
	c.pending[cookie] = k
	c.mu.Unlock()

	head := requestHead(cmd, cookie, off, length)
	binary.BigEndian.PutUint16(head[4:], flags)
	bufs := net.Buffers{head}
	if len(data) > 0 {
		bufs = append(bufs, data)
	}
	c.sending.Lock()
	_, err := bufs.WriteTo(c.conn)
	c.sending.Unlock()
	if err != nil {
		c.fail(fmt.Errorf("%w: %w", ErrClosed, err))
	}
	select {
	case err := <-k.result:
		return err
	case <-ctx.Done():
		c.fail(ErrClosed)
		<-c.done // nothing writes to k.buf after this
		return ctx.Err()
	}
}

func requestHead(cmd uint16, cookie uint64, off, length int64) []byte {
	h := make([]byte, 28)
	binary.BigEndian.PutUint32(h, magicRequest)
	binary.BigEndian.PutUint16(h[6:], cmd)
	binary.BigEndian.PutUint64(h[8:], cookie)
	binary.BigEndian.PutUint64(h[16:], uint64(off))
	binary.BigEndian.PutUint32(h[24:], uint32(length))
	return h
}

// fail closes the connection; receive then ends all pending calls.
func (c *Client) fail(err error) {
	c.mu.Lock()
	if c.err == nil {
		c.err = err
	}
	c.mu.Unlock()
	c.conn.Close()
}

// receive takes replies until the connection ends.
func (c *Client) receive(r *bufio.Reader) {
	defer close(c.done)
	var err error
	for err == nil {
		err = c.reply(r)
	}
	c.fail(fmt.Errorf("%w: %w", ErrClosed, err))
	c.mu.Lock()
	defer c.mu.Unlock()
	for cookie, k := range c.pending {
		delete(c.pending, cookie)
		k.result <- c.err
	}
}

// reply takes one simple reply or one structured chunk.
func (c *Client) reply(r *bufio.Reader) error {
	var h [20]byte
	if _, err := io.ReadFull(r, h[:16]); err != nil {
		return err
	}
	cookie := binary.BigEndian.Uint64(h[8:])
	c.mu.Lock()
	k := c.pending[cookie]
	c.mu.Unlock()
	if k == nil {
		return fmt.Errorf("%w: reply to no request", ErrProtocol)
	}
	switch binary.BigEndian.Uint32(h[:]) {
	case magicSimple:
		errno := binary.BigEndian.Uint32(h[4:])
		if errno == 0 && len(k.buf) > 0 {
			if _, err := io.ReadFull(r, k.buf); err != nil {
				return err
			}
			k.got = int64(len(k.buf))
		}
		return c.finish(cookie, k, errno)
	case magicStructured:
		if _, err := io.ReadFull(r, h[16:]); err != nil {
			return err
		}
		flags, typ := binary.BigEndian.Uint16(h[4:]), binary.BigEndian.Uint16(h[6:])
		errno, err := c.chunk(r, k, typ, int64(binary.BigEndian.Uint32(h[16:])))
		if err != nil {
			return err
		}
		if errno != 0 && k.err == nil {
			k.err = wireError(errno)
		}
		if flags&replyDone != 0 {
			return c.finish(cookie, k, 0)
		}
		return nil
	}
	return fmt.Errorf("%w: bad reply magic", ErrProtocol)
}

// chunk takes the payload of a structured chunk.
func (c *Client) chunk(r *bufio.Reader, k *call, typ uint16, n int64) (errno uint32, err error) {
	bad := fmt.Errorf("%w: bad chunk of type %d, %d bytes", ErrProtocol, typ, n)
	if typ == chunkOffsetData {
		var off [8]byte
		if n < 8 {
			return 0, bad
		}
		if _, err := io.ReadFull(r, off[:]); err != nil {
			return 0, err
		}
		at, n := int64(binary.BigEndian.Uint64(off[:]))-k.off, n-8
		if at < 0 || n > int64(len(k.buf)) || at > int64(len(k.buf))-n {
			return 0, bad
		}
		k.got += n
		_, err := io.ReadFull(r, k.buf[at:at+n])
		return 0, err
	}
	if n > maxOption {
		return 0, bad
	}
	p := make([]byte, n)
	if _, err := io.ReadFull(r, p); err != nil {
		return 0, err
	}
	switch {
	case typ == chunkNone:
		return 0, nil
	case typ == chunkOffsetHole && n == 12:
		at, length := int64(binary.BigEndian.Uint64(p))-k.off, int64(binary.BigEndian.Uint32(p[8:]))
		if at < 0 || length > int64(len(k.buf)) || at > int64(len(k.buf))-length {
			return 0, bad
		}
		clear(k.buf[at : at+length])
		k.got += length
		return 0, nil
	case typ == chunkBlockStatus && n >= 12 && (n-4)%8 == 0:
		for p = p[4:]; len(p) > 0; p = p[8:] {
			d := descriptor{int64(binary.BigEndian.Uint32(p)), binary.BigEndian.Uint32(p[4:])}
			if d.length == 0 {
				return 0, bad
			}
			k.state = append(k.state, d)
		}
		return 0, nil
	case typ&chunkErrorBit != 0 && n >= 6:
		if errno = binary.BigEndian.Uint32(p); errno == 0 {
			return 0, bad
		}
		return errno, nil
	}
	return 0, bad
}

// finish ends a call.
func (c *Client) finish(cookie uint64, k *call, errno uint32) error {
	err := k.err
	if errno != 0 {
		err = wireError(errno)
	}
	if err == nil && k.got != int64(len(k.buf)) {
		return fmt.Errorf("%w: reply of %d bytes to a read of %d", ErrProtocol, k.got, len(k.buf))
	}
	c.mu.Lock()
	delete(c.pending, cookie)
	c.mu.Unlock()
	k.result <- err
	return nil
}

func wireError(errno uint32) error {
	switch errno {
	case errnoIO:
		return ErrIO
	case errnoNoSpace:
		return ErrNoSpace
	}
	return fmt.Errorf("%w: error %d", ErrRefused, errno)
}
