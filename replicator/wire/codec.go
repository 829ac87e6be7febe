package wire

import (
	"encoding/binary"
	"encoding/json"
	"slices"

	"github.com/lifeboat-dr/lifeboat/replicator/block"
)

// Payloads of the binary messages:
//
//	SumsRequest  disk u16 | first block u64 | count u32
//	Sums         disk u16 | first block u64 | count u32 | runs: length u31 with top bit set for zeros u32 | sums 16 each, unless zeros
//	Data         sequence u64 | disk u16 | extents n u16 | n * (offset u64, length u64) | 16 bytes a block | bytes
//	Zero         sequence u64 | disk u16 | extents n u16 | n * (offset u64, length u64)
//	Ack          sequence u64
const (
	sumsFixed = 2 + 8 + 4
	zeroFixed = 8 + 2 + 2
	extentLen = 16
	sumLen    = len(block.Sum{})
	zeroRun   = 1 << 31

	// maxOffset bounds disk addresses so that no sum of two overflows.
	maxOffset = 1 << 60
)

var be = binary.BigEndian

func encodeJSON(head []byte, v any) ([]byte, []byte, error) {
	p, err := json.Marshal(v)
	if err != nil {
		return nil, nil, violated("%v", err)
	}
	return append(head, p...), nil, nil
}

func (m *Hello) encode(h []byte) ([]byte, []byte, error)     { return encodeJSON(h, m) }
func (m *Welcome) encode(h []byte) ([]byte, []byte, error)   { return encodeJSON(h, m) }
func (m *Refuse) encode(h []byte) ([]byte, []byte, error)    { return encodeJSON(h, m) }
func (m *Seal) encode(h []byte) ([]byte, []byte, error)      { return encodeJSON(h, m) }
func (m *Durable) encode(h []byte) ([]byte, []byte, error)   { return encodeJSON(h, m) }
func (m *Abort) encode(h []byte) ([]byte, []byte, error)     { return encodeJSON(h, m) }
func (m *Heartbeat) encode(h []byte) ([]byte, []byte, error) { return encodeJSON(h, m) }
func (m *Error) encode(h []byte) ([]byte, []byte, error)     { return encodeJSON(h, m) }
func (m *Grant) encode(h []byte) ([]byte, []byte, error)     { return encodeJSON(h, m) }

func (m *SumsRequest) encode(h []byte) ([]byte, []byte, error) {
	h = be.AppendUint16(h, m.Disk)
	h = be.AppendUint64(h, uint64(m.First))
	return be.AppendUint32(h, m.Count), nil, nil
}

func (m *Sums) encode(h []byte) ([]byte, []byte, error) {
	if len(m.Sums) > MaxSums {
		return nil, nil, violated("%d sums in a message", len(m.Sums))
	}
	h = be.AppendUint16(h, m.Disk)
	h = be.AppendUint64(h, uint64(m.First))
	h = be.AppendUint32(h, uint32(len(m.Sums)))
	for s := m.Sums; len(s) > 0; {
		zero := s[0] == block.Sum{}
		n := 1
		for n < len(s) && (s[n] == block.Sum{}) == zero {
			n++
		}
		if zero {
			h = be.AppendUint32(h, uint32(n)|zeroRun)
		} else {
			h = be.AppendUint32(h, uint32(n))
			for i := range s[:n] {
				h = append(h, s[i][:]...)
			}
		}
		s = s[n:]
	}
	return h, nil, nil
}

func (m *Data) encode(h []byte) ([]byte, []byte, error) {
	blocks, bytes, err := measure(m.Extents)
	if err != nil {
		return nil, nil, err
	}
	if bytes > MaxData || bytes != int64(len(m.Bytes)) || blocks != int64(len(m.Sums)) {
		return nil, nil, violated("data message of %d bytes in %d blocks has %d bytes and %d sums", bytes, blocks, len(m.Bytes), len(m.Sums))
	}
	h = appendExtents(h, m.Sequence, m.Disk, m.Extents)
	for i := range m.Sums {
		h = append(h, m.Sums[i][:]...)
	}
	return h, m.Bytes, nil
}

func (m *Zero) encode(h []byte) ([]byte, []byte, error) {
	if _, _, err := measure(m.Extents); err != nil {
		return nil, nil, err
	}
	return appendExtents(h, m.Sequence, m.Disk, m.Extents), nil, nil
}

func (m *Ack) encode(h []byte) ([]byte, []byte, error) {
	return be.AppendUint64(h, m.Sequence), nil, nil
}

func appendExtents(h []byte, seq uint64, disk uint16, es []block.Extent) []byte {
	h = be.AppendUint64(h, seq)
	h = be.AppendUint16(h, disk)
	h = be.AppendUint16(h, uint16(len(es)))
	for _, e := range es {
		h = be.AppendUint64(h, uint64(e.Offset))
		h = be.AppendUint64(h, uint64(e.Length))
	}
	return h
}

// measure checks extents and returns the blocks and bytes in them: at least one, sorted, apart, aligned, and only the last one
// may end inside a block.
func measure(es []block.Extent) (blocks, bytes int64, err error) {
	if len(es) == 0 || len(es) > MaxExtents {
		return 0, 0, violated("%d extents in a message", len(es))
	}
	end := int64(0)
	for i, e := range es {
		switch {
		case e.Offset < end || e.Length <= 0 || e.Offset > maxOffset || e.Length > maxOffset:
			return 0, 0, violated("extent [%d,+%d) after %d", e.Offset, e.Length, end)
		case e.Offset%block.Size != 0 || e.Length%block.Sector != 0:
			return 0, 0, violated("extent [%d,+%d) is not aligned", e.Offset, e.Length)
		case e.Length%block.Size != 0 && i != len(es)-1:
			return 0, 0, violated("extent [%d,+%d) ends inside a block", e.Offset, e.Length)
		}
		end = e.End()
		blocks += block.Count(e.Length)
		bytes += e.Length
	}
	return blocks, bytes, nil
}

