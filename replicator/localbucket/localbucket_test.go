package localbucket

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/iotest"

	"gocloud.dev/blob"
	"gocloud.dev/blob/driver"
	"gocloud.dev/blob/drivertest"
	"gocloud.dev/gcerrors"
)

type harness struct{ dir string }

func (h harness) MakeDriver(context.Context) (driver.Bucket, error) { return OpenDriver(h.dir) }

func (h harness) MakeDriverForNonexistentBucket(context.Context) (driver.Bucket, error) {
	return &bucket{root: filepath.Join(h.dir, "none")}, nil
}
func (h harness) HTTPClient() *http.Client { return nil }
func (h harness) Close()                   {}

func TestConformance(t *testing.T) {
	t.Parallel()
	drivertest.RunConformanceTests(t, func(_ context.Context, t *testing.T) (drivertest.Harness, error) {
		return harness{t.TempDir()}, nil
	}, nil)
}

func mustOpen(t *testing.T, dir string) *blob.Bucket {
	t.Helper()
	b, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	return b
}

func put(t *testing.T, b *blob.Bucket, key, body string, opts blob.WriterOptions) error {
	t.Helper()
	if opts.ContentType == "" {
		opts.ContentType = plainType
	}
	return b.Upload(t.Context(), key, strings.NewReader(body), &opts)
}

func mustPut(t *testing.T, b *blob.Bucket, key, body string) {
	t.Helper()
	if err := put(t, b, key, body, blob.WriterOptions{}); err != nil {
		t.Fatal(err)
	}
}

