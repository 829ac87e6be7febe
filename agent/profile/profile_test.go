package profile_test

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/lifeboat-dr/lifeboat/agent/profile"
	"github.com/lifeboat-dr/lifeboat/agent/source"
	"github.com/lifeboat-dr/lifeboat/agent/track"
	"github.com/lifeboat-dr/lifeboat/agent/track/kernel"
	"github.com/lifeboat-dr/lifeboat/agent/track/scan"
	"github.com/lifeboat-dr/lifeboat/agent/track/tracktest/loopdisk"
	"github.com/lifeboat-dr/lifeboat/replicator/block"
)

const mib = 1 << 20

func disk(t *testing.T, path string) source.Disk {
	t.Helper()
	d, err := source.Disks(source.Config{Disks: []source.Named{{ID: "d", Path: path}}})
	if err != nil {
		t.Fatal(err)
	}
	return d[0]
}

// start watches a disk with the kernel's tracker.
func start(t *testing.T, cfg profile.Config, path string) *profile.Profile {
	t.Helper()
	dir := t.TempDir()
	trackers := kernel.New(dir, slog.New(slog.NewTextHandler(t.Output(), nil)))
	d := disk(t, path)
	tracked, err := trackers.Open(t.Context(), "profile", d)
	if err != nil {
		t.Fatal(err)
	}
	if tracked.Whole {
		t.Fatal("the disk cannot be tracked: this test needs root and a kernel with BTF")
	}
	p, err := profile.Start(t.Context(), cfg, d, tracked, dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(p.Close(), tracked.Close(), trackers.Destroy()); err != nil {
			t.Error(err)
		}
	})
	return p
}

