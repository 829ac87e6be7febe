package manifest

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "write samples that are missing; samples that are there are never changed")

var recordKey = RecordKey{7, 7, 7}

func sampleEntry() *Entry {
	session := ID{0xab}
	ref := &PageRef{Offset: 16, Length: 64, Ordinal: 1, Hash: Hash{1, 2}}
	return &Entry{Kind: Point, Machine: "vm-1", Generation: 2, Sequence: 5, Stored: time.Date(2026, 11, 1, 10, 0, 1, 0, time.UTC),
		Session: &session, Base: &Ref{1, 9}, Time: time.Date(2026, 11, 1, 10, 0, 0, 500, time.UTC), Consistency: "crashConsistent", Group: "g1",
		Changed: 8192, Packed: 900, Hardware: json.RawMessage(`{"cpus":2}`),
		Disks: []Disk{{ID: "sda", Size: 1 << 30, OS: true, Layers: []Layer{{Generation: 2, Map: ID{0xcd}, Pages: 200, Blocks: 2, Entries: ref, Sums: ref, Packs: ref}}},
			{ID: "sdb", Size: 512}}}
}

func samples() map[string]Body {
	e := sampleEntry()
	return map[string]Body{
		"entry-open":   &Entry{Kind: Open, Machine: "vm-1", Generation: 2, Stored: e.Stored, Base: e.Base},
		"entry-point":  e,
		"entry-closed": &Entry{Kind: Closed, Machine: "vm-1", Generation: 2, Sequence: 6, Stored: e.Stored, Reason: "failover"},
		"entry-pruned": &Entry{Kind: Pruned, Machine: "vm-1", Generation: 2, Sequence: 4, Stored: e.Stored, Pruned: e.Stored},
		"session":      &Session{Machine: "vm-1", Generation: 2, Session: ID{1}, Base: Ref{2, 5}, NextPack: 3, Changed: 4096, Packed: 99, Disks: e.Disks},
		"floor":        &Floor{Machine: "vm-1", Generation: 2, Floor: 4},
		"pin":          &Pin{Machine: "vm-1", Point: Ref{2, 5}, Owner: "job/1", Time: e.Stored},
		"packheader":   &PackHeader{Machine: "vm-1", Generation: 2, Base: Ref{2, 5}, Session: ID{1}, Ordinal: 2, Disks: []Disk{{ID: "sda", Size: 1 << 30}}},
		"packindex":    &PackIndex{Frames: [][2]uint32{{300, 5000}, {5300, 44}}},
		"mapindex":     &MapIndex{Disks: e.Disks},
	}
}

// TestSamples reads the records of released versions.
func TestSamples(t *testing.T) {
	t.Parallel()
	for name, want := range samples() {
		path := filepath.Join("testdata", "v1-"+name+".bin")
		sealed, err := recordKey.Seal("name/of/"+name, want)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if _, err := os.Stat(path); *update && errors.Is(err, os.ErrNotExist) {
			if err := os.WriteFile(path, sealed, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		p, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		got := reflect.New(reflect.TypeOf(want).Elem()).Interface().(Body)
		if err := recordKey.Open("name/of/"+name, p, got); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got %+v, %v, want %+v", name, got, err, want)
		}
		if !bytes.Equal(p, sealed) {
			t.Errorf("%s: the same record is written differently now", name)
		}
		if err := recordKey.Open("another/name", p, got); !errors.Is(err, ErrAuth) {
			t.Errorf("%s at another name: got %v, want ErrAuth", name, err)
		}
		if err := new(RecordKey).Open("name/of/"+name, p, got); !errors.Is(err, ErrAuth) {
			t.Errorf("%s with another key: got %v, want ErrAuth", name, err)
		}
	}
}

// TestRecordLayout shows the bytes of docs/formats.md.
func TestRecordLayout(t *testing.T) {
	t.Parallel()
	p, err := recordKey.Seal("n", &Floor{Machine: "m", Generation: 1, Floor: 2})
	if err != nil {
		t.Fatal(err)
	}
	body := `{"machine":"m","generation":1,"floor":2}`
	if got, want := string(p[:16+len(body)]), "LBFTFLOR\x01\x00\x00\x00\x28\x00\x00\x00"+body; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if len(p) != 16+len(body)+32 {
		t.Errorf("record of %d bytes", len(p))
	}
}

func TestRecordsRefuse(t *testing.T) {
	t.Parallel()
	good, err := recordKey.Seal("n", &Floor{Machine: "m", Generation: 1, Floor: 2})
	if err != nil {
		t.Fatal(err)
	}
	change := func(at int, v byte) []byte {
		p := slices.Clone(good)
		p[at] = v
		return p
	}
	for _, c := range []struct {
		name, text string
		p          []byte
	}{
		{"another magic", "no record", change(0, 'X')},
		{"another kind", "kind", change(4, 'X')},
		{"an unknown version by its number", "version 2 is unknown", change(8, 2)},
		{"a length over the limit", "limits", change(15, 0xff)},
		{"a cut record", "want", good[:len(good)-1]},
		{"bytes behind", "want", append(slices.Clone(good), 0)},
		{"nothing", "no record", nil},
	} {
		if err := recordKey.Open("n", c.p, new(Floor)); !errors.Is(err, ErrFormat) || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%s: got %v, want ErrFormat with %q", c.name, err, c.text)
		}
	}
	for i := range good {
		for bit := range 8 {
			if err := recordKey.Open("n", change(i, good[i]^1<<bit), new(Floor)); err == nil {
				t.Fatalf("byte %d bit %d changed: it opened", i, bit)
			}
		}
	}
	for _, body := range []string{
		`{"machine":"m","generation":1,"floor":2,"more":1}`, `{"machine":"../m","generation":1,"floor":2}`, `{"machine":"m","generation":0,"floor":2}`,
		`{"machine":"m","generation":1,"floor":-1}`, `{"machine":"m","generation":1,"floor":2}{}`, `[]`, ``, `{"machine":"m"`,
	} {
		if err := decodeBody([]byte(body), new(Floor)); !errors.Is(err, ErrFormat) {
			t.Errorf("body %s: got %v, want ErrFormat", body, err)
		}
	}
}

