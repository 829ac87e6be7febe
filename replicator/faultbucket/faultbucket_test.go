package faultbucket

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/bits"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"gocloud.dev/blob"
	"gocloud.dev/blob/driver"
	"gocloud.dev/blob/drivertest"
	"gocloud.dev/blob/memblob"
	"gocloud.dev/gcerrors"

	"github.com/lifeboat-dr/lifeboat/replicator/localbucket"
)

type harness struct{ open func() (*blob.Bucket, error) }

func (h harness) MakeDriver(context.Context) (driver.Bucket, error) {
	b, err := h.open()
	return &bucket{inner: b, plan: New(1)}, err
}

func (h harness) MakeDriverForNonexistentBucket(context.Context) (driver.Bucket, error) {
	return nil, nil
}
func (h harness) HTTPClient() *http.Client { return nil }
func (h harness) Close()                   {}

// Without faults the wrapper behaves as what it wraps.
func TestConformance(t *testing.T) {
	t.Parallel()
	t.Run("local", func(t *testing.T) {
		drivertest.RunConformanceTests(t, func(_ context.Context, t *testing.T) (drivertest.Harness, error) {
			dir := t.TempDir()
			return harness{func() (*blob.Bucket, error) { return localbucket.Open(dir) }}, nil
		}, nil)
	})
	t.Run("memory", func(t *testing.T) {
		drivertest.RunConformanceTests(t, func(context.Context, *testing.T) (drivertest.Harness, error) {
			return harness{func() (*blob.Bucket, error) { return memblob.OpenBucket(nil), nil }}, nil
		}, nil)
	})
}

func wrap(t *testing.T, plan *Plan) *blob.Bucket {
	t.Helper()
	b := Wrap(memblob.OpenBucket(nil), plan)
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	return b
}

var octets = &blob.WriterOptions{ContentType: "application/octet-stream"}

func put(ctx context.Context, b *blob.Bucket, key string, body []byte) error {
	return b.Upload(ctx, key, bytes.NewReader(body), octets)
}

func mustPut(t *testing.T, b *blob.Bucket, keys ...string) {
	t.Helper()
	for _, key := range keys {
		if err := put(t.Context(), b, key, []byte(key)); err != nil {
			t.Fatal(err)
		}
	}
}

// ops does each operation once on a bucket that holds "old", by both ways of writing.
var ops = map[string]struct {
	op Op
	do func(context.Context, *blob.Bucket) error
}{
	"read": {Read, func(ctx context.Context, b *blob.Bucket) error { _, err := b.ReadAll(ctx, "old"); return err }},
	"upload": {Write, func(ctx context.Context, b *blob.Bucket) error {
		return put(ctx, b, "new", []byte("body"))
	}},
	"writer": {Write, func(ctx context.Context, b *blob.Bucket) error { return b.WriteAll(ctx, "new", []byte("body"), octets) }},
	"list": {List, func(ctx context.Context, b *blob.Bucket) error {
		_, err := b.List(nil).Next(ctx)
		return err
	}},
	"attributes": {Attributes, func(ctx context.Context, b *blob.Bucket) error { _, err := b.Attributes(ctx, "old"); return err }},
	"delete":     {Delete, func(ctx context.Context, b *blob.Bucket) error { return b.Delete(ctx, "old") }},
	"copy":       {Copy, func(ctx context.Context, b *blob.Bucket) error { return b.Copy(ctx, "new", "old", nil) }},
}

