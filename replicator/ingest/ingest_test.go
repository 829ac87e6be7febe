package ingest_test

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lifeboat-dr/lifeboat/replicator/block"
	"github.com/lifeboat-dr/lifeboat/replicator/ingest"
	"github.com/lifeboat-dr/lifeboat/replicator/wire"
	"github.com/lifeboat-dr/lifeboat/sdk/fleet"
)

func TestPointIsCommittedAndToldBeforeDurable(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	c, w := r.welcome()
	if w.Head != nil || !w.Clean {
		t.Errorf("got head %v, clean %v for a machine without points", w.Head, w.Clean)
	}
	b := noise(1 << 20)
	c.put(w.SumKeys[0], 1<<20, b)
	c.put(w.SumKeys[0], diskSize-512, b[:512])
	if a := want[*wire.Ack](c); a.Sequence == 0 || a.Sequence > 2 {
		t.Errorf("got an acknowledgement of %d", a.Sequence)
	}
	c.seal()
	d := want[*wire.Durable](c)
	if d.Point != (wire.PointRef{Generation: 1, Sequence: 1}) {
		t.Errorf("got point %+v", d.Point)
	}
	r.mu.Lock()
	if len(r.points) != 1 || r.points[0].Sequence != 1 || r.points[0].Machine != machineID {
		t.Errorf("the sink was told %+v before Durable", r.points)
	}
	r.mu.Unlock()
	points, err := r.repo.Points(context.Background(), machineID)
	if err != nil || len(points) != 1 {
		t.Errorf("got %d points and %v after Durable", len(points), err)
	}
	if err := c.Send(&wire.SumsRequest{First: 256, Count: 256}); err != nil {
		t.Fatal(err)
	}
	for i, s := range want[*wire.Sums](c).Sums {
		if s != block.NewSummer(w.SumKeys[0]).Of(b[i*block.Size:(i+1)*block.Size]) {
			t.Fatalf("sum of block %d differs", 256+i)
		}
	}
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	_, stranger, _ := ed25519.GenerateKey(rand.Reader)
	for name, tc := range map[string]struct {
		change func(*wire.Hello, *fleet.GrantClaims)
		key    ed25519.PrivateKey
		code   string
		want   string
	}{
		"a grant of another vault's key":  {key: stranger, code: wire.CodePrecondition, want: "signature"},
		"a grant that expired":            {change: func(_ *wire.Hello, c *fleet.GrantClaims) { c.Exp = time.Now().Unix() - 1 }, code: wire.CodePrecondition, want: "expired"},
		"a grant for another vault":       {change: func(_ *wire.Hello, c *fleet.GrantClaims) { c.Vault = "x" }, code: wire.CodePrecondition, want: "another vault"},
		"a grant for another agent":       {change: func(_ *wire.Hello, c *fleet.GrantClaims) { c.Agent = "x" }, code: wire.CodePrecondition, want: "certificate names"},
		"a grant for another machine":     {change: func(_ *wire.Hello, c *fleet.GrantClaims) { c.Machine = "x" }, code: wire.CodePrecondition, want: "machine"},
		"a grant for another generation":  {change: func(_ *wire.Hello, c *fleet.GrantClaims) { c.Generation = 2 }, code: wire.CodePrecondition, want: "generation"},
		"a disk the grant does not cover": {change: func(h *wire.Hello, _ *fleet.GrantClaims) { h.Disks[0].ID = "x" }, code: wire.CodePrecondition, want: "does not cover"},
		"a disk twice": {change: func(h *wire.Hello, c *fleet.GrantClaims) {
			h.Disks = append(h.Disks, h.Disks[0])
			c.Disks = append(c.Disks, fleet.GrantDisk{Id: "y", SizeBytes: diskSize})
		}, code: wire.CodePrecondition, want: "does not cover"},
		"a disk of another size": {change: func(h *wire.Hello, _ *fleet.GrantClaims) { h.Disks[0].Size = 4096 }, code: wire.CodePrecondition, want: "bytes"},
		"fewer disks than granted": {change: func(_ *wire.Hello, c *fleet.GrantClaims) {
			c.Disks = append(c.Disks, fleet.GrantDisk{Id: "y", SizeBytes: 1})
		}, code: wire.CodePrecondition, want: "disks"},
		"no disks":                           {change: func(h *wire.Hello, c *fleet.GrantClaims) { h.Disks, c.Disks = nil, nil }, code: wire.CodeInvalid, want: "starts with"},
		"a generation that was never opened": {change: func(h *wire.Hello, c *fleet.GrantClaims) { h.Generation, c.Generation = 2, 2 }, code: wire.CodeUnavailable, want: "not open yet"},
		"a token that is none":               {change: func(h *wire.Hello, _ *fleet.GrantClaims) { h.Grant = "x" }, code: wire.CodePrecondition, want: "signed token"},
		"a token without a signature (none)": {change: func(h *wire.Hello, _ *fleet.GrantClaims) { h.Grant = "eyJhbGciOiJub25lIn0.e30." }, code: wire.CodePrecondition, want: "signed token"},
	} {
		t.Run(name, func(t *testing.T) {
			h, c, key := r.hello(), r.claims(), r.grants
			raw := h.Grant
			if tc.change != nil {
				tc.change(h, &c)
			}
			if tc.key != nil {
				key = tc.key
			}
			if h.Grant == raw {
				h.Grant = sign(key, c)
			}
			_, m := r.open(h)
			f, ok := m.(*wire.Refuse)
			if !ok {
				t.Fatalf("got %+v, want a refusal", m)
			}
			if f.Code != tc.code || !strings.Contains(f.Message, tc.want) {
				t.Errorf("got %s: %q, want %s with %q", f.Code, f.Message, tc.code, tc.want)
			}
		})
	}
	t.Run("a certificate of another authority", func(t *testing.T) {
		c, err := r.connect(newAuthority().issue(agentID), serverName)
		if err == nil {
			err = c.Send(r.hello())
		}
		if err == nil {
			err = c.ReceivePreface()
		}
		if err == nil {
			t.Error("the session was opened")
		}
	})
	t.Run("a server name of no vault", func(t *testing.T) {
		if _, err := r.connect(r.ca.issue(agentID), "other.data"); err == nil {
			t.Error("the handshake went through")
		}
	})
	t.Run("a generation that is closed", func(t *testing.T) {
		if _, err := r.repo.CloseGeneration(context.Background(), machineID, 1, "test"); err != nil {
			t.Fatal(err)
		}
		_, m := r.open(r.hello())
		if f, ok := m.(*wire.Refuse); !ok || f.Code != wire.CodeFenced {
			t.Errorf("got %+v, want a refusal as fenced", m)
		}
	})
}

