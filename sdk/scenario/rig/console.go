package rig

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/lifeboat-dr/lifeboat/sdk/scenario/record"
)

// Line is a line of a console with the instant it was seen, at most a few milliseconds after it was printed.
type Line struct {
	Time time.Time
	Text string
}

// Console follows a serial log from its beginning. Safe for concurrent use.
type Console struct {
	path   string
	cancel context.CancelFunc
	done   chan struct{}

	mu    sync.Mutex // guards the rest
	lines []Line
	more  chan struct{} // closed and replaced when lines grows
}

// Follow starts to follow the log at path, which need not exist yet. Close ends it.
func Follow(path string) *Console {
	ctx, cancel := context.WithCancel(context.Background())
	c := &Console{path: path, cancel: cancel, done: make(chan struct{}), more: make(chan struct{})}
	go c.follow(ctx)
	return c
}

// Close stops following and waits until that is so. What was read stays readable.
func (c *Console) Close() {
	c.cancel()
	<-c.done
}

func (c *Console) follow(ctx context.Context) {
	defer close(c.done)
	var f *os.File
	defer func() {
		if f != nil {
			_ = f.Close()
		}
	}()
	var part []byte
	buf := make([]byte, 64<<10)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		if f == nil {
			f, _ = os.Open(c.path)
		}
		if f != nil {
			n, err := f.Read(buf)
			if n > 0 {
				part = c.take(append(part, buf[:n]...))
				continue
			}
			if err != nil && !errors.Is(err, io.EOF) {
				return
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// take splits what was read into lines and returns the unfinished one.
func (c *Console) take(data []byte) []byte {
	now := time.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		line, rest, ok := bytes.Cut(data, []byte("\n"))
		if !ok {
			return append([]byte(nil), data...)
		}
		c.lines = append(c.lines, Line{now, strings.TrimRight(string(line), "\r")})
		close(c.more)
		c.more = make(chan struct{})
		data = rest
	}
}

// Lines returns what was seen so far.
func (c *Console) Lines() []Line {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.lines[:len(c.lines):len(c.lines)]
}

// Wait returns the first line, at or after index from, for which want holds, and the index after it.
func (c *Console) Wait(ctx context.Context, what string, from int, want func(string) bool) (Line, int, error) {
	for {
		c.mu.Lock()
		lines, more := c.lines, c.more
		c.mu.Unlock()
		for ; from < len(lines); from++ {
			if want(lines[from].Text) {
				return lines[from], from + 1, nil
			}
		}
		select {
		case <-ctx.Done():
			return Line{}, from, fmt.Errorf("wait for %s on the console %s: %w; last lines:\n%s", what, c.path, context.Cause(ctx), tail(c.path, 5))
		case <-more:
		}
	}
}

// WaitUp waits for the line with which the guest's userspace announces itself and the verdict on its records that follows.
func (c *Console) WaitUp(ctx context.Context, from int) (up, verdict Line, next int, err error) {
	up, next, err = c.Wait(ctx, "the guest to come up", from, func(s string) bool { return strings.Contains(s, "LIFEBOAT-GUEST up ") })
	if err == nil {
		verdict, next, err = c.Wait(ctx, "the guest's verdict on its records", next, func(s string) bool { return strings.Contains(s, "RECORDS-") })
	}
	return up, verdict, next, err
}

// Shown is a record seen on a console.
type Shown struct {
	record.Shown
	Time time.Time
}

// Records returns the records seen so far, in order.
func (c *Console) Records() []Shown {
	var shown []Shown
	for _, l := range c.Lines() {
		if s, ok := record.ParseConsole(l.Text); ok {
			shown = append(shown, Shown{s, l.Time})
		}
	}
	return shown
}

// WaitRecord waits until the record with number n or a later one has been shown.
func (c *Console) WaitRecord(ctx context.Context, n int64) (Shown, error) {
	var got Shown
	l, _, err := c.Wait(ctx, fmt.Sprintf("record %d", n), 0, func(line string) bool {
		s, ok := record.ParseConsole(line)
		got.Shown = s
		return ok && s.N >= n
	})
	got.Time = l.Time
	return got, err
}

// WaitRecords waits until count more records have been shown, and returns the last of them.
func (c *Console) WaitRecords(ctx context.Context, count int64) (Shown, error) {
	var last int64
	if shown := c.Records(); len(shown) > 0 {
		last = shown[len(shown)-1].N
	}
	return c.WaitRecord(ctx, last+count)
}
