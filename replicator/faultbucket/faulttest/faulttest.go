// Package faulttest owns the loop with which a test meets every bucket call of a piece of work with every kind of fault.
//
// The work runs once to count its calls, then once for each call and kind of fault: the fault hits that call alone, or that
// call and all later ones of its kind. It never judges what the work did, only that the faults were met.
package faulttest

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"testing"
	"testing/synctest"

	"gocloud.dev/blob"

	"github.com/lifeboat-dr/lifeboat/replicator/faultbucket"
)

// faults are what every call meets, as far as they apply to it. Bits flip on the way out of the bucket or on the way in: only
// the latter damages what is stored.
var faults = []faultbucket.Fault{
	{Kind: faultbucket.ErrorBefore},
	{Kind: faultbucket.ErrorAfter},
	{Kind: faultbucket.TornRead},
	{Kind: faultbucket.ShortRead},
	{Kind: faultbucket.FlippedBit, Op: faultbucket.Read},
	{Kind: faultbucket.FlippedBit, Op: faultbucket.Write},
	{Kind: faultbucket.StaleList},
	{Kind: faultbucket.Full},
}

// Run is one run of the work. In the first one, which counts, there is no fault.
type Run struct {
	plan  *faultbucket.Plan
	fault faultbucket.Fault
	calls []faultbucket.Call // between Arm and Disarm
	from  int
}

// Bucket puts the run's faults over a bucket; closing it leaves the one beneath open. A run may have several buckets; their calls
// count together.
func (r *Run) Bucket(inner *blob.Bucket) *blob.Bucket { return faultbucket.Share(inner, r.plan) }

// Fill copies every object of from into a bucket of the run, which is quicker than making them anew in each run. They count as
// written by it, in the order of their names.
func (r *Run) Fill(t *testing.T, to, from *blob.Bucket) {
	t.Helper()
	for it := from.List(nil); ; {
		o, err := it.Next(t.Context())
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		p, err := from.ReadAll(t.Context(), o.Key)
		if err == nil {
			err = to.WriteAll(t.Context(), o.Key, p, &blob.WriterOptions{ContentType: "application/octet-stream"})
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// Arm begins the part of the work whose calls meet faults: what was called before is preparation. It is called once.
func (r *Run) Arm() {
	r.from = len(r.plan.Calls())
	if r.fault.Kind != "" {
		r.plan.Add(r.fault)
	}
}

// Disarm ends that part, so that the work can look at what the fault left.
func (r *Run) Disarm() {
	r.calls = r.plan.Calls()[r.from:]
	r.plan.Disarm()
}

// Counts tells that this is the run without a fault: nothing may go wrong in it.
func (r *Run) Counts() bool { return r.fault.Kind == "" }

// Kind is what goes wrong; empty in the run that counts.
func (r *Run) Kind() faultbucket.Kind { return r.fault.Kind }

// Lasts tells that the fault hits all calls from its first one to Disarm.
func (r *Run) Lasts() bool { return r.fault.Times < 0 }

// Flips tells that bits flip, in what is read or in what is stored: "corrupt" is a right answer.
func (r *Run) Flips() bool { return r.fault.Kind == faultbucket.FlippedBit }

// Damages tells that stored objects may hold wrong bits. After other faults, whatever they were, all that was acknowledged
// must be readable once the run is disarmed.
func (r *Run) Damages() bool { return r.Flips() && r.fault.Op == faultbucket.Write }

func (r *Run) String() string {
	if r.Counts() {
		return "no fault"
	}
	s := fmt.Sprintf("%s at call %d of its kind", r.fault.Kind, r.fault.Nth)
	if r.Lasts() {
		s += " and later"
	}
	return s
}

// EveryCall meets every bucket call of work, which makes at least least calls, with every fault that can do something to it. Each run is
// in a synctest bubble: waiting between tries takes no time, and no goroutine may be left behind.
func EveryCall(t *testing.T, least int, work func(t *testing.T, run *Run)) {
	t.Helper()
	count := &Run{plan: faultbucket.New(1)}
	inBubble(t, count, work)
	if t.Failed() {
		t.Fatal("without a fault")
	}
	if len(count.calls) < least {
		t.Fatalf("the work makes %d bucket calls, want %d or more", len(count.calls), least)
	}
	t.Logf("%d bucket calls", len(count.calls))
	for _, f := range faults {
		sites := count.sites(f)
		if len(sites) == 0 {
			continue
		}
		for _, times := range []int{1, -1} {
			f.Times = times
			t.Run(name(f), func(t *testing.T) {
				t.Parallel()
				hits := 0
				for _, nth := range sites {
					run := &Run{plan: faultbucket.New(uint64(nth)), fault: f}
					run.fault.Times, run.fault.Nth = times, nth
					inBubble(t, run, work)
					if run.plan.Hits(f.Kind) > 0 {
						hits++
					} else if unavoidable(f.Kind) {
						t.Errorf("the fault was never met")
					}
					if t.Failed() {
						t.Fatal(run)
					}
				}
				t.Logf("%d runs, %d met the fault", len(sites), hits)
				if hits == 0 {
					t.Error("no run met its fault")
				}
			})
		}
	}
}

func inBubble(t *testing.T, run *Run, work func(*testing.T, *Run)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { work(t, run) })
}

func name(f faultbucket.Fault) string {
	s := string(f.Kind)
	if f.Op != "" {
		s = fmt.Sprintf("%s in %s", s, f.Op)
	}
	if f.Times < 0 {
		s += " for good"
	}
	return s
}

// sites returns which of the calls that a fault applies to it can have an effect on, the first being 1: nothing tears or flips in
// a read of what is not there.
func (r *Run) sites(f faultbucket.Fault) (sites []int) {
	nth := 0
	for i, c := range r.calls {
		if !slices.Contains(f.Kind.Ops(), c.Op) || f.Op != "" && f.Op != c.Op {
			continue
		}
		nth++
		if c.Op != faultbucket.Read || f.Kind == faultbucket.ErrorBefore || r.plan.HadBody(r.from+i) {
			sites = append(sites, nth)
		}
	}
	return sites
}

// unavoidable tells whether a fault of the kind has an effect on every call. Others need something to work on: a body, a key
// that is new, a call that succeeded.
func unavoidable(k faultbucket.Kind) bool {
	return k == faultbucket.ErrorBefore || k == faultbucket.Full
}
