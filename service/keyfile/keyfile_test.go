package keyfile_test

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/lifeboat-dr/lifeboat/service/control"
	"github.com/lifeboat-dr/lifeboat/service/keyfile"
)

var _ control.Sealer = (*keyfile.Sealer)(nil)

func open(t *testing.T, path string) *keyfile.Sealer {
	t.Helper()
	s, err := keyfile.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return s
}

func TestWhatWasSealedOpensAfterARestart(t *testing.T) {
	path := filepath.Join(t.TempDir(), "secret.key")
	want := []byte("the vault's key")
	sealed, err := open(t, path).Seal(want, "vault 1")
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(sealed, want) {
		t.Fatal("the sealed secret shows the secret")
	}
	got, err := open(t, path).Open(sealed, "vault 1")
	if err != nil || !bytes.Equal(got, want) {
		t.Fatalf("Open: got %q, %v, want %q", got, err, want)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("key file: got mode %v, %v, want 0600", info.Mode().Perm(), err)
	}
}

func TestWhatDoesNotOpen(t *testing.T) {
	dir := t.TempDir()
	s := open(t, filepath.Join(dir, "a"))
	sealed, err := s.Seal([]byte("x"), "vault 1")
	if err != nil {
		t.Fatal(err)
	}
	flipped := bytes.Clone(sealed)
	flipped[len(flipped)-1] ^= 1
	for name, c := range map[string]struct {
		s       *keyfile.Sealer
		sealed  []byte
		purpose string
	}{
		"for another purpose":   {s, sealed, "vault 2"},
		"for a longer purpose":  {s, sealed, "vault 1x"},
		"altered":               {s, flipped, "vault 1"},
		"empty":                 {s, nil, "vault 1"},
		"under another key":     {open(t, filepath.Join(dir, "b")), sealed, "vault 1"},
		"for no purpose at all": {s, sealed, ""},
	} {
		t.Run(name, func(t *testing.T) {
			if got, err := c.s.Open(c.sealed, c.purpose); err == nil {
				t.Fatalf("Open: got %q, want it refused", got)
			}
		})
	}
}

func TestADamagedKeyFileIsNotReplaced(t *testing.T) {
	path := filepath.Join(t.TempDir(), "secret.key")
	if err := os.WriteFile(path, []byte("short\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := keyfile.Open(path); err == nil {
		t.Fatal("Open: took a damaged key")
	}
	if got, err := os.ReadFile(path); err != nil || string(got) != "short\n" {
		t.Fatalf("key file: got %q, %v, want it untouched", got, err)
	}
}
