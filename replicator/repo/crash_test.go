package repo_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gocloud.dev/blob"

	"github.com/lifeboat-dr/lifeboat/replicator/block"
	"github.com/lifeboat-dr/lifeboat/replicator/localbucket"
	"github.com/lifeboat-dr/lifeboat/replicator/repo"
)

// The test binary is also the process that is killed: with crashEnv set it writes until then.
const crashEnv = "REPO_TEST_CRASH_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(crashEnv); dir != "" {
		if err := writeForEver(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

const crashBlocks = 200

var crashDisks = []repo.DiskInfo{{ID: "a", Size: crashBlocks * block.Size}}

// stepBlock is what step n writes: one block whose content tells n.
func stepBlock(n int) (e block.Extent, p []byte) {
	p = make([]byte, block.Size)
	copy(p, fmt.Sprint("step ", n))
	return block.Extent{Offset: int64(n*n%crashBlocks) * block.Size, Length: block.Size}, p
}

type hardware struct{ N int }

// writeForEver goes on with the steps from the one that the newest point or the spool shows, and tells what is safe.
func writeForEver(dir string) error {
	ctx := context.Background()
	r, b, err := crashRepository(ctx, dir)
	if err != nil {
		return err
	}
	defer b.Close()
	if err := r.OpenGeneration(ctx, "vm", 1, nil); err != nil {
		return err
	}
	w, err := r.NewWriter(ctx, "vm", 1, crashDisks, repo.WriterOptions{Dir: filepath.Join(dir, "spool")})
	if err != nil {
		return err
	}
	n, err := stepOf(ctx, r, w)
	if err != nil {
		return err
	}
	summer := block.NewSummer(r.SumKey("vm", "a"))
	for {
		n++
		e, p := stepBlock(n)
		if err := w.Put(ctx, "a", []block.Extent{e}, []block.Sum{summer.Of(p)}, p); err != nil {
			return err
		}
		switch {
		case n%97 == 0:
			hw, err := json.Marshal(hardware{n})
			if err != nil {
				return err
			}
			if _, err := w.Commit(ctx, repo.Commit{Time: t0, Hardware: hw}); err != nil {
				return err
			}
			fmt.Println("committed", n)
		case n%41 == 0:
			if err := w.Checkpoint(ctx); err != nil {
				return err
			}
			fmt.Println("safe", n)
		case n%5 == 0:
			if err := w.Sync(ctx); err != nil {
				return err
			}
			fmt.Println("safe", n)
		}
	}
}

func crashRepository(ctx context.Context, dir string) (*repo.Repository, *blob.Bucket, error) {
	b, err := localbucket.Open(filepath.Join(dir, "bucket"))
	if err != nil {
		return nil, nil, err
	}
	r, err := repo.Open(ctx, b, vaultID, repo.Key{1}, nil, repo.Options{})
	return r, b, err
}

// stepOf finds the step whose state the writer holds: all steps up to it and nothing else. That there is one is the promise.
func stepOf(ctx context.Context, r *repo.Repository, w *repo.Writer) (int, error) {
	got := make([]block.Sum, crashBlocks)
	if err := w.Sums(ctx, "a", 0, got); err != nil {
		return 0, err
	}
	summer := block.NewSummer(r.SumKey("vm", "a"))
	want := make([]block.Sum, crashBlocks)
	equal := func() bool {
		for i := range want {
			if want[i] != got[i] {
				return false
			}
		}
		return true
	}
	for n := 0; n < 1_000_000; n++ {
		if n > 0 {
			e, p := stepBlock(n)
			want[e.Offset/block.Size] = summer.Of(p)
		}
		if equal() {
			return n, nil
		}
	}
	return 0, fmt.Errorf("the writer holds the state of no step")
}

// TestKilledWriterLosesNothingThatWasSafe kills a writing process again and again.
func TestKilledWriterLosesNothingThatWasSafe(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "bucket"), 0o700); err != nil {
		t.Fatal(err)
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	seed := rand.Uint64()
	rng := rand.New(rand.NewPCG(seed, 0))
	t.Logf("seed %d", seed)
	safe, committed := 0, 0
	for range 12 {
		cmd := exec.CommandContext(t.Context(), exe)
		cmd.Env = append(os.Environ(), crashEnv+"="+dir)
		var stderr strings.Builder
		cmd.Stderr = &stderr
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		var kill *time.Timer
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			var n int
			var word string
			if _, err := fmt.Sscan(lines.Text(), &word, &n); err != nil {
				t.Fatalf("child said %q", lines.Text())
			}
			if safe = n; word == "committed" {
				committed = n
			}
			if kill == nil {
				kill = time.AfterFunc(time.Duration(rng.Int64N(int64(150*time.Millisecond))), func() { cmd.Process.Kill() })
			}
		}
		cmd.Wait()
		if kill == nil {
			t.Fatalf("child ended by itself: %s", stderr.String())
		}
		requireSafe(t, dir, safe, committed)
	}
	if committed == 0 || safe == 0 {
		t.Errorf("no commit was reached, safe step %d", safe)
	}
}

func requireSafe(t *testing.T, dir string, safe, committed int) {
	t.Helper()
	r, b, err := crashRepository(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	points, err := r.Points(t.Context(), "vm")
	if err != nil {
		t.Fatal(err)
	}
	newest := 0
	for _, p := range points {
		var hw hardware
		if err := json.Unmarshal(p.Hardware, &hw); err != nil {
			t.Fatal(err)
		}
		newest = max(newest, hw.N)
	}
	if newest < committed {
		t.Errorf("the point of step %d was acknowledged, the newest shows %d", committed, newest)
	}
	if len(points) > 0 {
		if _, err := r.Verify(t.Context(), "vm", points[len(points)-1].PointRef); err != nil {
			t.Errorf("verify the newest point: %v", err)
		}
	}
	w, err := r.NewWriter(t.Context(), "vm", 1, crashDisks, repo.WriterOptions{Dir: filepath.Join(dir, "spool")})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	n, err := stepOf(t.Context(), r, w)
	if err != nil || n < safe {
		t.Errorf("after a kill: step %d, %v; step %d was safe", n, err, safe)
	}
}
