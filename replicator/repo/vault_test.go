package repo_test

import (
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"gocloud.dev/blob"
	"gocloud.dev/blob/memblob"

	"github.com/lifeboat-dr/lifeboat/replicator/repo"
)

func TestRecoveryKeyOpensItsVaultOnly(t *testing.T) {
	t.Parallel()
	key, other := repo.NewRecoveryKey(), repo.NewRecoveryKey()
	want := repo.Key{4, 5, 6}
	file, err := repo.NewVaultFile("v1", want, key)
	if err != nil {
		t.Fatal(err)
	}
	flip := func(s string, i int) string {
		c := byte('7')
		if s[i] == c {
			c = '8'
		}
		return s[:i] + string(c) + s[i+1:]
	}
	for _, c := range []struct {
		name, key string
		want      error
	}{
		{"the key as printed", key, nil},
		{"lower case, blanks and no hyphens", " " + strings.ToLower(strings.ReplaceAll(key, "-", " ")) + "\n", nil},
		{"letters that look like digits", strings.NewReplacer("0", "o", "1", "L").Replace(key), nil},
		{"another vault's key", other, repo.ErrRecoveryKey},
		{"a typing error at the start", flip(key, 0), repo.ErrRecoveryKey},
		{"a typing error in the check", flip(key, len(key)-1), repo.ErrRecoveryKey},
		{"a character missing", key[1:], repo.ErrRecoveryKey},
		{"a character that is none", "U" + key[1:], repo.ErrRecoveryKey},
		{"nothing", "", repo.ErrRecoveryKey},
	} {
		id, got, err := repo.Unwrap(file, c.key)
		if !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, want %v", c.name, err, c.want)
		}
		if err == nil && (got != want || id != "v1") {
			t.Errorf("%s: got vault %s and another data key", c.name, id)
		}
		if err != nil && got != (repo.Key{}) {
			t.Errorf("%s: a key came with the error", c.name)
		}
	}
	for i := range file {
		bad := slices.Clone(file)
		bad[i] ^= 1
		if _, got, err := repo.Unwrap(bad, key); err == nil && got != want {
			t.Errorf("byte %d of the vault file changed: another key came out", i)
		}
	}
}

func TestVaultFileIsCreatedOnce(t *testing.T) {
	t.Parallel()
	b := memblob.OpenBucket(nil)
	defer b.Close()
	first, err := repo.NewVaultFile("v1", repo.Key{1}, repo.NewRecoveryKey())
	if err != nil {
		t.Fatal(err)
	}
	second, err := repo.NewVaultFile("v1", repo.Key{1}, repo.NewRecoveryKey())
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range [][]byte{first, first, nil} {
		if _, err := repo.Open(t.Context(), b, "v1", repo.Key{1}, f, repo.Options{}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := repo.Open(t.Context(), b, "v1", repo.Key{1}, second, repo.Options{}); !errors.Is(err, repo.ErrCorrupt) {
		t.Errorf("vault file that the recovery key at hand does not open: got %v, want ErrCorrupt", err)
	}
	got, err := repo.VaultFile(t.Context(), b, "v1")
	if err != nil || string(got) != string(first) {
		t.Errorf("vault file: got %q, %v, want the first", got, err)
	}
	if _, err := repo.Open(t.Context(), b, "v2", repo.Key{1}, first, repo.Options{}); !errors.Is(err, repo.ErrInvalid) {
		t.Errorf("vault file of another vault: got %v, want ErrInvalid", err)
	}
	if ids, err := repo.Vaults(t.Context(), b); err != nil || !slices.Equal(ids, []string{"v1"}) {
		t.Errorf("vaults: got %v, %v", ids, err)
	}
}

func TestVaultOpensItsOwnDataOnly(t *testing.T) {
	t.Parallel()
	v := newVault(t, repo.Options{})
	mustOpen(t, v, "vm", 1, nil)
	other, err := repo.Open(t.Context(), v.bucket, vaultID, repo.Key{9}, nil, repo.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := other.OpenGeneration(t.Context(), "vm", 1, nil); !errors.Is(err, repo.ErrCorrupt) {
		t.Errorf("log read with another key: got %v, want ErrCorrupt", err)
	}
}

// TestADamagedPointIsNamedAndHidesNoOther flips one byte of the middle one of three log entries.
func TestADamagedPointIsNamedAndHidesNoOther(t *testing.T) {
	t.Parallel()
	v := newVault(t, repo.Options{})
	g := newGuest("vm", repo.DiskInfo{ID: "a", Size: 64 << 10})
	mustOpen(t, v, "vm", 1, nil)
	refs, _ := series(t, v, mustWriter(t, v, g, 1, t.TempDir()), g, 3, t0, time.Minute)
	list := v.bucket.List(&blob.ListOptions{Prefix: "vaults/" + vaultID + "/points/vm/00000001/"})
	var entries []string
	for {
		o, err := list.Next(t.Context())
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		entries = append(entries, o.Key)
	}
	slices.Sort(entries) // what opens the generation, then the points
	if len(entries) != 4 {
		t.Fatalf("got log %v, want 4 entries", entries)
	}
	bytes, err := v.bucket.ReadAll(t.Context(), entries[2])
	if err != nil {
		t.Fatal(err)
	}
	bytes[len(bytes)/2] ^= 1
	if err := v.bucket.WriteAll(t.Context(), entries[2], bytes, nil); err != nil {
		t.Fatal(err)
	}
	points, damaged, err := openVault(t, v.bucket, repo.Options{}).PointsAndDamage(t.Context(), "vm")
	if err != nil || len(points) != 2 || points[0].PointRef != refs[0] || points[1].PointRef != refs[2] || !slices.Equal(damaged, refs[1:2]) {
		t.Errorf("got %+v, damaged %v, %v, want the first and the third, and the second damaged", points, damaged, err)
	}
}
