package ship_test

import (
	"context"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/lifeboat-dr/lifeboat/agent/quiesce"
	"github.com/lifeboat-dr/lifeboat/agent/source"
)

// TestHelperFreezeAndHang is a process of its own for TestDeadManThawsWhenTheAgentIsKilled.
func TestHelperFreezeAndHang(t *testing.T) {
	mount := os.Getenv("LIFEBOAT_HELPER_MOUNT")
	if mount == "" {
		return
	}
	disks := disksOf(t, source.Config{Disks: []source.Named{{ID: "d", Path: os.Getenv("LIFEBOAT_HELPER_LOOP")}}})
	g := quiesce.NewGuard(testLog(t), must(os.Executable()), "deadman")
	w, err := g.Prepare(context.Background(), disks[0].Filesystems)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Freeze(time.Minute); err != nil {
		t.Fatal(err)
	}
	fmt.Println("frozen")
	select {}
}
