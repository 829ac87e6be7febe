package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/lifeboat-dr/lifeboat/sdk"
)

// Exit codes; docs/cli.md and the help text promise them.
const (
	exitDone      = 0
	exitFailed    = 1
	exitUsage     = 2
	exitOperation = 3
)

// usageError is a command line that cannot be carried out as it is.
type usageError struct{ message string }

func (e *usageError) Error() string { return e.message }

// report prints an error as message, cause and remedy, and gives the exit code that goes with it.
func report(w io.Writer, err error) int {
	if err == nil {
		return exitDone
	}
	if u, ok := errors.AsType[*usageError](err); ok {
		fmt.Fprintf(w, "lifeboat: %s\nremedy:   see lifeboat --help\n", u.message)
		return exitUsage
	}
	if o, ok := errors.AsType[*sdk.OperationError](err); ok {
		fmt.Fprintf(w, "lifeboat: the operation was accepted and has %s: %s\n", endWord(o.Status), o.Err.Error())
		explain(w, o.Err)
		fmt.Fprintf(w, "job:      %s, see lifeboat job show %s\n", o.JobID, o.JobID)
		return exitOperation
	}
	if e, ok := errors.AsType[*sdk.Error](err); ok {
		fmt.Fprintf(w, "lifeboat: %s\n", e.Error())
		explain(w, e)
		if e.RequestID != "" {
			fmt.Fprintf(w, "request:  %s\n", e.RequestID)
		}
		if e.Code == sdk.CodeAmbiguous {
			return exitUsage
		}
		return exitFailed
	}
	if errors.Is(err, context.Canceled) {
		fmt.Fprintln(w, "lifeboat: interrupted; an operation that was accepted goes on")
		return exitFailed
	}
	fmt.Fprintf(w, "lifeboat: %v\n", err)
	return exitFailed
}

func explain(w io.Writer, e *sdk.Error) {
	if e.Target != "" {
		fmt.Fprintf(w, "at:       %s\n", e.Target)
	}
	if e.PossibleCauses != "" {
		fmt.Fprintf(w, "cause:    %s\n", e.PossibleCauses)
	}
	if e.RecommendedAction != "" {
		fmt.Fprintf(w, "remedy:   %s\n", e.RecommendedAction)
	}
}

func endWord(status string) string {
	if status == "Failed" {
		return "failed"
	}
	return "been cancelled"
}
