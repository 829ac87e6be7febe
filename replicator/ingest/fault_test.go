package ingest_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"time"

	"gocloud.dev/blob/memblob"

	"github.com/lifeboat-dr/lifeboat/replicator/block"
	"github.com/lifeboat-dr/lifeboat/replicator/faultbucket/faulttest"
	"github.com/lifeboat-dr/lifeboat/replicator/ingest"
	"github.com/lifeboat-dr/lifeboat/replicator/repo"
	"github.com/lifeboat-dr/lifeboat/replicator/wire"
	"github.com/lifeboat-dr/lifeboat/sdk/fleet"
)

// TestEveryBucketCallOfASessionMayFail meets every bucket call of two sessions, the second of which resumes what the first left,
// with every kind of fault. What was told Durable is there, whatever else is there is right, and the next session gets through.
func TestEveryBucketCallOfASessionMayFail(t *testing.T) {
	t.Parallel()
	faulttest.EveryCall(t, 30, func(t *testing.T, run *faulttest.Run) {
		s := newFaultRig(t, run)
		run.Arm()
		err := s.story(run)
		run.Disarm()
		if err != nil && run.Counts() {
			t.Fatal(err)
		}
		s.checkClean(run, err)
		s.checkPoints(run, "after "+fmt.Sprint(err))
		after := s.session(func(a *faultAgent) error { return a.ship() })
		switch {
		case after == nil:
			s.checkPoints(run, "after the next session")
		case run.Damages():
			s.checkClean(run, after)
		default:
			t.Errorf("after %v, the next session: %v", err, after)
		}
	})
}

const faultDisk = 96<<10 + block.Sector

// faultRig is a server on a bucket with faults, a connection to it in memory, and the machine whose disk an agent ships.
type faultRig struct {
	t      *testing.T
	ca     *authority
	grants ed25519.PrivateKey
	agent  tls.Certificate
	repo   *repo.Repository
	conns  memoryListener

	rng   *rand.Rand
	disk  []byte
	acked map[repo.PointRef][]byte // told Durable, with what it has to hold
	last  []byte                   // sealed last; whether it became a point may be unknown
}

func newFaultRig(t *testing.T, run *faulttest.Run) *faultRig {
	t.Helper()
	s := &faultRig{t: t, ca: newAuthority(), rng: rand.New(rand.NewPCG(3, 3)), disk: make([]byte, faultDisk), acked: map[repo.PointRef][]byte{}, conns: newMemoryListener()}
	b := memblob.OpenBucket(nil)
	s.repo = must(repo.Open(t.Context(), run.Bucket(b), vaultID, repo.Key{1}, nil, repo.Options{}))
	if err := s.repo.OpenGeneration(t.Context(), machineID, 1, nil); err != nil {
		t.Fatal(err)
	}
	pub, priv, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	s.grants, s.agent = priv, s.ca.issue(agentID)
	v := &ingest.Vault{ID: vaultID, Certificate: s.ca.issue("replicator"), ClientCAs: s.ca.pool, GrantKey: pub, Repository: ingest.FromRepo(s.repo)}
	server := must(ingest.New(ingest.Config{Vault: func(string) (*ingest.Vault, error) { return v, nil }, Dir: t.TempDir()}))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- server.Serve(ctx, s.conns) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("serve: %v", err)
		}
		if n := server.Stats(); n.Sessions != 0 || n.SpoolBytes != 0 {
			t.Errorf("after the server ended: %+v", n)
		}
		_ = b.Close()
	})
	return s
}

