// Package hrl keeps what a disk's tracker knew when the agent was stopped, so that the next start goes on with what was written and
// does not compare the disk. It owns the file's format, which docs/wire.md describes, and the rule that says when its word counts.
// It never trusts a file twice, and never one that any other writer may have made untrue.
package hrl

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"slices"

	"github.com/lifeboat-dr/lifeboat/replicator/block"
)

const (
	magic      = "LBHRL"
	version    = "01\n"
	headerSize = 4096
	extentSize = 16

	// MaxExtents is how many extents fit into a file, which never grows. Where more were written, neighbours are merged.
	MaxExtents = 1 << 16
	fileSize   = headerSize + MaxExtents*extentSize
)

var (
	// ErrNone means that there is no mark: the agent was not stopped cleanly, or its mark was taken before.
	ErrNone = errors.New("hrl: no mark of a clean stop")
	// ErrVersion means that the file is of another version than this program reads.
	ErrVersion = errors.New("hrl: unknown version")
	// ErrDamaged means that the file is not what was written.
	ErrDamaged = errors.New("hrl: the change log is damaged")
)

// Identity says whose change log a file is. One with another identity holds no mark.
type Identity struct {
	Machine string
	Disk    string
	Size    int64 // bytes
}

// Mark is the state of a disk's tracking at a clean stop.
type Mark struct {
	// Extents were written, and may not be in the newest durable point, sorted and apart.
	Extents []block.Extent
	State   State
}

// tag is the header's JSON.
type tag struct {
	Machine string `json:"machine"`
	Disk    string `json:"disk"`
	Size    int64  `json:"size"`
	Running bool   `json:"running"` // the tracker that was left in the kernel vouches for all since the newest point
	Clean   bool   `json:"clean"`   // the rest holds, until it is taken
	Extents int    `json:"extents,omitempty"`
	CRC     uint32 `json:"crc,omitempty"` // CRC-32C of the extents
	State   State  `json:"state,omitzero"`
}

// Log is the file of one disk. Not safe for concurrent use.
type Log struct {
	f       *os.File
	id      Identity
	running bool
	mark    Mark
	err     error // why there is no mark
}

// Open opens the change log at path or makes one, of its full size: later writes need no room and change nothing but its bytes.
func Open(path string, id Identity) (_ *Log, err error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open change log of disk %s: %w", id.Disk, err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.Close())
		}
	}()
	b, err := io.ReadAll(io.LimitReader(f, fileSize+1))
	if err != nil {
		return nil, fmt.Errorf("read change log of disk %s: %w", id.Disk, err)
	}
	l := &Log{f: f, id: id}
	if l.mark, l.running, l.err = decode(b, id); len(b) == fileSize {
		return l, nil
	}
	l.mark, l.running = Mark{}, false
	if !errors.Is(l.err, ErrNone) {
		l.err = errors.Join(ErrNone, l.err)
	}
	if err := errors.Join(f.Truncate(0), write(f, make([]byte, fileSize), 0), f.Sync()); err != nil {
		return nil, fmt.Errorf("make change log of disk %s: %w", id.Disk, err)
	}
	return l, nil
}

// Begin returns what the file says, once: before it returns, the file says durably that nothing is known. It is called before a
// tracker is begun or taken over, so that one begun by an agent that was killed is never taken for one that knows all. The mark is
// that of a clean stop; ErrNone, ErrVersion or ErrDamaged say why there is none. running tells what Run said.
func (l *Log) Begin() (m Mark, running bool, err error) {
	m, running, err = l.mark, l.running, l.err
	if err == nil || running || !errors.Is(err, ErrNone) {
		if werr := l.header(tag{}); werr != nil {
			return Mark{}, false, werr
		}
	}
	l.mark, l.running, l.err = Mark{}, false, ErrNone
	return m, running, err
}

// Run records that the tracker in the kernel vouches for everything since the newest point: an agent that is started after this one
// was killed may take it over and trust it.
func (l *Log) Run() error {
	if l.running {
		return nil
	}
	if err := l.header(tag{Running: true}); err != nil {
		return err
	}
	l.running = true
	return nil
}

// Doubt takes back what Run said.
func (l *Log) Doubt() error {
	if !l.running {
		return nil
	}
	l.running = false
	return l.header(tag{})
}

// Stop records a clean stop. It writes the extents first, then the mark.
func (l *Log) Stop(m Mark) error {
	m.Extents = fit(m.Extents, MaxExtents)
	b := encodeExtents(m.Extents)
	if err := errors.Join(write(l.f, b, headerSize), l.f.Sync()); err != nil {
		return fmt.Errorf("write change log of disk %s: %w", l.id.Disk, err)
	}
	if err := l.header(tag{Clean: true, Extents: len(m.Extents), CRC: crc32.Checksum(b, castagnoli), State: m.State}); err != nil {
		return err
	}
	l.mark, l.running, l.err = m, false, nil
	return nil
}

// Close closes the file and changes nothing.
func (l *Log) Close() error { return l.f.Close() }

