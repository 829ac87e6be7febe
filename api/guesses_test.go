package api

import (
	"fmt"
	"net/netip"
	"testing"
	"time"
)

func TestGuessesAreBoundedByAddressAndInMemory(t *testing.T) {
	t.Parallel()
	now := time.Unix(1e9, 0)
	g := newGuesses()
	g.now = func() time.Time { return now }
	a, b := sourceOf("192.0.2.1:1000"), sourceOf("192.0.2.2:1000")
	for i := range guessBurst {
		if wait := g.wait(a); wait != 0 {
			t.Fatalf("guess %d had to wait %s", i, wait)
		}
		g.charge(a)
	}
	if wait := g.wait(a); wait != guessEvery {
		t.Errorf("got a wait of %s after the last guess, want %s", wait, guessEvery)
	}
	if wait := g.wait(b); wait != 0 {
		t.Errorf("another address had to wait %s", wait)
	}
	now = now.Add(guessEvery)
	if wait := g.wait(a); wait != 0 {
		t.Errorf("got a wait of %s after %s, want one guess", wait, guessEvery)
	}
	g.charge(a)
	if wait := g.wait(a); wait == 0 {
		t.Error("got a second guess")
	}

	// Any number of addresses that guess share the table, and what does not fit shares one budget.
	now = now.Add(time.Hour)
	let := 0
	for i := range 3 * guessTable {
		from := sourceOf(fmt.Sprintf("10.%d.%d.%d:1", i>>16, i>>8&255, i&255))
		if g.wait(from) == 0 {
			g.charge(from)
			let++
		}
	}
	if len(g.by) > guessTable || let > guessTable+guessBurst {
		t.Errorf("got %d addresses kept and %d guesses let through, want at most %d and %d", len(g.by), let, guessTable, guessTable+guessBurst)
	}
	now = now.Add(time.Hour)
	late := sourceOf("10.250.0.1:1")
	if wait := g.wait(late); wait != 0 {
		t.Errorf("got a wait of %s after an hour of rest", wait)
	}
	if g.charge(late); len(g.by) != 1 {
		t.Errorf("got %d addresses kept after an hour of rest, want the one that guessed since", len(g.by))
	}
}

func TestWhoAConnectionComesFrom(t *testing.T) {
	t.Parallel()
	for remote, want := range map[string]string{
		"192.0.2.1:80": "192.0.2.1/32", "[::ffff:192.0.2.1]:80": "192.0.2.1/32", "[2001:db8:1:2:3:4:5:6]:80": "2001:db8:1:2::/64", "[fe80::1%eth0]:80": "fe80::/64",
	} {
		if got := sourceOf(remote); got != netip.MustParsePrefix(want) {
			t.Errorf("%s: got %s, want %s", remote, got, want)
		}
	}
	if got := sourceOf("pipe"); got.IsValid() {
		t.Errorf("got %s for a connection without address", got)
	}
}
