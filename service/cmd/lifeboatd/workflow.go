package main

import (
	"context"
	"log/slog"
	"time"

	"github.com/lifeboat-dr/lifeboat/service/queue"
	"github.com/lifeboat-dr/lifeboat/service/store"
	"github.com/lifeboat-dr/lifeboat/service/workflow"
)

// startWorkflow moves the jobs until the returned function is called.
func startWorkflow(ctx context.Context, db store.Store, q queue.Control, pruneEvery time.Duration, log *slog.Logger) (stop func() error) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	done := make(chan struct{})
	go func() {
		defer close(done)
		workflow.New(db, q, workflow.Options{PruneEvery: pruneEvery}, log).Run(ctx)
	}()
	return func() error { cancel(); <-done; return nil }
}
