package nbd

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lifeboat-dr/lifeboat/replicator/block"
)

// memory is a disk in memory whose zero blocks are holes. Extents in bad cannot be read.
type memory struct {
	b   []byte
	bad []block.Extent
}

var errBad = errors.New("verification failed")

func (m *memory) Size() int64 { return int64(len(m.b)) }

func (m *memory) ReadAt(_ context.Context, p []byte, off int64) error {
	for _, e := range m.bad {
		if e.Overlaps(block.Extent{Offset: off, Length: int64(len(p))}) {
			return errBad
		}
	}
	copy(p, m.b[off:])
	return nil
}

func (m *memory) Next(_ context.Context, off int64) (block.Extent, bool, error) {
	n := int64(len(m.b))
	start := off - off%block.Size
	if off >= n {
		return block.Extent{}, false, nil
	}
	for ; start < n && block.IsZero(m.b[start:min(start+block.Size, n)]); start += block.Size {
	}
	if start >= n {
		return block.Extent{}, false, nil
	}
	end := start
	for ; end < n && !block.IsZero(m.b[end:min(end+block.Size, n)]); end += block.Size {
	}
	return block.Extent{Offset: start, Length: min(end, n) - start}, true, nil
}

// newMemory makes a disk with random blocks between holes.
func newMemory(size int64, seed uint64) *memory {
	m := &memory{b: make([]byte, size)}
	r := rand.NewChaCha8([32]byte{byte(seed)})
	for off := int64(0); off < size; off += 1 << 18 {
		if r.Uint64()%3 > 0 {
			_, _ = r.Read(m.b[off:min(off+int64(r.Uint64()%(1<<18)), size)])
		}
	}
	return m
}

// socketDir makes a directory whose path is short enough for a socket's address, which that of t.TempDir need not be.
func socketDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "nbd") //nolint:usetesting // see above
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// serve exports the sources on a socket until the test ends, and returns the socket.
func serve(t *testing.T, exports map[string]Source, opt Options) string {
	t.Helper()
	sock := filepath.Join(socketDir(t), "s")
	l, err := net.Listen("unix", sock)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- NewServer(exports, opt).Serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("serve: %v", err)
			}
		case <-time.After(time.Minute):
			t.Error("server did not end")
		}
	})
	return sock
}

func command(t *testing.T, name string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v (install qemu-utils)\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

func TestQemuImgReadsTheSameBytes(t *testing.T) {
	const size = 48<<20 + 1536 // not a multiple of the block
	m := newMemory(size, 1)
	sock := serve(t, map[string]Source{"disk-1": m, "other": newMemory(1<<20, 2)}, Options{})
	out := filepath.Join(t.TempDir(), "out.raw")
	command(t, "qemu-img", "convert", "-f", "raw", "-O", "raw", "nbd+unix:///disk-1?socket="+sock, out)
	got, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, m.b) {
		t.Error("qemu-img convert read other bytes than the source holds")
	}
	if s := command(t, "qemu-img", "map", "--output=json", "nbd+unix:///disk-1?socket="+sock); !strings.Contains(s, `"zero": true`) || !strings.Contains(s, `"zero": false`) {
		t.Errorf("qemu-img map shows no holes and data:\n%s", s)
	}
	if s := command(t, "qemu-img", "info", "nbd+unix:///other?socket="+sock); !strings.Contains(s, "1 MiB") {
		t.Errorf("qemu-img info shows another size:\n%s", s)
	}
}

func TestQemuIoIsRefusedToWrite(t *testing.T) {
	sock := serve(t, map[string]Source{"d": newMemory(1<<20, 3)}, Options{})
	out, err := exec.CommandContext(t.Context(), "qemu-io", "-f", "raw", "-c", "write 0 4096", "nbd+unix:///d?socket="+sock).CombinedOutput()
	if err == nil && !strings.Contains(string(out), "read-only") && !strings.Contains(string(out), "Permission denied") {
		t.Errorf("write to a read-only export went through:\n%s", out)
	}
}

