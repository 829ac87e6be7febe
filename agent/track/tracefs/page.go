package tracefs

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"github.com/lifeboat-dr/lifeboat/agent/track/sysblock"
)

// errFormat is a ring buffer that is not laid out as this package knows it. Nothing in it can be believed.
var errFormat = errors.New("tracefs: unknown layout of the kernel's ring buffer")

// event is what is used of one.
type event struct {
	id     uint16
	number sysblock.Number
	sector int64
	count  int64 // sectors
	rwbs   string
}

// field is where a field of an event is.
type field struct{ offset, size int }

// format is the layout of one kind of event.
type format struct {
	id                       uint16
	dev, sector, count, rwbs field
}

var (
	idLine    = regexp.MustCompile(`(?m)^ID: (\d+)$`)
	fieldLine = regexp.MustCompile(`(?m)^\tfield:[^;]*?(\w+)(?:\[\d+\])?;\toffset:(\d+);\tsize:(\d+);`)
)

// parseFormat reads an event's format file.
func parseFormat(text string) (f format, err error) {
	number := func(s string) int {
		n, _ := strconv.Atoi(s) // digits, by the expression
		return n
	}
	id := idLine.FindStringSubmatch(text)
	if id == nil {
		return f, fmt.Errorf("%w: an event without an id", errFormat)
	}
	f.id = uint16(number(id[1]))
	for _, m := range fieldLine.FindAllStringSubmatch(text, -1) {
		at := field{number(m[2]), number(m[3])}
		switch m[1] {
		case "dev":
			f.dev = at
		case "sector":
			f.sector = at
		case "nr_sector":
			f.count = at
		case "rwbs":
			f.rwbs = at
		}
	}
	if f.dev.size != 4 || f.sector.size != 8 || f.count.size != 4 || f.rwbs.size < 4 {
		return f, fmt.Errorf("%w: fields %+v", errFormat, f)
	}
	return f, nil
}

// decode reads the event at the beginning of p.
func (f *format) decode(p []byte) (e event, err error) {
	for _, at := range []field{f.dev, f.sector, f.count, f.rwbs} {
		if at.offset+at.size > len(p) {
			return e, fmt.Errorf("%w: an event of %d bytes", errFormat, len(p))
		}
	}
	le := binary.NativeEndian
	e = event{
		id: f.id, number: sysblock.Number(le.Uint32(p[f.dev.offset:])),
		sector: int64(le.Uint64(p[f.sector.offset:])), count: int64(le.Uint32(p[f.count.offset:])),
	}
	rwbs, _, _ := bytes.Cut(p[f.rwbs.offset:f.rwbs.offset+f.rwbs.size], []byte{0})
	e.rwbs = string(rwbs)
	return e, nil
}

// What an event does to the disk.
type effect int

const (
	nothing   effect = iota
	overwrite        // its sectors change
	discard          // they do, but a request may be of more ranges than this one
	unknown          // anything may change: a command that was passed through, which tells no sectors
)

// effect reads the letters of rwbs. A write of zeros has the letter of a command without data.
func (e *event) effect() effect {
	op := e.rwbs
	if len(op) > 1 && op[0] == 'F' { // a flush before it
		op = op[1:]
	}
	switch {
	case op == "" || op[0] == 'R' || op[0] == 'F':
		return nothing
	case op[0] == 'N' && e.count == 0, op[0] == 'Z':
		return unknown
	case strings.HasPrefix(op, "DE"):
		return overwrite
	case op[0] == 'D':
		return discard
	}
	return overwrite
}

const (
	pageHeader = 16 // time stamp, commit
	missed     = 1 << 31
	sizeMask   = 1<<27 - 1
)

// walk calls found with the bytes of each event on a page of the ring buffer (kernel/trace/ring_buffer.c of the kernel). lost says
// that events before the page were overwritten.
func walk(page []byte, found func([]byte) error) (lost bool, err error) {
	if len(page) < pageHeader {
		return false, fmt.Errorf("%w: a page of %d bytes", errFormat, len(page))
	}
	le := binary.NativeEndian
	commit := le.Uint64(page[8:])
	lost = commit&missed != 0
	size := int(commit & sizeMask)
	if size > len(page)-pageHeader {
		return lost, fmt.Errorf("%w: %d bytes on a page of %d", errFormat, size, len(page))
	}
	p := page[pageHeader : pageHeader+size]
	for len(p) >= 4 {
		head := le.Uint32(p)
		kind, delta := head&31, head>>5
		n, skip := 4, 4 // bytes of the event behind its head, and where its own begin
		switch {
		case kind == 0 || kind == 29 && delta != 0:
			if len(p) < 8 {
				return lost, fmt.Errorf("%w: an event is cut off", errFormat)
			}
			n, skip = int(le.Uint32(p[4:])), 8
			if n < 4 {
				return lost, fmt.Errorf("%w: an event of %d bytes", errFormat, n)
			}
		case kind <= 28:
			n = int(kind) * 4
		case kind == 29:
			return lost, nil // nothing more on this page
		}
		if n < 0 || n > len(p)-4 {
			return lost, fmt.Errorf("%w: an event is cut off", errFormat)
		}
		if kind <= 28 && 4+n > skip {
			if err := found(p[skip : 4+n]); err != nil {
				return lost, err
			}
		}
		p = p[4+n:]
	}
	return lost, nil
}
