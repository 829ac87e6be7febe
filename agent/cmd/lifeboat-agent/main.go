// Command lifeboat-agent is the agent on a source machine.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
	_ "time/tzdata" // throttles name time zones, which a small machine may not have

	"github.com/lifeboat-dr/lifeboat/agent/priority"
	"github.com/lifeboat-dr/lifeboat/agent/quiesce"
)

var version = "dev" // set by the linker

func main() {
	// The dead-man is this program, started before anything is frozen and kept small: nothing else is set up in it.
	if len(os.Args) == 2 && os.Args[1] == deadman {
		_ = priority.Normal() // what does not work leaves it as it is; a machine that stands still waits for it
		exit(quiesce.RunDeadman())
	}
	debug.SetGCPercent(50) // a guest's memory is the guest's
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	err := command().ExecuteContext(ctx)
	stop()
	exit(err)
}

func exit(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "lifeboat-agent:", err)
		os.Exit(1)
	}
	os.Exit(0)
}
