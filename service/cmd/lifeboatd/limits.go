package main

import (
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"syscall"
	"time"
)

// limits bound what strangers can make lifeboatd hold: connections, and the time that each may take before it has said
// something useful. Fleet calls that wait for news are not cut: they wait after their body was read.
type limits struct {
	connections int           // open at once; further ones wait in the kernel until one ends
	header      time.Duration // for the TLS handshake, and for the header of each request
	patience    time.Duration // for a body, or an answer's reader, before minRate applies
	idle        time.Duration // between two requests
}

const (
	maxHeaderBytes = 64 << 10
	// minRate is what a body has to come with, and an answer has to go with, once patience is used up: bytes a second.
	minRate = 16 << 10
)

func defaultLimits(connections int) limits {
	return limits{connections: connections, header: 10 * time.Second, patience: 30 * time.Second, idle: 2 * time.Minute}
}

// maxConnections is the default bound: half of the files that this process may open, so that the other half is left for its
// own work.
func maxConnections() int {
	var l syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l); err != nil || l.Cur > 20_000 {
		return 10_000
	}
	return int(l.Cur / 2)
}

// server makes the HTTP server that keeps to the limits. ServeTLS of it speaks HTTP/2 and HTTP/1.1.
func (l limits) server(h http.Handler) *http.Server {
	return &http.Server{Handler: l.timed(h), ReadHeaderTimeout: l.header, IdleTimeout: l.idle, MaxHeaderBytes: maxHeaderBytes}
}

// timed gives the body of each request, and each part of its answer, the time that its size is worth.
func (l limits) timed(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c := http.NewResponseController(w)
		_ = c.SetWriteDeadline(time.Time{}) // of the answer before on this connection; a connection without deadlines is one of ours
		if r.Body != nil && r.Body != http.NoBody {
			b := &timedBody{ReadCloser: r.Body, conn: c, end: time.Now().Add(l.patience)}
			_ = c.SetReadDeadline(b.end)
			r.Body = b
		}
		next.ServeHTTP(&timedWriter{ResponseWriter: w, conn: c, patience: l.patience}, r)
	})
}

func worth(n int) time.Duration { return time.Duration(n) * time.Second / minRate }

// timedBody moves the deadline on by what has come, and lifts it when all has.
type timedBody struct {
	io.ReadCloser
	conn *http.ResponseController
	end  time.Time
}

func (b *timedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	switch {
	case errors.Is(err, io.EOF):
		_ = b.conn.SetReadDeadline(time.Time{})
	case n > 0:
		b.end = b.end.Add(worth(n))
		_ = b.conn.SetReadDeadline(b.end)
	}
	return n, err
}

// timedWriter bounds how long an answer may take to be taken.
type timedWriter struct {
	http.ResponseWriter
	conn     *http.ResponseController
	patience time.Duration
}

func (w *timedWriter) Write(p []byte) (int, error) {
	_ = w.conn.SetWriteDeadline(time.Now().Add(w.patience + worth(len(p))))
	return w.ResponseWriter.Write(p)
}

// Unwrap lets http.ResponseController reach the connection.
func (w *timedWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// bounded is a listener that accepts no more connections than slots are free.
type bounded struct {
	net.Listener
	slots chan struct{}
	once  sync.Once
	done  chan struct{}
}

func boundedListener(l net.Listener, n int) *bounded {
	return &bounded{Listener: l, slots: make(chan struct{}, n), done: make(chan struct{})}
}

// Accept implements net.Listener.
func (b *bounded) Accept() (net.Conn, error) {
	select {
	case b.slots <- struct{}{}:
	case <-b.done:
		return nil, net.ErrClosed
	}
	c, err := b.Listener.Accept()
	if err != nil {
		<-b.slots
		return nil, err
	}
	return &boundedConn{Conn: c, free: sync.OnceFunc(func() { <-b.slots })}, nil
}

// Close implements net.Listener.
func (b *bounded) Close() error {
	b.once.Do(func() { close(b.done) })
	return b.Listener.Close()
}

type boundedConn struct {
	net.Conn
	free func()
}

func (c *boundedConn) Close() error {
	err := c.Conn.Close()
	c.free()
	return err
}
