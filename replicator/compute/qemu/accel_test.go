package qemu

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestTrialGuests(t *testing.T) {
	d := open(t, Config{Dir: t.TempDir()})
	if err := d.trySector(t.Context(), tcg, time.Minute); err != nil {
		t.Errorf("boot sector under emulation: %v", err)
	}
	broken := filepath.Join(t.TempDir(), "kernel")
	if err := os.WriteFile(broken, []byte("no kernel"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := d.tryKernel(t.Context(), tcg, broken, 2*time.Second); err == nil {
		t.Error("a file that is no kernel started")
	}
}

// The verdict is true on any host: where it says kvm, an ordinary kernel starts under it.
func TestAcceleratorVerdictIsKept(t *testing.T) {
	dir := t.TempDir()
	accelerator, reason := open(t, Config{Dir: dir}).Accelerator(t.Context())
	if accelerator != kvm && accelerator != tcg || reason == "" {
		t.Fatalf("verdict %q, %q", accelerator, reason)
	}
	t.Logf("%s: %s", accelerator, reason)
	if info, err := os.ReadFile("/proc/cpuinfo"); err == nil && !virtualises(string(info)) && accelerator != tcg {
		t.Error("kvm on a processor without hardware virtualisation")
	}
	began := time.Now()
	if again, why := open(t, Config{Dir: dir}).Accelerator(t.Context()); again != accelerator || why != reason || time.Since(began) > time.Second {
		t.Errorf("second verdict %s, %s after %v", again, why, time.Since(began))
	}
	// Another boot of the host, another verdict.
	path := filepath.Join(dir, verdictFile)
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	other := strings.Replace(strings.Replace(string(b), `"boot": "`, `"boot": "x`, 1), `"`+accelerator+`"`, `"other"`, 1)
	if err := os.WriteFile(path, []byte(other), 0o600); err != nil {
		t.Fatal(err)
	}
	if again, _ := open(t, Config{Dir: dir}).Accelerator(t.Context()); again != accelerator {
		t.Errorf("verdict of another boot was taken: %s", again)
	}
}

func TestVirtualises(t *testing.T) {
	for name, tc := range map[string]struct {
		cpuinfo string
		want    bool
	}{
		"intel":            {"processor\t: 0\nflags\t\t: fpu vmx sse\n", true},
		"amd":              {"flags\t\t: fpu svm\n", true},
		"none":             {"flags\t\t: fpu sse\nvmx flags\t: vnmi\n", false},
		"part of a longer": {"flags\t\t: fpu vmxx\n", false},
		"nothing":          {"", false},
	} {
		if got := virtualises(tc.cpuinfo); got != tc.want {
			t.Errorf("%s: got %v, want %v", name, got, tc.want)
		}
	}
}
