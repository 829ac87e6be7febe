package manifest

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"time"

	"github.com/lifeboat-dr/lifeboat/replicator/block"
)

// Limits of format version 1.
const (
	MaxDisks  = 256
	MaxLayers = 32 // of one disk in an entry
	// MaxSessionLayers bounds the layers of one disk in a session record.
	MaxSessionLayers = 64
	maxText          = 4096
)

// Hash is a SHA-256; hexadecimal in JSON.
type Hash [32]byte

// MarshalText implements encoding.TextMarshaler.
func (h Hash) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, h[:]), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (h *Hash) UnmarshalText(p []byte) error { return unhex(h[:], p) }

// ID names a pack, map or session: 128 random bits; hexadecimal in JSON and in object names.
type ID [16]byte

// MarshalText implements encoding.TextMarshaler.
func (i ID) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, i[:]), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (i *ID) UnmarshalText(p []byte) error { return unhex(i[:], p) }

// String returns the ID in hexadecimal.
func (i ID) String() string { return hex.EncodeToString(i[:]) }

// ParseID reads what String writes.
func ParseID(s string) (ID, error) {
	var i ID
	err := i.UnmarshalText([]byte(s))
	return i, err
}

func unhex(dst, p []byte) error {
	if len(p) != 2*len(dst) {
		return fmt.Errorf("%w: %d hexadecimal digits, want %d", ErrFormat, len(p), 2*len(dst))
	}
	for _, c := range p {
		if c >= 'A' && c <= 'F' { // one spelling for each value
			return fmt.Errorf("%w: capital hexadecimal digits", ErrFormat)
		}
	}
	if _, err := hex.Decode(dst, p); err != nil {
		return fmt.Errorf("%w: %w", ErrFormat, err)
	}
	return nil
}

// Ref names an entry of a machine's log.
type Ref struct {
	Generation int64 `json:"generation"`
	Sequence   int64 `json:"sequence"`
}

// EntryKind says what a log entry is.
type EntryKind string

// The entries of a log.
const (
	Open   EntryKind = "open"
	Point  EntryKind = "point"
	Closed EntryKind = "closed"
	Pruned EntryKind = "pruned"
)

// PageRef names a page inside its map object and binds its bytes.
type PageRef struct {
	Offset  int64  `json:"offset"`
	Length  int64  `json:"length"` // as stored
	Ordinal uint32 `json:"ordinal"`
	Hash    Hash   `json:"hash"`
}

// Layer is one disk's part of a map object. Its roots are nil for empty trees.
type Layer struct {
	Generation int64    `json:"generation"` // of the map object's name
	Map        ID       `json:"map"`
	Pages      int64    `json:"pages"`  // bytes of all pages
	Blocks     int64    `json:"blocks"` // with data
	Entries    *PageRef `json:"entries,omitempty"`
	Sums       *PageRef `json:"sums,omitempty"`
	Packs      *PageRef `json:"packs,omitempty"`
}

// Disk is a disk in an entry or session.
type Disk struct {
	ID     string  `json:"id"`
	Size   int64   `json:"size"`
	OS     bool    `json:"os,omitempty"`
	Layers []Layer `json:"layers,omitempty"` // newest first
}

// Entry is a log entry. Of kind Point it is the manifest of a recovery point.
type Entry struct {
	Kind       EntryKind `json:"kind"`
	Machine    string    `json:"machine"`
	Generation int64     `json:"generation"`
	Sequence   int64     `json:"sequence"`
	Stored     time.Time `json:"stored"`

	Base   *Ref   `json:"base,omitempty"`
	Reason string `json:"reason,omitempty"`

	Session     *ID             `json:"session,omitempty"`
	Time        time.Time       `json:"time,omitzero"`
	Consistency string          `json:"consistency,omitempty"`
	Group       string          `json:"group,omitempty"`
	Changed     int64           `json:"changed,omitempty"`
	Packed      int64           `json:"packed,omitempty"`
	Hardware    json.RawMessage `json:"hardware,omitempty"`
	Disks       []Disk          `json:"disks,omitempty"`
	Pruned      time.Time       `json:"pruned,omitzero"`
}

// Session is an open writer's checkpoint.
type Session struct {
	Machine    string `json:"machine"`
	Generation int64  `json:"generation"`
	Session    ID     `json:"session"`
	Base       Ref    `json:"base"` // the newest entry of the generation when the session's layers were written
	NextPack   int64  `json:"nextPack"`
	Changed    int64  `json:"changed,omitempty"`
	Packed     int64  `json:"packed,omitempty"`
	Disks      []Disk `json:"disks,omitempty"`
}

// Floor is the smallest sequence that is still there in a generation's log, entry 0 apart.
type Floor struct {
	Machine    string `json:"machine"`
	Generation int64  `json:"generation"`
	Floor      int64  `json:"floor"`
}

// Pin keeps a point.
type Pin struct {
	Machine string    `json:"machine"`
	Point   Ref       `json:"point"`
	Owner   string    `json:"owner"`
	Time    time.Time `json:"time"`
}

// PackHeader says whose data a pack holds.
type PackHeader struct {
	Machine    string `json:"machine"`
	Generation int64  `json:"generation"`
	Base       Ref    `json:"base"`
	Session    ID     `json:"session"`
	Ordinal    int64  `json:"ordinal"`
	Disks      []Disk `json:"disks"` // without layers
}