func TestGenerationClosedUnderASessionFencesIt(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	c, w := r.welcome()
	c.put(w.SumKeys[0], 0, noise(4096))
	want[*wire.Ack](c)
	if _, err := r.repo.CloseGeneration(context.Background(), machineID, 1, "test"); err != nil {
		t.Fatal(err)
	}
	c.seal()
	if e := want[*wire.Error](c); e.Code != wire.CodeFenced {
		t.Errorf("got %+v, want fenced", e.Fault)
	}
	if points, err := r.repo.Points(context.Background(), machineID); err != nil || len(points) != 0 {
		t.Errorf("got %d points and %v", len(points), err)
	}
}

func TestSecondSessionDisplacesTheFirstAndGoesOn(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	first, w := r.welcome()
	b := noise(8192)
	first.put(w.SumKeys[0], 0, b)
	want[*wire.Ack](first)
	second, w2 := r.welcome()
	if e := want[*wire.Error](first); e.Code != wire.CodeConflict {
		t.Errorf("got %+v for the first session, want conflict", e.Fault)
	}
	if w2.Clean {
		t.Error("the second session was told that nothing is held beyond the head")
	}
	if err := second.Send(&wire.SumsRequest{Count: 2}); err != nil {
		t.Fatal(err)
	}
	if s := want[*wire.Sums](second).Sums; s[1] != block.NewSummer(w.SumKeys[0]).Of(b[4096:]) {
		t.Error("what the first session shipped is not held")
	}
}

func TestBadMessagesEndTheSessionWithAReason(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	one := func(seq uint64, disk uint16, off int64) *wire.Data {
		return &wire.Data{Sequence: seq, Disk: disk, Extents: []block.Extent{{Offset: off, Length: 4096}}, Sums: make([]block.Sum, 1), Bytes: make([]byte, 4096)}
	}
	for name, tc := range map[string]struct {
		m    wire.Message
		want string
	}{
		"a number left out":             {one(2, 0, 0), "came after"},
		"a disk that is not there":      {one(1, 1, 0), "no disk"},
		"data beyond the disk":          {one(1, 0, diskSize-512), "does not fit"},
		"zeros beyond the disk":         {&wire.Zero{Sequence: 1, Extents: []block.Extent{{Offset: 0, Length: 1 << 40}}}, "does not fit"},
		"a short block inside the disk": {&wire.Zero{Sequence: 1, Extents: []block.Extent{{Offset: 0, Length: 512}}}, "does not fit"},
		"sums beyond the disk":          {&wire.SumsRequest{First: diskSize / 4096, Count: 2}, "no blocks"},
		"a seal of what was not sent":   {&wire.Seal{Sequence: 3, Time: time.Now(), Consistency: "CrashConsistent"}, "asked for"},
		"a seal without a time":         {&wire.Seal{Consistency: "CrashConsistent"}, "instant"},
		"an unknown consistency":        {&wire.Seal{Time: time.Now(), Consistency: "best"}, "consistency"},
		"a second hello":                {r.hello(), "does not belong"},
		"a grant for another machine":   {&wire.Grant{Grant: sign(r.grants, fleet.GrantClaims{Exp: time.Now().Add(time.Hour).Unix()})}, "grant was refused"},
	} {
		t.Run(name, func(t *testing.T) {
			c, _ := r.welcome()
			if err := c.Send(tc.m); err != nil {
				t.Fatal(err)
			}
			if e := want[*wire.Error](c); !strings.Contains(e.Message, tc.want) {
				t.Errorf("got %q, want %q in it", e.Message, tc.want)
			}
		})
	}
	t.Run("bytes that are no message", func(t *testing.T) {
		c, _ := r.welcome()
		if _, err := c.conn.Write([]byte(strings.Repeat("x", 64))); err != nil {
			t.Fatal(err)
		}
		if e := want[*wire.Error](c); e.Code != wire.CodeInvalid {
			t.Errorf("got %+v", e.Fault)
		}
	})
}

