package quiesce

import (
	"fmt"
	"io"
	"sync"
)

const gateLimit = 256 << 10

// Gate passes log lines on to a writer, and keeps them in memory while it is held: the writer's file may lie on a frozen
// filesystem. Lines beyond 256 KiB are counted and dropped. Safe for concurrent use.
type Gate struct {
	w io.Writer

	mu      sync.Mutex
	held    int // windows that are open
	kept    []byte
	dropped int
}

// NewGate returns an open gate.
func NewGate(w io.Writer) *Gate { return &Gate{w: w, kept: make([]byte, 0, gateLimit)} }

// Write implements io.Writer for one whole line.
func (g *Gate) Write(p []byte) (int, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.held == 0 {
		return g.w.Write(p)
	}
	if len(g.kept)+len(p) > gateLimit {
		g.dropped++
	} else {
		g.kept = append(g.kept, p...)
	}
	return len(p), nil
}

// Hold keeps lines until Release was called as often. It waits for a line that is being written.
func (g *Gate) Hold() {
	g.mu.Lock()
	g.held++
	g.mu.Unlock()
}

// Release ends one Hold. The last one writes the kept lines and opens the gate.
func (g *Gate) Release() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.held--; g.held > 0 {
		return
	}
	if len(g.kept) > 0 {
		_, _ = g.w.Write(g.kept) // the log itself is broken: nobody to tell
	}
	if g.dropped > 0 {
		fmt.Fprintf(g.w, "%d log lines of the freeze window were dropped\n", g.dropped)
	}
	g.kept, g.dropped = g.kept[:0], 0
}