// story is a session with a point and more, which breaks off, and one that finds the rest and goes on. Only a record of the rest
// that does not verify, however often it is read, makes the agent ship it again.
func (s *faultRig) story(run *faulttest.Run) error {
	s.scribble()
	err := s.session(func(a *faultAgent) error {
		if err := a.ship(); err != nil {
			return err
		}
		s.scribble()
		return a.put() // acknowledged, and then the line is cut
	})
	if err != nil {
		return err
	}
	s.scribble()
	return s.session(func(a *faultAgent) error {
		if a.clean && !run.Damages() && (!run.Flips() || !run.Lasts()) {
			return errors.New("the server forgot what it had acknowledged")
		}
		if err := a.ship(); err != nil {
			return err
		}
		s.scribble()
		clear(s.disk[block.Size : 3*block.Size])
		return a.ship()
	})
}

func (s *faultRig) scribble() {
	off := s.rng.IntN(faultDisk - 5000)
	for i := range 5000 {
		s.disk[off+i] = byte(s.rng.Uint32())
	}
}

// checkClean wants an error to be one that the server told, with a code that lets the agent go on later.
func (s *faultRig) checkClean(run *faulttest.Run, err error) {
	s.t.Helper()
	if err == nil {
		return
	}
	told, ok := errors.AsType[*wire.Fault](err)
	if !ok || told.Message == "" || told.Code != wire.CodeUnavailable && told.Code != wire.CodeExhausted && (told.Code != wire.CodeCorrupt || !run.Flips()) {
		s.t.Errorf("the session ended with %v, want a clean reason", err)
	}
}

// checkPoints reads every point of the log. The acknowledged ones are there, and all hold what their seal said.
func (s *faultRig) checkPoints(run *faulttest.Run, when string) {
	s.t.Helper()
	points, err := s.repo.Points(s.t.Context(), machineID)
	if err != nil && (!run.Damages() || !errors.Is(err, repo.ErrCorrupt)) {
		s.t.Errorf("%s: points: %v", when, err)
	}
	missing := maps.Clone(s.acked)
	for _, p := range points {
		delete(missing, p.PointRef)
		want, acked := s.acked[p.PointRef]
		if !acked {
			want = s.last
		}
		got, err := s.read(p.PointRef)
		switch {
		case run.Damages() && errors.Is(err, repo.ErrCorrupt):
		case err != nil:
			s.t.Errorf("%s: point %v, acknowledged %v: %v", when, p.PointRef, acked, err)
		case !bytes.Equal(got, want):
			s.t.Errorf("%s: point %v, acknowledged %v, holds other bytes", when, p.PointRef, acked)
		}
	}
	if len(missing) > 0 && !run.Damages() {
		s.t.Errorf("%s: %d acknowledged points are missing", when, len(missing))
	}
}

func (s *faultRig) read(ref repo.PointRef) ([]byte, error) {
	snap, err := s.repo.OpenPoint(s.t.Context(), machineID, ref)
	if err != nil {
		return nil, err
	}
	defer snap.Close()
	d, err := snap.Disk("disk0")
	if err != nil {
		return nil, err
	}
	got := make([]byte, faultDisk)
	return got, d.ReadAt(s.t.Context(), got, 0)
}

// session is one connection of the agent, from Hello to a line that is cut.
func (s *faultRig) session(f func(*faultAgent) error) error {
	raw, server := net.Pipe()
	s.conns.conns <- server
	conn := tls.Client(raw, &tls.Config{MinVersion: tls.VersionTLS13, ServerName: serverName, RootCAs: s.ca.pool, Certificates: []tls.Certificate{s.agent}})
	a := &faultAgent{Conn: wire.NewConn(conn), rig: s, heard: make(chan wire.Message, 64)}
	var wg sync.WaitGroup
	defer wg.Wait()
	defer raw.Close()
	if err := a.SendPreface(); err != nil {
		return err
	}
	grant := sign(s.grants, fleet.GrantClaims{Vault: vaultID, Machine: machineID, Agent: agentID, Generation: 1, Exp: time.Now().Add(time.Hour).Unix(),
		Disks: []fleet.GrantDisk{{Id: "disk0", SizeBytes: faultDisk}}})
	if err := a.Send(&wire.Hello{Grant: grant, Machine: machineID, Generation: 1, Disks: []wire.Disk{{ID: "disk0", Size: faultDisk, OS: true}}}); err != nil {
		return err
	}
	if err := a.ReceivePreface(); err != nil {
		return err
	}
	wg.Go(a.listen)
	welcome, err := hear[*wire.Welcome](a)
	if err != nil {
		return err
	}
	a.clean, a.key = welcome.Clean, welcome.SumKeys[0]
	return f(a)
}

