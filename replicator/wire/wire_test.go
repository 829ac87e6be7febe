package wire

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lifeboat-dr/lifeboat/replicator/block"
)

// samples has one message of each type, with the odd shapes.
func samples() []Message {
	key := block.SumKey{1, 2, 3}
	a, b := bytes.Repeat([]byte{7}, block.Size), bytes.Repeat([]byte{9}, 512)
	return []Message{
		&Hello{Grant: "a.b.c", Machine: "m", Generation: 2, Disks: []Disk{{ID: "sda", Size: 1 << 30, OS: true}}, Capabilities: []string{"scan"}},
		&Welcome{Head: &PointRef{Generation: 1, Sequence: 7}, Clean: true, SumKeys: []block.SumKey{key}, Window: 1 << 20},
		&Refuse{Fault{Code: CodeFenced, Message: "generation 1 is closed", Causes: "c", Action: "a"}},
		&SumsRequest{Disk: 3, First: 1 << 40, Count: MaxSums},
		&Sums{Disk: 1, First: 9, Sums: []block.Sum{{}, {}, block.NewSummer(key).Of(a), {}, block.NewSummer(key).Of(b), block.NewSummer(key).Of(a)}},
		&Data{Sequence: 5, Disk: 1, Extents: []block.Extent{{Offset: 0, Length: block.Size}, {Offset: 8 * block.Size, Length: 512}},
			Sums: []block.Sum{block.NewSummer(key).Of(a), block.NewSummer(key).Of(b)}, Bytes: append(bytes.Clone(a), b...)},
		&Zero{Sequence: 6, Disk: 0, Extents: []block.Extent{{Offset: block.Size, Length: 1 << 40}}},
		&Ack{Sequence: 1 << 63},
		&Seal{Sequence: 9, Time: time.Unix(1700000000, 5).UTC(), Consistency: "CrashConsistent", GroupID: "g", Hardware: json.RawMessage(`{"cpu":2}`)},
		&Durable{Point: PointRef{Generation: 1, Sequence: 8}, Time: time.Unix(1700000000, 5).UTC()},
		&Abort{Reason: "detached"},
		&Heartbeat{Phase: "delta", ProcessedBytes: 1, TotalBytes: 2},
		&Error{Fault{Code: CodeInternal, Message: "m"}},
		&Grant{Grant: "x.y.z"},
	}
}

type stream struct {
	io.Reader
	io.Writer
}

func encoded(t testing.TB, ms ...Message) []byte {
	t.Helper()
	var out bytes.Buffer
	c := NewConn(stream{nil, &out})
	for _, m := range ms {
		if err := c.Send(m); err != nil {
			t.Fatalf("send %T: %v", m, err)
		}
	}
	return out.Bytes()
}

func ignoreBuffer(x Message) Message {
	if d, ok := x.(*Data); ok {
		d.Buffer = nil
	}
	return x
}

func TestMessagesArriveAsSent(t *testing.T) {
	t.Parallel()
	want := samples()
	c := NewConn(stream{bytes.NewReader(encoded(t, want...)), nil})
	seen := map[Type]bool{}
	for _, w := range want {
		got, err := c.Receive()
		if err != nil {
			t.Fatalf("receive %T: %v", w, err)
		}
		seen[w.typ()] = true
		if d := cmp.Diff(ignoreBuffer(got), w); d != "" {
			t.Errorf("%T differs (-got +want):\n%s", w, d)
		}
	}
	if _, err := c.Receive(); err != io.EOF {
		t.Errorf("after the last message: got %v, want io.EOF", err)
	}
	for ty := typeHello; ty <= typeGrant; ty++ {
		if !seen[ty] {
			t.Errorf("type %d has no sample", ty)
		}
	}
}

func TestPreface(t *testing.T) {
	t.Parallel()
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	go func() {
		c := NewConn(a)
		_ = c.SendPreface()
		_ = c.Send(&Ack{Sequence: 1})
	}()
	c := NewConn(b)
	if err := c.ReceivePreface(); err != nil {
		t.Fatal(err)
	}
	if m, err := c.Receive(); err != nil || m.(*Ack).Sequence != 1 {
		t.Fatalf("got %v, %v", m, err)
	}
	for name, tc := range map[string]struct {
		bytes string
		want  string
	}{
		"an HTTP client is refused":             {"GET / HTTP/1.1\r\n\r\n", "does not speak"},
		"a newer version is refused by name":    {"LIFEBOAT\x00\x02\x00\x00", "version 2"},
		"a stream that ends inside is an error": {"LIFE", "EOF"},
	} {
		err := NewConn(stream{strings.NewReader(tc.bytes), nil}).ReceivePreface()
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: got %v, want %q in it", name, err, tc.want)
		}
	}
}

