package worker

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"gocloud.dev/blob"
	"gocloud.dev/blob/memblob"

	"github.com/lifeboat-dr/lifeboat/replicator/block"
	"github.com/lifeboat-dr/lifeboat/replicator/compute"
	"github.com/lifeboat-dr/lifeboat/replicator/faultbucket"
	"github.com/lifeboat-dr/lifeboat/replicator/faultbucket/faulttest"
	"github.com/lifeboat-dr/lifeboat/replicator/repo"
	"github.com/lifeboat-dr/lifeboat/replicator/restore"
	"github.com/lifeboat-dr/lifeboat/service/job"
	"github.com/lifeboat-dr/lifeboat/service/queue"
)

// faultDisks are the machine's disks.
var faultDisks = []repo.DiskInfo{{ID: "a", Size: 64<<10 + block.Sector, OS: true}, {ID: "b", Size: 32 << 10}}

// faultRig is a machine with three points in a bucket with faults, and tasks that work on it as a replicator's do. It plays the
// parts around the tasks: the vaults, the index, a hypervisor and a production machine at home.
type faultRig struct {
	t      *testing.T
	run    *faulttest.Run
	inner  *blob.Bucket // without faults
	bucket *blob.Bucket
	vault  *Vault
	tasks  *Tasks
	points map[repo.PointRef]stoppedDisks // what each point holds
	newest repo.PointRef
	dir    string

	heals  bool         // the task does a damaged write again
	index  []repo.Point // the last complete list
	booted []stoppedDisks
	home   string // directory of the home machine's images
	off    stoppedDisks
}

// faultPoints is a machine with three points in a bucket: what each run begins with.
type faultPoints struct {
	bucket *blob.Bucket
	points map[repo.PointRef]stoppedDisks // what each point holds
	newest repo.PointRef
}

// newFaultPoints makes the points a minute apart, at the time that every bubble begins at.
func newFaultPoints(t *testing.T) *faultPoints {
	t.Helper()
	b := memblob.OpenBucket(nil)
	t.Cleanup(func() { b.Close() })
	f := &faultPoints{bucket: b, points: map[repo.PointRef]stoppedDisks{}}
	synctest.Test(t, f.fill)
	return f
}

func (f *faultPoints) fill(t *testing.T) {
	check := func(err error) {
		if err != nil {
			t.Helper()
			t.Fatal(err)
		}
	}
	ctx := t.Context()
	r, err := repo.Open(ctx, f.bucket, "v", repo.Key{}, nil, repo.Options{})
	check(err)
	check(r.OpenGeneration(ctx, "m", 1, nil))
	w, err := r.NewWriter(ctx, "m", 1, faultDisks, repo.WriterOptions{Workers: 1})
	check(err)
	rng := rand.New(rand.NewPCG(4, 4))
	disks := stoppedDisks{}
	for _, d := range faultDisks {
		disks[d.ID] = make([]byte, d.Size)
	}
	for i := range 3 {
		for _, d := range faultDisks {
			first := rng.Int64N(4)
			e := block.Extent{Offset: first * block.Size, Length: min(3*block.Size, d.Size-first*block.Size)}
			p := disks[d.ID][e.Offset:e.End()]
			for i := range p {
				p[i] = byte(rng.Uint32())
			}
			var sums []block.Sum
			summer := block.NewSummer(r.SumKey("m", d.ID))
			for i := 0; i < len(p); i += block.Size {
				sums = append(sums, summer.Of(p[i:min(i+block.Size, len(p))]))
			}
			check(w.Put(ctx, d.ID, []block.Extent{e}, sums, p))
		}
		p, err := w.Commit(ctx, repo.Commit{Time: time.Now().Add(time.Duration(i) * time.Minute), Consistency: captureConsistency, Hardware: json.RawMessage(`{}`)})
		check(err)
		f.points[p.PointRef], f.newest = cloneDisks(disks), p.PointRef
	}
	check(w.Close())
}

