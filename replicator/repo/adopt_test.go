package repo_test

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/lifeboat-dr/lifeboat/replicator/block"
	"github.com/lifeboat-dr/lifeboat/replicator/localbucket"
	"github.com/lifeboat-dr/lifeboat/replicator/repo"
)

// A pack that the local bucket took over is the same file as the spool's. The writer that finds it there cuts and seals packs,
// and must not do so to an object.
func TestResumeLeavesAdoptedPacksAsTheyAre(t *testing.T) {
	t.Parallel()
	root, spool := t.TempDir(), t.TempDir()
	bucket, err := localbucket.Open(root)
	if err != nil {
		t.Fatal(err)
	}
	defer bucket.Close()
	v := openVault(t, bucket, repo.Options{})
	g := newGuest("vm", repo.DiskInfo{ID: "a", Size: 4 << 20})
	rng := rand.New(rand.NewPCG(1, 2))
	scribble(rng, g.bytes["a"])
	mustOpen(t, v, "vm", 1, nil)
	w := mustWriter(t, v, g, 1, spool)
	w.Shrink()
	for off := int64(0); off < 2<<20; off += 1 << 20 { // the second finds the first pack full
		if err := put(t.Context(), v, w, g, "a", block.Extent{Offset: off, Length: 1 << 20}); err != nil {
			t.Fatal(err)
		}
		if err := w.Sync(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	var packs []string
	tick := time.NewTicker(time.Millisecond) // nobody announces an upload
	defer tick.Stop()
	for end := time.After(time.Minute); len(packs) == 0; {
		select {
		case <-tick.C:
		case <-end:
			t.Fatal("no pack came to the bucket")
		}
		if packs, err = filepath.Glob(filepath.Join(root, "vaults", "*", "packs", "vm", "*")); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil { // as a crash would: nothing is listed
		t.Fatal(err)
	}
	object, err := os.Open(packs[0])
	if err != nil {
		t.Fatal(err)
	}
	defer object.Close()
	written := func() time.Time { // an object that was cut and sealed again may have the same bytes
		st, err := object.Stat()
		if err != nil {
			t.Fatal(err)
		}
		return st.ModTime()
	}
	before := written()
	w = mustWriter(t, v, g, 1, spool)
	requireUnchanged := func(when string) {
		t.Helper()
		if now := written(); now != before {
			t.Errorf("%s, the object was written to: at %s, before at %s", when, now, before)
		}
	}
	requireUnchanged("after the resume")
	putAll(t, v, w, g, "a")
	p := mustCommit(t, w, repo.Commit{})
	requireUnchanged("after the commit")
	requireEqual(t, v, p.PointRef, g)
	left, err := filepath.Glob(filepath.Join(spool, "vm", "*", "*.pack"))
	if err != nil || len(left) != 0 {
		t.Errorf("after the commit the spool has %v, %v; want nothing", left, err)
	}
}
