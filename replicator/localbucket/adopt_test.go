package localbucket

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"gocloud.dev/blob"
	"gocloud.dev/gcerrors"
)

func adopter(t *testing.T, b *blob.Bucket) Adopter {
	t.Helper()
	var a Adopter
	if !b.As(&a) {
		t.Fatal("the bucket has no Adopter")
	}
	return a
}

func writeFile(t *testing.T, body string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, []byte(body), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestAdoptKeepsTheObjectWhenTheFileGoes(t *testing.T) {
	t.Parallel()
	b := mustOpen(t, t.TempDir())
	file := writeFile(t, "content")
	old := time.Now().Add(-48 * time.Hour)
	if err := os.Chtimes(file, old, old); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second time it is there already
		if err := adopter(t, b).Adopt(t.Context(), "a/b/c", file); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if p, err := b.ReadAll(t.Context(), "a/b/c"); err != nil || string(p) != "content" {
		t.Fatalf("object is %q, %v", p, err)
	}
	attrs, err := b.Attributes(t.Context(), "a/b/c")
	if err != nil {
		t.Fatal(err)
	}
	if age := time.Since(attrs.ModTime); age > time.Hour {
		t.Errorf("the object was born %s ago, want now", age)
	}
	if attrs.ContentType != plainType {
		t.Errorf("content type %q, want %q", attrs.ContentType, plainType)
	}
}

func TestAdoptRefusesWhatMustBeCopied(t *testing.T) {
	t.Parallel()
	b := mustOpen(t, t.TempDir())
	if err := put(t, b, "taken", "first", blob.WriterOptions{}); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ name, key, file string }{
		{"another object has the key", "taken", writeFile(t, "second")},
		{"the body looks like one with attributes", "magic", writeFile(t, "body"+trailerMagic)},
		{"a directory", "dir", t.TempDir()},
	} {
		if err := adopter(t, b).Adopt(t.Context(), c.key, c.file); !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("%s: Adopt returned %v, want ErrUnsupported", c.name, err)
		}
	}
	if p, err := b.ReadAll(t.Context(), "taken"); err != nil || string(p) != "first" {
		t.Errorf("the object of another became %q, %v", p, err)
	}
	if _, err := b.Attributes(t.Context(), "magic"); gcerrors.Code(err) != gcerrors.NotFound {
		t.Errorf("what was not adopted is there: %v", err)
	}
}