// PackIndex lists a pack's frames.
type PackIndex struct {
	Frames [][2]uint32 `json:"frames"` // offset, length
}

// MapIndex lists a map's layers, each of one disk, without the map's own id.
type MapIndex struct {
	Disks []Disk `json:"disks"`
}

func (*Entry) kind() Kind      { return KindEntry }
func (*Session) kind() Kind    { return KindSession }
func (*Floor) kind() Kind      { return KindFloor }
func (*Pin) kind() Kind        { return KindPin }
func (*PackHeader) kind() Kind { return KindPackHeader }
func (*PackIndex) kind() Kind  { return KindPackIndex }
func (*MapIndex) kind() Kind   { return KindMapIndex }

func (e *Entry) validate() error {
	if err := validPlace(e.Machine, e.Generation, e.Sequence); err != nil {
		return err
	}
	if len(e.Reason) > maxText || len(e.Consistency) > maxText || len(e.Group) > maxText || e.Changed < 0 || e.Packed < 0 {
		return fmt.Errorf("%w: entry field out of limits", ErrFormat)
	}
	switch e.Kind {
	case Open:
		if e.Sequence != 0 || len(e.Disks) != 0 {
			return fmt.Errorf("%w: open entry", ErrFormat)
		}
	case Closed:
		if e.Sequence == 0 || len(e.Disks) != 0 {
			return fmt.Errorf("%w: closed entry", ErrFormat)
		}
	case Point, Pruned:
		if e.Sequence == 0 || e.Kind == Point && (len(e.Disks) == 0 || e.Session == nil) {
			return fmt.Errorf("%w: %s entry", ErrFormat, e.Kind)
		}
	default:
		return fmt.Errorf("%w: entry of unknown kind %q", ErrFormat, e.Kind)
	}
	return validDisks(e.Disks, MaxLayers)
}

func (s *Session) validate() error {
	if s.NextPack < 0 || s.Changed < 0 || s.Packed < 0 {
		return fmt.Errorf("%w: session field out of limits", ErrFormat)
	}
	if err := validPlace(s.Machine, s.Generation, s.Base.Sequence); err != nil {
		return err
	}
	return validDisks(s.Disks, MaxSessionLayers)
}

func (f *Floor) validate() error { return validPlace(f.Machine, f.Generation, f.Floor) }

func (p *Pin) validate() error {
	if p.Owner == "" || len(p.Owner) > maxText {
		return fmt.Errorf("%w: pin owner", ErrFormat)
	}
	return validPlace(p.Machine, p.Point.Generation, p.Point.Sequence)
}

func (h *PackHeader) validate() error {
	if err := validPlace(h.Machine, h.Generation, h.Base.Sequence); err != nil {
		return err
	}
	if h.Ordinal < 0 {
		return fmt.Errorf("%w: pack ordinal", ErrFormat)
	}
	return validDisks(h.Disks, 0)
}

func (x *PackIndex) validate() error {
	if len(x.Frames) > 1<<16 {
		return fmt.Errorf("%w: %d frames in a pack", ErrFormat, len(x.Frames))
	}
	return nil
}

func (x *MapIndex) validate() error { return validDisks(x.Disks, 1) }

func validPlace(machine string, gen, seq int64) error {
	if !ValidName(machine) || gen < 1 || gen > 99_999_999 || seq < 0 || seq > 999_999_999_999 {
		return fmt.Errorf("%w: place %q %d %d", ErrFormat, machine, gen, seq)
	}
	return nil
}

// ValidName tells whether s may be part of an object's name.
func ValidName(s string) bool {
	if s == "" || len(s) > 128 || s[0] == '.' {
		return false
	}
	for _, c := range []byte(s) {
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '.' && c != '_' && c != '-' {
			return false
		}
	}
	return true
}

func validDisks(disks []Disk, layers int) error {
	if len(disks) > MaxDisks {
		return fmt.Errorf("%w: %d disks", ErrFormat, len(disks))
	}
	seen := make(map[string]bool, len(disks))
	for i := range disks {
		d := &disks[i]
		if d.ID == "" || len(d.ID) > maxText || seen[d.ID] || d.Size < 0 || d.Size > block.MaxDisk || d.Size%block.Sector != 0 {
			return fmt.Errorf("%w: disk %q of %d bytes", ErrFormat, d.ID, d.Size)
		}
		seen[d.ID] = true
		if len(d.Layers) > layers {
			return fmt.Errorf("%w: disk %q has %d layers", ErrFormat, d.ID, len(d.Layers))
		}
		for j := range d.Layers {
			if err := d.Layers[j].validate(); err != nil {
				return fmt.Errorf("disk %q: %w", d.ID, err)
			}
		}
	}
	return nil
}

func (l *Layer) validate() error {
	if l.Generation < 1 || l.Generation > 99_999_999 || l.Pages < 0 || l.Blocks < 0 || l.Blocks > block.MaxBlocks {
		return fmt.Errorf("%w: layer out of limits", ErrFormat)
	}
	for _, r := range []*PageRef{l.Entries, l.Sums, l.Packs} {
		if r != nil && !r.valid() {
			return fmt.Errorf("%w: page reference out of limits", ErrFormat)
		}
	}
	return nil
}

func (r *PageRef) valid() bool {
	return r.Offset >= 0 && r.Offset < 1<<56 && r.Length >= pageHeader+pageTag && r.Length <= MaxStoredPage
}