func files(t *testing.T, dir string) (names []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			names = append(names, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

func TestKeysBecomeNamesAndBack(t *testing.T) {
	t.Parallel()
	for _, key := range []string{
		"a", "a/b", ".", "..", "../x", "a/../b", "a//b", "/", "//", "/a", "a/", ".tmp/x", "%", "%41", "a%", "a.b", "ü☺", "\x00\x1f\x7f",
		"vaults/0198/points/m-1/1/00000001", strings.Repeat("x", 255),
	} {
		name, err := escapeKey(key)
		if err != nil {
			t.Errorf("escape %q: %v", key, err)
			continue
		}
		if c := filepath.Clean("/root/" + name); c != "/root/"+name {
			t.Errorf("key %q becomes %q, which a path would fold to %q", key, name, c)
		}
		var back []string
		for e := range strings.SplitSeq(name, "/") {
			if strings.HasPrefix(e, ".") {
				t.Errorf("key %q becomes %q: names with a dot in front are not for objects", key, name)
			}
			element, ok := unescapeElement(e)
			if !ok {
				t.Errorf("element %q of key %q is not recognised", e, key)
			}
			back = append(back, element)
		}
		if got := strings.Join(back, "/"); got != key {
			t.Errorf("key %q comes back as %q", key, got)
		}
	}
	for _, name := range []string{".tmp", "%2", "%zz", "%41", "%2e", "a%", ""} {
		if e, ok := unescapeElement(name); ok {
			t.Errorf("name %q is taken for element %q", name, e)
		}
	}
	if _, err := escapeKey(strings.Repeat("%", 100)); !errors.Is(err, errKey) {
		t.Errorf("a name of 300 bytes: got %v, want errKey", err)
	}
}

func FuzzKeys(f *testing.F) {
	f.Add("a/b//c/../%")
	f.Fuzz(func(t *testing.T, key string) {
		name, err := escapeKey(key)
		if err != nil {
			return
		}
		var back []string
		for e := range strings.SplitSeq(name, "/") {
			element, ok := unescapeElement(e)
			if !ok || e == ".." || e == "." {
				t.Fatalf("key %q has element %q", key, e)
			}
			back = append(back, element)
		}
		if got := strings.Join(back, "/"); got != key {
			t.Fatalf("key %q comes back as %q", key, got)
		}
	})
}

// A plain object's file holds the object's bytes and nothing else, so that any copying tool can carry the bucket elsewhere.
func TestPlainObjectsArePlainFiles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	b := mustOpen(t, dir)
	mustPut(t, b, "packs/ab/cd", "bytes")
	if got, err := os.ReadFile(filepath.Join(dir, "packs/ab/cd")); err != nil || string(got) != "bytes" {
		t.Errorf("got %q, %v, want the object's bytes", got, err)
	}
}

func TestBodiesThatLookLikeTrailersComeBackWhole(t *testing.T) {
	t.Parallel()
	b := mustOpen(t, t.TempDir())
	full, err := encodeTrailer(&attributes{ContentType: "text/plain"})
	if err != nil {
		t.Fatal(err)
	}
	for i, body := range []string{trailerMagic, "x" + trailerMagic, string(full), string(full) + trailerMagic, "", trailerMagic[1:]} {
		for _, ct := range []string{plainType, "text/x-other"} {
			key := fmt.Sprintf("k%d", i)
			if err := put(t, b, key, body, blob.WriterOptions{ContentType: ct}); err != nil {
				t.Fatal(err)
			}
			got, err := b.ReadAll(t.Context(), key)
			if err != nil || string(got) != body {
				t.Errorf("body %d as %s: got %q, %v, want %q", i, ct, got, err, body)
			}
			attrs, err := b.Attributes(t.Context(), key)
			if err != nil || attrs.Size != int64(len(body)) || attrs.ContentType != ct {
				t.Errorf("body %d: got attributes %+v, %v", i, attrs, err)
			}
			o, err := b.List(&blob.ListOptions{Prefix: key}).Next(t.Context())
			if err != nil || o.Size != int64(len(body)) {
				t.Errorf("body %d: listed as %+v, %v", i, o, err)
			}
		}
	}
}

func TestDamagedAttributesAreAnErrorOfThatObjectOnly(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	b := mustOpen(t, dir)
	for _, key := range []string{"a", "b", "c"} {
		if err := put(t, b, key, "body", blob.WriterOptions{ContentType: "text/plain"}); err != nil {
			t.Fatal(err)
		}
	}
	p, err := os.ReadFile(filepath.Join(dir, "b"))
	if err != nil {
		t.Fatal(err)
	}
	p[len("body")+3] ^= 1
	if err := os.WriteFile(filepath.Join(dir, "b"), p, fileMode); err != nil {
		t.Fatal(err)
	}
	if _, err := b.ReadAll(t.Context(), "b"); !errors.Is(err, errTrailer) {
		t.Errorf("read: got %v, want errTrailer", err)
	}
	if got := list(t, b, "", ""); !slices.Equal(got, []string{"a", "b", "c"}) {
		t.Errorf("got list %q", got)
	}
}

func list(t *testing.T, b *blob.Bucket, prefix, delimiter string) (keys []string) {
	t.Helper()
	it := b.List(&blob.ListOptions{Prefix: prefix, Delimiter: delimiter})
	for {
		o, err := it.Next(t.Context())
		if errors.Is(err, io.EOF) {
			return keys
		}
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, o.Key)
	}
}

// modelList is what a list must return, computed from all keys.
func modelList(keys []string, prefix, delimiter string) (want []string) {
	for _, k := range keys {
		if !strings.HasPrefix(k, prefix) {
			continue
		}
		if i := strings.Index(k[len(prefix):], delimiter); delimiter != "" && i >= 0 {
			k = k[:len(prefix)+i+len(delimiter)]
		}
		if len(want) == 0 || want[len(want)-1] != k {
			want = append(want, k)
		}
	}
	return want
}