func TestBadExtentIsAnErrorToQemuAndIsNamed(t *testing.T) {
	m := newMemory(8<<20, 4)
	m.bad = []block.Extent{{Offset: 3 << 20, Length: 4096}}
	var mu sync.Mutex
	var named []block.Extent
	sock := serve(t, map[string]Source{"d": m}, Options{OnError: func(export string, e block.Extent, err error) {
		mu.Lock()
		defer mu.Unlock()
		if export != "d" || !errors.Is(err, errBad) {
			t.Errorf("event for %q: %v", export, err)
		}
		named = append(named, e)
	}})
	url := "nbd+unix:///d?socket=" + sock
	out, _ := exec.CommandContext(t.Context(), "qemu-io", "-r", "-f", "raw", "-c", "read 3M 4k", "-c", "read 0 1M", url).CombinedOutput()
	if !strings.Contains(string(out), "Input/output error") || !strings.Contains(string(out), "read 1048576/1048576") {
		t.Errorf("want an error for the first read and bytes for the second, got:\n%s", out)
	}
	mu.Lock()
	defer mu.Unlock()
	if len(named) == 0 || !named[0].Overlaps(m.bad[0]) {
		t.Errorf("events %v do not name %v", named, m.bad[0])
	}
}

func TestClient(t *testing.T) {
	m := newMemory(20<<20+512, 5)
	m.bad = []block.Extent{{Offset: 19 << 20, Length: 1}}
	sock := serve(t, map[string]Source{"d": m}, Options{})
	c, err := Dial(t.Context(), "unix", sock, "d")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if c.Size() != m.Size() {
		t.Fatalf("size %d, want %d", c.Size(), m.Size())
	}

	t.Run("concurrent reads", func(t *testing.T) {
		var wg sync.WaitGroup
		for i := range 8 {
			wg.Go(func() {
				r := rand.New(rand.NewPCG(uint64(i), 1))
				for range 50 {
					off := r.Int64N(18 << 20)
					p := make([]byte, r.Int64N(3<<20)%(18<<20-off)+1)
					if err := c.Read(t.Context(), p, off); err != nil {
						t.Error(err)
					} else if !bytes.Equal(p, m.b[off:off+int64(len(p))]) {
						t.Errorf("read at %d differs", off)
					}
				}
			})
		}
		wg.Wait()
	})
	t.Run("extents", func(t *testing.T) {
		var off int64
		for {
			want, wantOK, _ := m.Next(t.Context(), off)
			got, ok, err := c.Next(t.Context(), off)
			if err != nil || ok != wantOK || got.Offset != want.Offset {
				t.Fatalf("next after %d: %v %v %v, want %v %v", off, got, ok, err, want, wantOK)
			}
			if !ok {
				return
			}
			off = got.End()
		}
	})
	t.Run("a bad extent is an I/O error and the connection lives on", func(t *testing.T) {
		if err := c.Read(t.Context(), make([]byte, 2<<20), 18<<20); !errors.Is(err, ErrIO) {
			t.Errorf("got %v, want ErrIO", err)
		}
		if err := c.Read(t.Context(), make([]byte, 512), 0); err != nil {
			t.Error(err)
		}
	})
	t.Run("writes are refused", func(t *testing.T) {
		if err := c.Write(t.Context(), make([]byte, 512), 0); !errors.Is(err, ErrRefused) {
			t.Errorf("got %v, want ErrRefused", err)
		}
		if err := c.WriteZeroes(t.Context(), 0, 512); !errors.Is(err, ErrRefused) {
			t.Errorf("got %v, want ErrRefused", err)
		}
	})
	t.Run("unknown export", func(t *testing.T) {
		if _, err := Dial(t.Context(), "unix", sock, "nope"); !errors.Is(err, ErrRefused) {
			t.Errorf("got %v, want ErrRefused", err)
		}
	})
}

