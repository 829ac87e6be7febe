package ship

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/lifeboat-dr/lifeboat/agent/track/scan"
	"github.com/lifeboat-dr/lifeboat/replicator/block"
	"github.com/lifeboat-dr/lifeboat/replicator/wire"
	"github.com/lifeboat-dr/lifeboat/sdk/fleet"
)

const (
	dialTimeout    = 15 * time.Second
	welcomeTimeout = 60 * time.Second // another session of this machine may have to end first
	silenceLimit   = 60 * time.Second
	heartbeatEvery = 10 * time.Second
	lastWords      = time.Second // after a failed send, for the replicator's error to arrive

	maxUnacked   = 16 << 10 // messages
	sumsInFlight = 4

	// Of the stream below TLS. What is read are acknowledgements and, at the start of some sessions, sums. What is written is
	// gathered in no more than the processor's cache keeps beside the data: 256 KiB cost a tenth more.
	readBuffer  = 16 << 10
	writeBuffer = 128 << 10
)

// link is a session's connection. A replicator that is short of room stops reading, so sending may take as long as it wants; that
// it lives shows in its heartbeats.
type link struct {
	conn    *tls.Conn
	wire    *wire.Conn
	welcome *wire.Welcome
	sums    chan *wire.Sums
	durable chan *wire.Durable
	done    chan struct{} // closed when err is set
	pace    *pace

	mu       sync.Mutex // guards the rest
	moved    chan struct{}
	sequence uint64
	unacked  []sent // in order
	inFlight int64  // bytes of them, and those about to be sent: inFlight <= welcome.Window, but for a single message
	waiting  int    // messages about to be sent
	err      error
}

type sent struct {
	sequence uint64
	bytes    int64
}

// dial opens a session with a replicator. A refusal is a *Fault, that of a fenced machine also errFenced.
func (p *Protector) dial(ctx context.Context, to fleet.ReplicatorAddress, hello *wire.Hello) (*link, error) {
	cert, pool, err := p.cfg.Identity()
	if err != nil {
		return nil, err
	}
	raw, err := (&net.Dialer{Timeout: dialTimeout}).DialContext(ctx, "tcp", to.Address)
	if err != nil {
		return nil, &Fault{Code: "unavailable", Message: fmt.Sprintf("replicator %s cannot be reached: %v", to.Address, err),
			Causes: "It is down, or a firewall is in the way.", Action: "Check that this machine may connect to its data port."}
	}
	conn := tls.Client(wire.NewStream(raw, readBuffer, writeBuffer), &tls.Config{
		MinVersion: tls.VersionTLS13, ServerName: to.ServerName, RootCAs: pool, Certificates: []tls.Certificate{cert},
		DynamicRecordSizingDisabled: true,
	})
	l := &link{
		conn: conn, wire: wire.NewConn(conn), sums: make(chan *wire.Sums, sumsInFlight), durable: make(chan *wire.Durable, 1),
		done: make(chan struct{}), moved: make(chan struct{}), pace: &p.pace,
	}
	if err := l.open(ctx, hello); err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("open session with replicator %s: %w", to.Address, err)
	}
	return l, nil
}

func (l *link) open(ctx context.Context, hello *wire.Hello) error {
	stop := context.AfterFunc(ctx, func() { _ = l.conn.SetDeadline(time.Now()) })
	defer stop()
	hctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	if err := l.conn.HandshakeContext(hctx); err != nil {
		return err
	}
	_ = l.conn.SetDeadline(time.Now().Add(welcomeTimeout))
	if err := l.wire.SendPreface(); err != nil {
		return err
	}
	if err := l.wire.Send(hello); err != nil {
		return err
	}
	if err := l.wire.ReceivePreface(); err != nil {
		return err
	}
	m, err := l.wire.Receive()
	if err != nil {
		return err
	}
	switch m := m.(type) {
	case *wire.Welcome:
		if len(m.SumKeys) != len(hello.Disks) || m.Window < wire.MaxData {
			return fmt.Errorf("%w: welcome with %d keys for %d disks and a window of %d bytes", wire.ErrProtocol, len(m.SumKeys), len(hello.Disks), m.Window)
		}
		l.welcome = m
		_ = l.conn.SetDeadline(time.Time{})
		return ctx.Err()
	case *wire.Refuse:
		if m.Code == wire.CodeFenced {
			return errors.Join(&m.Fault, errFenced)
		}
		return &m.Fault
	}
	return fmt.Errorf("%w: %T instead of a welcome", wire.ErrProtocol, m)
}

// run receives until the link ends, and beats. It closes the connection.
func (l *link) run(ctx context.Context, beat func() *wire.Heartbeat) {
	stop := context.AfterFunc(ctx, func() { l.fail(context.Cause(ctx)) })
	defer stop()
	var wg sync.WaitGroup
	wg.Go(func() {
		t := time.NewTicker(heartbeatEvery)
		defer t.Stop()
		for {
			select {
			case <-l.done:
				return
			case <-t.C:
				if err := l.send(beat()); err != nil {
					return
				}
			}
		}
	})
	for {
		_ = l.conn.SetReadDeadline(time.Now().Add(silenceLimit))
		m, err := l.wire.Receive()
		if err == nil {
			err = l.take(m)
		}
		if err != nil {
			l.fail(err)
			break
		}
	}
	wg.Wait()
}

// fail ends the link once. It closes the connection, so that nobody waits for it.
func (l *link) fail(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err != nil {
		return
	}
	l.err = err
	close(l.done)
	// Closing below TLS: a TLS goodbye would wait for a send that is stuck.
	_ = l.conn.NetConn().Close()
}

func (l *link) failure() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
}

