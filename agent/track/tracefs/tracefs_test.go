package tracefs_test

import (
	"bytes"
	"errors"
	"os/exec"
	"testing"
	"time"

	"github.com/lifeboat-dr/lifeboat/agent/track"
	"github.com/lifeboat-dr/lifeboat/agent/track/tracefs"
	"github.com/lifeboat-dr/lifeboat/agent/track/tracktest"
	"github.com/lifeboat-dr/lifeboat/agent/track/tracktest/loopdisk"
	"github.com/lifeboat-dr/lifeboat/replicator/block"
)

func machine(t *testing.T) *tracefs.Machine {
	t.Helper()
	m, err := tracefs.Open(tracefs.Config{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	return m
}

func tracker(t *testing.T, m *tracefs.Machine, d *loopdisk.Disk) *tracefs.Tracker {
	t.Helper()
	tr, err := m.Track(t.Context(), d.Path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := tr.Close(); err != nil {
			t.Error(err)
		}
	})
	return tr
}

func TestContract(t *testing.T) {
	m := machine(t)
	tracktest.Run(t, func(t *testing.T) (track.Tracker, tracktest.Disk) {
		d := loopdisk.New(t, 8<<20)
		return tracker(t, m, d), d
	})
}

func TestOneProcessOwnsTheDirectory(t *testing.T) {
	dir := t.TempDir()
	m, err := tracefs.Open(tracefs.Config{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tracefs.Open(tracefs.Config{Dir: dir}); !errors.Is(err, tracefs.ErrOwned) {
		t.Errorf("got %v, want ErrOwned", err)
	}
	if err := m.Close(); err != nil {
		t.Error(err)
	}
}

func TestEveryWayToWriteIsSeen(t *testing.T) {
	m := machine(t)
	d := loopdisk.New(t, 64<<20)
	if _, err := d.WriteAt(make([]byte, 1<<20), 8<<20); err != nil { // so that there is something to discard
		t.Fatal(err)
	}
	tr := tracker(t, m, d)
	if err := tr.Verify(true); !errors.Is(err, tracefs.ErrUnchecked) {
		t.Errorf("got %v, want ErrUnchecked", err)
	}
	for name, c := range map[string]struct {
		write func() error
		want  block.Extent
	}{
		"a write":          {func() error { _, err := d.WriteAt(make([]byte, 8192), 4096); return err }, block.Extent{Offset: 4096, Length: 8192}},
		"a discard":        {func() error { return d.Discard(8<<20, 1<<20) }, block.Extent{Offset: 8 << 20, Length: 1 << 20}},
		"write zeroes":     {func() error { return d.WriteZeroes(9<<20, 1<<20) }, block.Extent{Offset: 9 << 20, Length: 1 << 20}},
		"the last sector":  {func() error { _, err := d.WriteAt(make([]byte, 512), 64<<20-512); return err }, block.Extent{Offset: 64<<20 - 4096, Length: 4096}},
		"a large discard":  {func() error { return d.Discard(16<<20, 32<<20) }, block.Extent{Offset: 16 << 20, Length: 32 << 20}},
		"nothing but read": {func() error { _, err := d.ReadAt(make([]byte, 512), 0); return err }, block.Extent{}},
	} {
		if err := c.write(); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		es, err := tr.Seal(t.Context())
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if err := tr.Release(tr.Epoch() - 1); err != nil {
			t.Fatal(err)
		}
		if c.want.Length == 0 && len(es) != 0 || c.want.Length != 0 && (len(es) != 1 || es[0] != c.want) {
			t.Errorf("%s: got %v, want %v", name, es, c.want)
		}
		if err := tr.Verify(true); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestAResizeLosesTheEpoch(t *testing.T) {
	m := machine(t)
	d := loopdisk.New(t, 16<<20)
	tr := tracker(t, m, d)
	if err := d.Resize(32 << 20); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the one that saw it, and the one whose marks were dropped with the bitmap
		if _, err := tr.Seal(t.Context()); !errors.Is(err, track.ErrLost) {
			t.Errorf("got %v, want ErrLost", err)
		}
	}
	if _, err := d.WriteAt(make([]byte, 4096), 24<<20); err != nil {
		t.Fatal(err)
	}
	if es, err := tr.Seal(t.Context()); err != nil || len(es) != 1 || es[0].Offset != 24<<20 || tr.Size() != 32<<20 {
		t.Errorf("got %v and %v", es, err)
	}
}

// The kernel overwrites what is not read in time, and says so.
func TestAnOverrunLosesTheEpoch(t *testing.T) {
	m := machine(t)
	d := loopdisk.New(t, 64<<20)
	tr := tracker(t, m, d)
	if err := m.Shrink(); err != nil {
		t.Fatal(err)
	}
	resume := m.Pause()
	out, err := exec.Command("fio", "--name=x", "--filename="+d.Path, "--size=64m", "--rw=randwrite", "--bs=4k", "--direct=1", "--ioengine=libaio",
		"--iodepth=16", "--number_ios=5000", "--allow_file_create=0").CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	resume()
	if _, err := tr.Seal(t.Context()); !errors.Is(err, track.ErrLost) {
		t.Errorf("got %v, want ErrLost", err)
	}
	if err := tr.Release(1); err != nil {
		t.Fatal(err)
	}
	if _, err := tr.Seal(t.Context()); err != nil {
		t.Errorf("the next epoch: %v", err)
	}
}

// Reads overtake writes on this disk, which cannot be drained here: what was marked is reported until it is known to have landed.
func TestWritesInFlightAreNotMissed(t *testing.T) {
	m := machine(t)
	d := loopdisk.NewReordering(t, 8<<20, 20*time.Millisecond)
	tr := tracker(t, m, d)
	replica := make([]byte, d.Size())
	sync := func() {
		t.Helper()
		es, err := tr.Seal(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range es {
			if _, err := d.ReadAt(replica[e.Offset:e.End()], e.Offset); err != nil {
				t.Fatal(err)
			}
		}
		if err := tr.Release(tr.Epoch() - 1); err != nil {
			t.Fatal(err)
		}
	}
	out := make(chan error, 1)
	go func() {
		out <- exec.Command("fio", "--name=x", "--filename="+d.Path, "--size=8m", "--rw=randwrite", "--bs=4k", "--direct=1", "--ioengine=libaio",
			"--iodepth=8", "--time_based", "--runtime=2", "--refill_buffers", "--norandommap", "--allow_file_create=0").Run()
	}()
	for running := true; running; {
		select {
		case err := <-out:
			if err != nil {
				t.Fatal(err)
			}
			running = false
		default:
			sync()
		}
	}
	sync()
	now := make([]byte, d.Size())
	if _, err := d.ReadAt(now, 0); err != nil || !bytes.Equal(now, replica) {
		t.Errorf("a write was left out, or %v", err)
	}
}