func TestListsAgreeWithTheModel(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	b := mustOpen(t, dir)
	keys := []string{
		"a", "a!", "a-b/x", "a-b/y/z", "a0", "e/", "b//c", "b//d", "b/c/d/e", "b/c/d/f", "b/c0", "b/d", "c.d/1", "c.d/2", "c/1", "c0/1",
		"f//", "/x", "//y", ".hidden/k", "%41/k", "ü/k",
	}
	for _, k := range keys {
		mustPut(t, b, k, k)
	}
	slices.Sort(keys)
	mustPut(t, b, "gone/x", "")
	if err := b.Delete(t.Context(), "gone/x"); err != nil { // leaves a directory, which is no object
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, ".stray"), nil, fileMode); err != nil {
		t.Fatal(err)
	}
	prefixes := []string{"", "/", "//", "a", "a-", "a-b", "a-b/", "b", "b/", "b//", "b/c", "b/c/", "b/c/d/", "c", "c.", "c/", "gone", "gone/", "none/", "..", "../", ".hidden/", "%", "ü"}
	for _, prefix := range prefixes {
		for _, delimiter := range []string{"", "/", "d/", "-", "c"} {
			want := modelList(keys, prefix, delimiter)
			for page := range 5 {
				var got []string
				token := blob.FirstPageToken
				for {
					objs, next, err := b.ListPage(t.Context(), token, cmpPage(page), &blob.ListOptions{Prefix: prefix, Delimiter: delimiter})
					if err != nil {
						t.Fatal(err)
					}
					for _, o := range objs {
						if isDir := delimiter != "" && strings.HasSuffix(o.Key[len(prefix):], delimiter); o.IsDir != isDir {
							t.Errorf("prefix %q delimiter %q: %q has IsDir %v", prefix, delimiter, o.Key, o.IsDir)
						}
						got = append(got, o.Key)
					}
					if token = next; len(token) == 0 {
						break
					}
				}
				if !slices.Equal(got, want) {
					t.Errorf("prefix %q delimiter %q pages of %d: got %q, want %q", prefix, delimiter, cmpPage(page), got, want)
				}
			}
		}
	}
}

func cmpPage(i int) int { return []int{1, 2, 3, 7, 1000}[i] }

func TestAKeyCannotBeADirectoryOfAnother(t *testing.T) {
	t.Parallel()
	b := mustOpen(t, t.TempDir())
	mustPut(t, b, "a/b", "1")
	mustPut(t, b, "c", "1")
	for _, key := range []string{"a", "c/d", "c/d/e"} {
		for _, create := range []bool{true, false} {
			err := put(t, b, key, "2", blob.WriterOptions{IfNotExist: create})
			// Not FailedPrecondition, which would say that the object exists.
			if gcerrors.Code(err) != gcerrors.InvalidArgument {
				t.Errorf("put %s, create %v: got %v, want InvalidArgument", key, create, err)
			}
		}
	}
	for _, key := range []string{"a", "c/d"} {
		if _, err := b.ReadAll(t.Context(), key); gcerrors.Code(err) != gcerrors.NotFound {
			t.Errorf("read %s: got %v, want NotFound", key, err)
		}
		if err := b.Delete(t.Context(), key); gcerrors.Code(err) != gcerrors.NotFound {
			t.Errorf("delete %s: got %v, want NotFound", key, err)
		}
	}
}

