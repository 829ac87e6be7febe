// Package manifest owns the stored forms of everything that describes data: records (log entries, which are the manifests of
// recovery points, sessions, floors, pins) and paged extent maps. It does no I/O of its own and never returns a value that
// did not authenticate. The layout is in docs/formats.md.
package manifest

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// Errors of this package.
var (
	// ErrFormat means that bytes are not what the format says. Bytes cut short are also ErrFormat.
	ErrFormat = errors.New("manifest: malformed")
	// ErrAuth means that bytes do not belong to their key or place.
	ErrAuth = errors.New("manifest: authentication failed")
)

// Kind tells records apart.
type Kind string

// The kinds of format version 1.
const (
	KindEntry      Kind = "PONT"
	KindSession    Kind = "SESS"
	KindFloor      Kind = "FLOR"
	KindPin        Kind = "PIN "
	KindPackHeader Kind = "PACK"
	KindPackIndex  Kind = "PKIX"
	KindMapIndex   Kind = "MPIX"
)

const (
	recordMagic   = "LBFT"
	recordVersion = 1
	recordHeader  = 16
	macSize       = sha256.Size
	// MaxBody bounds a record's body in bytes.
	MaxBody = 16 << 20
	// MaxRecord bounds a record in bytes.
	MaxRecord = recordHeader + MaxBody + macSize
)

// Body is the content of a record.
type Body interface {
	kind() Kind
	validate() error
}

// RecordKey authenticates a vault's records.
type RecordKey [32]byte

// Seal returns the record of v for the object name (below the vault's prefix). v must be valid.
func (k *RecordKey) Seal(name string, v Body) ([]byte, error) {
	if err := v.validate(); err != nil {
		return nil, err
	}
	body, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("encode %s record: %w", v.kind(), err)
	}
	if len(body) > MaxBody || len(name) > 0xffff {
		return nil, fmt.Errorf("%w: record of %d bytes", ErrFormat, len(body))
	}
	p := make([]byte, recordHeader, recordHeader+len(body)+macSize)
	copy(p, recordMagic)
	copy(p[4:], v.kind())
	binary.LittleEndian.PutUint16(p[8:], recordVersion)
	binary.LittleEndian.PutUint32(p[12:], uint32(len(body)))
	p = append(p, body...)
	return append(p, k.mac(name, p)...), nil
}

func (k *RecordKey) mac(name string, p []byte) []byte {
	h := hmac.New(sha256.New, k[:])
	h.Write(binary.LittleEndian.AppendUint16(nil, uint16(len(name))))
	h.Write([]byte(name)) // a hash never fails
	h.Write(p)
	return h.Sum(nil)
}

// RecordSize reads the size of the record that starts with p, of which recordHeader bytes are enough.
func RecordSize(p []byte, kind Kind) (int, error) {
	if len(p) < recordHeader || string(p[:4]) != recordMagic {
		return 0, fmt.Errorf("%w: no record here", ErrFormat)
	}
	if got := Kind(p[4:8]); got != kind {
		return 0, fmt.Errorf("%w: record of kind %q, want %q", ErrFormat, got, kind)
	}
	if v := binary.LittleEndian.Uint16(p[8:]); v != recordVersion {
		return 0, fmt.Errorf("%w: %s record version %d is unknown", ErrFormat, kind, v)
	}
	n := binary.LittleEndian.Uint32(p[12:])
	if n > MaxBody || p[10] != 0 || p[11] != 0 {
		return 0, fmt.Errorf("%w: %s record header out of limits", ErrFormat, kind)
	}
	return recordHeader + int(n) + macSize, nil
}

// Open reads the record p of the object name into v. p must be the record and nothing else.
func (k *RecordKey) Open(name string, p []byte, v Body) error {
	n, err := RecordSize(p, v.kind())
	if err != nil {
		return err
	}
	if len(p) != n {
		return fmt.Errorf("%w: %s record of %d bytes, want %d", ErrFormat, v.kind(), len(p), n)
	}
	if !hmac.Equal(k.mac(name, p[:n-macSize]), p[n-macSize:]) {
		return fmt.Errorf("%w: %s record", ErrAuth, v.kind())
	}
	return decodeBody(p[recordHeader:n-macSize], v)
}

func decodeBody(p []byte, v Body) error {
	d := json.NewDecoder(bytes.NewReader(p))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return fmt.Errorf("%w: %s record: %w", ErrFormat, v.kind(), err)
	}
	if _, err := d.Token(); err != io.EOF {
		return fmt.Errorf("%w: %s record has bytes behind its body", ErrFormat, v.kind())
	}
	return v.validate()
}
