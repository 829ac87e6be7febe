package relay_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/lifeboat-dr/lifeboat/replicator/relay"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func listen(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

// start runs a relay to target and returns its address and what ends it.
func start(t *testing.T, target string) (address string, stop func()) {
	t.Helper()
	l := listen(t)
	ctx, cancel := context.WithCancel(t.Context())
	r := relay.New(func(ctx context.Context) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "tcp", target)
	}, nil)
	done := make(chan error, 1)
	go func() { done <- r.Serve(ctx, l) }()
	var once sync.Once
	stop = func() {
		once.Do(func() {
			cancel()
			if err := <-done; err != nil {
				t.Errorf("Serve: %v", err)
			}
		})
	}
	t.Cleanup(stop)
	return l.Addr().String(), stop
}

func dial(t *testing.T, address string) *net.TCPConn {
	t.Helper()
	c, err := net.DialTimeout("tcp", address, 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return c.(*net.TCPConn)
}

func TestBytesAndTheEndPassBothWays(t *testing.T) {
	echo := listen(t)
	go func() {
		c, err := echo.Accept()
		if err != nil {
			return
		}
		all, _ := io.ReadAll(c) // until the client's half is closed
		_, _ = c.Write(all)
		_ = c.Close()
	}()
	address, _ := start(t, echo.Addr().String())
	c := dial(t, address)
	want := make([]byte, 1<<20)
	if _, err := rand.Read(want); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write(want); err != nil {
		t.Fatal(err)
	}
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(c)
	if err != nil || !bytes.Equal(got, want) {
		t.Fatalf("got %d bytes back, %v, want the %d that were sent", len(got), err, len(want))
	}
}

func TestStopClosesConnections(t *testing.T) {
	target := listen(t)
	accepted := make(chan net.Conn, 1)
	go func() {
		if c, err := target.Accept(); err == nil {
			accepted <- c
		}
	}()
	address, stop := start(t, target.Addr().String())
	c := dial(t, address)
	far := <-accepted
	defer func() { _ = far.Close() }()
	stop()
	if _, err := c.Read(make([]byte, 1)); err == nil || errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("read after the stop: got %v, want the connection closed", err)
	}
}

func TestAnUnreachableServerClosesTheConnection(t *testing.T) {
	gone := listen(t)
	if err := gone.Close(); err != nil {
		t.Fatal(err)
	}
	address, _ := start(t, gone.Addr().String())
	if _, err := dial(t, address).Read(make([]byte, 1)); err == nil {
		t.Fatal("the connection stayed open")
	}
}
