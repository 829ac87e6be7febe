package ebpf_test

import (
	"bytes"
	"errors"
	"testing"

	"github.com/lifeboat-dr/lifeboat/agent/track"
	"github.com/lifeboat-dr/lifeboat/agent/track/ebpf"
	"github.com/lifeboat-dr/lifeboat/agent/track/tracktest/loopdisk"
)

func TestOneProcessOwnsTheDirectory(t *testing.T) {
	dir := t.TempDir()
	m, err := ebpf.Open(ebpf.Config{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ebpf.Open(ebpf.Config{Dir: dir}); !errors.Is(err, ebpf.ErrOwned) {
		t.Errorf("got %v, want ErrOwned", err)
	}
	if err := m.Destroy(); err != nil {
		t.Error(err)
	}
}

// What one Machine leaves behind the next one goes on with: marks, epochs that were not released, what was lost.
func TestTrackingOutlivesItsOwner(t *testing.T) {
	dir := t.TempDir()
	d := loopdisk.New(t, 16<<20)
	write := func(blk int64) {
		t.Helper()
		if _, err := d.WriteAt(bytes.Repeat([]byte{1}, 4096), blk*4096); err != nil {
			t.Fatal(err)
		}
	}
	open := func() (*ebpf.Machine, *ebpf.Tracker, bool) {
		t.Helper()
		m, err := ebpf.Open(ebpf.Config{Dir: dir})
		if err != nil {
			t.Fatal(err)
		}
		tr, resumed, err := m.Track(t.Context(), d.Path)
		if err != nil {
			t.Fatal(err)
		}
		return m, tr, resumed
	}
	m, tr, resumed := open()
	if resumed {
		t.Error("resumed what never was")
	}
	write(10)
	if _, err := tr.Seal(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := tr.Release(1); err != nil {
		t.Fatal(err)
	}
	write(20)
	if _, err := tr.Seal(t.Context()); err != nil {
		t.Fatal(err)
	}
	write(30)
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	write(40)
	m, tr, resumed = open()
	if !resumed {
		t.Error("not resumed")
	}
	write(50)
	es, err := tr.Seal(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := tr.Verify(true); err != nil {
		t.Error(err)
	}
	want := []int64{20, 30, 40, 50}
	if len(es) != len(want) {
		t.Fatalf("got %v, want blocks %v", es, want)
	}
	for i, e := range es {
		if e.Offset != want[i]*4096 || e.Length != 4096 {
			t.Errorf("got %v, want block %d", e, want[i])
		}
	}
	see, err := tr.Blind()
	if err != nil {
		t.Fatal(err)
	}
	write(60)
	if err := see(); err != nil {
		t.Fatal(err)
	}
	if err := tr.Verify(true); !errors.Is(err, track.ErrLost) {
		t.Errorf("got %v, want ErrLost", err)
	}
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	m, tr, _ = open()
	if _, err := tr.Seal(t.Context()); !errors.Is(err, track.ErrLost) {
		t.Errorf("what the process before lost: got %v, want ErrLost", err)
	}
	if err := m.Destroy(); err != nil {
		t.Error(err)
	}
	m, _, resumed = open()
	if resumed {
		t.Error("resumed what was destroyed")
	}
	if err := m.Destroy(); err != nil {
		t.Error(err)
	}
}
