package ingest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/lifeboat-dr/lifeboat/replicator/block"
	"github.com/lifeboat-dr/lifeboat/replicator/repo"
	"github.com/lifeboat-dr/lifeboat/replicator/wire"
)

// errAborted is a session that the agent ended.
var errAborted = errors.New("ingest: the agent ended the session")

func (x *session) handle(ctx context.Context, m wire.Message) error {
	switch m := m.(type) {
	case *wire.Data:
		handed := false
		err := x.put(ctx, m.Disk, m.Sequence, m.Extents, int64(len(m.Bytes)), func(d wire.Disk) error {
			handed = true
			return putData(ctx, x.w, d.ID, m)
		})
		if !handed {
			m.Release()
		}
		return err
	case *wire.Zero:
		return x.put(ctx, m.Disk, m.Sequence, m.Extents, int64(len(m.Extents))*block.Sector, func(d wire.Disk) error {
			for _, e := range m.Extents {
				if err := x.w.Zero(ctx, d.ID, e); err != nil {
					return err
				}
			}
			return nil
		})
	case *wire.SumsRequest:
		return x.answerSums(ctx, m)
	case *wire.Seal:
		return x.seal(ctx, m)
	case *wire.Grant:
		expires, err := checkGrant(m.Grant, x.vault.GrantKey, x.claim, x.srv.cfg.Now())
		if err != nil {
			return err
		}
		x.expires.Reset(expires.Sub(x.srv.cfg.Now()))
		return nil
	case *wire.Heartbeat:
		return nil
	case *wire.Abort:
		return fmt.Errorf("%w: %s", errAborted, m.Reason)
	}
	return &wire.Fault{Code: wire.CodeInvalid, Message: fmt.Sprintf("a %T does not belong into a running session", m)}
}

func (x *session) disk(i uint16) (wire.Disk, error) {
	if int(i) >= len(x.hello.Disks) {
		return wire.Disk{}, &wire.Fault{Code: wire.CodeInvalid, Message: fmt.Sprintf("the session has no disk %d", i)}
	}
	return x.hello.Disks[i], nil
}

// put takes one numbered message in. cost is what it adds to the spool.
func (x *session) put(ctx context.Context, disk uint16, seq uint64, es []block.Extent, cost int64, write func(wire.Disk) error) error {
	d, err := x.disk(disk)
	if err != nil {
		return err
	}
	if seq != x.received+1 {
		return &wire.Fault{Code: wire.CodeInvalid, Message: fmt.Sprintf("message %d came after message %d", seq, x.received)}
	}
	for _, e := range es {
		if e.End() > d.Size || e.Length%block.Size != 0 && e.End() != d.Size {
			return &wire.Fault{Code: wire.CodeInvalid,
				Message: fmt.Sprintf("extent [%d,+%d) does not fit disk %s of %d bytes", e.Offset, e.Length, d.ID, d.Size)}
		}
	}
	for !x.srv.spool.take(cost) {
		x.sync() // this may take long: say what is safe
		var err error
		if x.held > 0 {
			err = x.checkpoint(ctx)
		} else {
			err = x.srv.spool.wait(ctx)
		}
		if err != nil {
			return err
		}
	}
	x.held += cost
	if err := write(d); err != nil {
		return fmt.Errorf("write to disk %s: %w", d.ID, err)
	}
	x.received = seq
	x.unsynced += cost
	x.srv.meter.add(cost, time.Now())
	if x.unsynced >= syncBytes {
		x.sync()
	} else if !x.due {
		x.due = true
		x.dueSync.Reset(syncDelay)
	}
	return nil
}

// sync has what was taken in made safe and acknowledged, beside what else the session does.
func (x *session) sync() {
	if x.asked == x.received {
		return
	}
	x.asked, x.unsynced = x.received, 0
	select { // the younger number stands for one still waiting
	case <-x.syncs:
	default:
	}
	x.syncs <- x.asked
}

// syncer makes safe what sync asked for, until ctx ends. Its error ends the session.
func (x *session) syncer(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case n := <-x.syncs:
			err := x.w.Sync(ctx)
			if err != nil {
				err = fmt.Errorf("sync spool: %w", err)
			} else {
				err = x.ack(n)
			}
			if err != nil {
				x.cancel(err)
				return
			}
		}
	}
}

// ack acknowledges everything up to n, once.
func (x *session) ack(n uint64) error {
	x.ackMu.Lock()
	defer x.ackMu.Unlock()
	if n <= x.acked {
		return nil
	}
	x.acked = n
	return x.send(&wire.Ack{Sequence: n})
}

// checkpoint brings what the session holds to the bucket and gives its part of the spool back.
func (x *session) checkpoint(ctx context.Context) error {
	if x.held == 0 {
		return nil
	}
	if err := x.w.Checkpoint(ctx); err != nil {
		return fmt.Errorf("bring the spool to the bucket: %w", err)
	}
	x.srv.spool.give(x.held)
	x.held = 0
	x.asked, x.unsynced = x.received, 0
	return x.ack(x.received)
}