func (l *Log) header(t tag) error {
	t.Machine, t.Disk, t.Size = l.id.Machine, l.id.Disk, l.id.Size
	h, err := encodeHeader(t)
	if err == nil {
		err = errors.Join(write(l.f, h, 0), l.f.Sync())
	}
	if err != nil {
		return fmt.Errorf("write change log of disk %s: %w", l.id.Disk, err)
	}
	return nil
}

func write(f *os.File, b []byte, off int64) error {
	_, err := f.WriteAt(b, off)
	return err
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func encodeHeader(t tag) ([]byte, error) {
	p, err := json.Marshal(t)
	if err != nil {
		return nil, err
	}
	if len(p) > headerSize-16 {
		return nil, fmt.Errorf("hrl: a tag of %d bytes", len(p))
	}
	h := make([]byte, headerSize)
	copy(h, magic+version)
	binary.BigEndian.PutUint32(h[8:], uint32(len(p)))
	binary.BigEndian.PutUint32(h[12:], crc32.Checksum(p, castagnoli))
	copy(h[16:], p)
	return h, nil
}

func encodeExtents(es []block.Extent) []byte {
	b := make([]byte, 0, len(es)*extentSize)
	for _, e := range es {
		b = binary.BigEndian.AppendUint64(b, uint64(e.Offset))
		b = binary.BigEndian.AppendUint64(b, uint64(e.Length))
	}
	return b
}

// decode reads a file. A file of zeros, or of nothing, has no mark.
func decode(b []byte, id Identity) (m Mark, running bool, err error) {
	if len(b) < headerSize || len(bytes.Trim(b[:headerSize], "\x00")) == 0 {
		return Mark{}, false, ErrNone
	}
	if string(b[:len(magic)]) != magic {
		return Mark{}, false, fmt.Errorf("%w: it does not begin as one", ErrDamaged)
	}
	if v := b[len(magic):8]; string(v) != version {
		return Mark{}, false, fmt.Errorf("%w %q", ErrVersion, v)
	}
	n := binary.BigEndian.Uint32(b[8:])
	if n > headerSize-16 {
		return Mark{}, false, fmt.Errorf("%w: a tag of %d bytes", ErrDamaged, n)
	}
	p := b[16 : 16+n]
	if crc32.Checksum(p, castagnoli) != binary.BigEndian.Uint32(b[12:]) {
		return Mark{}, false, fmt.Errorf("%w: the checksum of its tag is wrong", ErrDamaged)
	}
	var t tag
	if err := json.Unmarshal(p, &t); err != nil {
		return Mark{}, false, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	if got := (Identity{t.Machine, t.Disk, t.Size}); (t.Clean || t.Running) && got != id {
		return Mark{}, false, fmt.Errorf("%w: it is that of disk %q of machine %q with %d bytes", ErrNone, t.Disk, t.Machine, t.Size)
	}
	if !t.Clean {
		return Mark{}, t.Running, ErrNone
	}
	b = b[headerSize:]
	if t.Extents < 0 || t.Extents > MaxExtents || t.Extents*extentSize > len(b) {
		return Mark{}, false, fmt.Errorf("%w: %d extents in %d bytes", ErrDamaged, t.Extents, len(b))
	}
	b = b[:t.Extents*extentSize]
	if crc32.Checksum(b, castagnoli) != t.CRC {
		return Mark{}, false, fmt.Errorf("%w: the checksum of its extents is wrong", ErrDamaged)
	}
	m = Mark{Extents: make([]block.Extent, 0, t.Extents), State: t.State}
	end := int64(-1)
	for ; len(b) > 0; b = b[extentSize:] {
		e := block.Extent{Offset: int64(binary.BigEndian.Uint64(b)), Length: int64(binary.BigEndian.Uint64(b[8:]))}
		if e.Offset <= end || e.Length <= 0 || e.Offset > id.Size || e.Length > id.Size-e.Offset {
			return Mark{}, false, fmt.Errorf("%w: extent [%d,+%d) after %d on a disk of %d bytes", ErrDamaged, e.Offset, e.Length, end, id.Size)
		}
		m.Extents, end = append(m.Extents, e), e.End()
	}
	return m, false, nil
}

// fit returns at most n extents that cover the given ones: where there are more, those are merged that lie nearest to each other.
func fit(es []block.Extent, n int) []block.Extent {
	if len(es) <= n {
		return es
	}
	gaps := make([]int64, 0, len(es)-1)
	for i := 1; i < len(es); i++ {
		gaps = append(gaps, es[i].Offset-es[i-1].End())
	}
	slices.Sort(gaps)
	widest := gaps[len(es)-n-1] // merging all gaps up to it leaves at most n
	out := make([]block.Extent, 0, n)
	for _, e := range es {
		if i := len(out) - 1; i >= 0 && e.Offset-out[i].End() <= widest {
			out[i].Length = e.End() - out[i].Offset
			continue
		}
		out = append(out, e)
	}
	return out
}
