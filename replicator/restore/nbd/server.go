package nbd

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/lifeboat-dr/lifeboat/replicator/block"
)

// Source is a disk to export. Safe for concurrent use. ReadAt fills all of p with verified bytes or fails; Next finds the
// first extent at or after off that may hold data.
type Source interface {
	Size() int64
	ReadAt(ctx context.Context, p []byte, off int64) error
	Next(ctx context.Context, off int64) (data block.Extent, ok bool, err error)
}

// Options of a server. The zero value is good.
type Options struct {
	// OnError is told of every extent that could not be read, before the client is. It may be called concurrently.
	OnError func(export string, e block.Extent, err error)
	Logger  *slog.Logger

	Concurrency int   // requests in work on one connection; default 16. Further ones wait unread in the socket
	Memory      int64 // bytes of read buffers over all connections; default 64 MiB, at least 32 MiB
	Connections int   // further ones are closed at once; default 64
}

// Server exports disks by name. All connections see the same unchanging bytes, so it offers MULTI_CONN.
type Server struct {
	exports map[string]Source
	names   []string
	opt     Options
	memory  *semaphore.Weighted
}

// NewServer makes a server for the exports, by name. A client that names none gets the only one there is.
func NewServer(exports map[string]Source, opt Options) *Server {
	if opt.OnError == nil {
		opt.OnError = func(string, block.Extent, error) {}
	}
	if opt.Logger == nil {
		opt.Logger = slog.New(slog.DiscardHandler)
	}
	if opt.Concurrency <= 0 {
		opt.Concurrency = 16
	}
	if opt.Memory < maxRequest {
		opt.Memory = 2 * maxRequest
	}
	if opt.Connections <= 0 {
		opt.Connections = 64
	}
	s := &Server{exports: exports, opt: opt, memory: semaphore.NewWeighted(opt.Memory)}
	for name := range exports {
		s.names = append(s.names, name)
	}
	slices.Sort(s.names)
	return s
}

// Serve accepts connections until ctx is done or the listener fails; then it closes all of them and returns when the last
// request has ended. It closes the listener. The error is nil when ctx ended it.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	defer wg.Wait()
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	defer cancel()
	slots := make(chan struct{}, s.opt.Connections)
	for {
		conn, err := l.Accept()
		if err != nil {
			l.Close()
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("accept nbd connection: %w", err)
		}
		select {
		case slots <- struct{}{}:
		default:
			s.opt.Logger.Warn("nbd connection refused, too many are open")
			conn.Close()
			continue
		}
		wg.Go(func() {
			defer func() { <-slots }()
			if err := s.ServeConn(ctx, conn); err != nil && ctx.Err() == nil {
				s.opt.Logger.Warn("nbd connection ended", "err", err)
			}
		})
	}
}

// ServeConn serves one client until it disconnects or ctx is done, and closes the connection. Nil means that the client left
// in an orderly way or closed the connection between two requests.
func (s *Server) ServeConn(ctx context.Context, conn net.Conn) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	defer conn.Close()

	c := &serverConn{s: s, conn: conn, r: bufio.NewReaderSize(conn, 64<<10)}
	conn.SetDeadline(time.Now().Add(10 * time.Second))
	if err := c.handshake(); err != nil {
		if errors.Is(err, errAborted) || errors.Is(err, io.EOF) {
			return nil
		}
		return err
	}
	conn.SetDeadline(time.Time{})
	return c.transmit(ctx)
}

var errAborted = errors.New("client aborted the handshake")

// serverConn is the server's side of one connection.
type serverConn struct {
	s    *Server
	conn net.Conn
	r    *bufio.Reader

	name       string
	src        Source
	structured bool
	status     bool // base:allocation was agreed on

	writing sync.Mutex // guards the order of bytes written to conn; held across a write because replies must not interleave
}

func (c *serverConn) handshake() error {
	var hello [18]byte
	binary.BigEndian.PutUint64(hello[0:], magicInit)
	binary.BigEndian.PutUint64(hello[8:], magicOption)
	binary.BigEndian.PutUint16(hello[16:], flagFixedNewstyle|flagNoZeroes)
	if _, err := c.conn.Write(hello[:]); err != nil {
		return err
	}
	var cf [4]byte
	if _, err := io.ReadFull(c.r, cf[:]); err != nil {
		return err
	}
	clientFlags := binary.BigEndian.Uint32(cf[:])
	if clientFlags&^(flagFixedNewstyle|flagNoZeroes) != 0 {
		return fmt.Errorf("%w: unknown client flags %#x", ErrProtocol, clientFlags)
	}
	for options := 0; ; options++ {
		if options > 1000 {
			return fmt.Errorf("%w: endless options", ErrProtocol)
		}
		var h [16]byte
		if _, err := io.ReadFull(c.r, h[:]); err != nil {
			return err
		}
		if binary.BigEndian.Uint64(h[:]) != magicOption {
			return fmt.Errorf("%w: bad option magic", ErrProtocol)
		}
		opt, n := binary.BigEndian.Uint32(h[8:]), binary.BigEndian.Uint32(h[12:])
		if n > maxOption {
			if _, err := io.CopyN(io.Discard, c.r, int64(n)); err != nil {
				return err
			}
			if err := c.answer(opt, repErrTooBig, nil); err != nil {
				return err
			}
			continue
		}
		data := make([]byte, n)
		if _, err := io.ReadFull(c.r, data); err != nil {
			return err
		}
		done, err := c.option(opt, data, clientFlags)
		if err != nil || done {
			return err
		}
	}
}

