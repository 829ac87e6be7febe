package ingest

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"sync"
	"time"

	"github.com/lifeboat-dr/lifeboat/replicator/block"
	"github.com/lifeboat-dr/lifeboat/replicator/wire"
)

const (
	syncBytes = 16 << 20               // taken in since the last sync: sync now
	syncDelay = 100 * time.Millisecond // the longest a byte waits for its acknowledgement to be due

	heartbeatEvery = 10 * time.Second
	silenceLimit   = 60 * time.Second // a peer that says nothing for so long is gone
	writeTimeout   = 30 * time.Second
	goodbyeTimeout = 2 * time.Second
	closeTimeout   = 30 * time.Second // for bringing an ended session's bytes to the bucket

	queued = 4 // messages read ahead of the writer: at most 4 MiB

	// Of the stream below TLS: agents send data, and are sent little but acknowledgements.
	readBuffer  = 128 << 10
	writeBuffer = 32 << 10
)

// session is one agent's connection. Its writer is used by serve's goroutine alone, but for Sync.
type session struct {
	srv    *Server
	vault  *Vault
	conn   *tls.Conn
	wire   *wire.Conn
	log    *slog.Logger
	key    sessionKey
	hello  *wire.Hello
	claim  claim
	cancel context.CancelCauseFunc
	done   chan struct{} // closed when the writer is closed

	expires *time.Timer

	w        Writer
	sums     []block.Sum // for answers
	received uint64      // number of the newest message taken in
	asked    uint64      // number that was asked to be made safe; asked <= received
	unsynced int64       // bytes in between
	dueSync  *time.Timer
	due      bool
	held     int64 // bytes taken in and not in the bucket: this session's part of the spool

	syncs chan uint64 // cap 1: the newest asked number that syncer did not look at yet

	ackMu sync.Mutex // guards acked
	acked uint64     // number acknowledged
}

