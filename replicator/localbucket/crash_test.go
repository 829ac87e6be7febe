package localbucket

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"gocloud.dev/blob"
	"gocloud.dev/gcerrors"
)

// The test binary is also the process that is raced and killed: with roleEnv set it plays a role instead of running tests.
const (
	roleEnv = "LOCALBUCKET_TEST_ROLE"
	dirEnv  = "LOCALBUCKET_TEST_DIR"
	nameEnv = "LOCALBUCKET_TEST_NAME"
)

func TestMain(m *testing.M) {
	roles := map[string]func(*blob.Bucket, string) error{"create": createLoop, "write": writeLoop}
	role := os.Getenv(roleEnv)
	if role == "" {
		os.Exit(m.Run())
	}
	b, err := Open(os.Getenv(dirEnv))
	if err == nil {
		err = roles[role](b, os.Getenv(nameEnv))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func child(ctx context.Context, t *testing.T, role, dir, name string) *exec.Cmd {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(ctx, exe)
	cmd.Env = append(os.Environ(), roleEnv+"="+role, dirEnv+"="+dir, nameEnv+"="+name)
	cmd.Stderr = os.Stderr
	return cmd
}

const (
	contenders = 4  // processes
	goroutines = 8  // in each
	slots      = 40 // keys fought for
)

// createLoop tries to create every slot from many goroutines and prints the ones it won.
func createLoop(b *blob.Bucket, name string) error {
	if _, err := bufio.NewReader(os.Stdin).ReadString('\n'); err != nil { // the starting shot
		return err
	}
	var mu sync.Mutex
	var wg sync.WaitGroup
	var failed error
	for g := range goroutines {
		wg.Go(func() {
			for s := range slots {
				me := fmt.Sprintf("%s.%d", name, g)
				key := fmt.Sprintf("points/m/1/%08d", s)
				err := b.Upload(context.Background(), key, strings.NewReader(me), &blob.WriterOptions{ContentType: "text/plain", IfNotExist: true})
				mu.Lock()
				switch {
				case err == nil:
					fmt.Printf("%s %s\n", key, me)
				case gcerrors.Code(err) != gcerrors.FailedPrecondition:
					failed = err
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return failed
}

// Several processes with several goroutines each create the same keys: each key has one winner, and holds what it wrote.
func TestOneCreatorWins(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	dir := t.TempDir()
	var cmds []*exec.Cmd
	var start []io.WriteCloser
	outs := make([]bytes.Buffer, contenders)
	for i := range contenders {
		cmd := child(ctx, t, "create", dir, strconv.Itoa(i))
		cmd.Stdout = &outs[i]
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		cmds, start = append(cmds, cmd), append(start, in)
	}
	for _, in := range start {
		if _, err := io.WriteString(in, "go\n"); err != nil {
			t.Error(err)
		}
	}
	for _, cmd := range cmds {
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	}
	winners := make(map[string][]string)
	for i := range outs {
		for line := range strings.Lines(outs[i].String()) {
			key, who, _ := strings.Cut(strings.TrimSpace(line), " ")
			winners[key] = append(winners[key], who)
		}
	}
	b := mustOpen(t, dir)
	if len(winners) != slots {
		t.Errorf("%d keys were won, want %d", len(winners), slots)
	}
	for key, who := range winners {
		got, err := b.ReadAll(ctx, key)
		if len(who) != 1 || err != nil || string(got) != who[0] {
			t.Errorf("%s: won by %q, holds %q, %v", key, who, got, err)
		}
	}
	if left := files(t, filepath.Join(dir, tempName)); len(left) > 0 {
		t.Errorf("temp files left: %q", left)
	}
}

// writeLoop writes objects for ever, creating most and replacing some, and prints each key once its write is acknowledged.
// A body names its key and holds its own hash, so that a reader can tell whole from torn.
func writeLoop(b *blob.Bucket, seed string) error {
	n, err := strconv.ParseUint(seed, 10, 64)
	if err != nil {
		return err
	}
	var wg sync.WaitGroup
	errs := make(chan error, 4)
	for g := range 4 {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(n, uint64(g)))
			for i := 0; ; i++ {
				key, create := fmt.Sprintf("d%d/%d/%s-%d", rng.IntN(5), g, seed, i), true
				if i%4 == 3 {
					key, create = fmt.Sprintf("replaced/%d", g), false
				}
				err := b.Upload(context.Background(), key, bytes.NewReader(sealed(key, i, rng.IntN(200<<10))),
					&blob.WriterOptions{ContentType: "application/x-sealed", IfNotExist: create})
				if err != nil {
					errs <- err
					return
				}
				// One write of a line to a pipe is not torn.
				if _, err := fmt.Printf("%s %d\n", key, i); err != nil {
					errs <- err
					return
				}
			}
		})
	}
	wg.Wait()
	return <-errs
}

func sealed(key string, i, n int) []byte {
	body := fmt.Appendf(nil, "%s %d\n", key, i)
	body = append(body, bytes.Repeat([]byte{byte(i)}, n)...)
	sum := sha256.Sum256(body)
	return append(body, hex.EncodeToString(sum[:])...)
}

func checkSealed(key string, p []byte) (i int, err error) {
	if len(p) < 64 {
		return 0, fmt.Errorf("%s: torn: %d bytes", key, len(p))
	}
	body := p[:len(p)-64]
	if sum := sha256.Sum256(body); hex.EncodeToString(sum[:]) != string(p[len(p)-64:]) {
		return 0, fmt.Errorf("%s: torn or mixed: wrong hash over %d bytes", key, len(body))
	}
	var name string
	if _, err := fmt.Sscanf(string(body[:min(len(body), 200)]), "%s %d\n", &name, &i); err != nil || name != key {
		return 0, fmt.Errorf("%s: holds the body of %q, %v", key, name, err)
	}
	return i, nil
}

// A writer is killed over and over. Each time every acknowledged object is there, every object that is listed is whole, and
// the next open leaves no temp file.
func TestKilledWriters(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	dir := t.TempDir()
	swept := 0
	for round := range 12 {
		acked := killAfter(t, dir, round, 1+rng.IntN(60))
		if round%3 == 0 { // what a kill in the middle of a write leaves, whether or not this one did
			if err := os.WriteFile(filepath.Join(dir, tempName, fmt.Sprintf("torn%d", round)), []byte("to"), fileMode); err != nil {
				t.Fatal(err)
			}
		}
		swept += len(files(t, filepath.Join(dir, tempName)))
		b := mustOpen(t, dir)
		if left := files(t, filepath.Join(dir, tempName)); len(left) > 0 {
			t.Fatalf("round %d: temp files left after open: %q", round, left)
		}
		checkObjects(t, b, acked)
		if t.Failed() {
			t.Fatalf("round %d failed", round)
		}
	}
	if swept == 0 {
		t.Error("no temp file was swept: the test does not reach what it tests")
	}
}

// killAfter runs a writer until n writes are acknowledged, kills it and returns all that it acknowledged.
func killAfter(t *testing.T, dir string, round, n int) map[string]int {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := child(ctx, t, "write", dir, strconv.Itoa(round))
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	acked := make(map[string]int)
	for sc := bufio.NewScanner(out); sc.Scan(); { // ends when the process is dead and the pipe is empty
		key, i, ok := strings.Cut(sc.Text(), " ")
		count, err := strconv.Atoi(i)
		if !ok || err != nil {
			t.Fatalf("the writer printed %q", sc.Text())
		}
		acked[key] = count
		if len(acked) == n {
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := cmd.Wait(); err == nil {
		t.Fatal("the writer ended by itself")
	}
	if len(acked) < n {
		t.Fatalf("the writer acknowledged %d writes, want %d", len(acked), n)
	}
	return acked
}

func checkObjects(t *testing.T, b *blob.Bucket, acked map[string]int) {
	t.Helper()
	seen := make(map[string]int)
	for _, key := range list(t, b, "", "") {
		p, err := b.ReadAll(t.Context(), key)
		if err != nil {
			t.Error(err)
			continue
		}
		if seen[key], err = checkSealed(key, p); err != nil {
			t.Error(err)
		}
	}
	for key, i := range acked {
		if got, ok := seen[key]; !ok || got < i {
			t.Errorf("%s: write %d was acknowledged; there is %v, number %d", key, i, ok, got)
		}
	}
}

// Opening a bucket sweeps dead writers' temp files and leaves those of a living writer alone, here one in this process.
func TestOpenLeavesLivingWritersAlone(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	b := mustOpen(t, dir)
	w, err := b.NewWriter(t.Context(), "k", &blob.WriterOptions{ContentType: plainType})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(w, "half"); err != nil {
		t.Fatal(err)
	}
	mustOpen(t, dir)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if got, err := b.ReadAll(t.Context(), "k"); err != nil || string(got) != "half" {
		t.Errorf("got %q, %v", got, err)
	}
}