func TestGrantEndsASessionUnlessRenewed(t *testing.T) {
	t.Parallel()
	var now struct {
		sync.Mutex
		at time.Time
	}
	now.at = time.Now()
	r := newRig(t, func(c *ingest.Config, _ *ingest.Vault) {
		c.Now = func() time.Time {
			now.Lock()
			defer now.Unlock()
			return now.at
		}
	})
	h := r.hello()
	c := r.claims()
	c.Exp = now.at.Unix() + 2
	h.Grant = sign(r.grants, c)
	a, _ := r.open(h)
	c.Exp = now.at.Unix() + 3600
	if err := a.Send(&wire.Grant{Grant: sign(r.grants, c)}); err != nil {
		t.Fatal(err)
	}
	_ = a.conn.SetReadDeadline(time.Now().Add(2500 * time.Millisecond))
	if m, err := a.next(); err == nil {
		t.Errorf("a renewed session got %+v", m)
	}
	b, _ := r.open(h) // displaces; its own grant is short
	if e := want[*wire.Error](b); !strings.Contains(e.Message, "expired") {
		t.Errorf("got %q", e.Message)
	}
}

func TestDropEndsTheSessionsOfAVault(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	c, _ := r.welcome()
	r.server.Drop("another")
	r.server.Drop(vaultID)
	if e := want[*wire.Error](c); e.Code != wire.CodeUnavailable {
		t.Errorf("got %+v", e.Fault)
	}
}

// gated is a repository whose writers reach the bucket only when let through.
type gated struct {
	ingest.Repository
	open chan struct{}
}

type gatedWriter struct {
	ingest.Writer
	open chan struct{}
}

func (g gated) NewWriter(ctx context.Context, machine string, gen int64, disks []ingest.DiskInfo, dir string) (ingest.Writer, error) {
	w, err := g.Repository.NewWriter(ctx, machine, gen, disks, dir)
	return gatedWriter{w, g.open}, err
}

func (g gatedWriter) Checkpoint(ctx context.Context) error {
	select {
	case <-g.open:
		return g.Writer.Checkpoint(ctx)
	case <-ctx.Done():
		return ctx.Err()
	}
}

func TestFullSpoolMakesAgentsWait(t *testing.T) {
	t.Parallel()
	open := make(chan struct{})
	r := newRig(t, func(c *ingest.Config, v *ingest.Vault) {
		c.SpoolLimit = 4 << 20
		v.Repository = gated{v.Repository, open}
	})
	c, w := r.welcome()
	const all = 32
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		for i := range all {
			b := noise(1 << 20)
			c.put(w.SumKeys[0], int64(i)<<20, b)
		}
	}()
	var acked uint64
	for acked < 4 { // what fits is taken in and synced
		acked = want[*wire.Ack](c).Sequence
	}
	if n := r.server.Stats().SpoolBytes; acked != 4 || n != 4<<20 {
		t.Errorf("got %d messages acknowledged and %d bytes in the spool, want 4 and %d", acked, n, 4<<20)
	}
	select {
	case <-sent:
		t.Error("everything was sent into a full spool")
	default:
	}
	close(open)
	for acked < all {
		acked = want[*wire.Ack](c).Sequence
		if n := r.server.Stats().SpoolBytes; n > 4<<20 {
			t.Fatalf("%d bytes in the spool, its limit is %d", n, 4<<20)
		}
	}
	<-sent
	c.seal()
	want[*wire.Durable](c)
	if n := r.server.Stats(); n.SpoolBytes != 0 || n.TotalBytes != all<<20 || n.Points != 1 {
		t.Errorf("got %+v after the point", n)
	}
}

func TestGarbageOnThePortDoesNoHarm(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	for range 20 {
		conn, err := net.Dial("tcp", r.addr)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = conn.Write(noise(300))
		_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
		if _, err := io.Copy(io.Discard, conn); err != nil && errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		_ = conn.Close()
	}
	r.welcome()
}
