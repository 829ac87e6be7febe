package main

import (
	"bytes"
	"strings"
	"sync"
	"testing"
	"time"
)

// logbook keeps what a program logs, over its restarts, and lets tests wait for lines.
type logbook struct {
	mu   sync.Mutex // guards what follows
	text []byte     // of whole and begun lines
	more chan struct{}
}

// Write implements io.Writer.
func (l *logbook) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.text = append(l.text, p...)
	if l.more != nil && bytes.IndexByte(p, '\n') >= 0 {
		close(l.more)
		l.more = nil
	}
	return len(p), nil
}

// read returns what was logged so far, and a channel that is closed when more lines have been.
func (l *logbook) read() (string, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.more == nil {
		l.more = make(chan struct{})
	}
	return string(l.text), l.more
}

// size is how much was logged so far.
func (l *logbook) size() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.text)
}

// last returns the instant of the newest line with the words; the zero time when there is none.
func (l *logbook) last(words string) (at time.Time) {
	text, _ := l.read()
	for line := range strings.Lines(text) {
		if !strings.Contains(line, words) {
			continue
		}
		if stamp, _, ok := strings.Cut(strings.TrimPrefix(line, "time="), " "); ok {
			if t, err := time.Parse(time.RFC3339Nano, stamp); err == nil {
				at = t
			}
		}
	}
	return at
}

// wait waits until the words were logged after the given size, or the program ended by itself.
func (l *logbook) wait(t *testing.T, from int, words string, ended <-chan struct{}) {
	t.Helper()
	limit := time.NewTimer(40 * time.Second)
	defer limit.Stop()
	for {
		text, more := l.read()
		if strings.Contains(text[from:], words) {
			return
		}
		select {
		case <-more:
		case <-ended:
			t.Fatal("lifeboatd ended by itself")
		case <-limit.C:
			t.Fatalf("waited for %q to be logged", words)
		}
	}
}
