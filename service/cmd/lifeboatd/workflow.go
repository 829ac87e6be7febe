package main

import (
	"context"
	"log/slog"

	"github.com/lifeboat-dr/lifeboat/service/queue"
	"github.com/lifeboat-dr/lifeboat/service/store"
	"github.com/lifeboat-dr/lifeboat/service/workflow"
)

// startWorkflow moves the jobs, when it is this process's turn, until the returned function is called.
func startWorkflow(ctx context.Context, db store.Store, q queue.Control, opt workflow.Options, log *slog.Logger) (stop func() error) {
	return keep(ctx, workflow.New(db, q, opt, log).Run)
}

// keep runs what runs until its context ends, until the returned function is called.
func keep(ctx context.Context, run func(context.Context)) (stop func() error) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	done := make(chan struct{})
	go func() {
		defer close(done)
		run(ctx)
	}()
	return func() error { cancel(); <-done; return nil }
}
