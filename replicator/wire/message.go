package wire

import (
	"encoding/json"
	"time"

	"github.com/lifeboat-dr/lifeboat/replicator/block"
)

// Message is one of the types of this file.
type Message interface {
	typ() Type
	// keeps tells whether the decoded message refers to the buffer it was decoded from.
	keeps() bool
	// encode appends the payload to head, whose first headerLen bytes are taken, and may leave its end in tail.
	encode(head []byte) (out, tail []byte, err error)
}

// Numbered is a message that counts in the session's sequence: *Data or *Zero.
type Numbered interface {
	Message
	setSequence(uint64)
}

// PointRef is a place in a machine's point log.
type PointRef struct {
	Generation int64 `json:"generation"`
	Sequence   int64 `json:"sequence"`
}

// Disk is a disk the agent ships. Its place in Hello.Disks is how other messages name it.
type Disk struct {
	ID   string `json:"id"`
	Size int64  `json:"size"` // bytes
	OS   bool   `json:"os,omitempty"`
}

// Hello opens a session.
type Hello struct {
	Grant        string   `json:"grant"` // compact JWS
	Machine      string   `json:"machine"`
	Generation   int64    `json:"generation"`
	Disks        []Disk   `json:"disks"`
	Version      string   `json:"version,omitempty"` // of the agent
	Capabilities []string `json:"capabilities,omitempty"`
}

// Welcome accepts a session.
type Welcome struct {
	// Head is the newest point of the machine in this line of generations; nil before the first.
	Head *PointRef `json:"head,omitempty"`
	// Clean tells that the server holds nothing beyond Head. Otherwise only sums it sends tell what it holds.
	Clean bool `json:"clean"`
	// SumKeys has a key for each disk of Hello, in order.
	SumKeys []block.SumKey `json:"sumKeys"`
	// Window is how many bytes may be unacknowledged.
	Window int64 `json:"window"`
}

// Codes of Refuse and Error. They are those of the control plane.
const (
	CodeInvalid      = "invalid"             // the request can never work
	CodePrecondition = "precondition_failed" // the grant does not allow it, or not any more
	CodeConflict     = "conflict"            // another session of this machine took over
	CodeFenced       = "fenced"              // the generation was closed; never ship to it again
	CodeUnavailable  = "unavailable"         // try again later, or elsewhere
	CodeExhausted    = "exhausted"           // no room
	CodeCorrupt      = "corrupt"             // stored bytes are damaged
	CodeInternal     = "internal"
)

// Fault is why something was refused, for a program and for a person. It is an error.
type Fault struct {
	Code    string `json:"code"`
	Message string `json:"message"`
	Causes  string `json:"causes,omitempty"`
	Action  string `json:"action,omitempty"`
}

func (f *Fault) Error() string { return f.Message }

// Refuse answers Hello when there will be no session.
type Refuse struct{ Fault }

// Error ends a session.
type Error struct{ Fault }

// Grant replaces the session's grant by a younger one for the same machine, generation and disks.
type Grant struct {
	Grant string `json:"grant"`
}

// SumsRequest asks for the sums of Count blocks from First on, as the next point would hold them now.
type SumsRequest struct {
	Disk  uint16
	First int64 // block number
	Count uint32
}

// Sums answers a SumsRequest, in the order of the requests.
type Sums struct {
	Disk  uint16
	First int64
	Sums  []block.Sum
}

// Data carries content. Extents start at block boundaries and are whole blocks, but for the tail of a disk. Bytes holds them
// one after another, Sums has one sum for each block. The slices of a received Data are valid until Release.
type Data struct {
	*Buffer
	Sequence uint64
	Disk     uint16
	Extents  []block.Extent
	Sums     []block.Sum
	Bytes    []byte
}

// Zero says that extents read as zeros. Extents are as in Data.
type Zero struct {
	Sequence uint64
	Disk     uint16
	Extents  []block.Extent
}

// Ack says that everything up to Sequence survives a crash of the server.
type Ack struct{ Sequence uint64 }

// Seal asks for a point of all that was sent up to Sequence.
type Seal struct {
	Sequence    uint64          `json:"sequence"`
	Time        time.Time       `json:"time"` // the capture instant
	Consistency string          `json:"consistency"`
	GroupID     string          `json:"groupId,omitempty"`
	Hardware    json.RawMessage `json:"hardware,omitempty"`
}

// Durable answers Seal: the point exists.
type Durable struct {
	Point PointRef  `json:"point"`
	Time  time.Time `json:"time"`
}

// Abort ends a session from the agent's side. What was sent stays with the server for the next session.
type Abort struct {
	Reason string `json:"reason,omitempty"`
}

// Heartbeat shows that the sender lives, and how far the running pass is.
type Heartbeat struct {
	Phase          string `json:"phase,omitempty"`
	ProcessedBytes int64  `json:"processedBytes,omitempty"`
	TotalBytes     int64  `json:"totalBytes,omitempty"`
}

func (*Hello) typ() Type       { return typeHello }
func (*Welcome) typ() Type     { return typeWelcome }
func (*Refuse) typ() Type      { return typeRefuse }
func (*SumsRequest) typ() Type { return typeSumsRequest }
func (*Sums) typ() Type        { return typeSums }
func (*Data) typ() Type        { return typeData }
func (*Zero) typ() Type        { return typeZero }
func (*Ack) typ() Type         { return typeAck }
func (*Seal) typ() Type        { return typeSeal }
func (*Durable) typ() Type     { return typeDurable }
func (*Abort) typ() Type       { return typeAbort }
func (*Heartbeat) typ() Type   { return typeHeartbeat }
func (*Error) typ() Type       { return typeError }
func (*Grant) typ() Type       { return typeGrant }

func (*Hello) keeps() bool       { return false }
func (*Welcome) keeps() bool     { return false }
func (*Refuse) keeps() bool      { return false }
func (*SumsRequest) keeps() bool { return false }
func (*Sums) keeps() bool        { return false }
func (*Data) keeps() bool        { return true }
func (*Zero) keeps() bool        { return false }
func (*Ack) keeps() bool         { return false }
func (*Seal) keeps() bool        { return false }
func (*Durable) keeps() bool     { return false }
func (*Abort) keeps() bool       { return false }
func (*Heartbeat) keeps() bool   { return false }
func (*Error) keeps() bool       { return false }
func (*Grant) keeps() bool       { return false }

func (m *Data) setSequence(n uint64) { m.Sequence = n }
func (m *Zero) setSequence(n uint64) { m.Sequence = n }