func TestClientWritesToQemu(t *testing.T) {
	dir := socketDir(t)
	img, sock := filepath.Join(dir, "i.qcow2"), filepath.Join(dir, "s")
	command(t, "qemu-img", "create", "-q", "-f", "qcow2", img, "8M")
	srv := exec.Command("qemu-nbd", "-f", "qcow2", "-x", "d", "-k", sock, img)
	if err := srv.Start(); err != nil {
		t.Fatal(err)
	}
	defer srv.Wait()
	defer srv.Process.Kill()
	var c *Client
	var err error
	for c == nil {
		if c, err = Dial(t.Context(), "unix", sock, "d"); err != nil && t.Context().Err() != nil {
			t.Fatal(err)
		}
	}
	defer c.Close()
	want := newMemory(8<<20, 6).b
	if err := c.Write(t.Context(), want, 0); err != nil {
		t.Fatal(err)
	}
	if err := c.WriteZeroes(t.Context(), 1<<20, 1<<20); err != nil {
		t.Fatal(err)
	}
	clear(want[1<<20 : 2<<20])
	if err := c.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(want))
	if err := c.Read(t.Context(), got, 0); err != nil || !bytes.Equal(got, want) {
		t.Errorf("read back: %v, equal %v", err, bytes.Equal(got, want))
	}
	e, ok, err := c.Next(t.Context(), 1<<20)
	if err != nil || ok && e.Offset < 2<<20 {
		t.Errorf("zeroed range still holds data: %v %v %v", e, ok, err)
	}
}

func TestServerRefusesWhatIsNoProtocol(t *testing.T) {
	sock := serve(t, map[string]Source{"d": newMemory(1<<20, 7)}, Options{})
	option := func(opt uint32, data []byte) []byte {
		b := binary.BigEndian.AppendUint64([]byte{0, 0, 0, 3}, magicOption)
		b = binary.BigEndian.AppendUint32(b, opt)
		b = binary.BigEndian.AppendUint32(b, uint32(len(data)))
		return append(b, data...)
	}
	start := option(optExportName, []byte("d"))
	req := func(cmd uint16, off, length int64) []byte {
		return append(start[:len(start):len(start)], requestHead(cmd, 1, off, length)...)
	}
	for name, sent := range map[string][]byte{
		"unknown client flags": {1, 0, 0, 0},
		"no option magic":      make([]byte, 64),
		"unknown export":       option(optExportName, []byte("x")),
		"bad request magic":    append(start[:len(start):len(start)], make([]byte, 28)...),
		"endless write":        req(cmdWrite, 0, 1<<31),
	} {
		t.Run(name, func(t *testing.T) {
			conn, err := net.Dial("unix", sock)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			conn.SetDeadline(time.Now().Add(time.Minute))
			_, _ = conn.Write(sent)
			if _, err := io.Copy(io.Discard, conn); errors.Is(err, os.ErrDeadlineExceeded) {
				t.Error("the connection was kept open")
			}
		})
	}
	for name, tc := range map[string]struct {
		sent  []byte
		errno uint32
	}{
		"read past the end":     {req(cmdRead, 1<<20-512, 1024), errnoInval},
		"read at negative":      {req(cmdRead, -512, 512), errnoInval},
		"read of nothing":       {req(cmdRead, 0, 0), errnoInval},
		"status not negotiated": {req(cmdBlockStatus, 0, 512), errnoInval},
		"trim":                  {req(cmdTrim, 0, 512), errnoPerm},
		"unknown command":       {req(99, 0, 512), errnoInval},
		"flush":                 {req(cmdFlush, 0, 0), 0},
	} {
		t.Run(name, func(t *testing.T) {
			conn, err := net.Dial("unix", sock)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			conn.SetDeadline(time.Now().Add(time.Minute))
			_, _ = conn.Write(tc.sent)
			b := make([]byte, 18+10+16)
			if _, err := io.ReadFull(conn, b); err != nil {
				t.Fatal(err)
			}
			if got := binary.BigEndian.Uint32(b[18+10+4:]); got != tc.errno {
				t.Errorf("answered error %d, want %d", got, tc.errno)
			}
		})
	}
}
