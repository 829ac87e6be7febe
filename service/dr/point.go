package dr

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"strings"
)

// PointID is the GUID of the point at ref of an item: the same for everyone who computes it, so that a catalogue rebuilt from
// the bucket knows the points by the names clients know.
func PointID(item ItemID, ref PointRef) string {
	h := sha256.New()
	h.Write([]byte("lifeboat point\x00" + string(item) + "\x00"))
	var n [16]byte
	binary.BigEndian.PutUint64(n[:8], uint64(ref.Generation))
	binary.BigEndian.PutUint64(n[8:], uint64(ref.Sequence))
	h.Write(n[:])
	return guid(h.Sum(nil))
}

// NamedGUID is a GUID made from names: the same names, the same GUID.
func NamedGUID(names ...string) string {
	sum := sha256.Sum256([]byte("lifeboat name\x00" + strings.Join(names, "\x00")))
	return guid(sum[:])
}

// guid formats the first 16 bytes as a version 8 (custom) UUID of RFC 9562.
func guid(b []byte) string {
	var u [16]byte
	copy(u[:], b)
	u[6] = u[6]&0x0f | 0x80
	u[8] = u[8]&0x3f | 0x80
	s := hex.EncodeToString(u[:])
	return s[:8] + "-" + s[8:12] + "-" + s[12:16] + "-" + s[16:20] + "-" + s[20:]
}

// Ref is the point's place in the log.
func (p Point) Ref() PointRef { return PointRef{p.Generation, p.Sequence} }
