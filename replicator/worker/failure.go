package worker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"strings"
	"syscall"

	"gocloud.dev/gcerrors"

	"github.com/lifeboat-dr/lifeboat/replicator/compute"
	"github.com/lifeboat-dr/lifeboat/replicator/compute/export"
	"github.com/lifeboat-dr/lifeboat/replicator/repo"
	"github.com/lifeboat-dr/lifeboat/replicator/restore"
	"github.com/lifeboat-dr/lifeboat/service/queue"
)

// Codes of failures: those of the control plane, which this plane does not import.
const (
	codeInvalid       = "invalid"
	codeNotFound      = "not_found"
	codeConflict      = "conflict"
	codeFenced        = "fenced"
	codeUnavailable   = "unavailable"
	codeExhausted     = "exhausted"
	codeCorrupt       = "corrupt"
	codeUnimplemented = "unimplemented"
	codeInternal      = "internal"
)

// Fault is an error that says itself how it is to be told.
type Fault struct {
	Code              string
	Message           string
	PossibleCauses    string
	RecommendedAction string
	Err               error
}

func (e *Fault) Error() string {
	if e.Err != nil {
		return fmt.Sprintf("%s: %s: %v", e.Code, e.Message, e.Err)
	}
	return fmt.Sprintf("%s: %s", e.Code, e.Message)
}

func (e *Fault) Unwrap() error { return e.Err }

// FailureOf tells an error to the control plane. Errors that heal by themselves (a bucket or network that does not answer) are
// unavailable or exhausted, which is what makes the control plane try again; all others are final. What nobody foresaw is
// internal.
func FailureOf(err error) queue.Failure {
	if f, ok := errors.AsType[*Fault](err); ok {
		return queue.Failure{Code: f.Code, Message: f.Message, PossibleCauses: f.PossibleCauses, RecommendedAction: f.RecommendedAction}
	}
	switch {
	case errors.Is(err, ErrCancelled):
		return queue.Failure{Code: codeConflict, Message: "The task was cancelled."}
	case errors.Is(err, repo.ErrCorrupt), errors.Is(err, restore.ErrCorrupt):
		return corruptFailure(err)
	case errors.Is(err, repo.ErrFenced):
		return queue.Failure{Code: codeFenced, Message: "The generation of the point log was closed; nothing can be added to it.",
			PossibleCauses: "A failover or another writer took over."}
	case errors.Is(err, compute.ErrProbe):
		return queue.Failure{Code: codeConflict, Message: "The machine runs but did not come up in time: " + err.Error(),
			PossibleCauses:    "The guest needs longer to boot, waits for input, or its disk does not boot on this hypervisor.",
			RecommendedAction: "Look at the serial log and the screenshot kept with the job. Try a longer timeout or another recovery point."}
	case errors.Is(err, export.ErrFormat):
		return queue.Failure{Code: codeInvalid, Message: "The image format is not known.", RecommendedAction: "Ask for one of " + strings.Join(export.Formats(), ", ") + "."}
	case errors.Is(err, compute.ErrMemory):
		return queue.Failure{Code: codeConflict, Message: "The host that should run the machine is too small: " + err.Error(),
			PossibleCauses:    "The replica gets the source's memory, and other machines run there, too.",
			RecommendedAction: "Give the replica a smaller size (targetVmSize such as 2cpu-4096MB), stop other machines, or use a larger host; then restart the job."}
	case errors.Is(err, compute.ErrUnsupported), errors.Is(err, export.ErrTool):
		return queue.Failure{Code: codeUnimplemented, Message: "This host cannot run the machine: " + err.Error(),
			RecommendedAction: "Install what is named, or use another master target."}
	case errors.Is(err, compute.ErrConflict), errors.Is(err, repo.ErrConflict), errors.Is(err, compute.ErrRunning), errors.Is(err, compute.ErrNotRunning):
		return queue.Failure{Code: codeConflict, Message: "The state found does not allow it: " + err.Error()}
	case errors.Is(err, repo.ErrNotFound), errors.Is(err, compute.ErrNotFound):
		return queue.Failure{Code: codeNotFound, Message: "What the task needs is not there: " + err.Error(),
			PossibleCauses: "It was pruned, removed or renamed since the job began."}
	case errors.Is(err, repo.ErrInvalid), errors.Is(err, restore.ErrSize):
		return queue.Failure{Code: codeInvalid, Message: "The request does not fit what is there: " + err.Error()}
	case errors.Is(err, restore.ErrFull), errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return queue.Failure{Code: codeExhausted, Message: "There is no space left on the target.", RecommendedAction: "Free space on the datastore or add another one, then restart the job."}
	case errors.Is(err, fs.ErrPermission):
		return queue.Failure{Code: codeInternal, Message: "The replicator may not do this on its host: " + err.Error(), RecommendedAction: "Check the permissions of the replicator's user."}
	case transient(err):
		return queue.Failure{Code: codeUnavailable, Message: "Something the task needs does not answer: " + err.Error(), RecommendedAction: "It is tried again by itself."}
	}
	return queue.Failure{Code: codeInternal, Message: "The task met an error: " + err.Error()}
}

func corruptFailure(err error) queue.Failure {
	f := queue.Failure{Code: codeCorrupt, Message: "Stored bytes of the recovery point are damaged.",
		PossibleCauses: "The bucket's storage lost or changed data.", RecommendedAction: "Choose another recovery point."}
	c, ok := errors.AsType[*repo.CorruptError](err)
	if !ok {
		f.Message = "Stored bytes of the recovery point are damaged: " + err.Error()
		return f
	}
	f.Message = fmt.Sprintf("Stored bytes of machine %s are damaged: object %s.", c.Machine, c.Object)
	if c.Disk != "" {
		f.Message = fmt.Sprintf("Stored bytes of machine %s are damaged: object %s, disk %s, bytes %d to %d.", c.Machine, c.Object, c.Disk, c.Extent.Offset, c.Extent.End())
	}
	return f
}

// transient tells whether trying again can help.
func transient(err error) bool {
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, restore.ErrGone) || errors.Is(err, io.ErrUnexpectedEOF) {
		return true // the last is a read that a bucket cut short as if that were all
	}
	if _, ok := errors.AsType[net.Error](err); ok {
		return true
	}
	for _, bucket := range []error{gcerrors.ErrUnknown, gcerrors.ErrInternal, gcerrors.ErrResourceExhausted, gcerrors.ErrDeadlineExceeded} {
		if errors.Is(err, bucket) {
			return true
		}
	}
	return false
}
