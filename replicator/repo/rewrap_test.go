package repo_test

import (
	"errors"
	"testing"

	"gocloud.dev/blob"
	"gocloud.dev/blob/memblob"

	"github.com/lifeboat-dr/lifeboat/replicator/faultbucket"
	"github.com/lifeboat-dr/lifeboat/replicator/repo"
)

// rewrapped is a vault in a bucket, and the two files that its data key is wrapped in.
type rewrapped struct {
	bucket  *blob.Bucket
	keys    [2]string
	files   [2][]byte
	dataKey repo.Key
}

func newRewrapped(t *testing.T) *rewrapped {
	t.Helper()
	r := &rewrapped{bucket: memblob.OpenBucket(nil), dataKey: repo.Key{7}}
	t.Cleanup(func() { _ = r.bucket.Close() })
	for i := range r.keys {
		var err error
		r.keys[i] = repo.NewRecoveryKey()
		if r.files[i], err = repo.NewVaultFile("v1", r.dataKey, r.keys[i]); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := repo.Open(t.Context(), r.bucket, "v1", r.dataKey, r.files[0], repo.Options{}); err != nil {
		t.Fatal(err)
	}
	return r
}

// opens tells which of the keys opens the vault with what the bucket holds.
func (r *rewrapped) opens(t *testing.T) (out [2]bool) {
	t.Helper()
	file, err := repo.VaultFile(t.Context(), r.bucket, "v1")
	if err != nil {
		t.Fatal(err)
	}
	for i, k := range r.keys {
		id, got, err := repo.Unwrap(file, k)
		out[i] = err == nil && id == "v1" && got == r.dataKey
	}
	return out
}

func TestAReplacedVaultFileIsOpenedByTheNewKeyOnly(t *testing.T) {
	t.Parallel()
	r := newRewrapped(t)
	v, err := repo.Open(t.Context(), r.bucket, "v1", r.dataKey, nil, repo.Options{})
	if err != nil {
		t.Fatal(err)
	}
	other, err := repo.NewVaultFile("v2", r.dataKey, r.keys[1])
	if err != nil {
		t.Fatal(err)
	}
	for _, bad := range [][]byte{nil, []byte("{}"), other} {
		if err := v.ReplaceVaultFile(t.Context(), bad); !errors.Is(err, repo.ErrInvalid) {
			t.Errorf("got %v for %q, want ErrInvalid", err, bad)
		}
	}
	if got := r.opens(t); got != [2]bool{true, false} {
		t.Fatalf("got %v after refusals, want the old key to open it", got)
	}
	for range 2 { // the answer of the first may be lost
		if err := v.ReplaceVaultFile(t.Context(), r.files[1]); err != nil {
			t.Fatal(err)
		}
		if got := r.opens(t); got != [2]bool{false, true} {
			t.Errorf("got %v, want the new key alone to open it", got)
		}
	}
}

// TestReplacingAVaultFileAlwaysLeavesAKey meets a replacement with faults that last and faults that pass: whatever the error says,
// one of the keys opens the vault.
func TestReplacingAVaultFileAlwaysLeavesAKey(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		fault faultbucket.Fault
		want  [2]bool // which key opens it
	}{
		"writes fail":                          {faultbucket.Fault{Kind: faultbucket.ErrorBefore, Op: faultbucket.Write, Times: -1}, [2]bool{true, false}},
		"the bucket is full":                   {faultbucket.Fault{Kind: faultbucket.Full, Op: faultbucket.Write, Times: -1}, [2]bool{true, false}},
		"the file is damaged on its way":       {faultbucket.Fault{Kind: faultbucket.FlippedBit, Op: faultbucket.Write}, [2]bool{false, true}},
		"it is damaged on its way each time":   {faultbucket.Fault{Kind: faultbucket.FlippedBit, Op: faultbucket.Write, Times: 2}, [2]bool{true, false}},
		"reads fail":                           {faultbucket.Fault{Kind: faultbucket.ErrorBefore, Op: faultbucket.Read, Times: -1}, [2]bool{true, false}},
		"the file that is there is misread":    {faultbucket.Fault{Kind: faultbucket.FlippedBit, Op: faultbucket.Read, Times: 2}, [2]bool{false, true}},
		"the file that was written is misread": {faultbucket.Fault{Kind: faultbucket.FlippedBit, Op: faultbucket.Read, Nth: 3}, [2]bool{false, true}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRewrapped(t)
			plan := faultbucket.New(1)
			v, err := repo.Open(t.Context(), faultbucket.Wrap(r.bucket, plan), "v1", r.dataKey, nil, repo.Options{})
			if err != nil {
				t.Fatal(err)
			}
			plan.Add(c.fault)
			err = v.ReplaceVaultFile(t.Context(), r.files[1])
			if got := r.opens(t); got != c.want || (err == nil) != c.want[1] {
				t.Errorf("got %v and %v, want %v", got, err, c.want)
			}
			plan.AssertFired(t)
		})
	}
}
