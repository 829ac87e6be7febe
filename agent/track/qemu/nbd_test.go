package qemu

import (
	"bufio"
	"bytes"
	"context"
	"net"
	"testing"
	"time"

	"github.com/lifeboat-dr/lifeboat/replicator/block"
)

// deaf is a connection whose other side has said all it will ever say.
type deaf struct{ *bytes.Reader }

func (deaf) Write(p []byte) (int, error)      { return len(p), nil }
func (deaf) Close() error                     { return nil }
func (deaf) LocalAddr() net.Addr              { return nil }
func (deaf) RemoteAddr() net.Addr             { return nil }
func (deaf) SetDeadline(time.Time) error      { return nil }
func (deaf) SetReadDeadline(time.Time) error  { return nil }
func (deaf) SetWriteDeadline(time.Time) error { return nil }

func client(answer []byte, size int64) *nbdClient {
	c := deaf{bytes.NewReader(answer)}
	return &nbdClient{conn: c, r: bufio.NewReader(c), size: size, context: 1}
}

// Answers to the first request, a read of 8 bytes or a block status of 64.
var answers = map[string]string{
	"data":              "\x66\x8e\x33\xef\x00\x01\x00\x01\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x10\x00\x00\x00\x00\x00\x00\x00\x00abcdefgh",
	"a hole":            "\x66\x8e\x33\xef\x00\x01\x00\x02\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x0c\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x08",
	"half":              "\x66\x8e\x33\xef\x00\x01\x00\x01\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x0c\x00\x00\x00\x00\x00\x00\x00\x00abcd",
	"beyond":            "\x66\x8e\x33\xef\x00\x01\x00\x01\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x10\x00\x00\x00\x00\x00\x00\x00\x01abcdefgh",
	"a refusal":         "\x66\x8e\x33\xef\x00\x01\x80\x01\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x06\x00\x00\x00\x05\x00\x00",
	"another's answer":  "\x66\x8e\x33\xef\x00\x01\x00\x01\x00\x00\x00\x00\x00\x00\x00\x02\x00\x00\x00\x10\x00\x00\x00\x00\x00\x00\x00\x00abcdefgh",
	"nothing":           "\x66\x8e\x33\xef\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x00",
	"a state of blocks": "\x66\x8e\x33\xef\x00\x01\x00\x05\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x14\x00\x00\x00\x01\x00\x00\x00\x20\x00\x00\x00\x01\x00\x00\x00\x40\x00\x00\x00\x00",
	"an empty extent":   "\x66\x8e\x33\xef\x00\x01\x00\x05\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x0c\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x01",
}

func TestAnswersToARead(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]string{"data": "abcdefgh", "a hole": "\x00\x00\x00\x00\x00\x00\x00\x00", "half": "", "beyond": "", "a refusal": "", "another's answer": "", "nothing": "", "a state of blocks": ""} {
		p := bytes.Repeat([]byte{'x'}, 8)
		err := client([]byte(answers[name]), 64).readAt(p, 0)
		if (err == nil) != (want != "") || err == nil && string(p) != want {
			t.Errorf("%s: got %q and %v, want %q", name, p, err, want)
		}
	}
}

func TestAnswersToABlockStatus(t *testing.T) {
	t.Parallel()
	got, err := client([]byte(answers["a state of blocks"]), 64).dirty(t.Context()) // the second extent reaches beyond the end
	if want := (block.Extent{Length: 32}); err != nil || len(got) != 1 || got[0] != want {
		t.Errorf("got %v and %v, want %v", got, err, want)
	}
	for _, name := range []string{"an empty extent", "nothing", "data", "a refusal"} {
		if got, err := client([]byte(answers[name]), 64).dirty(t.Context()); err == nil {
			t.Errorf("%s: got %v", name, got)
		}
	}
}

func FuzzNBDAnswers(f *testing.F) {
	for _, a := range answers {
		f.Add([]byte(a))
	}
	f.Fuzz(func(t *testing.T, answer []byte) {
		p := make([]byte, 8)
		_ = client(answer, 64).readAt(p, 0)
		es, err := client(answer, 64).dirty(context.Background())
		end := int64(0)
		for _, e := range es {
			if err != nil || e.Offset < end || e.Length <= 0 || e.End() > 64 {
				t.Fatalf("%v with %v", es, err)
			}
			end = e.End()
		}
		_ = client(answer, 64).negotiate("export", contextAllocation)
	})
}
