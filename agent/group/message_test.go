package group

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"errors"
	"reflect"
	"strings"
	"testing"
)

func TestTheFirstBytesAreThoseOfTheDocument(t *testing.T) {
	b, err := encode(message{Kind: frozen})
	if err != nil {
		t.Fatal(err)
	}
	// docs/wire.md
	want := "4c4247524f55500a" + "0001" + "0000" + "00000002" + "06" + "000000" + "82b89937" + "7b7d"
	if got := hex.EncodeToString(append(preface(), b...)); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestAPeerOfAnotherVersionIsRefusedByName(t *testing.T) {
	b := preface()
	b[9] = 7
	if err := readPreface(bytes.NewReader(b)); !errors.Is(err, errProtocol) || !strings.Contains(err.Error(), "version 7") {
		t.Errorf("got %v", err)
	}
}

func TestAMessageOutOfBoundsIsRefused(t *testing.T) {
	long := strings.Repeat("x", maxText+1)
	for name, m := range map[string]message{
		"no type":              {},
		"an unknown type":      {Kind: lastKind + 1},
		"a Hello of nobody":    {Kind: hello, Group: "g", Roster: "r"},
		"a Prepare for nobody": {Kind: prepare},
		"a long reason":        {Kind: abort, Reason: long},
		"a long name":          {Kind: abort, Missed: []Missed{{Member: long}}},
		"too many names":       {Kind: abort, Missed: make([]Missed, maxMissed+1)},
		"a term beyond reason": {Kind: prepare, Round: "r", Term: maxTerm + 1},
	} {
		if b, err := encode(m); !errors.Is(err, errProtocol) {
			t.Errorf("%s: got %x, %v", name, b, err)
		}
	}
}

// FuzzRead holds that no bytes panic or allocate beyond bounds, and that what is read is written and read the same again.
func FuzzRead(f *testing.F) {
	for _, m := range []message{
		{Kind: hello, Group: "g", Roster: "00ff", From: "a", To: "b"}, {Kind: prepare, Round: "r", Term: 3}, {Kind: thawed},
		{Kind: abort, Reason: "late", Term: 9, Missed: []Missed{{Member: "b", Reason: "it was not frozen in time"}}},
	} {
		b, err := encode(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 1, 0, 0, 0, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := read(bufio.NewReader(bytes.NewReader(b)))
		if err != nil {
			return
		}
		again, err := encode(m)
		if err != nil {
			t.Fatalf("%+v was read and cannot be written: %v", m, err)
		}
		back, err := read(bufio.NewReader(bytes.NewReader(again)))
		if err != nil || !reflect.DeepEqual(back, m) {
			t.Errorf("got %+v, %v, want %+v", back, err, m)
		}
	})
}
