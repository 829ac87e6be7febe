// Package group lets the machines of a consistency group be captured at one moment: its members choose a coordinator and meet at a
// barrier, over TCP between their agents. It says when a capture may freeze, seal and thaw, and which points share the group's id.
// It freezes nothing itself, trusts no clock but a machine's own for waiting, and never gives the id without the proof of every
// member that it stood at a moment when all others did. What travels is in docs/wire.md; why a group's point is of all its members
// or of none, in docs/decisions.
package group

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"time"
)

// DefaultPort is where members listen.
const DefaultPort = 20004

// Group is what lifeboatd tells a member of its group.
type Group struct {
	ID       string
	Name     string
	Interval time.Duration // from the begin of one round to that of the next
	// Hold is how long a member may keep its filesystems frozen. Nobody waits longer than half of it for others while they stand. 0
	// means 10 seconds.
	Hold    time.Duration
	Members []Peer // ordered by id; this one is among them
}

// Peer is a member as others reach it.
type Peer struct {
	ID        string   // of the machine
	Agent     string   // id of the agent that captures it, and common name of the agent's certificate; may have several members
	Name      string   // for people
	Addresses []string // host:port; all are tried
}

// roster names the list of members: only those who know the same list meet.
func (g Group) roster() string {
	h := sha256.New()
	fmt.Fprintf(h, "%q", g.ID)
	for _, p := range g.Members {
		fmt.Fprintf(h, " %q %q", p.ID, p.Agent)
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}

// Config is what a Node needs. Self and Identity are required.
type Config struct {
	Self string // this agent's id
	// Identity returns this agent's certificate and the vault's authority, which signed those of all members.
	Identity func() (tls.Certificate, *x509.CertPool, error)
	// Address is where to listen while there is a group. Empty means DefaultPort on every address.
	Address string
	Log     *slog.Logger
	// Changed is called when the status of a group changed. It must neither block nor call the node. May be nil.
	Changed func()

	limits limits                                     // for tests; zero fields are the defaults
	listen func(address string) (net.Listener, error) // for tests; nil: TCP
	dial   func(from, to string, limit time.Duration) (net.Conn, error)
}

// limits are the dead-lines of what does not hold a freeze.
type limits struct {
	reach    time.Duration // dialling a member and the handshake
	gather   time.Duration // from Prepare until all captures are ready
	prove    time.Duration // from the thaw until all have said that they stood
	patience time.Duration // by which each member lets the one before it in the order take the lead
	first    time.Duration // until the first round of a group that is new here
}

var defaults = limits{reach: 3 * time.Second, gather: 30 * time.Second, prove: 5 * time.Second, patience: 3 * time.Second, first: 2 * time.Second}

func (l limits) orDefaults() limits {
	for _, x := range []struct {
		to   *time.Duration
		from time.Duration
	}{{&l.reach, defaults.reach}, {&l.gather, defaults.gather}, {&l.prove, defaults.prove}, {&l.patience, defaults.patience}, {&l.first, defaults.first}} {
		if *x.to == 0 {
			*x.to = x.from
		}
	}
	return l
}

// Membership is a group, and how the machine that is its member is captured.
type Membership struct {
	Group Group
	// Call has the machine captured as soon as it can be, through Node.Join. An error says why it cannot: the member misses the round.
	// It must neither block nor call the node.
	Call func() error
}

// Status tells how a member's rounds go.
type Status struct {
	Group       string
	Coordinator string    // machine whose agent led the last round; empty before the first
	LastID      string    // id of the last point of the group that this member proved; empty before the first
	LastTime    time.Time // when that was
	// Missed names the members without which the last round gave no point of the group. Empty when it did.
	Missed []Missed
}

// MissedError tells why a capture is the machine's own and not a group's.
type MissedError struct {
	Group  string   // its name
	Missed []Missed // by name
}

func (e *MissedError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "there was no point of group %s", e.Group)
	for i, m := range e.Missed {
		sep := "; "
		if i == 0 {
			sep = ": "
		}
		fmt.Fprintf(&b, "%s%s: %s", sep, m.Member, m.Reason)
	}
	return b.String()
}