func exists(t *testing.T, b *blob.Bucket, key string) bool {
	t.Helper()
	ok, err := b.Exists(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	return ok
}

func TestErrors(t *testing.T) {
	t.Parallel()
	cause := errors.New("the network is down")
	for _, kind := range []Kind{ErrorBefore, ErrorAfter, Full} {
		for name, o := range ops {
			if !slices.Contains(applies[kind], o.op) {
				continue
			}
			t.Run(fmt.Sprintf("%s on %s", kind, name), func(t *testing.T) {
				plan := New(1)
				b := wrap(t, plan)
				mustPut(t, b, "old")
				plan.Add(Fault{Kind: kind, Op: o.op, Err: cause, Code: gcerrors.DeadlineExceeded})
				err := o.do(t.Context(), b)
				if !errors.Is(err, ErrInjected) || !errors.Is(err, cause) {
					t.Errorf("got %v, want the injected error and its cause", err)
				}
				want := gcerrors.DeadlineExceeded
				if kind == Full {
					want = gcerrors.ResourceExhausted
				}
				if got := gcerrors.Code(err); got != want {
					t.Errorf("got code %v, want %v", got, want)
				}
				done := exists(t, b, "new") || !exists(t, b, "old")
				if kind == ErrorAfter != done {
					t.Errorf("the operation was done: %v", done)
				}
				if err := o.do(t.Context(), b); err != nil && !(kind == ErrorAfter && o.op == Delete) {
					t.Errorf("the next call fails, too: %v", err)
				}
				plan.AssertFired(t)
			})
		}
	}
}

func TestFullWithoutCauseIsENOSPC(t *testing.T) {
	t.Parallel()
	b := wrap(t, New(1, Fault{Kind: Full, Times: -1}))
	for range 3 {
		if err := put(t.Context(), b, "k", nil); !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("got %v, want ENOSPC", err)
		}
	}
}

func TestNotFoundAndConflictPassThrough(t *testing.T) {
	t.Parallel()
	b := wrap(t, New(1))
	if _, err := b.ReadAll(t.Context(), "none"); gcerrors.Code(err) != gcerrors.NotFound {
		t.Errorf("got %v, want NotFound", err)
	}
	mustPut(t, b, "k")
	create := &blob.WriterOptions{ContentType: "text/plain", IfNotExist: true}
	if err := b.Upload(t.Context(), "k", strings.NewReader(""), create); gcerrors.Code(err) != gcerrors.FailedPrecondition {
		t.Errorf("got %v, want FailedPrecondition", err)
	}
}

func TestReadsTearShortenAndFlip(t *testing.T) {
	t.Parallel()
	body := make([]byte, 10000)
	for i := range body {
		body[i] = byte(i * 7)
	}
	for seed := range uint64(30) {
		for _, kind := range []Kind{TornRead, ShortRead, FlippedBit} {
			rng := rand.New(rand.NewPCG(seed, 1))
			off := rng.Int64N(int64(len(body)))
			length := rng.Int64N(int64(len(body))-off) + 1
			want := body[off : off+length]
			plan := New(seed, Fault{Kind: kind})
			b := wrap(t, plan)
			if err := put(t.Context(), b, "k", body); err != nil {
				if kind != FlippedBit {
					t.Fatal(err)
				}
			}
			if kind == FlippedBit { // the write took the planned fault; plan one for the read
				plan.Add(Fault{Kind: kind, Op: Read})
				if err := b.Delete(t.Context(), "k"); err != nil {
					t.Fatal(err)
				}
				if err := put(t.Context(), b, "k", body); err != nil {
					t.Fatal(err)
				}
			}
			got, err := readRange(t.Context(), b, off, length)
			switch kind {
			case TornRead:
				if !errors.Is(err, ErrInjected) || len(got) >= len(want) || !bytes.Equal(got, want[:len(got)]) {
					t.Errorf("seed %d: torn read gave %d of %d bytes, %v", seed, len(got), len(want), err)
				}
			case ShortRead:
				if err != nil || len(got) >= len(want) || !bytes.Equal(got, want[:len(got)]) {
					t.Errorf("seed %d: short read gave %d of %d bytes, %v", seed, len(got), len(want), err)
				}
			case FlippedBit:
				if err != nil || differingBits(got, want) != 1 {
					t.Errorf("seed %d: %d bits differ, %v", seed, differingBits(got, want), err)
				}
			}
			if got, err := readRange(t.Context(), b, off, length); err != nil || !bytes.Equal(got, want) {
				t.Errorf("seed %d: the next read is wrong, too: %v", seed, err)
			}
			plan.AssertFired(t)
		}
	}
}

func readRange(ctx context.Context, b *blob.Bucket, off, length int64) ([]byte, error) {
	r, err := b.NewRangeReader(ctx, "k", off, length, nil)
	if err != nil {
		return nil, err
	}
	p, err := io.ReadAll(r)
	return p, errors.Join(err, r.Close())
}

