package nbd

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"net"
	"testing"
	"time"
)

// pipe returns two ends of a connection whose writes do not wait for a reader.
func pipe(t testing.TB) (client, server net.Conn) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if client, err = net.Dial("tcp", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if server, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	return client, server
}

// FuzzServer sends arbitrary bytes to a server: it must not panic, hang or keep much memory.
func FuzzServer(f *testing.F) {
	option := func(opt uint32, data []byte) []byte {
		b := binary.BigEndian.AppendUint64(nil, magicOption)
		b = binary.BigEndian.AppendUint32(b, opt)
		b = binary.BigEndian.AppendUint32(b, uint32(len(data)))
		return append(b, data...)
	}
	name := []byte{0, 0, 0, 1, 'd'}
	meta := append(append(name[:5:5], 0, 0, 0, 1, 0, 0, 0, byte(len(metaBase))), metaBase...)
	var all []byte
	all = append(all, 0, 0, 0, 3)
	all = append(all, option(optList, nil)...)
	all = append(all, option(optStructuredReply, nil)...)
	all = append(all, option(optListMeta, meta)...)
	all = append(all, option(optSetMeta, meta)...)
	all = append(all, option(optInfo, append(name[:5:5], 0, 0))...)
	all = append(all, option(optGo, append(name[:5:5], 0, 0))...)
	for _, cmd := range []uint16{cmdRead, cmdFlush, cmdBlockStatus, cmdTrim, cmdDisconnect} {
		all = append(all, requestHead(cmd, uint64(cmd), 4096, 70000)...)
	}
	f.Add(all)
	f.Add(append([]byte{0, 0, 0, 1}, option(optExportName, []byte("d"))...))
	m := newMemory(1<<20, 1)
	s := NewServer(map[string]Source{"d": m}, Options{})
	f.Fuzz(func(t *testing.T, sent []byte) {
		client, server := pipe(t)
		defer client.Close()
		done := make(chan struct{})
		go func() {
			defer close(done)
			_ = s.ServeConn(context.Background(), server)
		}()
		go func() { _, _ = io.Copy(io.Discard, client) }()
		_, _ = client.Write(sent)
		if err := client.(*net.TCPConn).CloseWrite(); err != nil {
			client.Close()
		}
		select {
		case <-done:
		case <-time.After(time.Minute):
			t.Fatal("the server hangs")
		}
	})
}

// FuzzClient answers a client with arbitrary bytes: it must end with an error or the right count, never panic or hang.
func FuzzClient(f *testing.F) {
	m := newMemory(1<<20, 1)
	f.Add(conversation(f, m))
	f.Add([]byte("NBDMAGICIHAVEOPT\x00\x03"))
	f.Fuzz(func(t *testing.T, answer []byte) {
		client, server := pipe(t)
		defer server.Close()
		go func() { _, _ = io.Copy(io.Discard, server) }()
		_, _ = server.Write(answer)
		if err := server.(*net.TCPConn).CloseWrite(); err != nil {
			server.Close()
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		c, err := NewClient(ctx, client, "d")
		if err != nil {
			return
		}
		defer c.Close()
		_, _, _ = c.Next(ctx, 0)
		_ = c.Read(ctx, make([]byte, min(c.Size(), 8192)), 0)
		_ = c.Flush(ctx)
		if ctx.Err() != nil {
			t.Fatal("the client hangs")
		}
	})
}

// conversation records what a server says to a client.
func conversation(f *testing.F, m *memory) []byte {
	client, server := pipe(f)
	var said bytes.Buffer
	go func() {
		_ = NewServer(map[string]Source{"d": m}, Options{}).ServeConn(context.Background(), server)
	}()
	c, err := NewClient(f.Context(), recorder{client, bufio.NewReader(io.TeeReader(client, &said))}, "d")
	if err != nil {
		f.Fatal(err)
	}
	_, _, _ = c.Next(f.Context(), 0)
	_ = c.Read(f.Context(), make([]byte, 8192), 0)
	_ = c.Flush(f.Context())
	c.Close()
	return said.Bytes()
}

type recorder struct {
	net.Conn
	r io.Reader
}

func (r recorder) Read(p []byte) (int, error) { return r.r.Read(p) }
