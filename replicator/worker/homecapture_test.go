package worker

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"gocloud.dev/blob/memblob"

	"github.com/lifeboat-dr/lifeboat/replicator/block"
	"github.com/lifeboat-dr/lifeboat/replicator/compute"
	"github.com/lifeboat-dr/lifeboat/replicator/repo"
	"github.com/lifeboat-dr/lifeboat/replicator/restore"
	"github.com/lifeboat-dr/lifeboat/service/job"
	"github.com/lifeboat-dr/lifeboat/service/queue"
)

// stoppedHome has one machine that is off; its disks are files of a directory.
type stoppedHome struct {
	compute.Home
	dir    string
	closed int
}

func (h *stoppedHome) OpenHome(_ context.Context, datastore, uuid string) (compute.HomeDisks, error) {
	if datastore != "store" || uuid != "u" {
		return nil, compute.ErrNotFound
	}
	return &openHome{h, map[string]*restore.FileTarget{}}, nil
}

type openHome struct {
	home *stoppedHome
	open map[string]*restore.FileTarget
}

func (o *openHome) Disk(id string) (restore.Target, error) {
	f, err := restore.OpenTarget(filepath.Join(o.home.dir, id))
	if err == nil {
		o.open[id] = f
	}
	return f, err
}

func (o *openHome) Close() error {
	o.home.closed++
	for _, f := range o.open {
		if err := f.Close(); err != nil {
			return err
		}
	}
	return nil
}

// oneVault serves one vault and remembers what was reported of it.
type oneVault struct {
	vault    *Vault
	reported []repo.Point
}

func (v *oneVault) Vault(context.Context, string) (*Vault, error) { return v.vault, nil }
func (v *oneVault) ReportPoint(_ string, p repo.Point)            { v.reported = append(v.reported, p) }
func (v *oneVault) ReportMachine(context.Context, *Vault, string) error {
	return nil
}

func TestAStoppedHomeMachineBecomesThePointOfItsDisks(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	b := memblob.OpenBucket(nil)
	t.Cleanup(func() { _ = b.Close() })
	r, err := repo.Open(ctx, b, "v", repo.Key{1}, nil, repo.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := r.OpenGeneration(ctx, "m", 1, nil); err != nil {
		t.Fatal(err)
	}
	home, served := &stoppedHome{dir: t.TempDir()}, &oneVault{vault: &Vault{ID: "v", Repository: r}}
	tasks := &Tasks{Vaults: served, Index: served, Home: home, SpoolDir: t.TempDir()}
	disks := []job.HomeDisk{{ID: "os", SizeBytes: 2<<20 + block.Sector, OS: true}, {ID: "data", SizeBytes: 64 << 10}}
	rng := rand.New(rand.NewPCG(3, 3))
	capture := func(uuid string) (job.Captured, error) {
		payload, err := json.Marshal(job.HomeCapture{HomeMachine: job.HomeMachine{Machine: job.Machine{VaultID: "v", MachineID: "m"}, UUID: uuid, Datastore: "store"}, Generation: 1, Disks: disks})
		if err != nil {
			t.Fatal(err)
		}
		out, err := tasks.Handlers()[job.KindHomeCapture](ctx, &Task{Message: queue.Message{Kind: job.KindHomeCapture, Payload: payload}, Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			return job.Captured{}, err
		}
		return out.(job.Captured), nil
	}
	for round := int64(1); round <= 3; round++ {
		for _, d := range disks {
			p, err := os.ReadFile(filepath.Join(home.dir, d.ID))
			if err != nil {
				p = make([]byte, d.SizeBytes)
			}
			for i := range p[:8<<10] {
				p[i] = byte(rng.Uint32())
			}
			if err := os.WriteFile(filepath.Join(home.dir, d.ID), p, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		got, err := capture("u")
		if err != nil || got.Point != (job.PointRef{Generation: 1, Sequence: round}) || int64(len(served.reported)) != round || home.closed != int(round) {
			t.Fatalf("got %+v, %v with %d reports and %d closes, want point %d reported and the disks closed", got, err, len(served.reported), home.closed, round)
		}
		if round > 1 && got.ChangedBytes > 64<<10 {
			t.Errorf("%d bytes travelled, want what differs", got.ChangedBytes)
		}
		s, err := r.OpenPoint(ctx, "m", ref(got.Point))
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range disks {
			want, err := os.ReadFile(filepath.Join(home.dir, d.ID))
			if err != nil {
				t.Fatal(err)
			}
			disk, err := s.Disk(d.ID)
			if err != nil {
				t.Fatal(err)
			}
			have := make([]byte, len(want))
			if err := disk.ReadAt(ctx, have, 0); err != nil && err != io.EOF {
				t.Fatal(err)
			}
			if !bytes.Equal(have, want) {
				t.Errorf("round %d: disk %s differs from the machine's", round, d.ID)
			}
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := capture("another"); FailureOf(err).Code != codeNotFound {
		t.Errorf("got %v for a machine that is not there", err)
	}
	if _, err := r.CloseGeneration(ctx, "m", 1, "test"); err != nil {
		t.Fatal(err)
	}
	if _, err := capture("u"); err == nil {
		t.Error("a closed log took a point")
	}
	disks[1].SizeBytes += block.Size
	if _, err := capture("u"); err == nil {
		t.Error("a disk of another size was captured")
	}
}