func newFaultRig(t *testing.T, run *faulttest.Run, from *faultPoints) *faultRig {
	t.Helper()
	inner := memblob.OpenBucket(nil)
	t.Cleanup(func() { inner.Close() })
	f := &faultRig{t: t, run: run, inner: inner, bucket: run.Bucket(inner), points: maps.Clone(from.points), newest: from.newest, dir: t.TempDir()}
	run.Fill(t, f.bucket, from.bucket)
	f.vault = &Vault{ID: "v", Repository: f.open(), Source: restore.Point{Vault: "v", DataKey: make([]byte, 32)}}
	f.tasks = &Tasks{Vaults: f, Index: f, Artifacts: f, Compute: faultCompute{rig: f}, Home: faultHome{rig: f}, SpoolDir: f.dir}
	return f
}

// open returns the repository with nothing in its cache.
func (f *faultRig) open() *repo.Repository {
	f.t.Helper()
	r, err := repo.Open(f.t.Context(), f.bucket, "v", repo.Key{}, nil, repo.Options{})
	f.ok(err)
	return r
}

func (f *faultRig) ok(err error) {
	f.t.Helper()
	if err != nil {
		f.t.Fatal(err)
	}
}

func cloneDisks(d stoppedDisks) stoppedDisks {
	c := stoppedDisks{}
	for id, b := range d {
		c[id] = bytes.Clone(b)
	}
	return c
}

