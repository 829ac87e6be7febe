package worker

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"gocloud.dev/blob"

	"github.com/lifeboat-dr/lifeboat/replicator/faultbucket/faulttest"
	"github.com/lifeboat-dr/lifeboat/replicator/repo"
	"github.com/lifeboat-dr/lifeboat/service/job"
)

// faultCase is a task, or several one after another, that meets faults.
type faultCase struct {
	least   int              // bucket calls
	prepare func(*faultRig)  // before there are faults
	tasks   func() []taskRun // in order; the first that fails ends the run
	// heals says that a write which is damaged once is noticed and done again.
	heals bool
	// gone tells which points a task may have removed, whether or not it failed.
	gone func(*faultRig, repo.PointRef) bool
	// check looks at what the last task brought about when all succeeded.
	check func(f *faultRig, out json.RawMessage)
}

type taskRun struct {
	kind    string
	payload any
}

func one(kind string, payload any) func() []taskRun {
	return func() []taskRun { return []taskRun{{kind, payload}} }
}

func decodeOutput[T any](f *faultRig, raw json.RawMessage) (out T) {
	f.t.Helper()
	f.ok(json.Unmarshal(raw, &out))
	return out
}

var (
	faultMachine = job.Machine{VaultID: "v", MachineID: "m"}
	faultNewest  = job.PointRef{Generation: 1, Sequence: 3}
	faultSpec    = job.Hardware{Name: "m", OSDisk: "a", Disks: []string{"a", "b"}}
)

func closeFirst(f *faultRig) {
	f.t.Helper()
	_, err := f.vault.Repository.CloseGeneration(f.t.Context(), "m", 1, "failover")
	f.ok(err)
}

// started checks what was booted: nothing ever runs on other bytes than the point's.
func started(f *faultRig, _ json.RawMessage) {
	f.t.Helper()
	if len(f.booted) == 0 {
		f.t.Error("the task succeeded and nothing runs")
	}
}

var faultCases = map[string]faultCase{
	"open a generation": {least: 8, prepare: closeFirst,
		tasks: one(job.KindGenerationOpen, job.GenerationOpen{Machine: faultMachine, Generation: 2, Base: &faultNewest}),
		check: func(f *faultRig, _ json.RawMessage) {
			gens, err := f.open().Generations(f.t.Context(), "m")
			if f.run.Damages() && errors.Is(err, repo.ErrCorrupt) {
				return
			}
			if err != nil || len(gens) != 2 || gens[1].Base == nil || *gens[1].Base != f.newest {
				f.t.Errorf("generations: got %+v, %v, want two, the second on %v", gens, err, f.newest)
			}
		}},
	"close a generation": {least: 6,
		tasks: one(job.KindGenerationClose, job.GenerationClose{Machine: faultMachine, Generation: 1, Reason: "failover"}),
		check: func(f *faultRig, raw json.RawMessage) {
			if out := decodeOutput[job.GenerationClosed](f, raw); out.Last == nil || *out.Last != faultNewest {
				f.t.Errorf("got the last point %v, want %v", out.Last, faultNewest)
			}
			gens, err := f.open().Generations(f.t.Context(), "m")
			if !f.run.Damages() && (err != nil || !gens[0].Closed) {
				f.t.Errorf("generations: got %+v, %v, want it closed", gens, err)
			}
			w, err := f.open().NewWriter(f.t.Context(), "m", 1, faultDisks, repo.WriterOptions{})
			if err == nil {
				_ = w.Close()
				f.t.Error("a closed generation took a writer")
			}
		}},
	"pin": {least: 5, tasks: one(job.KindPointPin, job.PointPin{Machine: faultMachine, Point: job.PointRef{Generation: 1, Sequence: 1}, Owner: "drill"}),
		check: func(f *faultRig, _ json.RawMessage) { f.pins(1) }},
	"unpin": {least: 1, tasks: one(job.KindPointUnpin, job.PointPin{Machine: faultMachine, Point: faultNewest, Owner: "drill"}),
		prepare: func(f *faultRig) { f.ok(f.vault.Repository.Pin(f.t.Context(), "m", f.newest, "drill")) },
		check:   func(f *faultRig, _ json.RawMessage) { f.pins(0) }},
	"verify": {least: 5, tasks: one(job.KindPointVerify, job.PointVerify{Machine: faultMachine, Point: faultNewest}),
		check: func(f *faultRig, raw json.RawMessage) {
			out := decodeOutput[job.PointVerified](f, raw)
			if out.BadDisk != "" && (!f.run.Flips() || out.BadBytes <= 0) || out.BadDisk == "" && out.Bytes == 0 {
				f.t.Errorf("got %+v", out)
			}
		}},
	"prune": {least: 25, heals: true, tasks: func() []taskRun {
		now := time.Now().Add(30 * 24 * time.Hour)
		var out []taskRun
		for _, later := range []time.Duration{0, 2 * time.Hour} { // points first, when the grace is over their data
			out = append(out, taskRun{job.KindRepositoryPrune, job.Prune{Machine: faultMachine, Retention: time.Hour, Now: now.Add(later)}})
		}
		return out
	},
		gone: func(f *faultRig, ref repo.PointRef) bool { return ref != f.newest },
		check: func(f *faultRig, _ json.RawMessage) {
			points, err := f.open().Points(f.t.Context(), "m")
			if !f.damaged() && (err != nil || len(points) != 1 || points[0].PointRef != f.newest) {
				f.t.Errorf("points: got %+v, %v, want the newest alone", points, err)
			}
		}},
	"delete a machine": {least: 15, tasks: one(job.KindMachineDelete, job.MachineDelete{Machine: faultMachine}),
		gone: func(*faultRig, repo.PointRef) bool { return true },
		check: func(f *faultRig, _ json.RawMessage) {
			for _, key := range f.keys("vaults/v/") {
				if !f.run.Lasts() { // a list that is never right hides something for ever
					f.t.Errorf("%s is left of the machine", key)
				}
			}
		}},
	"report": {least: 8, tasks: one(job.KindRepositoryReport, job.RepositoryReport{Machine: faultMachine}),
		check: func(f *faultRig, _ json.RawMessage) {
			if len(f.index) != len(f.points) && (!f.run.Flips() || !f.run.Lasts()) { // what never verifies is no point
				f.t.Errorf("the index was told %d points, want %d", len(f.index), len(f.points))
			}
		}},
	"export": {least: 6, tasks: func() []taskRun { return nil }}, // its directory is the rig's; see run
	"start from served disks": {least: 6, check: started,
		tasks: one(job.KindInstanceStart, job.InstanceStart{Machine: faultMachine, InstanceID: "i", Point: faultNewest, Hardware: faultSpec})},
	"start from copied disks": {least: 6, check: started,
		tasks: one(job.KindInstanceStart, job.InstanceStart{Machine: faultMachine, InstanceID: "i", Point: faultNewest, Hardware: faultSpec, Copied: true})},
	"capture": {least: 12, tasks: one(job.KindInstanceCapture, job.InstanceCapture{Machine: faultMachine, InstanceID: "i", Generation: 2}),
		prepare: func(f *faultRig) {
			closeFirst(f)
			f.ok(f.vault.Repository.OpenGeneration(f.t.Context(), "m", 2, &f.newest))
			f.off = cloneDisks(f.points[f.newest])
			copy(f.off["a"][20<<10:], bytes.Repeat([]byte("changed after the failover"), 400))
			clear(f.off["b"][:8<<10])
		},
		check: func(f *faultRig, raw json.RawMessage) {
			f.points[ref(decodeOutput[job.Captured](f, raw).Point)] = cloneDisks(f.off)
			f.intact("captured", nil)
		}},
	"write back": {least: 6, tasks: one(job.KindHomeWriteback, job.HomeWriteback{HomeMachine: job.HomeMachine{Machine: faultMachine}, Point: faultNewest}),
		prepare: func(f *faultRig) {
			f.home = f.t.TempDir()
			for id, b := range f.points[repo.PointRef{Generation: 1, Sequence: 1}] { // the home disks are two points behind
				f.ok(os.WriteFile(filepath.Join(f.home, id), b, 0o600))
			}
		},
		check: func(f *faultRig, _ json.RawMessage) {
			f.same("home", f.files(f.home, func(id string) string { return id }), f.points[f.newest])
		}},
}