func differingBits(a, b []byte) (n int) {
	if len(a) != len(b) {
		return -1
	}
	for i := range a {
		n += bits.OnesCount8(a[i] ^ b[i])
	}
	return n
}

func TestStoredBitsFlip(t *testing.T) {
	t.Parallel()
	body := bytes.Repeat([]byte("body"), 5000)
	writes := map[string]func(*blob.Bucket) error{
		"upload of known length": func(b *blob.Bucket) error { return put(t.Context(), b, "k", body) },
		"upload of unknown length": func(b *blob.Bucket) error {
			return b.Upload(t.Context(), "k", io.MultiReader(bytes.NewReader(body)), octets)
		},
		"writer": func(b *blob.Bucket) error { return b.WriteAll(t.Context(), "k", body, octets) },
	}
	for name, write := range writes {
		plan := New(3, Fault{Kind: FlippedBit, Op: Write})
		b := wrap(t, plan)
		if err := write(b); err != nil {
			t.Fatal(err)
		}
		got, err := b.ReadAll(t.Context(), "k")
		if err != nil || differingBits(got, body) != 1 {
			t.Errorf("%s: %d bits differ, %v", name, differingBits(got, body), err)
		}
		plan.AssertFired(t)
	}
	if !bytes.Equal(body, bytes.Repeat([]byte("body"), 5000)) {
		t.Error("the caller's buffer was changed")
	}
}

func list(t *testing.T, b *blob.Bucket, prefix string, page int) (keys []string) {
	t.Helper()
	for token := blob.FirstPageToken; len(token) > 0; {
		objects, next, err := b.ListPage(t.Context(), token, page, &blob.ListOptions{Prefix: prefix})
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range objects {
			keys = append(keys, o.Key)
		}
		token = next
	}
	return keys
}

func TestStaleListsMissTheNewestKeys(t *testing.T) {
	t.Parallel()
	for _, page := range []int{2, 100} {
		plan := New(1)
		b := wrap(t, plan)
		mustPut(t, b, "p/1", "p/4", "p/2", "p/3", "q/1")
		if err := b.Delete(t.Context(), "q/1"); err != nil {
			t.Fatal(err)
		}
		mustPut(t, b, "q/2", "p/1") // p/1 was there: replacing it does not make it new
		plan.Add(Fault{Kind: StaleList, Key: "p/", Newest: 2})
		if got, want := list(t, b, "p/", page), []string{"p/1", "p/4"}; !slices.Equal(got, want) {
			t.Errorf("pages of %d: stale list %q, want %q", page, got, want)
		}
		if got, want := list(t, b, "p/", page), []string{"p/1", "p/2", "p/3", "p/4"}; !slices.Equal(got, want) {
			t.Errorf("pages of %d: next list %q, want %q", page, got, want)
		}
		plan.AssertFired(t)
	}
}

func TestSlowEndsWithTheContext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		plan := New(1, Fault{Kind: Slow, Op: Read, Delay: time.Minute, Times: 2})
		b := Wrap(memblob.OpenBucket(nil), plan)
		defer b.Close()
		mustPut(t, b, "k")
		start := time.Now()
		if _, err := b.ReadAll(t.Context(), "k"); err != nil || time.Since(start) != time.Minute {
			t.Errorf("got %v after %v, want success after a minute", err, time.Since(start))
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := b.ReadAll(ctx, "k"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v, want the deadline", err)
		}
		plan.AssertFired(t)
	})
}

func TestFaultsFindTheirCall(t *testing.T) {
	t.Parallel()
	plan := New(1, Fault{Kind: ErrorBefore, Op: Read, Key: "points/*/1/*", Nth: 2, Times: 2})
	b := wrap(t, plan)
	mustPut(t, b, "points/m/1/5", "points/m/2/5")
	var failed []int
	for i := range 10 {
		key := "points/m/1/5"
		if i%2 == 1 {
			key = "points/m/2/5"
		}
		if _, err := b.ReadAll(t.Context(), key); err != nil {
			failed = append(failed, i)
		}
	}
	if want := []int{2, 4}; !slices.Equal(failed, want) {
		t.Errorf("calls %v failed, want %v", failed, want)
	}
	calls := plan.Calls()
	if len(calls) != 12 || calls[0] != (Call{Write, "points/m/1/5"}) || calls[2] != (Call{Read, "points/m/1/5"}) {
		t.Errorf("got calls %v", calls)
	}
	if _, err := b.ReadAll(t.Context(), "absent"); gcerrors.Code(err) != gcerrors.NotFound {
		t.Errorf("got %v, want NotFound", err)
	}
	if plan.HadBody(0) || plan.HadBody(4) || !plan.HadBody(11) || plan.HadBody(12) {
		t.Error("a write, a failed read or one of nothing had a body, or a read had none")
	}
}

