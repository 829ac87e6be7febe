// Package wire is the language agents and process servers speak on the data port: framed messages over an encrypted stream. It
// owns layout, limits and checksums of every message and nothing else: it opens no connections, holds no session state, and
// allocates no more than MaxPayload for bytes it has not checked.
//
// A stream starts, in each direction, with a preface of 12 bytes: the magic "LIFEBOAT", the version (uint16) and zero (uint16).
// Frames follow. All numbers are big-endian.
//
//	offset  size  field
//	0       4     length of the payload
//	4       1     type
//	5       3     zero
//	8       4     CRC-32C of the 8 bytes above and the payload
//	12      n     payload
//
// Hello, Welcome, Refuse, Grant, Seal, Durable, Abort, Heartbeat and Error carry JSON; SumsRequest, Sums, Data, Zero and Ack are
// binary (codec.go).
//
// A session: the agent sends Hello, the server Welcome or Refuse. The agent may ask for sums at any time. It sends Data and
// Zero, numbered from 1 in the session, with no more than Welcome.Window bytes unacknowledged; Ack tells the highest number
// that a crash of the server cannot lose. Seal asks for a point of all that was sent; Durable answers it. Either side may send
// Heartbeat, and treats a silent peer as gone. Error ends the session.
package wire

import (
	"bufio"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net"
	"slices"
	"sync"
)

// Version is the protocol version spoken here. A peer with another one is refused by name.
const Version = 1

const (
	magic      = "LIFEBOAT"
	prefaceLen = 12
	headerLen  = 12

	// checkedAtOnce is how much of a payload is read before the checksum takes it: what the processor's cache still holds.
	checkedAtOnce = 128 << 10

	// MaxData is the most disk bytes one Data message carries.
	MaxData = 1 << 20
	// MaxExtents is the most extents one Data or Zero message carries.
	MaxExtents = 4096
	// MaxSums is the most sums one SumsRequest may ask for.
	MaxSums = 64 << 10
	// MaxControl bounds the payload of a JSON message.
	MaxControl = 256 << 10
	// MaxPayload bounds any payload: a Data message full of single blocks.
	MaxPayload = MaxData + 64<<10
)

// ErrProtocol is what a peer's bytes yield when they are not this protocol: damaged, out of bounds, or of another version. The
// connection is of no use after it.
var ErrProtocol = errors.New("wire: protocol violated")

func violated(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrProtocol}, args...)...)
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Type tells what a payload is.
type Type uint8

const (
	typeHello Type = iota + 1
	typeWelcome
	typeRefuse
	typeSumsRequest
	typeSums
	typeData
	typeZero
	typeAck
	typeSeal
	typeDurable
	typeAbort
	typeHeartbeat
	typeError
	typeGrant
)

// limit returns the most bytes a payload of the type may have; 0 for types that do not exist.
func (t Type) limit() int {
	switch t {
	case typeHello, typeWelcome, typeRefuse, typeSeal, typeDurable, typeAbort, typeHeartbeat, typeError, typeGrant:
		return MaxControl
	case typeSumsRequest, typeAck:
		return 32
	case typeSums, typeData:
		return MaxPayload
	case typeZero:
		return zeroFixed + MaxExtents*extentLen
	}
	return 0
}

// Conn frames messages on a stream. Send may be called from many goroutines, Receive from one.
type Conn struct {
	r io.Reader

	mu  sync.Mutex // guards w and scratch, and keeps frames whole
	w   *bufio.Writer
	buf []byte

	below *Stream // that rw is TLS on; nil if it is something else
}

// NewConn returns a Conn on rw. Nothing is read or written yet. Where rw is TLS on a Stream, each message leaves in as few writes
// as the Stream's buffer allows.
func NewConn(rw io.ReadWriter) *Conn {
	c := &Conn{r: bufio.NewReaderSize(rw, 16<<10), w: bufio.NewWriterSize(rw, 16<<10)}
	if t, ok := rw.(interface{ NetConn() net.Conn }); ok {
		c.below, _ = t.NetConn().(*Stream)
	}
	return c
}

// SendPreface writes the preface; it goes out with the first message.
func (c *Conn) SendPreface() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	p := binary.BigEndian.AppendUint16([]byte(magic), Version)
	_, err := c.w.Write(append(p, 0, 0))
	return err
}

