package bucketcheck

import (
	"container/list"
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"sort"

	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zstd"
)

// BlockSize is the unit of addresses.
const BlockSize = 4096

// run is a range of blocks of a layer and where its bytes are.
type run struct {
	first, blocks int64
	hole          bool
	pack          [16]byte
	offset        int64
	length        uint32
	index         uint16
	skip          uint16 // blocks of the frame before it
}

// sum is a compare sum.
type sum [16]byte

func isAbsent(err error) bool { return errors.Is(err, fs.ErrNotExist) }

// image is the resolved content of one disk of a point: what each block is, all layers taken together.
type image struct {
	blocks int64
	runs   []run         // sorted, not overlapping; gaps and hole runs are zeros
	sums   map[int64]sum // by block
}

// resolve reads all layers of a disk and lays them over each other, the newest on top.
func (v *Vault) resolve(machine string, d Disk) (*image, error) {
	img := &image{blocks: (d.Size + BlockSize - 1) / BlockSize, sums: map[int64]sum{}}
	owner := map[int64]run{}
	for i := len(d.Layers) - 1; i >= 0; i-- {
		l := d.Layers[i]
		m := &mapReader{v: v, name: fmt.Sprintf("maps/%s/%08d/%s", machine, l.Generation, l.Map), key: v.derive("lifeboat page v1", machine, l.Map)}
		runs, err := m.entries(l.Entries)
		if err != nil {
			return nil, err
		}
		sums, err := m.sums(l.Sums)
		if err != nil {
			return nil, err
		}
		var blocks int64
		for _, r := range runs {
			if r.first < 0 || r.blocks < 1 || r.first+r.blocks > img.blocks {
				return nil, broken("%s: blocks %d+%d on a disk of %d", m.name, r.first, r.blocks, img.blocks)
			}
			if !r.hole {
				blocks += r.blocks
			}
			for b := range r.blocks {
				one := r
				one.first, one.blocks, one.skip = r.first+b, 1, r.skip+uint16(b)
				owner[one.first] = one
				s, has := sums[one.first]
				if has == r.hole {
					return nil, broken("%s: block %d: hole %v, has sum %v", m.name, one.first, r.hole, has)
				}
				delete(img.sums, one.first)
				if has {
					img.sums[one.first] = s
					delete(sums, one.first)
				}
			}
		}
		if len(sums) > 0 {
			return nil, broken("%s: %d sums of blocks that have no entry", m.name, len(sums))
		}
		if blocks != l.Blocks {
			return nil, broken("%s: layer of %d blocks with data, its manifest says %d", m.name, blocks, l.Blocks)
		}
	}
	for _, r := range owner {
		if !r.hole {
			img.runs = append(img.runs, r)
		}
	}
	sort.Slice(img.runs, func(i, j int) bool { return img.runs[i].first < img.runs[j].first })
	return img, nil
}

// WriteDisk writes a disk of a point to w, holes left out, every byte authenticated and compared with its sum. It returns the
// bytes written.
func (v *Vault) WriteDisk(e Entry, disk string, w io.WriterAt) (written int64, err error) {
	for _, d := range e.Disks {
		if d.ID != disk {
			continue
		}
		img, err := v.resolve(e.Machine, d)
		if err != nil {
			return 0, err
		}
		frames := &frameReader{v: v, machine: e.Machine, recent: list.New()}
		compare, err := sums(v.derive("lifeboat sum v1", e.Machine, disk))
		if err != nil {
			return 0, err
		}
		for _, r := range img.runs {
			frame, err := frames.frame(r)
			if err != nil {
				return written, fmt.Errorf("disk %s, block %d: %w", disk, r.first, err)
			}
			at := int(r.skip) * BlockSize
			if at+BlockSize > len(frame) {
				return written, broken("disk %s, block %d lies at %d in a frame of %d bytes", disk, r.first, at, len(frame))
			}
			length := min(BlockSize, d.Size-r.first*BlockSize)
			data := frame[at : at+int(length)]
			if compare(data) != img.sums[r.first] {
				return written, broken("disk %s, block %d: its compare sum is another's", disk, r.first)
			}
			if _, err := w.WriteAt(data, r.first*BlockSize); err != nil {
				return written, err
			}
			written += length
		}
		return written, nil
	}
	return 0, fmt.Errorf("point %s has no disk %s", e.Ref(), disk)
}

