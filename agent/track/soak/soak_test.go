// Package soak_test writes to disks at random, for as long as LIFEBOAT_TRACK_SOAK says, kills the owner of their tracking, resizes
// them, and holds a copy that is kept by nothing but what the tracker says against the frozen disk.
package soak_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"strconv"
	"testing"
	"time"

	"github.com/lifeboat-dr/lifeboat/agent/track/tracktest/loopdisk"
)

const (
	size  = 320 << 20 // the least that xfs takes
	delay = 4 * time.Millisecond
)

var scenarios = []struct {
	name       string
	fs         string
	partition  bool
	reordering bool
}{
	{"raw", "", false, false},
	{"raw, reordering", "", false, true},
	{"ext4", "ext4", false, false},
	{"xfs, reordering", "xfs", false, true},
	{"btrfs on a partition", "btrfs", true, false},
	{"ext4 on a partition, reordering", "ext4", true, true},
	{"xfs on a partition", "xfs", true, false},
	{"btrfs, reordering", "btrfs", false, true},
}

// settings come from the environment: how long, and the seed of a run that is repeated.
func settings(t *testing.T) (long time.Duration, seed uint64) {
	t.Helper()
	long, seed = 5*time.Minute, rand.Uint64()
	var err error
	if s := os.Getenv("LIFEBOAT_TRACK_SOAK"); s != "" {
		if long, err = time.ParseDuration(s); err != nil {
			t.Fatalf("LIFEBOAT_TRACK_SOAK: %v", err)
		}
	}
	if s := os.Getenv("LIFEBOAT_CHAOS_SEED"); s != "" {
		if seed, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatalf("LIFEBOAT_CHAOS_SEED: %v", err)
		}
	}
	return long, seed
}

func TestNeverUnderReports(t *testing.T) {
	long, seed := settings(t)
	t.Logf("seed %d, %s, %d processors", seed, long, runtime.NumCPU())
	p := newProof(seed)
	var total tally
	end := time.Now().Add(long)
	proved := func() bool { // on a busy machine it takes longer, but not for ever
		n, of := p.caught(1e-4)
		return n == of || time.Since(end) > long*3/5
	}
	for n := 0; n < len(scenarios) || time.Now().Before(end) || !proved(); n++ {
		s := scenarios[n%len(scenarios)]
		stop := time.Now().Add(min(max(time.Until(end), long/5)/time.Duration(len(scenarios)-n%len(scenarios)), 2*time.Minute)) // with what it takes to begin
		ok := t.Run(s.name, func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, uint64(n)))
			d := loopdisk.New
			if s.reordering {
				d = func(t testing.TB, size int64) *loopdisk.Disk { return loopdisk.NewReordering(t, size, delay) }
			}
			at := &place{t: t, d: d(t, size)}
			if s.fs != "" {
				at.format(s.fs, s.partition)
				at.fill(rng)
			}
			got := soak(t, at, p, rng, stop)
			total.add(got)
			t.Logf("%s", got)
		})
		if !ok {
			break
		}
	}
	t.Logf("all: %s", total)
	t.Logf("%s", p)
	if n, of := p.caught(1e-4); n < of {
		t.Errorf("a tracker that loses one mark in 10,000 was caught in %d of %d seeds: the run is too short to prove anything", n, of)
	}
	if long >= time.Hour {
		if n, of := p.caught(1e-6); p.marks < 5_000_000 || n == 0 {
			t.Errorf("N = %d, and one mark in 1,000,000 was caught in %d of %d seeds: the run proves too little", p.marks, n, of)
		}
	}
}

// tally is what was done.
type tally struct {
	syncs, seals, kills, resizes, drained, unchecked, lost int
	copied                                                 int64
}

func (a *tally) add(b tally) {
	a.syncs += b.syncs
	a.seals += b.seals
	a.kills += b.kills
	a.resizes += b.resizes
	a.drained += b.drained
	a.unchecked += b.unchecked
	a.lost += b.lost
	a.copied += b.copied
}

func (a tally) String() string {
	return fmt.Sprintf("%d syncs equal to the frozen disk, %d epochs, %d of them drained, %d owners killed, %d resizes, %d epochs said to be lost, %d syncs unchecked, %d MiB copied",
		a.syncs, a.seals, a.drained, a.kills, a.resizes, a.lost, a.unchecked, a.copied>>20)
}

// soak syncs a disk under load again and again.
func soak(t *testing.T, at *place, p *proof, rng *rand.Rand, end time.Time) (got tally) {
	o := &owner{t: t, dir: t.TempDir(), device: at.d.Path}
	o.start()
	t.Cleanup(o.stop)
	thaw := at.freeze()
	r := newReplica(t, at.d, p)
	thaw()
	pass := func() {
		a := o.ask("seal")
		got.seals++
		switch {
		case o.anew:
			t.Log("an owner was killed while it followed a resize; the disk is copied as a whole")
			o.anew = false
			got.lost++
			r.load(r.bytes, 0)
		case a.Lost:
			t.Logf("an epoch was lost, and it was said: %s", a.Err)
			got.lost++
			r.load(r.bytes, 0)
		case a.Err != "":
			t.Fatal(a.Err)
		default:
			r.apply(a.Extents)
		}
	}
	release := func() {
		if a := o.ask("release"); a.Err != "" {
			t.Fatal(a.Err)
		}
	}
	for ; got.syncs == 0 || time.Now().Before(end); got.syncs++ {
		if at.mount == "" && rng.IntN(4) == 0 {
			if err := at.d.Resize(size + rng.Int64N(64)<<20 + rng.Int64N(3)*512); err != nil {
				t.Fatal(err)
			}
			r.resize()
			o.resizing = true
			got.resizes++
		}
		loads := rand.New(rand.NewPCG(rng.Uint64(), 0))
		done := make(chan error, 1)
		go func() { done <- at.load(loads, time.Duration(500+loads.IntN(1500))*time.Millisecond) }()
		var err error
		running := true
		for range 2 + rng.IntN(5) {
			switch {
			case rng.IntN(6) == 0:
				o.kill(func() { time.Sleep(time.Duration(rng.IntN(50)) * time.Millisecond) })
			case rng.IntN(8) == 0: // while it is sealing
				victim := o.cmd.Process
				after := time.AfterFunc(time.Duration(rng.IntN(2000))*time.Microsecond, func() { _ = victim.Kill() })
				pass()
				after.Stop()
			default:
				pass()
				if rng.IntN(2) == 0 {
					release()
				}
			}
			select {
			case err = <-done:
				running = false
			case <-time.After(time.Duration(rng.IntN(300)) * time.Millisecond):
			}
			if !running {
				break
			}
		}
		if running && at.mount == "" { // nothing freezes it
			err, running = <-done, false
		}
		thaw := at.freeze()
		pass()
		o.resizing = false
		a := o.ask("verify")
		switch {
		case a.Lost:
			t.Errorf("verify: %s", a.Err)
		case a.Err != "":
			got.unchecked++
		}
		if wrong := r.compare(); len(wrong) > 0 {
			t.Errorf("sync %d: %d blocks differ, the first ones %v", got.syncs, len(wrong), wrong[:min(len(wrong), 8)])
		}
		thaw()
		release()
		if running {
			err = <-done
		}
		if err != nil {
			t.Fatalf("load: %v", err)
		}
		if t.Failed() {
			break
		}
	}
	got.kills, got.copied = o.kills, r.read
	got.drained = int(o.sum.Drained + o.stats.Drained)
	return got
}
