package soak_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os/exec"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/lifeboat-dr/lifeboat/agent/track"
	"github.com/lifeboat-dr/lifeboat/agent/track/ebpf"
	"github.com/lifeboat-dr/lifeboat/agent/track/tracktest/loopdisk"
)

const (
	benchPairs = 10
	benchRun   = 1500 * time.Millisecond
	benchSeed  = 1
)

// BenchmarkTracker tells what tracking costs the machine that is tracked. Its goals are those of issue 4.
func BenchmarkTracker(b *testing.B) {
	for range b.N {
		cost(b)
		shipped(b)
		seals(b)
	}
}

// writes returns how many random 4 KiB writes a second the disk takes.
func writes(b *testing.B, path string) float64 {
	b.Helper()
	out, err := exec.Command("fio", "--name=bench", "--filename="+path, "--size=1g", "--rw=randwrite", "--bs=4k", "--direct=1", "--ioengine=libaio",
		"--iodepth=16", "--time_based", fmt.Sprintf("--runtime=%dms", benchRun.Milliseconds()), "--allow_file_create=0", "--output-format=json").Output()
	if err != nil {
		b.Fatal(err)
	}
	var report struct {
		Jobs []struct {
			Write struct {
				IOPS float64 `json:"iops"`
			} `json:"write"`
		} `json:"jobs"`
	}
	if err := json.Unmarshal(out, &report); err != nil || len(report.Jobs) != 1 {
		b.Fatalf("report of fio: %v: %s", err, out)
	}
	return report.Jobs[0].Write.IOPS
}

// quartiles sorts vs.
func quartiles[T float64 | time.Duration](vs []T) (low, median, high T) {
	slices.Sort(vs)
	return vs[len(vs)/4], vs[len(vs)/2], vs[len(vs)*3/4]
}

func verdict(ok bool) string {
	if ok {
		return "met"
	}
	return "MISSED"
}

// tracked runs with a tracker on the disk.
func tracked(b *testing.B, d *loopdisk.Disk, do func(*ebpf.Machine, *ebpf.Tracker)) {
	b.Helper()
	m, err := ebpf.Open(ebpf.Config{Dir: b.TempDir()})
	if err != nil {
		b.Fatal(err)
	}
	defer func() {
		if err := m.Destroy(); err != nil {
			b.Error(err)
		}
	}()
	t, _, err := m.Track(b.Context(), d.Path)
	if err != nil {
		b.Fatal(err)
	}
	do(m, t)
}

func cost(b *testing.B) {
	d := loopdisk.New(b, 1<<30)
	writes(b, d.Path) // the file behind it gets its blocks
	var ratios, with, without []float64
	var each []float64
	for pair := range benchPairs {
		var on, off float64
		run := func() {
			tracked(b, d, func(*ebpf.Machine, *ebpf.Tracker) { on = writes(b, d.Path) })
		}
		if pair%2 == 0 {
			run()
		}
		off = writes(b, d.Path)
		if pair%2 == 1 {
			run()
		}
		ratios, with, without = append(ratios, on/off), append(with, on), append(without, off)
		if pair%2 == 1 {
			continue
		}
		tracked(b, d, func(m *ebpf.Machine, _ *ebpf.Tracker) { // apart, because to measure costs something, too
			stop, err := ebpf.CountCost()
			if err != nil {
				b.Fatal(err)
			}
			writes(b, d.Path)
			c, err := m.Cost()
			if err != nil {
				b.Fatal(err)
			}
			if err := stop(); err != nil {
				b.Fatal(err)
			}
			each = append(each, float64(c.Time.Nanoseconds())/float64(c.Runs))
		})
	}
	low, median, high := quartiles(ratios)
	_, w, _ := quartiles(with)
	_, wo, _ := quartiles(without)
	b.Logf("random 4 KiB writes, 16 at once, %d pairs of %s in turns: %.0f a second tracked, %.0f not (medians); median of the ratios %.3f, quartiles %.3f and %.3f",
		benchPairs, benchRun, w, wo, median, low, high)
	low, median, high = quartiles(each)
	b.Logf("kernel's own statistics: %.0f ns an event, quartiles %.0f and %.0f   goal < 100   %s", median, low, high, verdict(median < 100))
}

