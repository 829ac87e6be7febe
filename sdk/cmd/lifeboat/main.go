// Command lifeboat is the command line of Lifeboat, for people, scripts and CI. It owns words, tables and exit codes, and does
// everything through package sdk; it must never know more than the API tells.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

var version = "dev" // set by the linker

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}