// mapReader reads the trees of a map object.
type mapReader struct {
	v    *Vault
	name string
	key  []byte
}

// walk visits the leaves of a tree in order.
func (m *mapReader) walk(root *Root, tree byte, leaf func(count int, extra uint32, items []byte) error) error {
	if root == nil {
		return nil
	}
	return m.page(*root, tree, -1, leaf)
}

func (m *mapReader) page(ref Root, tree byte, level int, leaf func(count int, extra uint32, items []byte) error) error {
	if ref.Length < 16+16 || ref.Length > 64<<10+16 {
		return broken("%s: page of %d bytes", m.name, ref.Length)
	}
	stored, err := m.v.part(m.name, ref.Offset, ref.Length)
	if err != nil {
		return err
	}
	if hash := sha256.Sum256(stored); hex.EncodeToString(hash[:]) != ref.Hash {
		return broken("%s: page %d has another hash than its parent says", m.name, ref.Ordinal)
	}
	page, err := open(m.key, nonce(ref.Ordinal), stored, nil)
	if err != nil {
		return broken("%s: page %d does not authenticate", m.name, ref.Ordinal)
	}
	count, extra := int(binary.LittleEndian.Uint32(page[8:])), binary.LittleEndian.Uint32(page[12:])
	if string(page[:4]) != "LBPG" || page[4] != 1 || page[5] != tree || page[6] > 7 || level >= 0 && int(page[6]) != level || page[7] != 0 {
		return broken("%s: page %d has header %x", m.name, ref.Ordinal, page[:16])
	}
	if page[6] == 0 {
		return leaf(count, extra, page[16:])
	}
	items := page[16:]
	if len(items) != count*56 {
		return broken("%s: page %d: %d children in %d bytes", m.name, ref.Ordinal, count, len(items))
	}
	for i := range count {
		it := items[i*56:]
		child := Root{Offset: int64(binary.LittleEndian.Uint64(it[8:])), Length: int64(binary.LittleEndian.Uint32(it[16:])), Ordinal: binary.LittleEndian.Uint32(it[20:]), Hash: hex.EncodeToString(it[24:56])}
		if err := m.page(child, tree, int(page[6])-1, leaf); err != nil {
			return err
		}
	}
	return nil
}

func (m *mapReader) entries(root *Root) ([]run, error) {
	var runs []run
	end := int64(0)
	err := m.walk(root, 1, func(count int, packs uint32, items []byte) error {
		if packs > 1<<16 || len(items) != int(packs)*16+count*28 {
			return broken("%s: %d entries and %d packs in %d bytes", m.name, count, packs, len(items))
		}
		ids, items := items[:packs*16], items[packs*16:]
		le := binary.LittleEndian
		for i := range count {
			it := items[i*28:]
			r := run{first: int64(le.Uint64(it)), blocks: int64(le.Uint32(it[8:])), offset: int64(le.Uint32(it[12:])), length: le.Uint32(it[16:]), index: le.Uint16(it[20:]), skip: le.Uint16(it[22:])}
			if r.first < end {
				return broken("%s: entries overlap at block %d", m.name, r.first)
			}
			end = r.first + r.blocks
			switch place := le.Uint16(it[24:]); {
			case place == 65535:
				r.hole = true
			case uint32(place) < packs:
				copy(r.pack[:], ids[int(place)*16:])
			default:
				return broken("%s: entry of pack %d of %d", m.name, place, packs)
			}
			runs = append(runs, r)
		}
		return nil
	})
	return runs, err
}