// option answers one option; done means that transmission begins.
func (c *serverConn) option(opt uint32, data []byte, clientFlags uint32) (done bool, err error) {
	switch opt {
	case optExportName:
		src, ok := c.export(string(data))
		if !ok {
			return false, fmt.Errorf("%w: export %q does not exist", ErrProtocol, data)
		}
		c.name, c.src = string(data), src
		reply := make([]byte, 10, 134)
		binary.BigEndian.PutUint64(reply, uint64(src.Size()))
		binary.BigEndian.PutUint16(reply[8:], exportFlags)
		if clientFlags&flagNoZeroes == 0 {
			reply = reply[:134]
		}
		_, err := c.conn.Write(reply)
		return true, err
	case optAbort:
		_ = c.answer(opt, repAck, nil) // the client may be gone already
		return false, errAborted
	case optList:
		if len(data) != 0 {
			return false, c.answer(opt, repErrInvalid, nil)
		}
		for _, name := range c.s.names {
			b := binary.BigEndian.AppendUint32(nil, uint32(len(name)))
			if err := c.answer(opt, repServer, append(b, name...)); err != nil {
				return false, err
			}
		}
		return false, c.answer(opt, repAck, nil)
	case optInfo, optGo:
		return c.info(opt, data)
	case optStructuredReply:
		if len(data) != 0 {
			return false, c.answer(opt, repErrInvalid, nil)
		}
		c.structured = true
		return false, c.answer(opt, repAck, nil)
	case optListMeta, optSetMeta:
		return false, c.meta(opt, data)
	}
	return false, c.answer(opt, repErrUnsup, nil)
}

const exportFlags = flagHas | flagReadOnly | flagFlush | flagMultiConn

func (c *serverConn) export(name string) (Source, bool) {
	if name == "" && len(c.s.names) == 1 {
		name = c.s.names[0]
	}
	src, ok := c.s.exports[name]
	return src, ok
}

func (c *serverConn) info(opt uint32, data []byte) (done bool, err error) {
	name, rest, ok := cutString(data)
	if !ok || len(rest) < 2 || len(rest) != 2+2*int(binary.BigEndian.Uint16(rest)) {
		return false, c.answer(opt, repErrInvalid, nil)
	}
	src, ok := c.export(name)
	if !ok {
		return false, c.answer(opt, repErrUnknown, nil)
	}
	b := binary.BigEndian.AppendUint16(nil, infoExport)
	b = binary.BigEndian.AppendUint64(b, uint64(src.Size()))
	b = binary.BigEndian.AppendUint16(b, exportFlags)
	if err := c.answer(opt, repInfo, b); err != nil {
		return false, err
	}
	b = binary.BigEndian.AppendUint16(nil, infoBlockSize)
	b = binary.BigEndian.AppendUint32(b, 1)
	b = binary.BigEndian.AppendUint32(b, block.Size)
	b = binary.BigEndian.AppendUint32(b, maxRequest)
	if err := c.answer(opt, repInfo, b); err != nil {
		return false, err
	}
	c.name, c.src = name, src
	return opt == optGo, c.answer(opt, repAck, nil)
}

func (c *serverConn) meta(opt uint32, data []byte) error {
	name, rest, ok := cutString(data)
	if !ok || len(rest) < 4 || !c.structured {
		return c.answer(opt, repErrInvalid, nil)
	}
	if _, ok := c.export(name); !ok {
		return c.answer(opt, repErrUnknown, nil)
	}
	queries := binary.BigEndian.Uint32(rest)
	rest = rest[4:]
	match := queries == 0 && opt == optListMeta
	for range queries {
		var q string
		if q, rest, ok = cutString(rest); !ok {
			return c.answer(opt, repErrInvalid, nil)
		}
		if q == metaBase || q == "base:" && opt == optListMeta {
			match = true
		}
	}
	if opt == optSetMeta {
		c.status = match
	}
	if match {
		b := binary.BigEndian.AppendUint32(nil, metaBaseID)
		if err := c.answer(opt, repMetaContext, append(b, metaBase...)); err != nil {
			return err
		}
	}
	return c.answer(opt, repAck, nil)
}

const metaBaseID = 1

// cutString takes a string with a 32-bit length before it from the front of b.
func cutString(b []byte) (s string, rest []byte, ok bool) {
	if len(b) < 4 {
		return "", nil, false
	}
	n := binary.BigEndian.Uint32(b)
	if n > maxName || int(n) > len(b)-4 {
		return "", nil, false
	}
	return string(b[4 : 4+n]), b[4+n:], true
}

func (c *serverConn) answer(opt, typ uint32, data []byte) error {
	b := binary.BigEndian.AppendUint64(make([]byte, 0, 20+len(data)), magicReply)
	b = binary.BigEndian.AppendUint32(b, opt)
	b = binary.BigEndian.AppendUint32(b, typ)
	b = binary.BigEndian.AppendUint32(b, uint32(len(data)))
	_, err := c.conn.Write(append(b, data...))
	return err
}