func TestDamagedFramesAreErrors(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(1, 2))
	for _, m := range samples() {
		whole := encoded(t, m)
		for range 200 {
			bad := bytes.Clone(whole)
			bad[rng.IntN(len(bad))] ^= 1 << rng.IntN(8)
			got, err := NewConn(stream{bytes.NewReader(bad), nil}).Receive()
			if err == nil {
				t.Fatalf("%T with a flipped bit was taken as %+v", m, got)
			}
		}
		for cut := 1; cut < len(whole); cut += 1 + len(whole)/50 {
			_, err := NewConn(stream{bytes.NewReader(whole[:cut]), nil}).Receive()
			if !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Fatalf("%T cut at %d: got %v, want unexpected EOF", m, cut, err)
			}
		}
	}
}

func TestLimits(t *testing.T) {
	t.Parallel()
	many := make([]block.Extent, MaxExtents+1)
	for i := range many {
		many[i] = block.Extent{Offset: int64(i) * 2 * block.Size, Length: block.Size}
	}
	for name, m := range map[string]Message{
		"no extents":                   &Zero{},
		"too many extents":             &Zero{Extents: many},
		"extents out of order":         &Zero{Extents: []block.Extent{{Offset: block.Size, Length: block.Size}, {Offset: 0, Length: block.Size}}},
		"an extent inside a block":     &Zero{Extents: []block.Extent{{Offset: 512, Length: 512}}},
		"a negative length":            &Zero{Extents: []block.Extent{{Offset: 0, Length: -block.Size}}},
		"a short extent not at an end": &Zero{Extents: []block.Extent{{Offset: 0, Length: 512}, {Offset: block.Size, Length: 512}}},
		"fewer bytes than extents say": &Data{Extents: []block.Extent{{Offset: 0, Length: block.Size}}, Sums: make([]block.Sum, 1), Bytes: make([]byte, 512)},
		"fewer sums than blocks":       &Data{Extents: []block.Extent{{Offset: 0, Length: block.Size}}, Bytes: make([]byte, block.Size)},
		"more than 1 MiB": &Data{Extents: []block.Extent{{Offset: 0, Length: MaxData + block.Size}}, Sums: make([]block.Sum, MaxData/block.Size+1),
			Bytes: make([]byte, MaxData+block.Size)},
		"too many sums": &Sums{Sums: make([]block.Sum, MaxSums+1)},
		"a huge grant":  &Hello{Grant: strings.Repeat("x", MaxControl)},
	} {
		var out bytes.Buffer
		if err := NewConn(stream{nil, &out}).Send(m); !errors.Is(err, ErrProtocol) || out.Len() != 0 {
			t.Errorf("%s: got %v and %d bytes sent, want ErrProtocol and none", name, err, out.Len())
		}
	}
}

// FuzzReceive holds any stream to two properties: an error or a message, never a panic; and what was understood encodes to
// something that means the same.
func FuzzReceive(f *testing.F) {
	for _, m := range samples() {
		f.Add(encoded(f, m))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		c := NewConn(stream{bytes.NewReader(in), nil})
		for {
			m, err := c.Receive()
			if (m == nil) == (err == nil) {
				t.Fatalf("got message %v and error %v", m, err)
			}
			if err != nil {
				return
			}
			roundTrip(t, m)
		}
	})
}

// FuzzDecode is FuzzReceive past the checksum, which a mutation seldom survives.
func FuzzDecode(f *testing.F) {
	for _, m := range samples() {
		f.Add(byte(m.typ()), encoded(f, m)[headerLen:])
	}
	f.Fuzz(func(t *testing.T, typ byte, payload []byte) {
		if len(payload) > Type(typ).limit() {
			return
		}
		m, err := decode(Type(typ), &Buffer{data: payload})
		if (m == nil || reflect.ValueOf(m).IsNil()) == (err == nil) {
			t.Fatalf("got message %v and error %v", m, err)
		}
		if err == nil {
			roundTrip(t, m)
		}
	})
}

func roundTrip(t *testing.T, m Message) {
	first := encodedOrNone(m)
	if first == nil {
		return // JSON grew beyond the limit when escaped
	}
	again, err := NewConn(stream{bytes.NewReader(first), nil}).Receive()
	if err != nil {
		t.Fatalf("%+v was sent but not understood: %v", m, err)
	}
	if second := encodedOrNone(again); !bytes.Equal(first, second) {
		t.Fatalf("%T encodes differently the second time", m)
	}
}

func encodedOrNone(m Message) []byte {
	var out bytes.Buffer
	if NewConn(stream{nil, &out}).Send(m) != nil {
		return nil
	}
	return out.Bytes()
}

func BenchmarkData(b *testing.B) {
	r, w := net.Pipe()
	defer r.Close()
	go func() { _, _ = io.Copy(io.Discard, r) }()
	c := NewConn(w)
	m := &Data{Extents: []block.Extent{{Length: MaxData}}, Sums: make([]block.Sum, MaxData/block.Size), Bytes: make([]byte, MaxData)}
	b.SetBytes(MaxData)
	b.ReportAllocs()
	for b.Loop() {
		if err := c.Send(m); err != nil {
			b.Fatal(err)
		}
	}
}