// greet shakes hands and verifies Hello. An error was told to the agent if it could be.
func (s *Server) greet(ctx context.Context, raw net.Conn) (*session, error) {
	ctx, cancel := context.WithTimeout(ctx, helloTimeout)
	defer cancel()
	conn := tls.Server(wire.NewStream(raw, readBuffer, writeBuffer), s.tlsConfig())
	if err := conn.HandshakeContext(ctx); err != nil {
		return nil, fmt.Errorf("shake hands: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { _ = raw.SetDeadline(time.Now()) })
	defer stop()
	state := conn.ConnectionState()
	v, err := s.cfg.Vault(state.ServerName)
	if err != nil {
		return nil, err
	}
	w := wire.NewConn(conn)
	if err := w.SendPreface(); err != nil {
		return nil, err
	}
	if err := w.ReceivePreface(); err != nil {
		return nil, errors.Join(err, refuse(w, faultOf(err)))
	}
	m, err := w.Receive()
	if err != nil {
		return nil, errors.Join(err, refuse(w, faultOf(err)))
	}
	hello, ok := m.(*wire.Hello)
	if !ok || hello.Machine == "" || hello.Generation < 1 || len(hello.Disks) == 0 {
		err := &wire.Fault{Code: wire.CodeInvalid, Message: "a session starts with a machine, a generation and disks"}
		return nil, errors.Join(err, refuse(w, err))
	}
	c := claim{vault: v.ID, agent: state.PeerCertificates[0].Subject.CommonName, machine: hello.Machine, generation: hello.Generation, disks: hello.Disks}
	expires, err := checkGrant(hello.Grant, v.GrantKey, c, s.cfg.Now())
	if err != nil {
		return nil, errors.Join(err, refuse(w, faultOf(err)))
	}
	x := &session{
		srv: s, vault: v, conn: conn, wire: w, hello: hello, claim: c,
		key: sessionKey{v.ID, hello.Machine}, done: make(chan struct{}),
		expires: time.NewTimer(expires.Sub(s.cfg.Now())), dueSync: time.NewTimer(time.Hour), syncs: make(chan uint64, 1),
	}
	x.dueSync.Stop()
	return x, nil
}

func refuse(w *wire.Conn, f *wire.Fault) error { return w.Send(&wire.Refuse{Fault: *f}) }

// serve runs a session that may begin.
func (x *session) serve(ctx context.Context) error {
	defer x.expires.Stop()
	ctx, x.cancel = context.WithCancelCause(ctx)
	defer x.cancel(errStopped)
	if err := x.srv.enter(ctx, x); err != nil {
		return err
	}
	defer x.srv.leave(x)
	_ = x.conn.SetDeadline(time.Time{})
	// The deadline that a cancelled ctx sets lets a goodbye out and ends everything that waits for the agent.
	stop := context.AfterFunc(ctx, func() { _ = x.conn.SetReadDeadline(time.Now()) })
	defer stop()

	disks := make([]DiskInfo, len(x.hello.Disks))
	welcome := &wire.Welcome{Window: x.srv.cfg.Window}
	for i, d := range x.hello.Disks {
		disks[i] = DiskInfo{ID: d.ID, Size: d.Size, OS: d.OS}
		welcome.SumKeys = append(welcome.SumKeys, x.vault.Repository.SumKey(x.hello.Machine, d.ID))
	}
	w, err := x.vault.Repository.NewWriter(ctx, x.hello.Machine, x.hello.Generation, disks, filepath.Join(x.srv.cfg.Dir, x.vault.ID))
	if err != nil {
		return errors.Join(err, x.send(&wire.Refuse{Fault: *faultOf(err)}))
	}
	x.w = w
	if b := w.Base(); b != nil {
		welcome.Head = &wire.PointRef{Generation: b.Generation, Sequence: b.Sequence}
	}
	welcome.Clean = clean(w)
	x.log.Info("replication session opened", "head", welcome.Head, "clean", welcome.Clean)
	err = x.send(welcome)
	if err == nil {
		err = x.run(ctx)
	}
	if err != nil && !errors.Is(err, errAborted) {
		_ = x.conn.SetWriteDeadline(time.Now().Add(goodbyeTimeout))
		_ = x.wire.Send(&wire.Error{Fault: *faultOf(err)}) // the agent may be gone
	}
	return errors.Join(err, x.close(ctx))
}

// close ends the writer. What it holds goes to the bucket first, so that another process server can go on from there; when the
// process stops there is no time for that and the spool keeps it.
func (x *session) close(ctx context.Context) error {
	var err error
	if x.held > 0 && !errors.Is(context.Cause(ctx), errStopped) {
		cctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
		err = x.w.Checkpoint(cctx)
		cancel()
	}
	err = errors.Join(err, x.w.Close())
	x.srv.spool.give(x.held)
	x.held = 0
	return err
}

// send writes one message within writeTimeout.
func (x *session) send(m wire.Message) error {
	_ = x.conn.SetWriteDeadline(time.Now().Add(writeTimeout))
	return x.wire.Send(m)
}

// run reads messages in one goroutine and acts on them in this one, until the session ends.
func (x *session) run(ctx context.Context) error {
	messages := make(chan wire.Message, queued)
	ended := make(chan error, 1)
	go func() {
		defer close(messages)
		ended <- x.read(ctx, messages)
	}()
	var beside sync.WaitGroup
	beside.Go(func() { x.beat(ctx) })
	beside.Go(func() { x.syncer(ctx) })
	err := x.act(ctx, messages, ended)
	if cause := context.Cause(ctx); cause != nil && errors.Is(err, context.Canceled) {
		err = cause
	}
	x.cancel(errEnded) // ends all goroutines; an earlier cause stays
	for m := range messages {
		release(m)
	}
	beside.Wait()
	return err
}

func release(m wire.Message) {
	if d, ok := m.(*wire.Data); ok {
		d.Release()
	}
}

func (x *session) read(ctx context.Context, out chan<- wire.Message) error {
	for {
		_ = x.conn.SetReadDeadline(time.Now().Add(silenceLimit))
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		m, err := x.wire.Receive()
		if err != nil {
			return err
		}
		select {
		case out <- m:
		case <-ctx.Done():
			release(m)
			return context.Cause(ctx)
		}
	}
}

func (x *session) beat(ctx context.Context) {
	t := time.NewTicker(heartbeatEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			if err := x.send(&wire.Heartbeat{}); err != nil {
				x.cancel(err)
				return
			}
		}
	}
}

func (x *session) act(ctx context.Context, messages <-chan wire.Message, ended <-chan error) error {
	for {
		pressed := x.srv.spool.pressed()
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-x.expires.C:
			return &wire.Fault{Code: wire.CodePrecondition, Message: "the grant expired",
				Causes: "The agent did not bring a younger grant; it may have lost lifeboatd.", Action: "Check that the agent reaches lifeboatd."}
		case <-x.dueSync.C:
			x.due = false
			x.sync()
		case <-pressed:
			if err := x.checkpoint(ctx); err != nil {
				return err
			}
		case m, ok := <-messages:
			if !ok {
				return <-ended
			}
			if err := x.handle(ctx, m); err != nil {
				return err
			}
		}
	}
}