// faultAgent ships a disk. It reads all the time, because a line in memory holds nothing.
type faultAgent struct {
	*wire.Conn
	rig   *faultRig
	key   block.SumKey
	clean bool
	seq   uint64
	heard chan wire.Message // closed at the end
}

func (a *faultAgent) listen() {
	defer close(a.heard)
	for {
		m, err := a.Receive()
		if err != nil {
			return
		}
		a.heard <- m
	}
}

// hear waits for a message of a type, and returns the reason when the server ends the session instead.
func hear[T wire.Message](a *faultAgent) (T, error) {
	var none T
	for m := range a.heard {
		switch m := m.(type) {
		case T:
			return m, nil
		case *wire.Refuse:
			return none, &m.Fault
		case *wire.Error:
			return none, &m.Fault
		}
	}
	return none, errors.New("the server hung up without a word")
}

// put ships every block whose sum the server does not have, and returns when they are acknowledged.
func (a *faultAgent) put() error {
	disk := a.rig.disk
	if err := a.Send(&wire.SumsRequest{Count: uint32(block.Count(faultDisk))}); err != nil {
		return a.why(err)
	}
	have, err := hear[*wire.Sums](a)
	if err != nil {
		return err
	}
	sent := a.seq
	for i, sum := range have.Sums {
		e := block.Extent{Offset: int64(i) * block.Size, Length: block.Length(int64(i), faultDisk)}
		p := disk[e.Offset:e.End()]
		now := block.NewSummer(a.key).Of(p)
		if now == sum {
			continue
		}
		a.seq++
		var m wire.Message = &wire.Data{Sequence: a.seq, Extents: []block.Extent{e}, Sums: []block.Sum{now}, Bytes: p}
		if now == (block.Sum{}) {
			m = &wire.Zero{Sequence: a.seq, Extents: []block.Extent{e}}
		}
		if err := a.Send(m); err != nil {
			return a.why(err)
		}
	}
	for acked := sent; acked < a.seq; {
		ack, err := hear[*wire.Ack](a)
		if err != nil {
			return err
		}
		acked = ack.Sequence
	}
	return nil
}

// ship makes a point of the disk.
func (a *faultAgent) ship() error {
	if err := a.put(); err != nil {
		return err
	}
	a.rig.last = bytes.Clone(a.rig.disk)
	if err := a.Send(&wire.Seal{Sequence: a.seq, Time: time.Now(), Consistency: "CrashConsistent"}); err != nil {
		return a.why(err)
	}
	m, err := hear[*wire.Durable](a)
	if err == nil {
		a.rig.acked[repo.PointRef(m.Point)] = a.rig.last
	}
	return err
}

// why returns the server's reason for a line that takes nothing any more.
func (a *faultAgent) why(err error) error {
	if _, told := hear[*wire.Durable](a); told != nil {
		return told
	}
	return err
}

// memoryListener accepts what a test puts in.
type memoryListener struct {
	conns chan net.Conn
	done  chan struct{}
	once  *sync.Once
}

func newMemoryListener() memoryListener {
	return memoryListener{conns: make(chan net.Conn), done: make(chan struct{}), once: new(sync.Once)}
}

func (l memoryListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l memoryListener) Close() error {
	l.once.Do(func() { close(l.done) })
	return nil
}

func (memoryListener) Addr() net.Addr { return &net.UnixAddr{Name: "memory", Net: "unix"} }