func (x *session) answerSums(ctx context.Context, m *wire.SumsRequest) error {
	d, err := x.disk(m.Disk)
	if err != nil {
		return err
	}
	if m.First+int64(m.Count) > block.Count(d.Size) {
		return &wire.Fault{Code: wire.CodeInvalid, Message: fmt.Sprintf("disk %s has no blocks [%d,+%d)", d.ID, m.First, m.Count)}
	}
	if x.sums == nil {
		x.sums = make([]block.Sum, wire.MaxSums)
	}
	sums := x.sums[:m.Count]
	clear(sums)
	if err := x.w.Sums(ctx, d.ID, m.First, sums); err != nil {
		return fmt.Errorf("read sums of disk %s: %w", d.ID, err)
	}
	return x.send(&wire.Sums{Disk: m.Disk, First: m.First, Sums: sums})
}

// seal commits a point of everything taken in. Durable goes out only once its log entry is stored.
func (x *session) seal(ctx context.Context, m *wire.Seal) error {
	switch {
	case m.Sequence != x.received:
		return &wire.Fault{Code: wire.CodeInvalid, Message: fmt.Sprintf("a point of %d messages was asked for after %d", m.Sequence, x.received)}
	case m.Time.IsZero():
		return &wire.Fault{Code: wire.CodeInvalid, Message: "a point needs its capture instant"}
	case m.Consistency != crashConsistent && m.Consistency != appConsistent:
		return &wire.Fault{Code: wire.CodeInvalid, Message: fmt.Sprintf("consistency %q is not known", m.Consistency)}
	}
	start := time.Now()
	p, err := x.w.Commit(ctx, Commit{Time: m.Time.UTC(), Consistency: m.Consistency, GroupID: m.GroupID, Hardware: m.Hardware})
	if err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	x.srv.points.Add(1)
	x.srv.spool.give(x.held)
	x.held, x.asked, x.unsynced = 0, x.received, 0
	x.log.Info("point committed", "point", p.Sequence, "bytes", p.ChangedBytes, "stored", p.StoredBytes, "dur", time.Since(start))
	if x.srv.cfg.Committed != nil {
		x.srv.cfg.Committed(x.vault.ID, p)
	}
	return x.send(&wire.Durable{Point: wire.PointRef{Generation: p.Generation, Sequence: p.Sequence}, Time: p.Time})
}

// faultOf says to an agent, and to the person who reads its status, why its session cannot be or go on.
func faultOf(err error) *wire.Fault {
	if f, ok := errors.AsType[*wire.Fault](err); ok {
		return f
	}
	switch {
	case errors.Is(err, repo.ErrFenced):
		return &wire.Fault{Code: wire.CodeFenced, Message: "the generation is closed or another writer took over",
			Causes: "The machine failed over, or its replication was started anew.", Action: "Nothing can be shipped to it any more; lifeboatd says what this machine shall do."}
	case errors.Is(err, repo.ErrCorrupt):
		return &wire.Fault{Code: wire.CodeCorrupt, Message: err.Error(),
			Causes: "Stored replication data is damaged.", Action: "Verify the machine's points; repair its replication with a resynchronisation."}
	case errors.Is(err, repo.ErrNotFound), errors.Is(err, repo.ErrConflict):
		return &wire.Fault{Code: wire.CodeUnavailable, Message: "the generation is not open yet: " + err.Error(),
			Causes: "Its opening is still under way.", Action: "The agent tries again by itself."}
	case errors.Is(err, repo.ErrInvalid):
		return &wire.Fault{Code: wire.CodeInvalid, Message: err.Error()}
	case errors.Is(err, wire.ErrProtocol):
		return &wire.Fault{Code: wire.CodeInvalid, Message: err.Error(), Causes: "Agent and replicator are of different versions, or the connection is damaged.",
			Action: "Bring both to the same version."}
	case errors.Is(err, errDisplaced):
		return &wire.Fault{Code: wire.CodeConflict, Message: "another session of this machine took over",
			Causes: "The agent connected again, or a copy of the machine runs with the same identity.", Action: "If it happens again, look for a second machine with this agent."}
	case errors.Is(err, errStopped), errors.Is(err, errDropped), errors.Is(err, errEnded), errors.Is(err, context.Canceled), errors.Is(err, io.EOF):
		return &wire.Fault{Code: wire.CodeUnavailable, Message: "the replicator ended the session",
			Causes: "It stops, or the vault's configuration changed.", Action: "The agent connects again by itself."}
	}
	return &wire.Fault{Code: wire.CodeUnavailable, Message: "the replicator could not go on: " + err.Error(),
		Causes: "The bucket or the spool directory cannot be written.", Action: "Look at the replicator's log and at the bucket's free space."}
}