func report(t *testing.T, p *profile.Profile) profile.Report {
	t.Helper()
	r, err := p.Report()
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// half returns n bytes of which half are noise: the first half of each KiB.
func half(n int) []byte {
	b := make([]byte, n)
	for i := 0; i < n; i += 1024 {
		rand.Read(b[i : i+512])
	}
	return b
}

// within tells whether got is want, but for a share.
func within(got, want, share float64) bool { return math.Abs(got-want) <= share*want }

// In each epoch 4 MiB at the same place are written twice, and 1 MiB of zeros at a new place once.
func TestAKnownPatternIsFound(t *testing.T) {
	t.Parallel()
	d := loopdisk.New(t, 256*mib)
	p := start(t, profile.Config{Every: time.Second, PointEvery: 4 * time.Second, SampleBytes: 8 * mib}, d.Path)
	const epochs = 8
	for i := range epochs {
		for range 2 {
			if _, err := d.WriteAt(half(4*mib), 16*mib); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := d.WriteAt(make([]byte, mib), int64(32+2*i)*mib); err != nil {
			t.Fatal(err)
		}
		if err := p.Step(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	r := report(t, p)
	if r.Written == nil || r.Written.Bytes != epochs*9*mib {
		t.Errorf("got %+v written, want %d bytes", r.Written, epochs*9*mib)
	}
	// A tracker may report a little more than was written.
	if got := float64(r.Changed.Bytes); got < epochs*5*mib || !within(got, epochs*5*mib, 0.02) {
		t.Errorf("got %d bytes changed, want %d", r.Changed.Bytes, epochs*5*mib)
	}
	if r.Changed.BytesPerSecond <= 0 || !within(float64(r.Changed.BytesPerSecond)*r.Seconds, float64(r.Changed.Bytes), 0.01) || r.Changed.Peak < r.Changed.P95 || r.Changed.P95 < r.Changed.BytesPerSecond/2 {
		t.Errorf("got rates %+v in %v s", r.Changed, r.Seconds)
	}
	// 5 of 9 MiB are left of an epoch; of four epochs, 4 and 4 of 36.
	if len(r.Intervals) != 2 || r.Intervals[0].Seconds != 1 || r.Intervals[1].Seconds != 4 {
		t.Fatalf("got intervals %+v, want those of one and four epochs, and none that was not complete", r.Intervals)
	}
	for i, left := range []float64{5. / 9, 8. / 36} {
		if got, want := *r.Intervals[i].RewrittenPercent, 100*(1-left); math.Abs(got-want) > 1 {
			t.Errorf("got %.1f %% written again in %v s, want %.1f", got, r.Intervals[i].Seconds, want)
		}
	}
	if c := r.Content; c.SampledBytes != r.Changed.Bytes || math.Abs(*c.ZeroPercent-20) > 1 || !within(*c.Compression, 2, 0.05) {
		t.Errorf("got content of %d bytes, %.1f %% zeros, 1/%.2f; want %d, 20 %% and 1/2", c.SampledBytes, *c.ZeroPercent, *c.Compression, r.Changed.Bytes)
	}
	// Between points 8 MiB change, of which 4 MiB are zeros and 4 MiB compress to half.
	days := r.Seconds / 86400 / 2 // in which a point's worth was written
	if s := r.Storage; !within(float64(s.ChangedBytesPerDay), 8*mib/days, 0.03) || !within(float64(*s.StoredBytesPerDay), 2*mib/days, 0.08) {
		t.Errorf("got %d and %d a day, want %.0f and %.0f", s.ChangedBytesPerDay, *s.StoredBytesPerDay, 8*mib/days, 2*mib/days)
	}
	if r.Tracker != "ebpf" || r.SizeBytes != 256*mib || r.LostEpochs != 0 {
		t.Errorf("got %+v", r)
	}
}

func TestSamplesStandForTheWhole(t *testing.T) {
	t.Parallel()
	d := loopdisk.New(t, 128*mib)
	p := start(t, profile.Config{SampleBytes: 4 * mib}, d.Path)
	// A quarter is zeros, a quarter noise, and the rest text: in runs longer than a sample's pieces.
	text := []byte(strings.Repeat("the quick brown fox jumps over the lazy dog. ", mib/45+1)[:mib])
	for i := range 64 {
		b := text
		switch i % 4 {
		case 0:
			b = make([]byte, mib)
		case 1:
			b = make([]byte, mib)
			rand.Read(b)
		}
		if _, err := d.WriteAt(b, int64(i)*mib); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.Step(t.Context()); err != nil {
		t.Fatal(err)
	}
	c := report(t, p).Content
	// One place in each MiB: 16 of 64 are in zeros, 16 in noise, 32 in text that takes nearly nothing, but for pieces that lie
	// across borders.
	if c.SampledBytes > 4*mib || c.SampledBytes < 3*mib || !within(*c.ZeroPercent, 25, 0.2) || !within(*c.Compression, 3, 0.25) {
		t.Errorf("got %d bytes, %.1f %% zeros, 1/%.2f; want at most 4 MiB, 25 %% and 1/3", c.SampledBytes, *c.ZeroPercent, *c.Compression)
	}
}

// A writer of 20 MB/s, watched until somebody interrupts.
func TestWatchingEndsWhenItIsInterrupted(t *testing.T) {
	t.Parallel()
	d := loopdisk.New(t, 64*mib)
	started := time.Now()
	p := start(t, profile.Config{Every: time.Second, Bandwidths: []int64{1 << 14, 1 << 40}}, d.Path)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	done := make(chan error, 1)
	begun := time.Now()
	go func() { done <- p.Watch(ctx, 0) }()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	var written int64
	for time.Since(begun) < 3*time.Second {
		<-tick.C
		if _, err := d.WriteAt(half(mib), written%(64*mib)); err != nil {
			t.Fatal(err)
		}
		written += mib
	}
	least := time.Since(begun)
	stop()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	most := time.Since(started)
	r := report(t, p)
	if r.Written.Bytes != written || r.Seconds < least.Seconds() || r.Seconds > most.Seconds() || !within(float64(r.Written.BytesPerSecond), float64(written)/r.Seconds, 0.01) {
		t.Errorf("got %+v in %v s, want %d bytes in %v to %v", r.Written, r.Seconds, written, least, most)
	}
	if slow, fast := r.Links[0], r.Links[1]; slow.RPOSeconds != nil || slow.UsedPercent <= 100 || fast.RPOSeconds == nil || !within(*fast.RPOSeconds, 300, 0.01) {
		t.Errorf("got %+v and %+v, want 16 KiB a second to be too little and a TiB enough for 5 minutes", slow, fast)
	}
	var text strings.Builder
	if err := r.WriteText(&text); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{d.Path + ", 67.1 MB", "by ebpf", "16.4 kB/s", "grows without end", "5m0s", "RPO WITH A POINT EVERY 5m0s"} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("no %q in\n%s", want, text.String())
		}
	}
}

// image is a file that is watched by reading it.
func image(t *testing.T, size int64) (string, *os.File) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "image")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	return path, f
}

func TestADiskThatCannotBeTrackedIsRead(t *testing.T) {
	t.Parallel()
	path, f := image(t, 32*mib)
	d, dir := disk(t, path), t.TempDir()
	tracked := track.Tracked{Tracker: scan.NewTracker(d.SizeBytes), Kind: "scan", Whole: true}
	p, err := profile.Start(t.Context(), profile.Config{PointEvery: 10 * time.Second}, d, tracked, dir)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 2 {
		for _, off := range []int64{0, 5 * mib, 20*mib + int64(i)*block.Size} { // what two epochs have in common counts once in both
			if _, err := f.WriteAt(half(block.Size), off); err != nil {
				t.Fatal(err)
			}
		}
		if err := p.Step(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	r := report(t, p)
	if r.Written != nil || r.Changed.Bytes != 6*block.Size || len(r.Intervals) != 2 || r.Intervals[0].RewrittenPercent != nil || r.Tracker != "scan" {
		t.Errorf("got %+v", r)
	}
	if got, want := float64(r.Intervals[1].BytesPerSecond)*r.Seconds, 4.*block.Size; !within(got, want, 0.05) {
		t.Errorf("got %.0f bytes in both epochs together, want %.0f", got, want)
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// unsure is a tracker that loses its second epoch.
type unsure struct{ *scan.Tracker }

func (u unsure) Seal(ctx context.Context) ([]block.Extent, error) {
	n := u.Epoch()
	if _, err := u.Tracker.Seal(ctx); err != nil || n == 3 { // the first one ends with Start
		return nil, errors.Join(err, track.ErrLost)
	}
	return []block.Extent{{Offset: 0, Length: mib}}, nil
}

func TestEpochsThatWereLostAreLeftOut(t *testing.T) {
	t.Parallel()
	path, _ := image(t, 4*mib)
	d := disk(t, path)
	p, err := profile.Start(t.Context(), profile.Config{Every: time.Second, PointEvery: 2 * time.Second}, d, track.Tracked{Tracker: unsure{scan.NewTracker(d.SizeBytes)}, Kind: "ebpf"}, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = p.Close() }()
	for range 4 {
		if err := p.Step(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	r := report(t, p)
	// Of four epochs the second was lost, so only the third and the fourth make an interval of two.
	if r.LostEpochs != 1 || r.Changed.Bytes != 3*mib || len(r.Intervals) != 2 || r.Intervals[1].BytesPerSecond <= 0 {
		t.Errorf("got %+v", r)
	}
}