// pins counts the pins in the bucket.
func (f *faultRig) pins(want int) {
	f.t.Helper()
	if got := f.keys("vaults/v/pins/"); len(got) != want {
		f.t.Errorf("got the pins %q, want %d", got, want)
	}
}

func (f *faultRig) keys(prefix string) (keys []string) {
	f.t.Helper()
	for it := f.bucket.List(&blob.ListOptions{Prefix: prefix}); ; {
		o, err := it.Next(f.t.Context())
		if errors.Is(err, io.EOF) {
			return keys
		}
		f.ok(err)
		keys = append(keys, o.Key)
	}
}

// TestEveryBucketCallOfATaskMayFail meets every bucket call of every kind of task that makes some with every kind of fault. A
// task that fails says so in a way that can be acted upon and leaves every point as it was; run again, as it is when the
// worker's lease ends, it gets through; nothing is ever started from bytes that are not the point's.
func TestEveryBucketCallOfATaskMayFail(t *testing.T) {
	t.Parallel()
	points := newFaultPoints(t)
	for name, c := range faultCases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			faulttest.EveryCall(t, c.least, func(t *testing.T, run *faulttest.Run) { c.meet(newFaultRig(t, run, points), name) })
		})
	}
}

func (c faultCase) meet(f *faultRig, name string) {
	f.t.Helper()
	if c.prepare != nil {
		c.prepare(f)
		f.vault.Repository = f.open()
	}
	tasks := c.tasks()
	if name == "export" {
		dir := filepath.Join(f.dir, "out")
		tasks = []taskRun{{job.KindPointExport, job.PointExport{Machine: faultMachine, Point: faultNewest, Format: job.FormatRaw, Directory: dir}}}
		c.check = func(f *faultRig, _ json.RawMessage) {
			f.same("export", f.files(dir, func(id string) string { return id + ".raw" }), f.points[f.newest])
		}
	}
	var gone func(repo.PointRef) bool
	if c.gone != nil {
		gone = func(r repo.PointRef) bool { return c.gone(f, r) }
	}
	all := func() (out json.RawMessage, err error) {
		for _, x := range tasks {
			if out, err = f.do(x.kind, x.payload); err != nil {
				return nil, err
			}
		}
		return out, nil
	}
	f.heals = c.heals
	f.run.Arm()
	out, err := all()
	f.run.Disarm()
	if err != nil && f.run.Counts() {
		f.t.Fatal(err)
	}
	f.clean(err)
	f.intact(fmt.Sprintf("after %v", err), gone)
	if err == nil {
		c.check(f, out)
	}
	f.vault.Repository = f.open()
	if out, err = all(); err == nil {
		c.check(f, out)
	} else if !f.damaged() {
		f.t.Errorf("the task run again: %v", err)
	} else {
		f.clean(err)
	}
	f.intact("after the task ran again", gone)
	for _, guest := range f.booted {
		f.same("a machine was started", guest, f.points[f.newest])
	}
}
