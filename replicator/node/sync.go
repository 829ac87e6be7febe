package node

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/lifeboat-dr/lifeboat/sdk/fleet"
)

const (
	// syncWait is one long poll. What the node reports is as old as that at most, and one that died is known by its silence.
	syncWait    = 3 * time.Second
	callTimeout = 15 * time.Second // of a call, beside what it waits for
	backoffLow  = 200 * time.Millisecond
	backoffHigh = 10 * time.Second
)

// sync posts what the node observes and does what is desired, until ctx ends. lifeboatd may be away for as long as it likes:
// what was desired last stays served.
func (n *Node) sync(ctx context.Context) error {
	backoff := backoffLow
	first := true
	for ctx.Err() == nil {
		err := n.syncOnce(ctx)
		if err == nil {
			backoff = backoffLow
			if first {
				close(n.synced)
				first = false
			}
			continue
		}
		if ctx.Err() != nil {
			return nil
		}
		n.log.Warn("sync with lifeboatd did not succeed yet", "err", err)
		pause(ctx, backoff)
		backoff = min(2*backoff, backoffHigh)
	}
	return nil
}

func (n *Node) syncOnce(ctx context.Context) error {
	report := n.report(ctx)
	call, cancel := context.WithTimeout(ctx, syncWait+callTimeout)
	defer cancel()
	resp, err := n.cfg.Client.SyncReplicatorWithResponse(call, &fleet.SyncReplicatorParams{WaitSeconds: int(syncWait / time.Second)}, report)
	if err != nil {
		return err
	}
	if resp.JSON200 == nil {
		return refused(resp.StatusCode(), resp.JSONDefault)
	}
	desired := resp.JSON200
	if desired.Revision == report.Revision {
		return nil
	}
	gone, opened, err := n.vaults.apply(ctx, desired.Vaults)
	if n.ingest != nil {
		for _, id := range gone {
			n.ingest.Drop(id)
		}
	}
	for _, v := range opened {
		n.index.reconcile(ctx, v)
	}
	n.mu.Lock()
	n.redis = desired.RedisAddress
	if err == nil {
		n.revision = desired.Revision // else the same is desired again soon, and tried again
	}
	n.mu.Unlock()
	select {
	case n.poke <- struct{}{}:
	default: // the keeper has yet to look
	}
	if err != nil {
		n.log.Error("not all that is desired could be done", "err", err)
		pause(ctx, time.Second)
	}
	return nil
}

// RefusedError is an answer of lifeboatd that is no success.
type RefusedError struct {
	Status  int
	Code    string
	Message string
}

func (e *RefusedError) Error() string {
	return fmt.Sprintf("lifeboatd refused (%d %s): %s", e.Status, e.Code, e.Message)
}

func refused(status int, body *fleet.Refused) error {
	if body == nil {
		return &RefusedError{Status: status, Code: "internal", Message: http.StatusText(status)}
	}
	return &RefusedError{Status: status, Code: body.Error.Code, Message: body.Error.Message}
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}