func TestEntriesAreValidated(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*Entry){
		"a point needs disks":             func(e *Entry) { e.Disks = nil },
		"a point needs a session":         func(e *Entry) { e.Session = nil },
		"sequence 0 is no point":          func(e *Entry) { e.Sequence = 0 },
		"a kind has to be known":          func(e *Entry) { e.Kind = "maybe" },
		"disks have different ids":        func(e *Entry) { e.Disks[1].ID = "sda" },
		"disks consist of sectors":        func(e *Entry) { e.Disks[0].Size++ },
		"disks have a largest size":       func(e *Entry) { e.Disks[0].Size = 1 << 60 },
		"layers are limited":              func(e *Entry) { e.Disks[0].Layers = make([]Layer, MaxLayers+1) },
		"page references are limited":     func(e *Entry) { e.Disks[0].Layers[0].Entries = &PageRef{Length: MaxStoredPage + 1} },
		"an open entry has no disks":      func(e *Entry) { e.Kind, e.Sequence = Open, 0 },
		"a closed entry has no disks":     func(e *Entry) { e.Kind = Closed },
		"texts are limited":               func(e *Entry) { e.Group = strings.Repeat("x", 5000) },
		"counts are not below zero":       func(e *Entry) { e.Changed = -1 },
		"generations have a largest":      func(e *Entry) { e.Generation = 100_000_000 },
		"machines are limited to a name":  func(e *Entry) { e.Machine = "a/b" },
		"layers have a valid generation":  func(e *Entry) { e.Disks[0].Layers[0].Generation = 0 },
		"pages of a layer are not below0": func(e *Entry) { e.Disks[0].Layers[0].Pages = -1 },
	} {
		e := sampleEntry()
		change(e)
		if _, err := recordKey.Seal("n", e); !errors.Is(err, ErrFormat) {
			t.Errorf("%s: got %v, want ErrFormat", name, err)
		}
	}
}

// fuzzBody plays a writer with the key: only then do these bytes get this far.
func fuzzBody[T any, B interface {
	*T
	Body
}](f *testing.F) {
	for _, s := range samples() {
		p, err := json.Marshal(s)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(p)
	}
	f.Fuzz(func(t *testing.T, p []byte) {
		v := B(new(T))
		if err := decodeBody(p, v); err != nil {
			if !errors.Is(err, ErrFormat) {
				t.Fatalf("got %v, want ErrFormat", err)
			}
			return
		}
		sealed, err := recordKey.Seal("n", v)
		if err != nil {
			t.Fatalf("what decoded does not encode: %v", err)
		}
		again := B(new(T))
		if err := recordKey.Open("n", sealed, again); err != nil {
			t.Fatalf("what was encoded again does not decode: %v", err)
		}
		twice, err := recordKey.Seal("n", again)
		if err != nil || !bytes.Equal(twice, sealed) {
			t.Fatalf("encoded twice it differs: %v", err)
		}
	})
}

func FuzzEntry(f *testing.F)      { fuzzBody[Entry](f) }
func FuzzSession(f *testing.F)    { fuzzBody[Session](f) }
func FuzzPackHeader(f *testing.F) { fuzzBody[PackHeader](f) }
func FuzzMapIndex(f *testing.F)   { fuzzBody[MapIndex](f) }
func FuzzPackIndex(f *testing.F)  { fuzzBody[PackIndex](f) }
func FuzzPin(f *testing.F)        { fuzzBody[Pin](f) }
func FuzzFloor(f *testing.F)      { fuzzBody[Floor](f) }

func FuzzRecord(f *testing.F) {
	p, err := recordKey.Seal("n", sampleEntry())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(p)
	f.Fuzz(func(t *testing.T, p []byte) {
		n, err := RecordSize(p, KindEntry)
		if err == nil && (n < recordHeader+macSize || n > MaxRecord) {
			t.Fatalf("size %d", n)
		}
		if err := recordKey.Open("n", p, new(Entry)); err != nil && !errors.Is(err, ErrFormat) && !errors.Is(err, ErrAuth) {
			t.Fatalf("got %v", err)
		}
	})
}