// ReceivePreface reads and checks the peer's preface. A *VersionError tells of a peer with another version.
func (c *Conn) ReceivePreface() error {
	var p [prefaceLen]byte
	if _, err := io.ReadFull(c.r, p[:]); err != nil {
		return err
	}
	if string(p[:len(magic)]) != magic {
		return violated("the peer does not speak it")
	}
	if v := binary.BigEndian.Uint16(p[len(magic):]); v != Version {
		return &VersionError{Peer: v}
	}
	return nil
}

// VersionError tells of a peer with a version not spoken here. It is an ErrProtocol.
type VersionError struct{ Peer uint16 }

func (e *VersionError) Error() string {
	return fmt.Sprintf("wire: the peer speaks version %d of the protocol, here is version %d", e.Peer, Version)
}

func (e *VersionError) Unwrap() error { return ErrProtocol }

// Send writes one message and flushes it. The message may be reused when it returns. Errors of the stream are returned as they are;
// a message beyond its limits is an ErrProtocol and leaves the stream untouched.
func (c *Conn) Send(m Message) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.send(m)
}

// SendNumbered is Send for Data and Zero: number is called while the stream is held, just before the message is encoded, so
// that numbers go out in order whichever goroutine sends.
func (c *Conn) SendNumbered(m Numbered, number func() uint64) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	m.setSequence(number())
	return c.send(m)
}

func (c *Conn) send(m Message) error {
	head, tail, err := m.encode(append(c.buf[:0], make([]byte, headerLen)...))
	if err != nil {
		return err
	}
	c.buf = head[:0]
	n := len(head) - headerLen + len(tail)
	if n > m.typ().limit() {
		return violated("message of type %d has %d bytes", m.typ(), n)
	}
	binary.BigEndian.PutUint32(head, uint32(n))
	head[4] = byte(m.typ())
	crc := crc32.Update(0, castagnoli, head[:8])
	crc = crc32.Update(crc, castagnoli, head[headerLen:])
	crc = crc32.Update(crc, castagnoli, tail)
	binary.BigEndian.PutUint32(head[8:], crc)
	if c.below == nil {
		return c.write(head, tail)
	}
	c.below.hold()
	err = c.write(head, tail)
	return cmp.Or(err, c.below.flush())
}

func (c *Conn) write(head, tail []byte) error {
	if _, err := c.w.Write(head); err != nil {
		return err
	}
	if _, err := c.w.Write(tail); err != nil {
		return err
	}
	return c.w.Flush()
}

// Receive reads one message. A *Data holds a buffer that goes back to a pool with
// Release. It returns io.EOF when the
// peer ended the stream between messages, ErrProtocol for bytes that are no message, and the stream's errors otherwise.
func (c *Conn) Receive() (Message, error) {
	var h [headerLen]byte
	if _, err := io.ReadFull(c.r, h[:]); err != nil {
		if errors.Is(err, io.ErrUnexpectedEOF) {
			return nil, fmt.Errorf("read frame: %w", err)
		}
		return nil, err
	}
	n, t := binary.BigEndian.Uint32(h[:]), Type(h[4])
	switch {
	case t.limit() == 0:
		return nil, violated("unknown message type %d", t)
	case h[5]|h[6]|h[7] != 0:
		return nil, violated("reserved bytes are not zero")
	case int64(n) > int64(t.limit()):
		return nil, violated("message of type %d has %d bytes", t, n)
	}
	b := buffers.Get().(*Buffer)
	b.data = slices.Grow(b.data[:0], int(n))[:n]
	m, err := c.receive(h, t, b)
	if err != nil || !m.keeps() {
		b.Release()
	}
	return m, err
}

func (c *Conn) receive(h [headerLen]byte, t Type, b *Buffer) (Message, error) {
	crc := crc32.Update(0, castagnoli, h[:8])
	for rest := b.data; len(rest) > 0; {
		piece := rest[:min(len(rest), checkedAtOnce)]
		if _, err := io.ReadFull(c.r, piece); err != nil {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return nil, fmt.Errorf("read frame: %w", err)
		}
		crc, rest = crc32.Update(crc, castagnoli, piece), rest[len(piece):]
	}
	if crc != binary.BigEndian.Uint32(h[8:]) {
		return nil, violated("checksum of a message of type %d is wrong", t)
	}
	return decode(t, b)
}

// Buffer is the memory behind a received message.
type Buffer struct{ data []byte }

var buffers = sync.Pool{New: func() any { return new(Buffer) }}

// Release gives the memory back. The message it came with is invalid after it. Releasing nil does nothing.
func (b *Buffer) Release() {
	if b != nil {
		buffers.Put(b)
	}
}
