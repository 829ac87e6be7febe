package qemu

import (
	"errors"
	"testing"

	"github.com/lifeboat-dr/lifeboat/replicator/compute"
)

func TestMemoryFor(t *testing.T) {
	if err := memoryFor(1 << 20); err != nil {
		t.Errorf("1 MiB: %v", err)
	}
	if err := memoryFor(1 << 50); !errors.Is(err, compute.ErrMemory) {
		t.Errorf("1 PiB: got %v, want ErrMemory", err)
	}
}

func TestAvailable(t *testing.T) {
	if got, ok := available("MemTotal: 100 kB\nMemAvailable: 60 kB\nSwapFree: 4 kB\n"); !ok || got != 64<<10 {
		t.Errorf("got %d %v, want %d", got, ok, 64<<10)
	}
	if _, ok := available("MemTotal: 100 kB\n"); ok {
		t.Error("a host that does not tell what is available was believed")
	}
}