// Directories are synced from the new one up to the first that was there, then the object's own; once known, only the latter.
func TestNewNamesAreSynced(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	drv, err := open(root)
	if err != nil {
		t.Fatal(err)
	}
	var synced []string
	drv.syncDir = func(dir string) error {
		rel, err := filepath.Rel(root, dir)
		synced = append(synced, rel)
		return errors.Join(err, syncDir(dir))
	}
	b := blob.NewBucket(drv)
	defer b.Close()
	steps := []struct {
		name string
		do   func() error
		want []string
	}{
		{"first in new directories", func() error { return put(t, b, "p/q/r", "1", blob.WriterOptions{}) }, []string{".", "p", "p/q"}},
		{"second there", func() error { return put(t, b, "p/q/s", "1", blob.WriterOptions{IfNotExist: true}) }, []string{"p/q"}},
		{"replace", func() error { return put(t, b, "p/q/s", "2", blob.WriterOptions{}) }, []string{"p/q"}},
		{"copy", func() error { return b.Copy(t.Context(), "p/c", "p/q/s", nil) }, []string{"p"}},
		{"delete", func() error { return b.Delete(t.Context(), "p/c") }, []string{"p"}},
		{"a refused create vouches for the winner's entry", func() error {
			if err := put(t, b, "p/q/s", "3", blob.WriterOptions{IfNotExist: true}); gcerrors.Code(err) != gcerrors.FailedPrecondition {
				return fmt.Errorf("got %v, want FailedPrecondition", err)
			}
			return nil
		}, []string{"p/q"}},
		{"directories tidied away behind our back", func() error {
			if err := os.RemoveAll(filepath.Join(root, "p")); err != nil {
				return err
			}
			return put(t, b, "p/q/t", "1", blob.WriterOptions{})
		}, []string{".", "p", "p/q"}},
	}
	for _, s := range steps {
		synced = nil
		if err := s.do(); err != nil {
			t.Errorf("%s: %v", s.name, err)
		}
		if !slices.Equal(synced, s.want) {
			t.Errorf("%s: synced %q, want %q", s.name, synced, s.want)
		}
	}
}

func TestAFailedDirectorySyncFailsTheWrite(t *testing.T) {
	t.Parallel()
	drv, err := open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	var fail atomic.Bool
	drv.syncDir = func(dir string) error {
		if fail.Load() {
			return syscall.ENOSPC
		}
		return syncDir(dir)
	}
	b := blob.NewBucket(drv)
	defer b.Close()
	mustPut(t, b, "k", "1")
	fail.Store(true)
	if err := put(t, b, "k2", "1", blob.WriterOptions{}); gcerrors.Code(err) != gcerrors.ResourceExhausted {
		t.Errorf("put: got %v, want ResourceExhausted", err)
	}
	if err := b.Delete(t.Context(), "k"); gcerrors.Code(err) != gcerrors.ResourceExhausted {
		t.Errorf("delete: got %v, want ResourceExhausted", err)
	}
}

func TestAReaderKeepsItsObject(t *testing.T) {
	t.Parallel()
	b := mustOpen(t, t.TempDir())
	mustPut(t, b, "k", strings.Repeat("old", 1000))
	r, err := b.NewReader(t.Context(), "k", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	mustPut(t, b, "k", "new")
	if err := b.Delete(t.Context(), "k"); err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(r)
	if err != nil || string(got) != strings.Repeat("old", 1000) {
		t.Errorf("got %d bytes, %v", len(got), err)
	}
}

func TestOpenURL(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, url := range []string{"mem://", "file://" + dir, "file://" + dir + "/new/er"} {
		b, err := OpenURL(t.Context(), url)
		if err != nil {
			t.Errorf("%s: %v", url, err)
			continue
		}
		mustPut(t, b, "k", "v")
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	}
	for _, url := range []string{"", "file://relative/dir", "file:relative", "ftp://host/x", "file://" + dir + "?create_dir=1", "\x7f"} {
		if b, err := OpenURL(t.Context(), url); err == nil {
			t.Errorf("%q: opened, want an error", url)
			_ = b.Close()
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "file"), nil, fileMode); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(filepath.Join(dir, "file")); !errors.Is(err, syscall.ENOTDIR) {
		t.Errorf("a file as bucket: got %v, want ENOTDIR", err)
	}
}

// What could not be read to its end must not become an object, whichever way it is written.
func TestAnUploadThatBreaksStoresNothing(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	b := mustOpen(t, dir)
	broken := errors.New("the source broke")
	for _, create := range []bool{true, false} {
		body := io.MultiReader(strings.NewReader("half"), iotest.ErrReader(broken))
		err := b.Upload(t.Context(), "k", body, &blob.WriterOptions{ContentType: plainType, IfNotExist: create})
		if !errors.Is(err, broken) {
			t.Errorf("got %v, want the source's error", err)
		}
	}
	if got := files(t, dir); len(got) > 0 {
		t.Errorf("left %q", got)
	}
}
