package group

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
)

// Version is the version of the group port's protocol spoken here (docs/wire.md).
const Version = 1

const (
	magic      = "LBGROUP\n"
	prefaceLen = len(magic) + 4
	headerLen  = 12
	maxPayload = 64 << 10
	maxText    = 512 // bytes of an id, a name or a reason
	maxMissed  = 256 // entries of missed
	maxTerm    = 1 << 53
)

// errProtocol is what bytes yield that are not this protocol. The connection is of no use after it.
var errProtocol = errors.New("group: protocol violated")

func violated(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{errProtocol}, args...)...)
}

// kind is a message's type. Orders are the coordinator's, answers the members'.
type kind uint8

const (
	hello    kind = iota + 1 // both: who speaks, of which group
	prepare                  // order: get ready for an instant
	accept                   // answer: it will
	ready                    // answer: little is left to ship
	freeze                   // order
	frozen                   // answer: all filesystems stand
	seal                     // order: those of all members do
	sealed                   // answer: the epochs are sealed
	thaw                     // order: all members are sealed
	thawed                   // answer: what was frozen stood until the order to thaw
	whole                    // order: that is so of all members; the points share the group's id
	abort                    // both: there will be no point of the group
	lastKind = abort
)

var kindNames = [...]string{hello: "Hello", prepare: "Prepare", accept: "Accept", ready: "Ready", freeze: "Freeze", frozen: "Frozen", seal: "Seal",
	sealed: "Sealed", thaw: "Thaw", thawed: "Thawed", whole: "Whole", abort: "Abort"}

func (k kind) String() string {
	if k == 0 || k > lastKind {
		return fmt.Sprintf("type %d", uint8(k))
	}
	return kindNames[k]
}

// message is a frame's type and payload. Each kind uses the fields that docs/wire.md gives it; the others are empty.
type message struct {
	Kind   kind     `json:"-"`
	Group  string   `json:"group,omitempty"`
	Roster string   `json:"roster,omitempty"`
	From   string   `json:"from,omitempty"`
	To     string   `json:"to,omitempty"`
	Round  string   `json:"round,omitempty"`
	Term   uint64   `json:"term,omitempty"`
	App    bool     `json:"app,omitempty"`
	Reason string   `json:"reason,omitempty"`
	Missed []Missed `json:"missed,omitempty"`
}

// Missed is a member without which there was no point of the group, and why.
type Missed struct {
	Member string `json:"member"` // the machine's id
	Reason string `json:"reason"`
}

func (m *message) check() error {
	switch {
	case m.Kind == 0 || m.Kind > lastKind:
		return violated("message of %s", m.Kind)
	case m.Kind == hello && (m.Group == "" || m.Roster == "" || m.From == "" || m.To == ""):
		return violated("Hello of nobody")
	case m.Kind == prepare && m.Round == "":
		return violated("Prepare for no round")
	case m.Term > maxTerm:
		return violated("term %d", m.Term)
	case len(m.Missed) > maxMissed:
		return violated("%d members that missed", len(m.Missed))
	}
	for _, s := range []string{m.Group, m.Roster, m.From, m.To, m.Round, m.Reason} {
		if len(s) > maxText {
			return violated("text of %d bytes", len(s))
		}
	}
	for _, x := range m.Missed {
		if len(x.Member) > maxText || len(x.Reason) > maxText {
			return violated("text of %d and %d bytes", len(x.Member), len(x.Reason))
		}
	}
	return nil
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func preface() []byte {
	return append([]byte(magic), 0, Version, 0, 0)
}

// encode returns the frame.
func encode(m message) ([]byte, error) {
	if err := m.check(); err != nil {
		return nil, err
	}
	p, err := json.Marshal(m)
	if err != nil {
		return nil, err
	}
	if len(p) > maxPayload {
		return nil, violated("%s of %d bytes", m.Kind, len(p))
	}
	b := make([]byte, headerLen, headerLen+len(p))
	binary.BigEndian.PutUint32(b, uint32(len(p)))
	b[4] = byte(m.Kind)
	b = append(b, p...)
	binary.BigEndian.PutUint32(b[8:], crc32.Update(crc32.Checksum(b[:8], castagnoli), castagnoli, p))
	return b, nil
}

// readPreface checks the first bytes of the other side.
func readPreface(r io.Reader) error {
	var b [prefaceLen]byte
	if _, err := io.ReadFull(r, b[:]); err != nil {
		return err
	}
	if string(b[:len(magic)]) != magic {
		return violated("preface %q", b[:len(magic)])
	}
	if v := binary.BigEndian.Uint16(b[len(magic):]); v != Version {
		return violated("version %d; version %d is spoken here", v, Version)
	}
	if b[prefaceLen-2] != 0 || b[prefaceLen-1] != 0 {
		return violated("preface %x", b)
	}
	return nil
}

// read returns the next message.
func read(r *bufio.Reader) (message, error) {
	var h [headerLen]byte
	if _, err := io.ReadFull(r, h[:]); err != nil {
		return message{}, err
	}
	n := binary.BigEndian.Uint32(h[:])
	m := message{Kind: kind(h[4])}
	if n > maxPayload || h[5] != 0 || h[6] != 0 || h[7] != 0 || m.Kind == 0 || m.Kind > lastKind {
		return message{}, violated("frame %x", h)
	}
	p := make([]byte, n)
	if _, err := io.ReadFull(r, p); err != nil {
		return message{}, err
	}
	if crc32.Update(crc32.Checksum(h[:8], castagnoli), castagnoli, p) != binary.BigEndian.Uint32(h[8:]) {
		return message{}, violated("checksum of a %s", m.Kind)
	}
	if err := json.Unmarshal(p, &m); err != nil {
		return message{}, violated("%s: %v", m.Kind, err)
	}
	return m, m.check()
}
