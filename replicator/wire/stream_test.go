package wire

import (
	"errors"
	"io"
	"net"
	"testing"
)

// counter counts the writes of a connection.
type counter struct {
	net.Conn
	writes int
	err    error
}

func (c *counter) Write(p []byte) (int, error) {
	c.writes++
	if c.err != nil {
		return len(p) / 2, c.err
	}
	return c.Conn.Write(p)
}

func TestStreamGathersWritesWhileItIsHeld(t *testing.T) {
	t.Parallel()
	a, b := net.Pipe()
	defer a.Close()
	c := &counter{Conn: a}
	s := NewStream(c, 8, 10)
	got := make(chan string, 1)
	go func() {
		p, _ := io.ReadAll(b)
		got <- string(p)
	}()
	write := func(p string, want int) {
		t.Helper()
		if n, err := s.Write([]byte(p)); n != len(p) || err != nil {
			t.Fatalf("write %q: got %d bytes, %v", p, n, err)
		}
		if c.writes != want {
			t.Errorf("writes below after %q: got %d, want %d", p, c.writes, want)
		}
	}
	write("a", 1)
	s.hold()
	write("bcde", 1)
	write("fghi", 1)
	write("jkl", 2)          // does not fit beside the others
	write("mnopqrstuvwx", 4) // nor at all
	write("y", 4)
	if err := s.flush(); err != nil || c.writes != 5 {
		t.Errorf("flush: got %d writes, %v; want 5", c.writes, err)
	}
	write("z", 6)
	_ = a.Close()
	if g := <-got; g != "abcdefghijklmnopqrstuvwxyz" {
		t.Errorf("arrived: got %q", g)
	}
}

func TestStreamIsOfNoUseAfterAWriteThatFailed(t *testing.T) {
	t.Parallel()
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	c := &counter{Conn: a, err: io.ErrShortWrite}
	s := NewStream(c, 8, 10)
	s.hold()
	if _, err := s.Write([]byte("abc")); err != nil {
		t.Fatalf("write while held: %v", err)
	}
	if err := s.flush(); !errors.Is(err, io.ErrShortWrite) {
		t.Errorf("flush: got %v", err)
	}
	c.err = nil // half of it went out: nothing may follow
	if _, err := s.Write([]byte("d")); !errors.Is(err, io.ErrShortWrite) {
		t.Errorf("write after a failed one: got %v", err)
	}
	if err := s.flush(); !errors.Is(err, io.ErrShortWrite) || c.writes != 1 {
		t.Errorf("flush after a failed one: got %v and %d writes", err, c.writes)
	}
}

func TestStreamReadsThroughItsBuffer(t *testing.T) {
	t.Parallel()
	a, b := net.Pipe()
	defer a.Close()
	go func() {
		_, _ = b.Write([]byte("abcdefgh"))
		_, _ = b.Write([]byte("ijklmnopqrst"))
		_ = b.Close()
	}()
	s := NewStream(a, 8, 10)
	p := make([]byte, 3)
	var all []byte
	for range 3 {
		n, err := s.Read(p)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, p[:n]...)
	}
	rest, err := io.ReadAll(s)
	if err != nil {
		t.Fatal(err)
	}
	if got := string(append(all, rest...)); got != "abcdefghijklmnopqrst" {
		t.Errorf("got %q", got)
	}
}