func (m *mapReader) sums(root *Root) (map[int64]sum, error) {
	sums := map[int64]sum{}
	err := m.walk(root, 2, func(count int, runs uint32, items []byte) error {
		if int64(len(items)) < int64(runs)*12 {
			return broken("%s: %d runs of sums in %d bytes", m.name, runs, len(items))
		}
		table, rest := items[:runs*12], items[runs*12:]
		for i := range runs {
			first, n := int64(binary.LittleEndian.Uint64(table[i*12:])), int64(binary.LittleEndian.Uint32(table[i*12+8:]))
			if int64(len(rest)) < n*16 {
				return broken("%s: sums cut short", m.name)
			}
			for b := range n {
				sums[first+b] = sum(rest[b*16 : b*16+16])
			}
			rest = rest[n*16:]
		}
		if len(rest) != 0 {
			return broken("%s: %d bytes behind the sums", m.name, len(rest))
		}
		return nil
	})
	return sums, err
}

// frameReader opens frames and keeps a few.
type frameReader struct {
	v       *Vault
	machine string
	recent  *list.List // of *openFrame, the newest in front
}

type openFrame struct {
	pack  [16]byte
	index uint16
	plain []byte
}

var unzstd = func() *zstd.Decoder {
	d, err := zstd.NewReader(nil, zstd.WithDecoderMaxMemory(64<<20))
	if err != nil {
		panic(err) // the options are constants
	}
	return d
}()

func (r *frameReader) frame(at run) ([]byte, error) {
	for e := r.recent.Front(); e != nil; e = e.Next() {
		if f := e.Value.(*openFrame); f.pack == at.pack && f.index == at.index {
			r.recent.MoveToFront(e)
			return f.plain, nil
		}
	}
	plain, err := r.load(at)
	if err != nil {
		return nil, err
	}
	r.recent.PushFront(&openFrame{at.pack, at.index, plain})
	if r.recent.Len() > 32 {
		r.recent.Remove(r.recent.Back())
	}
	return plain, nil
}

func (r *frameReader) load(at run) ([]byte, error) {
	id := hex.EncodeToString(at.pack[:])
	name := "packs/" + r.machine + "/" + id
	b, err := r.v.part(name, at.offset, int64(at.length))
	if err != nil {
		return nil, err
	}
	le := binary.LittleEndian
	if len(b) < 28+16 || string(b[:4]) != "LBFR" || b[4] != 1 {
		return nil, broken("%s: no frame of version 1 at %d", name, at.offset)
	}
	index, plain, payload, table := le.Uint32(b[8:]), le.Uint32(b[12:]), le.Uint32(b[16:]), le.Uint32(b[20:])
	head := 28 + int64(table)
	if index != uint32(at.index) || plain > 1<<20 || table > 128<<10 || head+int64(payload) != int64(len(b)) {
		return nil, broken("%s: frame %d at %d: index %d, plain %d, payload %d, table %d", name, at.index, at.offset, index, plain, payload, table)
	}
	if crc32.Checksum(b[:head-4], crc32.MakeTable(crc32.Castagnoli)) != le.Uint32(b[head-4:]) {
		return nil, broken("%s: frame %d: header checksum", name, index)
	}
	packed, err := open(r.v.derive("lifeboat frame v1", r.machine, id), nonce(index), b[head:], b[:head])
	if err != nil {
		return nil, broken("%s: frame %d does not authenticate", name, index)
	}
	var out []byte
	switch b[5] {
	case 0:
		out = packed
	case 1:
		out, err = unzstd.DecodeAll(packed, nil)
	case 2:
		out, err = s2.Decode(nil, packed)
	default:
		err = fmt.Errorf("codec %d is unknown", b[5])
	}
	if err != nil || len(out) != int(plain) {
		return nil, broken("%s: frame %d: %d plain bytes, want %d: %w", name, index, len(out), plain, err)
	}
	return out, nil
}

// sums makes compare sums under a disk's key: AES of the GMAC of a block.
func sums(key []byte) (func(data []byte) sum, error) {
	b, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	mac, err := cipher.NewGCM(b)
	if err != nil {
		return nil, err
	}
	return func(data []byte) (s sum) {
		b.Encrypt(s[:], mac.Seal(nil, make([]byte, mac.NonceSize()), nil, data))
		return s
	}, nil
}