func (l *link) take(m wire.Message) error {
	switch m := m.(type) {
	case *wire.Ack:
		return l.acked(m.Sequence)
	case *wire.Sums:
		select {
		case l.sums <- m:
			return nil
		default:
			return fmt.Errorf("%w: sums nobody asked for", wire.ErrProtocol)
		}
	case *wire.Durable:
		select {
		case l.durable <- m:
			return nil
		default:
			return fmt.Errorf("%w: a point nobody asked for", wire.ErrProtocol)
		}
	case *wire.Heartbeat:
		return nil
	case *wire.Error:
		return &m.Fault
	}
	return fmt.Errorf("%w: %T does not belong here", wire.ErrProtocol, m)
}

func (l *link) acked(n uint64) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if n > l.sequence {
		return fmt.Errorf("%w: message %d was acknowledged before it was sent", wire.ErrProtocol, n)
	}
	i := 0
	for i < len(l.unacked) && l.unacked[i].sequence <= n {
		l.inFlight -= l.unacked[i].bytes
		i++
	}
	l.unacked = append(l.unacked[:0], l.unacked[i:]...)
	close(l.moved)
	l.moved = make(chan struct{})
	return nil
}

func (l *link) send(m wire.Message) error {
	if err := l.wire.Send(m); err != nil {
		return l.broken(err)
	}
	return nil
}

// broken ends the link after a send that did not work. If the replicator said why it hung up, that is the reason.
func (l *link) broken(err error) error {
	select {
	case <-l.done:
	case <-time.After(lastWords):
	}
	l.fail(err)
	return l.failure()
}

// ship sends a numbered message once the throttle lets it go and the window has room for it.
func (l *link) ship(m wire.Numbered, bytes int64) error {
	if !l.pace.take(bytes, l.done) {
		return l.failure()
	}
	l.pace.blocked.Begin()
	defer l.pace.blocked.End()
	l.mu.Lock()
	for {
		if l.err != nil {
			defer l.mu.Unlock()
			return l.err
		}
		if l.inFlight == 0 || l.inFlight+bytes <= l.welcome.Window && len(l.unacked)+l.waiting < maxUnacked {
			break
		}
		moved := l.moved
		l.mu.Unlock()
		select {
		case <-moved:
		case <-l.done:
		}
		l.mu.Lock()
	}
	l.inFlight += bytes
	l.waiting++
	l.mu.Unlock()
	err := l.wire.SendNumbered(m, func() uint64 {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.waiting--
		l.sequence++
		l.unacked = append(l.unacked, sent{l.sequence, bytes})
		return l.sequence
	})
	if err != nil {
		return l.broken(err)
	}
	return nil
}

// change ships what differs in one window of a disk.
func (l *link) change(disk int, c *scan.Change) error {
	if len(c.Extents) > 0 {
		m := &wire.Data{Disk: uint16(disk), Extents: c.Extents, Sums: c.ContentSums(), Bytes: c.Data}
		if err := l.ship(m, int64(len(c.Data))); err != nil {
			return err
		}
	}
	if len(c.Zeros) > 0 {
		m := &wire.Zero{Disk: uint16(disk), Extents: c.Zeros}
		return l.ship(m, int64(len(c.Zeros))*block.Sector)
	}
	return nil
}

// seal asks for a point of all that was shipped and waits until it is durable.
func (l *link) seal(ctx context.Context, m *wire.Seal) (*wire.Durable, error) {
	l.mu.Lock()
	m.Sequence = l.sequence
	l.mu.Unlock()
	if err := l.send(m); err != nil {
		return nil, err
	}
	select {
	case d := <-l.durable:
		l.mu.Lock() // a durable point covers everything
		l.unacked, l.inFlight = l.unacked[:0], 0
		l.mu.Unlock()
		return d, nil
	case <-l.done:
		return nil, l.failure()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// fetch makes the known sums of a disk those of the replicator.
func (l *link) fetch(ctx context.Context, disk int, size int64, into *scan.Scanner, read func(int64)) error {
	blocks := block.Count(size)
	var asked, got int64
	for got < blocks {
		for asked < blocks && asked-got < sumsInFlight*wire.MaxSums {
			n := min(wire.MaxSums, blocks-asked)
			if err := l.send(&wire.SumsRequest{Disk: uint16(disk), First: asked, Count: uint32(n)}); err != nil {
				return err
			}
			asked += n
		}
		select {
		case s := <-l.sums:
			if int(s.Disk) != disk || s.First != got || len(s.Sums) != int(min(wire.MaxSums, blocks-got)) {
				return fmt.Errorf("%w: sums of disk %d from %d, asked for disk %d from %d", wire.ErrProtocol, s.Disk, s.First, disk, got)
			}
			if err := keep(s, into); err != nil {
				return err
			}
			got += int64(len(s.Sums))
			read(int64(len(s.Sums)) * block.Size)
		case <-l.done:
			return l.failure()
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// keep takes sums over, window by window.
func keep(s *wire.Sums, into *scan.Scanner) error {
	page := make([]block.Sum, scan.WindowBlocks)
	for i := 0; i < len(s.Sums); i += scan.WindowBlocks {
		clear(page)
		copy(page, s.Sums[i:])
		if err := into.Adopt((s.First+int64(i))/scan.WindowBlocks, page); err != nil {
			return err
		}
	}
	return nil
}

// close says goodbye, if the link still lives, and ends it.
func (l *link) close(reason string) {
	_ = l.conn.SetWriteDeadline(time.Now().Add(time.Second))
	_ = l.wire.Send(&wire.Abort{Reason: reason})
	l.fail(net.ErrClosed)
}
