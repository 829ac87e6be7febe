package ebpf

import (
	"fmt"
	"sync/atomic"
	"time"
	"unsafe"

	cilium "github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/lifeboat-dr/lifeboat/agent/track/sysblock"
)

const (
	maxDisks = 64 // entries of the map disks
	perSlot  = 4  // entries of the map sides for each disk: two sides, what is pending, one unused
	pending  = 2  // of these
	format   = 1  // of what is pinned
	sector   = sysblock.Sector
)

// diskState is struct disk of tracker.bpf.c. The kernel keeps it, so it outlives this process, whatever ends it.
type diskState struct {
	active atomic.Uint32
	bios   uint32
	shift  [2]uint32
	words  [2]uint32

	// The agent's.
	used    atomic.Uint32
	lost    uint32 // an epoch that is not released was lost
	dev     sysblock.Number
	drains  uint32 // storing a queue attribute was seen to wait for requests in flight
	disk    sysblock.Identity
	sectors int64
	unknown uint64 // tally.unknown and tally.outside as far as an epoch was called lost for them
	outside uint64
	based   uint32 // the two below are known
	counts  uint32 // the driver was seen to count what it writes
	issued  int64  // bytes, at an instant without requests in flight
	stat    int64  // bytes, by the kernel's counters, at the same instant
	debt    int64  // bytes issued and not seen to complete at that instant: events of completion that were lost
	_       [144]byte
}

// tally is struct tally of tracker.bpf.c.
type tally struct {
	issued, requeued, completed, unknown, outside, freezing uint64
	entered, left                                           uint64
}

// bucket is struct bucket of tracker.bpf.c.
type bucket [4]atomic.Uint64

// bucket returns where the programs look for a device number.
func (m *Machine) bucket(n sysblock.Number) *bucket { return &m.numbers[uint32(n)*0x9e3779b1>>24] }

// show lets the programs see a disk.
func (m *Machine) show(n sysblock.Number, slot int) error {
	for i := range m.bucket(n) {
		if m.bucket(n)[i].CompareAndSwap(0, uint64(n)<<32|uint64(slot)) {
			return nil
		}
	}
	return ErrFull
}

// hide does the opposite. It tells whether they saw it.
func (m *Machine) hide(n sysblock.Number, slot int) (seen bool) {
	for i := range m.bucket(n) {
		seen = m.bucket(n)[i].CompareAndSwap(uint64(n)<<32|uint64(slot), 0) || seen
	}
	return seen
}

// The layouts that the programs were compiled with.
var (
	_ [256]byte = [unsafe.Sizeof(diskState{})]byte{}
	_ [64]byte  = [unsafe.Sizeof(tally{})]byte{}
	_ [32]byte  = [unsafe.Sizeof(bucket{})]byte{}
)

// mapped returns the elements of an array map as memory, which lives until unmap.
func mapped[T any](m *cilium.Map) ([]T, error) {
	var zero T
	n := int(m.MaxEntries())
	size := n * int(unsafe.Sizeof(zero))
	b, err := unix.Mmap(m.FD(), 0, pages(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map %s: %w", m, err)
	}
	return unsafe.Slice((*T)(unsafe.Pointer(unsafe.SliceData(b))), n), nil
}

func pages(size int) int { return (size + unix.Getpagesize() - 1) &^ (unix.Getpagesize() - 1) }

func unmap[T any](s []T) error {
	if s == nil {
		return nil
	}
	var zero T
	size := pages(len(s) * int(unsafe.Sizeof(zero)))
	return unix.Munmap(unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(s))), size))
}

// sum adds up what was counted of a slot on all CPUs.
func (m *Machine) sum(slot int) (t tally) {
	for i := range m.cpus {
		c := &m.tallies[slot*m.cpus+i]
		t.issued += atomic.LoadUint64(&c.issued)
		t.requeued += atomic.LoadUint64(&c.requeued)
		t.completed += atomic.LoadUint64(&c.completed)
		t.unknown += atomic.LoadUint64(&c.unknown)
		t.outside += atomic.LoadUint64(&c.outside)
		t.freezing += atomic.LoadUint64(&c.freezing)
		t.entered += atomic.LoadUint64(&c.entered)
	}
	return t
}

// patience is how long a program may be held up on its CPU before settle asks the kernel instead.
const patience = 100 * time.Millisecond

// settle returns when every program has ended that began for the slot before the call, and so may have seen what was stored before
// it. That takes microseconds, where waiting for the kernel's own grace period takes tens of milliseconds.
func (m *Machine) settle(slot int) error {
	start := time.Now()
	for i := range m.cpus {
		c := &m.tallies[slot*m.cpus+i]
		for tries := 0; ; tries++ {
			left := atomic.LoadUint64(&c.left) // first: equal then means that nobody was inside when it was read
			if atomic.LoadUint64(&c.entered) == left {
				break
			}
			if tries > 1000 {
				time.Sleep(20 * time.Microsecond)
			}
			if time.Since(start) > patience {
				return m.grace()
			}
		}
	}
	return nil
}

// grace waits for an RCU grace period: the kernel does so before it returns from an update of a map of maps.
func (m *Machine) grace() error {
	side, err := newSide(1)
	if err != nil {
		return err
	}
	defer func() { _ = side.Close() }()
	if err := m.sides.Put(uint32(maxDisks*perSlot-1), side); err != nil {
		return fmt.Errorf("wait for a grace period: %w", err)
	}
	return nil
}

func newSide(words int) (*cilium.Map, error) {
	m, err := cilium.NewMap(&cilium.MapSpec{
		Name: "side", Type: cilium.Array, KeySize: 4, ValueSize: 8, MaxEntries: uint32(words),
		Flags: unix.BPF_F_MMAPABLE | unix.BPF_F_INNER_MAP,
	})
	if err != nil {
		return nil, fmt.Errorf("make a bitmap of %d words: %w", words, err)
	}
	return m, nil
}