// do runs a task as a pool does and returns its output as the control plane gets it.
func (f *faultRig) do(kind string, payload any) (json.RawMessage, error) {
	f.t.Helper()
	raw, err := json.Marshal(payload)
	f.ok(err)
	out, err := f.tasks.Handlers()[kind](f.t.Context(), &Task{Message: queue.Message{Kind: kind, JobID: "j", Payload: raw}, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return nil, err
	}
	raw, err = json.Marshal(out)
	f.ok(err)
	return raw, nil
}

// clean wants an error to be told so that the control plane tries again when the bucket may be well again, and names what is
// wrong when bits flipped. A fault that comes once and can be told is tried again within the task.
func (f *faultRig) clean(err error) {
	f.t.Helper()
	if err == nil {
		return
	}
	got := FailureOf(err)
	switch {
	case f.run.Flips():
		if got.Code != codeCorrupt || !strings.Contains(got.Message, "object ") || !strings.Contains(got.Message, "machine m") {
			f.t.Errorf("got %v, told as %+v; want it corrupt, with machine and object", err, got)
		}
	case !f.run.Lasts():
		f.t.Errorf("got %v, want it tried again", err)
	case got.Code != codeUnavailable && got.Code != codeExhausted:
		f.t.Errorf("got %v, told as %+v; want a code that is tried again", err, got)
	}
}

// damaged tells that the bucket may hold wrong bits.
func (f *faultRig) damaged() bool { return f.run.Damages() && (f.run.Lasts() || !f.heals) }

// intact reads all points. Those that may be gone are right if they are there; of one that a list never showed, so that it was
// not deleted with its data, the reader is told that objects are missing.
func (f *faultRig) intact(when string, mayBeGone func(repo.PointRef) bool) {
	f.t.Helper()
	r := f.open()
	for ref, want := range f.points {
		for id := range want {
			got, err := readPoint(f.t.Context(), r, ref, id, len(want[id]))
			switch {
			case errors.Is(err, repo.ErrNotFound) && mayBeGone != nil && mayBeGone(ref):
			case (f.damaged() || mayBeGone != nil && f.run.Kind() == faultbucket.StaleList && f.run.Lasts()) && errors.Is(err, repo.ErrCorrupt):
			case err != nil:
				f.t.Errorf("%s: disk %s of point %v: %v", when, id, ref, err)
			case !bytes.Equal(got, want[id]):
				f.t.Errorf("%s: disk %s of point %v holds other bytes", when, id, ref)
			}
		}
	}
}

// Vault implements Vaults.
func (f *faultRig) Vault(context.Context, string) (*Vault, error) { return f.vault, nil }

// ReportPoint implements Index.
func (f *faultRig) ReportPoint(string, repo.Point) {}

// ReportMachine implements Index.
func (f *faultRig) ReportMachine(ctx context.Context, v *Vault, machine string) error {
	points, err := v.Repository.Points(ctx, machine)
	if err == nil {
		f.index = points
	}
	return err
}

// PutArtifact implements Artifacts.
func (f *faultRig) PutArtifact(context.Context, string, string, []byte) error { return nil }

// readAll reads a disk as a guest and a hydration would in the end.
func readAll(ctx context.Context, disks restore.Disks) (stoppedDisks, error) {
	out := stoppedDisks{}
	for _, d := range faultDisks {
		src, err := disks.Disk(d.ID)
		if err != nil {
			return nil, err
		}
		out[d.ID] = make([]byte, d.Size)
		if err := src.ReadAt(ctx, out[d.ID], 0); err != nil {
			return nil, &restore.ReadError{Disk: d.ID, Extent: block.Extent{Length: d.Size}, Err: err}
		}
	}
	return out, nil
}

// faultCompute is a hypervisor whose guests read all of their disks before they are up.
type faultCompute struct {
	compute.Driver
	rig *faultRig
}

func (c faultCompute) Start(ctx context.Context, spec compute.Spec) (compute.Started, error) {
	open := spec.Open
	if !spec.Copied {
		open = func(ctx context.Context) (restore.Disks, error) {
			bucket := func(context.Context, string) (*blob.Bucket, error) { return c.rig.run.Bucket(c.rig.inner), nil }
			return restore.PointOpener(bucket)(ctx, spec.Server, slog.New(slog.DiscardHandler))
		}
	}
	disks, err := open(ctx)
	if err != nil {
		return compute.Started{}, err
	}
	defer disks.Close()
	guest, err := readAll(ctx, disks)
	if err != nil {
		return compute.Started{}, fmt.Errorf("boot: %w", err)
	}
	c.rig.booted = append(c.rig.booted, guest)
	return compute.Started{}, nil
}

func (c faultCompute) Inspect(context.Context, string) (compute.Instance, error) {
	if c.rig.off == nil {
		return compute.Instance{}, compute.ErrNotFound
	}
	inst := compute.Instance{Machine: "m", Point: *jobRef(&c.rig.newest), Hardware: job.Hardware{OSDisk: "a"}, State: compute.StateStopped}
	for _, d := range faultDisks {
		inst.Disks = append(inst.Disks, compute.Disk{ID: d.ID, Size: d.Size})
	}
	return inst, nil
}

func (c faultCompute) OpenDisks(context.Context, string, json.RawMessage) (restore.Disks, error) {
	return c.rig.off, nil
}

func (faultCompute) SerialLog(context.Context, string) (io.ReadCloser, error) {
	return io.NopCloser(strings.NewReader("booted\n")), nil
}

func (faultCompute) Screenshot(context.Context, string, io.Writer) error { return nil }

// faultHome has one machine, whose disks are files.
type faultHome struct {
	compute.Home
	rig *faultRig
}

func (h faultHome) OpenHome(context.Context, string, string) (compute.HomeDisks, error) {
	out := homeFiles{}
	for _, d := range faultDisks {
		f, err := restore.OpenTarget(filepath.Join(h.rig.home, d.ID))
		if err != nil {
			return nil, errors.Join(err, out.Close())
		}
		out[d.ID] = f
	}
	return out, nil
}

type homeFiles map[string]*restore.FileTarget

func (h homeFiles) Disk(id string) (restore.Target, error) { return h[id], nil }

func (h homeFiles) Close() (err error) {
	for _, f := range h {
		err = errors.Join(err, f.Close())
	}
	return err
}

// files reads the images of a directory, by the names that name gives them.
func (f *faultRig) files(dir string, name func(disk string) string) stoppedDisks {
	f.t.Helper()
	out := stoppedDisks{}
	for _, d := range faultDisks {
		b, err := os.ReadFile(filepath.Join(dir, name(d.ID)))
		f.ok(err)
		out[d.ID] = b
	}
	return out
}

// same wants disks to be those of a point.
func (f *faultRig) same(what string, got, want stoppedDisks) {
	f.t.Helper()
	for id := range want {
		if !bytes.Equal(got[id], want[id]) {
			f.t.Errorf("%s: disk %s holds other bytes", what, id)
		}
	}
}
