package loopdisk

import (
	"bytes"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func TestADiskKeepsWhatIsWritten(t *testing.T) {
	for name, d := range map[string]*Disk{"plain": New(t, 4<<20), "reordering": NewReordering(t, 4<<20, time.Millisecond)} {
		want := bytes.Repeat([]byte("lifeboat"), 1<<10)
		if _, err := d.WriteAt(want, 8192); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		got := make([]byte, len(want))
		if _, err := d.ReadAt(got, 8192); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: got %.20q and %v", name, got, err)
		}
		if err := d.Discard(8192, 4096); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if err := d.Resize(8 << 20); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := d.ReadAt(got, 8192); err != nil || !bytes.Equal(got[:4096], make([]byte, 4096)) || !bytes.Equal(got[4096:], want[4096:]) {
			t.Errorf("%s: after a discard: got %.20q and %v", name, got, err)
		}
		if _, err := d.WriteAt(want, 6<<20); err != nil {
			t.Errorf("%s: in the new part: %v", name, err)
		}
		d.Partition(t, 1, 1<<20, 1<<20)
	}
}

// A write that began earlier ends later: without this the disk would hide what trackers get wrong.
func TestWritesOvertakeEachOther(t *testing.T) {
	d := NewReordering(t, 4<<20, 50*time.Millisecond)
	var ended, overtaken atomic.Int64
	var wg sync.WaitGroup
	for i := range int64(64) {
		wg.Go(func() {
			if _, err := d.WriteAt(make([]byte, 4096), i*4096); err != nil {
				t.Error(err)
			}
			if ended.Add(1) <= i {
				overtaken.Add(1)
			}
		})
	}
	start := time.Now()
	wg.Wait()
	if overtaken.Load() == 0 || time.Since(start) > 64*25*time.Millisecond {
		t.Errorf("%d writes were overtaken, 64 took %s: they wait for each other", overtaken.Load(), time.Since(start))
	}
}
