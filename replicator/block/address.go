package block

// MaxBlocks bounds the blocks of one disk: 2^44 bytes are not enough for anybody, 2^56 are.
const MaxBlocks = 1 << 44

// MaxDisk is the largest disk, in bytes.
const MaxDisk = MaxBlocks * Size

// Blocks returns the blocks [first, end) that e touches. An empty extent touches none.
func (e Extent) Blocks() (first, end int64) {
	if e.Length <= 0 {
		return e.Offset / Size, e.Offset / Size
	}
	return e.Offset / Size, (e.End() + Size - 1) / Size
}

// AlignedIn tells whether e lies in a disk of size bytes and covers whole blocks only; the disk's short last block counts as
// whole.
func (e Extent) AlignedIn(size int64) bool {
	return e.Offset >= 0 && e.Length > 0 && e.Offset%Size == 0 && e.Length <= size && e.Offset <= size-e.Length &&
		(e.Length%Size == 0 || e.End() == size)
}

// Length returns the bytes of block i on a disk of size bytes: Size, less for a short last block, 0 beyond the end.
func Length(i, size int64) int64 {
	return max(0, min(Size, size-i*Size))
}
