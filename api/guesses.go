package api

import (
	"context"
	"fmt"
	"math"
	"net/http"
	"net/netip"
	"strconv"
	"sync"
	"time"

	"github.com/lifeboat-dr/lifeboat/api/fleetoas"
	"github.com/lifeboat-dr/lifeboat/service/dr"
)

const (
	guessBurst = 10              // wrong registration keys that an address may send at once
	guessEvery = 6 * time.Second // one more is allowed
	// guessTable bounds how many addresses are told apart; 4096 of them take about 400 KiB.
	guessTable = 4096
	// enrolAtOnce bounds the enrolments under way; more of them wait. So many guesses may be made beyond the budget.
	enrolAtOnce = 4
)

// guesses bounds how often an address may try registration keys. Only refused keys count, so that a site that enrols a hundred
// machines through one address is not held up. An IPv6 network of 64 bits counts as one address. When more addresses guess than
// the table holds, those that came last share one budget. Safe for concurrent use.
type guesses struct {
	now   func() time.Time
	turns chan struct{} // holds one value for each enrolment under way

	mu     sync.Mutex // guards what follows
	by     map[netip.Prefix]*budget
	shared budget
}

// budget is a token bucket.
type budget struct {
	left float64
	at   time.Time // left was so many then
}

func newGuesses() *guesses {
	return &guesses{now: time.Now, turns: make(chan struct{}, enrolAtOnce), by: map[netip.Prefix]*budget{}, shared: budget{left: guessBurst}}
}

// limit lets an address enrol while it has guesses left.
func (g *guesses) limit(next fleetoas.StrictHandlerFunc, operation string) fleetoas.StrictHandlerFunc {
	if operation != "Enroll" {
		return next
	}
	return func(ctx context.Context, w http.ResponseWriter, r *http.Request, request any) (any, error) {
		select {
		case g.turns <- struct{}{}:
			defer func() { <-g.turns }()
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		from := sourceOf(r.RemoteAddr)
		if wait := g.wait(from); wait > 0 {
			seconds := int(math.Ceil(wait.Seconds()))
			w.Header().Set("Retry-After", strconv.Itoa(seconds))
			return nil, &dr.Error{Code: dr.CodeExhausted, Message: "Too many registration keys from this address were wrong.",
				PossibleCauses:    "Somebody guesses keys, or an installation goes on with a key that was used or has expired.",
				RecommendedAction: fmt.Sprintf("Create a new registration key, and try again after %d seconds.", seconds)}
		}
		response, err := next(ctx, w, r, request)
		if dr.CodeOf(err) == dr.CodeUnauthenticated {
			g.charge(from)
		}
		return response, err
	}
}

// wait returns how long the address must wait before its next guess; 0: not at all.
func (g *guesses) wait(from netip.Prefix) time.Duration {
	g.mu.Lock()
	defer g.mu.Unlock()
	b := g.by[from]
	if b == nil {
		if len(g.by) < guessTable {
			return 0
		}
		b = &g.shared
	}
	b.fill(g.now())
	return max(0, time.Duration((1-b.left)*float64(guessEvery)))
}

// charge counts a guess.
func (g *guesses) charge(from netip.Prefix) {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := g.now()
	b := g.of(from, now)
	b.fill(now)
	b.left--
}

// of returns the budget of an address. Full ones are forgotten when the table is full: they are what a new one would be.
func (g *guesses) of(from netip.Prefix, now time.Time) *budget {
	if b := g.by[from]; b != nil {
		return b
	}
	if len(g.by) >= guessTable {
		for p, b := range g.by {
			if b.fill(now); b.left >= guessBurst {
				delete(g.by, p)
			}
		}
	}
	if len(g.by) >= guessTable {
		return &g.shared
	}
	b := &budget{left: guessBurst, at: now}
	g.by[from] = b
	return b
}

func (b *budget) fill(now time.Time) {
	if passed := now.Sub(b.at); passed > 0 {
		b.left = min(guessBurst, b.left+float64(passed)/float64(guessEvery))
	}
	b.at = now
}

// sourceOf is who a connection comes from; the zero Prefix is everyone without an address.
func sourceOf(remote string) netip.Prefix {
	a, err := netip.ParseAddrPort(remote)
	if err != nil {
		return netip.Prefix{}
	}
	ip := a.Addr().Unmap().WithZone("")
	bits := 32
	if ip.Is6() {
		bits = 64
	}
	p, _ := ip.Prefix(bits) // bits fit the address
	return p
}
