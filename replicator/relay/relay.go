// Package relay passes agents' control connections on to lifeboatd, byte for byte, so that a protected machine needs no way out
// of its site. It reads nothing of them: TLS and identity are end to end, and it holds no key.
package relay

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"time"
)

const (
	maxConns    = 1024 // more are closed at once; an agent tries again
	dialTimeout = 10 * time.Second
	// idleTimeout ends a connection in which nothing moved, in either direction. It is longer than any long poll.
	idleTimeout = 5 * time.Minute
)

// Relay passes connections on. Make one with New.
type Relay struct {
	dial func(ctx context.Context) (net.Conn, error)
	log  *slog.Logger
}

// New returns a Relay that reaches lifeboatd through dial. log may be nil.
func New(dial func(ctx context.Context) (net.Conn, error), log *slog.Logger) *Relay {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Relay{dial: dial, log: log}
}

// Serve accepts connections from l until ctx ends, then closes l and all connections and waits for them. It returns nil after
// a cancelled ctx and the listener's error otherwise.
func (r *Relay) Serve(ctx context.Context, l net.Listener) error {
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(ctx, func() { _ = l.Close() }) // only unblocks Accept
	defer stop()
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	slots := make(chan struct{}, maxConns)
	for {
		in, err := l.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			if errors.Is(err, net.ErrClosed) {
				return fmt.Errorf("accept relayed connections: %w", err)
			}
			r.log.Warn("accept of a relayed connection was refused by the system", "err", err)
			select { // out of descriptors or memory: others will give some back
			case <-ctx.Done():
			case <-time.After(100 * time.Millisecond):
			}
			continue
		}
		select {
		case slots <- struct{}{}:
			wg.Go(func() {
				defer func() { <-slots }()
				r.pass(ctx, in)
			})
		default:
			_ = in.Close() // refused
		}
	}
}

// pass copies one connection both ways until both ended, one failed, or nothing moved for long.
func (r *Relay) pass(ctx context.Context, in net.Conn) {
	defer func() { _ = in.Close() }() // it ended one way or the other
	dialCtx, cancelDial := context.WithTimeout(ctx, dialTimeout)
	out, err := r.dial(dialCtx)
	cancelDial()
	if err != nil {
		r.log.Warn("lifeboatd cannot be reached for a relayed connection", "err", err)
		return
	}
	defer func() { _ = out.Close() }()
	stop := context.AfterFunc(ctx, func() { _, _ = in.Close(), out.Close() })
	defer stop()
	var wg sync.WaitGroup
	wg.Go(func() { copyOneWay(out, in) })
	wg.Go(func() { copyOneWay(in, out) })
	wg.Wait()
}

// copyOneWay passes src's bytes and its end on. After an error both are closed, which ends the other way too.
func copyOneWay(dst, src net.Conn) {
	buf := make([]byte, 32<<10)
	for {
		_ = src.SetReadDeadline(time.Now().Add(idleTimeout)) // a closed connection tells itself at the read
		n, err := src.Read(buf)
		if n > 0 {
			_ = dst.SetWriteDeadline(time.Now().Add(idleTimeout))
			if _, werr := dst.Write(buf[:n]); werr != nil {
				_, _ = src.Close(), dst.Close()
				return
			}
		}
		if err == nil {
			continue
		}
		if half, ok := dst.(interface{ CloseWrite() error }); ok && errors.Is(err, io.EOF) {
			_ = half.CloseWrite()
			return
		}
		_, _ = src.Close(), dst.Close()
		return
	}
}