func decode(t Type, b *Buffer) (Message, error) {
	p := b.data
	switch t {
	case typeHello:
		return decodeJSON(p, new(Hello))
	case typeWelcome:
		return decodeJSON(p, new(Welcome))
	case typeRefuse:
		return decodeJSON(p, new(Refuse))
	case typeSeal:
		return decodeJSON(p, new(Seal))
	case typeDurable:
		return decodeJSON(p, new(Durable))
	case typeAbort:
		return decodeJSON(p, new(Abort))
	case typeHeartbeat:
		return decodeJSON(p, new(Heartbeat))
	case typeError:
		return decodeJSON(p, new(Error))
	case typeGrant:
		return decodeJSON(p, new(Grant))
	case typeSumsRequest:
		return decodeSumsRequest(p)
	case typeSums:
		return decodeSums(p)
	case typeData:
		return decodeData(b)
	case typeZero:
		return decodeZero(p)
	case typeAck:
		if len(p) != 8 {
			return nil, violated("ack of %d bytes", len(p))
		}
		return &Ack{Sequence: be.Uint64(p)}, nil
	}
	return nil, violated("unknown message type %d", t)
}

func decodeJSON(p []byte, m Message) (Message, error) {
	if err := json.Unmarshal(p, m); err != nil {
		return nil, violated("%v", err)
	}
	return m, nil
}

func blockRange(first uint64, count uint32) error {
	if first > maxOffset/block.Size || count == 0 || count > MaxSums {
		return violated("sums of %d blocks from %d", count, first)
	}
	return nil
}

func decodeSumsRequest(p []byte) (Message, error) {
	if len(p) != sumsFixed {
		return nil, violated("sums request of %d bytes", len(p))
	}
	m := &SumsRequest{Disk: be.Uint16(p), First: int64(be.Uint64(p[2:])), Count: be.Uint32(p[10:])}
	if err := blockRange(be.Uint64(p[2:]), m.Count); err != nil {
		return nil, err
	}
	return m, nil
}

func decodeSums(p []byte) (Message, error) {
	if len(p) < sumsFixed {
		return nil, violated("sums of %d bytes", len(p))
	}
	count := be.Uint32(p[10:])
	if err := blockRange(be.Uint64(p[2:]), count); err != nil {
		return nil, err
	}
	m := &Sums{Disk: be.Uint16(p), First: int64(be.Uint64(p[2:])), Sums: make([]block.Sum, count)}
	dst := m.Sums
	for p = p[sumsFixed:]; len(p) >= 4; {
		run := be.Uint32(p)
		n := int(run &^ zeroRun)
		p = p[4:]
		if n == 0 || n > len(dst) {
			return nil, violated("run of %d sums, %d missing", n, len(dst))
		}
		if run&zeroRun == 0 {
			if len(p) < n*sumLen {
				return nil, violated("run of %d sums in %d bytes", n, len(p))
			}
			p = readSums(dst[:n], p)
		}
		dst = dst[n:]
	}
	if len(p) != 0 || len(dst) != 0 {
		return nil, violated("%d sums missing, %d bytes left", len(dst), len(p))
	}
	return m, nil
}

func readSums(dst []block.Sum, p []byte) []byte {
	for i := range dst {
		p = p[copy(dst[i][:], p):]
	}
	return p
}

func decodeExtents(p []byte) (seq uint64, disk uint16, es []block.Extent, rest []byte, err error) {
	if len(p) < zeroFixed {
		return 0, 0, nil, nil, violated("extents in %d bytes", len(p))
	}
	seq, disk = be.Uint64(p), be.Uint16(p[8:])
	n := int(be.Uint16(p[10:]))
	p = p[zeroFixed:]
	if n > MaxExtents || len(p) < n*extentLen {
		return 0, 0, nil, nil, violated("%d extents in %d bytes", n, len(p))
	}
	es = make([]block.Extent, n)
	for i := range es {
		es[i] = block.Extent{Offset: int64(be.Uint64(p)), Length: int64(be.Uint64(p[8:]))}
		p = p[extentLen:]
	}
	return seq, disk, es, p, nil
}

func decodeData(b *Buffer) (Message, error) {
	seq, disk, es, p, err := decodeExtents(b.data)
	if err != nil {
		return nil, err
	}
	blocks, bytes, err := measure(es)
	if err != nil {
		return nil, err
	}
	if bytes > MaxData || int64(len(p)) != blocks*int64(sumLen)+bytes {
		return nil, violated("data of %d bytes in %d blocks has %d bytes", bytes, blocks, len(p))
	}
	m := &Data{Buffer: b, Sequence: seq, Disk: disk, Extents: es, Sums: make([]block.Sum, blocks)}
	m.Bytes = slices.Clip(readSums(m.Sums, p))
	return m, nil
}

func decodeZero(p []byte) (Message, error) {
	seq, disk, es, p, err := decodeExtents(p)
	if err != nil {
		return nil, err
	}
	if _, _, err := measure(es); err != nil {
		return nil, err
	}
	if len(p) != 0 {
		return nil, violated("%d bytes after the extents", len(p))
	}
	return &Zero{Sequence: seq, Disk: disk, Extents: es}, nil
}