func TestAShareLeavesTheBucketOpen(t *testing.T) {
	t.Parallel()
	inner := memblob.OpenBucket(nil)
	defer inner.Close()
	if err := Share(inner, New(1)).Close(); err != nil {
		t.Fatal(err)
	}
	mustPut(t, inner, "still")
}

func TestPatterns(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		pattern, key string
		want         bool
	}{
		{"", "any", true}, {"a", "a", true}, {"a", "ab", false}, {"a*", "ab/c", true}, {"*c", "ab/c", true}, {"a*c", "ac", true},
		{"ab*bc", "abc", false}, {"*a*a*", "xaxax", true}, {"*a*a*", "xax", false}, {"*", "", true},
	} {
		if got := match(c.pattern, c.key); got != c.want {
			t.Errorf("match(%q, %q) = %v", c.pattern, c.key, got)
		}
	}
}

type recorder struct{ errs []string }

func (r *recorder) Helper()                   {}
func (r *recorder) Errorf(f string, a ...any) { r.errs = append(r.errs, fmt.Sprintf(f, a...)) }

func TestFaultsWithoutEffectFailTheTest(t *testing.T) {
	t.Parallel()
	cases := map[string]func() *Plan{
		"never called":                   func() *Plan { return New(1, Fault{Kind: ErrorBefore}) },
		"called too rarely":              func() *Plan { return New(1, Fault{Kind: ErrorBefore, Op: Attributes, Nth: 9}) },
		"a stale list of nothing new":    func() *Plan { return New(1, Fault{Kind: StaleList, Key: "none"}) },
		"a short read of an empty body":  func() *Plan { return New(1, Fault{Kind: ShortRead}) },
		"random faults of no such call":  func() *Plan { return Random(1, 1, TornRead) },
		"an error after a failed delete": func() *Plan { return New(1, Fault{Kind: ErrorAfter, Op: Delete}) },
	}
	for name, plan := range cases {
		var r recorder
		p := plan()
		if name != "never called" && !strings.HasPrefix(name, "random") {
			b := wrap(t, p)
			if err := put(t.Context(), b, "empty", nil); err != nil {
				t.Fatal(err)
			}
			if _, err := b.ReadAll(t.Context(), "empty"); err != nil {
				t.Fatal(err)
			}
			_ = list(t, b, "none", 10)
			if err := b.Delete(t.Context(), "none"); gcerrors.Code(err) != gcerrors.NotFound {
				t.Errorf("%s: got %v, want NotFound", name, err)
			}
		}
		if p.AssertFired(&r); len(r.errs) != 1 {
			t.Errorf("%s: got complaints %q, want one", name, r.errs)
		}
	}
}

func TestRandomFaultsRepeatWithTheirSeed(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	run := func() (got []string) {
		plan := Random(seed, 0.3, ErrorBefore, ErrorAfter, TornRead, Full, Slow)
		b := wrap(t, plan)
		for i := range 100 {
			key := fmt.Sprint(i % 7)
			werr := put(t.Context(), b, key, []byte(key))
			_, rerr := b.ReadAll(t.Context(), key)
			got = append(got, fmt.Sprint(werr != nil, rerr != nil))
		}
		plan.AssertFired(t)
		plan.Disarm()
		for range 50 {
			if err := put(t.Context(), b, "after", nil); err != nil {
				t.Fatalf("a fault after Disarm: %v", err)
			}
		}
		return got
	}
	if a, b := run(), run(); !slices.Equal(a, b) {
		t.Error("two runs with one seed differ")
	}
}
