package kernel

import (
	"errors"
	"log/slog"
	"testing"

	"github.com/lifeboat-dr/lifeboat/agent/source"
	"github.com/lifeboat-dr/lifeboat/agent/track/ebpf"
	"github.com/lifeboat-dr/lifeboat/agent/track/tracktest/loopdisk"
	"github.com/lifeboat-dr/lifeboat/sdk/fleet"
)

// What is chosen for a disk, and that it sees a write.
func TestTheBestTrackerIsChosen(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*Trackers, *source.Disk) error
		kind   string
		bytes  int64
	}{
		"the programs, where they run":           {func(*Trackers, *source.Disk) error { return nil }, "ebpf", 4096},
		"trace events on a kernel without types": {func(k *Trackers, _ *source.Disk) error { return k.fallBack(ebpf.ErrUnsupported) }, "tracefs", 4096},
		"a scan where the kernel has neither":    {func(k *Trackers, _ *source.Disk) error { k.without = errors.New("no"); return nil }, "scan", 16 << 20},
		"a scan of an image file":                {func(_ *Trackers, d *source.Disk) error { d.File = true; return nil }, "scan", 16 << 20},
		"a scan of a partition":                  {func(_ *Trackers, d *source.Disk) error { d.Partition = true; return nil }, "scan", 16 << 20},
	} {
		t.Run(name, func(t *testing.T) {
			k := New(t.TempDir(), slog.New(slog.DiscardHandler))
			t.Cleanup(func() {
				if err := errors.Join(k.Close(), k.Destroy()); err != nil && k.without == nil {
					t.Error(err)
				}
			})
			disk := loopdisk.New(t, 16<<20)
			d := source.Disk{Disk: fleet.Disk{Id: "d", Path: disk.Path, SizeBytes: disk.Size(), SectorSize: 512}}
			if err := c.change(k, &d); err != nil {
				t.Fatal(err)
			}
			tr, err := k.Open(t.Context(), "machine", d)
			if err != nil {
				t.Fatal(err)
			}
			if tr.Kind != c.kind || !tr.Since && tr.Untracked == "" {
				t.Errorf("got %+v, want %s", tr, c.kind)
			}
			if _, err := disk.WriteAt(make([]byte, 4096), 8192); err != nil {
				t.Fatal(err)
			}
			es, err := tr.Seal(t.Context())
			if err != nil || len(es) != 1 || es[0].Length != c.bytes {
				t.Errorf("got %v and %v", es, err)
			}
			if err := tr.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}