// shipped compares what is reported, and so read and at most sent, with what was changed.
func shipped(b *testing.B) {
	const blocks = 20_000
	d := loopdisk.New(b, 1<<30)
	rng := rand.New(rand.NewPCG(benchSeed, 0))
	tracked(b, d, func(_ *ebpf.Machine, t *ebpf.Tracker) {
		distinct, large := map[int64]bool{}, map[int64]bool{}
		p := make([]byte, 4096)
		for i := range blocks {
			at := rng.Int64N(d.Size() / 4096)
			distinct[at], large[at/16] = true, true
			p[0], p[1], p[2] = byte(i), byte(i>>8), 1
			if _, err := d.WriteAt(p, at*4096); err != nil {
				b.Fatal(err)
			}
		}
		es, err := t.Seal(b.Context())
		if err != nil {
			b.Fatal(err)
		}
		changed := float64(len(distinct) * 4096)
		ratio := float64(track.Bytes(es)) / changed
		b.Logf("%d random 4 KiB writes on 1 GiB, seed %d: %.1f MiB changed, reported %.3f times that   goal <= 1.3   %s", blocks, benchSeed, changed/(1<<20), ratio, verdict(ratio <= 1.3))
		b.Logf("with a granule of 64 KiB it would have been read %.1f times, to ship the same", float64(len(large)*(64<<10))/changed)
	})
}

// seals measures the part of the freeze window that is the tracker's.
func seals(b *testing.B) {
	const rounds = 200
	for _, size := range []int64{1 << 30, 128 << 30} {
		d := loopdisk.New(b, size)
		rng := rand.New(rand.NewPCG(benchSeed, 0))
		tracked(b, d, func(_ *ebpf.Machine, t *ebpf.Tracker) {
			var took []time.Duration
			for range rounds {
				for range 50 {
					if _, err := d.WriteAt(make([]byte, 4096), rng.Int64N(size/4096)*4096); err != nil {
						b.Fatal(err)
					}
				}
				start := time.Now()
				if _, err := t.Seal(b.Context()); err != nil {
					b.Fatal(err)
				}
				if err := t.Verify(true); err != nil {
					b.Fatal(err)
				}
				took = append(took, time.Since(start))
				if err := t.Release(t.Epoch() - 1); err != nil {
					b.Fatal(err)
				}
			}
			_, median, _ := quartiles(took)
			b.Logf("seal and verify a disk of %d GiB at rest, 50 blocks marked: median %s, p99 %s of %d", size>>30, median, took[rounds*99/100], rounds)
		})
	}
	many(b)
}

// many seals 16 disks at once.
func many(b *testing.B) {
	const disks, rounds = 16, 50
	m, err := ebpf.Open(ebpf.Config{Dir: b.TempDir()})
	if err != nil {
		b.Fatal(err)
	}
	defer func() {
		if err := m.Destroy(); err != nil {
			b.Error(err)
		}
	}()
	var ts []*ebpf.Tracker
	for range disks {
		t, _, err := m.Track(b.Context(), loopdisk.New(b, 1<<30).Path)
		if err != nil {
			b.Fatal(err)
		}
		ts = append(ts, t)
	}
	var took []time.Duration
	for range rounds {
		start := time.Now()
		var wg sync.WaitGroup
		for _, t := range ts {
			wg.Go(func() {
				if _, err := t.Seal(b.Context()); err != nil {
					b.Error(err)
				}
				if err := t.Verify(true); err != nil {
					b.Error(err)
				}
			})
		}
		wg.Wait()
		took = append(took, time.Since(start))
		for _, t := range ts {
			if err := t.Release(t.Epoch() - 1); err != nil {
				b.Fatal(err)
			}
		}
	}
	_, median, _ := quartiles(took)
	b.Logf("seal and verify %d disks of 1 GiB at once: median %s, p99 %s of %d", disks, median, took[rounds*99/100], rounds)
}
