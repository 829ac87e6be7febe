package main

import (
	"context"
	"log/slog"

	"github.com/lifeboat-dr/lifeboat/service/control"
	"github.com/lifeboat-dr/lifeboat/service/queue"
)

// startWorkflow runs the jobs until the returned function is called.
func startWorkflow(ctx context.Context, ctl *control.Service, q queue.Control, log *slog.Logger, failed chan<- error) func() error {
	return func() error { return nil }
}
