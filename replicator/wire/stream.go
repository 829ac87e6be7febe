package wire

import (
	"net"
	"sync"
)

// Stream is a network connection for TLS to run on that makes few large system calls of TLS's many small ones: a record is 16 KiB,
// and a message up to 65 of them. Reads go through a buffer. Writes are passed on as they come, but for those between hold and
// flush, which a Conn on top calls around each message; so the TLS handshake has to be over before the first one. As safe for concurrent use as the connection.
type Stream struct {
	net.Conn

	in   []byte // buffer for reading; TLS reads from one goroutine at a time
	rest []byte // of it, not yet read

	mu      sync.Mutex // guards the rest
	out     []byte     // held back
	room    int        // out's limit
	holding bool
	err     error // of a write: what the peer has is not known any more
}

// NewStream returns a Stream over conn, with buffers of so many bytes. A side that mostly sends needs little to read, and the
// other way round.
func NewStream(conn net.Conn, read, write int) *Stream {
	return &Stream{Conn: conn, in: make([]byte, read), room: write}
}

// Read implements net.Conn.
func (s *Stream) Read(p []byte) (int, error) {
	if len(s.rest) == 0 {
		if len(p) >= len(s.in) {
			return s.Conn.Read(p)
		}
		n, err := s.Conn.Read(s.in)
		s.rest = s.in[:n]
		if n == 0 {
			return 0, err
		}
	}
	n := copy(p, s.rest)
	s.rest = s.rest[n:]
	return n, nil
}

// Write implements net.Conn.
func (s *Stream) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err == nil && len(s.out)+len(p) > s.room {
		s.drain()
	}
	if s.err != nil {
		return 0, s.err
	}
	if !s.holding || len(p) > s.room {
		n, err := s.Conn.Write(p)
		s.err = err
		return n, err
	}
	if s.out == nil {
		s.out = make([]byte, 0, s.room)
	}
	s.out = append(s.out, p...)
	return len(p), nil
}

// hold makes writes wait for flush, as far as the buffer goes.
func (s *Stream) hold() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.holding = true
}

// flush writes what was held back.
func (s *Stream) flush() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.holding = false
	if s.err == nil {
		s.drain()
	}
	return s.err
}

func (s *Stream) drain() {
	if len(s.out) > 0 {
		_, s.err = s.Conn.Write(s.out)
		s.out = s.out[:0]
	}
}
